package link

import (
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

var givingUp = node.Who{By: "值班员", Reason: "对端单位已撤销"}

func (h *host) giveUp(p node.Pick, code string) {
	h.w.t.Helper()
	if err := h.node.GiveUp(h.w.ctx, p, givingUp); (err == nil) != (code == "") || err != nil && exchange.CodeOf(err) != code {
		h.w.t.Fatalf("giving up %v: %v, want %q", p, err, code)
	}
}

// overdue lets what waits at a host become a dead letter.
func (h *host) overdue() {
	h.w.t.Helper()
	h.w.clock = h.w.clock.Add(node.DefaultDeadLetterAfter + time.Minute)
	h.work()
}

// failed checks that the sender has one FAILED with the operator's reason.
func (h *host) failed(id string) {
	h.w.t.Helper()
	tr, err := h.node.Trace(h.w.ctx, h.w.cast.agencies[h.id], id)
	h.w.must(err)
	var events []node.Event
	for _, e := range tr.Events {
		if e.Stage == exchange.StageFailed {
			events = append(events, e)
		}
	}
	if !tr.ReceiptsVerified || !tr.LedgerVerified || tr.State != exchange.StateEnded || tr.Recipients[0].Stage != exchange.StageFailed ||
		len(events) != 1 || events[0].Detail == nil || events[0].Detail.Reason != givingUp.Reason {
		h.w.t.Fatalf("%s, %+v, %+v", tr.State, tr.Recipients, events)
	}
}

// TestGivingUpWhatNeverLeft ends a delivery once; the document never arrives.
func TestGivingUpWhatNeverLeft(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 100)
	jia.giveUp(node.Pick{Link: "jia-yi", No: 1}, exchange.CodeNotFound) // it still waits
	jia.overdue()
	jia.stands(0, 1)
	if err := jia.node.GiveUp(w.ctx, node.Pick{Link: "jia-yi", No: 1}, node.Who{By: "值班员"}); exchange.CodeOf(err) != exchange.CodeBadRequest {
		t.Fatalf("without a reason: %v", err)
	}
	jia.giveUp(node.Pick{Link: "jia-yi", No: 1}, "")
	jia.stands(0, 0)
	jia.failed(id)
	jia.restart()
	jia.giveUp(node.Pick{Link: "jia-yi", No: 1}, exchange.CodeNotFound)
	jia.requeue(node.Pick{}, 0)
	w.exchange(jia, yi)
	yi.delivered()
}

// TestWhatMayHaveLeftIsNotGivenUp: neither after a restart nor after it was
// parked once more; the neighbour may have it, and here it has.
func TestWhatMayHaveLeftIsNotGivenUp(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 100)
	_, under := jia.next(Push)
	jia.overdue()
	jia.restart()
	jia.giveUp(node.Pick{Link: "jia-yi", No: 1}, exchange.CodeFateUnknown)
	jia.requeue(node.Pick{}, 1)
	jia.overdue()
	jia.giveUp(node.Pick{Link: "jia-yi", No: 2}, exchange.CodeFateUnknown)
	w.clock = w.clock.Add(-2 * node.DefaultDeadLetterAfter)
	yi.receive(under)
	yi.work()
	yi.delivered(id)
	jia.requeue(node.Pick{}, 1)
	w.exchange(jia, yi)
	jia.stands(0, 0)
	yi.delivered(id)
}

// refuses lets the neighbour refuse all of a bundle in a way without a signed end.
func (h *host) refuses(o *Outgoing) {
	h.w.t.Helper()
	a := Ack{Epoch: h.epoch, Seq: o.seq, Header: o.header, Items: make([]AckItem, len(o.outs))}
	for i := range a.Items {
		a.Items[i] = AckItem{Status: node.Refused, Reason: "unknown_sender"}
	}
	known, err := h.settle(h.w.ctx, a)
	h.w.must(err)
	if !known {
		h.w.t.Fatal("the ack is not known")
	}
}

// TestARefusalProvesOnlyItsBundle: a delivery that left in one bundle and was
// refused in it may be given up; one that left in two, or before a restart, may
// have been taken with the other.
func TestARefusalProvesOnlyItsBundle(t *testing.T) {
	for name, c := range map[string]struct {
		again, restart bool
		code           string
	}{"once": {}, "twice": {again: true, code: exchange.CodeFateUnknown}, "over a restart": {restart: true, code: exchange.CodeFateUnknown}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			jia, _ := w.pair()
			id := w.submit(jia, "yi", 100)
			o, _ := jia.next(Push)
			if c.again {
				jia.next(Push)
			}
			if c.restart {
				jia.restart()
				o, _ = jia.next(Push)
			}
			jia.refuses(o)
			jia.stands(0, 1)
			jia.giveUp(node.Pick{Link: "jia-yi", No: 1}, c.code)
			if c.code == "" {
				jia.failed(id)
			}
		})
	}
}

// TestABundleLeavesOnlyWithWhatStands: an entry that was taken out of its lane
// after it was read does not leave, and nothing says that it did.
func TestABundleLeavesOnlyWithWhatStands(t *testing.T) {
	w := newWorld(t)
	jia, _ := w.pair()
	id := w.submit(jia, "yi", 100)
	outs, err := jia.node.Outgoing(w.ctx, "jia-yi", FillBytes, FillItems)
	w.must(err)
	jia.overdue()
	if ok, err := jia.node.Offer(w.ctx, outs); ok || err != nil {
		t.Fatalf("it may leave: %v, %v", ok, err)
	}
	jia.giveUp(node.Pick{Link: "jia-yi", No: 1}, "")
	jia.failed(id)
}

// TestARestoredNodeKnowsNotWhatLeft: since the backup the neighbour may have got
// what waits in it, is parked in it, or is not even distributed.
func TestARestoredNodeKnowsNotWhatLeft(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	parked := w.submit(jia, "yi", 100)
	jia.overdue()
	waiting := w.submit(jia, "yi", 100)
	undone := w.accept(jia, "yi", 100)
	backup := jia.store.clone()
	jia.requeue(node.Pick{}, 1)
	w.exchange(jia, yi)
	yi.delivered(parked, waiting, undone)

	jia = w.afterDiskLoss(jia, backup)
	jia.work()
	jia.giveUp(node.Pick{Link: "jia-yi", No: 1}, exchange.CodeFateUnknown)
	jia.overdue()
	jia.giveUp(node.Pick{Link: "jia-yi", No: 2}, exchange.CodeFateUnknown)
	jia.giveUp(node.Pick{Link: "jia-yi", No: 3}, exchange.CodeFateUnknown)
	fresh := w.submit(jia, "yi", 100) // a week after the restore
	jia.overdue()
	jia.giveUp(node.Pick{Link: "jia-yi", No: 4}, "")
	jia.failed(fresh)
	jia.requeue(node.Pick{}, 3)
	w.replayed(jia, yi)
	jia.stands(0, 0)
	yi.delivered(parked, waiting, undone)
}

// TestWhatIsGivenAgainMayBeThere: a neighbour that lost its disk may have got it
// back from elsewhere; nobody gives it up here.
func TestWhatIsGivenAgainMayBeThere(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	backup := yi.store.clone()
	id := w.submit(jia, "yi", 100)
	w.exchange(jia, yi)
	yi = w.afterDiskLoss(yi, backup)
	_, poll := jia.next(Poll)
	yi.receive(poll)
	_, answer := yi.next(Answer)
	jia.receive(answer)
	jia.work()
	_, push := jia.next(Push) // what the neighbour had signed goes first
	yi.receive(push)
	_, reply := yi.next(Reply)
	jia.receive(reply)
	jia.work()
	jia.overdue()
	jia.stands(0, 1)
	jia.giveUp(node.Pick{Link: "jia-yi", No: 1}, exchange.CodeFateUnknown)
	jia.requeue(node.Pick{}, 1)
	w.replayed(jia, yi)
	yi.delivered(id)
}
