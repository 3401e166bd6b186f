package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// TestNoNetworkFileSystem: wherever the directory, its store, its blobs or a disk
// that was added lie, with the name of what is wrong and the way out in both
// languages.
func TestNoNetworkFileSystem(t *testing.T) {
	d := dataDir(t.TempDir())
	if err := os.MkdirAll(d.path(blobsDir), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.path(blobsDir), "roots.json"), []byte(`{"store":"x","roots":["/mnt/disk2","/mnt/disk3"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for kind, name := range unsafeFileSystems {
		for _, where := range []string{string(d), d.path(storeDir), d.path(blobsDir), "/mnt/disk3"} {
			err := d.checkFileSystem(func(path string) (uint32, error) {
				switch {
				case path == where:
					return kind, nil
				case path == d.path(storeDir):
					return 0, fs.ErrNotExist
				}
				return 0xEF53, nil
			})
			if exchange.CodeOf(err) != exchange.CodeFileSystem || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), where) {
				t.Errorf("%s on %s: %v", where, name, err)
			}
		}
	}
	for _, safe := range []uint32{0xEF53, 0x58465342, 0x9123683E, 0x01021994, 0x794C7630} { // ext4, XFS, btrfs, tmpfs, overlay
		if err := d.checkFileSystem(func(string) (uint32, error) { return safe, nil }); err != nil {
			t.Errorf("%#x: %v", safe, err)
		}
	}
	for _, lang := range []string{"zh", "en"} {
		if exchange.Explain(exchange.CodeFileSystem, lang) == exchange.Explain(exchange.CodeInternal, lang) {
			t.Error("no remedy is named")
		}
	}
	if kind, err := fileSystemOf(t.TempDir()); err != nil || kind == 0 {
		t.Errorf("the file system of a directory: %#x, %v", kind, err)
	}
	if _, err := fileSystemOf(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
}

// TestOneProcessPerIdentity: a copy of a data directory does not start beside
// its original, whatever locks it has, and does afterwards.
func TestOneProcessPerIdentity(t *testing.T) {
	key := []byte("key " + t.TempDir())
	leave, err := holdIdentity(key, "jia", 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = holdIdentity(key, "jia", 0)
	if exchange.CodeOf(err) != exchange.CodeSetupConflict || !strings.Contains(err.Error(), "node jia") || !isBusy(err) {
		t.Errorf("a second process: %v", err)
	}
	other, err := holdIdentity([]byte("another key "+t.TempDir()), "yi", 0)
	if err != nil {
		t.Errorf("another node: %v", err)
	}
	if err := errors.Join(leave(), other()); err != nil {
		t.Fatal(err)
	}
	again, err := holdIdentity(key, "jia", 0)
	if err != nil {
		t.Fatalf("after its end: %v", err)
	}
	if err := again(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat("@yizhan"); err == nil {
		t.Error("the name is a file")
	}
}
