//go:build !linux

package durable

func (f osFile) Datasync() error { return f.Sync() }

func (f osFile) Allocate(size int64) error { return f.Truncate(size) }

// Free cannot be told here: all directories have the same.
func (osFS) Free(string) (int64, error) { return 0, nil }
