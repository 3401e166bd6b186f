package ferry

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Whoever fills a folder may put any number of files there, and may keep us from
// removing them. So no look at one holds more than a number of entries in memory, and
// the next look goes on where one ended: nothing hides anything for ever.

// eachName gives all names in a folder, in no order, a few at a time.
func eachName(root *os.Root, folder string, do func(name string) error) error {
	d, err := root.Open(folder)
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(1000)
		for _, name := range names {
			if err := do(name); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// which lists the names that are wanted, in order, no more of them than most.
func (f folder) which(most int, want func(name string) bool) (names []string, err error) {
	err = eachName(f.root, f.name, func(name string) error {
		if len(names) < most && want(name) {
			names = append(names, name)
		}
		return nil
	})
	slices.Sort(names)
	return names, err
}

// namesFrom gives the first names in a folder that are not before one, in order, no
// more of them than most.
func namesFrom(root *os.Root, folder, from string, most int) (names []string, err error) {
	last, full := "", false // of those that are kept
	cut := func() {
		slices.Sort(names)
		if len(names) >= most {
			names = names[:most]
			last, full = names[most-1], true
		}
	}
	err = eachName(root, folder, func(name string) error {
		if name < from || full && name > last {
			return nil
		}
		if names = append(names, name); len(names) >= 2*most {
			cut()
		}
		return nil
	})
	cut()
	return names, err
}

// found is a file below a folder, at a path below its root.
type found struct {
	path string
	info fs.FileInfo
}

// files lists what is no folder, in the folder and some levels of folders in it, for
// gates that carry folders as well. Links are listed, never followed. It begins at a
// path below the folder, goes by names, and looks at so many entries; next is where to
// go on, and empty when that was all.
func (f folder) files(from string, most int) (list []found, next string, err error) {
	w := &walk{root: f.root, left: most}
	err = w.look(f.name, "", from, 0)
	return w.list, w.next, err
}

type walk struct {
	root *os.Root
	left int // entries that may still be looked at
	list []found
	next string
}

func (w *walk) look(at, below, from string, depth int) error {
	first, rest, _ := strings.Cut(from, "/")
	names, err := namesFrom(w.root, at, first, w.left+1)
	if depth > 0 && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)) { // the gate took it back, or it is not for us: lost+found
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		if w.left == 0 {
			w.next = filepath.Join(below, name)
			return nil
		}
		from := ""
		if name == first {
			from = rest
		}
		if from == "" { // else it was counted when it was begun, and each look gets on
			w.left--
		}
		err := w.entry(filepath.Join(at, name), filepath.Join(below, name), from, depth)
		if err != nil || w.next != "" {
			return err
		}
	}
	return nil
}

func (w *walk) entry(path, below, from string, depth int) error {
	info, err := w.root.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
	case err != nil:
		return err
	case !info.IsDir():
		w.list = append(w.list, found{path, info})
	case depth < maxDepth && !strings.HasPrefix(filepath.Base(path), "."):
		return w.look(path, below, from, depth+1)
	}
	return nil
}
