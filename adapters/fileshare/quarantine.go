package fileshare

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// quarantine puts an item aside with its reason. On a share that is written its files
// move, with a notice beside them; else, or when nothing of a batch may move, the
// notice lies in the folder of the import's own state.
//
// The ledger says first that they move, so that a crash in the middle does not make a
// missing file of one that was moved.
func (w *worker) quarantine(ctx context.Context, it *item, key digest, row *itemRow, fault *Fault) (Entry, error) {
	e := w.entry(it, Quarantined, fault, "")
	if w.notes.want(it.place); w.dry {
		return e, nil
	}
	moves := !w.c.ReadOnly && it.batch == nil
	stored := &placeRow{Entry: e, Key: key, Notice: []byte(it.noticeAt()), InShare: moves}
	for _, f := range it.files {
		if moves && f.file && !f.absent && len(stored.Moved) < maxAttachments {
			stored.Moved = append(stored.Moved, []byte(f.at))
		}
	}
	stored.Moving = len(stored.Moved) > 0
	if row == nil && !stored.Moving {
		known, err := w.ledger.place(ctx, it.place)
		if err != nil || known.says(&e) {
			return e, err
		}
	}
	if !stored.Moving {
		if err := w.notice(it.noticeAt(), e, moves); err != nil {
			return Entry{}, err
		}
	}
	// A crash before this writes the notice once more; one after it moves the files.
	if err := w.ledger.settle(ctx, key, row, it.place, stored); err != nil {
		return Entry{}, err
	}
	if !stored.Moving {
		return e, nil
	}
	return e, w.carry(ctx, it.place, stored)
}

// says tells whether the same was said before.
func (r *placeRow) says(e *Entry) bool {
	return r != nil && !r.Moving && r.Outcome == e.Outcome && r.Code == e.Code && r.Column == e.Column && r.Detail == e.Detail && r.Row == e.Row
}

// noticeAt is the path of what a notice is about, below the share: the body, else the
// row of the list, as where several rows name one body. Its last part is short enough to
// get an ending.
func (it *item) noticeAt() string {
	if it.list != nil && (len(it.files) == 0 || it.files[0].absent || it.list.twice[spotOf(it.files[0].at)]) {
		return fmt.Sprintf("%s.row%d-%x", clip(it.list.at), it.entry.Row, it.place[:4])
	}
	return clip(it.files[0].at)
}

// clip shortens the last part of a path, by bytes: it names a notice.
func clip(at string) string {
	const most = 200
	if name := path.Base(at); len(name) > most {
		return path.Join(path.Dir(at), name[:most])
	}
	return at
}

// The endings of notices.
const (
	noticeJSON = ".error.json"
	noticeText = ".error.txt"
)

// notice writes why something was put aside, for programs and for people.
func (w *worker) notice(at string, e Entry, inShare bool) error {
	b, err := json.MarshalIndent(e.Words(), "", "  ")
	if err != nil {
		return err
	}
	if err := w.crash("notice"); err != nil {
		return err
	}
	root, done, name, err := w.noticeFolder(at, inShare)
	if err != nil {
		return err
	}
	defer done()
	return errors.Join(
		place(root, name+noticeJSON, append(b, '\n')),
		place(root, name+noticeText, []byte(e.Words().text())),
		syncDir(root))
}

// noticeFolder opens the folder that a notice is written into.
func (w *worker) noticeFolder(at string, inShare bool) (root *os.Root, done func(), name string, err error) {
	if inShare {
		dir := path.Dir(path.Join(w.c.Quarantine, at))
		if err := w.share.mkdir(dir); err != nil {
			return nil, nil, "", w.share.gone(err)
		}
		root, done, err = w.share.dir(dir)
		return root, done, path.Base(at), err
	}
	dir := filepath.Join(w.c.State, "quarantine")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, "", err
	}
	root, err = os.OpenRoot(dir)
	if err != nil {
		return nil, nil, "", err
	}
	// One flat folder: the path of what it is about stands in the notice.
	return root, func() { root.Close() }, clip(strings.ReplaceAll(at, "/", "_")), nil
}

// place makes a file true under its name, over an older one.
func place(root *os.Root, name string, b []byte) error {
	temp := name + ".part"
	if err := root.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return renameAt(root, temp, root, name)
}

// text is a notice for people, with the line ends of their programs.
func (e Entry) text() string {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s：%s\r\n", name, value)
		}
	}
	b.WriteString("\ufeff公文导入：未能提交\r\n\r\n")
	line("清单", e.Manifest)
	if e.Row > 0 {
		line("行号", fmt.Sprintf("第 %d 行", e.Row))
	}
	line("列", e.Column)
	line("文件", strings.Join(e.Files, "；"))
	line("原因", e.Cause)
	line("具体", e.Detail)
	line("处理", e.Remedy)
	line("代码", e.Code)
	line("时间", e.At.In(china).Format("2006-01-02 15:04:05"))
	fmt.Fprintf(&b, "\r\n%s %s\r\n", e.CauseEN+".", e.RemedyEN)
	return b.String()
}

// Retry takes what is quarantined or undecided back: its files go where they were, and
// the next run judges it anew. which are documents' or files' names of the report, none
// is all.
func (i *Import) Retry(ctx context.Context, which []string) (n int, err error) {
	s, err := openShare(&i.c)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	w := &worker{Import: i, share: s, notes: newNotes()}
	err = i.ledger.open(ctx, func(p digest, row *placeRow) error {
		if row.Outcome != Quarantined && row.Outcome != Undecided || !row.named(which) {
			return nil
		}
		if err := w.back(row); err != nil {
			return err
		}
		n++
		// A crash before this line finds the files where they were, and moves nothing.
		return w.dismiss(ctx, p, row)
	})
	return n, err
}

// dismiss forgets a place, and takes its notice away.
func (w *worker) dismiss(ctx context.Context, p digest, row *placeRow) error {
	if len(row.Notice) > 0 {
		root, done, name, err := w.noticeFolder(string(row.Notice), row.InShare)
		if err != nil {
			return err
		}
		defer done()
		for _, end := range []string{noticeJSON, noticeText} {
			if err := root.Remove(name + end); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return w.ledger.forget(ctx, p, w.c.Now())
}

func (r *placeRow) named(which []string) bool {
	if len(which) == 0 {
		return true
	}
	for _, name := range which {
		if name == r.Manifest || name == r.Document && name != "" {
			return true
		}
		for _, f := range r.Files {
			if f == name || path.Base(f) == name {
				return true
			}
		}
	}
	return false
}

// back moves files out of the quarantine, unless others are in their place.
func (w *worker) back(row *placeRow) error {
	for _, raw := range row.Moved {
		at := string(raw)
		if _, err := w.share.lstat(at); err == nil {
			continue
		}
		err := w.share.move(path.Join(w.c.Quarantine, at), at)
		if errors.Is(err, fs.ErrNotExist) {
			err = w.share.there()
		}
		if err != nil {
			return w.share.gone(err)
		}
	}
	return nil
}

// listRefused is a list that is wrong as a whole. It stays where it is: without it, the
// files around it would be taken for documents of their own.
func (w *worker) listRefused(ctx context.Context, l *list, fault *Fault) (Entry, error) {
	e := Entry{Manifest: l.shown}.became(Quarantined, fault, w.c.Now())
	if w.notes.want(l.place()); w.dry {
		return e, nil
	}
	row := &placeRow{Entry: e, Notice: []byte(clip(l.at)), InShare: !w.c.ReadOnly}
	known, err := w.ledger.place(ctx, l.place())
	if err != nil || known.says(&e) {
		return e, err
	}
	if err := w.notice(clip(l.at), e, row.InShare); err != nil {
		return Entry{}, err
	}
	return e, w.ledger.settle(ctx, digest{}, nil, l.place(), row)
}
