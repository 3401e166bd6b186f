package ferry

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// Kept is a directory of the node's own with the bytes of bundles that are under
// way. What an older process left there half written is removed, and [link.NewFerry]
// removes what no bundle refers to.
type Kept struct{ root *os.Root }

// OpenKept makes the directory if it is missing.
func OpenKept(dir string) (*Kept, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	k := &Kept{root}
	err = eachName(root, ".", func(name string) error {
		if strings.HasSuffix(name, partial) {
			return k.Remove(name)
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return k, nil
}

// Each implements link.Keeper. A file that is removed meanwhile is none.
func (k *Kept) Each(do func(name string, size int64) error) error {
	return eachName(k.root, ".", func(name string) error {
		info, err := k.root.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
			return nil
		}
		if err != nil {
			return err
		}
		return do(name, info.Size())
	})
}

// Close lets the directory go.
func (k *Kept) Close() error { return k.root.Close() }

// Put implements link.Keeper.
func (k *Kept) Put(name string, write func(io.Writer) error) error {
	err := place(k.root, name, write)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &exchange.Error{Code: exchange.CodeNoSpace, Temporary: true, Detail: "the bundles of a ferry that are under way are kept in " + k.root.Name(), Err: err}
	}
	return err
}

// Open implements link.Keeper.
func (k *Kept) Open(name string) (io.ReadCloser, error) { return k.root.Open(name) }

// Remove implements link.Keeper. A crash may bring the file back, which nothing
// refers to then.
func (k *Kept) Remove(name string) error {
	if err := k.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
