package rest

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// The scopes of an API key.
const (
	ScopeSend    = "send"    // submit, list and trace sent documents
	ScopeReceive = "receive" // inbox, collect, sign for, return
	ScopeManage  = "manage"  // webhooks
)

// Scopes lists all scopes.
var Scopes = []string{ScopeSend, ScopeReceive, ScopeManage}

// Key is an API key as it is stored: never the secret, only its SM3.
type Key struct {
	ID      string     `json:"id"`
	Agency  string     `json:"agency"`
	Scopes  []string   `json:"scopes"`
	Hash    sm.Digest  `json:"hash"`
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires,omitempty"`
	Note    string     `json:"note,omitempty"`

	// Certificate is the SM3 of the client certificate (DER) that stands for the key.
	Certificate sm.Digest `json:"certificate,omitzero"`
}

// KeyRing is the file of a node's API keys. Keys made by another process are
// seen at the next use, revoked ones refused from then on.
type KeyRing struct {
	path string

	mu   sync.Mutex
	raw  string
	keys map[sm.Digest]Key
	seen fileState // under which keys need no other look at the file
}

// fileState tells a file from what it was before: a file that was replaced or
// written has another time of change. The zero value is of no file.
type fileState struct {
	dev, ino       uint64
	size           int64
	changed, mtime syscall.Timespec
}

// settled is for how long a file must not have changed before its state is relied
// on: within a tick of the file system's clock two changes have one time.
const settled = time.Second

func stateOf(path string) (s fileState) {
	info, err := os.Stat(path)
	if err != nil {
		return s
	}
	of, ok := info.Sys().(*syscall.Stat_t)
	if !ok || time.Since(time.Unix(of.Ctim.Unix())).Abs() < settled {
		return s
	}
	return fileState{uint64(of.Dev), of.Ino, of.Size, of.Ctim, of.Mtim}
}

// OpenKeyRing reads the file; a missing one is an empty ring.
func OpenKeyRing(path string) (*KeyRing, error) {
	k := &KeyRing{path: path}
	_, err := k.load()
	return k, err
}

const maxKeyFile = 4 << 20

// load reads the file again when it changed.
func (k *KeyRing) load() (map[sm.Digest]Key, error) {
	state := stateOf(k.path) // before the file is read: what changes it meanwhile is seen next time
	k.mu.Lock()
	known := k.keys
	if state == (fileState{}) || state != k.seen {
		known = nil
	}
	k.mu.Unlock()
	if known != nil {
		return known, nil
	}
	b, err := durable.ReadFile(durable.OS, k.path, maxKeyFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys != nil && string(b) == k.raw {
		k.seen = state
		return k.keys, nil
	}
	var list []Key
	if len(b) > 0 {
		if err := json.Unmarshal(b, &list); err != nil {
			return nil, fmt.Errorf("rest: %s is unreadable: %w", k.path, err)
		}
	}
	keys := make(map[sm.Digest]Key, len(list))
	for _, key := range list {
		keys[key.Hash] = key
	}
	k.raw, k.keys, k.seen = string(b), keys, state
	return keys, nil
}

// Create makes a key; the secret is shown this once.
func (k *KeyRing) Create(rand io.Reader, agency certs.AgencyCode, scopes []string, expires *time.Time, note string, now time.Time) (secret string, key Key, err error) {
	if secret, key, err = newKey(rand, agency, scopes, expires, note, now); err != nil {
		return "", Key{}, err
	}
	return secret, key, k.change(func(list []Key) []Key { return append(list, key) })
}

func newKey(rand io.Reader, agency certs.AgencyCode, scopes []string, expires *time.Time, note string, now time.Time) (secret string, key Key, err error) {
	for _, s := range scopes {
		if !slices.Contains(Scopes, s) {
			return "", Key{}, exchange.Fail(exchange.CodeBadRequest, "scope %.20q: one of %s is expected", s, strings.Join(Scopes, ", "))
		}
	}
	random := make([]byte, 36)
	if _, err := io.ReadFull(rand, random); err != nil {
		return "", Key{}, err
	}
	secret = "yzk_" + base64.RawURLEncoding.EncodeToString(random[4:])
	key = Key{
		ID: fmt.Sprintf("%x", random[:4]), Agency: string(agency), Scopes: scopes,
		Hash: sm.Sum([]byte(secret)), Created: now.UTC(), Expires: expires, Note: note,
	}
	return secret, key, nil
}

// Bind makes a key for whoever holds the key of a client certificate (DER). No
// secret stands for it: its hash is of one that is thrown away.
func (k *KeyRing) Bind(rand io.Reader, certificate []byte, agency certs.AgencyCode, scopes []string, expires *time.Time, note string, now time.Time) (Key, error) {
	_, key, err := newKey(rand, agency, scopes, expires, note, now)
	if err != nil {
		return Key{}, err
	}
	key.Certificate = sm.Sum(certificate)
	if _, err := k.certified(key.Certificate, now); err == nil {
		return Key{}, exchange.Fail(exchange.CodeBadRequest, "certificate: it stands for a key already; revoke that first")
	}
	return key, k.change(func(list []Key) []Key { return append(list, key) })
}

// certified gives the key of a certificate.
func (k *KeyRing) certified(id sm.Digest, now time.Time) (*Key, error) {
	keys, err := k.load()
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		if !key.Certificate.IsZero() && sm.Equal(key.Certificate, id) {
			return key.valid(now)
		}
	}
	return nil, exchange.Fail(exchange.CodeUnauthenticated, "the client certificate is not known here")
}

func (k Key) valid(now time.Time) (*Key, error) {
	if k.Expires != nil && now.After(*k.Expires) {
		return nil, exchange.Fail(exchange.CodeUnauthenticated, "the key expired on %s", k.Expires.Format(time.DateOnly))
	}
	return &k, nil
}

// List gives the keys in the order of their making.
func (k *KeyRing) List() ([]Key, error) {
	keys, err := k.load()
	if err != nil {
		return nil, err
	}
	return sortedKeys(keys), nil
}

func sortedKeys(keys map[sm.Digest]Key) []Key {
	var list []Key
	for _, key := range keys {
		list = append(list, key)
	}
	slices.SortFunc(list, func(a, b Key) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list
}

// Revoke removes a key.
func (k *KeyRing) Revoke(id string) error {
	found := false
	err := k.change(func(list []Key) []Key {
		return slices.DeleteFunc(list, func(key Key) bool { found = found || key.ID == id; return key.ID == id })
	})
	if err == nil && !found {
		err = exchange.Fail(exchange.CodeNotFound, "API key %.40q", id)
	}
	return err
}

func (k *KeyRing) change(fn func([]Key) []Key) error {
	keys, err := k.load()
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(fn(sortedKeys(keys)), "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(durable.OS, k.path, append(b, '\n'))
}

// find gives the key of a presented secret. The look-up is by SM3, so that
// time tells nothing about how much of a secret was right.
func (k *KeyRing) find(secret string, now time.Time) (*Key, error) {
	keys, err := k.load()
	if err != nil {
		return nil, err
	}
	sum := sm.Sum([]byte(secret))
	key, ok := keys[sum]
	if !ok || !sm.Equal(key.Hash, sum) {
		return nil, exchange.Fail(exchange.CodeUnauthenticated, "the key is not known here")
	}
	return key.valid(now)
}
