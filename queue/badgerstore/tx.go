package badgerstore

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/yizhan-gateway/yizhan/queue"
)

// tx is one closure's transaction: what it wrote lies in writes until flush,
// over the batch's Badger transaction. A nil value marks a deletion.
type tx struct {
	txn      *badger.Txn
	readonly bool
	writes   map[string][]byte
	ops      int
	bytes    int
	failed   error
}

var errReadOnly = errors.New("badgerstore: writing in a View")

func (t *tx) Now() time.Time { return now() }

func (t *tx) Get(k []byte) ([]byte, error) {
	if v, ok := t.writes[string(k)]; ok {
		return bytes.Clone(v), nil
	}
	item, err := t.txn.Get(k)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("badgerstore: get: %w", err)
	}
	v, err := item.ValueCopy(nil)
	if v == nil && err == nil {
		v = []byte{}
	}
	return v, err
}

// Lock is Get: closures run one after the other.
func (t *tx) Lock(k []byte) ([]byte, error) {
	if t.readonly {
		return nil, errReadOnly
	}
	return t.Get(k)
}

func (t *tx) Insert(k, v []byte) error {
	have, err := t.Get(k)
	if err != nil {
		return err
	}
	if have != nil {
		return queue.ErrExists
	}
	return t.Put(k, v)
}

func (t *tx) Put(k, v []byte) error {
	if len(v) > queue.MaxValue {
		return t.fail(fmt.Errorf("%w: a value of %d bytes, at most %d are possible", queue.ErrTooLarge, len(v), queue.MaxValue))
	}
	return t.write(k, append(make([]byte, 0, len(v)), v...))
}

func (t *tx) Delete(k []byte) error { return t.write(k, nil) }

func (t *tx) write(k, v []byte) error {
	switch {
	case t.readonly:
		return errReadOnly
	case len(k) == 0 || len(k) > queue.MaxKey:
		return t.fail(fmt.Errorf("%w: a key of %d bytes, 1 to %d are possible", queue.ErrTooLarge, len(k), queue.MaxKey))
	}
	t.ops++
	t.bytes += len(k) + len(v)
	if t.ops > queue.MaxOps || t.bytes > queue.MaxTx {
		return t.fail(fmt.Errorf("%w: a transaction of more than %d writes or %d bytes", queue.ErrTooLarge, queue.MaxOps, queue.MaxTx))
	}
	t.writes[string(k)] = v
	return nil
}

// fail keeps the transaction from committing even when the closure ignores
// the error: half of a change must never become true.
func (t *tx) fail(err error) error {
	t.failed = err
	return err
}

// flush moves the overlay into the batch.
func (t *tx) flush() error {
	for k, v := range t.writes {
		var err error
		if v == nil {
			err = t.txn.Delete([]byte(k))
		} else {
			err = t.txn.Set([]byte(k), v)
		}
		if err != nil {
			return fmt.Errorf("badgerstore: %w", err)
		}
	}
	return nil
}

// scanChunk is how many rows are read before any is given out: no Badger
// iterator is open while the caller looks at a row, so that scans may nest and
// rows may be written on the way.
const scanChunk = 128

// Scan merges the batch's rows with the closure's own writes.
func (t *tx) Scan(lo, hi []byte, limit int) iter.Seq2[queue.KV, error] {
	return func(yield func(queue.KV, error) bool) {
		lo, left := bytes.Clone(lo), limit
		for {
			want := scanChunk
			if limit > 0 {
				want = min(want, left)
			}
			rows, err := t.chunk(lo, hi, want)
			if err != nil {
				yield(queue.KV{}, err)
				return
			}
			for _, kv := range rows {
				if !yield(kv, nil) {
					return
				}
			}
			if left -= len(rows); len(rows) < want || limit > 0 && left == 0 {
				return
			}
			lo = append(bytes.Clone(rows[len(rows)-1].Key), 0)
		}
	}
}

func (t *tx) chunk(lo, hi []byte, want int) ([]queue.KV, error) {
	own := t.ownKeys(lo, hi)
	o := badger.DefaultIteratorOptions
	o.PrefetchSize = want
	o.Prefix = common(lo, hi) // else it reads ahead beyond hi, and from tables that hold nothing of it
	it := t.txn.NewIterator(o)
	defer it.Close()
	it.Seek(lo)
	var rows []queue.KV
	for len(rows) < want {
		kv, err := t.next(it, hi, &own)
		if err != nil {
			return nil, fmt.Errorf("badgerstore: scan: %w", err)
		}
		if kv.Key == nil {
			break
		}
		rows = append(rows, kv)
	}
	return rows, nil
}

// common is what every key from lo up to hi begins with.
func common(lo, hi []byte) []byte {
	n := 0
	for n < len(lo) && n < len(hi) && lo[n] == hi[n] {
		n++
	}
	return lo[:n]
}

func (t *tx) ownKeys(lo, hi []byte) []string {
	var out []string
	for k := range t.writes {
		if k >= string(lo) && (hi == nil || k < string(hi)) {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// next gives the smallest row that neither side has given yet; a zero KV is
// the end.
func (t *tx) next(it *badger.Iterator, hi []byte, own *[]string) (queue.KV, error) {
	for {
		stored := it.Valid() && (hi == nil || bytes.Compare(it.Item().Key(), hi) < 0)
		switch {
		case !stored && len(*own) == 0:
			return queue.KV{}, nil
		case len(*own) > 0 && (!stored || (*own)[0] <= string(it.Item().Key())):
			k := (*own)[0]
			*own = (*own)[1:]
			if stored && string(it.Item().Key()) == k {
				it.Next()
			}
			if v := t.writes[k]; v != nil {
				return queue.KV{Key: []byte(k), Value: bytes.Clone(v)}, nil
			}
		default:
			k := it.Item().KeyCopy(nil)
			v, err := it.Item().ValueCopy(nil)
			it.Next()
			return queue.KV{Key: k, Value: v}, err
		}
	}
}
