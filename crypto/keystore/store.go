// Package keystore keeps a node's private keys behind one small type, [Store]:
// sign and unwrap with SM2 keys, seal and open rows with SM4, blind indexes
// with HMAC-SM3, self-test. A key is named by the SM3 of its public key, so
// that keys of earlier years stay beside newer ones and are found by
// certificate: a document of 2026 opens in 2036.
//
// Where the keys are is the store's [Custody], chosen when it is made:
//
//   - file: PKCS#8 under a passphrase (PBKDF2 with HMAC-SM3, SM4-CBC, at least
//     65,536 iterations). Protects disks and backups.
//   - wrapped: PKCS#8 under a key that never leaves an HSM (a [Guard]), opened
//     for each use. Protects disks and backups, and ends with the HSM.
//   - native: inside the HSM (package pkcs11). Protects against a process that
//     was taken over, too: it may use the keys while it runs, and not copy them.
//
// The storage secret, from which the keys for rows at rest and for blind
// indexes come, is in the process's memory in every mode.
package keystore

import (
	"bytes"
	"crypto"
	"crypto/cipher"
	"crypto/ecdsa"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// The errors a caller can act on.
var (
	ErrPassphrase = errors.New("keystore: the passphrase does not open the keystore")
	// ErrPIN means that the token of an HSM refuses the PIN. Tokens lock after a
	// few wrong ones, so nobody offers it again by himself.
	ErrPIN     = errors.New("keystore: the token refuses the PIN")
	ErrNoKey   = errors.New("keystore: there is no such key")
	ErrExists  = errors.New("keystore: the directory holds a keystore already")
	ErrDamaged = errors.New("keystore: a file or row is damaged, or not of a keystore")
	// ErrUnavailable means that the HSM does not answer now: try again later.
	ErrUnavailable = errors.New("keystore: the HSM does not answer")
)

// Custody is where SM2 private keys are. Implementations are safe for
// concurrent use; when Generate and Import return, the key is durable.
//
// Reload finds keys that another process has added; keys known before stay.
// Signs is false of a device that only decrypts.
type Custody interface {
	Generate(rand io.Reader) (*ecdsa.PublicKey, error)
	Import(key *sm.PrivateKey) error
	Public() []*ecdsa.PublicKey
	Reload() error
	Signs() bool
	Sign(rand io.Reader, id sm.Digest, msg []byte) ([]byte, error)
	Unwrap(id sm.Digest, sealed []byte) ([]byte, error)
	Close() error
}

// Store is an open keystore. Safe for concurrent use.
type Store struct {
	*state
	rand io.Reader
}

// state is what views with different randomness share.
type state struct {
	custody Custody
	own     sm.Digest // a key of the custody that is the store's and nobody else's; zero if none
	rows    cipher.AEAD
	index   []byte

	mu     sync.RWMutex
	public map[sm.Digest]*ecdsa.PublicKey
}

func newStore(c Custody, own sm.Digest, rand io.Reader) *Store {
	s := &Store{&state{custody: c, own: own, public: map[sm.Digest]*ecdsa.PublicKey{}}, guarded(rand)}
	s.list()
	return s
}

// list takes over what the custody holds.
func (s *state) list() {
	held := s.custody.Public() // asked before the lock, which everybody needs
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, pub := range held {
		if id := sm.KeyID(pub); id != s.own {
			s.public[id] = pub
		}
	}
}

// Reload makes keys usable that another process has added to the same
// keystore since it was opened. No key goes away by it: what was removed on
// the disk meanwhile stays usable until the store is closed. After an error
// the keys that could be read are usable all the same.
func (s *Store) Reload() error {
	err := s.custody.Reload()
	s.list()
	return err
}

// makeDir makes the directory, which from then on belongs to its owner alone
// (0700). One that holds files of a keystore already is refused.
func makeDir(dir string) error {
	if err := durable.OS.MkdirAll(dir); err != nil {
		return fmt.Errorf("keystore: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("keystore: %w", err)
	}
	names, err := durable.OS.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("keystore: %w", err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, fileSuffix) || strings.HasSuffix(name, wrappedSuffix) || name == nativeStorage {
			return fmt.Errorf("%w: %s", ErrExists, dir)
		}
	}
	return nil
}

// derive makes the row and index keys from the storage secret.
func (s *Store) derive(secret []byte) (err error) {
	material := sm.HKDF(secret, nil, []byte("yizhan/v1/storage"), 48)
	s.rows, err = sm.NewGCM(material[:16])
	s.index = material[16:]
	return err
}

// Generate makes an SM2 key that is durable when Generate returns.
func (s *Store) Generate() (*ecdsa.PublicKey, error) {
	pub, err := s.custody.Generate(s.rand)
	if err != nil {
		return nil, err
	}
	s.add(pub)
	return pub, nil
}

// Import takes a key that was made elsewhere: the encryption key of a dual
// certificate, which an outside CA makes and delivers.
func (s *Store) Import(key *sm.PrivateKey) error {
	if err := s.custody.Import(key); err != nil {
		return err
	}
	s.add(&key.PublicKey)
	return nil
}

func (s *Store) add(pub *ecdsa.PublicKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.public[sm.KeyID(pub)] = pub
}

// Public gives the public half of a key.
func (s *Store) Public(id sm.Digest) (*ecdsa.PublicKey, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if pub := s.public[id]; pub != nil {
		return pub, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrNoKey, id)
}

// Has says whether a key is here.
func (s *Store) Has(id sm.Digest) bool {
	_, err := s.Public(id)
	return err == nil
}

// Sign signs a message with a key.
func (s *Store) Sign(id sm.Digest, msg []byte) ([]byte, error) {
	if _, err := s.Public(id); err != nil {
		return nil, err
	}
	return s.custody.Sign(s.rand, id, msg)
}

// Unwrap opens an SM2 ciphertext with a key; sm.ErrDecrypt for whatever is
// wrong with the ciphertext.
func (s *Store) Unwrap(id sm.Digest, sealed []byte) ([]byte, error) {
	if _, err := s.Public(id); err != nil {
		return nil, err
	}
	return s.custody.Unwrap(id, sealed)
}

// Signer gives a key to libraries that sign certificates. What they hand over
// is the message, not a digest of it.
func (s *Store) Signer(id sm.Digest) (crypto.Signer, error) {
	pub, err := s.Public(id)
	if err != nil {
		return nil, err
	}
	return signer{s, id, pub}, nil
}

type signer struct {
	s   *Store
	id  sm.Digest
	pub *ecdsa.PublicKey
}

func (k signer) Public() crypto.PublicKey { return k.pub }

func (k signer) Sign(_ io.Reader, msg []byte, _ crypto.SignerOpts) ([]byte, error) {
	return k.s.Sign(k.id, msg)
}

// SealRow encrypts a value for its row at rest (SM4-GCM, the row as associated
// data, a random nonce in front).
func (s *Store) SealRow(row, plain []byte) ([]byte, error) {
	out := make([]byte, 12, 12+len(plain)+sm.Overhead)
	if _, err := io.ReadFull(s.rand, out); err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	return s.rows.Seal(out, out, plain, row), nil
}

// OpenRow is the reverse of SealRow.
func (s *Store) OpenRow(row, sealed []byte) ([]byte, error) {
	if len(sealed) < 12 {
		return nil, damage{errors.New("keystore: a row at rest does not open")}
	}
	plain, err := s.rows.Open(nil, sealed[:12], sealed[12:], row)
	if err != nil {
		return nil, damage{errors.New("keystore: a row at rest does not open")}
	}
	return plain, nil
}

// MAC is a blind index: HMAC-SM3 over the parts with their lengths.
func (s *Store) MAC(parts ...[]byte) sm.Digest {
	var list [][]byte
	for _, p := range parts {
		list = append(list, binary.BigEndian.AppendUint64(nil, uint64(len(p))), p)
	}
	return sm.HMAC(s.index, list...)
}

// WithRandom gives the same keys with other randomness, for simulation.
func (s *Store) WithRandom(rand io.Reader) *Store { return &Store{s.state, guarded(rand)} }

// IDs lists the keys in the order of their ids.
func (s *Store) IDs() []sm.Digest {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.SortedFunc(maps.Keys(s.public), func(a, b sm.Digest) int { return bytes.Compare(a[:], b[:]) })
}

// Random is the store's source of randomness, safe for concurrent use: who
// signs and seals with these keys draws from it, too.
func (s *Store) Random() io.Reader { return s.rand }

// Close lets the HSM go.
func (s *Store) Close() error { return s.custody.Close() }

// guarded makes a source of randomness safe for concurrent use.
func guarded(r io.Reader) io.Reader { return &lockedReader{r: r} }

type lockedReader struct {
	mu sync.Mutex
	r  io.Reader
}

func (l *lockedReader) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Read(p)
}

// damage is an error of the class ErrDamaged: it names the file and what is
// wrong with it.
type damage struct{ error }

func (d damage) Unwrap() error        { return d.error }
func (d damage) Is(target error) bool { return target == ErrDamaged }
