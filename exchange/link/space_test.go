package link

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// TestAFullNeighbourIsLeftAlone: a node without room takes no document, hears
// of receipts all the same, and is asked again at growing pauses, whatever
// waits; with room again all arrives once.
func TestAFullNeighbourIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	earlier := w.submit(yi, "jia", 100)
	_, answer := yi.next(Answer)
	jia.receive(answer)
	jia.work() // a receipt for yi waits at jia now
	var ids []string
	for range 5 {
		ids = append(ids, w.submit(jia, "yi", 100))
	}
	yi.full = true
	before := yi.store.facts()
	asked, begin := 0, w.clock
	for w.clock.Sub(begin) < 10*time.Minute {
		o, push := jia.next(Push)
		if o == nil {
			w.clock = w.clock.Add(100 * time.Millisecond)
			continue
		}
		if asked++; asked > 1000 {
			t.Fatal("a full neighbour is asked without a pause")
		}
		yi.receive(push)
		for i, status := range yi.outcomes() {
			if kind := o.outs[i].Kind; kind != node.KindReceipt && (status != node.Damaged || yi.acks[len(yi.acks)-1].Items[i].Reason != "no_space") {
				t.Fatalf("a %s is %s at a full node", kind, status)
			}
		}
		_, reply := yi.next(Reply)
		jia.receive(reply)
		if !jia.node.Held("jia-yi") {
			t.Fatal("nobody will look again")
		}
	}
	// 8 doublings reach a minute, then one in 30 to 60 seconds.
	if asked < 12 || asked > 8+2*10+2 {
		t.Errorf("a full neighbour was asked %d times in ten minutes", asked)
	}
	if len(yi.quarantined()) != 0 || len(jia.quarantined()) != 0 {
		t.Error("a full disk is shown as damage")
	}
	if sameRows(before, yi.store.facts()) {
		t.Error("the receipt did not arrive")
	}
	// A receipt passes during the pause.
	yi.full = false
	late := w.submit(yi, "jia", 100)
	yi.full = true
	_, answer = yi.next(Answer)
	jia.receive(answer)
	jia.work()
	o, push := jia.next(Push)
	if o == nil || slices.ContainsFunc(o.outs, func(x node.Out) bool { return x.Kind != node.KindReceipt }) {
		t.Fatal("during the pause receipts go, and nothing else")
	}
	yi.receive(push)
	_, reply := yi.next(Reply)
	jia.receive(reply)

	yi.full = false
	w.clock = w.clock.Add(time.Minute)
	w.exchange(jia, yi)
	if o, _ := jia.next(Push); o != nil || jia.node.Held("jia-yi") {
		t.Error("the pause did not end")
	}
	yi.delivered(ids...)
	jia.delivered(earlier, late)
}

// TestAFullNodeTakesNoPart: room may end between the header and the parts; what
// has come stays, and the rest comes later.
func TestAFullNodeTakesNoPart(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 100)
	o, _ := jia.next(Push)
	for _, out := range o.outs {
		r, err := out.Open(w.ctx)
		w.must(err)
		yi.full = out.Kind == node.KindPart
		got, err := yi.node.Intake(w.ctx, "jia-yi", out.Item, r)
		w.must(errors.Join(err, r.Close()))
		if want := map[bool]string{true: node.Damaged, false: node.Taken}[yi.full]; got.Status != want {
			t.Errorf("a %s is %s, want %s", out.Kind, got.Status, want)
		}
	}
	// What is known is answered for, full or not.
	header, err := o.outs[0].Open(w.ctx)
	w.must(err)
	if got, err := yi.node.Intake(w.ctx, "jia-yi", o.outs[0].Item, header); err != nil || got.Status != node.Duplicate {
		t.Errorf("a header that is here is %s, %v", got.Status, err)
	}
	yi.full = false
	w.exchange(jia, yi)
	yi.delivered(id)
}

// TestAFullNodeAcceptsNothing: a submission is refused before anything of it is
// stored, and one that was accepted before is answered as it was.
func TestAFullNodeAcceptsNothing(t *testing.T) {
	w := newWorld(t)
	jia, _ := w.pair()
	hand := func() (*node.Accepted, error) {
		return jia.node.Submit(w.ctx, w.submission(jia, "yi", "key", []byte("正文")))
	}
	jia.full = true
	before := jia.store.facts()
	if _, err := hand(); exchange.CodeOf(err) != exchange.CodeNoSpace || !exchange.IsTemporary(err) {
		t.Fatalf("a full node says %v", err)
	}
	if !sameRows(before, jia.store.facts()) {
		t.Error("a refused submission left something behind")
	}
	jia.full = false
	first, err := hand()
	w.must(err)
	jia.full = true
	again, err := hand()
	w.must(err)
	if again.ID != first.ID || !again.Replayed || !bytes.Equal(again.Receipt, first.Receipt) {
		t.Error("a repeated submission is answered otherwise on a full disk")
	}
}
