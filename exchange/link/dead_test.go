package link

import (
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// backlog is what waits on the link of a host.
func (h *host) backlog() node.LinkQueues {
	h.w.t.Helper()
	b, err := h.node.Queues(h.w.ctx, h.link)
	h.w.must(err)
	return b.Links[0]
}

func (h *host) stands(waiting, parked uint64) {
	h.w.t.Helper()
	if q := h.backlog(); q.Waiting != waiting || q.Parked != parked {
		h.w.t.Fatalf("%d wait and %d are parked, want %d and %d", q.Waiting, q.Parked, waiting, parked)
	}
}

func (h *host) requeue(p node.Pick, want int) {
	h.w.t.Helper()
	last := 0
	n, err := h.node.Requeue(h.w.ctx, p, nightShift, func(n int) { last = n })
	h.w.must(err)
	if n != want || p.No == 0 && last != want {
		h.w.t.Fatalf("%d requeued, the last step said %d, want %d", n, last, want)
	}
}

// TestDeadLetters: what is not taken in time is parked and costs nothing, over
// a restart, until it is requeued: then it crosses, once, behind the others.
func TestDeadLetters(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	old := []string{w.submit(jia, "yi", 100), w.submit(jia, "yi", 100), w.submit(jia, "yi", 100)}
	w.clock = w.clock.Add(node.DefaultDeadLetterAfter - time.Minute)
	fresh := w.submit(jia, "yi", 100)
	jia.stands(4, 0)
	w.clock = w.clock.Add(2 * time.Minute)
	jia.work()
	jia.stands(1, 3)
	if o, _ := jia.next(Push); len(o.outs) != 3 || o.outs[0].ID != jia.headerOf(fresh) {
		t.Fatalf("%d items leave", len(o.outs))
	}
	jia.restart()
	jia.work()
	jia.stands(1, 3)
	if _, err := jia.node.Requeue(w.ctx, node.Pick{Link: "jia-yi", No: 4}, nightShift, nil); exchange.CodeOf(err) != exchange.CodeNotFound {
		t.Fatalf("requeuing what is not parked: %v", err)
	}
	jia.requeue(node.Pick{Link: "jia-yi", No: 2}, 1)
	jia.stands(2, 2)
	jia.requeue(node.Pick{Link: "jia-yi"}, 2)
	jia.requeue(node.Pick{}, 0)
	jia.stands(4, 0)
	jia.work()
	jia.stands(4, 0) // their time begins anew
	o, _ := jia.next(Push)
	if o.outs[0].ID != jia.headerOf(fresh) || o.outs[3].ID != jia.headerOf(old[1]) {
		t.Fatal("what was requeued is not behind the others")
	}
	w.exchange(jia, yi)
	yi.delivered(append(old, fresh)...)
	jia.stands(0, 0)
}

func (h *host) headerOf(id string) string {
	h.w.t.Helper()
	t, err := h.node.Trace(h.w.ctx, h.w.cast.agencies[h.id], id)
	h.w.must(err)
	return t.Header.String()
}

// TestALateAckFindsTheParked: a bundle that had left before is answered after
// its delivery was parked, or parked and requeued. It is handed over, and does
// not go again.
func TestALateAckFindsTheParked(t *testing.T) {
	for _, requeue := range []bool{false, true} {
		w := newWorld(t)
		jia, yi := w.pair()
		id := w.submit(jia, "yi", 100)
		_, b := jia.next(Push)
		yi.receive(b)
		_, reply := yi.next(Reply)
		w.clock = w.clock.Add(node.DefaultDeadLetterAfter)
		jia.work()
		jia.stands(0, 1)
		if requeue {
			jia.requeue(node.Pick{}, 1)
		}
		jia.receive(reply)
		jia.stands(0, 0)
		jia.requeue(node.Pick{}, 0)
		yi.work()
		w.exchange(jia, yi)
		yi.delivered(id)
	}
}

// TestUnendedRefusals: a refusal that no receipt of the neighbour will explain
// parks the delivery; one that is signed ends it.
func TestUnendedRefusals(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 100)
	o, b := jia.next(Push)
	outcomes := make([]node.Outcome, len(o.outs))
	for i := range outcomes {
		outcomes[i] = node.Outcome{Status: node.Damaged, Reason: "header_missing"}
	}
	outcomes[0] = node.Outcome{Status: node.Refused, Reason: "unknown_sender"}
	w.must(jia.node.Settle(w.ctx, "jia-yi", o.outs, outcomes))
	jia.stands(0, 1)
	w.must(jia.node.Settle(w.ctx, "jia-yi", o.outs, outcomes)) // heard twice
	jia.stands(0, 1)
	jia.requeue(node.Pick{}, 1)
	yi.receive(b)
	w.exchange(jia, yi)
	yi.delivered(id)

	ended := w.submit(jia, "yi", 100)
	o, _ = jia.next(Push)
	outcomes[0].Reason = exchange.CodeLabelCeiling
	w.must(jia.node.Settle(w.ctx, "jia-yi", o.outs, outcomes))
	jia.stands(0, 0)
	_ = ended
}

// TestAHoldDoesNotPark: what waits behind a held link is not parked, and has
// its full time again after the release.
func TestAHoldDoesNotPark(t *testing.T) {
	w := newWorld(t)
	jia, _ := w.pair()
	w.submit(jia, "yi", 100)
	w.must(jia.node.HoldLink(w.ctx, "jia-yi", nightShift))
	for range 2 {
		w.clock = w.clock.Add(node.DefaultDeadLetterAfter + time.Minute)
		jia.work()
		jia.stands(1, 0)
	}
	w.must(jia.node.ReleaseLink(w.ctx, "jia-yi", nightShift))
	jia.restart()
	w.clock = w.clock.Add(node.DefaultDeadLetterAfter - time.Minute)
	jia.work()
	jia.stands(1, 0)
	w.clock = w.clock.Add(2 * time.Minute)
	jia.work()
	jia.stands(0, 1)
}
