package sim

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/yizhan-gateway/yizhan/queue"
)

// store is an ordered key-value store that keeps the queue.Store contract in
// one goroutine. A crash is a panic with the value crash{}: it may come just
// before a commit (nothing of it stays) or just after it (all of it stays, and
// the caller never hears). A commit may also answer queue.ErrUnknown, with or
// without effect, as a database does whose connection broke.
type store struct {
	rows   map[string][]byte
	keys   []string // of rows, in order
	now    func() time.Time
	faults *faults

	// cut, when set, is asked before and after every commit whether the power
	// goes now.
	cut func(after bool) bool

	// strike, when set, is asked before and after every commit whether it fails.
	strike *strike

	inside int // transactions under way
}

// crash is what a simulated power cut panics with.
type crash struct{}

// faults decide, from the seed, what goes wrong next. Nothing does while it is
// quiet, as in the liveness phase.
type faults struct {
	world *world
	armed bool
}

func (f *faults) hit(oneIn int) bool { return f.armed && f.world.rng.IntN(oneIn) == 0 }

func newStore(now func() time.Time, f *faults) *store {
	return &store{rows: map[string][]byte{}, now: now, faults: f}
}

func (s *store) Update(ctx context.Context, fn func(queue.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for s.faults.hit(40) { // the contract lets a closure run again
		_ = s.run(fn, s.begin())
	}
	t := s.begin()
	if err := s.run(fn, t); err != nil {
		return err
	}
	if t.err != nil {
		return t.err
	}
	if s.faults.hit(60) || s.cut != nil && s.cut(false) {
		panic(crash{})
	}
	if err := s.strike.before(queue.ErrUnknown); err != nil {
		return err
	}
	unknown := s.faults.hit(80)
	if unknown && s.faults.hit(2) {
		return queue.ErrUnknown
	}
	s.apply(t)
	if s.faults.hit(60) || s.cut != nil && s.cut(true) {
		panic(crash{})
	}
	if unknown {
		return queue.ErrUnknown
	}
	return s.strike.after(queue.ErrUnknown)
}

func (s *store) apply(t *tx) {
	for k, v := range t.writes {
		at, have := slices.BinarySearch(s.keys, k)
		switch {
		case v == nil && have:
			s.keys = slices.Delete(s.keys, at, at+1)
		case v != nil && !have:
			s.keys = slices.Insert(s.keys, at, k)
		}
		if v == nil {
			delete(s.rows, k)
		} else {
			s.rows[k] = v
		}
	}
}

func (s *store) View(ctx context.Context, fn func(queue.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.run(fn, s.begin())
}

func (s *store) run(fn func(queue.Tx) error, t *tx) error {
	s.inside++
	defer func() { s.inside-- }()
	return fn(t)
}

func (s *store) Close() error { return nil }

func (s *store) begin() *tx { return &tx{s: s, writes: map[string][]byte{}} }

// tx is a discardable overlay; a nil value marks a deletion.
type tx struct {
	s      *store
	writes map[string][]byte
	ops    int
	bytes  int
	err    error
}

func (t *tx) Now() time.Time { return t.s.now() }

func (t *tx) Get(k []byte) ([]byte, error) {
	if v, ok := t.writes[string(k)]; ok {
		return slices.Clone(v), nil
	}
	return slices.Clone(t.s.rows[string(k)]), nil
}

func (t *tx) Lock(k []byte) ([]byte, error) { return t.Get(k) }

func (t *tx) Insert(k, v []byte) error {
	have, err := t.Get(k)
	if err != nil {
		return err
	}
	if have != nil {
		return queue.ErrExists
	}
	return t.Put(k, v)
}

func (t *tx) Put(k, v []byte) error {
	t.ops++
	t.bytes += len(k) + len(v)
	if len(k) > queue.MaxKey || len(v) > queue.MaxValue || t.ops > queue.MaxOps || t.bytes > queue.MaxTx {
		t.err = queue.ErrTooLarge
		return t.err
	}
	t.writes[string(k)] = append([]byte{}, v...)
	return nil
}

func (t *tx) Delete(k []byte) error {
	t.ops++
	t.writes[string(k)] = nil
	return nil
}

func (t *tx) Scan(lo, hi []byte, limit int) iter.Seq2[queue.KV, error] {
	return func(yield func(queue.KV, error) bool) {
		n := 0
		for _, k := range t.keysBetween(string(lo), hi) {
			if limit > 0 && n == limit {
				return
			}
			n++
			v, err := t.Get([]byte(k))
			if !yield(queue.KV{Key: []byte(k), Value: v}, err) || err != nil {
				return
			}
		}
	}
}

// keysBetween lists the live keys of a range as this transaction sees them.
func (t *tx) keysBetween(lo string, hi []byte) []string {
	from, _ := slices.BinarySearch(t.s.keys, lo)
	to := len(t.s.keys)
	if hi != nil {
		to, _ = slices.BinarySearch(t.s.keys, string(hi))
	}
	var out []string
	for _, k := range t.s.keys[from:max(from, to)] {
		if _, touched := t.writes[k]; !touched {
			out = append(out, k)
		}
	}
	for k, v := range t.writes {
		if v != nil && k >= lo && (hi == nil || k < string(hi)) {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}
