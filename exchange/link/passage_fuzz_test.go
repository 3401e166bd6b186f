package link

import (
	"errors"
	"testing"

	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// FuzzPassage: whatever a neighbour's note says, a bundle is settled only when the
// note names it, in our epoch; everything else is a link fault or changes nothing.
func FuzzPassage(f *testing.F) {
	w := newWorld(f)
	jia := w.bank("jia")
	w.submit(jia.host, "yi", 100)
	jia.export()
	whole := jia.store.clone()
	epoch := jia.ferry.s.epoch
	for _, p := range []Passage{
		{Round: 1, From: 1, Heard: 1, Epoch: epoch, Ranges: []Range{}, Lacks: []Lack{}},
		{Round: 2, From: 3, Last: 2, Heard: 1, Epoch: epoch, UpTo: 1, Ranges: []Range{}, Lacks: []Lack{}},
		{Round: 2, Heard: 9, Epoch: epoch, Ranges: []Range{{From: 1, To: 1}}, Lacks: []Lack{{Seq: 1, Items: []AckItem{{Status: "taken"}, {Status: "damaged"}, {Status: "refused"}}}}},
		{Round: 1 << 50, From: 1 << 50, Epoch: epoch, UpTo: 1 << 50, Ranges: []Range{{From: 9, To: 3}}, Lacks: []Lack{}},
	} {
		b, err := strictjson.Marshal(&p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Passage
		if strictjson.Unmarshal(b, &p) != nil {
			return
		}
		mine := *w
		mine.t = t
		at := &bank{host: mine.host("jia", "jia-yi", whole.clone(), jia.blobs), kept: shed{}}
		at.board()
		err := at.ferry.hear(w.ctx, "00000000000000010123456789abcdef", &p, new(Imported))
		if err != nil && !errors.Is(err, ErrFault) {
			t.Fatal(err)
		}
		settled := at.outstanding() == 0
		if settled && (p.Epoch != epoch || !p.has(1)) {
			t.Fatalf("%s settles a bundle that it does not name", b)
		}
		q := at.backlog()
		if !settled && q.Waiting != 1 {
			t.Fatalf("%d wait", q.Waiting)
		}
		if r, err := at.node.Check(w.ctx, node.CheckOptions{Still: true}); err != nil || !r.OK {
			t.Fatalf("%+v, %v", r, err)
		}
	})
}
