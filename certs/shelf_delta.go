package certs

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// Bounds of the updates that are kept in memory: one for each version that a
// neighbour may have, as far as they fit.
const (
	readyUpdates = kept + 1
	readyBytes   = 64 << 20
)

// updates are those that were made to the directory in force. Many links ask
// for the same ones, at every bundle.
type updates struct {
	making sync.Mutex // one at a time is made: it takes several times its size

	mu    sync.Mutex // guards what follows
	to    *Directory
	list  []madeUpdate // the one made first first
	bytes int
}

type madeUpdate struct {
	from  uint64
	bytes []byte
}

func (u *updates) get(from uint64, to *Directory) ([]byte, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.to != to {
		return nil, false
	}
	i := slices.IndexFunc(u.list, func(m madeUpdate) bool { return m.from == from })
	if i < 0 {
		return nil, false
	}
	return u.list[i].bytes, true
}

// put keeps an update, unless it is to a version that was replaced meanwhile.
func (u *updates) put(from uint64, to *Directory, b []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.to != to {
		if u.to != nil && u.to.Version() > to.Version() {
			return
		}
		u.to, u.list, u.bytes = to, nil, 0
	}
	u.list, u.bytes = append(u.list, madeUpdate{from, b}), u.bytes+len(b)
	for len(u.list) > readyUpdates || u.bytes > readyBytes {
		u.bytes -= len(u.list[0].bytes)
		u.list = slices.Delete(u.list, 0, 1)
	}
}

// Delta makes the update from a version to the one in force; it must not be
// changed. It is nil when that version is not kept here, or not older. From 0
// it brings every entry, and so leads on from any version. Installing goes on
// while it is made.
func (s *Shelf) Delta(from uint64) ([]byte, error) {
	d := s.Current()
	if d == nil || from >= d.Version() {
		return nil, nil
	}
	if b, ok := s.updates.get(from, d); ok {
		return b, nil
	}
	s.updates.making.Lock()
	defer s.updates.making.Unlock()
	if b, ok := s.updates.get(from, d); ok { // while this call waited
		return b, nil
	}
	b, err := s.makeUpdate(from, d)
	if b != nil && err == nil {
		s.updates.put(from, d, b)
	}
	return b, err
}

func (s *Shelf) makeUpdate(from uint64, d *Directory) ([]byte, error) {
	var had []sm.Digest
	if from > 0 {
		file, err := durable.ReadFile(s.fs, s.copyOf(from), MaxDirectory)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if had, err = listed(file); err != nil {
			return nil, fmt.Errorf("certs: the kept directory version %d: %w", from, err)
		}
	}
	return d.deltaFrom(from, had)
}
