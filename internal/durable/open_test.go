package durable

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestOnlyRegularFilesAreOpened: a named pipe would be waited for without end,
// a device read without end.
func TestOnlyRegularFilesAreOpened(t *testing.T) {
	dir := t.TempDir()
	pipe, file, link := filepath.Join(dir, "pipe"), filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := errors.Join(syscall.Mkfifo(pipe, 0o600), os.WriteFile(file, []byte("x"), 0o600), os.Symlink(pipe, link)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{pipe, link, dir, "/dev/zero"} {
		if _, err := ReadFile(OS, name, 10); !errors.Is(err, ErrIrregular) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, err := ReadFile(OS, file, 10); err != nil || string(b) != "x" {
		t.Errorf("a file: %q, %v", b, err)
	}
	if _, err := ReadFile(OS, filepath.Join(dir, "none"), 10); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if !isDescriptor("/dev/stdin") || !isDescriptor("/dev/fd/63") {
		t.Error("what the shell passes is not read")
	}
}
