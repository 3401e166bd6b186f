// Package crashfs is a file system in memory that forgets like a disk whose
// power is cut: what was written and not synced may be lost, torn or full of
// zeros, and directory entries that were not synced may be as they were at any
// point since. It exists for tests and for the simulation.
package crashfs

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"

	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// FS implements durable.FS. It is for one goroutine.
type FS struct {
	rng  *rand.Rand
	dirs map[string]*dir

	// Before is called before every operation that changes something; a
	// non-nil error makes the operation fail. It may panic to cut the power.
	Before func(op, name string) error
	// After is called when the operation has taken effect, like Before.
	After func(op, name string) error
	// Room is what Free tells of directories.
	Room map[string]int64
}

type dir struct {
	now     map[string]*inode
	durable map[string]*inode
	pending []change // since the last SyncDir, in order
	fresh   bool     // its own name is not synced
}

// change is one directory operation: name now means node (nil: nothing).
type change []entry

type entry struct {
	name string
	node *inode
}

// New makes an empty file system whose forgetting is drawn from rng.
func New(rng *rand.Rand) *FS {
	return &FS{rng: rng, dirs: map[string]*dir{".": newDir(), "/": newDir()}}
}

func newDir() *dir { return &dir{now: map[string]*inode{}, durable: map[string]*inode{}} }

var errInjected = errors.New("crashfs: injected fault")

// ErrInjected is for Before and After to return.
func ErrInjected() error { return errInjected }

// do runs a change between the two hooks.
func (f *FS) do(op, name string, effect func() error) error {
	if f.Before != nil {
		if err := f.Before(op, name); err != nil {
			return err
		}
	}
	if err := effect(); err != nil {
		return err
	}
	if f.After != nil {
		return f.After(op, name)
	}
	return nil
}

func (f *FS) at(name string) (*dir, string, error) {
	name = filepath.Clean(name)
	d := f.dirs[filepath.Dir(name)]
	if d == nil {
		return nil, "", &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return d, filepath.Base(name), nil
}

func (d *dir) apply(c change) {
	for _, e := range c {
		if e.node == nil {
			delete(d.now, e.name)
		} else {
			d.now[e.name] = e.node
		}
	}
	d.pending = append(d.pending, c)
}

// Create implements durable.FS.
func (f *FS) Create(name string) (durable.File, error) {
	d, base, err := f.at(name)
	if err != nil {
		return nil, err
	}
	if d.now[base] != nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	}
	n := new(inode)
	err = f.do("create", name, func() error { d.apply(change{{base, n}}); return nil })
	if err != nil {
		return nil, err
	}
	return &file{fs: f, name: name, node: n}, nil
}

// Open implements durable.FS.
func (f *FS) Open(name string) (durable.File, error) {
	d, base, err := f.at(name)
	if err != nil {
		return nil, err
	}
	n := d.now[base]
	if n == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &file{fs: f, name: name, node: n}, nil
}

// OpenForWrite implements durable.FS.
func (f *FS) OpenForWrite(name string) (durable.File, error) { return f.Open(name) }

// Rename implements durable.FS within one directory.
func (f *FS) Rename(from, to string) error {
	d, a, err := f.at(from)
	if err != nil {
		return err
	}
	if filepath.Dir(filepath.Clean(from)) != filepath.Dir(filepath.Clean(to)) {
		return errors.New("crashfs: rename stays in its directory")
	}
	n := d.now[a]
	if n == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	return f.do("rename", to, func() error { d.apply(change{{a, nil}, {filepath.Base(to), n}}); return nil })
}

// Remove implements durable.FS.
func (f *FS) Remove(name string) error {
	d, base, err := f.at(name)
	if err != nil {
		return err
	}
	if d.now[base] == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	return f.do("remove", name, func() error { d.apply(change{{base, nil}}); return nil })
}

// ReadDir implements durable.FS.
func (f *FS) ReadDir(name string) ([]string, error) {
	d := f.dirs[filepath.Clean(name)]
	if d == nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	var names []string
	for n := range d.now {
		names = append(names, n)
	}
	slices.Sort(names)
	return names, nil
}

// MkdirAll implements durable.FS; directories are durable at once.
func (f *FS) MkdirAll(name string) error {
	for name = filepath.Clean(name); f.dirs[name] == nil; name = filepath.Dir(name) {
		f.dirs[name] = newDir()
	}
	return nil
}

// Mkdir makes a directory as a person does: its name is durable once the
// directory above it is synced.
func (f *FS) Mkdir(name string) {
	d := newDir()
	d.fresh = true
	f.dirs[filepath.Clean(name)] = d
}

// SyncDir implements durable.FS.
func (f *FS) SyncDir(name string) error {
	d := f.dirs[filepath.Clean(name)]
	if d == nil {
		return &fs.PathError{Op: "syncdir", Path: name, Err: fs.ErrNotExist}
	}
	return f.do("syncdir", name, func() error {
		d.settle(len(d.pending))
		for path, below := range f.dirs {
			if filepath.Dir(path) == filepath.Clean(name) {
				below.fresh = false
			}
		}
		return nil
	})
}

// Free implements durable.FS.
func (f *FS) Free(name string) (int64, error) {
	if f.dirs[filepath.Clean(name)] == nil {
		return 0, &fs.PathError{Op: "free", Path: name, Err: fs.ErrNotExist}
	}
	return f.Room[filepath.Clean(name)], nil
}

// settle makes the first n pending changes durable.
func (d *dir) settle(n int) {
	for _, c := range d.pending[:n] {
		for _, e := range c {
			if e.node == nil {
				delete(d.durable, e.name)
			} else {
				d.durable[e.name] = e.node
			}
		}
	}
	d.pending = d.pending[n:]
}

// Crash cuts the power: open files are gone, and what was not synced is as
// the disk happens to have it.
func (f *FS) Crash() {
	var names []string
	for name := range f.dirs {
		names = append(names, name)
	}
	slices.Sort(names) // the same seed forgets the same
	for _, name := range names {
		d := f.dirs[name]
		if d == nil {
			continue // it went with one above it
		}
		if d.fresh && f.rng.IntN(2) == 0 {
			f.lose(name)
			continue
		}
		d.fresh = false
		d.settle(f.rng.IntN(len(d.pending) + 1))
		d.pending = nil
		d.now = map[string]*inode{}
		var entries []string
		for e := range d.durable {
			entries = append(entries, e)
		}
		slices.Sort(entries)
		for _, e := range entries {
			n := d.durable[e]
			n.forget(f.rng)
			d.now[e] = n
		}
	}
}

// lose takes a directory away with all that lies below it.
func (f *FS) lose(name string) {
	for path := range f.dirs {
		if path == name || strings.HasPrefix(path, name+"/") {
			delete(f.dirs, path)
		}
	}
}

// Corrupt flips one bit of a file, as rot on the disk would.
func (f *FS) Corrupt(name string, bit int) error {
	d, base, err := f.at(name)
	if err != nil {
		return err
	}
	n := d.now[base]
	if n == nil || len(n.data) == 0 {
		return fmt.Errorf("crashfs: nothing to corrupt at %s", name)
	}
	n.data[bit/8%len(n.data)] ^= 1 << (bit % 8)
	return nil
}
