package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// A delivery that is not made by the time the header names ends with EXPIRED,
// signed by whoever answers for it then:
//
//   - what surely never left this node is taken out of its lane, or out of the
//     dead letters, and ends here;
//   - what may have left goes on as if nothing were: whoever has it, or gets it,
//     ends it instead of delivering it or passing it on (Node.direct);
//   - what may have been here before this node was restored goes on, too, and is
//     delivered whatever the hour: it may have been delivered in time;
//   - what was delivered never expires.
//
// An index by time is written with each envelope. A walk takes what is due from
// its front, one document after the other; the entry goes last, so that a crash
// lets the walk do it again, and nothing is signed twice.

// expiryMost is the time between two walks over what is due.
const expiryMost = time.Minute

// expirySweep is a walk over what is due.
type expirySweep struct {
	mu    sync.Mutex
	next  retry
	after *dueEntry // the last one met; nil at the beginning
}

type dueEntry struct {
	at uint64
	hh sm.Digest
}

// expire does one step: it ends what is left of one document whose time has
// come. One that cannot be ended now ends the walk, and is met again by the next.
func (n *Node) expire(ctx context.Context) (did bool, err error) {
	n.expiries.mu.Lock()
	defer n.expiries.mu.Unlock()
	now := n.c.Now()
	if !n.expiries.next.over(now) {
		return false, nil
	}
	due, err := n.nextDue(ctx, n.expiries.after, now)
	if err != nil {
		return false, err
	}
	n.expiries.after = due
	if due == nil {
		n.expiries.next = pauseOf(now, expiryMost, 0)
		return false, nil
	}
	if err := n.expireOne(ctx, *due); err != nil {
		n.expiries.after, n.expiries.next = nil, pauseOf(now, expiryMost, 0)
		return false, err
	}
	return true, nil
}

func (n *Node) nextDue(ctx context.Context, after *dueEntry, now time.Time) (due *dueEntry, err error) {
	visit := func(key []byte, at *records.Expiry) bool {
		if !now.Before(at.At.Time()) {
			due = &dueEntry{at: uint64(at.At), hh: lastDigest(key)}
		}
		return false
	}
	err = n.view(ctx, func(tx queue.Tx) error {
		due = nil
		if after == nil {
			return records.Expiries.Each(tx, 1, visit)
		}
		return records.Expiries.EachBehind(tx, 1, visit, nil, after.at, after.hh)
	})
	return due, err
}

// expireOne ends what is left of a document here.
func (n *Node) expireOne(ctx context.Context, due dueEntry) error {
	picks, busy, err := n.unfinished(ctx, due.hh, reasonExpired, nil)
	if busy || err != nil {
		return err
	}
	if err := n.endAll(ctx, picks, ending{stage: exchange.StageExpired, state: records.StateExpired}); err != nil {
		return err
	}
	return n.update(ctx, func(tx queue.Tx) error { return records.Expiries.Delete(tx, due.at, due.hh) })
}

// endAll ends parked ones, but for what the neighbour may have and what somebody
// else ended or requeued meanwhile.
func (n *Node) endAll(ctx context.Context, picks []Pick, how ending) error {
	for _, p := range picks {
		err := n.endParked(ctx, p, how)
		if code := exchange.CodeOf(err); err != nil && code != exchange.CodeFateUnknown && code != exchange.CodeNotFound {
			return err
		}
	}
	return nil
}

// unfinished takes what a node still answers for of a document, and what surely
// never left it, out of its lanes, and says where it is parked now; only what is
// wanted, with nil all. busy: it is being distributed at the moment.
func (n *Node) unfinished(ctx context.Context, hh sm.Digest, reason string, want func(*records.Outbound) bool) (picks []Pick, busy bool, err error) {
	var waiting []place
	err = n.view(ctx, func(tx queue.Tx) error {
		picks, waiting, busy = nil, nil, false
		err := records.Fans.Each(tx, 0, func(_ []byte, f *records.Fan) bool {
			busy = f.Work != 0
			return !busy
		}, hh)
		if busy || err != nil {
			return err
		}
		return records.Outgoing.Each(tx, 0, func(_ []byte, out *records.Outbound) bool {
			switch {
			case want != nil && !want(out):
			case out.State == records.StateParked:
				picks = append(picks, pickOf(out))
			case out.State == records.StateQueued, out.State == records.StateGuarded:
				waiting = append(waiting, place{out.Lane, out.Seq})
			}
			return true
		}, hh)
	})
	if len(waiting) > 0 && err == nil {
		var ours bool
		if ours, err = n.certainlyOurs(ctx, hh); !ours {
			return picks, busy, err
		}
	}
	for _, at := range waiting {
		p, e := n.withdraw(ctx, at, reason)
		if e != nil {
			return nil, false, e
		}
		if p != nil {
			picks = append(picks, *p)
		}
	}
	return picks, busy, err
}

func (n *Node) certainlyOurs(ctx context.Context, hh sm.Digest) (bool, error) {
	env, err := n.envelopeRow(ctx, hh)
	if env == nil || err != nil {
		return false, err
	}
	e, err := n.loadHeader(ctx, hh, env)
	if err != nil {
		return false, err
	}
	routing, err := exchange.ParseRouting(e.Header.Routing)
	return err == nil && !n.forgotten(routing), err
}

// withdraw parks one entry of a lane, unless the neighbour may have it. From
// then on no bundle is filled with it, and its end can be signed in steps.
func (n *Node) withdraw(ctx context.Context, at place, reason string) (p *Pick, err error) {
	link, _, ok := waitsIn(at.lane)
	if !ok {
		return nil, errors.New("node: an Outbound stands in a lane of no link")
	}
	var parked *Pick // of the commit's own: after an error it may still be running
	err = n.updateLane(ctx, at.lane, func(tx queue.Tx) error {
		parked = nil
		list, err := readLane(tx, at.lane, at.seq-1, 1)
		if err != nil || len(list) == 0 || list[0].seq != at.seq || list[0].Kind != KindHeader {
			return err
		}
		e := list[0].laneEntry
		out, err := records.Outgoing.Lock(tx, e.Envelope, link, e.Object)
		if err != nil || out == nil || out.Lane != at.lane || out.Seq != at.seq {
			return err
		}
		if left, err := mayHaveLeft(tx, out); left || err != nil {
			return err
		}
		if err := n.parkIn(tx, link, e, out, reason); err != nil {
			return err
		}
		p := pickOf(out)
		parked = &p
		return nil
	})
	if err != nil {
		return nil, err
	}
	return parked, nil
}

// expired says whether a document that is here for certain, since it was given
// to nobody before a restore, is past its time.
func (n *Node) expired(r *exchange.Routing) bool {
	return !n.c.Now().Before(r.Expires.Time()) && !n.forgotten(r)
}
