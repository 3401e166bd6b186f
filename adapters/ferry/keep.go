package ferry

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// Kept is a directory of the node's own with the bytes of bundles that are under
// way. What an older process left there of a bundle that never got its number is
// replaced by the next one of that number.
type Kept struct{ root *os.Root }

// OpenKept makes the directory if it is missing.
func OpenKept(dir string) (*Kept, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	return &Kept{root}, err
}

// Close lets the directory go.
func (k *Kept) Close() error { return k.root.Close() }

// Put implements link.Keeper.
func (k *Kept) Put(name string, write func(io.Writer) error) error { return place(k.root, name, write) }

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
