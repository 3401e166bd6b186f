package node

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// Over https a bundle that is not answered is forgotten, and what it carried goes
// into the next one. A ferry's answers come after hours, or with the next medium:
// so what is in a bundle is noted durably, its entries stay in their lanes until
// the neighbour says that it has them, and no later bundle carries them but as a
// copy of the same bytes.
//
// Lanes need no mark of what is under way: a bundle takes from behind the last
// entry that is in one ([records.FerryOut]), and what has to go once more is put
// at the end of its lane.

// Load is what goes into one bundle of a ferry.
type Load struct {
	Outs []Out

	before, behind records.FerryOut
	entries        []records.FerryEntry
	again          uint64 // the bundle that it is taken out of; 0 for none

	Chain *Linkage // over a link of one way
}

// Entries says how many lane entries a load has something of.
func (l *Load) Entries() int { return len(l.entries) }

// FerryState reads how far a link is; it is begun if it is not.
func (n *Node) FerryState(ctx context.Context, link string, epoch func() string) (*records.FerryOut, error) {
	var row *records.FerryOut
	get := func(tx queue.Tx) (err error) {
		row, err = records.FerryOuts.Get(tx, link)
		return err
	}
	oneWay := n.Way(link) == WayOut
	if err := n.view(ctx, get); err != nil || row != nil && row.Ledger == n.ledgerID && row.OneWay == oneWay {
		return row, err
	}
	if err := n.recallBundles(ctx, link); err != nil {
		return nil, err
	}
	begun := epoch()
	err := n.update(ctx, func(tx queue.Tx) error {
		have, err := records.FerryOuts.Lock(tx, link)
		if err != nil {
			return err
		}
		row = &records.FerryOut{Epoch: begun, Ledger: n.ledgerID, OneWay: oneWay}
		if have == nil {
			return records.FerryOuts.Insert(tx, row, link)
		}
		row.Wrong, row.Pause, row.Until = have.Wrong, have.Pause, have.Until
		row.After, row.Part, row.PartOf, row.Under = have.After, have.Part, have.PartOf, have.Under
		return records.FerryOuts.Put(tx, row, link)
	})
	return row, err
}

// recallBundles puts back what was under way when the store was restored: nobody
// will acknowledge it under the new epoch.
func (n *Node) recallBundles(ctx context.Context, link string) error {
	for {
		list, err := n.FerryBundles(ctx, link, 0, 100)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, b := range list {
			if err := n.PutBack(ctx, link, b); err != nil {
				return err
			}
		}
	}
}

// NumberedBundle is a bundle's row with its number.
type NumberedBundle struct {
	Seq uint64
	Row records.FerryBundle
}

// FerryBundles gives bundles of a link that are not acknowledged, behind a number.
func (n *Node) FerryBundles(ctx context.Context, link string, after uint64, limit int) (list []NumberedBundle, err error) {
	err = n.view(ctx, func(tx queue.Tx) error {
		list = nil
		return records.FerryBundles.EachBehind(tx, limit, func(key []byte, b *records.FerryBundle) bool {
			list = append(list, NumberedBundle{lastNumber(key), *b})
			return true
		}, []any{link}, after)
	})
	return list, err
}

// NextLoad chooses what goes into the next bundle: from the top lane down, what is
// in none yet. It is empty when nothing waits, or an operator holds the link; outside
// the hours of the link it has no documents. With prev it is what follows that load,
// which need not be committed yet.
func (n *Node) NextLoad(ctx context.Context, link string, prev *Load, maxBytes int64, maxItems int) (*Load, error) {
	l := new(Load)
	if _, held := n.LinkHold(link); held || n.Way(link) == WayIn {
		return l, nil
	}
	b := &batch{room: maxBytes, items: maxItems}
	if prev != nil {
		l.before, l.behind = prev.behind, prev.behind
	} else if err := n.beginLoads(ctx, link, l, b); err != nil {
		return nil, err
	}
	for rank := topRank; rank >= n.lowestOpen(link); rank-- {
		if full, err := n.loadLane(ctx, link, rank, l, b); full || err != nil {
			return l, err
		}
	}
	return l, nil
}

// beginLoads begins where the last committed bundle ended, with the directory first if
// the neighbour needs it.
func (n *Node) beginLoads(ctx context.Context, link string, l *Load, b *batch) error {
	err := n.view(ctx, func(tx queue.Tx) error {
		row, err := records.FerryOuts.Get(tx, link)
		if row != nil {
			l.before, l.behind = *row, *row
		}
		return err
	})
	if err != nil {
		return err
	}
	if n.Way(link) == WayOut {
		err = n.addDirectoryUnasked(ctx, link, b, l.before.Directory)
	} else {
		err = n.addDirectory(ctx, link, b, nil)
	}
	for _, o := range b.first {
		l.Outs, l.entries = append(l.Outs, o), append(l.entries, records.FerryEntry{Rank: -1, Seq: o.seq, Items: 1})
	}
	return err
}

// loadLane takes from one lane; full says that the bundle has no room for what
// comes next.
func (n *Node) loadLane(ctx context.Context, link string, rank int, l *Load, room *batch) (full bool, err error) {
	lane := laneName(link, rank)
	for {
		var list []laneItem
		err := n.view(ctx, func(tx queue.Tx) (err error) {
			list, err = readLane(tx, lane, l.behind.After[rank], laneWindow)
			return err
		})
		if err != nil || len(list) == 0 {
			return false, err
		}
		for _, e := range list {
			if full, err := n.loadEntry(ctx, link, rank, e, l, room); full || err != nil {
				return full, err
			}
		}
	}
}

func (n *Node) loadEntry(ctx context.Context, link string, rank int, e laneItem, l *Load, room *batch) (full bool, err error) {
	lane, from := laneName(link, rank), 0
	if of := l.behind.PartOf[rank]; of == 0 || of == e.seq { // else that one left its lane, or stands at the end of it
		from = l.behind.Part[rank]
	}
	outs, parts, err := n.expandFrom(ctx, link, lane, e, from, room.room)
	if bad := (unreadable{}); errors.As(err, &bad) && ctx.Err() == nil {
		n.Unreadable(ctx, link, Out{Item: Item{Kind: e.Kind, ID: e.Envelope.String()}, lane: lane, seq: e.seq})
		l.behind.After[rank], l.behind.Part[rank] = e.seq, 0
		return false, nil
	}
	if err != nil {
		return false, err
	}
	taken := fitting(outs, room, len(l.Outs) == 0)
	if taken < len(outs) && len(l.Outs) > 0 || taken == 0 && len(outs) > 0 {
		return true, nil // one that begins in a bundle of its own is cut less often
	}
	if taken > 0 { // else nothing of it is to leave any more
		one := entryOf(rank, e.seq, outs[:taken])
		l.Outs, l.entries = append(l.Outs, outs[:taken]...), append(l.entries, one)
		if one.To > 0 && (taken < len(outs) || one.To < parts) {
			l.behind.Part[rank], l.behind.PartOf[rank] = one.To, e.seq
			return true, nil
		}
	}
	l.behind.After[rank], l.behind.Part[rank] = e.seq, 0
	return false, nil
}

// fitting is how many of an entry's items go in, parts in one run; the first of a
// bundle do in any case, up to its first part.
func fitting(outs []Out, room *batch, first bool) (taken int) {
	for i := range outs {
		if i > 0 && outs[i-1].Kind == KindPart && outs[i].part != outs[i-1].part+1 {
			break
		}
		if !room.fits(&outs[i]) && !(first && (i == 0 || outs[i-1].Kind != KindPart)) {
			break
		}
		room.room -= outs[i].Size
		room.items--
		taken++
	}
	return taken
}

func entryOf(rank int, seq uint64, outs []Out) records.FerryEntry {
	e := records.FerryEntry{Rank: rank, Seq: seq, Items: len(outs)}
	for _, o := range outs {
		switch o.Kind {
		case KindHeader:
			e.Header = true
		case KindConsignment:
			e.Slots = true
		case KindPart:
			if e.To == 0 {
				e.From = o.part
			}
			e.To = o.part + 1
		}
	}
	return e
}

// CommitLoad fixes a bundle's list under its number, before its first byte leaves.
// With ok false the lanes have changed meanwhile, and the bundle must not leave. A
// crash before the commit leaves the number to another bundle.
func (n *Node) CommitLoad(ctx context.Context, link string, l *Load, seq uint64, header sm.Digest, size int64) (ok bool, err error) {
	fresh := n.unmarked(l.Outs)
	row := &records.FerryBundle{Header: header, Size: size, Made: n.now(), Entries: l.entries}
	var chain []byte
	if l.Chain != nil {
		if row.Chain, chain, err = n.sealLinkage(link, seq, l.Chain); err != nil {
			return false, err
		}
	}
	err = n.c.Store.Update(ctx, func(tx queue.Tx) error {
		ok = false
		st, err := records.FerryOuts.Lock(tx, link)
		if err != nil || st == nil || st.Seq+1 != seq {
			return err
		}
		if l.again == 0 && (st.After != l.before.After || st.Part != l.before.Part || st.PartOf != l.before.PartOf) {
			return nil
		}
		all, _, err := raiseMarks(tx, fresh)
		if err != nil || !all {
			return err
		}
		if st.Seq = seq; l.again == 0 {
			st.After, st.Part, st.PartOf = l.behind.After, l.behind.Part, l.behind.PartOf
		} else if err := n.takeOut(tx, link, l, &st.Under); err != nil {
			return err
		}
		if st.OneWay {
			st.Chain, st.Directory = chain, max(st.Directory, directoryIn(l.entries))
		}
		countIn(&st.Under, row)
		if err := records.FerryOuts.Put(tx, st, link); err != nil {
			return err
		}
		ok = true
		return records.FerryBundles.Insert(tx, row, link, seq)
	})
	if err != nil || !ok {
		return false, err
	}
	for _, p := range fresh {
		n.offered.raise(p.lane, p.seq)
	}
	return true, nil
}

// takeOut leaves of an older bundle what is not in the new one.
func (n *Node) takeOut(tx queue.Tx, link string, l *Load, under *records.UnderWay) error {
	old, err := records.FerryBundles.Lock(tx, link, l.again)
	if err != nil || old == nil {
		return err
	}
	old.Entries = slices.DeleteFunc(old.Entries, func(e records.FerryEntry) bool { return slices.Contains(l.entries, e) })
	if len(old.Entries) == 0 {
		countOut(under, old)
		return records.FerryBundles.Delete(tx, link, l.again)
	}
	return records.FerryBundles.Put(tx, old, link, l.again)
}

// Halves takes apart what a bundle carries, for bundles of their own with other
// bytes: in halves, or the one entry that there is. What has left its lane since is
// in none of them.
func (n *Node) Halves(ctx context.Context, link string, b NumberedBundle) ([]*Load, error) {
	type standing struct {
		entry records.FerryEntry
		outs  []Out
	}
	var all []standing
	for _, e := range b.Row.Entries {
		outs, err := n.outsOf(ctx, link, e)
		if err != nil {
			return nil, err
		}
		if len(outs) == e.Items {
			all = append(all, standing{e, outs})
		}
	}
	var loads []*Load
	for part := range slices.Chunk(all, max(1, (len(all)+1)/2)) {
		l := &Load{again: b.Seq}
		for _, one := range part {
			l.Outs, l.entries = append(l.Outs, one.outs...), append(l.entries, one.entry)
		}
		loads = append(loads, l)
	}
	return loads, nil
}

// outsOf gives the items of an entry of a bundle again; none when it has left its
// lane, or cannot be read.
func (n *Node) outsOf(ctx context.Context, link string, e records.FerryEntry) ([]Out, error) {
	if e.Rank < 0 {
		return nil, nil // the next bundle brings the newest
	}
	item, err := n.entryAt(ctx, laneName(link, e.Rank), e.Seq)
	if item == nil || err != nil {
		return nil, err
	}
	outs, _, err := n.expandFrom(ctx, link, laneName(link, e.Rank), *item, e.From, 1<<62)
	if bad := (unreadable{}); errors.As(err, &bad) && ctx.Err() == nil {
		return nil, nil
	}
	return slices.DeleteFunc(outs, func(o Out) bool { return o.Kind == KindPart && o.part >= e.To }), err
}

func (n *Node) entryAt(ctx context.Context, lane string, seq uint64) (item *laneItem, err error) {
	err = n.view(ctx, func(tx queue.Tx) error {
		list, err := readLane(tx, lane, seq-1, 1)
		if len(list) == 1 && list[0].seq == seq {
			item = &list[0]
		}
		return err
	})
	return item, err
}

// SettleLoad notes what the neighbour said of a bundle, of nil that it has all of
// it, and forgets the bundle. What it does not have goes to the end of its lane. A
// crash in between lets it be settled again, which changes nothing.
func (n *Node) SettleLoad(ctx context.Context, link string, b NumberedBundle, said []Outcome) error {
	return n.settleLoad(ctx, link, b, said, nil)
}

func (n *Node) settleLoad(ctx context.Context, link string, b NumberedBundle, said []Outcome, count func(*records.FerryOut)) error {
	items := 0
	for _, e := range b.Row.Entries {
		items += e.Items
	}
	if said != nil && len(said) != items {
		return ErrNotItsItems
	}
	var outs []Out
	var outcomes []Outcome
	var lacking []records.FerryEntry
	at := 0
	for _, e := range b.Row.Entries {
		their := taken(e.Items)
		if said != nil {
			their = said[at : at+e.Items]
		}
		at += e.Items
		if slices.ContainsFunc(their, func(o Outcome) bool { return !has(o) && o.Status != Refused }) {
			lacking = append(lacking, e)
		}
		list, err := n.carried(ctx, link, e)
		if err != nil {
			return err
		}
		if len(list) == e.Items {
			outs, outcomes = append(outs, list...), append(outcomes, their...)
		}
	}
	if err := n.Settle(ctx, link, outs, outcomes); err != nil {
		return err
	}
	return n.putBack(ctx, link, b.Seq, lacking, count)
}

// ErrNotItsItems: the neighbour speaks of another number of items than a bundle had.
var ErrNotItsItems = errors.New("node: an answer about other items than the bundle had")

func taken(n int) []Outcome {
	out := make([]Outcome, n)
	for i := range out {
		out[i].Status = Taken
	}
	return out
}

// carried are the items that an entry of a bundle stood for, without their bytes;
// none when it has left its lane.
func (n *Node) carried(ctx context.Context, link string, e records.FerryEntry) ([]Out, error) {
	if e.Rank < 0 {
		return []Out{{Item: Item{Kind: KindDirectory}, lane: directoryLane(link), seq: e.Seq}}, nil
	}
	item, err := n.entryAt(ctx, laneName(link, e.Rank), e.Seq)
	if item == nil || err != nil {
		return nil, err
	}
	o := Out{Item: Item{Kind: item.Kind, ID: item.Envelope.String()}, lane: laneName(link, e.Rank), seq: e.Seq, entry: item.laneEntry}
	if item.Kind != KindHeader {
		return []Out{o}, nil
	}
	var outs []Out
	add := func(is bool, kind string, part int) {
		if o.Kind, o.part = kind, part; is {
			outs = append(outs, o)
		}
	}
	add(e.Header, KindHeader, 0)
	add(e.Slots, KindConsignment, 0)
	for i := e.From; i < e.To; i++ {
		add(true, KindPart, i)
	}
	return outs, nil
}

// PutBack puts what stands of a bundle at the end of its lanes, to go into others, and
// forgets the bundle. A crash in between lets it be done again.
func (n *Node) PutBack(ctx context.Context, link string, b NumberedBundle) error {
	return n.putBack(ctx, link, b.Seq, b.Row.Entries, nil)
}

// putBack puts entries of a bundle at the end of their lanes, as far as they still
// stand, and forgets the bundle with the last of them; count, if any, enters that in
// the books of the link.
func (n *Node) putBack(ctx context.Context, link string, seq uint64, entries []records.FerryEntry, count func(*records.FerryOut)) error {
	for {
		step := entries[:min(len(entries), fanStep)]
		entries = entries[len(step):]
		err := n.update(ctx, func(tx queue.Tx) error {
			for _, e := range step {
				if err := n.putEntryBack(tx, link, e); err != nil {
					return err
				}
			}
			if len(entries) > 0 {
				return nil
			}
			return forgetBundle(tx, link, seq, count)
		})
		if err != nil || len(entries) == 0 {
			return err
		}
	}
}

func (n *Node) putEntryBack(tx queue.Tx, link string, e records.FerryEntry) error {
	if e.Rank < 0 { // the next bundle brings the newest
		return nil
	}
	lane := laneName(link, e.Rank)
	if there, err := queue.Stands(tx, lane, e.Seq); !there || err != nil {
		return err
	}
	list, err := readLane(tx, lane, e.Seq-1, 1)
	if err != nil || len(list) == 0 || list[0].seq != e.Seq || list[0].Kind == kindUnreadable {
		return err
	}
	entry := list[0].laneEntry
	if entry.Kind == KindHeader {
		return n.moveOutbound(tx, link, lane, e.Seq, entry)
	}
	if err := queue.Dequeue(tx, lane, e.Seq); err != nil {
		return err
	}
	grows(tx, link)
	entry.Since = n.now()
	_, err = enqueueEntry(tx, lane, entry)
	return err
}

// moveOutbound puts a document at the end of its lane, and keeps that it may have
// left.
func (n *Node) moveOutbound(tx queue.Tx, link, lane string, seq uint64, entry laneEntry) error {
	out, err := records.Outgoing.Lock(tx, entry.Envelope, link, entry.Object)
	if errors.Is(err, records.ErrUnreadable) { // nobody can send it; it is no reason to keep the bundle
		return nil
	}
	if err != nil || out == nil || out.State != records.StateQueued || out.Lane != lane || out.Seq != seq {
		return err
	}
	if out.Left, err = mayHaveLeft(tx, out); err != nil {
		return err
	}
	if err := queue.Dequeue(tx, lane, seq); err != nil {
		return err
	}
	grows(tx, link)
	entry.Since = n.now()
	if out.Seq, err = enqueueEntry(tx, lane, entry); err != nil {
		return err
	}
	return records.Outgoing.Put(tx, out, entry.Envelope, link, entry.Object)
}

// lastNumber reads the number that ends a row's key.
func lastNumber(key []byte) uint64 { return binary.BigEndian.Uint64(key[len(key)-8:]) }

// FerryRound begins an export: the next round, the lowest bundle that is waited for,
// and the last. It is durable before a byte of the round leaves.
func (n *Node) FerryRound(ctx context.Context, link string) (round, from, last uint64, err error) {
	var at, lowest, highest uint64
	err = n.update(ctx, func(tx queue.Tx) error {
		st, err := records.FerryOuts.Lock(tx, link)
		if err != nil || st == nil {
			return errors.Join(err, absent(st == nil && err == nil, "state of the ferry"))
		}
		st.Round++
		at, lowest, highest = st.Round, st.Seq+1, st.Seq
		err = records.FerryBundles.Each(tx, 1, func(key []byte, _ *records.FerryBundle) bool {
			lowest = lastNumber(key)
			return false
		}, link)
		return errors.Join(err, records.FerryOuts.Put(tx, st, link))
	})
	if err != nil {
		return 0, 0, 0, err
	}
	return at, lowest, highest, nil
}

// FerryLeft notes that bundles left in a round.
func (n *Node) FerryLeft(ctx context.Context, link string, round uint64, list []NumberedBundle) error {
	now := n.now()
	return n.changeBundles(ctx, link, list, func(b *records.FerryBundle) {
		if b.Left > 0 {
			b.Again++
		}
		b.Left, b.Lost = round, false
		if len(b.Chain) > 0 {
			b.LeftAt = now
		}
	})
}

// FerryLost notes that bundles did not arrive in the round in which they left.
func (n *Node) FerryLost(ctx context.Context, link string, list []NumberedBundle) error {
	return n.changeBundles(ctx, link, list, func(b *records.FerryBundle) { b.Lost = true })
}

func (n *Node) changeBundles(ctx context.Context, link string, list []NumberedBundle, change func(*records.FerryBundle)) error {
	for step := range slices.Chunk(list, 20) { // each row may have 64 KiB
		err := n.update(ctx, func(tx queue.Tx) error {
			st, err := records.FerryOuts.Lock(tx, link)
			if err != nil || st == nil {
				return errors.Join(err, absent(st == nil && err == nil, "state of the ferry"))
			}
			for _, one := range step {
				b, err := records.FerryBundles.Lock(tx, link, one.Seq)
				if err != nil {
					return err
				}
				if b == nil { // settled meanwhile
					continue
				}
				countOut(&st.Under, b)
				change(b)
				countIn(&st.Under, b)
				if err := records.FerryBundles.Put(tx, b, link, one.Seq); err != nil {
					return err
				}
			}
			return records.FerryOuts.Put(tx, st, link)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
