package keystore

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"math/big"
	"path/filepath"
	"strings"
	"sync"

	"github.com/emmansun/gmsm/smx509"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// Guard encrypts small secrets (at most 4 KiB) under a key that never leaves
// an HSM. name is bound to the ciphertext: one file cannot stand in for
// another. Errors that are ErrUnavailable pass with time.
type Guard interface {
	Wrap(name string, secret []byte) ([]byte, error)
	Unwrap(name string, sealed []byte) ([]byte, error)
	Close() error
}

const (
	wrappedSuffix = ".w8"
	storageName   = "storage"
	storageSize   = 32
)

// wrapped is the custody of mode wrapped. A key is in the clear only while it
// is used.
type wrapped struct {
	dir   string
	guard Guard
	mu    sync.RWMutex
	keys  map[sm.Digest]*wrappedKey
}

type wrappedKey struct {
	pub    *ecdsa.PublicKey
	sealed []byte
}

// CreateWrapped makes a keystore of mode wrapped with a fresh storage secret.
// The store closes the guard.
func CreateWrapped(dir string, guard Guard, rand io.Reader) (*Store, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	secret := make([]byte, storageSize)
	if _, err := io.ReadFull(rand, secret); err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	w := &wrapped{dir: dir, guard: guard, keys: map[sm.Digest]*wrappedKey{}}
	// A crash before write returns leaves nothing, or a keystore without keys.
	if _, err := w.write(storageName, secret); err != nil {
		return nil, err
	}
	s := newStore(w, sm.Digest{}, rand)
	return s, s.derive(secret)
}

// OpenWrapped opens a keystore of mode wrapped. Every key is opened once, so
// that a damaged one is known now and not when a document waits for it.
func OpenWrapped(dir string, guard Guard, rand io.Reader) (*Store, error) {
	w := &wrapped{dir: dir, guard: guard, keys: map[sm.Digest]*wrappedKey{}}
	names, err := durable.OS.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	var secret []byte
	for _, file := range names {
		name, ours := strings.CutSuffix(file, wrappedSuffix)
		switch {
		case !ours:
		case name == storageName:
			_, secret, err = w.read(name)
		default:
			err = w.load(file)
		}
		if err != nil {
			return nil, err
		}
	}
	if len(secret) != storageSize {
		return nil, damage{fmt.Errorf("keystore: %s holds no wrapped storage secret: not a keystore of mode wrapped, or not all of one", dir)}
	}
	s := newStore(w, sm.Digest{}, rand)
	return s, s.derive(secret)
}

func (w *wrapped) write(name string, secret []byte) (sealed []byte, err error) {
	if sealed, err = w.guard.Wrap(name, secret); err != nil {
		return nil, err
	}
	if err := durable.WriteFile(durable.OS, filepath.Join(w.dir, name+wrappedSuffix), sealed); err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	return sealed, nil
}

func (w *wrapped) read(name string) (sealed, secret []byte, err error) {
	path := filepath.Join(w.dir, name+wrappedSuffix)
	if err := private(path); err != nil {
		return nil, nil, err
	}
	if sealed, err = durable.ReadFile(durable.OS, path, maxKeyFile); err != nil {
		return nil, nil, fmt.Errorf("keystore: %w", err)
	}
	if secret, err = w.guard.Unwrap(name, sealed); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return sealed, secret, nil
}

func (w *wrapped) load(file string) error {
	name := strings.TrimSuffix(file, wrappedSuffix)
	id, err := sm.ParseDigest(name)
	if err != nil {
		return damage{fmt.Errorf("keystore: %s is not named by a key id: %w", file, err)}
	}
	sealed, der, err := w.read(name)
	if err != nil {
		return err
	}
	defer clear(der)
	parsed, err := smx509.ParsePKCS8PrivateKey(der)
	key, ok := parsed.(*sm.PrivateKey)
	if err != nil || !ok || sm.KeyID(&key.PublicKey) != id {
		return damage{fmt.Errorf("keystore: %s is damaged: it holds another key than its name says; restore it", file)}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.keys[id] = &wrappedKey{&key.PublicKey, sealed}
	return nil
}

// Reload implements Custody.
func (w *wrapped) Reload() error {
	return eachNew(w.dir, wrappedSuffix, storageName, func(id sm.Digest) bool {
		_, err := w.key(id)
		return err == nil
	}, w.load)
}

// Signs implements Custody.
func (*wrapped) Signs() bool { return true }

// Generate implements Custody.
func (w *wrapped) Generate(rand io.Reader) (*ecdsa.PublicKey, error) {
	key, err := sm.GenerateKey(rand)
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	return &key.PublicKey, w.Import(key)
}

// Import implements Custody.
func (w *wrapped) Import(key *sm.PrivateKey) error {
	der, err := smx509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("keystore: %w", err)
	}
	defer clear(der)
	id := sm.KeyID(&key.PublicKey)
	sealed, err := w.write(id.String(), der)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.keys[id] = &wrappedKey{&key.PublicKey, sealed}
	return nil
}

// Public implements Custody.
func (w *wrapped) Public() []*ecdsa.PublicKey {
	w.mu.RLock()
	defer w.mu.RUnlock()
	var out []*ecdsa.PublicKey
	for _, key := range w.keys {
		out = append(out, key.pub)
	}
	return out
}

func (w *wrapped) key(id sm.Digest) (*wrappedKey, error) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if kept := w.keys[id]; kept != nil {
		return kept, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrNoKey, id)
}

// with opens a key for one use and wipes it.
func (w *wrapped) with(kept *wrappedKey, id sm.Digest, use func(*sm.PrivateKey) error) error {
	der, err := w.guard.Unwrap(id.String(), kept.sealed)
	if err != nil {
		return err
	}
	defer clear(der)
	secret, err := pkcs8Scalar(der)
	if err != nil {
		return err
	}
	key := new(sm.PrivateKey)
	key.PublicKey, key.D = *kept.pub, new(big.Int).SetBytes(secret)
	defer clear(key.D.Bits())
	return use(key)
}

// pkcs8Scalar finds the scalar in a PKCS#8 key (RFC 5208, RFC 5915) that the
// guard has authenticated and that was checked when the store was opened; the
// public half is known, and to compute it again would cost as much as signing.
func pkcs8Scalar(der []byte) ([]byte, error) {
	var outer, inner, octets, scalar cryptobyte.String
	in := cryptobyte.String(der)
	ok := in.ReadASN1(&outer, asn1.SEQUENCE) && outer.SkipASN1(asn1.INTEGER) && outer.SkipASN1(asn1.SEQUENCE) &&
		outer.ReadASN1(&octets, asn1.OCTET_STRING) &&
		octets.ReadASN1(&inner, asn1.SEQUENCE) && inner.SkipASN1(asn1.INTEGER) &&
		inner.ReadASN1(&scalar, asn1.OCTET_STRING)
	if !ok || len(scalar) != 32 {
		return nil, damage{errors.New("keystore: a wrapped key is not PKCS#8 of an SM2 key")}
	}
	return scalar, nil
}

// Sign implements Custody.
func (w *wrapped) Sign(rand io.Reader, id sm.Digest, msg []byte) (sig []byte, err error) {
	kept, err := w.key(id)
	if err != nil {
		return nil, err
	}
	// Of the public key that is kept, what the digest needs is remembered; the
	// one beside the private key is new at each use.
	digest, err := sm.SignatureDigest(kept.pub, msg)
	if err != nil {
		return nil, err
	}
	err = w.with(kept, id, func(key *sm.PrivateKey) (err error) {
		sig, err = sm.SignDigest(rand, key, digest)
		return err
	})
	return sig, err
}

// Unwrap implements Custody.
func (w *wrapped) Unwrap(id sm.Digest, sealed []byte) (plain []byte, err error) {
	kept, err := w.key(id)
	if err != nil {
		return nil, err
	}
	err = w.with(kept, id, func(key *sm.PrivateKey) (err error) {
		plain, err = sm.Decrypt(key, sealed)
		return err
	})
	return plain, err
}

// Close implements Custody.
func (w *wrapped) Close() error { return w.guard.Close() }
