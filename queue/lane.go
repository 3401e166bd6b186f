package queue

import (
	"encoding/binary"
	"fmt"
	"iter"
)

// A lane is a FIFO of values under a name. Its rows are
// ("lane", name, sequence). The row ("lane#", name) holds the last sequence
// given and how many entries have left; it is locked while an entry comes or
// goes, so that numbers rise with the commit order, nothing ever appears before
// an entry that was seen as the first, and [Waiting] is right after any crash.

// Entry is one value in a lane.
type Entry struct {
	Seq   uint64
	Value []byte
}

// counter is a lane's row of counts. gone is not known of a lane that an
// earlier version of this program wrote, until an entry leaves it.
type counter struct {
	last, gone uint64
	known      bool
}

func (c counter) row() []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 16), c.last)
	if c.known {
		b = binary.BigEndian.AppendUint64(b, c.gone)
	}
	return b
}

func parseCounter(lane string, b []byte) (c counter, err error) {
	switch len(b) {
	case 0:
		return counter{known: true}, nil
	case 8:
		return counter{last: binary.BigEndian.Uint64(b)}, nil
	case 16:
		return counter{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), true}, nil
	}
	return c, fmt.Errorf("queue: unreadable counter of lane %s", lane)
}

// Enqueue appends a value to a lane; sequences begin at 1.
func Enqueue(tx Tx, lane string, value []byte) (uint64, error) {
	key := Key("lane#", lane)
	b, err := tx.Lock(key)
	if err != nil {
		return 0, err
	}
	c, err := parseCounter(lane, b)
	if err != nil {
		return 0, err
	}
	c.last++
	if b == nil {
		err = tx.Insert(key, c.row())
	} else {
		err = tx.Put(key, c.row())
	}
	if err != nil {
		return 0, err
	}
	return c.last, tx.Insert(Key("lane", lane, c.last), value)
}

// Waiting is how many entries are in a lane. It reads one row.
func Waiting(tx Tx, lane string) (uint64, error) {
	b, err := tx.Get(Key("lane#", lane))
	if err != nil {
		return 0, err
	}
	c, err := parseCounter(lane, b)
	if err == nil && !c.known {
		return count(tx, lane)
	}
	return c.last - c.gone, err
}

// Count is what one lane holds.
type Count struct {
	Lane    string
	Waiting uint64
}

// Counts gives the lanes whose names begin with prefix, in the order of their
// names, those that are empty by now as well. It reads one row for each lane
// that ever had an entry, however much waits.
func Counts(tx Tx, prefix string) iter.Seq2[Count, error] {
	start := Key("lane#")
	lo := append(append([]byte{}, start...), prefix...)
	return func(yield func(Count, error) bool) {
		for kv, err := range tx.Scan(lo, PrefixEnd(lo), 0) {
			var c Count
			if err == nil {
				c, err = countOf(tx, kv, len(start))
			}
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

func countOf(tx Tx, kv KV, start int) (Count, error) {
	if len(kv.Key) < start+2 {
		return Count{}, fmt.Errorf("queue: unreadable name of a lane")
	}
	lane := string(kv.Key[start : len(kv.Key)-2]) // a string ends with two bytes; no lane's name holds a zero
	c, err := parseCounter(lane, kv.Value)
	if err == nil && !c.known {
		n, err := count(tx, lane)
		return Count{lane, n}, err
	}
	return Count{lane, c.last - c.gone}, err
}

// count is for a lane without a count.
func count(tx Tx, lane string) (n uint64, err error) {
	after, kept, err := Front(tx, lane)
	if err != nil {
		return 0, err
	}
	if len(kept) > 0 {
		after = kept[0] - 1
	}
	for _, err := range Entries(tx, lane, after, 0) {
		if err != nil {
			return 0, err
		}
		n++
	}
	return n, nil
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

// Stands says whether an entry is in its lane, and keeps it there until the
// transaction ends.
func Stands(tx Tx, lane string, seq uint64) (bool, error) {
	b, err := tx.Lock(Key("lane", lane, seq))
	return b != nil, err
}

// Last is the highest sequence that a lane has given, 0 for none.
func Last(tx Tx, lane string) (uint64, error) {
	b, err := tx.Get(Key("lane#", lane))
	if err != nil {
		return 0, err
	}
	c, err := parseCounter(lane, b)
	return c.last, err
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
	_, err := Take(tx, lane, seq)
	return err
}

// Take is Dequeue, and says whether the entry was there.
func Take(tx Tx, lane string, seq uint64) (there bool, err error) {
	entry, key := Key("lane", lane, seq), Key("lane#", lane)
	b, err := tx.Lock(key)
	if err != nil {
		return false, err
	}
	value, err := tx.Lock(entry)
	if err != nil || value == nil {
		return false, err
	}
	c, err := parseCounter(lane, b)
	if err == nil && !c.known {
		var n uint64
		n, err = count(tx, lane)
		c.gone, c.known = c.last-n, true
	}
	if err != nil {
		return false, err
	}
	c.gone++
	if err := tx.Put(key, c.row()); err != nil {
		return false, err
	}
	return true, tx.Delete(entry)
}
