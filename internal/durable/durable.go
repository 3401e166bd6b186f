// Package durable is how files become true on disk: written under a temporary
// name, fsynced, renamed, and their directory fsynced. Skipping any of the
// four leaves empty, torn or missing files after a power cut, on ext4 and XFS
// alike.
//
// The file system is an interface so that the simulation can put one in its
// place that loses whatever was not synced.
package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// FS is the little of a file system that durable writing needs.
type FS interface {
	// Create makes a new file, mode 0600; an existing one is an error.
	Create(name string) (File, error)
	Open(name string) (File, error)
	// OpenForWrite opens an existing file for reading and writing.
	OpenForWrite(name string) (File, error)
	Rename(from, to string) error
	Remove(name string) error
	// ReadDir lists the names in a directory, sorted.
	ReadDir(name string) ([]string, error)
	// MkdirAll makes a directory and its parents, mode 0700, durably.
	MkdirAll(name string) error
	// SyncDir makes the directory's entries durable.
	SyncDir(name string) error
	// Free tells how many bytes may still be written below a directory.
	Free(name string) (int64, error)
}

// File is an open file.
type File interface {
	io.Reader
	io.Writer
	io.Seeker
	io.Closer
	io.ReaderAt
	io.WriterAt
	Sync() error
	// Datasync makes the content durable, and of the rest only what reading
	// it back needs.
	Datasync() error
	// Allocate makes the file size bytes long, zeros where nothing was, with
	// room on the disk where the system can reserve it.
	Allocate(size int64) error
	Truncate(size int64) error
	Size() (int64, error)
}

// OS is the machine's file system.
var OS FS = osFS{}

type osFS struct{}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (osFS) Create(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Open(name string) (File, error) {
	f, err := OpenRegular(name)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// ErrIrregular marks a name that is there and is no file to read.
var ErrIrregular = errors.New("not a regular file")

// OpenRegular opens a file for reading. Opening a named pipe would wait for
// its writer for ever, and a device may never end: they are refused. What the
// shell passes as a descriptor of ours, /dev/stdin or <(command), is read.
func OpenRegular(name string) (*os.File, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() && !isDescriptor(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: ErrIrregular}
	}
	return os.Open(name)
}

func isDescriptor(name string) bool {
	return name == "/dev/stdin" || strings.HasPrefix(name, "/dev/fd/") || strings.HasPrefix(name, "/proc/self/fd/")
}

func (osFS) OpenForWrite(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Rename(from, to string) error { return os.Rename(from, to) }
func (osFS) Remove(name string) error     { return os.Remove(name) }

func (osFS) ReadDir(name string) ([]string, error) {
	list, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.Name()
	}
	return names, nil
}

// MkdirAll syncs the parent of each directory it makes: a directory that a
// power cut takes back takes its synced files along.
func (o osFS) MkdirAll(name string) error {
	if info, err := os.Stat(name); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("durable: %s is not a directory", name)
		}
		return nil
	}
	parent := filepath.Dir(name)
	if parent != name {
		if err := o.MkdirAll(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return o.SyncDir(parent)
}

func (osFS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// WriteFile replaces a file's content as a whole: after a crash it is the old
// one or the new one.
func WriteFile(fsys FS, name string, data []byte) error {
	temp := name + ".tmp"
	if err := fsys.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeSynced(fsys, temp, data); err != nil {
		return errors.Join(err, ignoreMissing(fsys.Remove(temp)))
	}
	if err := fsys.Rename(temp, name); err != nil {
		return err
	}
	// A crash here may show the old content, which is why the caller may only
	// rely on the new one once WriteFile has returned.
	return fsys.SyncDir(filepath.Dir(name))
}

func writeSynced(fsys FS, name string, data []byte) error {
	f, err := fsys.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// ReadFile reads a file of at most atMost bytes.
func ReadFile(fsys FS, name string, atMost int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, atMost+1))
	if err == nil && int64(len(b)) > atMost {
		err = fmt.Errorf("durable: %s is larger than %d bytes", filepath.Base(name), atMost)
	}
	return b, err
}
