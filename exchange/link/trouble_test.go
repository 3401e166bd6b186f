package link

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// A bundle that is not for this link, or not by this neighbour, is refused as
// a whole and shown.
func TestForeignBundles(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	w.submit(jia, "yi", 100)
	_, fromJia := jia.next(Push)

	bing := w.host("bing", "yi-bing", nil, nil)
	bing.refused(fromJia, "not in the directory") // signed by a node that is no neighbour
	toYi := w.host("yi", "yi-bing", nil, nil)
	toYi.refused(fromJia, "not in the directory")

	// jia signs, but says it speaks for another link, or to another node.
	for name, change := range map[string]func(*Session){
		"another link": func(s *Session) { s.link = "yi-bing" },
		"another node": func(s *Session) { s.neighbour = "bing" },
	} {
		t.Run(name, func(t *testing.T) {
			twisted := w.host("jia", "jia-yi", nil, nil)
			change(twisted.Session)
			o := &Outgoing{s: twisted.Session, kind: Poll}
			section, err := joinSection(&Inner{Acks: []Ack{}, Heads: [][]byte{}, Items: []ManifestEntry{}}, nil)
			w.must(err)
			w.must(o.finish(section))
			yi.refused(twisted.written(o), "another link")
		})
	}
	if q := yi.quarantined(); len(q) != 2 {
		t.Fatalf("quarantine: %v", q)
	}
	// A bundle of our own, thrown back at us.
	jia.refused(fromJia, "not in the directory")
}

// Trouble of our own in the middle: what was taken is acknowledged, the rest
// is not answered and comes again.
func TestStoreTrouble(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	ids := []string{w.submit(jia, "yi", 100), w.submit(jia, "yi", 100)}
	o, b := jia.next(Push)
	commits := 0
	yi.store.fail = func() error {
		if commits++; commits == 5 {
			return queue.ErrUnknown
		}
		return nil
	}
	if _, err := yi.Receive(w.ctx, bytes.NewReader(b)); !errors.Is(err, queue.ErrUnknown) || errors.Is(err, ErrFault) {
		t.Fatalf("got %v", err)
	}
	yi.store.fail = nil
	got := yi.outcomes()
	if len(got) != 6 || got[0] != node.Taken || !slices.Contains(got, "") {
		t.Fatalf("outcomes %v", got)
	}
	taken := len(slices.DeleteFunc(slices.Clone(got), func(s string) bool { return s == "" }))
	jia.Lost(w.ctx, o)
	_, reply := yi.next(Reply)
	jia.receive(reply)
	rest, _ := jia.next(Push)
	if len(rest.outs) != 6-taken {
		t.Fatalf("%d items again, want the %d that were not answered", len(rest.outs), 6-taken)
	}
	w.exchange(jia, yi)
	yi.delivered(ids...)
}

// A part of ours that cannot be read does not stop the others: its document is
// held back and shown.
func TestUnreadablePart(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	bad, good := w.submit(jia, "yi", 50_000), w.submit(jia, "yi", 60_000)
	o, err := jia.Next(w.ctx, Push)
	w.must(err)
	w.must(jia.blobs.Delete(w.ctx, w.partRef(jia, bad)))
	if _, err := o.WriteTo(io.Discard); err == nil {
		t.Fatal("a bundle was written without one of its parts")
	}
	jia.Lost(w.ctx, o)
	if q := jia.quarantined(); len(q) != 1 || !strings.Contains(q[0], "unreadable") {
		t.Fatalf("quarantine: %v", q)
	}
	_, b := jia.next(Push)
	yi.receive(b)
	yi.work()
	yi.delivered(good)
}

func (w *world) partRef(h *host, document string) (ref queue.Ref) {
	w.t.Helper()
	w.must(h.store.View(w.ctx, func(tx queue.Tx) error {
		doc, err := records.Documents.Get(tx, w.cast.agencies[h.id], document)
		w.must(err)
		part, err := records.Parts.Get(tx, doc.Header, uint64(0))
		w.must(err)
		ref = part.Ref
		return nil
	}))
	return ref
}

// A neighbour that shows two histories of its ledger is shown to the operator;
// documents go on.
func TestForkIsShown(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	w.submit(jia, "yi", 10)
	w.exchange(jia, yi)
	other := w.host("jia", "jia-yi", jia.store.clone(), jia.blobs)

	a := w.submit(jia, "yi", 10)
	w.exchange(jia, yi)
	yi.delivered(append([]string{a}, w.others(a)...)...)

	b := w.submit(other, "yi", 10)
	for range 10 { // longer than the history yi knows
		w.submit(other, "jia", 1)
	}
	w.pretend(other, yi)
	_, push := other.next(Push)
	yi.receive(push)
	if q := yi.quarantined(); len(q) == 0 || !strings.HasPrefix(q[0], "checkpoint:") || !strings.Contains(q[0], "two histories") {
		t.Fatalf("quarantine: %v", q)
	}
	yi.work()
	if _, err := yi.node.InboxItem(w.ctx, w.cast.agencies["yi"], b); err != nil {
		t.Fatalf("the document was held back: %v", err)
	}
}

// pretend makes a node prove its head from the size its neighbour remembers,
// whatever was there.
func (w *world) pretend(h, neighbour *host) {
	w.t.Helper()
	var known *records.Head
	w.must(neighbour.store.View(w.ctx, func(tx queue.Tx) (err error) {
		known, err = records.Heads.Get(tx, h.id)
		return err
	}))
	w.must(h.store.View(w.ctx, func(tx queue.Tx) error {
		root, err := queue.Ledger{Name: "main"}.Root(tx, known.Size)
		w.must(err)
		known.Root = root
		return nil
	}))
	w.must(h.node.Seen(w.ctx, h.link, node.Seen{Ledger: known.Ledger, Size: known.Size, Root: known.Root}))
}

func (w *world) others(not string) (out []string) {
	for id := range w.files {
		if id != not {
			out = append(out, id)
		}
	}
	return out
}

// A node whose data directory was put back learns it from its neighbour's
// first bundle.
func TestRollbackIsLearnt(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	w.submit(jia, "yi", 10)
	w.exchange(jia, yi)
	backup := jia.store.clone()
	w.submit(jia, "yi", 10)
	w.exchange(jia, yi)

	restored := w.host("jia", "jia-yi", backup, jia.blobs)
	w.must(restored.node.Alarm())
	_, poll := restored.next(Poll)
	yi.receive(poll)
	_, reply := yi.next(Reply)
	restored.receive(reply)
	if restored.node.Alarm() == nil {
		t.Fatal("the restored node does not know that its ledger was rolled back")
	}
}
