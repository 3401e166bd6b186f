package node

import (
	"context"
	"strconv"
	"strings"

	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

// rankNames name the lanes of a link to the operator, by rank.
var rankNames = [topRank + 1]string{"normal", "urgent", "very_urgent", "receipt", "own_header"}

// Queue is what waits in one lane of a link. Oldest is when the entry that is
// first in it came; absent when there is none.
type Queue struct {
	Rank    string          `json:"rank"`
	Waiting uint64          `json:"waiting"`
	Oldest  strictjson.Time `json:"oldest,omitzero"`
}

// LinkQueues is what waits for one link, the most urgent first. Paused counts
// entries that met trouble and wait for themselves; they are among those that
// wait. Parked counts the dead letters, which are not among them, nor are those that wait
// for approval (Guarded). Outside the hours of the link, documents of ranks below
// ClosedBelow, or all, stay until ClosedUntil. Hold is set while an operator holds the link. A link that no directory
// names any more is shown as long as something waits for it.
type LinkQueues struct {
	Link      string `json:"link"`
	Neighbour string `json:"neighbour,omitempty"`
	Known     bool   `json:"known"`
	OneWay    string `json:"oneway,omitempty"` // out: what left waits here for a code; in: nothing can leave
	Waiting   uint64 `json:"waiting"`
	Paused    int    `json:"paused"`
	Parked    uint64 `json:"parked"`
	Guarded   uint64 `json:"awaiting_approval"`
	Hold      *Hold  `json:"hold,omitempty"`

	ClosedUntil strictjson.Time `json:"closed_until,omitzero"`
	ClosedBelow string          `json:"closed_below,omitempty"`

	Queues []Queue `json:"queues"`
}

// Backlog is what waits on a node: for each link, to be distributed, and what
// is in quarantine.
type Backlog struct {
	Links       []LinkQueues `json:"links"`
	Undone      uint64       `json:"undistributed"`
	Quarantined uint64       `json:"quarantined"`
}

// Queues says what waits, for one link or for all ("").
//
// It is cheap enough for /metrics and needs no cache: in one View it reads one
// row for each lane that ever was used, and two more for the oldest entry of
// each lane that is not empty. Nothing is read for each waiting document. The
// counts stand in the rows that every enqueue and dequeue change in their own
// transaction, so they are right after any crash.
func (n *Node) Queues(ctx context.Context, link string) (*Backlog, error) {
	var s *Backlog
	err := n.view(ctx, func(tx queue.Tx) (err error) {
		s = &Backlog{Links: []LinkQueues{}}
		links := n.linkQueues(link)
		if err := n.countLanes(tx, link, links); err != nil {
			return err
		}
		for _, q := range links.list {
			if q.Known || q.Waiting > 0 || q.Parked > 0 || q.Guarded > 0 {
				s.Links = append(s.Links, *q)
			}
		}
		if s.Undone, err = queue.Waiting(tx, laneWork); err != nil {
			return err
		}
		no, err := records.QuarantineNo.Get(tx)
		if no != nil {
			s.Quarantined = min(*no, records.QuarantineSize)
		}
		return err
	})
	return s, err
}

// linkTable finds links by name and keeps their order.
type linkTable struct {
	n    *Node
	list []*LinkQueues
	by   map[string]*LinkQueues
}

func (n *Node) linkQueues(only string) *linkTable {
	t := &linkTable{n: n, by: map[string]*LinkQueues{}}
	for _, l := range n.Directory().LinksOf(n.c.ID) {
		if only == "" || only == l.ID {
			q := t.of(l.ID)
			q.Known, q.Neighbour, q.OneWay = true, l.Neighbour(n.c.ID), n.Way(l.ID).String()
		}
	}
	return t
}

func (t *linkTable) of(link string) *LinkQueues {
	q := t.by[link]
	if q == nil {
		q = &LinkQueues{Link: link, Queues: make([]Queue, topRank+1)}
		for rank, name := range rankNames {
			q.Queues[topRank-rank].Rank = name
			q.Paused += t.n.lanes.paused(laneName(link, rank))
		}
		if lowest, until := t.n.hoursOf(link); lowest > 0 {
			if q.ClosedUntil = strictjson.TimeOf(until); lowest < rankReceipt {
				q.ClosedBelow = rankNames[lowest]
			}
		}
		if h, held := t.n.LinkHold(link); held {
			q.Hold = &h
		}
		t.list = append(t.list, q)
		t.by[link] = q
	}
	return q
}

// countLanes enters what the lanes of links hold.
func (n *Node) countLanes(tx queue.Tx, only string, links *linkTable) error {
	prefix := "out/"
	if only != "" {
		prefix += only + "/"
	}
	for c, err := range queue.Counts(tx, prefix) {
		if err != nil {
			return err
		}
		link, rank, ok := laneOf(c.Lane)
		if !ok || c.Waiting == 0 || only != "" && link != only {
			continue
		}
		q := links.of(link)
		q.Waiting += c.Waiting
		one := &q.Queues[topRank-rank]
		one.Waiting = c.Waiting
		if one.Oldest, err = n.oldest(tx, c.Lane); err != nil {
			return err
		}
	}
	for c, err := range queue.Counts(tx, guardPrefix) {
		if err != nil {
			return err
		}
		if link, _, ok := waitsIn(c.Lane); ok && c.Waiting > 0 && (only == "" || link == only) {
			links.of(link).Guarded += c.Waiting
		}
	}
	for c, err := range queue.Counts(tx, parkedPrefix+only) {
		if err != nil {
			return err
		}
		link := strings.TrimPrefix(c.Lane, parkedPrefix)
		if c.Waiting > 0 && (only == "" || link == only) {
			links.of(link).Parked = c.Waiting
		}
	}
	return nil
}

// laneOf is the reverse of laneName.
func laneOf(lane string) (link string, rank int, ok bool) {
	rest, ok := strings.CutPrefix(lane, "out/")
	at := strings.LastIndexByte(rest, '/')
	if !ok || at < 0 {
		return "", 0, false
	}
	rank, err := strconv.Atoi(rest[at+1:])
	return rest[:at], rank, err == nil && rank >= 0 && rank <= topRank
}

// oldest is when the first entry of a lane came; 0 when it has none, or one
// that does not say.
func (n *Node) oldest(tx queue.Tx, lane string) (strictjson.Time, error) {
	e, err := n.first(tx, lane)
	if e == nil || err != nil {
		return 0, err
	}
	return n.since(tx, e)
}

// first is the first entry of a lane, which may be one that is held back; nil
// when the lane is empty. It looks behind the lane's cursor.
func (n *Node) first(tx queue.Tx, lane string) (*laneItem, error) {
	after, held, known := n.lanes.behind(lane)
	if !known {
		var err error
		if after, held, err = queue.Front(tx, lane); err != nil {
			return nil, err
		}
	}
	for _, seq := range held {
		if seq > after {
			break
		}
		list, err := readLane(tx, lane, seq-1, 1)
		if err != nil || len(list) > 0 && list[0].seq == seq {
			return firstOf(list), err
		}
	}
	list, err := readLane(tx, lane, after, 1)
	return firstOf(list), err
}

func firstOf(list []laneItem) *laneItem {
	if len(list) == 0 {
		return nil
	}
	return &list[0]
}
