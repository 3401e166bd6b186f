package queue

import (
	"encoding/binary"
	"fmt"
	"iter"
)

// A lane is a FIFO of values under a name. Its rows are
// ("lane", name, sequence); the next sequence stands in ("lane#", name) and is
// taken under that row's lock, so that numbers rise with the commit order and
// nothing ever appears before an entry that was seen as the first.

// Entry is one value in a lane.
type Entry struct {
	Seq   uint64
	Value []byte
}

// Enqueue appends a value to a lane; sequences begin at 1.
func Enqueue(tx Tx, lane string, value []byte) (uint64, error) {
	counter := Key("lane#", lane)
	last, err := tx.Lock(counter)
	if err != nil {
		return 0, err
	}
	seq := uint64(1)
	if last == nil {
		err = tx.Insert(counter, binary.BigEndian.AppendUint64(nil, seq))
	} else {
		if len(last) != 8 {
			return 0, fmt.Errorf("queue: unreadable counter of lane %s", lane)
		}
		seq = binary.BigEndian.Uint64(last) + 1
		err = tx.Put(counter, binary.BigEndian.AppendUint64(nil, seq))
	}
	if err != nil {
		return 0, err
	}
	return seq, tx.Insert(Key("lane", lane, seq), value)
}

// Entries gives up to limit entries with a sequence above after, oldest first.
// Begin behind a remembered sequence: what was dequeued leaves tombstones that
// a scan from the start would walk over.
func Entries(tx Tx, lane string, after uint64, limit int) iter.Seq2[Entry, error] {
	prefix := Key("lane", lane)
	return func(yield func(Entry, error) bool) {
		for kv, err := range tx.Scan(Key("lane", lane, after+1), PrefixEnd(prefix), limit) {
			if err == nil && len(kv.Key) != len(prefix)+8 {
				err = fmt.Errorf("queue: unreadable entry in lane %s", lane)
			}
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if !yield(Entry{binary.BigEndian.Uint64(kv.Key[len(prefix):]), kv.Value}, nil) {
				return
			}
		}
	}
}

// Last is the highest sequence that a lane has given, 0 for none.
func Last(tx Tx, lane string) (uint64, error) {
	b, err := tx.Get(Key("lane#", lane))
	if b == nil || err != nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("queue: unreadable counter of lane %s", lane)
	}
	return binary.BigEndian.Uint64(b), nil
}

// MaxKept bounds the entries that a saved front may leave alive before it.
const MaxKept = 4096

// SetFront saves where a reader of a lane begins after a restart: nothing up
// to after is alive but what kept names. It never moves backwards.
func SetFront(tx Tx, lane string, after uint64, kept []uint64) error {
	if len(kept) > MaxKept {
		return fmt.Errorf("%w: %d entries before the front of lane %s, at most %d are possible", ErrTooLarge, len(kept), lane, MaxKept)
	}
	key := Key("lane^", lane)
	have, err := tx.Lock(key)
	if err != nil {
		return err
	}
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 8+8*len(kept)), after)
	for _, seq := range kept {
		b = binary.BigEndian.AppendUint64(b, seq)
	}
	switch {
	case have == nil:
		return tx.Insert(key, b)
	case len(have) >= 8 && binary.BigEndian.Uint64(have) > after:
		return nil
	}
	return tx.Put(key, b)
}

// Front gives what SetFront saved; 0 when nothing was. It only spares a scan
// over tombstones: without it, and when it cannot be read, a lane is read from
// its beginning.
func Front(tx Tx, lane string) (after uint64, kept []uint64, err error) {
	b, err := tx.Get(Key("lane^", lane))
	if err != nil || len(b) == 0 || len(b)%8 != 0 {
		return 0, nil, err
	}
	for rest := b[8:]; len(rest) > 0; rest = rest[8:] {
		kept = append(kept, binary.BigEndian.Uint64(rest))
	}
	return binary.BigEndian.Uint64(b), kept, nil
}

// Dequeue removes an entry; one that is gone is no error.
func Dequeue(tx Tx, lane string, seq uint64) error {
	return tx.Delete(Key("lane", lane, seq))
}
