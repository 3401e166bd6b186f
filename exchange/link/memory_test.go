package link

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/queue"
)

// memory is a queue.Store in memory. fail, when set, is asked before every
// commit; its error is the commit's, and nothing is written. lost is asked after
// it: with an error whoever committed does not know that it happened. late gets the
// next commit, to do it when nobody waits for it any more.
type memory struct {
	mu   sync.Mutex
	rows map[string][]byte
	fail func() error
	lost func() error
	late func(commit func() error) error
}

func newMemory() *memory { return &memory{rows: map[string][]byte{}} }

func (m *memory) clone() *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &memory{rows: maps.Clone(m.rows)}
}

func (m *memory) Update(ctx context.Context, fn func(queue.Tx) error) error {
	if late := m.late; late != nil {
		m.late = nil
		return late(func() error { return m.Update(ctx, fn) })
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t := &memoryTx{rows: maps.Clone(m.rows)}
	if err := fn(t); err != nil {
		return err
	}
	if t.broken != nil {
		return t.broken
	}
	if m.fail != nil {
		if err := m.fail(); err != nil {
			return err
		}
	}
	m.rows = t.rows
	if m.lost != nil {
		return m.lost()
	}
	return nil
}

func (m *memory) View(ctx context.Context, fn func(queue.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return fn(&memoryTx{rows: m.rows, readonly: true})
}

func (m *memory) Close() error { return nil }

// facts are the rows that say what was taken: all but the quarantine, which
// notes what was not, and the directory version and the status a neighbour shows.
func (m *memory) facts() map[string][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := maps.Clone(m.rows)
	maps.DeleteFunc(out, func(k string, _ []byte) bool {
		return strings.HasPrefix(k, "qu") || strings.HasPrefix(k, "nbr") || strings.HasPrefix(k, "sts")
	})
	return out
}

type memoryTx struct {
	rows     map[string][]byte
	readonly bool
	broken   error
}

func (t *memoryTx) Now() time.Time { return start }

func (t *memoryTx) Get(k []byte) ([]byte, error) { return slices.Clone(t.rows[string(k)]), nil }

func (t *memoryTx) Lock(k []byte) ([]byte, error) {
	if t.readonly {
		return nil, errors.New("locking in a View")
	}
	return t.Get(k)
}

func (t *memoryTx) Insert(k, v []byte) error {
	if _, have := t.rows[string(k)]; have {
		return queue.ErrExists
	}
	return t.Put(k, v)
}

func (t *memoryTx) Put(k, v []byte) error {
	switch {
	case t.readonly:
		return errors.New("writing in a View")
	case len(k) > queue.MaxKey || len(v) > queue.MaxValue:
		t.broken = queue.ErrTooLarge
		return t.broken
	}
	t.rows[string(k)] = append([]byte{}, v...)
	return nil
}

func (t *memoryTx) Delete(k []byte) error {
	delete(t.rows, string(k))
	return nil
}

func (t *memoryTx) Scan(lo, hi []byte, limit int) iter.Seq2[queue.KV, error] {
	var keys []string
	for k := range t.rows {
		if k >= string(lo) && (hi == nil || k < string(hi)) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	if limit > 0 {
		keys = keys[:min(limit, len(keys))]
	}
	return func(yield func(queue.KV, error) bool) {
		for _, k := range keys {
			if v, have := t.rows[k]; have && !yield(queue.KV{Key: []byte(k), Value: slices.Clone(v)}, nil) {
				return
			}
		}
	}
}
