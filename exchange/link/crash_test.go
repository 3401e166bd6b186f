package link

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"
)

// errCrash ends a process of these tests. What it wrote before stands, and whatever
// it does afterwards leaves no trace, until it starts anew over the same disk.
var errCrash = errors.New("the process has ended")

// crasher ends a process at one of its durable steps: before it took effect, or
// after, when nobody was told.
type crasher struct {
	at, count int
	after     bool
	dead      bool
}

func (c *crasher) before() error {
	if c.dead {
		return errCrash
	}
	if c.count++; c.count == c.at && !c.after {
		c.dead = true
		return errCrash
	}
	return nil
}

func (c *crasher) behind() error {
	if !c.dead && c.count == c.at && c.after {
		c.dead = true
		return errCrash
	}
	return nil
}

// struck says whether the step was reached, and lets the next process live.
func (c *crasher) struck() bool {
	was := c.dead
	if c.dead {
		c.dead, c.at = false, 0
	}
	return was
}

func (c *crasher) around(do func() error) error {
	err := c.before()
	if err == nil {
		err = do()
	}
	if err == nil {
		err = c.behind()
	}
	return err
}

// hooked lets a host's commits be durable steps.
func (c *crasher) hooked(h *host) { h.store.fail, h.store.lost = c.before, c.behind }

// trembling is a Keeper whose files are durable steps.
type trembling struct {
	shed
	c *crasher
}

func (t trembling) Put(name string, write func(io.Writer) error) error {
	return t.c.around(func() error { return t.shed.Put(name, write) })
}

func (t trembling) Remove(name string) error {
	return t.c.around(func() error { return t.shed.Remove(name) })
}

// everywhere runs a scenario once for each durable step of one side, before and
// after it, until it has no further step.
func everywhere(t *testing.T, sides []string, run func(t *testing.T, c *crasher, side string) (struck bool)) {
	stride := 1
	if testing.Short() || raced {
		stride = 7
	}
	for _, side := range sides {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s after=%t", side, after), func(t *testing.T) {
				at := 1
				for ; run(t, &crasher{at: at, after: after}, side); at += stride {
					if t.Failed() {
						t.Fatalf("at step %d", at)
					}
				}
				if at < 10 {
					t.Fatalf("only %d steps", at)
				}
				t.Logf("%d steps", at)
			})
		}
	}
}

// TestASessionCrashesAnywhere: whichever side ends at whichever of its durable steps,
// everything is delivered once, and the books balance.
func TestASessionCrashesAnywhere(t *testing.T) {
	everywhere(t, []string{"jia", "yi"}, func(t *testing.T, c *crasher, side string) bool {
		w := newWorld(t)
		jia, yi := w.pair()
		to := []string{w.submit(jia, "yi", 300), w.submit(jia, "yi", 5000)}
		from := []string{w.submit(yi, "jia", 400)}
		victim := map[string]*host{"jia": jia, "yi": yi}[side]
		c.hooked(victim)
		struck := false
		for range 6 {
			w.clock = w.clock.Add(10 * time.Second)
			if err := w.turn(jia, yi); err != nil && !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
			if c.struck() {
				struck = true
				victim.restart()
			}
		}
		victim.store.fail, victim.store.lost = nil, nil
		w.exchange(jia, yi)
		jia.counts(3, 3, 0, 0) // two documents, and DELIVERED of one
		yi.counts(3, 3, 0, 0)
		yi.delivered(to...)
		jia.delivered(from...)
		return struck
	})
}

// turn is a push with its reply, and a poll with its answer, until something fails.
// What was under way then is lost.
func (w *world) turn(dialer, listener *host) error {
	for _, kinds := range [][2]Kind{{Push, Reply}, {Poll, Answer}} {
		o, err := dialer.Next(w.ctx, kinds[0])
		if err != nil {
			return err
		}
		if o != nil {
			if _, err := listener.Receive(w.ctx, bytes.NewReader(dialer.written(o))); err != nil {
				dialer.Lost(w.ctx, o)
				return err
			}
			back, err := listener.Next(w.ctx, kinds[1])
			if err != nil {
				dialer.Lost(w.ctx, o)
				return err
			}
			if back != nil {
				if _, err := dialer.Receive(w.ctx, bytes.NewReader(listener.written(back))); err != nil {
					listener.Lost(w.ctx, back)
					return err
				}
			}
		}
		for _, h := range []*host{listener, dialer} {
			for did := true; did; {
				if did, err = h.node.Work(w.ctx); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// TestAFerryCrashesAnywhere: whichever side ends at whichever of its durable steps,
// a bundle kept, a number given, a file placed, a bundle noted as here or settled,
// everything is delivered once, nothing stays outstanding, and the books balance.
func TestAFerryCrashesAnywhere(t *testing.T) {
	everywhere(t, []string{"jia", "yi"}, func(t *testing.T, c *crasher, side string) bool {
		w := newWorld(t)
		jia, yi := w.bank("jia"), w.bank("yi")
		jia.limit.FileBytes = 9000 // several files
		to := []string{w.submit(jia.host, "yi", 300), w.submit(jia.host, "yi", 5000), w.submit(jia.host, "yi", 100)}
		from := []string{w.submit(yi.host, "jia", 400)}
		victim := map[string]*bank{"jia": jia, "yi": yi}[side]
		c.hooked(victim.host)
		victim.ferry.keep = trembling{victim.kept, c}
		struck := false
		for round := range 7 {
			w.clock = w.clock.Add(time.Hour)
			for _, pair := range [][2]*bank{{jia, yi}, {yi, jia}} {
				err := w.crossing(c, victim, pair[0], pair[1], round > 2, bytes.Clone)
				if err != nil && !errors.Is(err, errCrash) {
					t.Fatal(err)
				}
				if c.struck() {
					struck = true
					victim.board()
				}
			}
		}
		victim.store.fail, victim.store.lost = nil, nil
		if n := jia.outstanding() + yi.outstanding(); n > 0 {
			t.Fatalf("%d bundles are outstanding", n)
		}
		for _, b := range []*bank{jia, yi} {
			b.tallied()
			if s := b.books(); s.Exported != 4 || s.Acked != 4 || len(s.Gaps) > 0 {
				t.Fatalf("%s: %+v", b.id, s)
			}
		}
		yi.delivered(to...)
		jia.delivered(from...)
		return struck
	})
}

// TestPackingAnewCrashesAnywhere: what is stopped three times is taken apart and packed
// anew; a process that ends in the middle of that loses and doubles nothing.
func TestPackingAnewCrashesAnywhere(t *testing.T) {
	everywhere(t, []string{"jia"}, func(t *testing.T, c *crasher, _ string) bool {
		w := newWorld(t)
		jia, yi := w.bank("jia"), w.bank("yi")
		to := []string{w.submit(jia.host, "yi", 300), w.submit(jia.host, "yi", 500), w.submit(jia.host, "yi", 100)}
		jia.export() // in one bundle
		jia.out = nil
		before := jia.ferry.s.last()
		c.hooked(jia.host)
		jia.ferry.keep = trembling{jia.kept, c}
		struck := false
		for round := range 22 {
			w.clock = w.clock.Add(time.Hour)
			for _, pair := range [][2]*bank{{jia, yi}, {yi, jia}} {
				scanner := func(file []byte) []byte { return file }
				if pair[0] == jia && round < 11 {
					scanner = onlyTheNote
				}
				if err := w.crossing(c, jia, pair[0], pair[1], true, scanner); err != nil && !errors.Is(err, errCrash) {
					t.Fatal(err)
				}
				if c.struck() {
					struck = true
					jia.board()
				}
			}
		}
		jia.store.fail, jia.store.lost = nil, nil
		if n := jia.outstanding() + yi.outstanding(); n > 0 {
			t.Fatalf("%d bundles are outstanding", n)
		}
		if jia.ferry.s.last() < before+2 {
			t.Fatal("nothing was packed anew")
		}
		jia.tallied()
		jia.counts(3, 3, 0, 0)
		yi.delivered(to...)
		return struck
	})
}

// onlyTheNote is what a scanner leaves of a file whose bundles it stops.
func onlyTheNote(file []byte) []byte {
	if i := bytes.Index(file[1:], []byte(magic)); i >= 0 {
		return file[:i+1]
	}
	return file
}

// crossing exports what one side has, and imports what passes at the other. Files that
// were placed are carried, whatever their writer knows of it; one whose import fails
// is imported again.
func (w *world) crossing(c *crasher, victim, from, to *bank, anyhow bool, scanner func([]byte) []byte) error {
	_, failed := from.ferry.Export(w.ctx, from.limit, anyhow && from.outstanding() > 0, func(_ string, write func(io.Writer) error) error {
		place := func() error {
			var file bytes.Buffer
			err := write(&file)
			if err == nil {
				from.out = append(from.out, scanner(file.Bytes()))
			}
			return err
		}
		if from == victim {
			return c.around(place)
		}
		return place()
	})
	for len(from.out) > 0 {
		file := from.out[0]
		if _, err := to.ferry.Import(w.ctx, bytes.NewReader(file), int64(len(file))); err != nil {
			return errors.Join(failed, err)
		}
		from.out = from.out[1:]
		for did := true; did; {
			var err error
			if did, err = to.node.Work(w.ctx); err != nil {
				return errors.Join(failed, err)
			}
		}
	}
	return failed
}
