package keystore_test

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/keystore/keystoretest"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

func TestFileKeepsTheContract(t *testing.T) {
	keystoretest.Run(t, keystoretest.Mode{
		Create:  func(dir string) (*keystore.Store, error) { return keystore.Create(dir, []byte("p"), rand.Reader) },
		Open:    func(dir string) (*keystore.Store, error) { return keystore.Open(dir, []byte("p"), rand.Reader) },
		Imports: true,
	})
}

// box is a guard in memory. down makes it fail as a lost HSM does.
type box struct {
	aead cipher.AEAD
	down bool
}

func newBox(t *testing.T) *box {
	t.Helper()
	aead, err := sm.NewGCM(make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	return &box{aead: aead}
}

func (b *box) Wrap(name string, secret []byte) ([]byte, error) {
	if b.down {
		return nil, keystore.ErrUnavailable
	}
	nonce := make([]byte, 12)
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return b.aead.Seal(nonce, nonce, secret, []byte(name)), nil
}

func (b *box) Unwrap(name string, sealed []byte) ([]byte, error) {
	if b.down {
		return nil, keystore.ErrUnavailable
	}
	if len(sealed) < 12 {
		return nil, errors.New("short")
	}
	return b.aead.Open(nil, sealed[:12], sealed[12:], []byte(name))
}

func (*box) Close() error { return nil }

func TestWrappedKeepsTheContract(t *testing.T) {
	guard := newBox(t)
	keystoretest.Run(t, keystoretest.Mode{
		Create:  func(dir string) (*keystore.Store, error) { return keystore.CreateWrapped(dir, guard, rand.Reader) },
		Open:    func(dir string) (*keystore.Store, error) { return keystore.OpenWrapped(dir, guard, rand.Reader) },
		Imports: true,
	})
}

// TestWrappedEndsWithItsGuard: without the HSM nothing signs, and afterwards
// everything does again.
func TestWrappedEndsWithItsGuard(t *testing.T) {
	guard := newBox(t)
	s, err := keystore.CreateWrapped(filepath.Join(t.TempDir(), "keys"), guard, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := s.Generate()
	if err != nil {
		t.Fatal(err)
	}
	id := sm.KeyID(pub)
	guard.down = true
	if _, err := s.Sign(id, nil); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("sign: %v", err)
	}
	if _, err := s.Unwrap(id, nil); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("unwrap: %v", err)
	}
	if _, err := s.Generate(); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("generate: %v", err)
	}
	guard.down = false
	if _, err := s.Sign(id, []byte("m")); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestWrappedFilesAreBoundToTheirNames: no file stands in for another, none is
// missing or damaged without notice.
func TestWrappedFilesAreBoundToTheirNames(t *testing.T) {
	guard := newBox(t)
	dir := filepath.Join(t.TempDir(), "keys")
	s, err := keystore.CreateWrapped(dir, guard, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for range 2 {
		pub, err := s.Generate()
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, filepath.Join(dir, sm.KeyID(pub).String()+".w8"))
	}
	one, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	storage := filepath.Join(dir, "storage.w8")
	for name, harm := range map[string]func() error{
		"exchanged":     func() error { return os.WriteFile(paths[1], one, 0o600) },
		"flipped":       func() error { return os.WriteFile(paths[1], flip(one), 0o600) },
		"readable":      func() error { return os.Chmod(paths[1], 0o644) },
		"other name":    func() error { return os.WriteFile(filepath.Join(dir, "x.w8"), one, 0o600) },
		"huge":          func() error { return os.WriteFile(paths[1], make([]byte, 1<<20), 0o600) },
		"no storage":    func() error { return os.Remove(storage) },
		"storage other": func() error { return os.WriteFile(storage, one, 0o600) },
	} {
		saved := t.TempDir()
		if err := os.CopyFS(filepath.Join(saved, "k"), os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		if err := harm(); err != nil {
			t.Fatal(err)
		}
		if _, err := keystore.OpenWrapped(dir, guard, rand.Reader); err == nil {
			t.Errorf("%s: opened", name)
		}
		restore(t, filepath.Join(saved, "k"), dir)
	}
	if _, err := keystore.OpenWrapped(dir, guard, rand.Reader); err != nil {
		t.Errorf("restored: %v", err)
	}
}

func flip(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)/2] ^= 1
	return b
}

func restore(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	names, err := os.ReadDir(to)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if err := os.Chmod(filepath.Join(to, n.Name()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
