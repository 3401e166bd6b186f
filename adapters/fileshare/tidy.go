package fileshare

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"sync"
)

// notes are what a pass has to do at its end.
type notes struct {
	mu     sync.Mutex
	dirs   map[string]bool // whose names changed
	wanted map[digest]bool // places that somebody still has to do with
}

func newNotes() *notes { return &notes{dirs: map[string]bool{}, wanted: map[digest]bool{}} }

func (n *notes) touch(dirs ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range dirs {
		n.dirs[d] = true
	}
}

func (n *notes) want(place digest) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wanted[place] = true
}

// goOn moves what a run that ended was moving.
func (w *walk) goOn(ctx context.Context) error {
	return w.ledger.open(ctx, func(p digest, row *placeRow) error {
		if !row.Moving {
			return nil
		}
		return w.carry(ctx, p, row)
	})
}

// tidy makes moves durable, one that a crash takes back is made again, and forgets what
// was wrong and is no more: a row that was corrected is another one.
func (w *walk) tidy(ctx context.Context, complete bool) (err error) {
	for d := range w.notes.dirs {
		if e := w.share.sync(d); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	if !complete {
		return err
	}
	return errors.Join(err, w.ledger.open(ctx, func(p digest, row *placeRow) error {
		if w.notes.wanted[p] || row.Outcome != Quarantined {
			return nil
		}
		kept, err := w.kept(row)
		if kept || err != nil {
			return err
		}
		return w.dismiss(ctx, p, row)
	}))
}

// kept says whether files of a place lie in the quarantine.
func (w *worker) kept(row *placeRow) (bool, error) {
	for _, at := range row.Moved {
		_, err := w.share.lstat(path.Join(w.c.Quarantine, string(at)))
		if !errors.Is(err, fs.ErrNotExist) {
			return true, err
		}
	}
	return false, w.share.there()
}
