package link

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/exchange/records"
)

// looker is an inspector that keeps what it was shown and gives one verdict.
type looker struct {
	reason string
	err    error
	looks  int
	seen   []byte
}

func (l *looker) Inspect(_ context.Context, name, media string, content io.ReaderAt, size int64) (exchange.Verdict, error) {
	l.looks++
	if l.err != nil {
		return exchange.Verdict{}, l.err
	}
	if name != "正文.ofd" || media != "application/ofd" {
		return exchange.Verdict{}, errors.New("another file")
	}
	var err error
	l.seen, err = io.ReadAll(io.NewSectionReader(content, 0, size))
	return exchange.Verdict{Kind: "ofd", Reason: l.reason, Detail: "page 3"}, err
}

// checkpoint is a world of jia – yi – bing in which inspection points are named,
// with both of yi's ends.
type checkpoint struct {
	*world
	looker        *looker
	jia, yi, bing *host
	far           *host            // yi's end of the link to bing
	before        *certs.Directory // without inspection points
}

// guardedCasts are the domains with these inspection points; their keys take time.
var guardedCasts = map[string]*guardedCast{}

type guardedCast struct {
	*cast
	before *certs.Directory
}

func theGuardedCast(t *testing.T, points []certs.Inspection) *guardedCast {
	t.Helper()
	key := fmt.Sprint(points)
	if c := guardedCasts[key]; c != nil {
		return c
	}
	c, err := newCast(t.TempDir())
	publish := func() (d *certs.Directory) {
		var file []byte
		if err == nil {
			file, err = c.authority.Publish(start.AddDate(0, 0, -1))
		}
		if err == nil {
			d, err = certs.LoadDirectory(file, c.authority.Certificate(), 0, start)
		}
		return d
	}
	if err == nil {
		err = errors.Join(c.authority.AddRoute("jia", "bing", "yi"), c.authority.AddRoute("bing", "jia", "yi"))
	}
	before := publish()
	for _, p := range points {
		if err == nil {
			err = c.authority.AddInspection(p)
		}
	}
	if d := publish(); err == nil {
		c.directory = d
	}
	if err != nil {
		t.Fatal(err)
	}
	guardedCasts[key] = &guardedCast{c, before}
	return guardedCasts[key]
}

func newCheckpoint(t *testing.T, points ...certs.Inspection) *checkpoint {
	t.Helper()
	cast := theGuardedCast(t, points)
	w := &world{
		t: t, ctx: t.Context(), cast: cast.cast, clock: start, files: map[string][][]byte{},
		rand: &lockedRand{r: rand.NewChaCha8(sha256.Sum256([]byte(t.Name())))},
	}
	c := &checkpoint{world: w, looker: new(looker), before: cast.before}
	w.inspector = c.looker
	c.jia, c.yi, c.bing = w.host("jia", "jia-yi", nil, nil), w.host("yi", "jia-yi", nil, nil), w.host("bing", "yi-bing", nil, nil)
	c.farEnd()
	return c
}

func (c *checkpoint) farEnd() {
	s, err := NewSession(c.yi.node, "yi-bing")
	c.must(err)
	c.far = &host{w: c.world, id: "yi", link: "yi-bing", store: c.yi.store, blobs: c.yi.blobs, node: c.yi.node, shelf: c.yi.shelf, Session: s}
}

// settle lets everything go where it can.
func (c *checkpoint) settle() {
	c.t.Helper()
	for range 3 {
		c.exchange(c.jia, c.yi)
		c.exchange(c.far, c.bing)
	}
}

// stages are what jia knows of a document: of bing's copy, and in all.
func (c *checkpoint) stages(id string) (of exchange.RecipientState, all []string) {
	c.t.Helper()
	tr, err := c.jia.node.Trace(c.ctx, c.cast.agencies["jia"], id)
	c.must(err)
	if !tr.ReceiptsVerified {
		c.t.Fatalf("receipts of %s do not verify", id)
	}
	for _, e := range tr.Events {
		if e.Stage != exchange.StageRelayed {
			all = append(all, string(e.Stage)+" "+e.Node)
		}
	}
	slices.Sort(all)
	return tr.Recipients[0], all
}

// roles are those of the slots that came to a host, or that it made.
func (h *host) roles() (all []string) {
	h.w.t.Helper()
	for k, v := range h.store.rows {
		if !strings.HasPrefix(k, string(records.Incoming.Key())) {
			continue
		}
		var con records.Consignment
		h.w.must(json.Unmarshal(v, &con))
		b, err := con.Body.Load(h.w.ctx, h.blobs)
		h.w.must(err)
		item, err := node.ParseConsignment(b)
		h.w.must(err)
		for _, s := range item.Slots {
			all = append(all, []string{"bing", "yi", "self"}[s.I])
		}
	}
	return all
}

// TestInspection: a document is looked into at every inspection point on its
// way, before it passes, and the key for that goes no further.
func TestInspection(t *testing.T) {
	for _, c := range []struct {
		name   string
		points []certs.Inspection
		want   string
		looks  int
	}{
		{"none", nil, "ACCEPTED jia, DELIVERED bing", 0},
		{"the near end", []certs.Inspection{{Node: "yi", Link: "yi-bing"}}, "ACCEPTED jia, DELIVERED bing, INSPECTED yi", 1},
		{"what came in", []certs.Inspection{{Node: "yi", Link: "jia-yi"}}, "ACCEPTED jia, DELIVERED bing, INSPECTED yi", 1},
		{"both links of a node, once", []certs.Inspection{{Node: "yi"}}, "ACCEPTED jia, DELIVERED bing, INSPECTED yi", 1},
		{"the far end", []certs.Inspection{{Node: "bing", Link: "yi-bing"}}, "ACCEPTED jia, DELIVERED bing, INSPECTED bing", 1},
		{"the sender's node", []certs.Inspection{{Node: "jia", Link: "jia-yi"}}, "ACCEPTED jia, DELIVERED bing, INSPECTED jia", 1},
		{"several", []certs.Inspection{{Node: "jia"}, {Node: "yi"}, {Node: "bing"}}, "ACCEPTED jia, DELIVERED bing, INSPECTED bing, INSPECTED jia, INSPECTED yi", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newCheckpoint(t, c.points...)
			for _, size := range []int{3000, 3 << 20} { // taken as one, and in pieces
				w.looker.looks = 0
				id := w.submit(w.jia, "bing", size)
				w.settle()
				_, all := w.stages(id)
				if got := strings.Join(all, ", "); got != c.want || w.looker.looks != c.looks {
					t.Fatalf("%d bytes: %s, %d looks", size, got, w.looker.looks)
				}
				if c.looks > 0 && !bytes.Equal(w.looker.seen, w.files[id][0]) {
					t.Error("it was shown something else")
				}
			}
			for _, h := range []*host{w.jia, w.yi, w.bing} {
				if r := h.check(); !r.OK {
					t.Errorf("%s: %+v", h.id, r.Problems)
				}
			}
		})
	}
}

// TestTheKeyGoesNoFurther: behind the inspection point nobody has its slot.
func TestTheKeyGoesNoFurther(t *testing.T) {
	w := newCheckpoint(t, certs.Inspection{Node: "yi", Link: "yi-bing"})
	w.submit(w.jia, "bing", 3000)
	w.settle()
	if got := w.yi.roles(); !slices.Equal(got, []string{"bing", "yi"}) {
		t.Errorf("to the inspection point came the slots of %v", got)
	}
	if got := w.bing.roles(); !slices.Equal(got, []string{"bing"}) {
		t.Errorf("behind it came the slots of %v", got)
	}
}

// TestARefusedDocumentPassesNot: it ends with a reason that its sender can read,
// for those behind the link; others have it.
func TestARefusedDocumentPassesNot(t *testing.T) {
	w := newCheckpoint(t, certs.Inspection{Node: "yi", Link: "yi-bing"})
	w.looker.reason = exchange.CodeContentActive
	s := w.submission(w.jia, "bing", "", []byte("body"))
	s.Document.To = append(s.Document.To, exchange.Addressee{Agency: w.cast.agencies["yi"]})
	got, err := w.jia.node.Submit(w.ctx, s)
	w.must(err)
	w.jia.work()
	w.settle()
	state, all := w.stages(got.ID)
	if state.Stage != exchange.StageRejected || state.Reason != exchange.CodeContentActive {
		t.Fatalf("bing's copy: %+v", state)
	}
	if got := strings.Join(all, ", "); got != "ACCEPTED jia, DELIVERED yi, REJECTED yi" {
		t.Fatal(got)
	}
	tr, err := w.jia.node.Trace(w.ctx, w.cast.agencies["jia"], got.ID)
	w.must(err)
	i := slices.IndexFunc(tr.Events, func(e node.Event) bool { return e.Stage == exchange.StageRejected })
	if d := tr.Events[i].Detail; d == nil || d.Reason != "file 1: page 3" {
		t.Errorf("the sender reads %+v", d)
	}
	w.bing.delivered()
	if len(w.bing.roles()) != 0 {
		t.Error("something of it came to bing")
	}
	for k, v := range w.yi.store.rows {
		if bytes.Contains(v, []byte("page 3")) {
			t.Errorf("what was found lies open in row %q", k)
		}
	}
	if r := w.yi.check(); !r.OK {
		t.Errorf("%+v", r.Problems)
	}
}

// TestNoKeyNoPassage: what was sealed before the inspection point was named
// cannot be looked into, and does not pass.
func TestNoKeyNoPassage(t *testing.T) {
	w := newCheckpoint(t, certs.Inspection{Node: "yi", Link: "yi-bing"})
	w.jia.shelf.inForce = w.before
	id := w.submit(w.jia, "bing", 3000)
	w.settle()
	if state, _ := w.stages(id); state.Stage != exchange.StageRejected || state.Reason != exchange.CodeInspectionMissing {
		t.Fatalf("%+v", state)
	}
	if w.looker.looks != 0 || len(w.bing.roles()) != 0 {
		t.Error("it passed")
	}
	again := w.submit(w.jia, "bing", 3000) // jia has heard of the newer directory
	w.settle()
	if state, _ := w.stages(again); state.Stage != exchange.StageDelivered {
		t.Errorf("sent anew: %+v", state)
	}
}

// TestAnUnreadableDocumentIsRefused: with a slot that is not for this document.
func TestAnUnreadableDocumentIsRefused(t *testing.T) {
	w := newCheckpoint(t, certs.Inspection{Node: "yi", Link: "yi-bing"})
	locked := false
	w.watch = func(h *host, keys node.Keys) node.Keys { return lockedKeys{keys, &locked} }
	w.yi.restart()
	w.farEnd()
	id := w.accept(w.jia, "bing", 3000)
	w.jia.work()
	_, b := w.jia.next(Push)
	w.yi.receive(b)
	locked = true
	w.yi.work()
	locked = false
	w.settle()
	if state, _ := w.stages(id); state.Stage != exchange.StageRejected || state.Reason != exchange.CodeUnreadable {
		t.Fatalf("%+v", state)
	}
	if len(w.bing.roles()) != 0 {
		t.Error("it passed")
	}
}

// lockedKeys unwraps keys to what they are not.
type lockedKeys struct {
	node.Keys
	locked *bool
}

func (k lockedKeys) Unwrap(id sm.Digest, sealed []byte) ([]byte, error) {
	plain, err := k.Keys.Unwrap(id, sealed)
	if *k.locked && err == nil {
		plain = bytes.Clone(plain)
		plain[0] ^= 1
	}
	return plain, err
}

// TestTroubleLetsNothingPass: while the inspector cannot tell, the document
// waits; then it is looked into.
func TestTroubleLetsNothingPass(t *testing.T) {
	w := newCheckpoint(t, certs.Inspection{Node: "yi", Link: "yi-bing"})
	w.looker.err = exchange.Fail(exchange.CodeTemporary, "the virus scanner does not answer")
	id := w.accept(w.jia, "bing", 3000)
	w.jia.work()
	push, b := w.jia.next(Push)
	if push == nil {
		t.Fatal("nothing leaves")
	}
	w.yi.receive(b)
	if w.looker.looks != 0 {
		t.Error("whoever takes a document waits for the inspector")
	}
	for range 5 {
		_, err := w.yi.node.Work(w.ctx)
		if err != nil && !exchange.IsTemporary(err) {
			t.Fatal(err)
		}
		w.clock = w.clock.Add(time.Minute)
	}
	if w.looker.looks < 2 {
		t.Errorf("%d looks", w.looker.looks)
	}
	if out, _ := w.far.next(Push); out != nil && len(out.outs) > 0 {
		t.Fatal("something passes")
	}
	w.looker.err = nil
	w.clock = w.clock.Add(time.Hour)
	w.settle()
	if state, _ := w.stages(id); state.Stage != exchange.StageDelivered {
		t.Errorf("%+v", state)
	}
}

// TestInspectionSurvivesCrashes: wherever the inspection point dies, the
// document passes once, with one receipt.
func TestInspectionSurvivesCrashes(t *testing.T) {
	for _, reason := range []string{"", exchange.CodeContentDamaged} {
		want := "ACCEPTED jia, DELIVERED bing, INSPECTED yi"
		if reason != "" {
			want = "ACCEPTED jia, REJECTED yi"
		}
		for at := 1; ; at++ {
			w := newCheckpoint(t, certs.Inspection{Node: "yi", Link: "yi-bing"})
			w.looker.reason = reason
			id := w.submit(w.jia, "bing", 3000)
			_, b := w.jia.next(Push)
			commits, dead := 0, errors.New("dead")
			w.yi.store.fail = func() error {
				if commits++; commits >= at {
					return dead
				}
				return nil
			}
			_, err := w.yi.Receive(w.ctx, bytes.NewReader(b))
			for did := true; err == nil && did; {
				did, err = w.yi.node.Work(w.ctx)
			}
			w.yi.store.fail = nil
			w.yi.restart()
			w.jia.restart()
			w.farEnd()
			w.settle()
			if _, all := w.stages(id); strings.Join(all, ", ") != want {
				t.Fatalf("dead at commit %d: %v", at, all)
			}
			if err == nil { // it came to the end
				if at < 3 {
					t.Fatalf("only %d commits", commits)
				}
				break
			}
			if !errors.Is(err, dead) {
				t.Fatal(err)
			}
		}
	}
}

// TestAMissingSlotSpeaksOfItsConsignment: a neighbour that leaves the inspection point's
// slot out ends what it brings, and nothing of what another one brings.
func TestAMissingSlotSpeaksOfItsConsignment(t *testing.T) {
	w := newCheckpoint(t, certs.Inspection{Node: "yi"})
	s := w.submission(w.jia, "bing", "", []byte("body"))
	s.Document.To = append(s.Document.To, exchange.Addressee{Agency: w.cast.agencies["yi"]})
	got, err := w.jia.node.Submit(w.ctx, s)
	w.must(err)
	w.files[got.ID] = [][]byte{[]byte("body")}
	w.jia.work()
	whole := w.wholeOf(w.jia)
	e, err := envelope.ParseHeader(whole.HeaderBytes)
	w.must(err)
	item, err := node.ParseConsignment(whole.ConsignmentBytes)
	w.must(err)
	own := slices.IndexFunc(e.Header.Recipients, func(r envelope.Slot) bool {
		return r.Role == envelope.RoleRecipient && r.Agency == w.cast.agencies["yi"]
	})
	item.Slots = slices.DeleteFunc(item.Slots, func(s node.SlotItem) bool { return s.I != own })
	stripped, err := item.Marshal()
	w.must(err)
	if len(item.Slots) != 1 {
		t.Fatalf("%d slots", len(item.Slots))
	}
	w.hand(w.yi, "jia-yi", node.KindHeader, whole.Header.ID, whole.HeaderBytes)
	w.hand(w.yi, "yi-bing", node.KindConsignment, e.Hash.String()+"/"+sm.Sum(stripped).String(), stripped)
	if out, err := w.yi.node.Intake(w.ctx, "jia-yi", whole.Part, bytes.NewReader(whole.PartBytes)); err != nil || out.Status != node.Taken {
		t.Fatal(out, err)
	}
	w.yi.work()
	w.jia.restart()
	w.settle()
	state, all := w.stages(got.ID)
	if state.Stage != exchange.StageDelivered || w.looker.looks != 1 {
		t.Fatalf("bing's copy: %+v after %d looks: %v", state, w.looker.looks, all)
	}
	if got := strings.Join(all, ", "); got != "ACCEPTED jia, DELIVERED bing, INSPECTED yi, REJECTED yi" {
		t.Errorf("%s", got)
	}
	if r := w.yi.check(); !r.OK {
		t.Errorf("%+v", r.Problems)
	}
}
