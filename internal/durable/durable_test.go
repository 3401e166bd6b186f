package durable

import (
	"path/filepath"
	"testing"
)

// TestAllocatedFile: room is zeros of the size asked for, allocating keeps
// what is written, and a file opened for writing is cut to what is used.
func TestAllocatedFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	f, err := OS.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = f.WriteAt([]byte("word"), 10)
	must(t, err)
	must(t, f.Allocate(1<<16))
	must(t, f.Datasync())
	if n, err := f.Size(); err != nil || n != 1<<16 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	b := make([]byte, 15)
	_, err = f.ReadAt(b, 0)
	must(t, err)
	if string(b) != "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00word\x00" {
		t.Fatalf("reads %q", b)
	}
	w, err := OS.OpenForWrite(name)
	must(t, err)
	defer w.Close()
	must(t, w.Truncate(14))
	if n, err := f.Size(); err != nil || n != 14 {
		t.Fatalf("%d bytes after truncation, %v", n, err)
	}
	if _, err := OS.OpenForWrite(name + "x"); err == nil {
		t.Error("a file that is not there was opened for writing")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
