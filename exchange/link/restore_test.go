package link

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// signFor lets the agency of a host act on a document, and gives its receipt.
func (h *host) signFor(id string) []byte {
	h.w.t.Helper()
	b, err := h.node.Act(h.w.ctx, h.w.cast.agencies[h.id], id, node.Action{Stage: exchange.StageSignedFor, Actor: exchange.Actor{Name: "值班员"}})
	h.w.must(err)
	return b
}

// receipts are the stored bytes of a document's receipts of one stage.
func (h *host) receipts(id string, stage exchange.Stage) (list [][]byte) {
	h.w.t.Helper()
	h.w.must(h.store.View(h.w.ctx, func(tx queue.Tx) error {
		list = nil
		return records.Envelopes.Each(tx, 0, func(key []byte, env *records.Envelope) bool {
			if env.ID != id {
				return true
			}
			h.w.must(records.Receipts.Each(tx, 0, func(_ []byte, row *records.Receipt) bool {
				s, err := stageOf(row.CMS)
				h.w.must(err)
				if s == stage {
					list = append(list, row.CMS)
				}
				return true
			}, key[len(records.Envelopes.Key()):]))
			return true
		})
	}))
	return list
}

func stageOf(signed []byte) (exchange.Stage, error) {
	c, err := cms.Parse(signed, exchange.MaxReceiptCMS)
	if err != nil {
		return "", err
	}
	r, err := exchange.ParseReceipt(c.Content)
	if err != nil {
		return "", err
	}
	return r.Stage, nil
}

// afterDiskLoss makes the host that has only the backup, in the way of
// `yizhan backup restore`.
func (w *world) afterDiskLoss(lost *host, backup *memory) *host {
	w.t.Helper()
	w.clock = w.clock.Add(time.Second)
	h := w.host(lost.id, lost.link, backup, lost.blobs)
	_, err := h.node.BeginAgain(w.ctx)
	w.must(err)
	h.restart()
	return h
}

// replayed exchanges until a replay has ended: its second walk begins when all of
// the first has left, which an exchange at rest does not see.
func (w *world) replayed(dialer, listener *host) {
	w.t.Helper()
	for range 3 {
		w.exchange(dialer, listener)
	}
}

// TestReceiverLosesItsDisk: what the neighbour had handed over since the backup
// comes again, what had been signed comes back as the bytes it was, and what
// had been sent can be traced again.
func TestReceiverLosesItsDisk(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	before := w.submit(jia, "yi", 100)
	w.exchange(jia, yi)
	backup := yi.store.clone()

	after, large := w.submit(jia, "yi", 200), w.submit(jia, "yi", 9<<20)
	sent := w.submit(yi, "jia", 300)
	w.exchange(jia, yi)
	first, second := yi.signFor(before), yi.signFor(after)
	jia.signFor(sent)
	w.exchange(jia, yi)
	delivered := jia.receipts(large, exchange.StageDelivered)

	yi = w.afterDiskLoss(yi, backup)
	w.replayed(jia, yi)

	yi.delivered(before, after, large)
	jia.delivered(sent)
	for id, want := range map[string][]byte{before: first, after: second} {
		for _, h := range []*host{jia, yi} {
			if got := h.receipts(id, exchange.StageSignedFor); len(got) != 1 || !bytes.Equal(got[0], want) {
				t.Errorf("%s has %d SIGNED_FOR receipts of %s, or another one", h.id, len(got), id)
			}
		}
		if again := yi.signFor(id); !bytes.Equal(again, want) {
			t.Errorf("signing for %s again gave another receipt", id)
		}
	}
	for _, h := range []*host{jia, yi} {
		if got := h.receipts(large, exchange.StageDelivered); len(got) != 1 || !bytes.Equal(got[0], delivered[0]) {
			t.Errorf("%s has %d DELIVERED receipts of one delivery, or another one", h.id, len(got))
		}
		if q := h.quarantined(); len(q) > 0 {
			t.Errorf("%s shows %v", h.id, q)
		}
	}
	trace, err := yi.node.Trace(w.ctx, w.cast.agencies["yi"], sent)
	w.must(err)
	if len(trace.Recipients) != 1 || trace.Recipients[0].Stage != exchange.StageSignedFor {
		t.Errorf("what the lost node had sent stands at %+v", trace.Recipients)
	}
	if yi.node.Alarm() != nil {
		t.Error(yi.node.Alarm())
	}
	// The loss goes on being a loss only once: nothing is replayed again.
	yi.restart()
	if o, _ := jia.next(Push); o != nil {
		t.Error("there is still something to give")
	}
}

// TestSenderLosesItsDisk: what had left since the backup goes once more, and
// takes no effect.
func TestSenderLosesItsDisk(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 100)
	backup := jia.store.clone()
	w.exchange(jia, yi)
	yi.signFor(id)
	w.exchange(jia, yi)
	receipt := jia.receipts(id, exchange.StageSignedFor)

	jia = w.afterDiskLoss(jia, backup)
	w.replayed(jia, yi)
	yi.delivered(id)
	for _, stage := range []exchange.Stage{exchange.StageDelivered, exchange.StageSignedFor} {
		if got := jia.receipts(id, stage); len(got) != 1 || len(yi.receipts(id, stage)) != 1 {
			t.Errorf("%d receipts %s came home", len(got), stage)
		}
	}
	if got := jia.receipts(id, exchange.StageSignedFor); !slices.EqualFunc(got, receipt, bytes.Equal) {
		t.Error("another receipt came home")
	}
}

// TestLostTwice: a disk that is lost again before everything had come.
func TestLostTwice(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	backup := yi.store.clone()
	ids := []string{w.submit(jia, "yi", 100), w.submit(jia, "yi", 100)}
	w.exchange(jia, yi)
	for range 2 {
		yi = w.afterDiskLoss(yi, backup.clone())
		_, poll := jia.next(Poll)
		yi.receive(poll)
		_, answer := yi.next(Reply)
		jia.receive(answer)
		jia.work()
	}
	w.replayed(jia, yi)
	yi.delivered(ids...)
}

// TestNewLedgerWithoutNotice: another ledger under a node's name is kept beside
// the known one, shown, and not believed; documents go on.
func TestNewLedgerWithoutNotice(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	w.submit(jia, "yi", 100)
	w.exchange(jia, yi)
	other := w.host("jia", "jia-yi", nil, nil)
	id := w.submit(other, "yi", 100)
	w.exchange(other, yi)
	found := slices.ContainsFunc(yi.quarantined(), func(q string) bool { return len(q) > 10 && q[:10] == "checkpoint" })
	if !found {
		t.Errorf("a ledger without a word of what became of the one before is not shown: %v", yi.quarantined())
	}
	items, err := yi.node.Inbox(w.ctx, w.cast.agencies["yi"], 0, 10)
	w.must(err)
	if len(items) != 2 || items[1].ID != id {
		t.Errorf("%d documents came", len(items))
	}
}

// TestLateAckAfterALoss: an ack from before the loss, which comes when the new
// ledger is known, ends nothing: what it acknowledges was lost.
func TestLateAckAfterALoss(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	w.submit(jia, "yi", 10)
	w.exchange(jia, yi)
	backup := yi.store.clone()
	id := w.submit(jia, "yi", 100)
	_, b := jia.next(Push)
	yi.receive(b)
	_, late := yi.next(Reply)

	yi = w.afterDiskLoss(yi, backup)
	_, poll := jia.next(Poll)
	yi.receive(poll)
	_, answer := yi.next(Answer)
	jia.receive(answer)
	jia.work()
	if got := jia.receive(late); got.Acks != 0 {
		t.Errorf("%d acks from before the loss counted", got.Acks)
	}
	w.replayed(jia, yi)
	if n := len(yi.receipts(id, exchange.StageDelivered)); n != 1 {
		t.Errorf("%d receipts DELIVERED of what was acknowledged and lost", n)
	}
}
