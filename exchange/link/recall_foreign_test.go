package link

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// TestAForeignWishIsNotCarriedOut: what another agency asked for before the header
// was here is carried out after it came, and changes nothing.
func TestAForeignWishIsNotCarriedOut(t *testing.T) {
	for _, wish := range []exchange.Wish{exchange.WishRecall, exchange.WishRemind} {
		t.Run(string(wish), func(t *testing.T) {
			w := newWorld(t)
			jia, yi := w.pair()
			id := w.submit(jia, "yi", 100)
			e, _ := w.headerOf(jia)
			_, document := jia.next(Push)
			yi.work()
			stolen := w.request("bing", func(r *exchange.Request) { r.Envelope, r.Header, r.Wish = id, e.Hash, wish })
			if out := w.handRequest(yi, "yi-bing", stolen); out.Status != node.Taken {
				t.Fatalf("before the document it is %+v", out)
			}
			yi.receive(document) // delivered before the request is looked at
			yi.delivered(id)
			yi.work()
			w.exchange(jia, yi)
			w.exchange(jia, yi)
			w.wantStage(jia, id, "COLLECTED")
			if got := yi.inbox(); got.Stage != exchange.StageCollected || got.Reminders != 0 {
				t.Errorf("the inbox says %s, reminded %d times", got.Stage, got.Reminders)
			}
			if got := len(yi.receipts(id, exchange.StageRecalled)) + len(yi.receipts(id, exchange.StageRecallRefused)); got > 0 {
				t.Errorf("%d answers were signed", got)
			}
		})
	}
}

// TestAForeignTombstoneHidesNoRecall: another agency's request was here first.
func TestAForeignTombstoneHidesNoRecall(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 100)
	e, _ := w.headerOf(jia)
	_, document := jia.next(Push)
	stolen := w.request("bing", func(r *exchange.Request) { r.Envelope, r.Header = id, e.Hash })
	if out := w.handRequest(yi, "yi-bing", stolen); out.Status != node.Taken {
		t.Fatalf("the foreign one is %+v", out)
	}
	yi.work()
	asked := jia.ask(exchange.WishRecall, id)
	jia.work()
	if out := w.handRequest(yi, "jia-yi", asked.CMS); out.Status != node.Taken {
		t.Fatalf("the recall is %+v", out)
	}
	yi.work()
	yi.receive(document)
	yi.work()
	w.exchange(jia, yi)
	yi.delivered()
	jia.proven(id, exchange.StageRecalled, "yi", asked.ID)
}

// TestARestoredNodeRefusesWhatItRefused: the document was signed for and its recall
// refused after the backup; nothing else is proven afterwards, whatever comes back
// first.
func TestARestoredNodeRefusesWhatItRefused(t *testing.T) {
	for _, size := range []int{100, 9 << 20} {
		w := newWorld(t)
		jia, yi := w.pair()
		w.exchange(jia, yi)
		backup := yi.store.clone()
		id := w.submit(jia, "yi", size)
		for range 3 {
			w.exchange(jia, yi)
		}
		signed := yi.signFor(id)
		asked := jia.ask(exchange.WishRecall, id)
		jia.work()
		w.exchange(jia, yi)
		w.exchange(jia, yi)
		jia.proven(id, exchange.StageRecallRefused, "yi", asked.ID)
		refused := yi.receipts(id, exchange.StageRecallRefused)

		yi = w.afterDiskLoss(yi, backup)
		w.replayed(jia, yi)
		yi.delivered(id)
		if again := yi.signFor(id); !bytes.Equal(again, signed) {
			t.Errorf("%d bytes: signing again gave another receipt", size)
		}
		if got := yi.receipts(id, exchange.StageRecallRefused); len(got) != 1 || !bytes.Equal(got[0], refused[0]) {
			t.Errorf("%d bytes: %d refusals, or another one", size, len(got))
		}
		if got := yi.receipts(id, exchange.StageRecalled); len(got) > 0 {
			t.Errorf("%d bytes: recalled after it was signed for", size)
		}
		w.wantStage(jia, id, "SIGNED_FOR")
	}
}

// TestRequestsForWhatIsNotHereAreBounded: of one agency about one document, and by
// the room on the disk; what goes beyond stays with the neighbour.
func TestRequestsForWhatIsNotHereAreBounded(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 100)
	e, _ := w.headerOf(jia)
	one := func(n int) []byte {
		return w.request("jia", func(r *exchange.Request) { r.Envelope, r.Header, r.Reason = id, e.Hash, fmt.Sprint(n) })
	}
	yi.full = true
	if out := w.handRequest(yi, "jia-yi", one(0)); out.Status != node.Damaged || out.Reason != exchange.CodeNoSpace {
		t.Errorf("without room: %+v", out)
	}
	yi.full = false
	for n := range 20 {
		want := node.Outcome{Status: node.Taken}
		if n >= 16 {
			want = node.Outcome{Status: node.Damaged, Reason: "waiting_full"}
		}
		if out := w.handRequest(yi, "jia-yi", one(n)); out != want {
			t.Fatalf("request %d: %+v", n, out)
		}
	}
	other := w.request("bing", func(r *exchange.Request) { r.Envelope, r.Header = id, e.Hash })
	if out := w.handRequest(yi, "yi-bing", other); out.Status != node.Taken {
		t.Errorf("another agency's: %+v", out)
	}
	w.hand(yi, "jia-yi", node.KindHeader, e.Hash.String(), func() []byte { _, b := w.headerOf(jia); return b }())
	for n := 16; n < 405; n++ {
		want := node.Outcome{Status: node.Taken}
		if n >= 400 {
			want = node.Outcome{Status: node.Refused, Reason: "too_many_requests"}
		}
		if out := w.handRequest(yi, "jia-yi", one(n)); out != want {
			t.Fatalf("request %d: %+v", n, out)
		}
	}
}

// TestARequestThatWaitsIsInItsRow: nothing else would hold a blob about a header
// that is not here, and the sweep of a start would take it.
func TestARequestThatWaitsIsInItsRow(t *testing.T) {
	w, jia, yi, id := waiting(t)
	e, _ := w.headerOf(jia)
	many := w.request("jia", func(r *exchange.Request) {
		r.Envelope, r.Header = id, e.Hash
		for len(r.Recipients) < 900 {
			r.Recipients = append(r.Recipients, r.Recipients[0])
		}
	})
	if out := w.handRequest(yi, "jia-yi", many); out.Status != node.Postponed || len(many) < 17<<10 {
		t.Fatalf("%d bytes: %+v", len(many), out)
	}
	w.must(yi.store.View(w.ctx, func(tx queue.Tx) error {
		return records.Deferred.Each(tx, 0, func(_ []byte, item *records.DeferredItem) bool {
			if item.Kind == node.KindRequest && (item.Body.Ref != "" || !bytes.Equal(item.Body.Inline, many)) {
				t.Error("the request is not in its row")
			}
			return true
		})
	}))
	yi.shelf.inForce = jia.shelf.inForce
	yi.later(time.Second)
	if n := yi.rowsOf("dfr"); n != 0 {
		t.Errorf("%d rows wait still", n)
	}
}

// TestARecalledDocumentIsNotGivenOut although it was opened before.
func TestARecalledDocumentIsNotGivenOut(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 100)
	w.exchange(jia, yi)
	agency := w.cast.agencies["yi"]
	_, err := yi.node.Peek(w.ctx, agency, id)
	w.must(err)
	jia.ask(exchange.WishRecall, id)
	jia.work()
	w.exchange(jia, yi)
	if err := yi.node.Collected(w.ctx, agency, id); exchange.CodeOf(err) != exchange.CodeRecalled {
		t.Errorf("collecting what was recalled meanwhile: %v", err)
	}
}

// TestAReminderCountsOnce, although what follows it fails and it is carried out
// again after another one.
func TestAReminderCountsOnce(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 100)
	w.exchange(jia, yi)
	remind := func() []byte {
		w.clock = w.clock.Add(time.Second)
		return jia.ask(exchange.WishRemind, id).CMS
	}
	first, second := remind(), remind()
	w.handRequest(yi, "jia-yi", first)
	commits := 0
	yi.store.fail = func() error {
		if commits++; commits == 2 { // it counts, and its end does not become true
			return errors.New("the disk hiccups")
		}
		return nil
	}
	if _, err := yi.node.Work(w.ctx); err == nil {
		t.Fatal("nothing failed")
	}
	yi.store.fail = nil
	w.handRequest(yi, "jia-yi", second)
	yi.work()
	yi.later(time.Minute)
	if got := yi.inbox(); got.Reminders != 2 {
		t.Errorf("reminded %d times", got.Reminders)
	}
}

// TestRemindersLeaveRoomForARecall, and a recall is answered as it was however much
// was asked for.
func TestRemindersLeaveRoomForARecall(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 100)
	w.exchange(jia, yi)
	for range 200 {
		w.clock = w.clock.Add(time.Second)
		jia.ask(exchange.WishRemind, id)
	}
	asked := jia.ask(exchange.WishRecall, id)
	if again := jia.ask(exchange.WishRecall, id); again.ID != asked.ID {
		t.Error("the same recall was signed twice")
	}
}

// TestWhatEndsDoesNotHoldUpTheRest: a step of what is past its time goes with a
// step of the other work, and one that cannot be ended now does not end it.
func TestWhatEndsDoesNotHoldUpTheRest(t *testing.T) {
	w := newWorld(t)
	jia, _ := w.pair()
	jia.work()
	keys := jia.losing()
	for range 5 {
		s := w.submission(jia, "yi", "", []byte("正文"))
		s.Expires = w.clock.Add(time.Minute)
		_, err := jia.node.Submit(w.ctx, s)
		w.must(err)
	}
	jia.ask(exchange.WishRemind, w.accept(jia, "yi", 10)) // needs no key to be carried out
	before := jia.entries("work")
	if before == 0 {
		t.Fatal("there is no other work")
	}
	w.clock = w.clock.Add(time.Hour)
	keys.away.Store(true) // nothing can be ended
	failed := 0
	for range 4 { // fewer than there are to be ended
		if _, err := jia.node.Work(w.ctx); err != nil {
			failed++
		}
	}
	if after := jia.entries("work"); failed != 1 || after >= before {
		t.Errorf("%d failures; of the other work %d before, %d now", failed, before, after)
	}
}

// entries counts what is in a lane.
func (h *host) entries(lane string) (n int) {
	h.w.t.Helper()
	h.w.must(h.store.View(h.w.ctx, func(tx queue.Tx) error {
		for _, err := range queue.Entries(tx, lane, 0, 0) {
			if err != nil {
				return err
			}
			n++
		}
		return nil
	}))
	return n
}
