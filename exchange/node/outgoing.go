package node

import (
	"bytes"
	"context"
	"errors"
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
	first bool // no bundle but this one ever carried the entry, or part of it
}

// Outgoing chooses what goes next over a link, about maxBytes and at most
// maxItems of it: the urgent first, with a share for the rest. Nothing is
// changed: an item stays in its lane until Settle hears that the neighbour has
// it. Offer must come before any of it leaves. Of a link that is held nothing
// goes, and only receipts to a neighbour that has no room, or outside the hours of
// the link. Entries that a bundle
// under way carries may be left out.
func (n *Node) Outgoing(ctx context.Context, link string, maxBytes int64, maxItems int, underWay ...Out) ([]Out, error) {
	if _, held := n.LinkHold(link); held {
		return nil, nil
	}
	b := &batch{room: maxBytes, items: maxItems, turns: n.lanes.turnsOf(link)}
	except := map[place]bool{}
	for i := range underWay {
		except[place{underWay[i].lane, underWay[i].seq}] = true
	}
	if err := n.addDirectory(ctx, link, b, except); err != nil || b.room <= 0 {
		return b.outs(), err
	}
	lowest := n.lowestOpen(link)
	if n.documentsWait(link) {
		lowest = rankReceipt
	}
	var lanes []string
	for rank := lowest; rank <= topRank; rank++ {
		lanes = append(lanes, laneName(link, rank))
	}
	fronts, err := n.readFronts(ctx, lanes...)
	if err != nil {
		return nil, err
	}
	for rank := range b.ranks {
		b.ranks[rank] = &laneReader{n: n, link: link, most: maxBytes + envelope.PartSize, except: except}
		if rank >= lowest {
			b.ranks[rank].front = fronts[rank-lowest]
		}
	}
	if err := b.fill(ctx); err != nil {
		return nil, err
	}
	n.lanes.setTurns(link, b.turns)
	outs := b.outs()
	if lowest == 0 && len(outs)+len(underWay) == 0 { // no document is left that could end the pause
		n.pauses.succeeded(spaceOf(link))
	}
	return outs, nil
}

// outgoing is what there is to send of one lane entry.
type outgoing struct {
	out     *records.Outbound
	env     *records.Envelope
	digests *records.PartDigests
	header  []byte               // when it is to go and lies in a row of its own
	con     *records.Consignment // when it is to go
}

// readOutgoing gives all rows of an entry in one View.
func (n *Node) readOutgoing(ctx context.Context, link string, e laneItem) (p outgoing, err error) {
	err = n.view(ctx, func(tx queue.Tx) (err error) {
		if p.out, err = records.Outgoing.Get(tx, e.Envelope, link, e.Object); err != nil || p.out == nil {
			return err
		}
		if p.env, err = records.Envelopes.Get(tx, e.Envelope); err != nil || p.env == nil {
			return err
		}
		if p.digests, err = records.Digests.Get(tx, e.Envelope); err != nil {
			return err
		}
		if !p.out.Header && headerInRow(p.env) {
			if p.header, err = records.Headers.Get(tx, e.Envelope); err != nil {
				return err
			}
		}
		if !p.out.Slots {
			p.con, err = records.Incoming.Get(tx, e.Envelope, e.Object)
		}
		return err
	})
	return p, err
}

// expand gives the items of one lane entry that the neighbour has not taken,
// of its parts no more than fill a bundle.
func (n *Node) expand(ctx context.Context, link, lane string, e laneItem, most int64) ([]Out, error) {
	outs, _, err := n.expandFrom(ctx, link, lane, e, 0, most)
	return outs, err
}

// expandFrom is expand from a part on; it says how many parts there are.
func (n *Node) expandFrom(ctx context.Context, link, lane string, e laneItem, from int, most int64) (list []Out, parts int, err error) {
	if e.Kind == kindUnreadable {
		return nil, 0, unreadable{fmt.Errorf("node: entry %d of lane %s", e.seq, lane)}
	}
	o := Out{lane: lane, seq: e.seq, entry: e.laneEntry}
	switch e.Kind {
	case KindReceipt:
		list, err = n.receiptItem(ctx, o)
		return list, 0, err
	case KindOwnHeader:
		list, err = n.ownHeaderItem(ctx, o)
		return list, 0, err
	case KindRequest:
		list, err = n.requestItem(ctx, o)
		return list, 0, err
	}
	p, err := n.readOutgoing(ctx, link, e)
	if err != nil {
		return nil, 0, rowTrouble(err)
	}
	if p.out == nil || p.env == nil || p.digests == nil {
		return nil, 0, unreadable{fmt.Errorf("node: lane %s entry %d names what is not there", lane, e.seq)}
	}
	if !p.out.Header {
		data, err := p.header, error(nil)
		if data == nil {
			data, err = n.headerBytes(ctx, e.Envelope, p.env)
		}
		if err != nil {
			return nil, 0, unreadable{err}
		}
		list = append(list, smallItem(o, KindHeader, e.Envelope.String(), data))
	}
	if !p.out.Slots {
		if list, err = n.appendConsignment(ctx, list, o, &p); err != nil {
			return nil, 0, err
		}
	}
	return append(list, n.partsOf(o, &p, from, most)...), p.env.Parts, nil
}

// unreadable is trouble with one entry, not with the store.
type unreadable struct{ error }

// rowTrouble tells a damaged row, which is trouble with one entry, from trouble
// with the store.
func rowTrouble(err error) error {
	if errors.Is(err, records.ErrUnreadable) {
		return unreadable{err}
	}
	return err
}

func (u unreadable) Unwrap() error { return u.error }

func missing(id string) error { return fmt.Errorf("node: %s is missing", id) }

// smallItem is an item whose bytes are at hand.
func smallItem(o Out, kind, id string, data []byte) Out {
	o.Item = Item{Kind: kind, ID: id, Size: int64(len(data)), Digest: sm.Sum(data)}
	o.Open = func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	return o
}

func (n *Node) receiptItem(ctx context.Context, o Out) ([]Out, error) {
	var row *records.Receipt
	err := n.view(ctx, func(tx queue.Tx) (err error) {
		row, err = records.Receipts.Get(tx, o.entry.Envelope, o.entry.Object)
		return err
	})
	if err != nil {
		return nil, rowTrouble(err)
	}
	if row == nil {
		return nil, unreadable{fmt.Errorf("node: lane %s entry %d names a receipt that is not there", o.lane, o.seq)}
	}
	data, err := (&ReceiptItem{Receipt: row.CMS, Detail: row.Detail}).Marshal()
	if err != nil {
		return nil, err
	}
	return []Out{smallItem(o, KindReceipt, o.entry.Object.String(), data)}, nil
}

func (n *Node) ownHeaderItem(ctx context.Context, o Out) ([]Out, error) {
	env, err := n.envelopeRow(ctx, o.entry.Envelope)
	if err != nil {
		return nil, rowTrouble(err)
	}
	if env == nil {
		return nil, unreadable{fmt.Errorf("node: lane %s entry %d names a header that is not there", o.lane, o.seq)}
	}
	data, err := n.headerBytes(ctx, o.entry.Envelope, env)
	if err != nil {
		return nil, unreadable{err}
	}
	return []Out{smallItem(o, KindOwnHeader, o.entry.Envelope.String(), data)}, nil
}

func (n *Node) appendConsignment(ctx context.Context, list []Out, o Out, p *outgoing) ([]Out, error) {
	con := p.con
	if con == nil {
		return list, nil
	}
	raw, err := con.Body.Load(ctx, n.c.Blobs)
	if err != nil {
		return nil, unreadable{err}
	}
	whole, err := ParseConsignment(raw)
	if err != nil {
		return nil, unreadable{err}
	}
	whole.Again += con.Back
	slots, err := n.onwards(ctx, whole, p.out.Recipients)
	if err != nil {
		return nil, err
	}
	data, err := whole.only(slots).Marshal()
	if err != nil {
		return nil, err
	}
	id := o.entry.Envelope.String() + "/" + sm.Sum(data).String()
	return append(list, smallItem(o, KindConsignment, id, data)), nil
}

// Settle notes what the neighbour said about items of an earlier Outgoing.
// Outcomes with an empty status were not answered and change nothing. What
// was taken leaves its lane; damaged items stay and are sent again after a
// pause. A crash before a commit sends some items twice, which the neighbour
// answers with duplicate.
func (n *Node) Settle(ctx context.Context, link string, outs []Out, outcomes []Outcome) error {
	var from []int // where each entry's items begin
	for i := range outs {
		if i == 0 || outs[i].lane != outs[i-1].lane || outs[i].seq != outs[i-1].seq {
			from = append(from, i)
		}
	}
	n.noteSpace(link, outs, outcomes)
	failed := make([]error, len(from))
	n.Together(len(from), func(k int) {
		i, j := from[k], len(outs)
		if k+1 < len(from) {
			j = from[k+1]
		}
		failed[k] = n.settleEntry(ctx, link, outs[i:j], outcomes[i:j])
	})
	return errors.Join(failed...)
}

func has(o Outcome) bool {
	return o.Status == Taken || o.Status == Duplicate || o.Status == Postponed
}

// startOver says that the neighbour misses what the item belongs to.
func startOver(o Outcome) bool { return o.Status == Damaged && o.Reason == reasonHeaderMissing }

func (n *Node) settleEntry(ctx context.Context, link string, outs []Out, outcomes []Outcome) error {
	o := outs[0]
	n.noteOutcomes(o, slices.ContainsFunc(outcomes, func(c Outcome) bool { return c.Status == Damaged && !turnedAway(c) }))
	if !slices.ContainsFunc(outcomes, func(c Outcome) bool { return has(c) || c.Status == Refused || startOver(c) }) {
		return nil
	}
	if o.Kind == KindDirectory {
		return n.settleDirectory(ctx, link, o, outcomes[0])
	}
	if (o.Kind == KindReceipt || o.Kind == KindRequest) && outcomes[0].Status == Refused {
		// Nobody is told by a receipt: it is shown on both sides of the link.
		if err := n.Quarantine(ctx, link, o.Kind+" "+o.ID, "refused by the neighbour: "+outcomes[0].Reason, nil); err != nil {
			return err
		}
	}
	err := n.updateLane(ctx, o.lane, func(tx queue.Tx) error {
		if o.Kind != KindHeader && o.Kind != KindConsignment && o.Kind != KindPart {
			return n.settleSmall(tx, link, o, outcomes[0])
		}
		out, err := records.Outgoing.Lock(tx, o.entry.Envelope, link, o.entry.Object)
		if err != nil || out == nil || out.State != records.StateQueued && out.State != records.StateParked {
			return err
		}
		return n.settleOutbound(tx, link, o.entry, out, outs, outcomes)
	})
	if errors.Is(err, records.ErrUnreadable) && ctx.Err() == nil { // it stays where it is, and nothing beside it waits
		n.ShowDamage(ctx, placeName(o.lane, o.seq), err)
		return nil
	}
	return err
}

// settleSmall ends the way of what is one item. That a receipt or a request was
// handed over has a leaf: should the neighbour lose its disk, it is given again.
func (n *Node) settleSmall(tx queue.Tx, link string, o Out, outcome Outcome) error {
	how := ended
	if has(outcome) {
		how = acked
	}
	if o.Kind != KindOwnHeader && has(outcome) {
		leaf, err := n.leaf(tx, eventHanded, o.entry.Envelope, o.entry.Object)
		if err == nil && o.entry.Again {
			err = handedAgain(tx, link, o.entry, leaf)
		}
		if err != nil {
			return err
		}
	}
	return leave(tx, link, o.lane, o.seq, how)
}

// settleOutbound enters what the neighbour said of one entry's items. Wherever
// the entry stands by now, it leaves when it is handed over or refused.
func (n *Node) settleOutbound(tx queue.Tx, link string, e laneEntry, out *records.Outbound, outs []Out, outcomes []Outcome) error {
	refused := mark(out, outs, outcomes)
	switch {
	case slices.Contains(unended, refused) && out.State == records.StateParked:
		out.Reason = refused
	case slices.Contains(unended, refused):
		out.Declined = declined(out, outs)
		return n.parkIn(tx, link, e, out, refused)
	case refused != "":
		out.State, out.Reason = records.StateRefused, refused
	case out.Header && out.Slots && allBits(out.Parts, out.Count):
		out.State, out.Reason = records.StateHanded, ""
	}
	if out.State == records.StateRefused || out.State == records.StateHanded {
		if err := n.endOutbound(tx, link, e, out); err != nil {
			return err
		}
	}
	return records.Outgoing.Put(tx, out, e.Envelope, link, e.Object)
}

// declined says whether a refusal proves that the neighbour has nothing to
// answer for: nothing of it left in any other bundle, and of this one it did not
// take the consignment.
func declined(out *records.Outbound, outs []Out) bool {
	return outs[0].first && !out.Left && !out.Header && !out.Slots
}

// noteOutcomes holds back what met damage, and says whether it did before.
func (n *Node) noteOutcomes(o Out, damaged bool) (again bool) {
	switch {
	case o.Kind == KindDirectory && damaged:
		n.pauses.failed(o.lane, o.seq, n.c.Now(), nil)
	case o.Kind == KindDirectory:
		n.pauses.succeeded(o.lane)
	case damaged:
		return n.lanes.failed(o.lane, o.seq, n.c.Now(), nil)
	default:
		n.lanes.succeeded(o.lane, o.seq)
	}
	return false
}

// mark enters the outcomes of one entry's items and says why one was refused.
func mark(out *records.Outbound, outs []Out, outcomes []Outcome) (refused string) {
	for k, c := range outcomes {
		if c.Status == Refused {
			refused = c.Reason
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
	return refused
}

// endOutbound passes custody on, or gives up what the neighbour refused for
// good; its REJECTED receipt comes by itself.
func (n *Node) endOutbound(tx queue.Tx, link string, e laneEntry, out *records.Outbound) error {
	event, how := eventEnded, ended
	if out.State == records.StateHanded {
		event, how = eventHanded, acked
	}
	leaf, err := n.leaf(tx, event, e.Envelope, e.Envelope)
	if err == nil && e.Again && how == acked {
		err = handedAgain(tx, link, e, leaf)
	}
	if err != nil {
		return err
	}
	return leave(tx, link, out.Lane, out.Seq, how)
}

// Unreadable notes that a stored item could not be read when it was to be
// sent: it is shown to the operator, once, and held back with growing pauses,
// while everything else goes on.
func (n *Node) Unreadable(ctx context.Context, link string, o Out) {
	if n.noteOutcomes(o, true) {
		return
	}
	// The pause already keeps the link alive; a failing note must not stop it.
	_ = n.Quarantine(ctx, link, o.Kind+" "+o.ID, reasonStored, nil)
}
