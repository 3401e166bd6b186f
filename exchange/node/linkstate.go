package node

import (
	"context"
	"errors"

	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

// LinkState is how a link stands: who is at its other end, its books on both
// sides, and what is missing.
//
// Arrived counts items of bundles, each time they came, by what became of them.
// Exported counts what this node gave the link to carry, each thing once however
// often it leaves: documents, receipts, requests. Outstanding is what of it waits
// in the lanes, or is a dead letter. Balanced says that both sides add up; they
// do unless the store is damaged.
//
// OldestOutstanding is when the oldest thing that waits came, dead letters aside.
// Gaps are numbers of the neighbour's bundles over a ferry that are missing between
// those that came, and over a link of one way up to the last that it spoke of: lost, or
// late.
type LinkState struct {
	Link      string `json:"link"`
	Kind      string `json:"kind"` // empty of a link that no directory names any more
	Neighbour string `json:"neighbour"`
	Zone      string `json:"zone"` // of the neighbour
	Dialer    string `json:"dialer,omitempty"`
	Known     bool   `json:"known"`
	Held      bool   `json:"held"`
	Hold      *Hold  `json:"hold,omitempty"`

	Arrived   uint64 `json:"arrived"`
	Accepted  uint64 `json:"accepted"`
	Duplicate uint64 `json:"duplicate"`
	Refused   uint64 `json:"refused"`
	Deferred  uint64 `json:"deferred"`
	Damaged   uint64 `json:"damaged"`

	Exported    uint64 `json:"exported"`
	Acked       uint64 `json:"acked"`
	Outstanding uint64 `json:"outstanding"`
	Parked      uint64 `json:"parked"` // of the outstanding
	Ended       uint64 `json:"ended"`

	Balanced          bool            `json:"balanced"`
	Unreadable        bool            `json:"unreadable,omitempty"` // a row of the books
	OldestOutstanding strictjson.Time `json:"oldest_outstanding,omitzero"`
	Gaps              []Gap           `json:"gaps"`
	Ferry             *FerryState     `json:"ferry,omitempty"`
	Status            *NeighbourState `json:"status,omitempty"` // what the neighbour last said of itself
}

// Gap is a run of numbers, both ends included.
type Gap struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// FerryState is what a link of kind ferry has under way. Lost are bundles that the
// neighbour has missed and that leave again; Oldest is when the lowest of them was
// made. Heard is when a note of the neighbour was last read.
type FerryState struct {
	Bundles uint64          `json:"bundles"`
	Bytes   int64           `json:"bytes"`
	Lost    uint64          `json:"lost"`
	Oldest  strictjson.Time `json:"oldest,omitzero"`
	Lacks   int             `json:"lacks"` // bundles of the neighbour of which some item is not here
	Heard   strictjson.Time `json:"heard,omitzero"`
}

// LinkStates says how one link stands, or all ("").
//
// It costs what [Node.Queues] costs, and three rows for each link, of a ferry five.
func (n *Node) LinkStates(ctx context.Context, only string) ([]LinkState, error) {
	var list []LinkState
	err := n.view(ctx, func(tx queue.Tx) error {
		list = []LinkState{}
		links := n.linkQueues(only)
		if err := n.countLanes(tx, only, links); err != nil {
			return err
		}
		for _, q := range links.list {
			if !q.Known && q.Waiting == 0 && q.Parked == 0 {
				continue
			}
			s, err := n.linkState(tx, q)
			if err != nil {
				return err
			}
			list = append(list, *s)
		}
		return nil
	})
	return list, err
}

func (n *Node) linkState(tx queue.Tx, q *LinkQueues) (*LinkState, error) {
	s := &LinkState{Link: q.Link, Neighbour: q.Neighbour, Known: q.Known, Held: q.Hold != nil, Hold: q.Hold, Parked: q.Parked, Gaps: []Gap{}}
	d := n.Directory()
	if l, ok := d.Link(q.Link); ok && q.Known {
		if s.Kind = l.Kind; l.Kind == "https" {
			s.Dialer = l.Dialer
		}
	}
	if neighbour, ok := d.Node(q.Neighbour); ok {
		s.Zone = neighbour.Zone
	}
	for _, one := range q.Queues {
		if one.Oldest != 0 && (s.OldestOutstanding == 0 || one.Oldest < s.OldestOutstanding) {
			s.OldestOutstanding = one.Oldest
		}
	}
	s.Outstanding = q.Waiting + q.Parked + q.Guarded
	if err := s.readBooks(tx); err != nil {
		return nil, err
	}
	if err := s.readStatus(tx); err != nil {
		return nil, err
	}
	out, err := readable(s, records.FerryOuts, tx)
	if err != nil {
		return nil, err
	}
	if s.Kind == "ferry" || out != nil {
		return s, s.readFerry(tx, out)
	}
	return s, nil
}

// readBooks reads both sides, and says whether they balance.
func (s *LinkState) readBooks(tx queue.Tx) error {
	in, err := readable(s, records.BookRows, tx)
	if err != nil {
		return err
	}
	if in != nil {
		s.Arrived, s.Accepted, s.Duplicate, s.Refused, s.Deferred, s.Damaged = in.Arrived, in.Accepted, in.Duplicate, in.Refused, in.Deferred, in.Damaged
	}
	out, err := readable(s, records.OutBooks, tx)
	if err != nil {
		return err
	}
	if out != nil {
		s.Exported, s.Acked, s.Ended = out.Exported, out.Acked, out.Ended
	}
	s.Balanced = !s.Unreadable && (in == nil || inBalance(in)) && s.Exported == s.Acked+s.Outstanding+s.Ended
	return nil
}

func inBalance(b *records.Books) bool {
	return b.Arrived == b.Accepted+b.Duplicate+b.Refused+b.Deferred+b.Damaged
}

func (s *LinkState) readFerry(tx queue.Tx, out *records.FerryOut) error {
	f := new(FerryState)
	s.Ferry = f
	if out != nil {
		f.Bundles, f.Bytes, f.Lost = out.Under.Bundles, out.Under.Bytes, out.Under.Lost
	}
	if f.Bundles > 0 {
		err := records.FerryBundles.Each(tx, 1, func(_ []byte, b *records.FerryBundle) bool {
			f.Oldest = b.Made
			return false
		}, s.Link)
		if s.unreadable(err) != nil {
			return err
		}
	}
	in, err := readable(s, records.FerryIns, tx)
	if in == nil || err != nil {
		return err
	}
	f.Lacks, f.Heard = len(in.Lacks), in.At
	for _, g := range Missing(in) {
		s.Gaps = append(s.Gaps, Gap{From: g[0], To: g[1]})
	}
	return nil
}

// unreadable notes that a row is damaged, which is shown and stops nothing.
func (s *LinkState) unreadable(err error) error {
	if errors.Is(err, records.ErrUnreadable) {
		s.Unreadable, s.Balanced = true, false
		return nil
	}
	return err
}

// readable reads the row of a link; nil when it is damaged.
func readable[T any](s *LinkState, t records.Table[T], tx queue.Tx) (*T, error) {
	row, err := t.Get(tx, s.Link)
	if err := s.unreadable(err); err != nil {
		return nil, err
	}
	return row, nil
}
