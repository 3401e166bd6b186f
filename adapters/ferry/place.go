package ferry

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// folder is a directory that is reached through a descriptor: no link below leads out
// of the root.
type folder struct {
	root *os.Root
	path string // of the root
	name string // below it
}

func (f folder) at(name string) string { return filepath.Join(f.name, name) }

func (f folder) full(name string) string { return filepath.Join(f.path, f.name, name) }

// berth is where files become true under their names, and where they are written
// until then.
type berth struct {
	to, part folder
	partial  func(name string) string
}

func suffixed(name string) string { return name + partial }

// hidden is for directories that a gate looks into: what it grabs of a hidden name
// says that it is not whole.
func hidden(name string) string { return "." + name + partial }

func (b berth) place(name string, write func(io.Writer) error) error {
	part := b.part.at(b.partial(name))
	if err := removeQuietly(b.part.root, part); err != nil {
		return err
	}
	f, err := b.part.root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = b.rename(b.partial(name), name)
	}
	if err != nil {
		return errors.Join(err, removeQuietly(b.part.root, part))
	}
	return syncDir(b.to.root, b.to.name)
}

func (b berth) rename(part, name string) error {
	return rename(b.part.root, b.part.at(part), b.to, name)
}

// rename goes through descriptors of both directories, so that nobody who may write in
// one of them leads it elsewhere with a link.
func rename(from *os.Root, path string, to folder, name string) error {
	if from == to.root {
		return from.Rename(path, to.at(name))
	}
	a, err := from.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := to.root.Open(to.name)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := syscall.Renameat(int(a.Fd()), filepath.Base(path), int(b.Fd()), name); err != nil {
		return &os.LinkError{Op: "rename", Old: path, New: name, Err: err}
	}
	return nil
}

// try says whether a file can be renamed into its place at all.
func (b berth) try() error {
	const name = ".yz-try"
	err := b.place(name, func(io.Writer) error { return nil })
	if err == nil {
		err = removeQuietly(b.to.root, b.to.at(name))
	}
	if errors.Is(err, syscall.EXDEV) {
		return fmt.Errorf("files cannot be renamed from %s to %s, which is another file system: %w", b.part.full(""), b.to.full(""), err)
	}
	return err
}

// place makes a file true under its name.
func place(root *os.Root, name string, write func(io.Writer) error) error {
	at := folder{root: root, name: filepath.Dir(name)}
	return berth{at, at, suffixed}.place(filepath.Base(name), write)
}

func removeQuietly(root *os.Root, name string) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func syncDir(root *os.Root, name string) error {
	d, err := root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// move takes a file out of one folder into another, which may be on another file
// system. A crash on the way leaves it in both, or in the first.
func move(from folder, path string, to folder, name string) error {
	err := rename(from.root, path, to, name)
	if errors.Is(err, syscall.EXDEV) {
		err = copyOver(from.root, path, to, name)
	}
	if err != nil {
		return err
	}
	return errors.Join(syncDir(to.root, to.name), syncDir(from.root, filepath.Dir(path)))
}

// copyOver copies a file and removes it. What is no file is only removed.
func copyOver(from *os.Root, path string, to folder, name string) error {
	if info, err := from.Lstat(path); err != nil || !info.Mode().IsRegular() {
		return errors.Join(err, removeQuietly(from, path))
	}
	in, err := from.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	err = place(to.root, to.at(name), func(w io.Writer) error {
		_, err := io.Copy(w, io.LimitReader(in, MaxFile))
		return err
	})
	if err != nil {
		return err
	}
	return from.Remove(path)
}
