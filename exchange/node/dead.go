package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

// A dead letter is a delivery that its neighbour did not take within a time
// (Config.DeadLetterAfter), or refused in a way that has no signed end and does
// not mend by trying again. It is parked: taken out of its lane, so that it
// costs nothing any more, and shown until an operator requeues it or gives it
// up. This node still answers for it.
//
// The parked ones of a link are a lane of their own, out of which nobody
// sends. An Outbound says which lane it is in; moving it, the old entry, the
// new one and the leaf are one transaction, so that a crash leaves it in
// exactly one of them. What the neighbour says later of a bundle that had left
// before still counts: a parked one that it has is handed over.
//
// No index of times is kept: within a lane times rise with the numbers, so the
// overdue ones stand in front.

// DefaultDeadLetterAfter is how long a neighbour may take.
const DefaultDeadLetterAfter = 7 * 24 * time.Hour

const (
	parkStep  = 32          // entries in one commit
	sweepMost = time.Minute // between two looks for overdue ones
)

// The reasons of a dead letter that are not the neighbour's word.
const (
	reasonNotTaken = "not_taken"
	reasonExpired  = "expired" // on its way to its end
)

const parkedPrefix = "parked/"

func parkedLane(link string) string { return parkedPrefix + link }

// parkedEntry is what stands in a lane of parked ones.
type parkedEntry struct {
	laneEntry
	Rank int
}

// unended are the refusals after which the neighbour signs nothing: with all
// others its REJECTED is on the way.
var unended = []string{errUnknownSender.Detail, "unknown_kind", exchange.CodeTooLarge, "bad_id", reasonLoop}

// deadSweep is a walk over the lanes, in search of what is overdue.
type deadSweep struct {
	mu    sync.Mutex
	next  retry
	lanes []string
}

// park does one step of parking what is overdue. An error is about one lane,
// which is left alone until the next walk.
func (n *Node) park(ctx context.Context) (did bool, err error) {
	lane, err := n.laneToSweep(ctx)
	if lane == "" || err != nil {
		return false, err
	}
	list, err := n.overdue(ctx, lane)
	if err == nil && len(list) > 0 {
		err = n.parkAll(ctx, lane, list)
	}
	if err != nil || len(list) < parkStep {
		n.dead.done(lane)
	}
	return true, err
}

// laneToSweep is the lane to look at; empty when all were looked at lately.
func (n *Node) laneToSweep(ctx context.Context) (string, error) {
	n.dead.mu.Lock()
	defer n.dead.mu.Unlock()
	now := n.c.Now()
	if len(n.dead.lanes) == 0 && n.dead.next.over(now) {
		lanes, err := n.lanesWithDocuments(ctx)
		if err != nil {
			return "", err
		}
		n.dead.lanes, n.dead.next = lanes, pauseOf(now, min(sweepMost, n.c.DeadLetterAfter/4), 0)
	}
	if len(n.dead.lanes) == 0 {
		return "", nil
	}
	return n.dead.lanes[0], nil
}

func (d *deadSweep) done(lane string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lanes = slices.DeleteFunc(d.lanes, func(l string) bool { return l == lane })
}

func (n *Node) lanesWithDocuments(ctx context.Context) (lanes []string, err error) {
	err = n.view(ctx, func(tx queue.Tx) error {
		lanes = nil
		for c, err := range queue.Counts(tx, "out/") {
			if err != nil {
				return err
			}
			link, rank, ok := laneOf(c.Lane)
			// Over a link of one way nobody answers: what left waits in its lane for a
			// code, and what did not ends when its document does.
			if _, held := n.LinkHold(link); ok && !held && rank < rankReceipt && rank >= n.lowestOpen(link) && c.Waiting > 0 && n.Way(link) != WayOut {
				lanes = append(lanes, c.Lane)
			}
		}
		return nil
	})
	return lanes, err
}

// overdue are the entries at the front of a lane that have waited too long. A
// link's hold does not count against what waits behind it, nor do its hours.
func (n *Node) overdue(ctx context.Context, lane string) (list []laneItem, err error) {
	link, _, _ := laneOf(lane)
	limit := n.c.Now().Add(-n.c.DeadLetterAfter)
	if n.releasedAt(link).After(limit) || n.justOpened(link) {
		return nil, nil
	}
	err = n.view(ctx, func(tx queue.Tx) error {
		list = nil
		candidates, err := n.standing(tx, lane, parkStep)
		for _, e := range candidates {
			since, err := n.since(tx, &e)
			if err != nil {
				return err
			}
			if e.Kind == KindHeader && !since.Time().After(limit) {
				list = append(list, e)
			}
		}
		return err
	})
	return list[:min(len(list), parkStep)], err
}

// standing are the entries that are held back and the first of the others.
func (n *Node) standing(tx queue.Tx, lane string, limit int) (out []laneItem, err error) {
	after, held, known := n.lanes.behind(lane)
	if !known {
		if after, held, err = queue.Front(tx, lane); err != nil {
			return nil, err
		}
	}
	for _, seq := range held {
		if seq > after {
			break
		}
		list, err := readLane(tx, lane, seq-1, 1)
		if err != nil {
			return nil, err
		}
		if len(list) > 0 && list[0].seq == seq {
			out = append(out, list[0])
		}
	}
	next, err := readLane(tx, lane, after, limit)
	return append(out, next...), err
}

// since is when an entry came into its lane.
func (n *Node) since(tx queue.Tx, e *laneItem) (strictjson.Time, error) {
	if e.Since != 0 {
		return e.Since, nil
	}
	env, err := records.Envelopes.Get(tx, e.Envelope)
	if env == nil {
		return 0, err
	}
	return env.At, err
}

func (n *Node) parkAll(ctx context.Context, lane string, list []laneItem) error {
	link, _, _ := laneOf(lane)
	return n.updateLane(ctx, lane, func(tx queue.Tx) error {
		for _, e := range list {
			out, err := records.Outgoing.Lock(tx, e.Envelope, link, e.Object)
			if errors.Is(err, records.ErrUnreadable) {
				continue // fsck shows it; the others do not wait for it
			}
			if err != nil {
				return err
			}
			if out == nil || out.State != records.StateQueued || out.Lane != lane || out.Seq != e.seq {
				continue // settled meanwhile
			}
			if err := n.parkIn(tx, link, e.laneEntry, out, reasonNotTaken); err != nil {
				return err
			}
		}
		return nil
	})
}

// parkIn moves an Outbound out of its lane.
func (n *Node) parkIn(tx queue.Tx, link string, e laneEntry, out *records.Outbound, reason string) error {
	_, rank, ok := waitsIn(out.Lane)
	if !ok {
		return fmt.Errorf("node: an Outbound stands in lane %q", out.Lane)
	}
	var err error
	if out.Left, err = mayHaveLeft(tx, out); err != nil {
		return err
	}
	if err = queue.Dequeue(tx, out.Lane, out.Seq); err != nil {
		return err
	}
	e.Since = n.now()
	b, err := json.Marshal(parkedEntry{e, rank})
	if err != nil {
		return err
	}
	out.Lane, out.State, out.Reason = parkedLane(link), records.StateParked, reason
	if out.Seq, err = queue.Enqueue(tx, out.Lane, b); err != nil {
		return err
	}
	if _, err := n.leaf(tx, eventParked, e.Envelope, e.Envelope); err != nil {
		return err
	}
	return records.Outgoing.Put(tx, out, e.Envelope, link, e.Object)
}

// Pick names parked ones: one of a link by its number, all of a link (No 0),
// or all of this node (no link either).
type Pick struct {
	Link string `json:"link,omitempty"`
	No   uint64 `json:"no,omitempty"`
}

// PickOf reads LINK/NUMBER, as queue ls shows it.
func PickOf(id string) (Pick, error) {
	at := strings.LastIndexByte(id, '/')
	no, err := strconv.ParseUint(id[at+1:], 10, 64)
	if at < 1 || err != nil || no == 0 {
		return Pick{}, exchange.Fail(exchange.CodeBadRequest, "%.80q: LINK/NUMBER is expected, as yizhan queue ls shows it", id)
	}
	return Pick{id[:at], no}, nil
}

// pickOf names a parked one.
func pickOf(out *records.Outbound) Pick {
	return Pick{strings.TrimPrefix(out.Lane, parkedPrefix), out.Seq}
}

func (p Pick) String() string { return fmt.Sprintf("%s/%d", p.Link, p.No) }

// Requeue puts parked ones at the end of their lanes, those that are parked
// now, and says how many. progress hears of each step; nil if nobody listens.
// A crash leaves those of the steps before it requeued.
func (n *Node) Requeue(ctx context.Context, p Pick, who Who, progress func(done int)) (done int, err error) {
	if err := who.check(false); err != nil {
		return 0, err
	}
	links := []string{p.Link}
	if p.Link == "" {
		if links, err = n.linksWithParked(ctx); err != nil {
			return 0, err
		}
	}
	for _, link := range links {
		did, err := n.requeueLink(ctx, Pick{link, p.No}, who, func(did int) {
			if progress != nil {
				progress(done + did)
			}
		})
		if done += did; err != nil {
			return done, err
		}
	}
	return done, nil
}

func (n *Node) linksWithParked(ctx context.Context) (links []string, err error) {
	err = n.view(ctx, func(tx queue.Tx) error {
		links = nil
		for c, err := range queue.Counts(tx, parkedPrefix) {
			if err != nil {
				return err
			}
			if c.Waiting > 0 {
				links = append(links, strings.TrimPrefix(c.Lane, parkedPrefix))
			}
		}
		return nil
	})
	return links, err
}

// requeueLink goes in steps from the front of the lane of parked ones to its
// end as it was at the beginning.
func (n *Node) requeueLink(ctx context.Context, p Pick, who Who, progress func(int)) (done int, err error) {
	if p.No > 0 {
		did, _, err := n.requeueStep(ctx, p.Link, p.No-1, p.No, who)
		if err == nil && did == 0 {
			err = exchange.Fail(exchange.CodeNotFound, "%s is not parked", p)
		}
		return did, err
	}
	var after, last uint64
	err = n.view(ctx, func(tx queue.Tx) (err error) {
		if after, _, err = queue.Front(tx, parkedLane(p.Link)); err != nil {
			return err
		}
		last, err = queue.Last(tx, parkedLane(p.Link))
		return err
	})
	for more := after < last; err == nil && more; {
		var did int
		if did, after, err = n.requeueStep(ctx, p.Link, after, last, who); err == nil {
			done += did
			progress(done)
			more = did > 0 && after < last
		}
	}
	return done, err
}

// requeueStep is one commit: the next parked ones behind a number, up to
// another one.
func (n *Node) requeueStep(ctx context.Context, link string, after, upTo uint64, who Who) (did int, next uint64, err error) {
	lane := parkedLane(link)
	limit := parkStep
	if upTo == after+1 {
		limit = 1
	}
	err = n.update(ctx, func(tx queue.Tx) error {
		did, next = 0, after
		list, err := readParked(tx, lane, after, limit)
		if err != nil {
			return err
		}
		for _, e := range list {
			if e.seq > upTo {
				break
			}
			if err := n.requeueOne(tx, link, &e, who); err != nil {
				return err
			}
			did, next = did+1, e.seq
		}
		if limit == 1 || did == 0 {
			return nil
		}
		return queue.SetFront(tx, lane, next, nil) // all before it were requeued, or had gone
	})
	return did, next, err
}

func (n *Node) requeueOne(tx queue.Tx, link string, e *parkedItem, who Who) error {
	out, err := records.Outgoing.Lock(tx, e.Envelope, link, e.Object)
	if err != nil {
		return err
	}
	if out == nil || out.State != records.StateParked || out.Seq != e.seq {
		return leave(tx, link, parkedLane(link), e.seq, ended)
	}
	if err := queue.Dequeue(tx, parkedLane(link), e.seq); err != nil {
		return err
	}
	grows(tx, link)
	entry := e.laneEntry
	entry.Since = n.now()
	if out.Left, err = mayHaveLeft(tx, out); err != nil {
		return err
	}
	out.Lane, out.State, out.Reason, out.Declined = laneName(link, e.Rank), records.StateQueued, "", false
	if out.Guarded {
		err = n.enterGuard(tx, link, e.Rank, entry, out)
	} else {
		out.Seq, err = enqueueEntry(tx, out.Lane, entry)
	}
	if err != nil {
		return err
	}
	a := &records.OperatorAct{What: eventRequeued, Link: link, Item: Pick{link, e.seq}.String(), By: who.By, Reason: who.Reason}
	if _, err := n.act(tx, &e.Envelope, a); err != nil {
		return err
	}
	return records.Outgoing.Put(tx, out, e.Envelope, link, e.Object)
}

type parkedItem struct {
	seq uint64
	parkedEntry
}

func readParked(tx queue.Tx, lane string, after uint64, limit int) (out []parkedItem, err error) {
	for e, err := range queue.Entries(tx, lane, after, limit) {
		if err != nil {
			return nil, err
		}
		item := parkedItem{seq: e.Seq}
		if err := json.Unmarshal(e.Value, &item.parkedEntry); err != nil {
			return nil, fmt.Errorf("node: unreadable entry %d in lane %s: %w", e.Seq, lane, err)
		}
		out = append(out, item)
	}
	return out, nil
}
