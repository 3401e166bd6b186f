package link

import (
	"testing"
	"time"
)

// exported is how much a host has given out, and has waiting.
func (h *host) exported() (given, waiting uint64) {
	h.w.t.Helper()
	states, err := h.node.LinkStates(h.w.ctx, h.link)
	h.w.must(err)
	return states[0].Exported, states[0].Outstanding
}

// stepwise lets a restored listener be given all, which takes what comes after each step
// of the dialer's work.
func (w *world) stepwise(dialer, listener *host) {
	w.t.Helper()
	for range 40 {
		w.clock = w.clock.Add(10 * time.Second)
		_, err := dialer.node.Work(w.ctx)
		w.must(err)
		for _, kind := range []Kind{Push, Poll} {
			o, b := dialer.next(kind)
			if o == nil {
				continue
			}
			listener.receive(b)
			listener.work()
			answer := Reply
			if kind == Poll {
				answer = Answer
			}
			if o, b = listener.next(answer); o != nil {
				dialer.receive(b)
			}
		}
	}
	w.replayed(dialer, listener)
}

// TestRestoredOverAndOver: a node that is restored from the same copy again and again
// is given the same each time, and not more.
func TestRestoredOverAndOver(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	w.exchange(jia, yi)
	backup := yi.store.clone()
	var sent []string
	for range 12 {
		sent = append(sent, w.submit(yi, "jia", 100))
	}
	w.submit(jia, "yi", 100)
	w.exchange(jia, yi)
	for _, id := range sent {
		jia.signFor(id)
	}
	w.exchange(jia, yi)
	var rounds []uint64
	before, _ := jia.exported()
	for range 4 {
		yi = w.afterDiskLoss(yi, backup.clone())
		w.stepwise(jia, yi)
		now, waiting := jia.exported()
		if waiting > 0 {
			t.Errorf("%d are still waiting", waiting)
		}
		rounds = append(rounds, now-before)
		before = now
	}
	for _, n := range rounds[1:] {
		if n > rounds[0] {
			t.Fatalf("each restore is given more: %v", rounds)
		}
	}
}

// TestRestoredBeforeItWasGiven: a neighbour that says over and over that it was restored,
// and takes nothing, does not fill the lanes.
func TestRestoredBeforeItWasGiven(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	w.exchange(jia, yi)
	backup := yi.store.clone()
	var sent []string
	for range 3 {
		id := w.submit(yi, "jia", 100)
		w.exchange(jia, yi)
		jia.signFor(id)
		sent = append(sent, id)
	}
	mine := w.submit(jia, "yi", 100)
	w.exchange(jia, yi)
	var most uint64
	for round := range 12 {
		yi = w.afterDiskLoss(yi, backup.clone())
		_, poll := jia.next(Poll)
		yi.receive(poll)
		_, answer := yi.next(Reply)
		jia.receive(answer)
		jia.work()
		_, waiting := jia.exported()
		if round == 3 {
			most = waiting
		}
		if round > 3 && waiting > most {
			t.Fatalf("after %d restores %d wait, after four %d", round+1, waiting, most)
		}
	}
	w.replayed(jia, yi)
	w.replayed(jia, yi)
	yi.delivered(mine)
	for _, id := range sent {
		if n := len(yi.receipts(id, "SIGNED_FOR")); n != 1 {
			t.Errorf("%d receipts SIGNED_FOR of %s came back", n, id)
		}
	}
}
