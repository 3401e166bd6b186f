package node

import (
	"context"
	"errors"
	"io"

	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/queue"
)

// A bundle is filled in strict order of rank, but each lower rank that waits
// has a share, so that a flood above it never stops it:
//
//   - a tenth of the bytes and of the items of every bundle; bytes it cannot
//     use, since its next item is larger, are kept for it up to one bundle;
//   - its next item, however large, once six bundles in a row had nothing of
//     it. One rank at a time is helped in this way, and there are four, so
//     that each has an item in any ten bundles.
//
// Shares are taken first and what they leave free is filled from the top, so
// that every bundle carries what is most urgent: a 特急 waits for the bundle
// under way and for no other. All of it is decided by the lanes and by turns
// alone. Turns begin anew with the process.
const (
	share  = 10
	passes = 6
)

// turn is what a rank of a link has coming.
type turn struct {
	credit int64 // bytes of its share that it has not used
	passed int   // bundles in a row that had nothing of it while it waited
}

// batch is a bundle being filled.
type batch struct {
	room  int64
	items int
	size  int64
	first []Out // what goes before all lanes
	ranks [topRank + 1]*laneReader
	top   int // the highest rank that waits
	turns [topRank + 1]turn
}

// laneReader gives the items of one lane, reading no more than is asked for.
type laneReader struct {
	n       *Node
	link    string
	front   front
	most    int64 // bytes that can go at once, and one item beside them
	except  map[place]bool
	waits   bool
	pending []Out
	taken   []Out
}

// head is the lane's next item, nil when there is none.
func (r *laneReader) head(ctx context.Context) (*Out, error) {
	for len(r.pending) == 0 {
		e, err := r.next(ctx)
		if e == nil || err != nil {
			return nil, err
		}
		r.pending, err = r.n.expand(ctx, r.link, r.front.lane, *e, r.most)
		if bad := (unreadable{}); errors.As(err, &bad) && ctx.Err() == nil {
			o := Out{Item: Item{Kind: e.Kind, ID: e.Envelope.String()}, lane: r.front.lane, seq: e.seq}
			r.n.Unreadable(ctx, r.link, o)
		} else if err != nil {
			return nil, err
		}
	}
	return &r.pending[0], nil
}

func (r *laneReader) next(ctx context.Context) (e *laneItem, err error) {
	f := &r.front
	for len(f.held) > 0 {
		e, f.held = &f.held[0], f.held[1:]
		if !r.except[place{f.lane, e.seq}] {
			return e, nil
		}
	}
	for len(f.next) > 0 {
		now := r.n.c.Now()
		for len(f.next) > 0 {
			e, f.next = &f.next[0], f.next[1:]
			if !r.except[place{f.lane, e.seq}] && r.n.lanes.ready(f.lane, e.seq, now) {
				return e, nil
			}
		}
		if r.n.lanes.resting(f.lane, now) {
			return nil, nil
		}
		if f.next, err = r.n.readOn(ctx, f); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// take puts the lane's next item into the bundle.
func (b *batch) take(r *laneReader) {
	o := r.pending[0]
	r.pending = r.pending[1:]
	r.taken = append(r.taken, o)
	b.room -= o.Size
	b.size += o.Size
	b.items--
}

// fits says whether an item may still go in.
func (b *batch) fits(o *Out) bool { return o.Size <= b.room && b.items > 0 }

// fill takes from the lanes what goes next.
func (b *batch) fill(ctx context.Context) error {
	b.top = -1
	for rank, r := range b.ranks {
		head, err := r.head(ctx)
		if err != nil {
			return err
		}
		if r.waits = head != nil; r.waits {
			b.top = rank
		}
	}
	whole, items := b.room, b.items
	if err := b.shares(ctx, whole/share, max(1, items/share)); err != nil {
		return err
	}
	if err := b.strict(ctx); err != nil {
		return err
	}
	b.settleTurns(whole)
	return nil
}

// shares gives each lower rank that waits what it has coming.
func (b *batch) shares(ctx context.Context, bytes int64, items int) error {
	helped := -1
	for rank := range b.top {
		r, t := b.ranks[rank], &b.turns[rank]
		t.credit += bytes
		for n := 0; n < items; n++ {
			head, err := r.head(ctx)
			if err != nil {
				return err
			}
			if head == nil || head.Size > t.credit || !b.fits(head) {
				break
			}
			t.credit -= head.Size
			b.take(r)
		}
		late := r.waits && len(r.taken) == 0 && t.passed >= passes
		if late && (helped < 0 || t.passed > b.turns[helped].passed) {
			helped = rank
		}
	}
	if helped >= 0 {
		b.room += b.ranks[helped].pending[0].Size // beside what the others have
		b.turns[helped].credit = 0
		b.take(b.ranks[helped])
	}
	return nil
}

// strict fills what is left, from the top, until something does not fit. The
// highest rank always has its next item in.
func (b *batch) strict(ctx context.Context) error {
	for rank := b.top; rank >= 0; rank-- {
		for r := b.ranks[rank]; ; {
			head, err := r.head(ctx)
			if err != nil {
				return err
			}
			if head == nil {
				break
			}
			if !b.fits(head) && (rank < b.top || len(r.taken) > 0) {
				return nil
			}
			b.take(r)
		}
	}
	return nil
}

// settleTurns notes what this bundle leaves to come. A bundle that is larger
// than planned, for a large item at the top, adds to the shares of the others.
func (b *batch) settleTurns(whole int64) {
	for rank, r := range b.ranks {
		t := &b.turns[rank]
		switch {
		case !r.waits || rank >= b.top || len(r.pending) == 0:
			*t = turn{}
			continue
		case len(r.taken) > 0:
			t.passed = 0
		default:
			t.passed++
		}
		t.credit = min(t.credit+max(0, b.size-whole)/share, whole)
	}
}

// outs are the items in the order in which they leave: the most urgent first.
func (b *batch) outs() []Out {
	out := b.first
	for rank := topRank; rank >= 0; rank-- {
		if r := b.ranks[rank]; r != nil {
			out = append(out, r.taken...)
		}
	}
	return out
}

// partsOf are the items of the parts of an entry, from one on, that the
// neighbour has not taken, as many as can go at once.
func (n *Node) partsOf(o Out, p *outgoing, from int, most int64) (list []Out) {
	for i := from; i < p.env.Parts; i++ {
		if most < 0 {
			break
		}
		if hasBit(p.out.Parts, i) {
			continue
		}
		part := o
		part.part = i
		part.Item = Item{Kind: KindPart, ID: partID(o.entry.Envelope, i), Size: envelope.PartLength(p.env.Size, i), Digest: p.digests.At(i)}
		part.Open = func(ctx context.Context) (io.ReadCloser, error) {
			r, err := n.openPart(ctx, o.entry.Envelope, i, 0)
			if err == nil && r == nil {
				err = missing(part.ID)
			}
			return r, err
		}
		most -= part.Size
		list = append(list, part)
	}
	return list
}

// Urgent says whether something has come since a bundle was made that is more urgent
// than all that is in it.
func (n *Node) Urgent(ctx context.Context, link string, outs []Out, since Ends) (bool, error) {
	top := 0
	for i := range outs {
		if _, rank, ok := laneOf(outs[i].lane); ok {
			top = max(top, rank)
		}
	}
	now, err := n.LaneEnds(ctx, link)
	for rank := max(top+1, n.lowestOpen(link)); rank <= topRank; rank++ {
		if now[rank] > since[rank] {
			return true, err
		}
	}
	return false, err
}

// Ends are the last entries of the lanes of a link.
type Ends [topRank + 1]uint64

// LaneEnds reads them.
func (n *Node) LaneEnds(ctx context.Context, link string) (ends Ends, err error) {
	err = n.view(ctx, func(tx queue.Tx) error {
		for rank := range ends {
			if ends[rank], err = queue.Last(tx, laneName(link, rank)); err != nil {
				return err
			}
		}
		return nil
	})
	return ends, err
}
