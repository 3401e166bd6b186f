package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/queue"
	"github.com/yizhan-gateway/yizhan/queue/badgerstore"
	"github.com/yizhan-gateway/yizhan/queue/blob"
)

// depot is a node of which only the lanes of one link are used. Its store
// notes where scans begin.
type depot struct {
	*testing.T
	ctx   context.Context
	at    time.Time
	store *watched
	blobs *blob.Store
	node  *Node
	made  int
}

type watched struct {
	queue.Store
	scans [][]byte
}

func (w *watched) View(ctx context.Context, fn func(queue.Tx) error) error {
	return w.Store.View(ctx, func(tx queue.Tx) error { return fn(watchedTx{tx, w}) })
}

type watchedTx struct {
	queue.Tx
	w *watched
}

func (t watchedTx) Scan(lo, hi []byte, limit int) iter.Seq2[queue.KV, error] {
	t.w.scans = append(t.w.scans, bytes.Clone(lo))
	return t.Tx.Scan(lo, hi, limit)
}

const wire = "jia-yi"

func newDepot(t *testing.T) *depot {
	dir := t.TempDir()
	store := ok[*badgerstore.Store](t)(badgerstore.Open(filepath.Join(dir, "store"), badgerstore.Options{}))
	t.Cleanup(func() { store.Close() })
	d := &depot{
		T: t, ctx: context.Background(), at: time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC), store: &watched{Store: queue.Checked(store)},
		blobs: ok[*blob.Store](t)(blob.Open(durable.OS, filepath.Join(dir, "blobs"))),
	}
	d.start()
	return d
}

// start is a start of the process.
func (d *depot) start() {
	d.node = ok[*Node](d)(New(d.ctx, Config{
		ID: "jia", Store: d.store, Blobs: d.blobs, Now: func() time.Time { return d.at }, Rand: rand.NewChaCha8([32]byte{7}),
	}))
}

// wait lets documents wait in a lane, each with one part of a size as all that
// is left to send.
func (d *depot) wait(rank, count int, size int64) {
	d.Helper()
	for range count {
		d.made++
		hh := sm.Sum(fmt.Appendf(nil, "%d", d.made))
		err := d.store.Update(d.ctx, func(tx queue.Tx) error {
			err := records.Envelopes.Insert(tx, &records.Envelope{Size: size, Parts: 1}, hh)
			if err == nil {
				digests := records.PartDigests{Digests: hh[:]}
				err = records.Digests.Insert(tx, &digests, hh)
			}
			if err == nil {
				err = d.node.enqueue(tx, wire, rank, laneEntry{Kind: KindHeader, Envelope: hh, Object: hh})
			}
			if err != nil {
				return err
			}
			out := &records.Outbound{Header: true, Slots: true, Parts: []byte{0}, Count: 1, State: records.StateQueued, Lane: laneName(wire, rank)}
			if out.Seq, err = queue.Last(tx, out.Lane); err != nil {
				return err
			}
			return records.Outgoing.Insert(tx, out, hh, wire, hh)
		})
		if err != nil {
			d.Fatal(err)
		}
	}
}

func (d *depot) next(maxBytes int64, maxItems int) []Out {
	d.Helper()
	return ok[[]Out](d)(d.node.Outgoing(d.ctx, wire, maxBytes, maxItems))
}

func (d *depot) settle(outs []Out, status string) {
	d.Helper()
	outcomes := make([]Outcome, len(outs))
	for i := range outcomes {
		outcomes[i].Status = status
	}
	if err := d.node.Settle(d.ctx, wire, outs, outcomes); err != nil {
		d.Fatal(err)
	}
}

// loads gives items and bytes by rank, and checks that the most urgent leave
// first.
func (d *depot) loads(outs []Out) (items [topRank + 1]int, size [topRank + 1]int64) {
	d.Helper()
	last := topRank
	for _, o := range outs {
		rank := int(o.lane[len(o.lane)-1] - '0')
		if rank > last {
			d.Fatalf("rank %d leaves behind rank %d", rank, last)
		}
		last = rank
		items[rank]++
		size[rank] += o.Size
	}
	return items, size
}

// TestAFloodStarvesNobody: while more 特急 comes than fits, every bundle has
// some, and a tenth of it is for each rank below.
func TestAFloodStarvesNobody(t *testing.T) {
	d := newDepot(t)
	const room = 1 << 20
	d.wait(0, 30, room/50)
	d.wait(1, 30, room/50)
	for i := range 6 {
		d.wait(2, 20-i%2, room/15)
		outs := d.next(room, 1000)
		items, size := d.loads(outs)
		if items[2] == 0 || items[1] < 5 || items[0] < 5 {
			t.Fatalf("bundle %d has %v items by rank", i, items)
		}
		if sum := size[0] + size[1] + size[2]; sum > room || sum < room*8/10 {
			t.Fatalf("bundle %d has %d bytes of %d", i, sum, room)
		}
		d.settle(outs, Taken)
	}
}

// TestItemsAreSharedToo: when items are what a bundle runs out of.
func TestItemsAreSharedToo(t *testing.T) {
	d := newDepot(t)
	for rank := range topRank + 1 {
		d.wait(rank, 60, 100)
	}
	items, _ := d.loads(d.next(1<<20, 40))
	if items != [topRank + 1]int{4, 4, 4, 4, 24} {
		t.Fatalf("40 items are shared as %v", items)
	}
}

// TestALargeItemComesWithinTenBundles: an item larger than all that a rank may
// save up goes nevertheless, whatever waits above it, and the bundle stays
// bounded.
func TestALargeItemComesWithinTenBundles(t *testing.T) {
	d := newDepot(t)
	const room, large = 1 << 20, 8 << 20
	for rank := range topRank {
		d.wait(rank, 4, large)
	}
	var late [topRank]int
	for i := range 30 {
		d.wait(topRank, 12, room/10)
		outs := d.next(room, 1000)
		items, size := d.loads(outs)
		if items[topRank] < 5 {
			t.Fatalf("bundle %d has %d of the most urgent", i, items[topRank])
		}
		if sum := size[0] + size[1] + size[2] + size[3] + size[4]; sum > room+large {
			t.Fatalf("bundle %d has %d bytes", i, sum)
		}
		for rank := range topRank {
			if late[rank]++; items[rank] > 0 {
				late[rank] = 0
			}
			if late[rank] >= 10 {
				t.Fatalf("ten bundles without any of rank %d, up to bundle %d", rank, i)
			}
		}
		d.settle(outs, Taken)
	}
}

// TestAShareIsATenthInTheEnd: what does not fit the share of one bundle is
// saved up for.
func TestAShareIsATenthInTheEnd(t *testing.T) {
	d := newDepot(t)
	const room, size = 1 << 20, 1 << 18 // two and a half shares
	d.wait(0, 20, size)
	var low, all int64
	for range 40 {
		d.wait(2, 9, room/8)
		outs := d.next(room, 1000)
		_, by := d.loads(outs)
		low, all = low+by[0], all+by[0]+by[2]
		d.settle(outs, Taken)
	}
	if low < all*9/100 || low > all*12/100 {
		t.Fatalf("平件 had %d of %d bytes", low, all)
	}
}

// TestAVeryUrgentWaitsForNoBundle: however much of the rest waits, and for how
// long, what comes now is in the next bundle.
func TestAVeryUrgentWaitsForNoBundle(t *testing.T) {
	d := newDepot(t)
	d.wait(0, 3, 8<<20)
	d.wait(1, 40, 1<<18)
	for range 12 {
		d.settle(d.next(1<<20, 100), "")
	}
	d.wait(2, 1, 8<<20)
	outs := d.next(1<<20, 100)
	if items, _ := d.loads(outs); items[2] != 1 {
		t.Fatalf("the next bundle has %v", items)
	}
}

// TestTheSameLanesGiveTheSameBundles: what goes next is decided by nothing but
// lanes and turns.
func TestTheSameLanesGiveTheSameBundles(t *testing.T) {
	run := func() (ids []string) {
		d := newDepot(t)
		for rank := range topRank + 1 {
			d.wait(rank, 15, int64(1+rank)*40_000)
		}
		for range 8 {
			outs := d.next(300_000, 9)
			for _, o := range outs {
				ids = append(ids, o.ID)
			}
			d.settle(outs, Taken)
		}
		return ids
	}
	if a, b := run(), run(); !reflect.DeepEqual(a, b) {
		t.Fatalf("%v\n%v", a, b)
	}
}

// TestAnUnreadableHeaderStopsNothingElse: an entry whose stored header is gone
// is held back and shown; what waits beside it goes.
func TestAnUnreadableHeaderStopsNothingElse(t *testing.T) {
	d := newDepot(t)
	d.wait(0, 1, 1000)
	hh := sm.Sum([]byte("1"))
	err := d.store.Update(d.ctx, func(tx queue.Tx) error {
		env, err := records.Envelopes.Lock(tx, hh)
		if err != nil {
			return err
		}
		env.Header = records.Body{Ref: "gone", Size: 3000}
		if err := records.Envelopes.Put(tx, env, hh); err != nil {
			return err
		}
		out, err := records.Outgoing.Lock(tx, hh, wire, hh)
		if err != nil {
			return err
		}
		out.Header = false
		return records.Outgoing.Put(tx, out, hh, wire, hh)
	})
	if err != nil {
		t.Fatal(err)
	}
	d.wait(0, 1, 1000)
	d.wait(2, 1, 1000)
	for range 10 {
		d.at = d.at.Add(30 * time.Second)
		if items, _ := d.loads(d.next(1<<20, 100)); items[0] != 1 || items[2] != 1 {
			t.Fatalf("beside an unreadable header go %v", items)
		}
	}
	shown := ok[[]records.Quarantined](t)(d.node.Quarantined(d.ctx, 10))
	if len(shown) != 1 {
		t.Fatalf("%d records of one unreadable header", len(shown))
	}
	d.start()
	d.next(1<<20, 100)
	if shown := ok[[]records.Quarantined](t)(d.node.Quarantined(d.ctx, 10)); len(shown) != 2 {
		t.Fatalf("%d records after a restart", len(shown))
	}
}

// begins gives the sequences at which scans of a lane began since the last
// call.
func (d *depot) begins(lane string) (out []uint64) {
	prefix := queue.Key("lane", lane)
	for _, lo := range d.store.scans {
		if bytes.HasPrefix(lo, prefix) {
			out = append(out, binary.BigEndian.Uint64(lo[len(prefix):]))
		}
	}
	d.store.scans = nil
	return out
}

// TestTombstonesAreNotScannedAgain: neither behind an entry that is stuck, nor
// in an empty lane, nor after a restart.
func TestTombstonesAreNotScannedAgain(t *testing.T) {
	d := newDepot(t)
	lane := laneName(wire, 0)
	d.wait(0, 100, 1000)
	outs := d.next(1<<20, 10)
	d.settle(outs[:1], Damaged)
	d.settle(outs[1:], Taken)
	for range 9 {
		d.settle(d.next(1<<20, 10), Taken)
	}
	d.begins(lane)
	check := func(what string, least uint64) {
		t.Helper()
		for _, seq := range d.begins(lane) {
			if seq < least && seq != 1 {
				t.Fatalf("%s: a scan begins at %d, want %d or later", what, seq, least)
			}
		}
	}
	d.next(1<<20, 10)
	d.begins(lane)
	d.next(1<<20, 10)
	for _, seq := range d.begins(lane) {
		if seq <= 91 {
			t.Fatalf("behind a stuck entry a scan begins at %d", seq)
		}
	}

	d.start()
	d.at = d.at.Add(time.Hour)
	outs = d.next(1<<20, 10)
	if outs[0].seq != 1 {
		t.Fatalf("the stuck entry is forgotten: the first is %d", outs[0].seq)
	}
	check("after a restart", 91-saveEvery-10)
	for len(outs) > 0 {
		d.settle(outs, Taken)
		outs = d.next(1<<20, 10)
	}
	d.begins(lane)
	d.next(1<<20, 10)
	if got := d.begins(lane); len(got) != 1 || got[0] != 101 {
		t.Fatalf("an empty lane is scanned from %v", got)
	}
}

// TestEverythingArrivesThroughRestarts: whatever is damaged, and whenever the
// process starts again, no entry is lost from a lane and none comes back.
func TestEverythingArrivesThroughRestarts(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { throughRestarts(t, rand.New(rand.NewPCG(seed, 2))) })
	}
}

func throughRestarts(t *testing.T, rng *rand.Rand) {
	d := newDepot(t)
	taken := map[string]bool{}
	for i := 0; i < 400 && (i < 40 || len(taken) < d.made); i++ {
		if i < 40 {
			d.wait(rng.IntN(topRank), 1+rng.IntN(6), 1000)
		}
		d.at = d.at.Add(time.Duration(rng.IntN(20)) * time.Second)
		outs := d.next(1<<20, 1+rng.IntN(12))
		for _, o := range outs {
			status := []string{Taken, Taken, Damaged, ""}[rng.IntN(4)]
			if status == Taken {
				if taken[o.ID] {
					t.Fatalf("%s is sent again", o.ID)
				}
				taken[o.ID] = true
			}
			d.settle([]Out{o}, status)
		}
		if rng.IntN(6) == 0 {
			d.start()
		}
	}
	if len(taken) != d.made {
		t.Fatalf("%d of %d arrived", len(taken), d.made)
	}
}

// TestHeldEntriesAreBounded: a lane with more trouble than is held one by one
// waits as a whole, and what leaves a lane is forgotten.
func TestHeldEntriesAreBounded(t *testing.T) {
	var c laneCursors
	c.init(rand.NewChaCha8([32]byte{1}))
	now := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	for seq := uint64(1); seq <= 3*maxHeld; seq++ {
		c.failed("lane", seq, now, errors.New("damaged"))
	}
	l := c.lanes["lane"]
	if len(l.held) != maxHeld || !c.resting("lane", now) || c.ready("lane", 5*maxHeld, now) {
		t.Fatalf("%d are held, resting %v", len(l.held), c.resting("lane", now))
	}
	c.succeeded("lane", 4*maxHeld)
	if c.resting("lane", now) {
		t.Fatal("a lane rests although something of it arrived")
	}

	d := newDepot(t)
	d.wait(0, 50, 1000)
	d.settle(d.next(1<<20, 100), Damaged)
	if got := d.next(1<<20, 100); len(got) != 0 {
		t.Fatalf("%d entries come back at once", len(got))
	}
	d.at = d.at.Add(time.Minute)
	d.settle(d.next(1<<20, 100), Taken)
	d.next(1<<20, 100)
	if l := d.node.lanes.lanes[laneName(wire, 0)]; len(l.held) != 0 {
		t.Fatalf("%d entries are held that are gone", len(l.held))
	}
}

// TestPausesAreSpread: what fails at one moment comes back at many, later and
// later up to a bound, and at once after a success.
func TestPausesAreSpread(t *testing.T) {
	now := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	random := rand.NewChaCha8([32]byte{3})
	rs := make([]retry, 500)
	for round := range 12 {
		bound := min(firstBound<<round, lastBound)
		at := map[time.Duration]int{}
		for i := range rs {
			rs[i] = rs[i].next(now, nil, random)
			after := rs[i].until.Sub(now)
			if after < bound/2 || after > bound {
				t.Fatalf("after %d failures a pause of %v, want up to %v", round+1, after, bound)
			}
			at[after/(bound/20)]++
		}
		for _, n := range at {
			if n > len(rs)/5 {
				t.Fatalf("after %d failures %d of %d come back together", round+1, n, len(rs))
			}
		}
	}
	if r := (retry{bound: lastBound}).next(now, keystore.ErrUnavailable, random); r.bound != hsmBound {
		t.Fatalf("an HSM is asked again only after %v", r.bound)
	}
	var c laneCursors
	c.init(random)
	for range 9 {
		c.failed("lane", 1, now, nil)
	}
	c.succeeded("lane", 1)
	if c.failed("lane", 1, now, nil); c.lanes["lane"].held[1].bound != firstBound {
		t.Fatal("a success does not end the growth of pauses")
	}
	same := func() time.Time {
		var c laneCursors
		c.init(rand.NewChaCha8([32]byte{9}))
		c.failed("lane", 1, now, nil)
		return c.lanes["lane"].held[1].until
	}
	if !same().Equal(same()) {
		t.Fatal("pauses are not drawn from the node's randomness")
	}
}

// TestFreshNamesTheLinks: after a commit that lets something wait for a link,
// and only then, the link is named, once.
func TestFreshNamesTheLinks(t *testing.T) {
	d := newDepot(t)
	put := func(fail error, links ...string) {
		t.Helper()
		err := d.node.update(d.ctx, func(tx queue.Tx) error {
			for _, link := range links {
				if err := d.node.enqueue(tx, link, 0, laneEntry{Kind: KindReceipt}); err != nil {
					return err
				}
			}
			return fail
		})
		if !errors.Is(err, fail) {
			t.Fatal(err)
		}
	}
	put(nil, "b", "a", "b")
	put(errors.New("no"), "c")
	put(nil)
	if got := d.node.Fresh(); !reflect.DeepEqual(got, []string{"a", "b"}) {
		t.Fatalf("fresh are %v", got)
	}
	if got := d.node.Fresh(); len(got) != 0 {
		t.Fatalf("fresh again are %v", got)
	}
}

// TestNobodyWaitsForADayThatIsGone: what was held back under a clock that ran ahead
// is tried again once the clock is put back.
func TestNobodyWaitsForADayThatIsGone(t *testing.T) {
	d := newDepot(t)
	d.wait(0, 1, 100)
	right := d.at
	d.at = right.Add(240 * time.Hour)
	outs := d.next(1<<20, 100)
	d.settle(outs, Damaged)
	if outs := d.next(1<<20, 100); len(outs) > 0 {
		t.Fatal("what was damaged goes again at once")
	}
	d.at = right
	if outs := d.next(1<<20, 100); len(outs) == 0 {
		t.Error("it waits for the day that the clock had shown")
	}
}
