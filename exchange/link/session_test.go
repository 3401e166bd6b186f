package link

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/queue/blob"
)

// all gives n times the same status.
func all(status string, n int) []string { return slices.Repeat([]string{status}, n) }

func (w *world) want(got []string, want ...string) {
	w.t.Helper()
	if !slices.Equal(got, want) {
		w.t.Fatalf("got %v\nwant %v", got, want)
	}
}

// drained says that nothing waits any more on a side.
func (w *world) drained(h *host, kind Kind) {
	w.t.Helper()
	if o, _ := h.next(kind); o != nil {
		w.t.Fatalf("%s still has %d items to give", h.id, len(o.outs))
	}
}

func TestDocumentCrosses(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	small, large := w.submit(jia, "yi", 100), w.submit(jia, "yi", 300_000)

	_, push := jia.next(Push)
	got := yi.receive(push)
	if got.Items != 6 || got.Truncated {
		t.Fatalf("got %+v", got)
	}
	w.want(yi.outcomes(), all(node.Taken, 6)...)
	reply, b := yi.next(Reply)
	if reply.HasItems() {
		t.Fatal("a reply carries items")
	}
	if got := jia.receive(b); got.Acks != 1 {
		t.Fatalf("got %+v", got)
	}
	w.drained(jia, Push)
	yi.work()
	yi.delivered(small, large)

	w.exchange(jia, yi)
	for _, id := range []string{small, large} {
		trace, err := jia.node.Trace(w.ctx, w.cast.agencies["jia"], id)
		w.must(err)
		if trace.Recipients[0].Stage != "COLLECTED" || !trace.ReceiptsVerified {
			t.Fatalf("%+v", trace.Recipients)
		}
	}
	books, err := yi.node.LinkBooks(w.ctx, "jia-yi")
	w.must(err)
	if want := (records.Books{Arrived: 6, Accepted: 6}); books != want {
		t.Fatalf("books %+v, want %+v", books, want)
	}
}

// Neighbours are witnesses: each bundle brings the head, the next one back
// says what is remembered, and from then on heads come with a proof.
func TestHeadsAreProven(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	w.submit(jia, "yi", 10)
	w.exchange(jia, yi)
	w.submit(jia, "yi", 10)
	o, b := jia.next(Push)
	in := yi.inside(b)
	if in.Checkpoint == nil || in.Checkpoint.From == 0 || len(in.Checkpoint.Proof) == 0 {
		t.Fatalf("no proof from what the neighbour remembers: %+v", in.Checkpoint)
	}
	if in.Seen == nil || in.Seen.Ledger != yi.node.LedgerID() || in.Seen.Size == 0 {
		t.Fatalf("not said what is remembered of the neighbour: %+v", in.Seen)
	}
	if !o.HasItems() || yi.quarantined() != nil {
		t.Fatalf("quarantine: %v", yi.quarantined())
	}
}

// inside opens a bundle without taking it.
func (h *host) inside(b []byte) *Inner {
	h.w.t.Helper()
	opened, err := h.open(h.w.ctx, bytes.NewReader(b))
	h.w.must(err)
	return opened.inner
}

// A request that is lost: its items stay in their lanes and leave under a new
// number. When the first one does arrive after all, even after the second,
// nothing happens twice and its late acks are taken.
func TestLostRequest(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprintf("arrives late %v", late), func(t *testing.T) {
			w := newWorld(t)
			jia, yi := w.pair()
			id := w.submit(jia, "yi", 1000)
			first, bytes1 := jia.next(Push)
			jia.Lost(w.ctx, first)
			second, bytes2 := jia.next(Push)
			if first.seq == second.seq || first.header == second.header {
				t.Fatal("repacked under the same number")
			}
			if again := jia.written(first); !bytes.Equal(again, bytes1) {
				t.Fatal("a bundle's bytes changed under its number")
			}
			yi.receive(bytes2)
			w.want(yi.outcomes(), all(node.Taken, 3)...)
			if late {
				yi.receive(bytes1)
				w.want(yi.outcomes(), all(node.Duplicate, 3)...)
			}
			_, reply := yi.next(Reply)
			want := 1
			if late {
				want = 2
			}
			if got := jia.receive(reply); got.Acks != want {
				t.Fatalf("%d acks applied, want %d", got.Acks, want)
			}
			w.exchange(jia, yi)
			yi.delivered(id)
			w.drained(jia, Push)
		})
	}
}

// A response that is lost: the neighbour has everything, we do not know. The
// repack is answered with duplicate, which settles like taken.
func TestLostResponse(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 1000)
	first, b := jia.next(Push)
	yi.receive(b)
	yi.next(Reply) // lost on the way; the listener cannot know
	jia.Lost(w.ctx, first)
	_, b = jia.next(Push)
	yi.receive(b)
	w.want(yi.outcomes(), all(node.Duplicate, 3)...)
	_, reply := yi.next(Reply)
	if got := jia.receive(reply); got.Acks != 1 {
		t.Fatalf("got %+v", got)
	}
	w.drained(jia, Push)
	yi.work()
	yi.delivered(id)
	books, err := yi.node.LinkBooks(w.ctx, "jia-yi")
	w.must(err)
	if want := (records.Books{Arrived: 6, Accepted: 3, Duplicate: 3}); books != want {
		t.Fatalf("books %+v, want %+v", books, want)
	}
}

// A lost answer to a poll: the listener does not learn that it is lost but
// from the missing ack. The next poll is answered with the same items.
func TestLostAnswer(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(yi, "jia", 1000)
	_, poll := jia.next(Poll)
	yi.receive(poll)
	yi.next(Answer) // lost
	_, poll = jia.next(Poll)
	yi.receive(poll)
	_, answer := yi.next(Answer)
	jia.receive(answer)
	w.want(jia.outcomes(), all(node.Taken, 3)...)
	w.exchange(jia, yi)
	jia.delivered(id)
	w.drained(yi, Answer)
}

// A poll that is lost takes acks along; they are given again.
func TestLostPollKeepsItsAcks(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	w.submit(yi, "jia", 1000)
	_, answer := yi.next(Answer)
	jia.receive(answer)
	lost, _ := jia.next(Poll)
	jia.Lost(w.ctx, lost)
	again, b := jia.next(Poll)
	if len(again.acks) != 1 {
		t.Fatalf("%d acks in the second poll, want the one of the first", len(again.acks))
	}
	if got := yi.receive(b); got.Acks != 1 {
		t.Fatalf("got %+v", got)
	}
	// The first poll was not lost after all: its ack settles nothing twice.
	if got := yi.receive(yi.w.replay(jia, lost)); got.Acks != 1 {
		t.Fatalf("got %+v", got)
	}
	w.drained(yi, Answer)
}

func (w *world) replay(h *host, o *Outgoing) []byte { return h.written(o) }

func TestDuplicatedBundle(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 200_000)
	_, b := jia.next(Push)
	for i, want := range []string{node.Taken, node.Duplicate, node.Duplicate} {
		yi.receive(b)
		if i == 1 {
			yi.work()
		}
		w.want(yi.outcomes(), all(want, 3)...)
	}
	_, reply := yi.next(Reply)
	if got := jia.receive(reply); got.Acks != 3 {
		t.Fatalf("got %+v", got)
	}
	w.exchange(jia, yi)
	yi.delivered(id)
}

// Bundles may overtake each other: a number says which one is meant and
// nothing about order.
func TestReorderedBundles(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	var ids []string
	var wire [][]byte
	for range 5 {
		ids = append(ids, w.submit(jia, "yi", 500))
		o, b := jia.next(Push)
		jia.Lost(w.ctx, o)
		wire = append(wire, b)
	}
	for _, i := range []int{3, 0, 4, 2, 1} {
		yi.receive(wire[i])
	}
	_, reply := yi.next(Reply)
	if got := jia.receive(reply); got.Acks != 5 {
		t.Fatalf("got %+v", got)
	}
	w.drained(jia, Push)
	w.exchange(jia, yi)
	yi.delivered(ids...)
}

// The same number with other content from the neighbour is a link fault, and
// shown; the content that came first stands.
func TestNumberReused(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 1000)
	_, honest := jia.next(Push)
	yi.receive(honest)

	jia.seq--
	other := jia.forge(nil, forged{node.Item{Kind: "header", ID: "x", Digest: sm.Sum([]byte("x"))}, []byte("x")})
	yi.refused(other, "number_reused")
	if q := yi.quarantined(); len(q) != 1 || !strings.HasPrefix(q[0], "bundle:") {
		t.Fatalf("quarantine: %v", q)
	}
	yi.receive(honest) // the same content is a duplicate, not a reuse
	w.want(yi.outcomes(), all(node.Duplicate, 3)...)
	w.exchange(jia, yi)
	yi.delivered(id)
}

// A new process begins a new epoch: numbers start again and mean other
// bundles. Epochs rise with the node's clock.
func TestRestartBeginsAnEpoch(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 1000)
	first, b := jia.next(Push)
	yi.receive(b)
	_, lateReply := yi.next(Reply)

	old := jia.epoch
	w.clock = w.clock.Add(1e9)
	jia.restart()
	if jia.epoch <= old || len(jia.epoch) != 32 {
		t.Fatalf("epoch %s after %s", jia.epoch, old)
	}
	if got := jia.receive(lateReply); got.Acks != 0 {
		t.Fatal("an ack of an earlier epoch was applied")
	}
	second, b := jia.next(Push)
	if second.seq != first.seq {
		t.Fatalf("number %d in a new epoch", second.seq)
	}
	yi.receive(b)
	w.want(yi.outcomes(), all(node.Duplicate, 3)...)
	w.exchange(jia, yi)
	yi.delivered(id)
}

// A receiver that restarts in the middle forgets what it had to acknowledge;
// the sender's repack brings it out again.
func TestReceiverRestarts(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 1000)
	o, b := jia.next(Push)
	yi.receive(b)
	yi.restart()
	jia.Lost(w.ctx, o)
	w.exchange(jia, yi)
	yi.delivered(id)
	w.drained(jia, Push)
}

func TestBundlesWithoutItemsHaveNoNumber(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	for _, kind := range []Kind{Poll, Reply} {
		o, b := jia.next(kind)
		if o.seq != 0 || o.HasItems() {
			t.Fatalf("kind %d has number %d", kind, o.seq)
		}
		if got := yi.receive(b); got.Items != 0 || len(yi.acks) != 0 {
			t.Fatalf("a bundle without items is acknowledged: %+v", got)
		}
	}
	w.drained(jia, Push)
	w.drained(jia, Answer)

	in := []forged{{node.Item{Kind: "header", ID: "x", Digest: sm.Sum(nil)}, nil}}
	jia.seq = ^uint64(0) // wraps to 0
	yi.refused(jia.forge(nil, in...), "items without a number")
}

// An ack settles exactly the bundle it names: epoch, number, header and the
// number of its items must match. Anything else changes nothing.
func TestAcksMustMatch(t *testing.T) {
	wrong := map[string]func(*Ack){
		"epoch":      func(a *Ack) { a.Epoch = strings.Repeat("0", 32) },
		"number":     func(a *Ack) { a.Seq++ },
		"header":     func(a *Ack) { a.Header[0] ^= 1 },
		"fewer":      func(a *Ack) { a.Items = a.Items[1:] },
		"more":       func(a *Ack) { a.Items = append(a.Items, a.Items[0]) },
		"no answer":  func(a *Ack) { clearStatus(a, "") },
		"a new word": func(a *Ack) { clearStatus(a, "admired") },
	}
	for name, change := range wrong {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			jia, yi := w.pair()
			w.submit(jia, "yi", 100)
			o, b := jia.next(Push)
			yi.receive(b)
			before := jia.store.facts()
			reply := yi.forge(func(in *Inner) {
				a := yi.acks[0]
				a.Items = slices.Clone(a.Items)
				change(&a)
				in.Acks, in.Checkpoint = []Ack{a}, nil
			})
			got, err := jia.Receive(w.ctx, bytes.NewReader(reply))
			w.must(err)
			if matched := strings.HasPrefix(name, "no") || strings.HasPrefix(name, "a new"); (got.Acks == 1) != matched {
				t.Fatalf("got %+v", got)
			}
			if !sameRows(before, jia.store.facts()) {
				t.Fatal("the ack had an effect")
			}
			again, _ := jia.next(Push)
			if len(again.outs) != len(o.outs) {
				t.Fatalf("%d items wait, want %d", len(again.outs), len(o.outs))
			}
		})
	}
}

func clearStatus(a *Ack, to string) {
	for i := range a.Items {
		a.Items[i].Status = to
	}
}

// Acks are taken for as many bundles back as are remembered, however late.
func TestLateAcks(t *testing.T) {
	for back, taken := range map[int]bool{0: true, remembered - 1: true, remembered: false} {
		t.Run(fmt.Sprint(back, " bundles later"), func(t *testing.T) {
			w := newWorld(t)
			jia, yi := w.pair()
			w.submit(jia, "yi", 100)
			o, b := jia.next(Push)
			jia.Lost(w.ctx, o)
			for range back {
				later, _ := jia.next(Push)
				jia.Lost(w.ctx, later)
			}
			yi.receive(b)
			_, reply := yi.next(Reply)
			if got := jia.receive(reply); (got.Acks == 1) != taken {
				t.Fatalf("%d acks applied", got.Acks)
			}
			if o, _ := jia.next(Push); (o == nil) != taken {
				t.Fatalf("drained %v, want %v", o == nil, taken)
			}
		})
	}
}

// Only the newest acks are kept: a neighbour that never hears them must not
// make memory grow. What is dropped is asked for again and found duplicate.
func TestAcksAreBounded(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 100)
	for range MaxAcks + 10 {
		o, b := jia.next(Push)
		yi.receive(b)
		jia.Lost(w.ctx, o)
	}
	if len(yi.acks) != MaxAcks {
		t.Fatalf("%d acks kept, want %d", len(yi.acks), MaxAcks)
	}
	reply, b := yi.next(Reply)
	if last := reply.acks[MaxAcks-1]; last.Seq != MaxAcks+10 {
		t.Fatalf("the newest ack kept is %d", last.Seq)
	}
	if got := jia.receive(b); got.Acks != remembered {
		t.Fatalf("%d acks applied, want those of the %d remembered bundles", got.Acks, remembered)
	}
	w.exchange(jia, yi)
	yi.delivered(id)
}

// An item of a kind nobody knows here is refused alone, unless it says that it
// must be understood: then the bundle is.
func TestUnknownKind(t *testing.T) {
	strange := forged{node.Item{Kind: "hologram", ID: "h", Digest: sm.Sum([]byte("?"))}, []byte("?")}
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 1000)
	outs, err := jia.node.Outgoing(w.ctx, "jia-yi", FillBytes, FillItems)
	w.must(err)
	items := []forged{strange}
	for _, o := range outs {
		items = append(items, forged{o.Item, w.read(o)}, strange)
	}
	critical := jia.forge(func(in *Inner) { in.Items[2].Critical = true }, items...)
	yi.refused(critical, "critical item")

	yi.receive(jia.forge(nil, items...))
	w.want(yi.outcomes(), "refused", "taken", "refused", "taken", "refused", "taken", "refused")
	if reason := yi.acks[len(yi.acks)-1].Items[0].Reason; reason != "unknown_kind" {
		t.Fatalf("refused with reason %q", reason)
	}
	yi.work()
	yi.delivered(id)
}

func (w *world) read(o node.Out) []byte {
	w.t.Helper()
	r, err := o.Open(w.ctx)
	w.must(err)
	defer r.Close()
	b, err := io.ReadAll(r)
	w.must(err)
	return b
}

// Parts follow each other as a stream: one whose bytes nobody wants is read to
// its end, so that the next one begins where it should.
func TestUnreadPartsAreDrained(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	a, b := w.submit(jia, "yi", 70_000), w.submit(jia, "yi", 140_000)
	outs, err := jia.node.Outgoing(w.ctx, "jia-yi", FillBytes, FillItems)
	w.must(err)
	var items, parts []forged
	for _, o := range outs {
		f := forged{o.Item, w.read(o)}
		if o.Kind == node.KindPart {
			parts = append(parts, f)
		} else {
			items = append(items, f)
		}
	}
	odd := func(id string) forged {
		return forged{node.Item{Kind: node.KindPart, ID: id}, bytes.Repeat([]byte{0x5a}, 5000)}
	}
	unknown := sm.Sum([]byte("nobody")).String() + "/0"
	items = append(items, odd("no id"), parts[0], parts[0], odd(unknown), parts[1])
	yi.receive(jia.forge(nil, items...))
	w.want(yi.outcomes(), "taken", "taken", "taken", "taken", "refused", "taken", "duplicate", "damaged", "taken")
	yi.work()
	yi.delivered(a, b)
}

// A push and a poll of one link may be handled at the same time.
func TestDirectionsAreIndependent(t *testing.T) {
	w := newWorld(t)
	disk := func() *blob.Store { // the simulated disk is for one goroutine
		b, err := blob.Open(durable.OS, t.TempDir())
		w.must(err)
		return b
	}
	jia, yi := w.host("jia", "jia-yi", nil, disk()), w.host("yi", "jia-yi", nil, disk())
	var mine, theirs []string
	for range 6 {
		mine, theirs = append(mine, w.submit(jia, "yi", 2000)), append(theirs, w.submit(yi, "jia", 2000))
	}
	done := make(chan error, 2)
	go func() {
		done <- func() error {
			for range 8 {
				o, err := jia.Next(w.ctx, Push)
				if o == nil || err != nil {
					return err
				}
				if err := carry(w, jia, yi, o, Reply); err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	go func() {
		done <- func() error {
			for range 8 {
				o, err := jia.Next(w.ctx, Poll)
				if err != nil {
					return err
				}
				if err := carry(w, jia, yi, o, Answer); err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	w.must(<-done)
	w.must(<-done)
	w.exchange(jia, yi)
	yi.delivered(mine...)
	jia.delivered(theirs...)
}

// carry takes a request to the listener and its response back.
func carry(w *world, from, to *host, o *Outgoing, back Kind) error {
	var b bytes.Buffer
	if _, err := o.WriteTo(&b); err != nil {
		return err
	}
	if _, err := to.Receive(w.ctx, &b); err != nil {
		return err
	}
	r, err := to.Next(w.ctx, back)
	if r == nil || err != nil {
		return err
	}
	b.Reset()
	if _, err := r.WriteTo(&b); err != nil {
		return err
	}
	_, err = from.Receive(w.ctx, &b)
	return err
}
