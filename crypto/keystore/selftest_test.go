package keystore

import (
	"crypto/ecdsa"
	"crypto/rand"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// liar is a custody that does one thing wrongly.
type liar struct {
	Custody
	sign   func(sig []byte) ([]byte, error)
	unwrap func(plain []byte) ([]byte, error)
	mute   bool
}

func (l *liar) Signs() bool { return !l.mute }

func (l *liar) Sign(rand io.Reader, id sm.Digest, msg []byte) ([]byte, error) {
	sig, err := l.Custody.Sign(rand, id, msg)
	if err != nil || l.sign == nil {
		return sig, err
	}
	return l.sign(sig)
}

func (l *liar) Unwrap(id sm.Digest, sealed []byte) ([]byte, error) {
	plain, err := l.Custody.Unwrap(id, sealed)
	if err != nil || l.unwrap == nil {
		return plain, err
	}
	return l.unwrap(plain)
}

// TestSelfTestRefuses: keys that do not do what they are for, and randomness
// that is none.
func TestSelfTestRefuses(t *testing.T) {
	key, err := sm.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := newFiles("", passphrase)
	f.keys[sm.KeyID(&key.PublicKey)] = key
	nothing := func([]byte) ([]byte, error) { return nil, ErrUnavailable }
	tests := []struct {
		name string
		l    liar
		rand io.Reader
		want string // empty: passes
	}{
		{"all well", liar{}, rand.Reader, ""},
		{"signs wrongly", liar{sign: func(sig []byte) ([]byte, error) { sig[len(sig)-1] ^= 1; return sig, nil }}, rand.Reader, "does not sign"},
		{"does not sign", liar{sign: nothing}, rand.Reader, "does not answer"},
		{"is not for signing", liar{sign: nothing, mute: true}, rand.Reader, ""},
		{"decrypts wrongly", liar{unwrap: func([]byte) ([]byte, error) { return []byte("x"), nil }}, rand.Reader, "does not decrypt"},
		{"does not decrypt", liar{unwrap: nothing}, rand.Reader, "does not answer"},
		{"dead randomness", liar{}, zeros{}, "repeats itself"},
		{"broken randomness", liar{}, strings.NewReader(""), "EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.l.Custody = f
			s := newStore(&tt.l, sm.Digest{}, tt.rand)
			if err := s.derive([]byte("secret")); err != nil {
				t.Fatal(err)
			}
			err := s.SelfTest()
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestReloadWithADamagedKey: what can be read is usable, and the rest is said.
func TestReloadWithADamagedKey(t *testing.T) {
	dir, id := fresh(t)
	s, err := Open(dir, passphrase, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := Open(dir, passphrase, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var pub *ecdsa.PublicKey
	if pub, err = other.Generate(); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, sm.Sum(nil).String()+fileSuffix), "damaged")
	if err := s.Reload(); err == nil || !strings.Contains(err.Error(), "not an encrypted PKCS#8 key") {
		t.Errorf("got %v", err)
	}
	if !s.Has(id) || !s.Has(sm.KeyID(pub)) {
		t.Error("a key is not usable beside a damaged one")
	}
	s.custody.(*files).dir = filepath.Join(dir, "gone")
	if err := s.Reload(); err == nil || errors.Is(err, ErrNoKey) {
		t.Errorf("without a directory: %v", err)
	}
}
