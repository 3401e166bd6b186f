package node

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// What has come over a ferry is told again and again, until the neighbour has heard
// it: a note says up to which bundle all are here, which others are, and of which
// of them something is lacking. It is a row, so that it survives a crash: a bundle
// whose items are here and that is not in it comes once more.

// The bounds of what a note says. A bundle that would go beyond them counts as not
// here, and comes again.
const (
	MaxFerryRanges = 256
	MaxFerryLacks  = 64
)

// FerryArrivals reads what is here of a link's neighbour; empty at the beginning.
func (n *Node) FerryArrivals(ctx context.Context, link string) (*records.FerryIn, error) {
	row := new(records.FerryIn)
	err := n.view(ctx, func(tx queue.Tx) error {
		have, err := records.FerryIns.Get(tx, link)
		if have != nil {
			row = have
		}
		return err
	})
	return row, err
}

// FerryHeard notes the round of a neighbour's note, and the lowest bundle that it
// waits for: whatever is below is settled or given up.
func (n *Node) FerryHeard(ctx context.Context, link, epoch string, round, from uint64) error {
	return n.changeArrivals(ctx, link, epoch, func(_ queue.Tx, row *records.FerryIn) error {
		row.Round, row.At = max(row.Round, round), n.now()
		if from > 0 && from-1 > row.UpTo {
			row.UpTo = from - 1
		}
		row.Lacks = slices.DeleteFunc(row.Lacks, func(t records.FerryTrouble) bool { return t.Seq < from })
		row.Ranges = joined(row.Ranges, &row.UpTo)
		return nil
	})
}

// FerryArrived notes a bundle that is here whole, and what became of its items. One
// of which something was not answered, or for which there is no room, is not noted.
func (n *Node) FerryArrived(ctx context.Context, link, epoch string, seq uint64, outcomes []Outcome) error {
	if slices.ContainsFunc(outcomes, func(o Outcome) bool { return o.Status == "" }) {
		return nil
	}
	var said []byte
	if slices.ContainsFunc(outcomes, func(o Outcome) bool { return !has(o) }) {
		var err error
		if said, err = json.Marshal(outcomes); err != nil {
			return err
		}
	}
	return n.changeArrivals(ctx, link, epoch, func(_ queue.Tx, row *records.FerryIn) error {
		if !isHere(row, seq) && (said == nil || len(row.Lacks) < MaxFerryLacks) {
			noteHere(row, seq, said)
		}
		return nil
	})
}

// noteHere notes a bundle, and what is lacking of it; it says whether there was room.
func noteHere(row *records.FerryIn, seq uint64, said []byte) bool {
	i, _ := slices.BinarySearchFunc(row.Ranges, seq, func(r [2]uint64, s uint64) int {
		if r[0] < s {
			return -1
		}
		return 1
	})
	upTo := row.UpTo
	ranges := joined(slices.Insert(slices.Clone(row.Ranges), i, [2]uint64{seq, seq}), &upTo)
	if len(ranges) > MaxFerryRanges { // not told, so it comes again
		return false
	}
	row.Ranges, row.UpTo = ranges, upTo
	if said != nil {
		row.Lacks = append(row.Lacks, records.FerryTrouble{Seq: seq, Outcomes: said})
	}
	return true
}

// changeArrivals changes the row of the neighbour's newest epoch. Epochs rise with
// the time at which they begin; what an older one says changes nothing.
func (n *Node) changeArrivals(ctx context.Context, link, epoch string, change func(queue.Tx, *records.FerryIn) error) error {
	return n.update(ctx, func(tx queue.Tx) error {
		row, err := records.FerryIns.Lock(tx, link)
		if err != nil {
			return err
		}
		first := row == nil
		if first || epoch > row.Epoch {
			row = &records.FerryIn{Epoch: epoch}
		}
		if epoch < row.Epoch {
			return nil
		}
		if err := change(tx, row); err != nil {
			return err
		}
		if first {
			return records.FerryIns.Insert(tx, row, link)
		}
		return records.FerryIns.Put(tx, row, link)
	})
}

func isHere(row *records.FerryIn, seq uint64) bool {
	return seq <= row.UpTo || slices.ContainsFunc(row.Ranges, func(r [2]uint64) bool { return r[0] <= seq && seq <= r[1] })
}

// joined joins ranges that touch, and moves upTo over those that begin behind it.
func joined(ranges [][2]uint64, upTo *uint64) (out [][2]uint64) {
	for _, r := range ranges {
		last := len(out) - 1
		switch {
		case r[0] <= *upTo+1:
			*upTo = max(*upTo, r[1])
		case last >= 0 && r[0] <= out[last][1]+1:
			out[last][1] = max(out[last][1], r[1])
		default:
			out = append(out, r)
		}
	}
	return out
}
