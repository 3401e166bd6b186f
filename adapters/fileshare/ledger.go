package fileshare

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/queue"
)

type digest = sm.Digest

// ledger is what the import remembers. Its rows:
//
//	i KEY    one content to one set of recipients under one number ([itemRow])
//	p PLACE  one row of a list, or one group of files, with what became of it ([placeRow])
//	o PLACE  one that somebody has to do with: quarantined, undecided, on its way
//	d PLACE  a folder that has had a list
//
// It holds names of files and ids, no title and no text.
type ledger struct{ queue.Store }

// state is how far an item is.
type state string

const (
	submitting state = "submitting" // the node may have it
	submitted  state = "submitted"
	refused    state = "refused"
)

// itemRow stands in the ledger before the node hears of the item.
type itemRow struct {
	State    state     `json:"state"`
	Document string    `json:"document,omitempty"`
	Place    digest    `json:"place"` // of whom it was submitted
	Meta     digest    `json:"meta"`  // SM3 of the metadata
	At       time.Time `json:"at"`
	Code     string    `json:"code,omitempty"`
	Detail   string    `json:"detail,omitempty"`
}

// placeRow is what the report says of a place, and which files are its own.
type placeRow struct {
	Entry
	Key digest `json:"key"`
	// Moving: the files are on their way to the archive or to the quarantine. A crash
	// leaves some of them where they were, and the next run moves the others.
	Moving bool `json:"moving,omitempty"`
	// Moved are the raw paths of those files, also for the way back.
	Moved   [][]byte `json:"moved,omitempty"`
	Notice  []byte   `json:"notice,omitempty"` // its path, as it is
	InShare bool     `json:"in_share,omitempty"`
	// Sums are the first bytes of the digests of those that were read, in their order.
	Sums []uint64 `json:"sums,omitempty"`
}

func itemKey(k digest) []byte  { return append([]byte("i"), k[:]...) }
func placeKey(p digest) []byte { return append([]byte("p"), p[:]...) }
func openKey(p digest) []byte  { return append([]byte("o"), p[:]...) }
func dirKey(p digest) []byte   { return append([]byte("d"), p[:]...) }

func read[T any](tx queue.Tx, lock bool, key []byte) (*T, error) {
	get := tx.Get
	if lock {
		get = tx.Lock
	}
	b, err := get(key)
	if b == nil || err != nil {
		return nil, err
	}
	out := new(T)
	if err := json.Unmarshal(b, out); err != nil {
		return nil, fmt.Errorf("fileshare: the ledger is damaged: %w", err)
	}
	return out, nil
}

func put(tx queue.Tx, key []byte, row any) error {
	b, err := json.Marshal(row)
	if err != nil {
		return err
	}
	return tx.Put(key, b)
}

// place gives what is known of a place, nil when nothing is.
func (l ledger) place(ctx context.Context, p digest) (row *placeRow, err error) {
	err = l.View(ctx, func(tx queue.Tx) (err error) {
		row, err = read[placeRow](tx, false, placeKey(p))
		return err
	})
	return row, err
}

// item gives what is known of a key, nil when nothing is.
func (l ledger) item(ctx context.Context, key digest) (row *itemRow, err error) {
	err = l.View(ctx, func(tx queue.Tx) (err error) {
		row, err = read[itemRow](tx, false, itemKey(key))
		return err
	})
	return row, err
}

// claimed is what a claim found.
type claimed struct {
	before  *itemRow // nil: nobody had it
	another bool     // it was submitted from another place
}

// claim enters an item before the node hears of it. Once it returns, a crash leaves the
// key in the ledger, and whoever finds the files again asks the node under the same
// one. at is when it is tried; an earlier time stays, since the node counts from it.
func (l ledger) claim(ctx context.Context, key, place, meta digest, at time.Time) (*claimed, error) {
	var got *claimed
	err := l.Update(ctx, func(tx queue.Tx) error {
		got = nil
		row, err := read[itemRow](tx, true, itemKey(key))
		if err != nil {
			return err
		}
		c := &claimed{before: row, another: row != nil && row.Place != place}
		got = c
		if row != nil && (row.State != refused || row.Meta == meta) {
			return nil
		}
		next := itemRow{State: submitting, Place: place, Meta: meta, At: at}
		if row == nil {
			b, err := json.Marshal(next)
			if err != nil {
				return err
			}
			return tx.Insert(itemKey(key), b)
		}
		c.before = nil // what was refused had other metadata
		return put(tx, itemKey(key), next)
	})
	if err != nil {
		return nil, err
	}
	return got, nil
}

// settle enters what became of an item together with its place. A crash before it asks
// the node again; after it, the files are only put away.
func (l ledger) settle(ctx context.Context, key digest, item *itemRow, place digest, row *placeRow) error {
	return l.Update(ctx, func(tx queue.Tx) error {
		if item != nil {
			if err := put(tx, itemKey(key), item); err != nil {
				return err
			}
		}
		if row == nil {
			return nil
		}
		if err := mark(tx, place, row.Moving || row.Outcome == Quarantined || row.Outcome == Undecided); err != nil {
			return err
		}
		return put(tx, placeKey(place), row)
	})
}

// mark keeps an index of the places that somebody has to do with.
func mark(tx queue.Tx, place digest, open bool) error {
	b, err := tx.Lock(openKey(place))
	switch {
	case err != nil || open == (b != nil):
		return err
	case open:
		return tx.Put(openKey(place), []byte("{}"))
	}
	return tx.Delete(openKey(place))
}

// open walks over the places that somebody has to do with.
func (l ledger) open(ctx context.Context, each func(p digest, row *placeRow) error) error {
	return l.walk(ctx, "o", func(tx queue.Tx, kv queue.KV) (*placeRow, error) {
		return read[placeRow](tx, false, placeKey(digest(kv.Key[1:])))
	}, each)
}

// places walks over all places.
func (l ledger) places(ctx context.Context, each func(p digest, row *placeRow) error) error {
	return l.walk(ctx, "p", func(_ queue.Tx, kv queue.KV) (*placeRow, error) {
		row := new(placeRow)
		if err := json.Unmarshal(kv.Value, row); err != nil {
			return nil, fmt.Errorf("fileshare: the ledger is damaged: %w", err)
		}
		return row, nil
	}, each)
}

// walk reads a table a portion at a time, so that each may change it.
func (l ledger) walk(ctx context.Context, table string, load func(queue.Tx, queue.KV) (*placeRow, error), each func(digest, *placeRow) error) error {
	const portion = 500
	type one struct {
		p   digest
		row *placeRow
	}
	lo, hi := []byte(table), []byte{table[0] + 1}
	for {
		var list []one
		next := lo
		err := l.View(ctx, func(tx queue.Tx) error {
			list = nil
			for kv, err := range tx.Scan(lo, hi, portion) {
				if err != nil {
					return err
				}
				row, err := load(tx, kv)
				if err != nil {
					return err
				}
				list = append(list, one{digest(kv.Key[1:]), row})
				next = append(kv.Key, 0)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, o := range list {
			if o.row == nil {
				continue
			}
			if err := each(o.p, o.row); err != nil {
				return err
			}
		}
		if len(list) < portion {
			return nil
		}
		lo = next
	}
}

// noteList remembers that a folder has had a list; hadList says whether it had.
func (l ledger) noteList(ctx context.Context, dir digest) error {
	err := l.Update(ctx, func(tx queue.Tx) error { return tx.Insert(dirKey(dir), []byte("{}")) })
	if errors.Is(err, queue.ErrExists) {
		return nil
	}
	return err
}

func (l ledger) hadList(ctx context.Context, dir digest) (had bool, err error) {
	err = l.View(ctx, func(tx queue.Tx) error {
		b, err := tx.Get(dirKey(dir))
		had = b != nil
		return err
	})
	return had, err
}

// forget lets a place be judged anew, and its item be offered to the node again.
func (l ledger) forget(ctx context.Context, p digest, now time.Time) error {
	return l.Update(ctx, func(tx queue.Tx) error {
		row, err := read[placeRow](tx, true, placeKey(p))
		if row == nil || err != nil {
			return err
		}
		item, err := read[itemRow](tx, true, itemKey(row.Key))
		if err != nil {
			return err
		}
		switch {
		case item == nil:
		case item.State == refused:
			err = tx.Delete(itemKey(row.Key))
		case item.State == submitting:
			// The key stays: should the node know it after all, it says so.
			item.At = now
			err = put(tx, itemKey(row.Key), item)
		}
		if err == nil {
			err = mark(tx, p, false)
		}
		if err != nil {
			return err
		}
		return tx.Delete(placeKey(p))
	})
}
