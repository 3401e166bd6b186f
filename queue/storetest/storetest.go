// Package storetest is the contract that every queue.Store passes.
package storetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/yizhan-gateway/yizhan/queue"
)

// Open opens the store kept in dir; called again with the same dir it must
// find what was committed.
type Open func(t *testing.T, dir string) queue.Store

// Run holds a store against the contract.
func Run(t *testing.T, open Open) {
	for name, test := range map[string]func(*testing.T, Open){
		"serial effect":                        serialEffect,
		"read your writes":                     readYourWrites,
		"Insert conflicts":                     insertConflicts,
		"a closure may run again":              rerun,
		"a failing closure leaves nothing":     failing,
		"one failing closure spoils no other":  failingAmongOthers,
		"a panic stays with its caller":        panicking,
		"a decision without Lock is caught":    withoutLock,
		"Scan is ordered and bounded":          scan,
		"Scan sees the transaction's own rows": scanOwn,
		"scans may nest and write":             scanNested,
		"limits":                               limits,
		"View cannot write":                    viewReadOnly,
		"View is one state":                    viewSnapshot,
		"empty values are rows":                emptyValue,
		"contexts":                             contexts,
		"durable across Close":                 durable,
		"Close refuses later calls":            closed,
		"lanes":                                lanes,
		"ledger":                               ledger,
	} {
		t.Run(name, func(t *testing.T) { test(t, open) })
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func opened(t *testing.T, open Open) queue.Store {
	t.Helper()
	s := open(t, t.TempDir())
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func put(t *testing.T, s queue.Store, k, v string) {
	t.Helper()
	must(t, s.Update(t.Context(), func(tx queue.Tx) error { return tx.Put([]byte(k), []byte(v)) }))
}

func get(t *testing.T, s queue.Store, k string) (v []byte) {
	t.Helper()
	must(t, s.View(t.Context(), func(tx queue.Tx) (err error) { v, err = tx.Get([]byte(k)); return err }))
	return v
}

// serialEffect: concurrent increments under Lock lose none.
func serialEffect(t *testing.T, open Open) {
	s := opened(t, open)
	put(t, s, "n", string(make([]byte, 8)))
	var wait sync.WaitGroup
	const callers, rounds = 32, 25
	for range callers {
		wait.Go(func() {
			for range rounds {
				err := s.Update(t.Context(), func(tx queue.Tx) error {
					b, err := tx.Lock([]byte("n"))
					if err != nil {
						return err
					}
					return tx.Put([]byte("n"), binary.BigEndian.AppendUint64(nil, binary.BigEndian.Uint64(b)+1))
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	if n := binary.BigEndian.Uint64(get(t, s, "n")); n != callers*rounds {
		t.Fatalf("%d increments were counted, %d were made", n, callers*rounds)
	}
}

func readYourWrites(t *testing.T, open Open) {
	s := opened(t, open)
	put(t, s, "a", "old")
	must(t, s.Update(t.Context(), func(tx queue.Tx) error {
		must(t, tx.Put([]byte("a"), []byte("new")))
		must(t, tx.Put([]byte("b"), []byte("b")))
		if v, err := tx.Get([]byte("a")); string(v) != "new" || err != nil {
			t.Errorf("own write reads %q, %v", v, err)
		}
		must(t, tx.Delete([]byte("b")))
		if v, err := tx.Get([]byte("b")); v != nil || err != nil {
			t.Errorf("own deletion reads %q, %v", v, err)
		}
		v, err := tx.Get([]byte("a"))
		v[0] = 'X' // what was given is the caller's
		if again, _ := tx.Get([]byte("a")); string(again) != "new" || err != nil {
			t.Errorf("a value given out was shared: %q", again)
		}
		return nil
	}))
	if v := get(t, s, "b"); v != nil {
		t.Errorf("a row written and deleted is there: %q", v)
	}
}

func insertConflicts(t *testing.T, open Open) {
	s := opened(t, open)
	put(t, s, "k", "first")
	must(t, s.Update(t.Context(), func(tx queue.Tx) error {
		if err := tx.Insert([]byte("k"), []byte("second")); !errors.Is(err, queue.ErrExists) {
			t.Errorf("Insert over a row: %v", err)
		}
		must(t, tx.Insert([]byte("new"), []byte("1"))) // the transaction goes on
		if err := tx.Insert([]byte("new"), []byte("2")); !errors.Is(err, queue.ErrExists) {
			t.Errorf("Insert over an own row: %v", err)
		}
		must(t, tx.Delete([]byte("k")))
		return tx.Insert([]byte("k"), []byte("third"))
	}))
	if v := get(t, s, "k"); string(v) != "third" {
		t.Errorf("k is %q", v)
	}
	// Of many concurrent inserts exactly one wins.
	var wait sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 32 {
		wait.Go(func() {
			err := s.Update(t.Context(), func(tx queue.Tx) error { return tx.Insert([]byte("race"), []byte("x")) })
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errors.Is(err, queue.ErrExists) {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if won != 1 {
		t.Errorf("%d inserts of one row won", won)
	}
}

// rerun: a closure that is thrown away and run again has the effect of one run.
func rerun(t *testing.T, open Open) {
	s := opened(t, open)
	for range 3 {
		discarded := errors.New("again")
		body := func(tx queue.Tx) error { _, err := queue.Enqueue(tx, "lane", []byte("x")); return err }
		err := s.Update(t.Context(), func(tx queue.Tx) error {
			must(t, body(tx))
			return discarded
		})
		if !errors.Is(err, discarded) {
			t.Fatalf("the closure's error became %v", err)
		}
		must(t, s.Update(t.Context(), body))
	}
	if n := len(entries(t, s, "lane")); n != 3 {
		t.Errorf("%d entries after 3 commits", n)
	}
}

func failing(t *testing.T, open Open) {
	s := opened(t, open)
	boom := errors.New("boom")
	err := s.Update(t.Context(), func(tx queue.Tx) error {
		must(t, tx.Put([]byte("half"), []byte("x")))
		return boom
	})
	if !errors.Is(err, boom) {
		t.Errorf("error %v", err)
	}
	if v := get(t, s, "half"); v != nil {
		t.Errorf("half of a failed transaction is there: %q", v)
	}
}

func failingAmongOthers(t *testing.T, open Open) {
	s := opened(t, open)
	var wait sync.WaitGroup
	for i := range 64 {
		wait.Go(func() {
			err := s.Update(t.Context(), func(tx queue.Tx) error {
				if err := tx.Put(queue.Key("k", uint64(i)), []byte{1}); err != nil {
					return err
				}
				if i%3 == 0 {
					return errors.New("this one fails")
				}
				return nil
			})
			if (err != nil) != (i%3 == 0) {
				t.Errorf("update %d: %v", i, err)
			}
		})
	}
	wait.Wait()
	for i := range 64 {
		if v := get(t, s, string(queue.Key("k", uint64(i)))); (v == nil) != (i%3 == 0) {
			t.Errorf("row %d: %v", i, v)
		}
	}
}

func panicking(t *testing.T, open Open) {
	s := opened(t, open)
	func() {
		defer func() {
			if p := recover(); p != "mine" {
				t.Errorf("recovered %v", p)
			}
		}()
		_ = s.Update(t.Context(), func(tx queue.Tx) error {
			must(t, tx.Put([]byte("p"), []byte("x")))
			panic("mine")
		})
	}()
	if v := get(t, s, "p"); v != nil {
		t.Errorf("a panicking transaction wrote %q", v)
	}
	put(t, s, "q", "still alive")
}

func withoutLock(t *testing.T, open Open) {
	s := queue.Checked(opened(t, open))
	put(t, s, "row", "1")
	touch := func(read func(queue.Tx, []byte) ([]byte, error)) error {
		return s.Update(t.Context(), func(tx queue.Tx) error {
			if _, err := read(tx, []byte("row")); err != nil {
				return err
			}
			return tx.Put([]byte("row"), []byte("2"))
		})
	}
	if err := touch(queue.Tx.Get); err == nil {
		t.Error("a decision made on Get passed")
	}
	if v := get(t, s, "row"); string(v) != "1" {
		t.Errorf("the caught decision was committed: %q", v)
	}
	must(t, touch(queue.Tx.Lock))
}

func fill(t *testing.T, s queue.Store, n int) {
	t.Helper()
	must(t, s.Update(t.Context(), func(tx queue.Tx) error {
		for i := n - 1; i >= 0; i-- {
			if err := tx.Put(queue.Key("s", uint64(i)), fmt.Appendf(nil, "%d", i)); err != nil {
				return err
			}
		}
		return tx.Put(queue.Key("t", uint64(0)), []byte("beyond"))
	}))
}

func collect(t *testing.T, tx queue.Tx, lo, hi []byte, limit int) (out []string) {
	t.Helper()
	for kv, err := range tx.Scan(lo, hi, limit) {
		must(t, err)
		out = append(out, string(kv.Value))
	}
	return out
}

func scan(t *testing.T, open Open) {
	s := opened(t, open)
	fill(t, s, 300)
	prefix := queue.Key("s")
	must(t, s.View(t.Context(), func(tx queue.Tx) error {
		all := collect(t, tx, prefix, queue.PrefixEnd(prefix), 0)
		if len(all) != 300 {
			t.Fatalf("%d rows of 300", len(all))
		}
		for i, v := range all {
			if v != fmt.Sprint(i) {
				t.Fatalf("row %d is %s", i, v)
			}
		}
		some := collect(t, tx, queue.Key("s", uint64(10)), queue.Key("s", uint64(20)), 0)
		if len(some) != 10 || some[0] != "10" || some[9] != "19" {
			t.Errorf("lo is in and hi is out: %v", some)
		}
		if got := collect(t, tx, prefix, nil, 7); len(got) != 7 {
			t.Errorf("limit 7 gave %d", len(got))
		}
		if got := collect(t, tx, prefix, nil, 0); len(got) != 301 {
			t.Errorf("without an upper bound %d of 301", len(got))
		}
		for _, err := range tx.Scan(prefix, nil, 0) {
			must(t, err)
			break // leaving early must not leak
		}
		return nil
	}))
}

func scanOwn(t *testing.T, open Open) {
	s := opened(t, open)
	fill(t, s, 5)
	prefix := queue.Key("s")
	must(t, s.Update(t.Context(), func(tx queue.Tx) error {
		must(t, tx.Delete(queue.Key("s", uint64(1))))
		must(t, tx.Put(queue.Key("s", uint64(2)), []byte("two")))
		must(t, tx.Put(queue.Key("s", uint64(7)), []byte("7")))
		if got := fmt.Sprint(collect(t, tx, prefix, queue.PrefixEnd(prefix), 0)); got != "[0 two 3 4 7]" {
			t.Errorf("merged scan %s", got)
		}
		return nil
	}))
}

func scanNested(t *testing.T, open Open) {
	s := opened(t, open)
	fill(t, s, 200)
	prefix := queue.Key("s")
	must(t, s.Update(t.Context(), func(tx queue.Tx) error {
		n := 0
		for kv, err := range tx.Scan(prefix, queue.PrefixEnd(prefix), 0) {
			must(t, err)
			if len(collect(t, tx, kv.Key, nil, 1)) != 1 {
				t.Fatal("an inner scan missed the row")
			}
			must(t, tx.Delete(kv.Key))
			n++
		}
		if n != 200 {
			t.Errorf("a scan that deletes on the way saw %d of 200", n)
		}
		return nil
	}))
}

func limits(t *testing.T, open Open) {
	s := opened(t, open)
	for name, fn := range map[string]func(tx queue.Tx) error{
		"key":   func(tx queue.Tx) error { return tx.Put(make([]byte, queue.MaxKey+1), nil) },
		"value": func(tx queue.Tx) error { return tx.Put([]byte("k"), make([]byte, queue.MaxValue+1)) },
		"operations": func(tx queue.Tx) error {
			for i := range queue.MaxOps + 1 {
				if err := tx.Put(queue.Key(uint64(i)), nil); err != nil {
					return err
				}
			}
			return nil
		},
		"bytes": func(tx queue.Tx) error {
			for i := range queue.MaxTx/queue.MaxValue + 1 {
				if err := tx.Put(queue.Key(uint64(i)), make([]byte, queue.MaxValue)); err != nil {
					return err
				}
			}
			return nil
		},
		"ignored": func(tx queue.Tx) error { _ = tx.Put([]byte("k"), make([]byte, queue.MaxValue+1)); return nil },
	} {
		if err := s.Update(t.Context(), fn); !errors.Is(err, queue.ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, s.Update(t.Context(), func(tx queue.Tx) error {
		must(t, tx.Put(bytes.Repeat([]byte("k"), queue.MaxKey), make([]byte, queue.MaxValue)))
		for i := range queue.MaxOps - 1 {
			must(t, tx.Put(queue.Key("n", uint64(i)), []byte("x")))
		}
		return nil
	}))
}

func viewReadOnly(t *testing.T, open Open) {
	s := opened(t, open)
	err := s.View(t.Context(), func(tx queue.Tx) error { return tx.Put([]byte("k"), []byte("v")) })
	if err == nil {
		t.Error("a View wrote")
	}
}

func viewSnapshot(t *testing.T, open Open) {
	s := opened(t, open)
	put(t, s, "a", "1")
	must(t, s.View(t.Context(), func(tx queue.Tx) error {
		if _, err := tx.Get([]byte("a")); err != nil {
			return err
		}
		put(t, s, "a", "2")
		v, err := tx.Get([]byte("a"))
		if string(v) != "1" {
			t.Errorf("a View saw a later commit: %q", v)
		}
		return err
	}))
}

func emptyValue(t *testing.T, open Open) {
	s := opened(t, open)
	put(t, s, "e", "")
	if v := get(t, s, "e"); v == nil || len(v) != 0 {
		t.Errorf("an empty row reads %v", v)
	}
	err := s.Update(t.Context(), func(tx queue.Tx) error { return tx.Insert([]byte("e"), nil) })
	if !errors.Is(err, queue.ErrExists) {
		t.Errorf("Insert over an empty row: %v", err)
	}
}

func contexts(t *testing.T, open Open) {
	s := opened(t, open)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ran := false
	err := s.Update(ctx, func(queue.Tx) error { ran = true; return nil })
	if !errors.Is(err, context.Canceled) || errors.Is(err, queue.ErrUnknown) || ran {
		t.Errorf("cancelled before: %v, ran %v", err, ran)
	}
	if err := s.View(ctx, func(queue.Tx) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled View: %v", err)
	}
}

func durable(t *testing.T, open Open) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, "k", "v")
	must(t, s.Close())
	s = open(t, dir)
	if v := get(t, s, "k"); string(v) != "v" {
		t.Errorf("after Close and open: %q", v)
	}
	must(t, s.Close())
}

func closed(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	must(t, s.Close())
	must(t, s.Close())
	if err := s.Update(t.Context(), func(queue.Tx) error { return nil }); !errors.Is(err, queue.ErrClosed) {
		t.Errorf("Update after Close: %v", err)
	}
	if err := s.View(t.Context(), func(queue.Tx) error { return nil }); !errors.Is(err, queue.ErrClosed) {
		t.Errorf("View after Close: %v", err)
	}
}

func entries(t *testing.T, s queue.Store, lane string) (out []queue.Entry) {
	t.Helper()
	must(t, s.View(t.Context(), func(tx queue.Tx) error {
		out = nil
		for e, err := range queue.Entries(tx, lane, 0, 0) {
			if err != nil {
				return err
			}
			out = append(out, e)
		}
		return nil
	}))
	return out
}

func lanes(t *testing.T, open Open) {
	s := queue.Checked(opened(t, open))
	must(t, s.Update(t.Context(), func(tx queue.Tx) error {
		for i := range 5 {
			if _, err := queue.Enqueue(tx, "a", []byte{byte(i)}); err != nil {
				return err
			}
		}
		_, err := queue.Enqueue(tx, "ab", []byte("another lane"))
		return err
	}))
	must(t, s.Update(t.Context(), func(tx queue.Tx) error { return queue.Dequeue(tx, "a", 2) }))
	list := entries(t, s, "a")
	if len(list) != 4 || list[0].Seq != 1 || list[1].Seq != 3 || list[3].Value[0] != 4 {
		t.Errorf("lane a holds %v", list)
	}
	must(t, s.Update(t.Context(), func(tx queue.Tx) error {
		for e, err := range queue.Entries(tx, "a", 3, 1) {
			if err != nil || e.Seq != 4 {
				t.Errorf("behind 3 comes %d, %v", e.Seq, err)
			}
		}
		seq, err := queue.Enqueue(tx, "a", nil)
		if seq != 6 {
			t.Errorf("the next sequence is %d", seq)
		}
		return err
	}))
	counted(t, s)
	savedFront(t, s)
}

// counted: what waits in a lane is known without a look at its entries,
// whatever left twice, and also of a lane that has no count yet.
func counted(t *testing.T, s queue.Store) {
	want := func(lane string, n uint64) {
		t.Helper()
		must(t, s.View(t.Context(), func(tx queue.Tx) error {
			got, err := queue.Waiting(tx, lane)
			if err != nil || got != n {
				t.Errorf("%d entries wait in lane %s, %v; want %d", got, lane, err, n)
			}
			return nil
		}))
	}
	dequeue := func(lane string, seq uint64) {
		must(t, s.Update(t.Context(), func(tx queue.Tx) error { return queue.Dequeue(tx, lane, seq) }))
	}
	want("a", 5)
	want("none", 0)
	dequeue("a", 2) // gone before
	dequeue("a", 99)
	dequeue("none", 1)
	want("a", 5)
	want("none", 0)
	dequeue("a", 3)
	want("a", 4)
	key := queue.Key("lane#", "a") // as an earlier version wrote it
	must(t, s.Update(t.Context(), func(tx queue.Tx) error {
		b, err := tx.Lock(key)
		must(t, err)
		return tx.Put(key, b[:8])
	}))
	want("a", 4)
	dequeue("a", 4)
	want("a", 3)
	var all []queue.Count
	must(t, s.View(t.Context(), func(tx queue.Tx) error {
		all = all[:0]
		for c, err := range queue.Counts(tx, "a") {
			must(t, err)
			all = append(all, c)
		}
		return nil
	}))
	if !slices.Equal(all, []queue.Count{{Lane: "a", Waiting: 3}, {Lane: "ab", Waiting: 1}}) {
		t.Errorf("the lanes are %v", all)
	}
}

// savedFront: what is saved of a lane's front is found again, never moves
// backwards, and names what is alive before it.
func savedFront(t *testing.T, s queue.Store) {
	want := func(after, last uint64, kept ...uint64) {
		t.Helper()
		must(t, s.View(t.Context(), func(tx queue.Tx) error {
			got, list, err := queue.Front(tx, "a")
			if err != nil || got != after || !slices.Equal(list, kept) {
				t.Errorf("the front is %d %v, %v; want %d %v", got, list, err, after, kept)
			}
			seq, err := queue.Last(tx, "a")
			if seq != last {
				t.Errorf("the last sequence is %d, want %d", seq, last)
			}
			return err
		}))
	}
	save := func(after uint64, kept ...uint64) error {
		return s.Update(t.Context(), func(tx queue.Tx) error { return queue.SetFront(tx, "a", after, kept) })
	}
	want(0, 6)
	must(t, save(4, 1, 3))
	want(4, 6, 1, 3)
	must(t, save(3))
	want(4, 6, 1, 3)
	must(t, save(5, 3))
	want(5, 6, 3)
	if err := save(6, make([]uint64, queue.MaxKept+1)...); !errors.Is(err, queue.ErrTooLarge) {
		t.Errorf("too many kept entries: %v", err)
	}
	must(t, s.View(t.Context(), func(tx queue.Tx) error {
		if last, err := queue.Last(tx, "none"); last != 0 || err != nil {
			t.Errorf("a lane without entries ends at %d, %v", last, err)
		}
		return nil
	}))
}

func ledger(t *testing.T, open Open) {
	s := queue.Checked(opened(t, open))
	l := queue.Ledger{Name: "main"}
	for i := range 20 {
		must(t, s.Update(t.Context(), func(tx queue.Tx) error {
			at, err := l.Append(tx, fmt.Appendf(nil, "leaf %d", i))
			if at != uint64(i) {
				t.Errorf("leaf %d went to %d", i, at)
			}
			return err
		}))
	}
	must(t, s.View(t.Context(), func(tx queue.Tx) error {
		size, err := l.Size(tx)
		if err != nil || size != 20 {
			t.Fatalf("size %d, %v", size, err)
		}
		for from := uint64(1); from <= size; from++ {
			if _, err := l.Consistency(tx, from, size); err != nil {
				t.Errorf("consistency from %d: %v", from, err)
			}
			if _, err := l.Inclusion(tx, from-1, size); err != nil {
				t.Errorf("inclusion of %d: %v", from-1, err)
			}
		}
		return nil
	}))
}
