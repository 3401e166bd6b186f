package link

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

// forger shows a certificate whose key it does not have.
type forger struct {
	cms.Signer
	shown []byte
}

func (f forger) Certificate() []byte { return f.shown }

// headerOf is the header of the document that goes next from a host.
func (w *world) headerOf(h *host) (*envelope.Envelope, []byte) {
	w.t.Helper()
	outs, err := h.node.Outgoing(w.ctx, h.link, FillBytes, FillItems)
	w.must(err)
	for _, o := range outs {
		if o.Kind == node.KindHeader {
			b := w.read(o)
			e, err := envelope.ParseHeader(b)
			w.must(err)
			return e, b
		}
	}
	w.t.Fatal("no header goes next")
	return nil, nil
}

// forgedHeader shows the sender's certificate over content of bing's making.
func (w *world) forgedHeader(e *envelope.Envelope, change func(*envelope.Header)) []byte {
	w.t.Helper()
	h := e.Header
	if change != nil {
		change(&h)
	}
	content, err := strictjson.Marshal(&h)
	w.must(err)
	bing, _ := w.cast.directory.Agency(w.cast.agencies["bing"])
	cert, err := bing.Current(certs.UseSign, w.clock)
	w.must(err)
	signed, err := cms.Sign(forger{certs.Signer(w.cast.keys["bing"], cert), e.SignerCertificate()}, content, w.clock)
	w.must(err)
	return signed
}

func (w *world) hand(to *host, link, kind, id string, b []byte) node.Outcome {
	w.t.Helper()
	item := node.Item{Kind: kind, ID: id, Size: int64(len(b)), Digest: sm.Sum(b)}
	out, err := to.node.Intake(w.ctx, link, item, bytes.NewReader(b))
	w.must(err)
	return out
}

func (w *world) handHeader(to *host, link string, b []byte) node.Outcome {
	w.t.Helper()
	e, err := envelope.ParseHeader(b)
	w.must(err)
	return w.hand(to, link, node.KindHeader, e.Hash.String(), b)
}

// waiting is a world in which jia has a directory that yi will have later, and
// a document on its way.
func waiting(t *testing.T) (w *world, jia, yi *host, id string) { return waitingWith(t, 3000) }

func waitingWith(t *testing.T, size int) (w *world, jia, yi *host, id string) {
	w = ownWorld(t)
	jia, yi = w.pair()
	w.exchange(jia, yi)
	jia.shelf.inForce, jia.shelf.lost = w.renew("bing"), true
	return w, jia, yi, w.submit(jia, "yi", size)
}

// rowsOf counts the rows that yi holds of envelopes, of all kinds.
func (h *host) rowsOf(tables ...string) (n int) {
	for key := range h.store.facts() {
		if slices.ContainsFunc(tables, func(t string) bool { return strings.HasPrefix(key, string(queue.Key(t))) }) {
			n++
		}
	}
	return n
}

// TestForgedWaitingHeaders: what a neighbour makes up while nobody can tell
// stands in nobody's way, and goes when it is found out.
func TestForgedWaitingHeaders(t *testing.T) {
	for name, change := range map[string]func(*envelope.Header){
		"another document under the same id": func(h *envelope.Header) {
			h.Recipients = h.Recipients[:len(h.Recipients):len(h.Recipients)]
			h.Payload.Size++
		},
		"the document itself": nil,
	} {
		t.Run(name, func(t *testing.T) {
			w, jia, yi, id := waiting(t)
			e, genuine := w.headerOf(jia)
			forged := w.forgedHeader(e, change)
			if out := w.handHeader(yi, "yi-bing", forged); out.Status != node.Postponed {
				t.Fatalf("the forged one is %+v", out)
			}
			want := node.Outcome{Status: node.Postponed}
			if change == nil { // nobody can tell which of the two is the sender's
				want = node.Outcome{Status: node.Damaged, Reason: "waiting_elsewhere"}
			}
			if out := w.handHeader(yi, "jia-yi", genuine); out != want {
				t.Fatalf("the genuine one is %+v", out)
			}
			w.clock = w.clock.Add(1e9)
			push, b := jia.next(Push)
			yi.receive(b)
			jia.Lost(w.ctx, push)

			yi.shelf.inForce = w.cast.directory
			yi.work()
			w.tolerant(jia, yi)
			yi.delivered(id)
			w.signFor(yi, id)
			w.tolerant(jia, yi)
			w.wantStage(jia, id, "SIGNED_FOR")
			if got := yi.rowsOf("env", "dfr"); got != 1 {
				t.Fatalf("%d rows of envelopes and of what waits are left, want that of the document", got)
			}
			if q := yi.quarantined(); !slices.ContainsFunc(q, func(s string) bool { return strings.HasPrefix(s, "header") }) {
				t.Fatalf("the operator is shown %v", q)
			}
		})
	}
}

// TestDroppedWithAllThatCame: a forged header that waited takes its parts,
// digests, slots and blobs with it; a neighbour that holds a good copy is told
// to begin again, and nothing is lost.
func TestDroppedWithAllThatCame(t *testing.T) {
	w, jia, yi, id := waitingWith(t, 9<<20) // two parts
	e, _ := w.headerOf(jia)
	if out := w.handHeader(yi, "jia-yi", w.forgedHeader(e, nil)); out.Status != node.Postponed {
		t.Fatalf("the forged one is %+v", out)
	}
	// The genuine document comes under the forged header, but for its last part.
	outs, err := jia.node.Outgoing(w.ctx, jia.link, 8<<20+64<<10, FillItems)
	w.must(err)
	var outcomes []node.Outcome
	for _, o := range outs {
		out, err := yi.node.Intake(w.ctx, jia.link, o.Item, bytes.NewReader(w.read(o)))
		w.must(err)
		outcomes = append(outcomes, out)
	}
	w.must(jia.node.Settle(w.ctx, jia.link, outs, outcomes))
	if got := yi.rowsOf("env", "pdg", "part", "cin", "fan"); got != 5 {
		t.Fatalf("%d rows", got)
	}
	yi.shelf.inForce = w.cast.directory
	yi.work()
	if got := yi.rowsOf("env", "pdg", "part", "cin", "fan", "blob", "dfr"); got != 0 {
		t.Fatalf("%d rows are left", got)
	}
	w.tolerant(jia, yi)
	yi.delivered(id)
}

// TestDroppedInSteps: a document of 250 parts is more than one transaction
// takes, and the power may go between two.
func TestDroppedInSteps(t *testing.T) {
	for _, cut := range []bool{false, true} {
		w, jia, yi, _ := waiting(t)
		e, genuine := w.headerOf(jia)
		w.handHeader(yi, "jia-yi", w.forgedHeader(e, nil))
		w.must(yi.store.Update(w.ctx, func(tx queue.Tx) error {
			for i := range uint64(250) {
				ref, err := yi.blobs.Put(w.ctx, strings.NewReader("part"), 4)
				w.must(err)
				w.must(records.Parts.Insert(tx, &records.Part{Ref: ref}, e.Hash, i))
				w.must(records.BlobOwners.Put(tx, &records.Owner{Envelope: e.Hash}, string(ref)))
			}
			if cut { // after the first step
				return records.Envelopes.Delete(tx, e.Hash)
			}
			return nil
		}))
		if cut {
			if out := w.handHeader(yi, "jia-yi", genuine); out.Status != node.Damaged {
				t.Fatalf("a copy that comes while the other goes is %+v", out)
			}
		}
		yi.shelf.inForce = w.cast.directory
		yi.work()
		if got := yi.rowsOf("env", "part", "blob", "dfr"); got != 0 {
			t.Fatalf("%d rows are left", got)
		}
	}
}

// TestRefusedStaysRefused: a header that waited and may not pass ends in one
// signed REJECTED, and stays refused when it comes again.
func TestRefusedStaysRefused(t *testing.T) {
	w, jia, yi, id := waiting(t)
	first, _ := w.headerOf(jia)
	other := w.submit(jia, "yi", 100)
	second := w.anotherUnder(first)
	w.tolerant(jia, yi) // the first waits, with its payload
	if out := w.handHeader(yi, "jia-yi", second); out.Status != node.Postponed {
		t.Fatalf("the second is %+v", out)
	}
	yi.shelf.inForce = w.cast.directory
	yi.work()
	for range 2 {
		if out := w.handHeader(yi, "jia-yi", second); out.Status != node.Refused || out.Reason != "conflict" {
			t.Fatalf("the second is %+v", out)
		}
	}
	yi.delivered(id, other)
}

// anotherUnder is another header that the sender, jia's agency, signs under the
// same id.
func (w *world) anotherUnder(first *envelope.Envelope) []byte {
	w.t.Helper()
	agency, _ := w.cast.directory.Agency(w.cast.agencies["jia"])
	cert, err := agency.Current(certs.UseSign, w.clock)
	w.must(err)
	h := first.Header
	h.Payload.Size++
	content, err := strictjson.Marshal(&h)
	w.must(err)
	second, err := cms.Sign(certs.Signer(w.cast.keys["jia"], cert), content, w.clock)
	w.must(err)
	return second
}

// TestWaitingIsBounded: versions that cannot be on their way, more items, more
// bytes and more consignments than the bounds are left with the neighbour.
func TestWaitingIsBounded(t *testing.T) {
	w, jia, yi, _ := waiting(t)
	e, genuine := w.headerOf(jia)
	far := w.forgedHeader(e, func(h *envelope.Header) { h.Directory = 1 + node.MaxAhead + 1 })
	if out := w.handHeader(yi, "yi-bing", far); out.Status != node.Damaged || out.Reason != "directory_ahead" {
		t.Fatalf("one too far ahead is %+v", out)
	}
	near := w.forgedHeader(e, func(h *envelope.Header) { h.Directory = 1 + node.MaxAhead })
	if out := w.handHeader(yi, "yi-bing", near); out.Status != node.Postponed {
		t.Fatalf("one not too far ahead is %+v", out)
	}
	size := int64(len(near)) + e.Header.Payload.Size
	if got := yi.waits("yi-bing"); got != (records.Waiting{Items: 1, Bytes: size}) {
		t.Fatalf("counted as %+v", got)
	}
	for name, full := range map[string]records.Waiting{
		"items": {Items: node.MaxWaiting}, "bytes": {Items: 1, Bytes: node.MaxWaitingBytes},
	} {
		yi.setWaits("jia-yi", full)
		if out := w.handHeader(yi, "jia-yi", genuine); out.Status != node.Damaged || out.Reason != "waiting_full" {
			t.Fatalf("beyond the %s it is %+v", name, out)
		}
		if yi.waits("jia-yi") != full {
			t.Fatal("what is not taken is counted")
		}
	}
	yi.setWaits("jia-yi", records.Waiting{})
	w.handHeader(yi, "jia-yi", genuine)
	for i := range node.MaxWaitingConsignments + 1 {
		c := w.consignmentOf(jia)
		c.Extra = strictjson.Extra{{Name: fmt.Sprint("x", i), Value: strictjson.Raw("1")}}
		b, err := c.Marshal()
		w.must(err)
		want := node.Outcome{Status: node.Taken}
		if i == node.MaxWaitingConsignments {
			want = node.Outcome{Status: node.Damaged, Reason: "waiting_full"}
		}
		if out := w.hand(yi, "jia-yi", node.KindConsignment, e.Hash.String()+"/"+sm.Sum(b).String(), b); out != want {
			t.Fatalf("consignment %d is %+v", i, out)
		}
	}
	held := yi.waits("jia-yi")
	if least := int64(len(genuine)) + e.Header.Payload.Size; held.Items != 1 || held.Bytes <= least {
		t.Fatalf("counted as %+v, the header alone is %d bytes", held, least)
	}
	yi.shelf.inForce = w.publishAhead(1 + node.MaxAhead)
	yi.work()
	for _, link := range []string{"jia-yi", "yi-bing"} {
		if got := yi.waits(link); got != (records.Waiting{}) {
			t.Fatalf("nothing waits any more, and %s counts %+v", link, got)
		}
	}
}

func (w *world) consignmentOf(h *host) *node.ConsignmentItem {
	w.t.Helper()
	outs, err := h.node.Outgoing(w.ctx, h.link, FillBytes, FillItems)
	w.must(err)
	i := slices.IndexFunc(outs, func(o node.Out) bool { return o.Kind == node.KindConsignment })
	c, err := node.ParseConsignment(w.read(outs[i]))
	w.must(err)
	return c
}

// publishAhead publishes until the version is at least this.
func (w *world) publishAhead(version uint64) *certs.Directory {
	for w.cast.directory.Version() < version {
		w.publish()
	}
	return w.cast.directory
}

func (h *host) waits(link string) (out records.Waiting) {
	h.w.t.Helper()
	h.w.must(h.store.View(h.w.ctx, func(tx queue.Tx) error {
		row, err := records.WaitingRows.Get(tx, link)
		if row != nil {
			out = *row
		}
		return err
	}))
	return out
}

func (h *host) setWaits(link string, row records.Waiting) {
	h.w.t.Helper()
	h.w.must(h.store.Update(h.w.ctx, func(tx queue.Tx) error { return records.WaitingRows.Put(tx, &row, link) }))
}

// TestNotValidYetIsJudgedAgain: a clock that is behind makes nobody lose what
// waited for a directory, whose certificate began after its coming.
func TestNotValidYetIsJudgedAgain(t *testing.T) {
	w := ownWorld(t)
	jia, yi := w.pair()
	w.exchange(jia, yi)
	w.clock = w.clock.Add(24 * time.Hour)
	jia.shelf.inForce, jia.shelf.lost = w.renew("jia"), true
	jia.restart()
	id := w.submit(jia, "yi", 3000)
	d := w.wholeOf(jia)
	w.clock = w.clock.Add(-12 * time.Hour)
	if got := strings.Join(w.handOneByOne(yi, d), " "); got != "deferred taken taken" {
		t.Fatal(got)
	}
	w.clock = w.clock.Add(13 * time.Hour)
	yi.shelf.inForce = jia.shelf.inForce
	yi.work()
	yi.delivered(id)
}
