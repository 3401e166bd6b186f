package keystore

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"path/filepath"
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
	fileSuffix = ".p8"
	pemType    = "ENCRYPTED PRIVATE KEY"
	// The storage secret's file begins with this. It is named by its key id
	// like any other, so that a damaged secret is noticed before it makes
	// every row at rest unreadable.
	storagePrefix = "storage-"
)

// files is the custody of mode file: one PKCS#8 file for each key, all keys in
// memory while the store is open.
type files struct {
	dir        string
	passphrase []byte
	mu         sync.RWMutex
	keys       map[sm.Digest]*sm.PrivateKey
	storage    *sm.PrivateKey
}

// Create makes a keystore of mode file with a fresh storage secret in dir. A
// directory that holds keys already is refused with ErrExists.
func Create(dir string, passphrase []byte, rand io.Reader) (*Store, error) {
	if len(passphrase) == 0 {
		return nil, errors.New("keystore: an empty passphrase protects nothing: choose one")
	}
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	secret, err := sm.GenerateKey(rand)
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	f := newFiles(dir, passphrase)
	// A crash before write returns leaves nothing, or a keystore without keys.
	if err := f.write(storagePrefix+sm.KeyID(&secret.PublicKey).String()+fileSuffix, secret); err != nil {
		return nil, err
	}
	s := newStore(f, sm.Digest{}, rand)
	return s, s.derive(scalar(secret))
}

func newFiles(dir string, passphrase []byte) *files {
	return &files{dir: dir, passphrase: bytes.Clone(passphrase), keys: map[sm.Digest]*sm.PrivateKey{}}
}

// Open opens a keystore of mode file and every key in it: ErrPassphrase for a
// wrong passphrase. Key files that others may read are refused, and so are
// such with fewer than Iterations iterations.
func Open(dir string, passphrase []byte, rand io.Reader) (*Store, error) {
	if len(passphrase) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrPassphrase)
	}
	f := newFiles(dir, passphrase)
	names, err := durable.OS.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	for _, name := range names {
		// What ends in .tmp was being written when the power went: no key that
		// anyone was told of.
		if !strings.HasSuffix(name, fileSuffix) {
			continue
		}
		if err := f.load(name); err != nil {
			return nil, err
		}
	}
	if f.storage == nil {
		return nil, damage{fmt.Errorf("keystore: %s holds no storage secret: not a keystore, or not all of one", dir)}
	}
	s := newStore(f, sm.Digest{}, rand)
	return s, s.derive(scalar(f.storage))
}

// load reads one file of the keystore, named by the id of the key it holds.
func (f *files) load(name string) error {
	text, storage := strings.CutPrefix(strings.TrimSuffix(name, fileSuffix), storagePrefix)
	id, err := sm.ParseDigest(text)
	if err != nil {
		return damage{fmt.Errorf("keystore: %s is not named by a key id: %w", name, err)}
	}
	key, err := f.read(name)
	if err != nil {
		return err
	}
	if sm.KeyID(&key.PublicKey) != id {
		return damage{fmt.Errorf("keystore: %s is damaged: it holds another key than its name says; restore it", name)}
	}
	if !storage {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.keys[id] = key
		return nil
	}
	if f.storage != nil {
		return damage{errors.New("keystore: two storage secrets: which one is meant? remove the other")}
	}
	f.storage = key
	return nil
}

// scalar is the secret of a key. The storage secret is an SM2 scalar only so
// that one file format holds all secrets; nothing signs with it.
func scalar(key *sm.PrivateKey) []byte { return key.D.FillBytes(make([]byte, 32)) }

func (f *files) write(name string, key *sm.PrivateKey) error {
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

func (f *files) read(name string) (*sm.PrivateKey, error) {
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
		return nil, damage{fmt.Errorf("keystore: %s is not an encrypted PKCS#8 key", name)}
	}
	if _, err := iterations(block.Bytes); err != nil {
		return nil, damage{fmt.Errorf("keystore: %s: %w", name, err)}
	}
	key, err := pkcs8.ParsePKCS8PrivateKeySM2(block.Bytes, f.passphrase)
	if err != nil {
		// Encryption without a tag cannot tell a wrong passphrase from damage.
		return nil, fmt.Errorf("%w: %s; if the passphrase is right, the file is damaged: restore it", ErrPassphrase, name)
	}
	return key, nil
}

// Generate implements Custody.
func (f *files) Generate(rand io.Reader) (*ecdsa.PublicKey, error) {
	key, err := sm.GenerateKey(rand)
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	return &key.PublicKey, f.Import(key)
}

// Import implements Custody.
func (f *files) Import(key *sm.PrivateKey) error {
	id := sm.KeyID(&key.PublicKey)
	if err := f.write(id.String()+fileSuffix, key); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys[id] = key
	return nil
}

func (f *files) key(id sm.Digest) (*sm.PrivateKey, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if key := f.keys[id]; key != nil {
		return key, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrNoKey, id)
}

// Public implements Custody.
func (f *files) Public() []*ecdsa.PublicKey {
	f.mu.RLock()
	defer f.mu.RUnlock()
	var out []*ecdsa.PublicKey
	for _, key := range f.keys {
		out = append(out, &key.PublicKey)
	}
	return out
}

// Reload implements Custody: it reads the files of keys that are not known
// yet. One that cannot be read keeps none of the others away.
func (f *files) Reload() error {
	return eachNew(f.dir, fileSuffix, storagePrefix, func(id sm.Digest) bool {
		_, err := f.key(id)
		return err == nil
	}, f.load)
}

// eachNew calls load with the name of every file in dir that ends in suffix
// and whose key is not known; files that begin with storage are left alone.
func eachNew(dir, suffix, storage string, known func(sm.Digest) bool, load func(name string) error) error {
	names, err := durable.OS.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("keystore: %w", err)
	}
	var all []error
	for _, name := range names {
		text, ours := strings.CutSuffix(name, suffix)
		if !ours || strings.HasPrefix(text, storage) {
			continue
		}
		if id, err := sm.ParseDigest(text); err == nil && known(id) {
			continue
		}
		all = append(all, load(name))
	}
	return errors.Join(all...)
}

// Signs implements Custody.
func (*files) Signs() bool { return true }

// Sign implements Custody.
func (f *files) Sign(rand io.Reader, id sm.Digest, msg []byte) ([]byte, error) {
	key, err := f.key(id)
	if err != nil {
		return nil, err
	}
	return sm.Sign(rand, key, msg)
}

// Unwrap implements Custody.
func (f *files) Unwrap(id sm.Digest, sealed []byte) ([]byte, error) {
	key, err := f.key(id)
	if err != nil {
		return nil, err
	}
	return sm.Decrypt(key, sealed)
}

// Close implements Custody.
func (f *files) Close() error { return nil }
