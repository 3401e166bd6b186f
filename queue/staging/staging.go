// Package staging keeps files that come in pieces, sealed, until they become part of
// a document.
//
// A file lies in a folder of its own: data has whole pieces of 256 KiB, each sealed
// with SM4-GCM under the file's own key, and state, sealed under the node's, has what
// is durable of it: how many pieces, and what is not yet a whole one. What a state
// does not name was never acknowledged and is cut off. No plaintext touches the disk.
package staging

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// The errors of the store.
var (
	// ErrNone: the owner has no such file, or it ended.
	ErrNone = errors.New("staging: no such file")
	// ErrOffset: a piece begins elsewhere than the file ends.
	ErrOffset = errors.New("staging: not where the file ends")
	// ErrBusy: another call adds to the file.
	ErrBusy = errors.New("staging: the file is being added to")
	// ErrFull: the owner has as many files, or bytes, as it may.
	ErrFull = errors.New("staging: as many files as an owner may have")
	// ErrSize: a file of this size is not taken.
	ErrSize = errors.New("staging: a file of this size is not taken")
	// ErrUnfinished: bytes are missing.
	ErrUnfinished = errors.New("staging: the file is not whole")
	// ErrDamaged: what lies on the disk is not what was written.
	ErrDamaged = errors.New("staging: the file is damaged")
)

// Sealer encrypts a state for its place at rest.
type Sealer interface {
	SealRow(row, plain []byte) ([]byte, error)
	OpenRow(row, sealed []byte) ([]byte, error)
}

// Config of a Store. Room refuses while the disk has none; nil is never.
type Config struct {
	Dir      string
	Sealer   Sealer
	Room     func() error
	Now      func() time.Time // nil: the machine's clock
	MaxSize  int64            // bytes of one file
	MaxFiles int              // of one owner
	Keep     time.Duration    // how long a file stays without a new piece
}

// Info is what a file is.
type Info struct {
	ID      string
	Owner   string
	Size    int64
	Offset  int64 // bytes that are durable
	Meta    map[string]string
	Expires time.Time
}

// state is what is durable of a file.
type state struct {
	Owner   string            `json:"owner"`
	Size    int64             `json:"size"`
	Meta    map[string]string `json:"meta"`
	Key     []byte            `json:"key"`
	Pieces  int64             `json:"pieces"`
	Tail    []byte            `json:"tail"`
	Expires time.Time         `json:"expires"`
}

func (s *state) offset() int64 { return s.Pieces*pieceSize + int64(len(s.Tail)) }

// Store keeps files. It is safe for concurrent use; one file is added to by one call
// at a time.
type Store struct {
	c    Config
	mu   sync.Mutex
	busy map[string]bool
}

// maxState bounds the file of a state: the tail in base64, and 64 KiB.
const maxState = 2*pieceSize + 64<<10

// Open makes the folder where it is missing.
func Open(c Config) (*Store, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Room == nil {
		c.Room = func() error { return nil }
	}
	return &Store{c: c, busy: map[string]bool{}}, durable.OS.MkdirAll(c.Dir)
}

// Create makes an empty file of a size that its owner announced.
func (s *Store) Create(owner string, size int64, meta map[string]string) (*Info, error) {
	if size <= 0 || size > s.c.MaxSize {
		return nil, ErrSize
	}
	if err := s.c.Room(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	mine, err := s.list(owner)
	if err != nil {
		return nil, err
	}
	if len(mine) >= s.c.MaxFiles {
		return nil, ErrFull
	}
	key := make([]byte, 16)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	id := strings.ToLower(rand.Text())
	st := &state{Owner: owner, Size: size, Meta: meta, Key: key, Expires: s.c.Now().Add(s.c.Keep)}
	if err := durable.OS.MkdirAll(s.path(id)); err != nil {
		return nil, err
	}
	return st.info(id), s.save(id, st)
}

// MaxSize is the most that one file may have.
func (s *Store) MaxSize() int64 { return s.c.MaxSize }

func (st *state) info(id string) *Info {
	return &Info{ID: id, Owner: st.Owner, Size: st.Size, Offset: st.offset(), Meta: st.Meta, Expires: st.Expires}
}

// Info tells about a file of an owner.
func (s *Store) Info(owner, id string) (*Info, error) {
	st, err := s.load(owner, id)
	if err != nil {
		return nil, err
	}
	return st.info(id), nil
}

// Remove deletes a file.
func (s *Store) Remove(owner, id string) error {
	release, err := s.take(id)
	if err != nil {
		return err
	}
	defer release()
	if _, err := s.load(owner, id); err != nil {
		return err
	}
	return s.remove(id)
}

// Release lets a file end soon: what it was for is done, and a repetition of that may
// still ask for it.
func (s *Store) Release(owner, id string, within time.Duration) error {
	release, err := s.take(id)
	if err != nil {
		return err
	}
	defer release()
	st, err := s.load(owner, id)
	if err != nil {
		return err
	}
	if end := s.c.Now().Add(within); end.Before(st.Expires) {
		st.Expires = end
		return s.save(id, st)
	}
	return nil
}

// Sweep removes what ended, and what cannot be read and is as old.
func (s *Store) Sweep() (removed int, err error) {
	names, err := durable.OS.ReadDir(s.c.Dir)
	if err != nil {
		return 0, err
	}
	for _, id := range names {
		if !s.ended(id) {
			continue
		}
		release, busy := s.take(id)
		if busy != nil {
			continue
		}
		err = errors.Join(err, s.remove(id))
		release()
		removed++
	}
	return removed, err
}

func (s *Store) ended(id string) bool {
	st, err := s.read(id)
	if err == nil {
		return !s.c.Now().Before(st.Expires)
	}
	info, err := os.Stat(s.path(id))
	return err == nil && s.c.Now().Sub(info.ModTime()) > s.c.Keep
}

func (s *Store) path(id string) string { return filepath.Join(s.c.Dir, id) }

func (s *Store) remove(id string) error {
	// The state goes first: without it the rest is nobody's file.
	err := os.Remove(filepath.Join(s.path(id), "state"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(os.RemoveAll(s.path(id)), durable.OS.SyncDir(s.c.Dir))
}

// take keeps others from a file while it changes.
func (s *Store) take(id string) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[id] {
		return nil, ErrBusy
	}
	s.busy[id] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.busy, id)
	}, nil
}

func (s *Store) list(owner string) (mine []string, err error) {
	names, err := durable.OS.ReadDir(s.c.Dir)
	for _, id := range names {
		if st, err := s.read(id); err == nil && st.Owner == owner && s.c.Now().Before(st.Expires) {
			mine = append(mine, id)
		}
	}
	return mine, err
}

// load gives a file's state to its owner; others learn nothing of it.
func (s *Store) load(owner, id string) (*state, error) {
	st, err := s.read(id)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (st.Owner != owner || !s.c.Now().Before(st.Expires)) {
		return nil, ErrNone
	}
	return st, err
}

func (s *Store) read(id string) (*state, error) {
	if !validID(id) {
		return nil, fs.ErrNotExist
	}
	sealed, err := durable.ReadFile(durable.OS, filepath.Join(s.path(id), "state"), maxState)
	if err != nil {
		return nil, err
	}
	plain, err := s.c.Sealer.OpenRow(row(id), sealed)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	var st state
	if err := json.Unmarshal(plain, &st); err != nil || st.Pieces < 0 || len(st.Tail) >= pieceSize || st.offset() > st.Size {
		return nil, ErrDamaged
	}
	return &st, nil
}

// save makes a state durable. After a crash the file is as the last one says.
func (s *Store) save(id string, st *state) error {
	plain, err := json.Marshal(st)
	if err != nil {
		return err
	}
	sealed, err := s.c.Sealer.SealRow(row(id), plain)
	if err != nil {
		return err
	}
	return durable.WriteFile(durable.OS, filepath.Join(s.path(id), "state"), sealed)
}

func row(id string) []byte { return []byte("upload/" + id) }

func validID(id string) bool {
	return len(id) == 26 && strings.IndexFunc(id, func(c rune) bool { return (c < '2' || c > '7') && (c < 'a' || c > 'z') }) < 0
}
