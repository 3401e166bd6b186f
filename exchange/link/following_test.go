package link

import (
	"slices"
	"testing"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// TestFollowing: while one bundle is under way the next is made of what is not in it,
// and each is settled by its own answer; when the first is lost, all of it goes again.
func TestFollowing(t *testing.T) {
	for _, lost := range []bool{false, true} {
		w := newWorld(t)
		jia, yi := w.pair()
		w.exchange(jia, yi)
		var ids []string
		for range 3 {
			ids = append(ids, w.submit(jia, "yi", 3<<20)) // two do not fit into one bundle
		}
		first, b := jia.next(Push)
		second, err := jia.Following(w.ctx, first)
		w.must(err)
		if second == nil || !second.HasItems() {
			t.Fatal("nothing follows")
		}
		for _, o := range second.outs {
			if slices.ContainsFunc(first.outs, func(f node.Out) bool { return f.ID == o.ID }) {
				t.Errorf("%s is in both", o.ID)
			}
		}
		if lost {
			jia.Lost(w.ctx, first)
			jia.Lost(w.ctx, second)
		} else {
			yi.receive(b)
			_, reply := yi.next(Reply)
			yi.receive(jia.written(second)) // it left before the first was settled
			jia.receive(reply)
			_, reply = yi.next(Reply)
			jia.receive(reply)
			if q := jia.backlog(); q.Waiting != 1 {
				t.Errorf("%d wait", q.Waiting)
			}
		}
		w.exchange(jia, yi)
		yi.delivered(ids...)
		jia.stands(0, 0)
	}
}

// TestWhatFollowsGivesWay to what is more urgent, and to an operator's hold.
func TestWhatFollowsGivesWay(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	w.exchange(jia, yi)
	for range 3 {
		w.submit(jia, "yi", 3<<20)
	}
	first, _ := jia.next(Push)
	second, err := jia.Following(w.ctx, first)
	w.must(err)
	outdated := func(want bool) {
		t.Helper()
		if got, err := jia.Outdated(w.ctx, second); err != nil || got != want {
			t.Fatalf("outdated: %v, %v", got, err)
		}
	}
	outdated(false)
	w.submit(jia, "yi", 100) // as urgent as what is in it
	outdated(false)
	w.must(jia.node.HoldLink(w.ctx, "jia-yi", nightShift))
	outdated(true)
	w.must(jia.node.ReleaseLink(w.ctx, "jia-yi", nightShift))
	outdated(false)
	s := w.submission(jia, "yi", "", []byte("特急"))
	s.Document.Urgency = exchange.VeryUrgent
	_, err = jia.node.Submit(w.ctx, s)
	w.must(err)
	outdated(true)
	jia.Lost(w.ctx, second)
	again, err := jia.Following(w.ctx, first)
	w.must(err)
	if again == nil || len(again.outs) == 0 || again.outs[0].Size > 1<<20 || again.outs[0].Kind != node.KindHeader {
		t.Fatal("the urgent one does not go first")
	}
}
