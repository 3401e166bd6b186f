package link

import (
	"fmt"
	"slices"
	"testing"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// told reads everything behind a position, in small pieces.
func (h *host) told(after node.Position) (list []string, at node.Position) {
	h.w.t.Helper()
	agency := h.w.cast.agencies[h.id]
	for {
		got, upto, err := h.node.Happenings(h.w.ctx, agency, after, 2)
		h.w.must(err)
		for _, g := range got {
			list = append(list, fmt.Sprintf("%s %s %s%s", g.Kind, g.Document, g.Stage, g.Wish))
			parsed, err := node.ParsePosition(g.At.String())
			h.w.must(err)
			if parsed != g.At {
				h.w.t.Fatalf("position %v became %v", g.At, parsed)
			}
			if g.Object.IsZero() || g.Time.IsZero() {
				h.w.t.Errorf("%s %s has no proof or no time", g.Kind, g.Document)
			}
		}
		if upto == after {
			return list, after
		}
		after = upto
	}
}

// TestAnAgencyIsToldWhatHappened, once and in order, to the sender and to the
// recipient, and to nobody else.
func TestAnAgencyIsToldWhatHappened(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 100)
	w.exchange(jia, yi)
	jia.ask(exchange.WishRemind, id)
	jia.work()
	w.exchange(jia, yi)
	yi.signFor(id)
	w.exchange(jia, yi)

	got, at := jia.told(node.Position{})
	if want := []string{"stage " + id + " ACCEPTED", "stage " + id + " DELIVERED", "request " + id + " REMIND", "stage " + id + " SIGNED_FOR"}; !slices.Equal(got, want) {
		t.Errorf("the sender is told %q, want %q", got, want)
	}
	got, _ = yi.told(node.Position{})
	if want := []string{"received " + id + " DELIVERED", "request " + id + " REMIND", "stage " + id + " SIGNED_FOR"}; !slices.Equal(got, want) {
		t.Errorf("the recipient is told %q, want %q", got, want)
	}
	newest, err := jia.node.Newest(w.ctx)
	w.must(err)
	if at != newest {
		t.Errorf("it ends at %v, the newest is %v", at, newest)
	}
	second := w.submit(yi, "jia", 100)
	w.exchange(jia, yi)
	if got, _ := jia.told(at); !slices.Equal(got, []string{"received " + second + " DELIVERED"}) {
		t.Errorf("afterwards it is told %q", got)
	}
	other, _, err := jia.node.Happenings(w.ctx, w.cast.agencies["bing"], node.Position{}, 100)
	w.must(err)
	if len(other) > 0 {
		t.Errorf("another agency is told %v", other)
	}
}

// TestAPositionOutlivesALostDisk: what came after the copy happens again on the new
// ledger, and who stood there is told all of it.
func TestAPositionOutlivesALostDisk(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	first := w.submit(jia, "yi", 100)
	w.exchange(jia, yi)
	backup := yi.store.clone()
	_, old := yi.told(node.Position{})
	second, third := w.submit(jia, "yi", 100), w.submit(jia, "yi", 100)
	w.exchange(jia, yi)
	_, late := yi.told(node.Position{})

	yi = w.afterDiskLoss(yi, backup)
	w.replayed(jia, yi)
	for name, from := range map[string]node.Position{"the copy": old, "the lost ledger": late} {
		got, _ := yi.told(from)
		want := []string{"received " + second + " DELIVERED", "received " + third + " DELIVERED"}
		slices.Sort(got)
		if slices.Sort(want); !slices.Equal(got, want) {
			t.Errorf("from %s: %q, want %q", name, got, want)
		}
	}
	got, _ := yi.told(node.Position{})
	if len(got) != 3 || got[0] != "received "+first+" DELIVERED" {
		t.Errorf("from the beginning: %q", got)
	}
	if strange, _ := yi.told(node.Position{Ledger: "01M00000000000000000000000", Seq: 1 << 40}); len(strange) != 3 {
		t.Errorf("from a ledger that is not known: %q", strange)
	}
}

// TestWhoReadsThePastIsToldTheSame: however far it lies behind what others read.
func TestWhoReadsThePastIsToldTheSame(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	var want []string
	for range 30 {
		want = append(want, "received "+w.submit(jia, "yi", 10)+" DELIVERED")
	}
	w.exchange(jia, yi)
	newest, err := yi.node.Newest(w.ctx)
	w.must(err)
	if got, _ := yi.told(newest); len(got) > 0 {
		t.Fatalf("behind the newest: %q", got)
	}
	for range 2 {
		got, _ := yi.told(node.Position{})
		slices.Sort(got)
		if slices.Sort(want); !slices.Equal(got, want) {
			t.Errorf("%d are told, want %d", len(got), len(want))
		}
	}
	for _, bad := range []string{"x", "01K-", "-1", "01K-99999999999999999999", "012345678901234567890123456-1"} {
		if p, err := node.ParsePosition(bad); err == nil && bad != "-1" {
			t.Errorf("%q was read as %v", bad, p)
		}
	}
}
