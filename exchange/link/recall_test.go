package link

import (
	"bytes"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

var clerk = exchange.Actor{Name: "王伟", Role: "机要员"}

// ask lets the agency of a host ask for something about a document it sent.
func (h *host) ask(wish exchange.Wish, id string) node.Asked {
	h.w.t.Helper()
	all, err := h.node.Ask(h.w.ctx, h.w.cast.agencies[h.id], id, node.Asking{Wish: wish, Actor: clerk})
	h.w.must(err)
	if len(all) != 1 {
		h.w.t.Fatalf("%d requests", len(all))
	}
	return all[0]
}

// inbox is the only document in the inbox of a host's agency.
func (h *host) inbox() node.InboxItem {
	h.w.t.Helper()
	items, err := h.node.Inbox(h.w.ctx, h.w.cast.agencies[h.id], 0, 10)
	h.w.must(err)
	if len(items) != 1 {
		h.w.t.Fatalf("%d documents are in the inbox", len(items))
	}
	return items[0]
}

// proven checks that the last receipt of a stage builds on a request.
func (h *host) proven(id string, stage exchange.Stage, by string, request sm.Digest) node.Event {
	h.w.t.Helper()
	tr, err := h.node.Trace(h.w.ctx, h.w.cast.agencies[h.id], id)
	h.w.must(err)
	var found []node.Event
	for _, e := range tr.Events {
		if e.Stage == stage {
			found = append(found, e)
		}
	}
	if !tr.ReceiptsVerified || !tr.LedgerVerified || len(found) != 1 || found[0].Node != by || len(found[0].After) != 1 || found[0].After[0] != request {
		h.w.t.Fatalf("receipts %v, ledger %v, %s: %+v", tr.ReceiptsVerified, tr.LedgerVerified, stage, found)
	}
	return found[0]
}

// TestRecallWhatNeverLeft: the sender's own node ends it, also as a dead letter,
// and the neighbour never gets it.
func TestRecallWhatNeverLeft(t *testing.T) {
	for name, before := range map[string]func(*host){
		"not distributed": func(*host) {}, "in its lane": (*host).work, "a dead letter": (*host).overdue,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			jia, yi := w.pair()
			id := w.accept(jia, "yi", 100)
			before(jia)
			asked := jia.ask(exchange.WishRecall, id)
			jia.work()
			jia.later(time.Second) // what was busy is tried again
			jia.ended(id, exchange.StageRecalled, "jia")
			jia.proven(id, exchange.StageRecalled, "jia", asked.ID)
			if again := jia.ask(exchange.WishRecall, id); again.ID != asked.ID || !bytes.Equal(again.CMS, asked.CMS) {
				t.Error("the same recall was signed twice")
			}
			jia.restart()
			w.exchange(jia, yi)
			yi.delivered()
			jia.stands(0, 0)
			jia.ended(id, exchange.StageRecalled, "jia")
		})
	}
}

// TestRecallWhatWasDelivered: before it is signed for it is recalled, and its
// agency can neither read nor sign it any more; afterwards the recall is refused.
// Either way there is one receipt, whatever is asked again.
func TestRecallWhatWasDelivered(t *testing.T) {
	for name, signed := range map[string]bool{"before": false, "after": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			jia, yi := w.pair()
			id := w.submit(jia, "yi", 100)
			w.exchange(jia, yi)
			yi.delivered(id)
			if signed {
				w.signFor(yi, id)
			}
			asked := jia.ask(exchange.WishRecall, id)
			jia.work()
			w.exchange(jia, yi)
			w.exchange(jia, yi)
			if signed {
				if e := jia.proven(id, exchange.StageRecallRefused, "yi", asked.ID); e.Reason != "signed_for" {
					t.Fatalf("the reason is %q", e.Reason)
				}
				w.wantStage(jia, id, "SIGNED_FOR")
				return
			}
			jia.proven(id, exchange.StageRecalled, "yi", asked.ID)
			jia.ended(id, exchange.StageRecalled, "yi")
			agency := w.cast.agencies["yi"]
			if _, err := yi.node.Collect(w.ctx, agency, id); exchange.CodeOf(err) != exchange.CodeRecalled {
				t.Errorf("collecting: %v", err)
			}
			if _, err := yi.node.Act(w.ctx, agency, id, node.Action{Stage: exchange.StageSignedFor, Actor: clerk}); exchange.CodeOf(err) != exchange.CodeConflict {
				t.Errorf("signing for it: %v", err)
			}
			if got := yi.inbox().Stage; got != exchange.StageRecalled {
				t.Errorf("the inbox says %s", got)
			}
		})
	}
}

// TestARecallThatOvertakes leaves a tombstone: the document comes, and ends; in
// one store with the recall or over a restart, and however often it comes.
func TestARecallThatOvertakes(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 100)
	_, document := jia.next(Push) // it may have left: jia cannot end it
	asked := jia.ask(exchange.WishRecall, id)
	jia.work()
	if out := w.handRequest(yi, "jia-yi", asked.CMS); out.Status != node.Taken {
		t.Fatalf("the recall is %+v", out)
	}
	yi.work()
	w.wantStage(jia, id, "ACCEPTED")
	yi.restart()
	jia.restart()
	yi.receive(document)
	yi.work()
	yi.delivered()
	w.exchange(jia, yi)
	jia.proven(id, exchange.StageRecalled, "yi", asked.ID)
	jia.ended(id, exchange.StageRecalled, "yi")
	jia.stands(0, 0)
	yi.delivered()
	r, err := yi.node.Check(w.ctx, node.CheckOptions{ReadData: true, Still: true})
	w.must(err)
	if !r.OK {
		t.Errorf("%+v", r.Problems)
	}
}

// TestRemind: the agency sees that it is asked to deal with the document, how
// often and when last; one that has dealt with it does not.
func TestRemind(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 100)
	w.exchange(jia, yi)
	for n := 1; n <= 2; n++ {
		jia.ask(exchange.WishRemind, id)
		jia.work()
		w.exchange(jia, yi)
		w.exchange(jia, yi)
		if got := yi.inbox(); got.Reminders != n || got.Reminded.IsZero() {
			t.Fatalf("reminded %d times, last %s, want %d", got.Reminders, got.Reminded, n)
		}
	}
	w.signFor(yi, id)
	jia.ask(exchange.WishRemind, id)
	jia.work()
	w.exchange(jia, yi)
	if got := yi.inbox(); got.Reminders != 2 {
		t.Fatalf("reminded %d times", got.Reminders)
	}
}

// TestAskingIsBounded: only the sender asks, only about its recipients, and not
// without end.
func TestAskingIsBounded(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 100)
	w.exchange(jia, yi)
	for name, c := range map[string]struct {
		from   *host
		asking node.Asking
		code   string
	}{
		"by a recipient":    {yi, node.Asking{Wish: exchange.WishRecall, Actor: clerk}, exchange.CodeNotFound},
		"for somebody else": {jia, node.Asking{Wish: exchange.WishRecall, Actor: clerk, Recipients: []string{w.cast.agencies["bing"]}}, exchange.CodeUnknownRecipient},
		"by nobody":         {jia, node.Asking{Wish: exchange.WishRecall}, exchange.CodeBadRequest},
		"for nothing":       {jia, node.Asking{Actor: clerk}, exchange.CodeBadRequest},
	} {
		if _, err := c.from.node.Ask(w.ctx, w.cast.agencies[c.from.id], id, c.asking); exchange.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
	for range 200 {
		w.clock = w.clock.Add(time.Second)
		jia.ask(exchange.WishRemind, id)
	}
	if _, err := jia.node.Ask(w.ctx, w.cast.agencies["jia"], id, node.Asking{Wish: exchange.WishRemind, Actor: clerk}); exchange.CodeOf(err) != exchange.CodeConflict {
		t.Errorf("once more: %v", err)
	}
}

// request is one that an agency signs about anything, as another program would.
func (w *world) request(of string, change func(*exchange.Request)) []byte {
	w.t.Helper()
	d := w.cast.directory
	agency, _ := d.Agency(w.cast.agencies[of])
	cert, err := agency.Current(certs.UseSign, w.clock)
	w.must(err)
	r := &exchange.Request{
		Domain: d.Domain(), Wish: exchange.WishRecall, Envelope: "01K0000000000000000000000A", Recipients: []string{w.cast.agencies["yi"]},
		Agency: w.cast.agencies[of], Actor: &clerk, Clock: "test", Directory: d.Version(),
	}
	change(r)
	content, err := r.Marshal()
	w.must(err)
	signed, err := cms.Sign(certs.Signer(w.cast.keys[of], cert), content, w.clock)
	w.must(err)
	return signed
}

func (w *world) handRequest(to *host, link string, b []byte) node.Outcome {
	w.t.Helper()
	signed, err := cms.Parse(b, exchange.MaxRequestCMS)
	w.must(err)
	return w.hand(to, link, node.KindRequest, signed.ID().String(), b)
}

// TestNobodyRecallsForAnother: an agency that signs a recall of somebody else's
// document is refused when the document is here, and changes nothing when it
// comes later; a forged one is damage.
func TestNobodyRecallsForAnother(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 100)
	e, _ := w.headerOf(jia)
	stolen := w.request("bing", func(r *exchange.Request) { r.Envelope, r.Header = id, e.Hash })
	if out := w.handRequest(yi, "yi-bing", stolen); out.Status != node.Taken {
		t.Fatalf("before the document it is %+v", out)
	}
	yi.work()
	w.exchange(jia, yi)
	yi.delivered(id)
	w.wantStage(jia, id, "DELIVERED")
	again := w.request("bing", func(r *exchange.Request) { r.Envelope, r.Header, r.Time = id, e.Hash, 1 })
	if out := w.handRequest(yi, "yi-bing", again); out.Status != node.Refused || out.Reason != "not_the_sender" {
		t.Fatalf("after it, it is %+v", out)
	}
	forged := w.request("bing", func(r *exchange.Request) { r.Envelope, r.Header, r.Agency = id, e.Hash, w.cast.agencies["jia"] })
	if out := w.handRequest(yi, "yi-bing", forged); out.Status != node.Damaged {
		t.Fatalf("with another's name it is %+v", out)
	}
	yi.work()
	yi.delivered(id)
}
