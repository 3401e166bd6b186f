package link

import (
	"testing"

	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// TestIntakeInAnyOrder: the documents of a bundle do not need one another's
// outcome. Handed over in any order, each answer stands beside its own item,
// and every document is delivered.
func TestIntakeInAnyOrder(t *testing.T) {
	orders := []struct {
		name  string
		order func(n int, do func(int))
	}{
		{"backwards", func(n int, do func(int)) {
			for i := n - 1; i >= 0; i-- {
				do(i)
			}
		}},
		{"from the middle", func(n int, do func(int)) {
			for i := range n {
				do((i + n/2) % n)
			}
		}},
	}
	for _, o := range orders {
		t.Run(o.name, func(t *testing.T) {
			w := newWorld(t)
			most := 0
			w.together = func(n int, do func(int)) {
				most = max(most, n)
				o.order(n, do)
			}
			jia, yi := w.pair()
			var ids []string
			for _, size := range []int{1, 100, 3 << 20, 50_000, smallPart + 1, 7} {
				ids = append(ids, w.submit(jia, "yi", size))
			}
			sent, b := jia.next(Push)
			yi.receive(b)
			for i, got := range yi.outcomes() {
				if got != node.Taken {
					t.Errorf("item %d (%s) of %d: %s", i, sent.outs[i].Kind, len(sent.outs), got)
				}
			}
			if most < 2 {
				t.Errorf("%d documents at most were handed over together", most)
			}
			_, reply := yi.next(Reply)
			jia.receive(reply)
			w.exchange(jia, yi)
			yi.delivered(ids...)
		})
	}
}
