package node

import (
	"context"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/evidence"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

// Timestamps (docs/spec/ledger-v1.md): now and then a checkpoint is marked, a
// timestamp authority is asked about it from outside this package, and the
// token is noted. Documents never wait for any of it (promise I10).
//
// Neither step writes a leaf. A token changes no document and proves itself;
// a leaf for it would make the ledger grow for its own sake, and an idle node
// would have something new to stamp for ever.

// MaxUnstamped bounds the checkpoints that wait, rows of at most 8 KiB. When
// there would be more, every second one of the older half is dropped: what a
// dropped one would have proven, the next larger one proves with a time that
// is a little later. At one each ten minutes that begins after 3½ days.
const MaxUnstamped = 512

// stampSkew is how far a token's time may be before the checkpoint's own or
// behind this node's clock. Beyond it, one of the two clocks is wrong, and a
// token that evidence would show beside contradicting receipts is not taken.
const stampSkew = 5 * time.Minute

// stampCursor remembers up to which size nothing waits any more, so that the
// oldest is found without walking over deleted rows. It need not survive a
// restart.
type stampCursor struct {
	mu    sync.Mutex
	below uint64
}

// Unstamped is a checkpoint that waits for its timestamp. Imprint, the SM3 of
// the signed checkpoint, is what the authority is asked about: so the token
// proves when the signature existed, not only the root.
type Unstamped struct {
	Size       uint64
	Checkpoint []byte
	Imprint    sm.Digest
	At         time.Time
}

// MarkForStamp notes the ledger's checkpoint as waiting for a timestamp and
// says whether there was one to note: nothing is when the ledger is empty or
// has not grown since the last call. After a crash before the commit the next
// call marks what the ledger has come to then.
func (n *Node) MarkForStamp(ctx context.Context) (bool, error) {
	var size uint64
	var root sm.Digest
	var book *records.StampCount
	err := n.view(ctx, func(tx queue.Tx) (err error) {
		if book, err = records.StampBook.Get(tx, n.ledgerID); err != nil {
			return err
		}
		if size, err = n.ledger.Size(tx); err != nil || size == 0 {
			return err
		}
		root, err = n.ledger.Root(tx, size)
		return err
	})
	if err != nil || size == 0 || book != nil && size <= book.Last {
		return false, err
	}
	signed, err := n.checkpoint(size, root)
	if err != nil {
		return false, err
	}
	marked := false
	err = n.c.Store.Update(ctx, func(tx queue.Tx) (err error) {
		marked, err = n.mark(tx, size, signed)
		return err
	})
	return marked, err
}

func (n *Node) mark(tx queue.Tx, size uint64, signed []byte) (bool, error) {
	book, err := records.StampBook.Lock(tx, n.ledgerID)
	if err != nil {
		return false, err
	}
	row := &records.UnstampedRow{Size: size, CMS: signed, At: n.now()}
	if book == nil {
		if err := records.StampBook.Insert(tx, &records.StampCount{Last: size, Waiting: 1}, n.ledgerID); err != nil {
			return false, err
		}
		return true, records.Unstamped.Insert(tx, row, n.ledgerID, size)
	}
	if book.Last >= size {
		return false, nil // another call was faster
	}
	if book.Waiting >= MaxUnstamped {
		dropped, err := n.thinOut(tx, book.Waiting/2)
		if err != nil {
			return false, err
		}
		book.Waiting -= dropped
	}
	book.Last, book.Waiting = size, book.Waiting+1
	if err := records.Unstamped.Insert(tx, row, n.ledgerID, size); err != nil {
		return false, err
	}
	return true, records.StampBook.Put(tx, book, n.ledgerID)
}

// thinOut drops every second one of the oldest rows that wait, keeping the
// oldest itself.
func (n *Node) thinOut(tx queue.Tx, oldest int) (dropped int, err error) {
	var drop [][]byte
	i := 0
	err = records.Unstamped.Each(tx, oldest, func(key []byte, _ *records.UnstampedRow) bool {
		if i%2 == 1 {
			drop = append(drop, key)
		}
		i++
		return true
	}, n.ledgerID)
	for _, key := range drop {
		if err == nil {
			err = tx.Delete(key)
		}
	}
	return len(drop), err
}

// Unstamped lists checkpoints that wait for a timestamp, the oldest first, at
// most limit (0: all).
func (n *Node) Unstamped(ctx context.Context, limit int) ([]Unstamped, error) {
	n.stamps.mu.Lock()
	below := n.stamps.below
	n.stamps.mu.Unlock()
	var out []Unstamped
	err := n.view(ctx, func(tx queue.Tx) error {
		out = nil
		return records.Unstamped.EachBehind(tx, limit, func(_ []byte, row *records.UnstampedRow) bool {
			out = append(out, Unstamped{Size: row.Size, Checkpoint: row.CMS, Imprint: sm.Sum(row.CMS), At: row.At.Time()})
			return true
		}, []any{n.ledgerID}, below)
	})
	if err == nil && len(out) > 0 { // sizes only grow: nothing can come to wait below these
		n.stamps.mu.Lock()
		defer n.stamps.mu.Unlock()
		n.stamps.below = max(n.stamps.below, out[0].Size-1)
	}
	return out, err
}

// Waiting says how many checkpoints wait for a timestamp, and since when the
// oldest does (zero for none).
func (n *Node) Waiting(ctx context.Context) (count int, since time.Time, err error) {
	err = n.view(ctx, func(tx queue.Tx) error {
		book, err := records.StampBook.Get(tx, n.ledgerID)
		if err == nil && book != nil {
			count = book.Waiting
		}
		return err
	})
	if err != nil || count == 0 {
		return count, since, err
	}
	oldest, err := n.Unstamped(ctx, 1)
	if len(oldest) > 0 {
		since = oldest[0].At
	}
	return count, since, err
}

// Stamped takes the token for a checkpoint that waits, after verifying it
// against the timestamp authorities of the directory. A token that does not
// verify, or whose time contradicts the clocks here, is refused and the
// checkpoint goes on waiting. Once committed the first token stands; a crash
// before costs one more question to the authority.
func (n *Node) Stamped(ctx context.Context, size uint64, token []byte) error {
	var row *records.UnstampedRow
	err := n.view(ctx, func(tx queue.Tx) (err error) {
		row, err = records.Unstamped.Get(tx, n.ledgerID, size)
		return err
	})
	if err != nil || row == nil { // stamped already, or dropped
		return err
	}
	at, err := evidence.VerifyStamp(n.Directory(), row.CMS, token)
	if err != nil {
		return err
	}
	if at.Before(row.At.Time().Add(-stampSkew)) || at.After(n.c.Now().Add(stampSkew)) {
		return exchange.Fail(exchange.CodeSignatureInvalid,
			"the timestamp says %s for a checkpoint of %s, the clock here says %s: check both clocks",
			at.Format(time.RFC3339), row.At.Time().Format(time.RFC3339), n.c.Now().UTC().Format(time.RFC3339))
	}
	return n.c.Store.Update(ctx, func(tx queue.Tx) error { return n.noteStamp(tx, size, token, strictjson.TimeOf(at)) })
}

func (n *Node) noteStamp(tx queue.Tx, size uint64, token []byte, at strictjson.Time) error {
	book, err := records.StampBook.Lock(tx, n.ledgerID)
	if err != nil || book == nil {
		return err
	}
	row, err := records.Unstamped.Lock(tx, n.ledgerID, size)
	if err != nil || row == nil {
		return err // another call was faster; its token stands
	}
	if err := records.Stamps.Insert(tx, &records.Stamp{Size: size, CMS: row.CMS, Token: token, Time: at}, n.ledgerID, size); err != nil {
		return err
	}
	if err := records.Unstamped.Delete(tx, n.ledgerID, size); err != nil {
		return err
	}
	book.Waiting--
	return records.StampBook.Put(tx, book, n.ledgerID)
}

// stampCovering gives the oldest stamped checkpoint whose tree holds the leaf;
// nil when there is none.
func (n *Node) stampCovering(tx queue.Tx, leaf uint64) (stamp *records.Stamp, err error) {
	err = records.Stamps.EachBehind(tx, 1, func(_ []byte, s *records.Stamp) bool {
		stamp = s
		return false
	}, []any{n.ledgerID}, leaf)
	return stamp, err
}
