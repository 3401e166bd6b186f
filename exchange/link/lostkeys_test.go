package link

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// losable are keys in an HSM that does not answer while it is away.
type losable struct {
	*keystore.Store
	away  atomic.Bool
	asked atomic.Int64 // while it was away
}

func (l *losable) lost() error {
	if !l.away.Load() {
		return nil
	}
	l.asked.Add(1)
	return fmt.Errorf("pkcs11: C_Sign: %w", keystore.ErrUnavailable)
}

func (l *losable) Sign(id sm.Digest, msg []byte) ([]byte, error) {
	if err := l.lost(); err != nil {
		return nil, err
	}
	return l.Store.Sign(id, msg)
}

func (l *losable) Unwrap(id sm.Digest, sealed []byte) ([]byte, error) {
	if err := l.lost(); err != nil {
		return nil, err
	}
	return l.Store.Unwrap(id, sealed)
}

// losing starts a host's node again with keys that can be lost.
func (h *host) losing() *losable {
	h.w.t.Helper()
	keys := &losable{Store: h.w.cast.keys[h.id].WithRandom(h.w.rand)}
	var err error
	h.node, err = node.New(h.w.ctx, node.Config{
		ID: h.id, Store: h.store, Blobs: h.blobs, Keys: keys,
		Directory: func() *certs.Directory { return h.w.cast.directory },
		Now:       func() time.Time { return h.w.clock }, Rand: h.w.rand, Clock: "test",
	})
	h.w.must(err)
	h.Session, err = NewSession(h.node, h.link)
	h.w.must(err)
	return keys
}

// passes expects an error that says it passes, and nothing changed.
func (h *host) passes(what string, fn func() error) {
	h.w.t.Helper()
	before := h.store.facts()
	h.temporary(what, fn())
	if !sameRows(before, h.store.facts()) {
		h.w.t.Errorf("%s: something was written", what)
	}
}

func (h *host) temporary(what string, err error) {
	h.w.t.Helper()
	if !exchange.IsTemporary(err) || errors.Is(err, ErrFault) || exchange.CodeOf(err) != exchange.CodeTemporary {
		h.w.t.Errorf("%s: got %v, want a temporary error", what, err)
	}
	if q := h.quarantined(); len(q) > 0 {
		h.w.t.Errorf("%s: quarantined %v", what, q)
	}
}

// TestReceiverLosesItsKeys at every step of a document's way: each is
// temporary, nothing is refused, damaged or quarantined, and with the keys
// back the document is signed for.
func TestReceiverLosesItsKeys(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	keys := yi.losing()
	agency := w.cast.agencies["yi"]
	id := w.submit(jia, "yi", 2*smallPart) // delivered after it was taken
	_, push := jia.next(Push)
	yi.work() // notes the directory in its ledger, which needs no key

	keys.away.Store(true)
	yi.passes("opening a bundle", func() error {
		_, err := yi.Receive(w.ctx, bytes.NewReader(push))
		return err
	})
	keys.away.Store(false)
	yi.receive(push)
	keys.away.Store(true)
	for range 3 {
		w.clock = w.clock.Add(time.Minute)
		yi.passes("delivering", func() error {
			did, err := yi.node.Work(w.ctx)
			if !did {
				t.Error("no work was tried")
			}
			return err
		})
	}
	yi.passes("acknowledging", func() error { _, err := yi.Next(w.ctx, Reply); return err })
	keys.away.Store(false)
	_, reply := yi.next(Reply)
	if got := jia.receive(reply); got.Acks != 1 {
		t.Errorf("the acks of the bundle that could not be signed are gone: %+v", got)
	}
	w.clock = w.clock.Add(time.Minute)
	yi.work()

	keys.away.Store(true)
	yi.passes("collecting", func() error { _, err := yi.node.Collect(w.ctx, agency, id); return err })
	sign := node.Action{Stage: exchange.StageSignedFor, Actor: exchange.Actor{Name: "值班员"}, Opinion: "已阅"}
	yi.passes("signing for", func() error { _, err := yi.node.Act(w.ctx, agency, id, sign); return err })
	yi.passes("submitting", func() error { return submitTo(w, yi, "jia") })
	yi.passes("proving", func() error { return yi.node.Evidence(w.ctx, agency, id, io.Discard) })
	if items, err := yi.node.Inbox(w.ctx, agency, 0, 10); err != nil || len(items) != 1 {
		t.Errorf("the inbox needs no HSM: %d, %v", len(items), err)
	}
	keys.away.Store(false)
	yi.delivered(id)
	_, err := yi.node.Act(w.ctx, agency, id, sign)
	w.must(err)
	w.exchange(jia, yi)
	w.signedFor(jia, id)
	if keys.asked.Load() < 8 {
		t.Errorf("the keys were asked %d times while away", keys.asked.Load())
	}
}

func (w *world) signedFor(h *host, id string) {
	w.t.Helper()
	trace, err := h.node.Trace(w.ctx, w.cast.agencies[h.id], id)
	w.must(err)
	if trace.State != exchange.StateSignedFor || !trace.ReceiptsVerified {
		w.t.Fatalf("%s: %+v", trace.State, trace.Recipients)
	}
	for _, ev := range trace.Events {
		if ev.Stage == exchange.StageRejected {
			w.t.Fatalf("rejected: %+v", ev)
		}
	}
}

func submitTo(w *world, from *host, to string) error {
	doc := exchange.Document{
		Label: exchange.Internal, Kind: exchange.Official, Urgency: exchange.Normal, Title: "关于测试的通知",
		To: []exchange.Addressee{{Agency: w.cast.agencies[to]}},
	}
	files := func(yield func(envelope.File, error) bool) {
		yield(envelope.File{Role: envelope.RoleBody, Name: "正文.ofd", Type: "application/ofd", Content: strings.NewReader("正文")}, nil)
	}
	_, err := from.node.Submit(w.ctx, node.Submission{
		Agency: w.cast.agencies[from.id], IdempotencyKey: "one", Document: doc, Files: files,
	})
	return err
}

// TestSenderLosesItsKeys: a submission is answered with "again later" and its
// key may be used again; receipts on their way home are not lost, and what
// they say in confidence is not shown as unsaid.
func TestSenderLosesItsKeys(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	keys := jia.losing()
	agency := w.cast.agencies["jia"]
	keys.away.Store(true)
	jia.passes("submitting", func() error { return submitTo(w, jia, "yi") })
	keys.away.Store(false)
	w.must(submitTo(w, jia, "yi"))
	jia.work()
	sent, err := jia.node.Sent(w.ctx, agency, "", 10)
	w.must(err)
	if len(sent) != 1 {
		t.Fatalf("%d documents after a retry", len(sent))
	}
	id := sent[0].ID
	keys.away.Store(true)
	jia.passes("pushing", func() error { _, err := jia.Next(w.ctx, Push); return err })
	jia.passes("polling", func() error { _, err := jia.Next(w.ctx, Poll); return err })
	keys.away.Store(false)
	w.exchange(jia, yi)
	_, err = yi.node.Act(w.ctx, w.cast.agencies["yi"], id, node.Action{Stage: exchange.StageSignedFor, Actor: exchange.Actor{Name: "值班员"}, Opinion: "已阅"})
	w.must(err)

	_, poll := jia.next(Poll)
	yi.receive(poll)
	_, answer := yi.next(Answer)
	jia.unwrapped.id = sm.Digest{} // as if the neighbour had begun a new epoch
	keys.away.Store(true)
	jia.passes("taking receipts in", func() error {
		_, err := jia.Receive(w.ctx, bytes.NewReader(answer))
		return err
	})
	keys.away.Store(false)
	w.exchange(jia, yi)
	w.signedFor(jia, id)
	keys.away.Store(true)
	jia.passes("tracing", func() error { _, err := jia.node.Trace(w.ctx, agency, id); return err })
	keys.away.Store(false)
	trace, err := jia.node.Trace(w.ctx, agency, id)
	w.must(err)
	if !slices.ContainsFunc(trace.Events, func(e node.Event) bool { return e.Detail != nil && e.Detail.Opinion == "已阅" }) {
		t.Error("the opinion is gone")
	}
}

// TestRefusalWaitsForTheKeys: a header that policy will not pass is refused
// when the refusal can be signed, and not before.
func TestRefusalWaitsForTheKeys(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	keys := yi.losing()
	id := w.submit(jia, "yi", 10)
	first, _ := w.headerOf(jia)
	w.exchange(jia, yi)
	second := w.anotherUnder(first)
	e, err := envelope.ParseHeader(second)
	w.must(err)
	item := node.Item{Kind: node.KindHeader, ID: e.Hash.String(), Size: int64(len(second)), Digest: sm.Sum(second)}
	keys.away.Store(true)
	_, err = yi.node.Intake(w.ctx, yi.link, item, bytes.NewReader(second))
	yi.temporary("refusing", err)
	keys.away.Store(false)
	if out := w.handHeader(yi, yi.link, second); out.Status != node.Refused {
		t.Errorf("the outcome is %+v", out)
	}
	yi.delivered(id)
}
