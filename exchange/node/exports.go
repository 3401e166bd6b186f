package node

import (
	"context"
	"errors"
	"strings"

	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// The outgoing side of a link's books. One thing that a link is given to carry is
// one: a document for the recipients behind the next hop, a receipt, a request.
// It counts as exported in the transaction that puts it into a lane of the link
// for the first time, and as acked or ended in the one that takes it out for good;
// moving it to another place, parking it and requeuing it change nothing. What is
// outstanding is not counted here but by the lanes themselves, so that the two
// must agree: exported = acked + ended + what the lanes hold.
//
// Rows whose value cannot be read stop no document: nothing is entered in them any
// more, and fsck, the status of the link and the doctor say so.

// leaving is how an entry leaves a link's lanes for good.
type leaving int

const (
	acked leaving = iota // the neighbour has it
	ended                // it was refused, given up, recalled, or is past its time
)

func noteExported(tx queue.Tx, link string) error {
	return changeOutBook(tx, link, func(b *records.OutBook) { b.Exported++ })
}

// leave takes an entry out of a lane for good. One that is gone was counted when
// it left: an ack may come twice.
func leave(tx queue.Tx, link, lane string, seq uint64, how leaving) error {
	there, err := queue.Take(tx, lane, seq)
	if !there || err != nil {
		return err
	}
	return changeOutBook(tx, link, func(b *records.OutBook) {
		if how == acked {
			b.Acked++
		} else {
			b.Ended++
		}
	})
}

func changeOutBook(tx queue.Tx, link string, change func(*records.OutBook)) error {
	b, err := records.OutBooks.Lock(tx, link)
	if errors.Is(err, records.ErrUnreadable) {
		return nil
	}
	if err != nil {
		return err
	}
	first := b == nil
	if first {
		b = new(records.OutBook)
	}
	change(b)
	if first {
		return records.OutBooks.Insert(tx, b, link)
	}
	return records.OutBooks.Put(tx, b, link)
}

// openBooks gives links whose lanes an earlier version of this program filled a
// book that begins with what stands in them. A crash in between opens the rest at
// the next start.
func (n *Node) openBooks(ctx context.Context) error {
	var links []string
	err := n.view(ctx, func(tx queue.Tx) error {
		links = nil
		return eachStanding(tx, func(link string, _ uint64) error {
			row, err := tx.Get(records.OutBooks.Key(link))
			if row == nil && err == nil {
				links = addOnce(links, link)
			}
			return err
		})
	})
	for _, link := range links {
		if err == nil {
			err = n.c.Store.Update(ctx, func(tx queue.Tx) error { return openBook(tx, link) })
		}
	}
	return err
}

func openBook(tx queue.Tx, link string) error {
	b, err := records.OutBooks.Lock(tx, link)
	if b != nil || err != nil {
		return err
	}
	standing, err := outstanding(tx, link)
	if err != nil {
		return err
	}
	return records.OutBooks.Insert(tx, &records.OutBook{Exported: standing}, link)
}

// outstanding is what stands in the lanes of a link, waits for approval, or is among
// its dead letters.
func outstanding(tx queue.Tx, link string) (sum uint64, err error) {
	lanes := []string{parkedLane(link)}
	for rank := range topRank + 1 {
		lanes = append(lanes, laneName(link, rank), guardLane(link, rank))
	}
	for _, lane := range lanes {
		n, err := queue.Waiting(tx, lane)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// linkOfLane is the link whose entries a lane has, those parked included.
func linkOfLane(lane string) (link string, ok bool) {
	if link, ok = strings.CutPrefix(lane, parkedPrefix); ok {
		return link, true
	}
	link, _, ok = waitsIn(lane)
	return link, ok
}

// eachStanding visits the lanes of links that hold something.
func eachStanding(tx queue.Tx, visit func(link string, waiting uint64) error) error {
	for _, prefix := range []string{"out/", guardPrefix, parkedPrefix} {
		for c, err := range queue.Counts(tx, prefix) {
			if err != nil {
				return err
			}
			link, out := linkOfLane(c.Lane)
			if !out || c.Waiting == 0 {
				continue
			}
			if err := visit(link, c.Waiting); err != nil {
				return err
			}
		}
	}
	return nil
}

// countIn and countOut enter a ferry's bundle in the counts of its link, and take
// it out.
func countIn(u *records.UnderWay, b *records.FerryBundle) {
	u.Bundles++
	u.Bytes += b.Size
	if b.Lost {
		u.Lost++
	}
}

func countOut(u *records.UnderWay, b *records.FerryBundle) {
	u.Bundles--
	u.Bytes -= b.Size
	if b.Lost {
		u.Lost--
	}
}

// forgetBundle removes a ferry's bundle that was settled, and counts it once, however
// often it is done; count may be nil.
func forgetBundle(tx queue.Tx, link string, seq uint64, count func(*records.FerryOut)) error {
	st, err := records.FerryOuts.Lock(tx, link)
	if err != nil {
		return err
	}
	b, err := records.FerryBundles.Lock(tx, link, seq)
	if b == nil || err != nil {
		return err
	}
	if st != nil {
		if countOut(&st.Under, b); count != nil {
			count(st)
		}
		if err := records.FerryOuts.Put(tx, st, link); err != nil {
			return err
		}
	}
	return records.FerryBundles.Delete(tx, link, seq)
}
