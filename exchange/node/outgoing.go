package node

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// Out is an item chosen for a bundle, with how to read it and where it waits.
type Out struct {
	Item
	Open func(context.Context) (io.ReadCloser, error)

	lane  string
	seq   uint64
	entry laneEntry
	part  int
}

// Outgoing chooses what goes next over a link: lanes in their order, each
// from its front, up to maxBytes and maxItems but at least one item when any
// waits. Nothing is changed: an item stays in its lane until Settle hears
// that the neighbour has it.
func (n *Node) Outgoing(ctx context.Context, link string, maxBytes int64, maxItems int) ([]Out, error) {
	b := &batch{room: maxBytes, items: maxItems}
	if err := n.addDirectory(ctx, link, b); err != nil {
		return nil, err
	}
	for rank := topRank; rank >= 0; rank-- {
		if err := n.fillFrom(ctx, link, laneName(link, rank), b); err != nil {
			return nil, err
		}
		if b.full {
			break
		}
	}
	return b.outs, nil
}

type batch struct {
	outs  []Out
	room  int64
	items int
	full  bool
}

// add takes an item if it fits; the first one always does.
func (b *batch) add(o Out) bool {
	if b.full || len(b.outs) > 0 && (o.Size > b.room || len(b.outs) >= b.items) {
		b.full = true
		return false
	}
	b.outs = append(b.outs, o)
	b.room -= o.Size
	return true
}

// laneWindow is how many entries are read at once.
const laneWindow = 64

func (n *Node) fillFrom(ctx context.Context, link, lane string, b *batch) error {
	after, front := n.lanes.get(lane), true
	for !b.full {
		var entries []laneItem
		err := n.view(ctx, func(tx queue.Tx) (err error) {
			entries, err = readLane(tx, lane, after, laneWindow)
			return err
		})
		if err != nil || len(entries) == 0 {
			return err
		}
		if front {
			n.lanes.first(lane, entries[0].seq)
			front = false
		}
		for _, e := range entries {
			after = e.seq
			if !n.lanes.ready(lane, e.seq, n.c.Now()) {
				continue
			}
			if err := n.expand(ctx, link, lane, e, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// expand adds the items of one lane entry that the neighbour has not taken.
func (n *Node) expand(ctx context.Context, link, lane string, e laneItem, b *batch) error {
	o := Out{lane: lane, seq: e.seq, entry: e.laneEntry}
	if e.Kind == KindReceipt {
		return n.addReceipt(ctx, o, b)
	}
	var out *records.Outbound
	var env *records.Envelope
	var digests *records.PartDigests
	err := n.view(ctx, func(tx queue.Tx) (err error) {
		if out, err = records.Outgoing.Get(tx, e.Envelope, link, e.Object); err != nil {
			return err
		}
		if env, err = records.Envelopes.Get(tx, e.Envelope); err != nil {
			return err
		}
		digests, err = records.Digests.Get(tx, e.Envelope)
		return err
	})
	if err != nil {
		return err
	}
	if out == nil || env == nil || digests == nil {
		return fmt.Errorf("node: lane %s entry %d names what is not there", lane, e.seq)
	}
	if !out.Header {
		if err := n.addHeader(ctx, o, env, b); err != nil {
			return err
		}
	}
	if !out.Slots {
		if err := n.addConsignment(ctx, o, out, b); err != nil {
			return err
		}
	}
	n.addParts(o, env, out, digests, b)
	return nil
}

// smallItem is an item whose bytes are at hand.
func smallItem(o Out, kind, id string, data []byte) Out {
	o.Item = Item{Kind: kind, ID: id, Size: int64(len(data)), Digest: sm.Sum(data)}
	o.Open = func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	return o
}

func (n *Node) addReceipt(ctx context.Context, o Out, b *batch) error {
	var row *records.Receipt
	err := n.view(ctx, func(tx queue.Tx) (err error) {
		row, err = records.Receipts.Get(tx, o.entry.Envelope, o.entry.Object)
		return err
	})
	if err != nil {
		return err
	}
	if row == nil {
		return fmt.Errorf("node: lane %s entry %d names a receipt that is not there", o.lane, o.seq)
	}
	data, err := (&ReceiptItem{Receipt: row.CMS, Detail: row.Detail}).Marshal()
	if err != nil {
		return err
	}
	b.add(smallItem(o, KindReceipt, o.entry.Object.String(), data))
	return nil
}

func (n *Node) addHeader(ctx context.Context, o Out, env *records.Envelope, b *batch) error {
	data, err := env.Header.Load(ctx, n.c.Blobs)
	if err != nil {
		return err
	}
	b.add(smallItem(o, KindHeader, o.entry.Envelope.String(), data))
	return nil
}

func (n *Node) addConsignment(ctx context.Context, o Out, out *records.Outbound, b *batch) error {
	var con *records.Consignment
	err := n.view(ctx, func(tx queue.Tx) (err error) {
		con, err = records.Incoming.Get(tx, o.entry.Envelope, o.entry.Object)
		return err
	})
	if err != nil || con == nil {
		return err
	}
	raw, err := con.Body.Load(ctx, n.c.Blobs)
	if err != nil {
		return err
	}
	whole, err := ParseConsignment(raw)
	if err != nil {
		return err
	}
	data, err := whole.only(out.Recipients).Marshal()
	if err != nil {
		return err
	}
	id := o.entry.Envelope.String() + "/" + sm.Sum(data).String()
	b.add(smallItem(o, KindConsignment, id, data))
	return nil
}

func (n *Node) addParts(o Out, env *records.Envelope, out *records.Outbound, digests *records.PartDigests, b *batch) {
	for i := range env.Parts {
		if hasBit(out.Parts, i) {
			continue
		}
		p := o
		p.part = i
		p.Item = Item{Kind: KindPart, ID: partID(o.entry.Envelope, i), Size: envelope.PartLength(env.Size, i), Digest: digests.At(i)}
		p.Open = func(ctx context.Context) (io.ReadCloser, error) {
			r, err := n.openPart(ctx, o.entry.Envelope, i, 0)
			if err == nil && r == nil {
				err = fmt.Errorf("node: %s is missing", p.ID)
			}
			return r, err
		}
		if !b.add(p) {
			return
		}
	}
}

// Settle notes what the neighbour said about items of an earlier Outgoing.
// Outcomes with an empty status were not answered and change nothing. What
// was taken leaves its lane; damaged items stay and are sent again after a
// pause. A crash before a commit sends some items twice, which the neighbour
// answers with duplicate.
func (n *Node) Settle(ctx context.Context, link string, outs []Out, outcomes []Outcome) error {
	for i := 0; i < len(outs); {
		j := i + 1
		for j < len(outs) && outs[j].lane == outs[i].lane && outs[j].seq == outs[i].seq {
			j++
		}
		if err := n.settleEntry(ctx, link, outs[i:j], outcomes[i:j]); err != nil {
			return err
		}
		i = j
	}
	return nil
}

func has(o Outcome) bool {
	return o.Status == Taken || o.Status == Duplicate || o.Status == Postponed
}

// startOver says that the neighbour misses what the item belongs to.
func startOver(o Outcome) bool { return o.Status == Damaged && o.Reason == reasonHeaderMissing }

func (n *Node) settleEntry(ctx context.Context, link string, outs []Out, outcomes []Outcome) error {
	o := outs[0]
	n.lanes.pause(o.lane, o.seq, n.c.Now(), slices.ContainsFunc(outcomes, func(c Outcome) bool { return c.Status == Damaged }))
	if !slices.ContainsFunc(outcomes, func(c Outcome) bool { return has(c) || c.Status == Refused || startOver(c) }) {
		return nil
	}
	if o.Kind == KindDirectory {
		return n.settleDirectory(ctx, link, o, outcomes[0])
	}
	if o.Kind == KindReceipt && outcomes[0].Status == Refused {
		// A receipt has nobody to tell: it is shown on both sides of the link.
		if err := n.Quarantine(ctx, link, o.Kind+" "+o.ID, "refused by the neighbour: "+outcomes[0].Reason, nil); err != nil {
			return err
		}
	}
	return n.update(ctx, func(tx queue.Tx) error {
		if o.Kind == KindReceipt {
			return queue.Dequeue(tx, o.lane, o.seq)
		}
		out, err := records.Outgoing.Lock(tx, o.entry.Envelope, link, o.entry.Object)
		if err != nil || out == nil || out.State != records.StateQueued {
			return err
		}
		mark(out, outs, outcomes)
		if out.State == records.StateQueued && out.Header && out.Slots && allBits(out.Parts, out.Count) {
			out.State = records.StateHanded
		}
		if out.State != records.StateQueued {
			if err := n.endOutbound(tx, o, out); err != nil {
				return err
			}
		}
		return records.Outgoing.Put(tx, out, o.entry.Envelope, link, o.entry.Object)
	})
}

// mark enters the outcomes of one entry's items.
func mark(out *records.Outbound, outs []Out, outcomes []Outcome) {
	for k, c := range outcomes {
		if c.Status == Refused {
			out.State, out.Reason = records.StateRefused, c.Reason
		}
		if startOver(c) {
			// The neighbour has nothing of it, or nothing any more: all of it
			// goes once more, the header first.
			out.Header, out.Slots = false, false
			clear(out.Parts)
		}
		if !has(c) {
			continue
		}
		switch outs[k].Kind {
		case KindHeader:
			out.Header = true
		case KindConsignment:
			out.Slots = true
		case KindPart:
			setBit(out.Parts, outs[k].part)
		}
	}
}

// endOutbound passes custody on, or gives up what the neighbour refused for
// good; its REJECTED receipt comes by itself.
func (n *Node) endOutbound(tx queue.Tx, o Out, out *records.Outbound) error {
	event := eventHanded
	if out.State == records.StateRefused {
		event = eventEnded
	}
	if _, err := n.leaf(tx, event, o.entry.Envelope, o.entry.Envelope); err != nil {
		return err
	}
	return queue.Dequeue(tx, o.lane, o.seq)
}

// Unreadable notes that a stored item could not be read when it was to be
// sent: it is shown to the operator and held back with growing pauses, while
// everything else goes on.
func (n *Node) Unreadable(ctx context.Context, link string, o Out) {
	n.lanes.pause(o.lane, o.seq, n.c.Now(), true)
	// The pause already keeps the link alive; a failing note must not stop it.
	_ = n.Quarantine(ctx, link, o.Kind+" "+o.ID, "stored copy unreadable", nil)
}
