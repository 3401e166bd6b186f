package fileshare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// smallItem is how much of the files of an item is kept from hashing them to sending
// them; what is more is read twice.
const smallItem = 256 << 10

// worker has items one after the other.
type worker struct {
	*Import
	share *share
	dry   bool // it only says what would be done
	notes *notes
}

// verdict is what an item is found to be before the node hears of it.
type verdict struct {
	outcome Outcome // empty: it may be submitted
	fault   *Fault
	before  *placeRow // what an earlier run made of it
}

func wrong(f *Fault) *verdict { return &verdict{outcome: Quarantined, fault: f} }

func waiting(code, detail string) *verdict {
	return &verdict{outcome: Waiting, fault: &Fault{Code: code, Detail: detail}}
}

// examine checks all of an item that can be known without reading its files.
func (w *worker) examine(ctx context.Context, it *item) (*verdict, error) {
	absent := 0
	for n := range it.files {
		v, err := w.file(it, &it.files[n])
		if v != nil || err != nil {
			return v, err
		}
		if it.files[n].absent {
			absent++
		}
	}
	if absent > 0 {
		if v, err := w.putAway(ctx, it, absent); v != nil || err != nil {
			return v, err
		}
	}
	if it.fault != nil {
		return wrong(it.fault), nil
	}
	fault, err := w.recipients(ctx, it)
	if err != nil {
		return nil, err
	}
	if fault != nil {
		fault.Row = it.entry.Row
		return wrong(fault), nil
	}
	if err := it.doc.Validate(); err != nil {
		return wrong(&Fault{Code: exchange.CodeOf(err), Row: it.entry.Row, Detail: strings.TrimPrefix(err.Error(), exchange.CodeOf(err)+": ")}), nil
	}
	return &verdict{}, nil
}

// putAway tells files that an earlier run moved away from those that never came.
func (w *worker) putAway(ctx context.Context, it *item, absent int) (*verdict, error) {
	row, err := w.ledger.place(ctx, it.place)
	if row == nil || err != nil || absent < len(it.files) && !row.Moving {
		return nil, err
	}
	return &verdict{outcome: settledAs(row.Outcome), before: row}, nil
}

// settledAs is what an earlier outcome is in a later run.
func settledAs(o Outcome) Outcome {
	if o == Submitted || o == Duplicate {
		return Done
	}
	return o
}

// file looks at one file of an item. What is missing is missing only while the share
// is there.
func (w *worker) file(it *item, f *piece) (*verdict, error) {
	info, err := w.share.lstat(f.at)
	if errors.Is(err, fs.ErrNotExist) {
		if err := w.share.there(); err != nil {
			return nil, err
		}
		f.absent = true
		if it.fault == nil {
			it.fault = &Fault{Code: CodeMissing, Row: it.entry.Row, Detail: f.name}
		}
		return nil, nil
	}
	f.absent = false
	switch {
	case err != nil && !errors.Is(err, errLink):
		return wrong(unreadable(f.name, err)), w.share.there()
	case err != nil || !info.Mode().IsRegular():
		it.blame(&Fault{Code: CodeIrregular, Detail: f.name}, it.entry.Row, "")
		return nil, nil
	}
	f.size, f.file = info.Size(), true
	if !w.dry {
		whole, err := w.whole(w.share, f.at, it.mark, info)
		if err != nil {
			return nil, w.share.gone(err)
		}
		if !whole {
			return waiting(CodeUnstable, f.name), nil
		}
	}
	if f.size == 0 {
		it.blame(&Fault{Code: CodeEmpty, Detail: f.name}, it.entry.Row, "")
	}
	return nil, nil
}

// hash reads the files of an item; short ones are kept. One that changes meanwhile is
// not whole.
func (w *worker) hash(it *item) (*verdict, error) {
	room := int64(smallItem)
	for n := range it.files {
		f := &it.files[n]
		keep := f.size <= room
		if keep {
			room -= f.size
		}
		if err := w.hashFile(f, keep); err != nil {
			if gone := w.share.there(); gone != nil {
				return nil, gone
			}
			if errors.Is(err, errChanged) || errors.Is(err, fs.ErrNotExist) {
				return waiting(CodeChanged, f.name), nil
			}
			return wrong(unreadable(f.name, err)), nil
		}
	}
	return nil, nil
}

// errChanged: a file is not what it was a moment ago.
var errChanged = errors.New("fileshare: the file changed while it was read")

func (w *worker) hashFile(f *piece, keep bool) error {
	in, before, err := w.share.open(f.at)
	if err != nil {
		return err
	}
	defer in.Close()
	if before.Size() != f.size {
		return errChanged
	}
	if keep {
		f.small = make([]byte, f.size)
		if _, err := io.ReadFull(in, f.small); err != nil {
			return changed(err)
		}
		f.sum = sm.Sum(f.small)
	} else {
		h := sm.New()
		n, err := io.Copy(h, io.LimitReader(in, f.size))
		if err != nil || n < f.size {
			return changed(err)
		}
		h.Sum(f.sum[:0])
	}
	return sameAfter(in, before)
}

// changed tells a file that became shorter from trouble with the disk.
func changed(err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errChanged
	}
	return err
}

func sameAfter(in fs.File, before fs.FileInfo) error {
	after, err := in.Stat()
	if err == nil && (after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime())) {
		err = errChanged
	}
	return err
}

// process takes one item from where it is to its outcome.
func (w *worker) process(ctx context.Context, it *item) (Entry, error) {
	v, err := w.examine(ctx, it)
	if err != nil {
		return Entry{}, err
	}
	switch {
	case v.before != nil:
		e := v.before.Entry
		if e.Outcome = v.outcome; e.Outcome != Done {
			w.notes.want(it.place)
		}
		return e, nil
	case v.outcome == "" && it.batch.bad() != "":
		return w.entry(it, Held, &Fault{Code: CodeBatch, Detail: it.batch.bad()}, ""), nil
	case v.outcome == "" && !w.dry && w.settled(it):
		return w.entry(it, Done, nil, ""), nil
	case v.outcome == "":
		if v, err = w.hash(it); err != nil {
			return Entry{}, err
		}
	}
	switch {
	case v == nil:
		return w.hashed(ctx, it)
	case v.outcome == Quarantined:
		return w.quarantine(ctx, it, digest{}, nil, v.fault)
	}
	return w.entry(it, v.outcome, v.fault, ""), nil
}

func (w *worker) entry(it *item, o Outcome, f *Fault, document string) Entry {
	e := it.entry.became(o, f, w.c.Now())
	e.Document = document
	return e
}

// hashed has an item whose key is known: one at a time in this process.
func (w *worker) hashed(ctx context.Context, it *item) (Entry, error) {
	key := it.key()
	meta, err := it.metadata()
	if err != nil {
		return Entry{}, err
	}
	leave, err := w.alone(ctx, key)
	if err != nil {
		return Entry{}, err
	}
	defer leave()
	if w.dry {
		return w.foresee(ctx, it, key, meta)
	}
	now := w.c.Now()
	c, err := w.ledger.claim(ctx, key, it.place, meta, now)
	if err != nil {
		return Entry{}, err
	}
	switch {
	case c.before == nil:
		return w.submit(ctx, it, key, &itemRow{Place: it.place, Meta: meta, At: now})
	case c.before.State == submitted && c.another:
		return w.finish(ctx, it, key, nil, w.entry(it, Duplicate, &Fault{Code: CodeDuplicate, Detail: c.before.Document}, c.before.Document))
	case c.before.State == submitted:
		return w.finish(ctx, it, key, nil, w.entry(it, Done, nil, c.before.Document))
	case c.before.State == refused:
		return w.quarantine(ctx, it, key, nil, &Fault{Code: c.before.Code, Row: it.entry.Row, Detail: c.before.Detail})
	case now.Sub(c.before.At) > keyLife:
		return w.undecided(ctx, it, key)
	}
	row := *c.before // the node counts from when it was first asked
	row.Place, row.Meta = it.place, meta
	return w.submit(ctx, it, key, &row)
}

// foresee says what a run would make of an item.
func (w *worker) foresee(ctx context.Context, it *item, key, meta digest) (Entry, error) {
	row, err := w.ledger.item(ctx, key)
	switch {
	case err != nil:
		return Entry{}, err
	case row == nil, row.State == submitting, row.State == refused && row.Meta != meta:
		return w.entry(it, Ready, nil, ""), nil
	case row.State == refused:
		return w.entry(it, Quarantined, &Fault{Code: row.Code, Detail: row.Detail}, ""), nil
	case row.Place != it.place:
		return w.entry(it, Duplicate, &Fault{Code: CodeDuplicate, Detail: row.Document}, row.Document), nil
	}
	return w.entry(it, Done, nil, row.Document), nil
}

// undecided leaves what was tried so long ago that the node may have forgotten its key.
func (w *worker) undecided(ctx context.Context, it *item, key digest) (Entry, error) {
	e := w.entry(it, Undecided, &Fault{Code: CodeUndecided}, "")
	w.notes.want(it.place)
	return e, w.ledger.settle(ctx, key, nil, it.place, &placeRow{Entry: e, Key: key})
}

// alone waits until nobody else in this process has an item with the key.
func (i *Import) alone(ctx context.Context, key digest) (leave func(), err error) {
	for {
		i.mu.Lock()
		busy := i.inflight[key]
		if busy == nil {
			mine := make(chan struct{})
			i.inflight[key] = mine
			i.mu.Unlock()
			return func() {
				i.mu.Lock()
				defer i.mu.Unlock()
				delete(i.inflight, key)
				close(mine)
			}, nil
		}
		i.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// submit hands an item that is claimed to the node. A crash before the answer came
// leaves it claimed, and the same key goes again; after settle only the files are left.
func (w *worker) submit(ctx context.Context, it *item, key digest, row *itemRow) (Entry, error) {
	if err := w.crash("claimed"); err != nil {
		return Entry{}, err
	}
	up := &upload{share: w.share}
	document := ""
	err := w.gate.try(ctx, func() (err error) {
		document, err = w.node.Submit(ctx, "yzimport-"+key.String(), &it.doc, up.files(it))
		if up.changed.Load() {
			return errChanged // nothing was taken: the request had no end
		}
		return err
	})
	var no *Refused
	switch {
	case errors.Is(err, errChanged):
		return w.entry(it, Waiting, &Fault{Code: CodeChanged}, ""), w.share.there()
	case errors.As(err, &no):
		row.State, row.Code, row.Detail = refused, no.Code, no.Detail
		fault := &Fault{Code: no.Code, Row: it.entry.Row, Detail: no.Detail}
		if no.Code == exchange.CodeIdempotencyMismatch {
			fault.Code = CodeOther
			row.Code = CodeOther
		}
		return w.quarantine(ctx, it, key, row, fault)
	case err != nil:
		return Entry{}, err
	}
	if err := w.crash("answered"); err != nil {
		return Entry{}, err
	}
	row.State, row.Document = submitted, document
	return w.finish(ctx, it, key, row, w.entry(it, Submitted, nil, document))
}

// finish enters what became of an item, and puts its files away. A crash in between
// finds a file again, and that it was submitted. Of several some may be gone then, and
// the others would look like something else: the ledger says that they move.
func (w *worker) finish(ctx context.Context, it *item, key digest, row *itemRow, e Entry) (Entry, error) {
	stored := &placeRow{Entry: e, Key: key, Moving: !w.c.ReadOnly && len(it.files) > 1}
	if e.Outcome == Done {
		stored.Outcome = Submitted
	}
	if stored.Moving {
		for _, f := range it.files {
			stored.Moved, stored.Sums = append(stored.Moved, []byte(f.at)), append(stored.Sums, short(f.sum))
		}
	}
	if row != nil || !w.c.ReadOnly || e.Outcome == Duplicate {
		if err := w.ledger.settle(ctx, key, row, it.place, stored); err != nil {
			return Entry{}, err
		}
	}
	w.settle(it)
	if err := w.crash("settled"); err != nil || w.c.ReadOnly {
		return e, err
	}
	day := stored.day()
	if stored.Moving {
		if err := w.carry(ctx, it.place, stored); err != nil {
			return Entry{}, err
		}
	} else if err := w.away(it.files[0].at, path.Join(w.c.Archive, day, it.files[0].at)); err != nil {
		return Entry{}, err
	}
	if it.list == nil {
		return e, w.markAway(it.mark, day)
	}
	return e, nil
}

// day is the folder of the archive that a place's files go to.
func (r *placeRow) day() string { return r.At.In(china).Format(time.DateOnly) }

// carry moves the files of a place that are on their way, and takes its notice along. A
// run begins with those of one that ended: what is under a name since, and is another
// file than was submitted, stays.
func (w *worker) carry(ctx context.Context, p digest, row *placeRow) error {
	to := path.Join(w.c.Archive, row.day())
	if row.Outcome == Quarantined {
		to = w.c.Quarantine
		if err := w.notice(string(row.Notice), row.Entry, row.InShare); err != nil {
			return err
		}
	}
	for n, raw := range row.Moved {
		at := string(raw)
		if n < len(row.Sums) {
			same, err := w.still(at, row.Sums[n])
			if err != nil {
				return err
			}
			if !same {
				continue
			}
		}
		if err := w.away(at, path.Join(to, at)); err != nil {
			return err
		}
	}
	row.Moving = false
	return w.ledger.settle(ctx, row.Key, nil, p, row)
}

// still says whether a file is the one with this digest.
func (w *worker) still(at string, sum uint64) (bool, error) {
	info, err := w.share.lstat(at)
	if err != nil {
		return false, w.share.there()
	}
	f := piece{at: at, size: info.Size()}
	if err := w.hashFile(&f, false); err != nil {
		return false, w.share.there()
	}
	return short(f.sum) == sum, nil
}

// markAway moves the marker of a file or a list, if it has one of its own.
func (w *worker) markAway(at, day string) error {
	if w.c.Stable != Marker || !strings.Contains(w.c.Mark, "*") {
		return nil
	}
	m := markerOf(w.c.Mark, at)
	return w.away(m, path.Join(w.c.Archive, day, m))
}

// away moves one file; that it is gone is no error while the share is there.
func (w *worker) away(from, to string) error {
	if err := w.crash("move"); err != nil {
		return err
	}
	err := w.share.move(from, to)
	if errors.Is(err, fs.ErrNotExist) {
		return w.share.there()
	}
	if err != nil {
		return fmt.Errorf("fileshare: a file that was dealt with cannot be moved (is the share read-only? then say read_only): %w", w.share.gone(err))
	}
	w.notes.touch(path.Dir(from), path.Dir(to))
	return nil
}
