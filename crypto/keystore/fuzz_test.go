package keystore

import (
	"bytes"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// FuzzKeyFile: whatever lies in a key file, reading it ends in an error or in
// the key that the file is named by, and no error holds the passphrase or what
// the file holds.
func FuzzKeyFile(f *testing.F) {
	store, from := shared()
	id := store.IDs()[0]
	name := id.String() + fileSuffix
	good, err := os.ReadFile(filepath.Join(from, "keys", name))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n"))
	f.Add([]byte{})
	dir := f.TempDir()
	path := filepath.Join(dir, name)
	f.Fuzz(func(t *testing.T, b []byte) {
		if block, _ := pem.Decode(b); block != nil {
			if n, err := iterations(block.Bytes); err == nil && n > 2*Iterations {
				return // accepted and slow: not what is asked here
			}
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		ring := newFiles(dir, passphrase)
		err := ring.load(name)
		if err != nil {
			if bytes.Contains([]byte(err.Error()), passphrase) {
				t.Fatal("the passphrase is in the error")
			}
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrPassphrase) {
				t.Fatalf("an error without a class: %v", err)
			}
			if len(ring.keys) > 0 {
				t.Fatal("a key beside an error")
			}
			return
		}
		if ring.keys[id] == nil {
			t.Fatal("another key than the file is named by")
		}
	})
}

// FuzzOpenRow: only what was sealed for a row opens for it.
func FuzzOpenRow(f *testing.F) {
	store, _ := shared()
	row := []byte("row")
	sealed, err := store.SealRow(row, []byte("title"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(row, sealed)
	f.Add([]byte("other"), sealed)
	f.Add(row, sealed[:11])
	f.Fuzz(func(t *testing.T, r, b []byte) {
		_, err := store.OpenRow(r, b)
		// Another process of this campaign sealed with other keys: equal bytes
		// are necessary, not sufficient.
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatalf("an error without a class: %v", err)
		}
		if err == nil && !(bytes.Equal(r, row) && bytes.Equal(b, sealed)) {
			t.Fatalf("%x opens for row %x", b, r)
		}
		if _, again := store.OpenRow(r, b); err != nil && again.Error() != err.Error() {
			t.Fatal("two errors")
		}
	})
}
