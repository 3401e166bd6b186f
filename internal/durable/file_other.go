//go:build !linux

package durable

func (f osFile) Datasync() error { return f.Sync() }

func (f osFile) Allocate(size int64) error { return f.Truncate(size) }
