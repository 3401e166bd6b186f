package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// Books count what arrived on a link: Arrived is the sum of the others.
type Books = records.Books

// CountArrived enters the outcomes of one bundle's items in the link's books.
// It is the last commit of a bundle: after a crash before it the bundle comes
// again and its items count as duplicates.
func (n *Node) CountArrived(ctx context.Context, link string, outcomes []Outcome) error {
	return n.c.Store.Update(ctx, func(tx queue.Tx) error {
		b, err := records.BookRows.Lock(tx, link)
		if errors.Is(err, records.ErrUnreadable) {
			return nil // as with the books of the other side (exports.go)
		}
		if err != nil {
			return err
		}
		first := b == nil
		if first {
			b = new(records.Books)
		}
		for _, o := range outcomes {
			count(b, o.Status)
		}
		if first {
			return records.BookRows.Insert(tx, b, link)
		}
		return records.BookRows.Put(tx, b, link)
	})
}

func count(b *records.Books, status string) {
	switch status {
	case Taken:
		b.Accepted++
	case Duplicate:
		b.Duplicate++
	case Refused:
		b.Refused++
	case Postponed:
		b.Deferred++
	case Damaged:
		b.Damaged++
	default:
		return // not answered: it does not count as arrived
	}
	b.Arrived++
}

// LinkBooks gives the books of a link.
func (n *Node) LinkBooks(ctx context.Context, link string) (Books, error) {
	var b *records.Books
	err := n.view(ctx, func(tx queue.Tx) (err error) {
		b, err = records.BookRows.Get(tx, link)
		return err
	})
	if b == nil {
		b = new(records.Books)
	}
	return *b, err
}

// Quarantine keeps what could not be used where the operator sees it. The
// newest records.QuarantineSize are kept.
func (n *Node) Quarantine(ctx context.Context, link, what, reason string, sample []byte) error {
	if len(sample) > records.SampleSize {
		sample = sample[:records.SampleSize]
	}
	row := &records.Quarantined{At: n.now(), Link: link, What: what, Reason: reason, Sample: sample}
	return n.c.Store.Update(ctx, func(tx queue.Tx) error {
		no, err := records.QuarantineNo.Lock(tx)
		if err != nil {
			return err
		}
		next := uint64(1)
		if no == nil {
			err = records.QuarantineNo.Insert(tx, &next)
		} else {
			next = *no + 1
			err = records.QuarantineNo.Put(tx, &next)
		}
		if err != nil {
			return err
		}
		key := next % records.QuarantineSize
		if _, err := records.Quarantine.Lock(tx, key); err != nil {
			return err
		}
		return records.Quarantine.Put(tx, row, key)
	})
}

// showAgain is how long a damaged object that is asked for again and again is
// not shown once more.
const showAgain = time.Hour

// IsAboutOneItem says of an error that it is about what is stored of one object,
// and not about the store.
func IsAboutOneItem(err error) bool {
	return errors.Is(err, errDamaged) || errors.Is(err, records.ErrUnreadable) || errors.Is(err, queue.ErrNoBlob) || errors.Is(err, queue.ErrTooLarge)
}

// ShowDamage puts an object into the quarantine when err says that its stored
// copy cannot be read; the same one once in a while.
func (n *Node) ShowDamage(ctx context.Context, what string, err error) {
	if name := "damaged/" + what; IsAboutOneItem(err) && n.pauses.ready(name, 0, n.c.Now()) {
		// What cannot be noted now is noted when it is met again.
		if n.Quarantine(ctx, "", what, reasonStored, nil) == nil {
			n.pauses.hold(name, 0, n.c.Now(), showAgain)
		}
	}
}

// placeName names an entry of a lane for the operator: an object of which more is not
// known, or cannot be read.
func placeName(lane string, seq uint64) string { return fmt.Sprintf("entry %d of lane %s", seq, lane) }

// ReasonStored answers for an item of which something is stored here that cannot be
// read.
const ReasonStored = "stored_copy_unreadable"

// reasonStored: it was good when it came, and is no more.
const reasonStored = "stored copy unreadable"

// Quarantined lists the quarantine, newest first.
func (n *Node) Quarantined(ctx context.Context, limit int) ([]records.Quarantined, error) {
	var out []records.Quarantined
	err := n.view(ctx, func(tx queue.Tx) error {
		out = nil
		no, err := records.QuarantineNo.Get(tx)
		if no == nil || err != nil {
			return err
		}
		for k := *no; k > 0 && len(out) < limit && *no-k < records.QuarantineSize; k-- {
			row, err := records.Quarantine.Get(tx, k%records.QuarantineSize)
			if errors.Is(err, records.ErrUnreadable) {
				row, err = &records.Quarantined{What: "entry of the quarantine", Reason: reasonStored}, nil
			}
			if err != nil || row == nil {
				return err
			}
			out = append(out, *row)
		}
		return nil
	})
	return out, err
}
