package link

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/queue"
)

// TestConsignmentsAreBounded: they are not signed, so that a neighbour may make any
// number out of one; what goes beyond stays with it, and the document arrives.
func TestConsignmentsAreBounded(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 3000)
	d := w.wholeOf(jia)
	w.hand(yi, "jia-yi", node.KindHeader, d.Header.ID, d.HeaderBytes)
	head, _, _ := strings.Cut(d.Header.ID, "/")
	for n := range 20 {
		b := append(bytes.Clone(bytes.TrimSuffix(d.ConsignmentBytes, []byte("}"))), fmt.Sprintf(`,"zz":%d}`, n)...)
		want := node.Outcome{Status: node.Taken}
		if n >= 16 {
			want = node.Outcome{Status: node.Damaged, Reason: "waiting_full"}
		}
		if got := w.hand(yi, "jia-yi", node.KindConsignment, head+"/"+"x", b); got != want {
			t.Fatalf("consignment %d: %+v", n, got)
		}
	}
	out, err := yi.node.Intake(w.ctx, "jia-yi", d.Part, bytes.NewReader(d.PartBytes))
	if err != nil || out.Status != node.Taken {
		t.Fatalf("the part: %+v, %v", out, err)
	}
	yi.work()
	yi.delivered(id)
}

// TestOneUnreadableDocumentStopsNoLink: what concerns it is answered as damaged, and
// what comes with it is taken and acknowledged.
func TestOneUnreadableDocumentStopsNoLink(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	broken := w.submit(yi, "jia", 100)
	w.exchange(jia, yi)
	jia.delivered(broken)
	for k := range yi.store.facts() {
		if strings.HasPrefix(k, "hdr\x00") {
			yi.store.rows[k] = []byte("no header")
		}
	}
	yi.restart()
	jia.signFor(broken) // its receipts cannot be judged at yi any more
	fine := w.submit(jia, "yi", 100)
	_, push := jia.next(Push)
	if _, err := yi.Receive(w.ctx, bytes.NewReader(push)); err != nil {
		t.Fatalf("the bundle: %v", err)
	}
	if got := yi.outcomes(); !slices.Contains(got, node.Damaged) || !slices.Contains(got, node.Taken) {
		t.Fatalf("outcomes %v", got)
	}
	_, reply := yi.next(Reply)
	jia.receive(reply)
	yi.work()
	yi.delivered(fine)
	if q := jia.backlog(); q.Waiting == 0 {
		t.Error("what yi could not take has left its lane")
	}
	if got := yi.quarantined(); len(got) == 0 {
		t.Error("nothing is shown")
	}
}

// TestAReplayPassesWhatCannotBeRead, and holds up no other work.
func TestAReplayPassesWhatCannotBeRead(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	w.exchange(jia, yi)
	backup := yi.store.clone()
	var ids []string
	for range 4 {
		ids = append(ids, w.submit(jia, "yi", 100))
	}
	w.exchange(jia, yi)
	yi = w.afterDiskLoss(yi, backup)
	leaves := 0
	for k := range jia.store.facts() {
		if strings.HasPrefix(k, string(queue.Key("ledger", "main", "leaf"))) {
			leaves++
		}
	}
	jia.store.rows[string(queue.Key("ledger", "main", "leaf", uint64(leaves-2)))] = []byte("no leaf") // one that is replayed
	jia.restart()
	w.replayed(jia, yi)
	late := w.submit(jia, "yi", 100)
	w.exchange(jia, yi)
	items, err := yi.node.Inbox(w.ctx, w.cast.agencies["yi"], 0, 10)
	w.must(err)
	got := map[string]bool{}
	for _, item := range items {
		got[item.ID] = true
	}
	if !got[late] || len(got) < len(ids) {
		t.Errorf("%d documents are there again, the later one: %v", len(got), got[late])
	}
	if q := jia.quarantined(); !slices.ContainsFunc(q, func(s string) bool { return strings.Contains(s, "leaf") }) {
		t.Errorf("nothing is shown: %v", q)
	}
}

// TestHeadersGoBackBeforeReceipts: a restored node can take no receipt for what it
// had sent without its header, however many wait.
func TestHeadersGoBackBeforeReceipts(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	w.exchange(jia, yi)
	backup := yi.store.clone()
	for range 3 {
		w.submit(yi, "jia", 100)
	}
	_, answer := yi.next(Answer)
	jia.receive(answer) // delivered; the receipts wait
	_, poll := jia.next(Poll)
	jia.work()
	yi.receive(poll)
	yi = w.afterDiskLoss(yi, backup)
	w.clock = w.clock.Add(10 * time.Second)
	_, poll = yi.next(Answer)
	if poll != nil {
		jia.receive(poll) // the notice
	}
	jia.work()
	o, _ := jia.next(Push)
	if o == nil {
		t.Fatal("nothing goes")
	}
	var kinds []string
	for _, out := range o.outs {
		kinds = append(kinds, out.Kind)
	}
	header, receipt := slices.Index(kinds, node.KindOwnHeader), slices.Index(kinds, node.KindReceipt)
	if header < 0 || receipt < 0 || header > receipt {
		t.Errorf("%v", kinds)
	}
}

// TestReceiptsGoHomeAsTheirDocumentCame, also when a newer directory knows another
// way: on that one nobody has the document.
func TestReceiptsGoHomeAsTheirDocumentCame(t *testing.T) {
	w := ownWorld(t)
	w.must(w.cast.authority.AddRoute("jia", "bing", "yi"))
	w.must(w.cast.authority.AddRoute("bing", "jia", "yi"))
	w.publish()
	jia, yi := w.pair()
	bing := w.host("bing", "yi-bing", nil, nil)
	id := w.submit(jia, "bing", 100)
	_, push := jia.next(Push)
	yi.receive(push)
	yi.work()
	onward, err := NewSession(yi.node, "yi-bing")
	w.must(err)
	o, err := onward.Next(w.ctx, Push)
	w.must(err)
	bing.receive(yi.written(o))
	bing.work()
	bing.delivered(id)
	w.must(w.cast.authority.AddLink(certs.Link{ID: "jia-bing", A: "jia", B: "bing", Dialer: "jia", Kind: "https", Ceiling: string(exchange.WorkSecret)}))
	bing.shelf.inForce = w.publish()
	bing.signFor(id)
	bing.work()
	for link, want := range map[string]bool{"yi-bing": true, "jia-bing": false} {
		outs, err := bing.node.Outgoing(w.ctx, link, FillBytes, FillItems)
		w.must(err)
		if got := slices.ContainsFunc(outs, func(o node.Out) bool { return o.Kind == node.KindReceipt }); got != want {
			t.Errorf("receipts over %s: %v", link, got)
		}
	}
}
