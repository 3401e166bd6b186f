package link

import (
	"fmt"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

const life = 2 * time.Hour

// submitShort hands in a document that lives for two hours.
func (w *world) submitShort(from *host, to string) string {
	w.t.Helper()
	body := make([]byte, 100)
	_, err := w.rand.Read(body)
	w.must(err)
	s := w.submission(from, to, "", body)
	s.Expires = w.clock.Add(life)
	got, err := from.node.Submit(w.ctx, s)
	w.must(err)
	w.files[got.ID] = [][]byte{body}
	return got.ID
}

// later lets time pass at a host.
func (h *host) later(d time.Duration) {
	h.w.t.Helper()
	h.w.clock = h.w.clock.Add(d)
	h.work()
}

// ended checks that the sender has one receipt of a stage that ends the
// delivery, signed by a node, and gives it.
func (h *host) ended(id string, stage exchange.Stage, by string) (last node.Event) {
	h.w.t.Helper()
	tr, err := h.node.Trace(h.w.ctx, h.w.cast.agencies[h.id], id)
	h.w.must(err)
	n := 0
	for _, e := range tr.Events {
		if e.Stage.End() {
			n, last = n+1, e
		}
	}
	if !tr.ReceiptsVerified || !tr.LedgerVerified || tr.State != exchange.StateEnded || n != 1 || last.Stage != stage || last.Node != by {
		h.w.t.Fatalf("%s, %d ends, the last one %s by %s, want one %s by %s", tr.State, n, last.Stage, last.Node, stage, by)
	}
	return last
}

// TestWhatNeverLeftExpires: in its lane, or not distributed yet; once, over a
// restart, and the neighbour never gets it.
func TestWhatNeverLeftExpires(t *testing.T) {
	for name, distributed := range map[string]bool{"in its lane": true, "not distributed": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			jia, yi := w.pair()
			id := w.submitShort(jia, "yi")
			if distributed {
				jia.later(life - time.Second)
				jia.stands(1, 0)
			}
			jia.later(life)
			jia.stands(0, 0)
			jia.ended(id, exchange.StageExpired, "jia")
			jia.restart()
			jia.later(time.Hour)
			w.exchange(jia, yi)
			jia.ended(id, exchange.StageExpired, "jia")
			yi.delivered()
		})
	}
}

// TestADeadLetterExpires: one that surely never left, by itself.
func TestADeadLetterExpires(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 100)
	jia.overdue()
	jia.stands(0, 1)
	jia.later(exchange.DefaultLife)
	jia.stands(0, 0)
	jia.ended(id, exchange.StageExpired, "jia")
	w.exchange(jia, yi)
	yi.delivered()
}

// TestWhatMayHaveLeftExpiresAtTheOther: the sender's node cannot know, so it
// goes on; whoever takes it ends it.
func TestWhatMayHaveLeftExpiresAtTheOther(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submitShort(jia, "yi")
	jia.work()
	jia.next(Push)
	jia.restart()
	jia.later(life)
	jia.stands(1, 0)
	w.wantStage(jia, id, "ACCEPTED")
	w.exchange(jia, yi)
	jia.stands(0, 0)
	jia.ended(id, exchange.StageExpired, "yi")
	yi.delivered()
	yi.restart()
	yi.later(time.Hour)
	yi.delivered()
}

// TestWhatWasDeliveredDoesNotExpire: nor does it at the sender, who has not
// heard of it yet.
func TestWhatWasDeliveredDoesNotExpire(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submitShort(jia, "yi")
	jia.work()
	_, push := jia.next(Push)
	yi.receive(push)
	yi.work()
	jia.later(life)
	yi.later(time.Hour)
	w.exchange(jia, yi)
	jia.later(time.Hour)
	w.wantStage(jia, id, "DELIVERED")
	yi.delivered(id)
}

// TestARestoredNodeExpiresNothingOld: it may have been delivered before the disk
// was lost; late is better than twice an end.
func TestARestoredNodeExpiresNothingOld(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submitShort(jia, "yi")
	jia.work()
	backup, before := jia.store.clone(), yi.store.clone()
	w.exchange(jia, yi)
	jia = w.afterDiskLoss(jia, backup)
	jia.later(life)
	jia.stands(1, 0)
	w.replayed(jia, yi)
	w.wantStage(jia, id, "DELIVERED")
	yi.delivered(id)

	yi = w.afterDiskLoss(yi, before)
	yi.later(life)
	w.replayed(jia, yi)
	w.wantStage(jia, id, "DELIVERED")
	yi.delivered(id)
}

// TestASecondConsignmentEndsNothing: what was handed over in one consignment is not
// ended because another one names the same recipient and waits.
func TestASecondConsignmentEndsNothing(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	s := w.submission(jia, "yi", "", []byte("正文"))
	s.Expires = w.clock.Add(time.Hour)
	got, err := jia.node.Submit(w.ctx, s)
	w.must(err)
	w.exchange(jia, yi)
	second := sm.Sum([]byte("another consignment"))
	w.must(jia.store.Update(w.ctx, func(tx queue.Tx) error {
		entry := fmt.Appendf(nil, `{"Kind":"header","Envelope":%q,"Object":%q}`, got.Header, second)
		seq, err := queue.Enqueue(tx, "out/jia-yi/0", entry)
		if err != nil {
			return err
		}
		out := &records.Outbound{Recipients: []int{0}, Parts: []byte{0}, Count: 1, State: records.StateQueued, Lane: "out/jia-yi/0", Seq: seq}
		return records.Outgoing.Insert(tx, out, got.Header, "jia-yi", second)
	}))
	jia.later(2 * time.Hour)
	if n := len(jia.receipts(got.ID, exchange.StageExpired)); n > 0 {
		t.Errorf("%d EXPIRED for what was delivered", n)
	}
	w.wantStage(jia, got.ID, "DELIVERED")
	jia.stands(0, 0)
}
