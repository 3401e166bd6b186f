package node

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// A node may end a delivery only while it is certainly the one that answers
// for it. What has left in a bundle may have arrived, although nobody answered:
// then the neighbour answers for it. So each lane of documents has a mark, the
// highest number of an entry that may ever have left. It is durable before a
// bundle with a later entry leaves: one commit for a bundle, none for a
// document. A crash between the commit and the bundle leaves some entries
// marked that never left, which only makes them unknown. Of a lane whose mark
// cannot be read all that it ever held is marked.
//
// What the neighbour refused whole in the only bundle that ever carried it, it
// does not have either (Outbound.Declined). Which bundle was the only one is
// known in memory alone: after a restart such an answer proves nothing.
//
// Outbound.Left keeps what the mark said when an entry is moved to another
// place in the lanes, where its number says nothing of what was before.

// offeredMarks are the marks that this process has read or written.
type offeredMarks struct {
	mu    sync.Mutex
	lanes map[string]uint64
}

func (m *offeredMarks) get(lane string) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lanes[lane]
}

func (m *offeredMarks) raise(lane string, seq uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lanes == nil {
		m.lanes = make(map[string]uint64)
	}
	m.lanes[lane] = max(m.lanes[lane], seq)
}

// Offer makes the marks cover what is about to leave in a bundle, which is
// signed by then: what cannot be signed leaves no mark. With ok false somebody
// took an entry out of its lane after it was read, to park it or to end its
// delivery; then the bundle must not leave.
func (n *Node) Offer(ctx context.Context, outs []Out) (ok bool, err error) {
	fresh := n.unmarked(outs)
	if len(fresh) == 0 {
		return true, nil
	}
	var all bool // of the commit's own: after an error it may still be running
	var first map[place]bool
	err = n.c.Store.Update(ctx, func(tx queue.Tx) (err error) {
		all, first, err = raiseMarks(tx, fresh)
		return err
	})
	if err != nil || !all {
		return false, err
	}
	for _, p := range fresh {
		n.offered.raise(p.lane, p.seq)
	}
	for i := range outs {
		outs[i].first = first[place{outs[i].lane, outs[i].seq}]
	}
	return true, nil
}

// Again forgets of an older bundle's items, which are nowhere else in use, that
// they left for the first time in it, where a newer bundle carries the same
// entry: then no answer to either proves that the neighbour does not have it.
func Again(older, newer []Out) {
	carried := map[place]bool{}
	for i := range newer {
		if !newer[i].first {
			carried[place{newer[i].lane, newer[i].seq}] = true
		}
	}
	if len(carried) == 0 {
		return
	}
	for i := range older {
		older[i].first = older[i].first && !carried[place{older[i].lane, older[i].seq}]
	}
}

// place is an entry's.
type place struct {
	lane string
	seq  uint64
}

// unmarked are the places of documents that no mark covers, lane by lane,
// numbers rising.
func (n *Node) unmarked(outs []Out) (list []place) {
	for i := range outs {
		o := &outs[i]
		_, rank, ok := laneOf(o.lane)
		if p := (place{o.lane, o.seq}); ok && rank < rankReceipt && o.seq > n.offered.get(o.lane) {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.lane, b.lane), cmp.Compare(a.seq, b.seq))
	})
	return slices.Compact(list)
}

// raiseMarks raises the marks of lanes over places, which come in the order of
// unmarked, and says which of them no mark covered. It stops with ok false at
// the first place where nothing stands any more.
func raiseMarks(tx queue.Tx, fresh []place) (ok bool, first map[place]bool, err error) {
	first = make(map[place]bool, len(fresh))
	for i, lane := 0, ""; i < len(fresh); {
		lane = fresh[i].lane
		mark, err := records.Offered.Lock(tx, lane)
		if err != nil && !errors.Is(err, records.ErrUnreadable) {
			return false, nil, err
		}
		known, before := err == nil, uint64(0)
		if mark != nil {
			before = *mark
		}
		if !known { // then all of the lane may have left
			if before, err = queue.Last(tx, lane); err != nil {
				return false, nil, err
			}
		}
		last := before
		for ; i < len(fresh) && fresh[i].lane == lane; i++ {
			if there, err := queue.Stands(tx, lane, fresh[i].seq); err != nil || !there {
				return false, nil, err
			}
			first[fresh[i]] = fresh[i].seq > before
			last = max(last, fresh[i].seq)
		}
		if known && last == before {
			continue
		}
		if err := putMark(tx, lane, last, known && mark == nil); err != nil {
			return false, nil, err
		}
	}
	return true, first, nil
}

func putMark(tx queue.Tx, lane string, seq uint64, absent bool) error {
	if absent {
		return records.Offered.Insert(tx, &seq, lane)
	}
	return records.Offered.Put(tx, &seq, lane)
}

// mayHaveLeft says whether the neighbour may have an Outbound, or some of it.
// Read it in the transaction that decides, in which out is locked: a mark only
// rises, and an entry leaves only after it.
func mayHaveLeft(tx queue.Tx, out *records.Outbound) (bool, error) {
	return mayHaveLeftBy(tx, out, true)
}

// clocksApart is how far the clock of a document's sender may be behind or
// ahead of this node's.
const clocksApart = 24 * time.Hour

// forgotten says whether a document may have been here before the store was put
// back to an earlier state. Then it may have left, whatever the store says: it
// may even be one that came only after the backup, and comes again.
func (n *Node) forgotten(r *exchange.Routing) bool {
	row := n.restored.row
	return row != nil && r.Created.Time().Before(row.At.Time().Add(clocksApart))
}
