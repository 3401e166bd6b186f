package node

import (
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
)

// queues gives what waits for the wire.
func (d *depot) queues() LinkQueues {
	d.Helper()
	b := ok[*Backlog](d)(d.node.Queues(d.ctx, wire))
	if len(b.Links) == 0 {
		return LinkQueues{Queues: make([]Queue, topRank+1)}
	}
	return b.Links[0]
}

// TestQueuesAreCounted: what waits and since when is right while entries come,
// are held back and go, after a restart, and costs no look at each of them.
func TestQueuesAreCounted(t *testing.T) {
	d := newDepot(t)
	d.node.c.Directory = func() *certs.Directory { return new(certs.Directory) }
	want := func(waiting uint64, paused int, oldest time.Duration) {
		t.Helper()
		before := len(d.store.scans)
		q := d.queues()
		if q.Waiting != waiting || q.Paused != paused || q.Known {
			t.Errorf("%d wait, %d of them paused; want %d and %d", q.Waiting, q.Paused, waiting, paused)
		}
		normal := q.Queues[topRank]
		if waiting > 0 && (normal.Rank != "normal" || d.at.Sub(normal.Oldest.Time()) != oldest) {
			t.Errorf("the oldest came %s ago, want %s", d.at.Sub(normal.Oldest.Time()), oldest)
		}
		if scans := len(d.store.scans) - before; scans > 4 {
			t.Errorf("%d scans", scans)
		}
	}
	want(0, 0, 0)
	d.wait(0, 1, 10)
	d.at = d.at.Add(time.Minute)
	d.wait(0, 99, 10)
	want(100, 0, time.Minute)
	d.settle(d.next(1<<20, 1), Damaged)
	want(100, 1, time.Minute)
	d.start()
	d.node.c.Directory = func() *certs.Directory { return new(certs.Directory) }
	want(100, 0, time.Minute)
	d.settle(d.next(1<<20, 1), Taken)
	want(99, 0, 0)
	d.at = d.at.Add(time.Hour)
	d.settle(d.next(1<<20, 50), Taken)
	want(49, 0, time.Hour)
	d.settle(d.next(1<<20, 50), Taken)
	want(0, 0, 0)
}

// TestParkingWalksNoLane: however much waits, a look for dead letters reads the
// front of a lane, and parking reads what it parks.
func TestParkingWalksNoLane(t *testing.T) {
	d := newDepot(t)
	d.node.c.Directory = func() *certs.Directory { return new(certs.Directory) }
	d.wait(0, 100, 10)
	d.at = d.at.Add(time.Hour)
	d.wait(0, 900, 10)
	steps := func() (n int) {
		for d.at = d.at.Add(2 * sweepMost); ; n++ {
			before := len(d.store.scans)
			if did := ok[bool](d)(d.node.park(d.ctx)); !did {
				return n
			}
			if scans := len(d.store.scans) - before; scans > 3 {
				t.Fatalf("%d scans in a step", scans)
			}
		}
	}
	if n := steps(); n != 1 {
		t.Errorf("%d steps while nothing is overdue", n)
	}
	d.at = d.at.Add(DefaultDeadLetterAfter - time.Hour)
	if n := steps(); n != 100/parkStep+1 {
		t.Errorf("%d steps for 100 dead letters", n)
	}
	if q := d.queues(); q.Waiting != 900 || q.Parked != 100 {
		t.Errorf("%d wait, %d are parked", q.Waiting, q.Parked)
	}
}
