package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/guard"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// What a policy wants approved stands in lanes of its own, out of which nobody
// sends, until enough administrators have approved it, one has refused it, it is
// recalled or its time is over. The entry knows its rank by its lane.
//
// Whatever may decide such a document leaves an entry in the lane of the work: its
// coming, in the transaction that brings it, and each approval, in the one that
// stores it. The work looks at all that is known and acts, so that a crash between
// an approval and what follows from it only delays that, and two that come at the
// same time cannot miss each other. Once after each start all is looked at: the
// policy may be another.

const guardPrefix = "guard/"

func guardLane(link string, rank int) string { return fmt.Sprintf("%s%s/%d", guardPrefix, link, rank) }

// kindGuarded is the entry of the work that looks at what waits for approval of one
// document.
const kindGuarded = "guarded"

// waitsIn reads the name of a lane in which documents wait, to leave or to be
// approved.
func waitsIn(lane string) (link string, rank int, ok bool) {
	if rest, guarded := strings.CutPrefix(lane, guardPrefix); guarded {
		lane = "out/" + rest
	}
	return laneOf(lane)
}

// approvals is how many administrators must approve a document for a link.
func (n *Node) approvals(link string, f guard.Facts) int {
	if n.c.Guard == nil {
		return 0
	}
	p := n.c.Guard.For(link, guard.Out, exchange.Public)
	return p.Approval.Needed(f)
}

// approvalsFor is approvals for a parcel. One that was just submitted, whose header
// nobody needs, was asked for before.
func (n *Node) approvalsFor(p *parcel, link string) int {
	if p.e == nil {
		return 0
	}
	return n.approvals(link, factsOf(p.e, p.routing, ""))
}

// enterGuard puts an Outbound where approvals are waited for.
func (n *Node) enterGuard(tx queue.Tx, link string, rank int, e laneEntry, out *records.Outbound) (err error) {
	out.Lane, out.State = guardLane(link, rank), records.StateGuarded
	if out.Seq, err = enqueueEntry(tx, out.Lane, e); err != nil {
		return err
	}
	if _, err := n.leaf(tx, eventGuarded, e.Envelope, e.Envelope); err != nil {
		return err
	}
	_, err = enqueueEntry(tx, laneWork, laneEntry{Kind: kindGuarded, Envelope: e.Envelope, Object: e.Object})
	return err
}

// guardedOut is one Outbound that waits, or that an administrator refused and whose
// end is under way.
type guardedOut struct {
	link string
	id   sm.Digest
	out  records.Outbound
}

func guardedOf(tx queue.Tx, hh sm.Digest) (list []guardedOut, err error) {
	prefix := len(records.Outgoing.Key(hh))
	err = records.Outgoing.Each(tx, 0, func(key []byte, out *records.Outbound) bool {
		if out.State == records.StateGuarded || out.State == records.StateParked && out.Guarded && out.Reason == exchange.CodeGuardRefused {
			list = append(list, guardedOut{linkOf(key[prefix:]), lastDigest(key), *out})
		}
		return true
	}, hh)
	return list, err
}

// judgeGuarded looks at what waits for approval of one document, and lets it pass or
// ends it. Each is a commit of its own; the entry goes last.
func (n *Node) judgeGuarded(ctx context.Context, entry laneItem) error {
	var list []guardedOut
	var env *records.Envelope
	err := n.view(ctx, func(tx queue.Tx) (err error) {
		if env, err = records.Envelopes.Get(tx, entry.Envelope); err != nil {
			return err
		}
		list, err = guardedOf(tx, entry.Envelope)
		return err
	})
	if err != nil {
		return err
	}
	if len(list) > 0 && env != nil {
		e, err := n.loadHeader(ctx, entry.Envelope, env)
		if err != nil {
			return err
		}
		for _, g := range list {
			if err := n.judgeOne(ctx, e, g); err != nil {
				return err
			}
		}
	}
	return n.updateLane(ctx, laneWork, func(tx queue.Tx) error {
		if there, err := queue.Stands(tx, laneWork, entry.seq); !there || err != nil {
			return err
		}
		return queue.Dequeue(tx, laneWork, entry.seq)
	})
}

func (n *Node) judgeOne(ctx context.Context, e *envelope.Envelope, g guardedOut) error {
	routing, err := exchange.ParseRouting(e.Header.Routing)
	if err != nil {
		return err
	}
	l, ok := n.Directory().Link(g.link)
	if !ok { // until there is such a link again, or its time is over
		return nil
	}
	f := factsOf(e, routing, "")
	if refused := n.refusedOut(l, f); refused != nil { // by a policy that came later
		return n.endGuarded(ctx, g, refused.Code, "")
	}
	given, err := n.approvalsOf(ctx, e.Hash, g.link)
	if err != nil {
		return err
	}
	approved, unknown := 0, false
	for _, a := range given {
		switch {
		case a.Damaged: // it may have been a refusal; whoever is still an administrator says it anew
			unknown = unknown || administrator(n.Directory(), a.Administrator) != nil
		case !a.Counts:
		case a.Verdict == exchange.VerdictRefuse:
			return n.endGuarded(ctx, g, exchange.CodeGuardRefused, a.Reason)
		default:
			approved++
		}
	}
	if unknown || approved < n.approvals(g.link, f) {
		return nil
	}
	return n.letPass(ctx, e.Hash, g)
}

// letPass is the commit point of going on.
func (n *Node) letPass(ctx context.Context, hh sm.Digest, g guardedOut) error {
	return n.updateLane(ctx, g.out.Lane, func(tx queue.Tx) error {
		out, err := records.Outgoing.Lock(tx, hh, g.link, g.id)
		if err != nil || out == nil || out.State != records.StateGuarded || out.Seq != g.out.Seq {
			return err
		}
		_, rank, ok := waitsIn(out.Lane)
		if !ok {
			return fmt.Errorf("node: an Outbound stands in lane %q", out.Lane)
		}
		if err := queue.Dequeue(tx, out.Lane, out.Seq); err != nil {
			return err
		}
		grows(tx, g.link)
		out.Lane, out.State, out.Guarded = laneName(g.link, rank), records.StateQueued, false
		e := laneEntry{Kind: KindHeader, Envelope: hh, Object: g.id, Since: n.now()}
		if out.Seq, err = enqueueEntry(tx, out.Lane, e); err != nil {
			return err
		}
		if _, err := n.leaf(tx, eventLetPass, hh, hh); err != nil {
			return err
		}
		return records.Outgoing.Put(tx, out, hh, g.link, g.id)
	})
}

// endGuarded ends what may not pass: first it is parked, so that its end can be
// signed in steps; put back by an operator it comes here again.
func (n *Node) endGuarded(ctx context.Context, g guardedOut, reason, text string) error {
	pick := pickOf(&g.out)
	if g.out.State == records.StateGuarded {
		p, err := n.withdraw(ctx, place{g.out.Lane, g.out.Seq}, exchange.CodeGuardRefused)
		if p == nil || err != nil {
			return err
		}
		pick = *p
	}
	return n.endAll(ctx, []Pick{pick}, ending{
		stage: exchange.StageRejected, state: records.StateRefused, reason: reason, text: text,
	})
}

// guardSweep remembers that everything was looked at since the start.
type guardSweep struct {
	mu   sync.Mutex
	done bool
}

// lookAtGuarded leaves the work an entry for each document that waits for approval,
// once after a start.
func (n *Node) lookAtGuarded(ctx context.Context) (did bool, err error) {
	n.guarded.mu.Lock()
	defer n.guarded.mu.Unlock()
	if n.guarded.done {
		return false, nil
	}
	lanes, err := n.guardLanes(ctx, "")
	if err != nil {
		return false, err
	}
	for _, lane := range lanes {
		after := uint64(0)
		for first := true; ; first = false {
			var list []laneItem
			err := n.update(ctx, func(tx queue.Tx) (err error) {
				if first {
					if after, _, err = queue.Front(tx, lane); err != nil {
						return err
					}
				}
				if list, err = readLane(tx, lane, after, parkStep); err != nil {
					return err
				}
				for _, e := range list {
					if _, err := enqueueEntry(tx, laneWork, laneEntry{Kind: kindGuarded, Envelope: e.Envelope, Object: e.Object}); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return did, err
			}
			if len(list) == 0 {
				break
			}
			did, after = true, list[len(list)-1].seq
		}
	}
	n.guarded.done = true
	return did, nil
}

// guardLanes are the lanes of a link, or of all (""), in which something waits for
// approval, the most urgent of each link first.
func (n *Node) guardLanes(ctx context.Context, only string) (lanes []string, err error) {
	err = n.view(ctx, func(tx queue.Tx) error {
		lanes = nil
		for c, err := range queue.Counts(tx, guardPrefix) {
			if err != nil {
				return err
			}
			if link, _, ok := waitsIn(c.Lane); ok && c.Waiting > 0 && (only == "" || link == only) {
				lanes = append(lanes, c.Lane)
			}
		}
		slices.SortFunc(lanes, func(a, b string) int {
			linkA, rankA, _ := waitsIn(a)
			linkB, rankB, _ := waitsIn(b)
			if c := strings.Compare(linkA, linkB); c != 0 {
				return c
			}
			return rankB - rankA
		})
		return nil
	})
	return lanes, err
}

// guardID names what waits for approval, as guard ls shows it: LINK/RANK/NUMBER.
func guardID(lane string, seq uint64) string {
	link, rank, _ := waitsIn(lane)
	return fmt.Sprintf("%s/%s/%d", link, rankNames[rank], seq)
}

func placeOfGuardID(id string) (p place, err error) {
	bad := exchange.Fail(exchange.CodeBadRequest, "%.120q: LINK/RANK/NUMBER is expected, as yizhan guard ls shows it", id)
	parts := strings.Split(id, "/")
	if len(parts) != 3 || parts[0] == "" {
		return p, bad
	}
	rank := slices.Index(rankNames[:rankReceipt], parts[1])
	seq, err := strconv.ParseUint(parts[2], 10, 64)
	if rank < 0 || err != nil || seq == 0 {
		return p, bad
	}
	return place{guardLane(parts[0], rank), seq}, nil
}

// errNotGuarded: nothing waits there for approval.
func notGuarded(what string) error {
	return exchange.Fail(exchange.CodeNotFound, "%s does not wait for approval", what)
}

var errGone = errors.New("node: gone meanwhile")
