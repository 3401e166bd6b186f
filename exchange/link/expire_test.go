package link

import (
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
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
