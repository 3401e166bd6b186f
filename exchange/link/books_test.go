package link

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/exchange/records"
)

// books gives how the link of a host stands; its books must balance, and a check of
// the store must agree.
func (h *host) books() node.LinkState {
	h.w.t.Helper()
	list, err := h.node.LinkStates(h.w.ctx, h.link)
	h.w.must(err)
	if len(list) != 1 {
		h.w.t.Fatalf("%d links", len(list))
	}
	s := list[0]
	if !s.Balanced || s.Arrived != s.Accepted+s.Duplicate+s.Refused+s.Deferred+s.Damaged || s.Exported != s.Acked+s.Outstanding+s.Ended {
		h.w.t.Fatalf("%s: the books do not balance: %+v", h.id, s)
	}
	if r := h.check(); !r.OK {
		h.w.t.Fatalf("%s: %+v", h.id, r.Problems)
	}
	return s
}

func (h *host) counts(exported, acked, outstanding, ended uint64) {
	h.w.t.Helper()
	if s := h.books(); s.Exported != exported || s.Acked != acked || s.Outstanding != outstanding || s.Ended != ended {
		h.w.t.Fatalf("%s: %d exported, %d acked, %d outstanding, %d ended; want %d, %d, %d, %d", h.id, s.Exported, s.Acked, s.Outstanding, s.Ended, exported, acked, outstanding, ended)
	}
}

// TestOutgoingBooks: each thing counts once, whatever happens on its way: it waits,
// leaves twice, is acknowledged twice, is parked, requeued and given up, and given
// again to a neighbour that lost its disk.
func TestOutgoingBooks(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	jia.counts(0, 0, 0, 0)
	w.submit(jia, "yi", 100)
	w.submit(jia, "yi", 9<<20)
	jia.counts(2, 0, 2, 0)
	if s := jia.books(); s.OldestOutstanding.Time().Sub(w.clock).Abs() > time.Second || s.Neighbour != "yi" || s.Kind != "https" || s.Zone == "" {
		t.Fatalf("%+v", s)
	}
	_, b := jia.next(Push)
	yi.receive(b)
	_, reply := yi.next(Reply)
	jia.receive(reply)
	jia.receive(reply) // an ack that comes twice
	yi.work()
	_, answer := yi.next(Answer)
	jia.receive(answer)
	_, poll := jia.next(Poll)
	yi.receive(poll)
	yi.receive(poll)
	yi.books()
	w.exchange(jia, yi)
	jia.counts(2, 2, 0, 0)
	yi.counts(2, 2, 0, 0) // DELIVERED, twice
	jia.restart()
	jia.counts(2, 2, 0, 0)

	backup := yi.store.clone()
	w.submit(jia, "yi", 100)
	w.exchange(jia, yi)
	jia.counts(3, 3, 0, 0)
	yi = w.afterDiskLoss(yi, backup)
	yi.counts(2, 2, 0, 0)
	w.replayed(jia, yi)
	if s := jia.books(); s.Exported <= 3 || s.Outstanding != 0 || s.Ended != 0 {
		t.Fatalf("what was given again: %+v", s)
	}

	before := jia.books()
	w.submit(jia, "yi", 100)
	w.clock = w.clock.Add(node.DefaultDeadLetterAfter + time.Minute)
	jia.work()
	jia.stands(0, 1)
	jia.counts(before.Exported+1, before.Acked, 1, 0)
	jia.requeue(node.Pick{Link: "jia-yi"}, 1)
	jia.counts(before.Exported+1, before.Acked, 1, 0)
	w.clock = w.clock.Add(node.DefaultDeadLetterAfter + time.Minute)
	jia.work()
	q, err := jia.node.QueueItems(w.ctx, "jia-yi", false, 10)
	w.must(err)
	p, err := node.PickOf(q[0].ID)
	w.must(err)
	w.must(jia.node.GiveUp(w.ctx, p, nightShift))
	jia.counts(before.Exported+1, before.Acked, 0, 1)
}

// TestRefusedItemsEnd: what the neighbour refuses for good has ended.
func TestRefusedItemsEnd(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	w.submit(jia, "yi", 100)
	o, b := jia.next(Push)
	yi.receive(b)
	refused := make([]node.Outcome, len(o.outs))
	for i := range refused {
		refused[i] = node.Outcome{Status: node.Refused, Reason: "over_label"}
	}
	w.must(jia.node.Settle(w.ctx, "jia-yi", o.outs, refused))
	jia.counts(1, 0, 0, 1)
	w.must(jia.node.Settle(w.ctx, "jia-yi", o.outs, refused))
	jia.counts(1, 0, 0, 1)
}

// TestBooksOverABadCarrier: files are lost, doubled, cut and mixed, processes end;
// the books balance at every step, and at the end nothing is outstanding.
func TestBooksOverABadCarrier(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t)
			jia, yi := w.bank("jia"), w.bank("yi")
			there := &carrier{rng: rand.New(rand.NewPCG(seed, 1)), lose: 30, double: 10, truncate: 10, mix: 20, flip: 3}
			jia.limit.FileBytes = 20_000
			for range 12 {
				w.submit(jia.host, "yi", 1+there.rng.IntN(9000))
			}
			for range 5 {
				w.clock = w.clock.Add(time.Hour)
				jia.export()
				jia.tallied()
				there.carry(jia, yi)
				yi.tallied()
				jia.board()
				yi.board()
				yi.exportAnyhow(true)
				there.carry(yi, jia)
				jia.tallied()
			}
			w.ferried(there, there, jia, yi, 80)
			jia.tallied()
			jia.counts(12, 12, 0, 0)
			yi.tallied()
		})
	}
}

// tallied compares the counts of what is under way with the bundles that are there.
func (b *bank) tallied() {
	b.w.t.Helper()
	var want records.UnderWay
	list, err := b.ferry.outstanding(b.w.ctx, func(*records.FerryBundle) bool { return true })
	b.w.must(err)
	for _, one := range list {
		want.Bundles++
		want.Bytes += one.Row.Size
		if one.Row.Lost {
			want.Lost++
		}
	}
	f := b.books().Ferry
	if f.Bundles != want.Bundles || f.Bytes != want.Bytes || f.Lost != want.Lost || (f.Oldest == 0) != (f.Bundles == 0) {
		b.w.t.Fatalf("%s: %+v, want %+v", b.id, f, want)
	}
}

// TestGapsOfAFerry: bundles that are missing behind those that came are named until
// they come.
func TestGapsOfAFerry(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.bank("jia"), w.bank("yi")
	jia.limit.FileBytes = 1
	for range 4 {
		w.submit(jia.host, "yi", 100)
		jia.export()
	}
	files := jia.out
	jia.out = nil
	yi.load(files[0])
	yi.load(files[3])
	if s := yi.books(); fmt.Sprint(s.Gaps) != "[{2 3}]" || s.Ferry.Heard == 0 {
		t.Fatalf("%+v", s)
	}
	yi.load(files[2])
	if s := yi.books(); fmt.Sprint(s.Gaps) != "[{2 2}]" {
		t.Fatalf("%+v", s.Gaps)
	}
	yi.load(files[1])
	if s := yi.books(); len(s.Gaps) != 0 {
		t.Fatalf("%+v", s.Gaps)
	}
}

// TestBooksOfAnEarlierVersion: what stands in lanes that were filled before there
// were books is in them from the next start on.
func TestBooksOfAnEarlierVersion(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	w.submit(jia, "yi", 100)
	w.submit(jia, "yi", 100)
	delete(jia.store.rows, string(records.OutBooks.Key("jia-yi")))
	jia.restart()
	jia.counts(2, 0, 2, 0)
	w.exchange(jia, yi)
	jia.counts(2, 2, 0, 0)
}

// TestDamagedBooksStopNothing: documents go on, and it is shown.
func TestDamagedBooksStopNothing(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	first := w.submit(jia, "yi", 100)
	jia.store.rows[string(records.OutBooks.Key("jia-yi"))] = []byte("{")
	jia.store.rows[string(records.BookRows.Key("jia-yi"))] = []byte("{")
	second := w.submit(jia, "yi", 100)
	w.exchange(jia, yi)
	yi.delivered(first, second)
	list, err := jia.node.LinkStates(w.ctx, "jia-yi")
	w.must(err)
	if s := list[0]; s.Balanced || !s.Unreadable {
		t.Fatalf("%+v", s)
	}
	if r := jia.check(); r.OK || !strings.Contains(fmt.Sprint(kinds(r)), "obk jia-yi unreadable") || !strings.Contains(fmt.Sprint(kinds(r)), "bok jia-yi unreadable") {
		t.Fatalf("%+v", r.Problems)
	}
}
