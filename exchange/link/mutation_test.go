package link

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// layout says where the pieces of a bundle lie.
type layout struct {
	head  int // end of frame and section: any damage before it spoils the whole
	parts []span
	order []int // index of each part in the manifest
	size  int
}

type span struct{ from, to int }

func layoutOf(o *Outgoing) layout {
	l := layout{head: len(o.frame) + len(o.sealed), size: int(o.size)}
	at := l.head
	for i, out := range o.outs {
		if out.Kind == node.KindPart {
			l.parts = append(l.parts, span{at, at + int(out.Size)})
			l.order = append(l.order, i)
			at += int(out.Size)
		}
	}
	return l
}

// mutate changes a bundle somewhere and gives what it touched: a range, or
// everything from a place on.
func (l layout) mutate(rng *rand.Rand, b []byte) ([]byte, span) {
	b = bytes.Clone(b)
	at := rng.IntN(len(b))
	if rng.IntN(3) == 0 { // the head is small beside the parts
		at = rng.IntN(l.head)
	}
	switch rng.IntN(10) {
	case 0, 1, 2:
		return b[:at], span{at, l.size}
	case 3: // a run of other bytes
		to := min(at+1+rng.IntN(2000), len(b))
		for i := at; i < to; i++ {
			b[i] ^= byte(1 + rng.IntN(255))
		}
		return b, span{at, to}
	default:
		b[at] ^= 1 << rng.IntN(8)
		return b, span{at, at + 1}
	}
}

// expected is what a receiver must say of a bundle that was touched: nil when
// the whole is to be refused.
func (l layout) expected(items int, touched span) []string {
	if touched.from < l.head {
		return nil
	}
	out := all(node.Taken, items)
	for k, p := range l.parts {
		if touched.from < p.to && p.from < touched.to {
			out[l.order[k]] = node.Damaged
		}
	}
	return out
}

// TestMutations damages a bundle of several documents at random, 2,000 times.
// Damage in the head costs the whole bundle and leaves nothing behind; damage
// in a part costs that part alone and every other item is taken; a wrong item
// is never taken; and what was damaged is delivered when it comes again.
func TestMutations(t *testing.T) {
	runs, groups := 2000, 4
	if testing.Short() {
		runs = 200
	}
	w := newWorld(t)
	jia := w.host("jia", "jia-yi", nil, nil)
	for _, size := range []int{1, 3000, 30_000} {
		w.submit(jia, "yi", size)
	}
	o, good := jia.next(Push)
	for g := range groups {
		t.Run(fmt.Sprint("group ", g), func(t *testing.T) {
			t.Parallel()
			mine := *w
			mine.t = t
			mine.mutations(o, good, uint64(g), runs/groups)
		})
	}
}

func (w *world) mutations(o *Outgoing, good []byte, group uint64, runs int) {
	l := layoutOf(o)
	rng := rand.New(rand.NewPCG(7, group))
	refused, resent := 0, 0
	for i := range runs {
		bad, touched := l.mutate(rng, good)
		want := l.expected(len(o.outs), touched)
		what := fmt.Sprintf("run %d, %d bytes, touched %v (head ends at %d)", i, len(bad), touched, l.head)
		yi := w.host("yi", "jia-yi", nil, nil)
		if !yi.survives(bad, want, touched.to > l.size-footerSize, what) {
			refused++
			continue
		}
		if i%40 != 0 {
			continue
		}
		// What was not taken comes again, in a good copy.
		resent++
		yi.receive(good)
		if slices.Contains(yi.outcomes(), node.Damaged) {
			w.t.Fatalf("%s: the good copy: %v", what, yi.outcomes())
		}
		yi.work()
		yi.delivered(slices.Collect(maps.Keys(w.files))...)
	}
	w.t.Logf("%d mutations: %d refused as a whole, %d delivered with a good copy", runs, refused, resent)
	if refused < runs/10 || refused > runs*9/10 {
		w.t.Fatal("the mutations are one-sided")
	}
}

// survives receives a damaged bundle and checks what became of it; false when
// it was refused as a whole, as it should.
func (h *host) survives(bad []byte, want []string, truncated bool, what string) bool {
	h.w.t.Helper()
	before := h.store.facts()
	got, err := h.Receive(h.w.ctx, bytes.NewReader(bad))
	if want == nil {
		if !errors.Is(err, ErrFault) || !sameRows(before, h.store.facts()) || len(h.acks) > 0 {
			h.w.t.Fatalf("%s: %v, acks %d; want a link fault and nothing left behind", what, err, len(h.acks))
		}
		return false
	}
	if err != nil || got.Truncated != truncated {
		h.w.t.Fatalf("%s: %+v, %v; want truncated %v", what, got, err, truncated)
	}
	if o := h.outcomes(); !slices.Equal(o, want) {
		h.w.t.Fatalf("%s:\ngot  %v\nwant %v", what, o, want)
	}
	return true
}

// A bundle may end anywhere: every part that came whole is taken.
func TestTruncation(t *testing.T) {
	w := newWorld(t)
	jia := w.host("jia", "jia-yi", nil, nil)
	ids := []string{w.submit(jia, "yi", 100), w.submit(jia, "yi", 90_000), w.submit(jia, "yi", 5000)}
	o, good := jia.next(Push)
	l := layoutOf(o)
	ends := []int{0, 1, 3, 4, 7, 8, len(o.frame) - 1, len(o.frame), l.head - 1, l.head, l.size - footerSize, l.size - 1, l.size}
	for _, p := range l.parts {
		ends = append(ends, p.from+1, p.to-1, p.to)
	}
	for _, end := range ends {
		t.Run(fmt.Sprintf("%d of %d", end, l.size), func(t *testing.T) {
			want := l.expected(len(o.outs), span{end, l.size})
			if end == l.size {
				want = all(node.Taken, len(o.outs))
			}
			mine := *w
			mine.t = t
			yi := mine.host("yi", "jia-yi", nil, nil)
			if yi.survives(good[:end], want, end < l.size, "cut") {
				yi.receive(good)
				yi.work()
				yi.delivered(ids...)
			}
		})
	}
}

// FuzzReceive: whatever comes, nothing is taken but what the neighbour signed.
func FuzzReceive(f *testing.F) {
	w := newWorld(f)
	jia := w.host("jia", "jia-yi", nil, nil)
	w.submit(jia, "yi", 100)
	w.submit(jia, "yi", 2000)
	o, good := jia.next(Push)
	l := layoutOf(o)
	f.Add(good)
	f.Add(good[:l.head])
	f.Add(good[:len(good)-1])
	f.Add(append([]byte("YZB1\x00\x00\x20\x00"), make([]byte, 8192)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		mine := *w
		mine.t = t
		yi := mine.host("yi", "jia-yi", nil, nil)
		before := yi.store.facts()
		_, err := yi.Receive(w.ctx, bytes.NewReader(b))
		if bytes.HasPrefix(b, good[:l.head]) {
			if err != nil {
				t.Fatal(err)
			}
			return
		}
		if !errors.Is(err, ErrFault) || !sameRows(before, yi.store.facts()) {
			t.Fatalf("%v; want a link fault and nothing left behind", err)
		}
	})
}
