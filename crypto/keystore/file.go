// Package keystore keeps a node's private keys: SM2 keys as PKCS#8 files under
// a passphrase (PBKDF2 with HMAC-SM3, SM4-CBC, at least 65,536 iterations) and
// a storage secret from which the keys for rows at rest and for blind indexes
// are derived. A key is named by the SM3 of its public key, so that keys of
// earlier years stay beside newer ones and are found by certificate.
//
// What is protected: disks and backups. A process that was taken over has the
// keys in its memory; an HSM in native mode is what helps there.
package keystore

import (
	"bytes"
	"crypto"
	"crypto/cipher"
	"crypto/ecdsa"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/emmansun/gmsm/pkcs"
	"github.com/emmansun/gmsm/pkcs8"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// Iterations of PBKDF2 for new files; files with fewer are refused.
const Iterations = 65536

const (
	saltSize   = 16
	maxKeyFile = 8 << 10
	suffix     = ".p8"
	pemType    = "ENCRYPTED PRIVATE KEY"
	// The storage secret's file begins with this. It is named by its key id
	// like any other, so that a damaged secret is noticed before it makes
	// every row at rest unreadable.
	storagePrefix = "storage-"
)

// The errors a caller can act on.
var (
	ErrPassphrase = errors.New("keystore: the passphrase does not open the keystore")
	ErrNoKey      = errors.New("keystore: there is no such key")
	ErrExists     = errors.New("keystore: the directory holds a keystore already")
)

// File is an open keystore directory. Safe for concurrent use.
type File struct {
	*keyring
	rand io.Reader
}

// keyring is what views with different randomness share.
type keyring struct {
	dir        string
	passphrase []byte
	mu         sync.RWMutex
	keys       map[sm.Digest]*sm.PrivateKey
	rows       cipher.AEAD
	index      []byte
}

// Create makes a keystore with a fresh storage secret in dir, which from then
// on belongs to its owner alone (0700). A directory that holds keys already is
// refused with ErrExists.
func Create(dir string, passphrase []byte, rand io.Reader) (*File, error) {
	if len(passphrase) == 0 {
		return nil, errors.New("keystore: an empty passphrase protects nothing: choose one")
	}
	if err := durable.OS.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	names, err := durable.OS.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, suffix) {
			return nil, fmt.Errorf("%w: %s", ErrExists, dir)
		}
	}
	secret, err := sm.GenerateKey(rand)
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	f := newFile(dir, passphrase, rand)
	// A crash before write returns leaves nothing, or a keystore without keys.
	if err := f.write(storagePrefix+sm.KeyID(&secret.PublicKey).String()+suffix, secret); err != nil {
		return nil, err
	}
	return f, f.derive(secret)
}

func newFile(dir string, passphrase []byte, rand io.Reader) *File {
	return &File{&keyring{dir: dir, passphrase: bytes.Clone(passphrase), keys: map[sm.Digest]*sm.PrivateKey{}}, guarded(rand)}
}

// Open opens a keystore and every key in it: ErrPassphrase for a wrong
// passphrase. Key files that others may read are refused, and so are such with
// fewer than Iterations iterations.
func Open(dir string, passphrase []byte, rand io.Reader) (*File, error) {
	if len(passphrase) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrPassphrase)
	}
	f := newFile(dir, passphrase, rand)
	names, err := durable.OS.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	for _, name := range names {
		// What ends in .tmp was being written when the power went: no key that
		// anyone was told of.
		if !strings.HasSuffix(name, suffix) {
			continue
		}
		if err := f.load(name); err != nil {
			return nil, err
		}
	}
	if f.rows == nil {
		return nil, fmt.Errorf("keystore: %s holds no storage secret: not a keystore, or not all of one", dir)
	}
	return f, nil
}

// load reads one file of the keystore, named by the id of the key it holds.
func (f *File) load(name string) error {
	text, storage := strings.CutPrefix(strings.TrimSuffix(name, suffix), storagePrefix)
	id, err := sm.ParseDigest(text)
	if err != nil {
		return fmt.Errorf("keystore: %s is not named by a key id: %w", name, err)
	}
	key, err := f.read(name)
	if err != nil {
		return err
	}
	if sm.KeyID(&key.PublicKey) != id {
		return fmt.Errorf("keystore: %s is damaged: it holds another key than its name says; restore it", name)
	}
	if !storage {
		f.keys[id] = key
		return nil
	}
	if f.rows != nil {
		return errors.New("keystore: two storage secrets: which one is meant? remove the other")
	}
	return f.derive(key)
}

// derive makes the row and index keys from the storage secret. It is an SM2
// scalar only so that one file format holds all secrets; nothing signs with it.
func (f *File) derive(secret *sm.PrivateKey) (err error) {
	var scalar [32]byte
	secret.D.FillBytes(scalar[:])
	material := sm.HKDF(scalar[:], nil, []byte("yizhan/v1/storage"), 48)
	f.rows, err = sm.NewGCM(material[:16])
	f.index = material[16:]
	return err
}

func (f *File) write(name string, key *sm.PrivateKey) error {
	der, err := pkcs8.MarshalPrivateKey(key, f.passphrase, pkcs.NewSMPBESEncrypter(saltSize, Iterations))
	if err != nil {
		return fmt.Errorf("keystore: %w", err)
	}
	b := pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})
	if err := durable.WriteFile(durable.OS, filepath.Join(f.dir, name), b); err != nil {
		return fmt.Errorf("keystore: %w", err)
	}
	return nil
}

func (f *File) read(name string) (*sm.PrivateKey, error) {
	path := filepath.Join(f.dir, name)
	if err := private(path); err != nil {
		return nil, err
	}
	b, err := durable.ReadFile(durable.OS, path, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != pemType || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("keystore: %s is not an encrypted PKCS#8 key", name)
	}
	if _, err := iterations(block.Bytes); err != nil {
		return nil, fmt.Errorf("keystore: %s: %w", name, err)
	}
	key, err := pkcs8.ParsePKCS8PrivateKeySM2(block.Bytes, f.passphrase)
	if err != nil {
		// Encryption without a tag cannot tell a wrong passphrase from damage.
		return nil, fmt.Errorf("%w: %s; if the passphrase is right, the file is damaged: restore it", ErrPassphrase, name)
	}
	return key, nil
}

// Generate makes an SM2 key that is durable when Generate returns.
func (f *File) Generate() (*ecdsa.PublicKey, error) {
	key, err := sm.GenerateKey(f.rand)
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	id := sm.KeyID(&key.PublicKey)
	if err := f.write(id.String()+suffix, key); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys[id] = key
	return &key.PublicKey, nil
}

func (f *File) key(id sm.Digest) (*sm.PrivateKey, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if key := f.keys[id]; key != nil {
		return key, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrNoKey, id)
}

// Has says whether a key is here.
func (f *File) Has(id sm.Digest) bool {
	_, err := f.key(id)
	return err == nil
}

// Sign signs a message with a key.
func (f *File) Sign(id sm.Digest, msg []byte) ([]byte, error) {
	key, err := f.key(id)
	if err != nil {
		return nil, err
	}
	return sm.Sign(f.rand, key, msg)
}

// Signer gives a key to libraries that sign certificates.
func (f *File) Signer(id sm.Digest) (crypto.Signer, error) {
	key, err := f.key(id)
	if err != nil {
		return nil, err
	}
	return key, nil
}

// Unwrap opens an SM2 ciphertext with a key; sm.ErrDecrypt for whatever is
// wrong with the ciphertext.
func (f *File) Unwrap(id sm.Digest, sealed []byte) ([]byte, error) {
	key, err := f.key(id)
	if err != nil {
		return nil, err
	}
	return sm.Decrypt(key, sealed)
}

// SealRow encrypts a value for its row at rest (SM4-GCM, the row as associated
// data, a random nonce in front).
func (f *File) SealRow(row, plain []byte) ([]byte, error) {
	out := make([]byte, 12, 12+len(plain)+sm.Overhead)
	if _, err := io.ReadFull(f.rand, out); err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	return f.rows.Seal(out, out, plain, row), nil
}

// OpenRow is the reverse of SealRow.
func (f *File) OpenRow(row, sealed []byte) ([]byte, error) {
	if len(sealed) < 12 {
		return nil, errors.New("keystore: a row at rest does not open")
	}
	plain, err := f.rows.Open(nil, sealed[:12], sealed[12:], row)
	if err != nil {
		return nil, errors.New("keystore: a row at rest does not open")
	}
	return plain, nil
}

// MAC is a blind index: HMAC-SM3 over the parts with their lengths.
func (f *File) MAC(parts ...[]byte) sm.Digest {
	var list [][]byte
	for _, p := range parts {
		list = append(list, binary.BigEndian.AppendUint64(nil, uint64(len(p))), p)
	}
	return sm.HMAC(f.index, list...)
}

// WithRandom gives the same keys with other randomness, for simulation.
func (f *File) WithRandom(rand io.Reader) *File { return &File{f.keyring, guarded(rand)} }

// IDs lists the keys in the order of their ids.
func (f *File) IDs() []sm.Digest {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return slices.SortedFunc(maps.Keys(f.keys), func(a, b sm.Digest) int { return bytes.Compare(a[:], b[:]) })
}

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
