// Package keystoretest is the contract that a keystore of every mode keeps.
package keystoretest

import (
	"bytes"
	"crypto/rand"
	"errors"
	"path/filepath"
	"sync"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// Mode makes and opens keystores of one mode. Imports says whether it takes
// keys that were made elsewhere.
type Mode struct {
	Create, Open func(dir string) (*keystore.Store, error)
	Imports      bool
}

// Run holds a mode to the contract.
func Run(t *testing.T, m Mode) {
	t.Run("keys and rows outlive the process", m.outlives)
	t.Run("unwrap has one error", m.oneError)
	t.Run("unknown keys", m.unknown)
	t.Run("import", m.imports)
	t.Run("a second keystore is refused", m.twice)
	t.Run("keys of another process", m.reload)
	t.Run("concurrent use", m.concurrent)
}

func (m Mode) fresh(t *testing.T) (*keystore.Store, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	s, err := m.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // some were closed by the test
	return s, dir
}

func generate(t *testing.T, s *keystore.Store) sm.Digest {
	t.Helper()
	pub, err := s.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return sm.KeyID(pub)
}

func (m Mode) outlives(t *testing.T) {
	s, dir := m.fresh(t)
	first, second := generate(t, s), generate(t, s)
	pub, err := s.Public(first)
	if err != nil {
		t.Fatal(err)
	}
	slot, err := sm.Encrypt(rand.Reader, pub, []byte("file key of 2026"))
	if err != nil {
		t.Fatal(err)
	}
	row, err := s.SealRow([]byte("row"), []byte("title"))
	if err != nil {
		t.Fatal(err)
	}
	index := s.MAC([]byte("a"), []byte("b"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = m.Open(dir); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.SelfTest(); err != nil {
		t.Error(err)
	}
	if len(s.IDs()) != 2 || !s.Has(first) || !s.Has(second) {
		t.Errorf("keys after opening: %v", s.IDs())
	}
	if plain, err := s.Unwrap(first, slot); err != nil || string(plain) != "file key of 2026" {
		t.Errorf("unwrap: %q, %v", plain, err)
	}
	if plain, err := s.OpenRow([]byte("row"), row); err != nil || string(plain) != "title" {
		t.Errorf("row: %q, %v", plain, err)
	}
	if _, err := s.OpenRow([]byte("other row"), row); err == nil {
		t.Error("a row opened as another")
	}
	if s.MAC([]byte("a"), []byte("b")) != index || s.MAC([]byte("ab")) == index {
		t.Error("blind index")
	}
	sig, err := s.Sign(second, []byte("message"))
	if pub, _ := s.Public(second); err != nil || !sm.Verify(pub, []byte("message"), sig) {
		t.Errorf("sign: %v", err)
	}
}

func (m Mode) oneError(t *testing.T) {
	s, _ := m.fresh(t)
	id, other := generate(t, s), generate(t, s)
	pub, err := s.Public(id)
	if err != nil {
		t.Fatal(err)
	}
	good, err := sm.Encrypt(rand.Reader, pub, []byte("file key"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Unwrap(other, good); err != sm.ErrDecrypt {
		t.Errorf("another key: %v", err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		if _, err := s.Unwrap(id, bad); err != sm.ErrDecrypt {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
	for _, bad := range [][]byte{nil, good[:len(good)-1], append(bytes.Clone(good), 0)} {
		if _, err := s.Unwrap(id, bad); err != sm.ErrDecrypt {
			t.Errorf("%d bytes: %v", len(bad), err)
		}
	}
	if plain, err := s.Unwrap(id, good); err != nil || string(plain) != "file key" {
		t.Errorf("afterwards: %q, %v", plain, err)
	}
}

func (m Mode) unknown(t *testing.T) {
	s, _ := m.fresh(t)
	nobody := sm.Sum([]byte("nobody"))
	if _, err := s.Sign(nobody, nil); !errors.Is(err, keystore.ErrNoKey) {
		t.Errorf("sign: %v", err)
	}
	if _, err := s.Unwrap(nobody, nil); !errors.Is(err, keystore.ErrNoKey) {
		t.Errorf("unwrap: %v", err)
	}
	if k, err := s.Signer(nobody); !errors.Is(err, keystore.ErrNoKey) || k != nil {
		t.Errorf("signer: %v, %v", k, err)
	}
}

func (m Mode) imports(t *testing.T) {
	s, dir := m.fresh(t)
	key, err := sm.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Import(key); (err == nil) != m.Imports {
		t.Fatalf("import: %v", err)
	}
	if !m.Imports {
		return
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = m.Open(dir); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if sig, err := s.Sign(sm.KeyID(&key.PublicKey), []byte("m")); err != nil || !sm.Verify(&key.PublicKey, []byte("m"), sig) {
		t.Errorf("the imported key does not sign after opening: %v", err)
	}
}

// reload: a second store over the same keys stands for another process.
func (m Mode) reload(t *testing.T) {
	s, dir := m.fresh(t)
	old := generate(t, s)
	before := len(s.IDs()) // a token may hold keys of earlier stores
	other, err := m.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	added := generate(t, other)
	if s.Has(added) {
		t.Fatal("the first store knew the key before it looked")
	}
	for range 2 { // the second time nothing is new
		if err := s.Reload(); err != nil {
			t.Fatal(err)
		}
		if !s.Has(old) || !s.Has(added) || len(s.IDs()) != before+1 {
			t.Fatalf("keys after looking: %v", s.IDs())
		}
	}
	view := s.WithRandom(rand.Reader) // views share the keys
	sig, err := view.Sign(added, []byte("m"))
	if pub, _ := s.Public(added); err != nil || !sm.Verify(pub, []byte("m"), sig) {
		t.Errorf("sign with the new key: %v", err)
	}
	if err := s.SelfTest(); err != nil {
		t.Error(err)
	}
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			if err := s.Reload(); err != nil {
				t.Error(err)
			}
			if _, err := s.Sign(old, []byte("m")); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
}

func (m Mode) twice(t *testing.T) {
	s, dir := m.fresh(t)
	generate(t, s)
	if _, err := m.Create(dir); !errors.Is(err, keystore.ErrExists) {
		t.Errorf("a second one in the same place: %v", err)
	}
}

func (m Mode) concurrent(t *testing.T) {
	s, _ := m.fresh(t)
	id := generate(t, s)
	pub, err := s.Public(id)
	if err != nil {
		t.Fatal(err)
	}
	slot, err := sm.Encrypt(rand.Reader, pub, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for range 10 {
				sig, err := s.Sign(id, []byte("m"))
				if err != nil || !sm.Verify(pub, []byte("m"), sig) {
					t.Errorf("sign: %v", err)
				}
				if _, err := s.Unwrap(id, slot); err != nil {
					t.Errorf("unwrap: %v", err)
				}
			}
		})
	}
	wait.Wait()
}
