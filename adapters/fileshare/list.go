package fileshare

import (
	"context"
	"errors"
	"io"
	"path"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/yizhan-gateway/yizhan/adapters/fileshare/manifest"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// list is one manifest of a folder.
type list struct {
	dir, at, shown string
	table          *manifest.Table
	named          map[spot]bool // the files that its rows name
	twice          map[spot]bool // and those that several do
	batch          *batch
	rows           int

	open atomic.Int64 // rows that are under way, and one for the walk
	left atomic.Int64 // rows that somebody or something still has to do with
}

func (l *list) place() digest { return sm.Sum([]byte("list\x00" + l.at)) }

// isList says whether a file is a list by its name. 附件1：人员清单.xlsx is none. A
// sheet of a kind that is not read is one as well, and refused: else the folder would
// look like one without a list.
func (w *walk) isList(name string) bool {
	sheet := matches([]string{"*.xls", "*.xlsm", "*.et", "*.ods"}, name)
	return !isAttachment(name) && (isKind(name) || sheet) && matches(w.c.Manifests, name)
}

func isAttachment(name string) bool {
	_, is := attachmentOf(stem(name))
	return is
}

func isKind(name string) bool {
	return slices.Contains(manifest.Kinds, path.Ext(strings.ToLower(name)))
}

// hasHeadings says whether a file that is not named like a list is one.
func (w *walk) hasHeadings(at, text string) bool {
	f, _, err := w.share.open(at)
	if err != nil {
		return false
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, manifest.MaxSize+1))
	if err != nil {
		return false
	}
	_, err = manifest.Open(text, b)
	return err == nil
}

// lists opens the lists of a folder and gives their rows to the workers. broken is
// true when one of them cannot be used now: nothing of the folder is then judged.
func (w *walk) lists(ctx context.Context, dir string, names []string) (lists []*list, broken bool, err error) {
	for _, name := range names {
		l, e, err := w.openList(ctx, path.Join(dir, name))
		if err != nil {
			return nil, false, err
		}
		if l == nil {
			broken = true
			if w.items != nil {
				w.emit(e)
			}
			if w.all != nil {
				w.all.spoil(e)
			}
			continue
		}
		lists = append(lists, l)
	}
	if len(lists) > 0 && !w.dry {
		if err := w.ledger.noteList(ctx, sm.Sum([]byte(dir))); err != nil {
			return nil, false, err
		}
	}
	apart(lists)
	for _, l := range lists {
		if err := w.rows(ctx, l); err != nil {
			return nil, false, err
		}
	}
	return lists, broken, nil
}

// apart finds the files that several lists of a folder name.
func apart(lists []*list) {
	for n, a := range lists {
		for _, b := range lists[n+1:] {
			for s := range b.named {
				if a.named[s] {
					a.twice[s], b.twice[s] = true, true
				}
			}
		}
	}
}

// openList reads a list and finds out which files it names. nil is one that cannot be
// used, with what became of it.
func (w *walk) openList(ctx context.Context, at string) (*list, Entry, error) {
	l := &list{dir: path.Dir(at), at: at, named: map[spot]bool{}, twice: map[spot]bool{}, batch: w.all}
	l.shown, _ = shown(at)
	content, v, err := w.readList(l)
	if err != nil {
		return nil, Entry{}, err
	}
	if v != nil {
		return nil, Entry{Manifest: l.shown}.became(v.outcome, v.fault, w.c.Now()), nil
	}
	l.table, err = manifest.Open(l.shown, content)
	if err == nil {
		err = w.names(l)
		w.expect(l.rows)
	}
	var bad *manifest.Fault
	if errors.As(err, &bad) {
		e, err := w.listRefused(ctx, l, ofManifest(bad))
		return nil, e, err
	}
	return l, Entry{}, err
}

// readList reads a list that is whole.
func (w *walk) readList(l *list) ([]byte, *verdict, error) {
	f, info, err := w.share.open(l.at)
	if err != nil {
		return nil, nil, w.share.gone(err)
	}
	defer f.Close()
	if !w.dry {
		whole, err := w.whole(w.share, l.at, l.at, info)
		if err != nil {
			return nil, nil, w.share.gone(err)
		}
		if !whole {
			return nil, waiting(CodeUnstable, ""), nil
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, manifest.MaxSize+1))
	if err != nil {
		return nil, nil, w.share.gone(err)
	}
	if sameAfter(f, info) != nil {
		return nil, waiting(CodeChanged, ""), nil
	}
	return b, nil, nil
}

// names walks over a list once before anything of it is submitted: its shape is then
// known to be right, and so is which files are named by several rows.
func (w *walk) names(l *list) error {
	for r, err := range l.table.Rows() {
		if err != nil {
			return err
		}
		l.rows++
		it := w.share.fromRow(l, r, w.c.Defaults)
		own := map[spot]bool{}
		for _, f := range it.files {
			own[spotOf(f.at)] = true
		}
		for s := range own {
			if l.named[s] {
				l.twice[s] = true
			}
			l.named[s] = true
		}
	}
	return nil
}

// rows gives the items of a list to the workers.
func (w *walk) rows(ctx context.Context, l *list) error {
	if w.c.Atomic == ByFile {
		l.batch = new(batch)
		for r, err := range l.table.Rows() {
			if err == nil {
				err = w.try(ctx, w.share.fromRow(l, r, w.c.Defaults))
			}
			if err != nil {
				return err
			}
		}
	}
	l.open.Store(1)
	for r, err := range l.table.Rows() {
		if err == nil {
			l.open.Add(1)
			err = w.each(ctx, w.share.fromRow(l, r, w.c.Defaults))
		}
		if err != nil {
			return err
		}
	}
	if w.items == nil {
		return nil
	}
	return w.leave(l)
}
