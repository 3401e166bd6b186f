package link

import (
	"bytes"
	"io"
	"testing"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// TestARecallFollowsOneWay: it leaves behind its document, and the answer stays where
// it is.
func TestARecallFollowsOneWay(t *testing.T) {
	w, jia, yi := oneWayWorld(t)
	id := w.submit(jia.host, "yi", 3000)
	jia.export()
	_, err := jia.node.Ask(w.ctx, w.cast.agencies["jia"], id, node.Asking{Wish: exchange.WishRecall, Actor: exchange.Actor{Name: "王某"}})
	w.must(err)
	jia.work()
	w.wantStage(jia.host, id, "FERRIED "+exchange.ReasonNoWayBack)
	jia.export()
	w.carryAll(jia, yi)
	w.wantStage(yi.host, id, "RECALLED")
	if bundles, _, err := jia.confirm(yi.code().Code); err != nil || bundles != 2 {
		t.Fatal(bundles, err)
	}
}

// TestTheDirectoryFollowsOneWay: unasked, once a version.
func TestTheDirectoryFollowsOneWay(t *testing.T) {
	w := newWorld(t)
	var err error
	w.cast, err = newCastOver(t.TempDir(), oneWayLink)
	w.must(err)
	jia, yi := w.bank("jia"), w.bank("yi")
	jia.export()
	w.carryAll(jia, yi)
	jia.shelf.inForce = w.publish()
	if got := jia.export(); got.Bundles != 1 {
		t.Fatalf("%+v", got)
	}
	if got := jia.export(); got.Bundles != 0 {
		t.Fatalf("the same version again: %+v", got)
	}
	w.carryAll(jia, yi)
	if yi.shelf.inForce.Version() != jia.shelf.inForce.Version() {
		t.Errorf("version %d is in force, want %d", yi.shelf.inForce.Version(), jia.shelf.inForce.Version())
	}
	if bundles, _, err := jia.confirm(yi.code().Code); err != nil || bundles != 2 {
		t.Fatal(bundles, err)
	}
}

// TestTwoLinksOfOneWay: receipts go home over the other one, and say DELIVERED.
func TestTwoLinksOfOneWay(t *testing.T) {
	w := newWorld(t)
	var err error
	back := certs.Link{ID: "yi-jia", A: "yi", B: "jia", Dialer: "yi", Kind: "ferry", Ceiling: "work_secret", OneWay: "yi"}
	w.cast, err = newCastOver(t.TempDir(), oneWayLink, back)
	w.must(err)
	jia, yi := w.bank("jia"), w.bank("yi")
	id := w.submit(jia.host, "yi", 3000)
	jia.export()
	w.carryAll(jia, yi)
	yi.delivered(id)
	home, arriving := shed{}, shed{}
	out, err := NewFerry(w.ctx, yi.node, "yi-jia", home)
	w.must(err)
	in, err := NewFerry(w.ctx, jia.node, "yi-jia", arriving)
	w.must(err)
	var file bytes.Buffer
	_, err = out.Export(w.ctx, yi.limit, false, func(_ string, write func(io.Writer) error) error { return write(&file) })
	w.must(err)
	_, err = in.Import(w.ctx, bytes.NewReader(file.Bytes()), int64(file.Len()))
	w.must(err)
	w.wantStage(jia.host, id, "COLLECTED")
	if kept := yi.oneWay().Kept; kept != 0 {
		t.Errorf("%d receipts are kept, though there is a way", kept)
	}
}

// TestAgainstTheDirection: what comes to the side that sends is nothing, and a bundle
// without a secret is a fault.
func TestAgainstTheDirection(t *testing.T) {
	w, jia, yi := oneWayWorld(t)
	w.submit(jia.host, "yi", 3000)
	jia.export()
	file := jia.out[0]
	if got := jia.load(file); got.Faults != 1 || got.Bundles+got.Notes != 0 {
		t.Errorf("%+v", got)
	}
	o := &Outgoing{s: jia.ferry.s, kind: Push, inside: true}
	in, items, err := jia.ferry.s.inner(w.ctx, o)
	w.must(err)
	in.Secret = make([]byte, 16)
	section, err := joinSection(in, items)
	w.must(err)
	o.seq = 1
	w.must(o.finish(section))
	if got := yi.load(jia.written(o)); got.Faults != 1 || got.Bundles != 0 {
		t.Errorf("%+v", got)
	}
	if code := yi.code(); code.Code != "" || code.UpTo != 0 {
		t.Errorf("%+v", code)
	}
}

// TestARelayBeforeOneWay: FERRIED and CONFIRMED are said by the relay and its operator,
// and are judged where the document came from.
func TestARelayBeforeOneWay(t *testing.T) {
	w := newWorld(t)
	var err error
	last := oneWayLink
	last.OneWay = "yi"
	w.cast, err = newCastOver(t.TempDir(), last)
	w.must(err)
	w.must(w.cast.authority.AddRoute("bing", "jia", "yi"))
	w.cast.directory = w.publish()
	bing, relay, jia := w.host("bing", "yi-bing", nil, nil), w.host("yi", "yi-bing", nil, nil), w.bank("jia")
	yi := &bank{host: relay, kept: shed{}, limit: jia.limit}
	yi.ferry, err = NewFerry(w.ctx, relay.node, "jia-yi", yi.kept)
	w.must(err)
	id := w.submit(bing, "jia", 3000)
	w.exchange(relay, bing)
	yi.export()
	w.exchange(relay, bing)
	w.wantStage(bing, id, "FERRIED "+exchange.ReasonNoWayBack)
	w.carryAll(yi, jia)
	jia.delivered(id)
	if _, receipts, err := yi.confirm(jia.code().Code); err != nil || receipts != 1 {
		t.Fatal(receipts, err)
	}
	w.exchange(relay, bing)
	w.wantStage(bing, id, "CONFIRMED "+exchange.ReasonNoWayBack)
	trace, err := bing.node.Trace(w.ctx, w.cast.agencies["bing"], id)
	w.must(err)
	if said := trace.Events[len(trace.Events)-1]; said.Node != "yi" || said.Actor == nil || said.Actor.Name != "zhang-san" {
		t.Errorf("said by %+v", said)
	}
	for _, h := range []*host{bing, relay, jia.host} {
		if q := h.quarantined(); len(q) > 0 {
			t.Errorf("%s shows %v", h.id, q)
		}
	}
}
