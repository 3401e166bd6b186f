package link

import (
	"testing"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// sendAgain hands a document of a host in once more.
func (h *host) sendAgain(a node.Resending) *node.Accepted {
	h.w.t.Helper()
	got, err := h.node.SendAgain(h.w.ctx, h.w.cast.agencies[h.id], a)
	h.w.must(err)
	h.w.files[got.ID] = h.w.files[a.Document]
	h.work()
	return got
}

func (h *host) cannotSendAgain(a node.Resending, code string) {
	h.w.t.Helper()
	if _, err := h.node.SendAgain(h.w.ctx, h.w.cast.agencies[h.id], a); exchange.CodeOf(err) != code {
		h.w.t.Fatalf("%+v: %v, want %s", a, err, code)
	}
}

// TestResend (重发): what expired goes once more to whom it did not reach, with
// the same files and title, and says what it relates to; a repeat is the same.
func TestResend(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submitShort(jia, "yi")
	jia.cannotSendAgain(node.Resending{Document: id}, exchange.CodeConflict) // it is on its way
	jia.later(life)
	jia.ended(id, exchange.StageExpired, "jia")
	got := jia.sendAgain(node.Resending{Document: id, IdempotencyKey: "k"})
	w.exchange(jia, yi)
	yi.delivered(got.ID)
	w.signFor(yi, got.ID)
	w.exchange(jia, yi)
	w.wantStage(jia, got.ID, "SIGNED_FOR")
	w.wantStage(jia, id, "EXPIRED")
	if again := jia.sendAgain(node.Resending{Document: id, IdempotencyKey: "k"}); again.ID != got.ID || !again.Replayed {
		t.Errorf("the repeat is %+v", again)
	}
	if item := yi.inbox(); item.Title != "关于测试的通知" || item.RelatesTo != id {
		t.Errorf("the inbox has %+v", item)
	}
	yi.cannotSendAgain(node.Resending{Document: got.ID}, exchange.CodeNotFound)
	jia.cannotSendAgain(node.Resending{Document: id, Recipients: []string{w.cast.agencies["bing"]}}, exchange.CodeInvalidDocument)
	jia.restart()
	twice := jia.sendAgain(node.Resending{Document: id, Recipients: []string{w.cast.agencies["yi"]}})
	w.exchange(jia, yi)
	yi.delivered(got.ID, twice.ID)
}

// TestSendToOthers (补发): to recipients that the first does not name, and to no
// other.
func TestSendToOthers(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	bing := w.cast.agencies["bing"]
	id := w.submit(yi, "jia", 100)
	yi.cannotSendAgain(node.Resending{Document: id, Others: true}, exchange.CodeInvalidDocument)
	yi.cannotSendAgain(node.Resending{Document: id, Others: true, Recipients: []string{w.cast.agencies["jia"]}}, exchange.CodeInvalidDocument)
	got := yi.sendAgain(node.Resending{Document: id, Others: true, Recipients: []string{bing}})
	tr, err := yi.node.Trace(w.ctx, w.cast.agencies["yi"], got.ID)
	w.must(err)
	if tr.RelatesTo != id || len(tr.Recipients) != 1 || tr.Recipients[0].Agency != bing {
		t.Errorf("%+v", tr)
	}
	w.exchange(jia, yi)
	jia.delivered(id)
}
