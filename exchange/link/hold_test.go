package link

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

var nightShift = node.Who{By: "值班员", Reason: "对端检修"}

// TestAHeldLinkStandsStill: nothing goes out, nothing is taken, acks are; a
// restart changes nothing; released, everything crosses once.
func TestAHeldLinkStandsStill(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	mine, theirs := w.submit(jia, "yi", 100), w.submit(yi, "jia", 100)
	o, under := jia.next(Push) // had left before the hold
	w.must(jia.node.HoldLink(w.ctx, "jia-yi", nightShift))
	for range 2 {
		if o, _ := jia.next(Push); o != nil {
			t.Fatal("a held link gives out items")
		}
		_, answer := yi.next(Answer)
		before, err := jia.node.LinkBooks(w.ctx, "jia-yi")
		w.must(err)
		if _, err := jia.Receive(w.ctx, bytes.NewReader(answer)); !errors.Is(err, ErrHeld) {
			t.Fatalf("items on a held link: %v", err)
		}
		if after, err := jia.node.LinkBooks(w.ctx, "jia-yi"); err != nil || after != before {
			t.Fatal("a held link took something")
		}
		if h, held := jia.node.LinkHold("jia-yi"); !held || h.By != nightShift.By || h.Reason != nightShift.Reason {
			t.Fatalf("held %v: %+v", held, h)
		}
		if o != nil {
			yi.receive(under)
			_, reply := yi.next(Reply)
			if jia.receive(reply).Acks != 1 {
				t.Fatal("what became of items that had left is not heard")
			}
			o = nil
		}
		jia.restart()
	}
	w.must(jia.node.ReleaseLink(w.ctx, "jia-yi", node.Who{By: "值班员"}))
	yi.restart()
	w.exchange(jia, yi)
	yi.delivered(mine)
	jia.delivered(theirs)
}

// TestHoldsAreInTheLedger: each act has a leaf with the SM3 of what it was; one
// that is refused has none.
func TestHoldsAreInTheLedger(t *testing.T) {
	w := newWorld(t)
	jia, _ := w.pair()
	w.must(jia.node.HoldLink(w.ctx, "jia-yi", nightShift))
	w.must(jia.node.HoldLink(w.ctx, "jia-yi", node.Who{By: "值班员", Reason: "第二天"}))
	w.must(jia.node.ReleaseLink(w.ctx, "jia-yi", node.Who{By: "值班员"}))
	for code, err := range map[string]error{
		"none held":     jia.node.ReleaseLink(w.ctx, "jia-yi", nightShift),
		"no such link":  jia.node.HoldLink(w.ctx, "yi-bing", nightShift),
		"no reason":     jia.node.HoldLink(w.ctx, "jia-yi", node.Who{By: "值班员"}),
		"nobody":        jia.node.HoldLink(w.ctx, "jia-yi", node.Who{Reason: "x"}),
		"two lines":     jia.node.HoldLink(w.ctx, "jia-yi", node.Who{By: "x", Reason: "a\nb"}),
		"a long reason": jia.node.HoldLink(w.ctx, "jia-yi", node.Who{By: "x", Reason: strings.Repeat("长", 200)}),
	} {
		if exchange.Known(err) == nil {
			t.Errorf("%s: %v", code, err)
		}
	}
	var events []string
	w.must(jia.store.View(w.ctx, func(tx queue.Tx) error {
		ledger := queue.Ledger{Name: "main"}
		size, err := ledger.Size(tx)
		w.must(err)
		for i := range size {
			b, err := ledger.Leaf(tx, i)
			w.must(err)
			leaf, err := merkle.ParseLeaf(b)
			w.must(err)
			act, err := records.Acts.Get(tx, i)
			w.must(err)
			text, err := strictjson.Marshal(act)
			w.must(err)
			if leaf.Object != sm.Sum(text) || leaf.Event != act.What || leaf.At != act.At || act.Link != "jia-yi" || act.By != "值班员" {
				shown, _ := json.Marshal(act)
				t.Errorf("leaf %d is %+v for %s", i, leaf, shown)
			}
			events = append(events, leaf.Event+" "+act.Reason)
		}
		return nil
	}))
	if got := strings.Join(events, ", "); got != "held 对端检修, held 第二天, released " {
		t.Errorf("the ledger says %s", got)
	}
}
