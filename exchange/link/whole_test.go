package link

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// wholeOf reads what goes next as a document in one piece.
func (w *world) wholeOf(from *host) node.Whole {
	w.t.Helper()
	o, _ := from.next(Push)
	var whole node.Whole
	for _, out := range o.outs {
		b := w.read(out)
		switch out.Kind {
		case node.KindHeader:
			whole.Header, whole.HeaderBytes = out.Item, b
		case node.KindConsignment:
			whole.Consignment, whole.ConsignmentBytes = out.Item, b
		case node.KindPart:
			whole.Part, whole.PartBytes = out.Item, b
		}
	}
	if whole.Header.ID == "" || whole.Consignment.ID == "" || whole.Part.ID == "" {
		w.t.Fatal("no document goes next")
	}
	return whole
}

func (w *world) handOneByOne(to *host, whole node.Whole) (got []string) {
	w.t.Helper()
	for _, one := range []forged{{whole.Header, whole.HeaderBytes}, {whole.Consignment, whole.ConsignmentBytes}, {whole.Part, whole.PartBytes}} {
		out, err := to.node.Intake(w.ctx, "jia-yi", one.Item, bytes.NewReader(one.bytes))
		w.must(err)
		got = append(got, out.Status)
	}
	return got
}

// tables counts rows by the first part of their key; the work, which is done or
// never was, apart.
func tables(rows map[string][]byte) map[string]int {
	out := map[string]int{}
	for k := range rows {
		if table, rest, _ := strings.Cut(k, "\x00"); !strings.HasPrefix(rest, "\x01work") {
			out[table]++
		}
	}
	return out
}

// signed says of a row that it differs between two runs: a signature is in it, or
// the SM3 of one.
func signed(key string) bool {
	table, _, _ := strings.Cut(key, "\x00")
	return slices.Contains([]string{"rcp", "ddp", "box", "ledger", "lane"}, table)
}

// TestAWholeDocumentLeavesTheSameRows: what is taken in one commit lies there as
// if it had come item by item.
func TestAWholeDocumentLeavesTheSameRows(t *testing.T) {
	for _, size := range []int{1, 50_000, smallPart - 4096} {
		w := newWorld(t)
		jia, yi := w.pair()
		yi.work() // notes the directory
		other := w.host("yi", "jia-yi", yi.store.clone(), nil)
		w.submit(jia, "yi", size)
		whole := w.wholeOf(jia)

		commits := 0
		yi.store.fail = func() error { commits++; return nil }
		if taken, err := yi.node.IntakeWhole(w.ctx, "jia-yi", whole); err != nil || !taken {
			t.Fatalf("%d bytes: taken %v, %v", size, taken, err)
		}
		if commits != 1 {
			t.Errorf("%d bytes took %d commits", size, commits)
		}
		if got := strings.Join(w.handOneByOne(other, whole), " "); got != "taken taken taken" {
			t.Fatal(got)
		}
		other.work()
		a, b := yi.store.facts(), other.store.facts()
		for k, v := range a {
			if v2, have := b[k]; have && !signed(k) && !bytes.Equal(v, v2) {
				t.Errorf("%d bytes: row %q is %q, and %q item by item", size, k, v, v2)
			}
		}
		if a, b := tables(a), tables(b); !maps.Equal(a, b) {
			t.Errorf("%d bytes: rows %v, and %v item by item", size, a, b)
		}
		if got := strings.Join(w.handOneByOne(yi, whole), " "); got != "duplicate duplicate duplicate" {
			t.Errorf("handed in again: %s", got)
		}
	}
}

// TestABundleIsTakenWhole: a small document in a bundle takes this way, and is
// delivered.
func TestABundleIsTakenWhole(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	commits := 0
	yi.store.fail = func() error { commits++; return nil }
	var ids []string
	var took []int
	for _, documents := range []int{1, 1, 5} { // the first has a greeting with it
		for range documents {
			ids = append(ids, w.submit(jia, "yi", 3000))
		}
		_, b := jia.next(Push)
		before := commits
		yi.receive(b)
		took = append(took, commits-before)
		w.exchange(jia, yi)
	}
	yi.delivered(ids...)
	if took[2]-took[1] != 4 {
		t.Errorf("a bundle of 1 took %d commits and one of 5 took %d, want 4 more", took[1], took[2])
	}
}

// TestWhatIsNotWholeIsNotTakenAsOne: whatever is wrong or known, nothing changes,
// and the items one by one are answered as they deserve.
func TestWhatIsNotWholeIsNotTakenAsOne(t *testing.T) {
	flip := func(b []byte) []byte {
		b = bytes.Clone(b)
		b[len(b)/2] ^= 1
		return b
	}
	cases := map[string]struct {
		change func(w *world, yi *host, d, other *node.Whole)
		then   string
	}{
		"another header's bytes": {func(_ *world, _ *host, d, o *node.Whole) { d.HeaderBytes = o.HeaderBytes }, "damaged damaged damaged"},
		"a changed header":       {func(_ *world, _ *host, d, _ *node.Whole) { d.HeaderBytes = flip(d.HeaderBytes) }, "damaged damaged damaged"},
		"a header that is cut":   {func(_ *world, _ *host, d, _ *node.Whole) { d.HeaderBytes = d.HeaderBytes[:100] }, "damaged damaged damaged"},
		"another header":         {func(_ *world, _ *host, d, o *node.Whole) { d.Header, d.HeaderBytes = o.Header, o.HeaderBytes }, "taken damaged damaged"},
		"a changed consignment":  {func(_ *world, _ *host, d, _ *node.Whole) { d.ConsignmentBytes = flip(d.ConsignmentBytes) }, "taken damaged damaged"},
		"another consignment": {func(_ *world, _ *host, d, o *node.Whole) {
			d.Consignment, d.ConsignmentBytes = o.Consignment, o.ConsignmentBytes
		}, "taken damaged damaged"},
		"a changed part":             {func(_ *world, _ *host, d, _ *node.Whole) { d.PartBytes = flip(d.PartBytes) }, "taken taken damaged"},
		"a part that is cut":         {func(_ *world, _ *host, d, _ *node.Whole) { d.PartBytes = d.PartBytes[:10] }, "taken taken damaged"},
		"another part":               {func(_ *world, _ *host, d, o *node.Whole) { d.Part, d.PartBytes = o.Part, o.PartBytes }, "taken taken damaged"},
		"another part under its id":  {func(_ *world, _ *host, d, o *node.Whole) { d.Part.Digest, d.PartBytes = o.Part.Digest, o.PartBytes }, "taken taken damaged"},
		"part 1 of one":              {func(_ *world, _ *host, d, _ *node.Whole) { d.Part.ID = strings.TrimSuffix(d.Part.ID, "0") + "1" }, "taken taken damaged"},
		"a size that is not so":      {func(_ *world, _ *host, d, _ *node.Whole) { d.Part.Size++ }, "taken taken damaged"},
		"a size beyond every header": {func(_ *world, _ *host, d, _ *node.Whole) { d.Header.Size = 1 << 40 }, "refused damaged damaged"},
		"no room":                    {func(_ *world, yi *host, _, _ *node.Whole) { yi.full = true }, "damaged damaged damaged"},
		"a header that is here": {func(w *world, yi *host, d, _ *node.Whole) {
			w.hand(yi, "jia-yi", node.KindHeader, d.Header.ID, d.HeaderBytes)
		}, "duplicate taken taken"},
		"a document that is here": {func(w *world, yi *host, d, _ *node.Whole) { w.handOneByOne(yi, *d) }, "duplicate duplicate duplicate"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			jia, yi := w.pair()
			w.submit(jia, "yi", 3000)
			d := w.wholeOf(jia)
			third := w.host("jia", "jia-yi", nil, nil)
			w.submit(third, "yi", 3000)
			other := w.wholeOf(third)
			c.change(w, yi, &d, &other)
			before := yi.store.facts()
			if taken, err := yi.node.IntakeWhole(w.ctx, "jia-yi", d); err != nil || taken {
				t.Fatalf("taken %v, %v", taken, err)
			}
			if !sameRows(before, yi.store.facts()) {
				t.Error("what was not taken left something behind")
			}
			if got := strings.Join(w.handOneByOne(yi, d), " "); got != c.then {
				t.Errorf("one by one: %s, want %s", got, c.then)
			}
		})
	}
}

// TestAForgedHeaderIsNotTakenWhole: the sender's certificate over content of
// another's making.
func TestAForgedHeaderIsNotTakenWhole(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	w.submit(jia, "yi", 3000)
	e, _ := w.headerOf(jia)
	d := w.wholeOf(jia)
	d.HeaderBytes = w.forgedHeader(e, nil)
	d.Header.Size, d.Header.Digest = int64(len(d.HeaderBytes)), sm.Sum(d.HeaderBytes)
	if taken, err := yi.node.IntakeWhole(w.ctx, "jia-yi", d); err != nil || taken {
		t.Fatalf("taken %v, %v", taken, err)
	}
	if got := strings.Join(w.handOneByOne(yi, d), " "); got != "damaged damaged damaged" {
		t.Error(got)
	}
}

// TestAWholeDocumentWhoseCommitFails: nothing is acknowledged, and it comes again.
func TestAWholeDocumentWhoseCommitFails(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 3000)
	_, b := jia.next(Push)
	broken := errors.New("the disk is gone")
	yi.store.fail = func() error { return broken }
	if _, err := yi.Receive(w.ctx, bytes.NewReader(b)); !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	yi.store.fail = nil
	jia.restart()
	yi.restart()
	w.exchange(jia, yi)
	yi.delivered(id)
}

// TestPolicyJudgesAWholeDocument: what a link may not carry is refused and proven,
// and what a newer directory must judge waits for it.
func TestPolicyJudgesAWholeDocument(t *testing.T) {
	w := ownWorld(t)
	jia, yi := w.pair()
	w.submit(jia, "yi", 3000)
	d := w.wholeOf(jia)
	ceiling := func(label exchange.Label) {
		w.must(w.cast.authority.AddLink(certs.Link{ID: "jia-yi", A: "jia", B: "yi", Dialer: "jia", Kind: "https", Ceiling: string(label)}))
		yi.shelf.inForce = w.publish()
	}
	ceiling(exchange.Public)
	if taken, err := yi.node.IntakeWhole(w.ctx, "jia-yi", d); err != nil || taken {
		t.Fatalf("above the ceiling: taken %v, %v", taken, err)
	}
	if got := strings.Join(w.handOneByOne(yi, d), " "); got != "refused damaged damaged" {
		t.Errorf("above the ceiling: %s", got)
	}
	// What was refused is refused for good.
	ceiling(exchange.Internal)
	if taken, err := yi.node.IntakeWhole(w.ctx, "jia-yi", d); err != nil || taken {
		t.Fatalf("refused before: taken %v, %v", taken, err)
	}

	w, jia, yi, _ = waiting(t)
	d = w.wholeOf(jia)
	if taken, err := yi.node.IntakeWhole(w.ctx, "jia-yi", d); err != nil || taken {
		t.Fatalf("a directory that is not here: taken %v, %v", taken, err)
	}
	if got := strings.Join(w.handOneByOne(yi, d), " "); got != "deferred taken taken" {
		t.Errorf("a directory that is not here: %s", got)
	}
}

// TestAWholeDocumentWaitsForItsKeys: what cannot be delivered now is taken all the
// same, and delivered when the keys are back.
func TestAWholeDocumentWaitsForItsKeys(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	yi.work() // notes the directory
	keys := yi.losing()
	id := w.submit(jia, "yi", 3000)
	d := w.wholeOf(jia)
	keys.away.Store(true)
	if taken, err := yi.node.IntakeWhole(w.ctx, "jia-yi", d); err != nil || !taken {
		t.Fatalf("taken %v, %v", taken, err)
	}
	yi.passes("delivering", func() error { _, err := yi.node.Work(w.ctx); return err })
	keys.away.Store(false)
	w.clock = w.clock.Add(time.Minute)
	yi.work()
	yi.delivered(id)
}
