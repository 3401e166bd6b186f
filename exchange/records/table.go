// Package records gives the rows of a node's store their types and keys.
//
// Every row lives in one [Table]: a name, the parts of its key, and a value in
// JSON. Rows are internal to a node: their encoding may change between
// versions of the program, unlike everything under docs/spec. What holds
// content of a document (titles, numbers, file names) is sealed by the caller
// before it gets here.
package records

import (
	"encoding/json"
	"fmt"

	"github.com/yizhan-gateway/yizhan/queue"
)

// Table is one kind of row.
type Table[T any] struct{ name string }

// Key gives the full key of the row with these key parts.
func (t Table[T]) Key(parts ...any) []byte {
	return queue.AppendKey(queue.Key(t.name), parts...)
}

// Name gives back the part of a full key that is a single string, as of a link
// or a node; none of those holds a zero byte.
func (t Table[T]) Name(key []byte) string {
	return string(key[len(t.Key()) : len(key)-len(queue.Key(""))])
}

// Get reads a row to look at it; nil when there is none.
func (t Table[T]) Get(tx queue.Tx, parts ...any) (*T, error) {
	return t.decode(tx.Get(t.Key(parts...)))
}

// Lock reads a row to decide on it; nil when there is none.
func (t Table[T]) Lock(tx queue.Tx, parts ...any) (*T, error) {
	return t.decode(tx.Lock(t.Key(parts...)))
}

// Put writes a row.
func (t Table[T]) Put(tx queue.Tx, v *T, parts ...any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("records: %s: %w", t.name, err)
	}
	return tx.Put(t.Key(parts...), b)
}

// Insert writes a row that must not exist; queue.ErrExists when it does.
func (t Table[T]) Insert(tx queue.Tx, v *T, parts ...any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("records: %s: %w", t.name, err)
	}
	return tx.Insert(t.Key(parts...), b)
}

// Delete removes a row.
func (t Table[T]) Delete(tx queue.Tx, parts ...any) error {
	return tx.Delete(t.Key(parts...))
}

// Each visits the rows whose key begins with these parts, in key order, at
// most limit of them, until visit returns false. key is the full key.
func (t Table[T]) Each(tx queue.Tx, limit int, visit func(key []byte, v *T) bool, parts ...any) error {
	lo := t.Key(parts...)
	return t.scan(tx, lo, queue.PrefixEnd(lo), limit, visit)
}

// EachBehind is Each over the rows of a group, beginning behind the row whose
// key goes on with these parts.
func (t Table[T]) EachBehind(tx queue.Tx, limit int, visit func(key []byte, v *T) bool, group []any, behind ...any) error {
	lo := append(t.Key(append(append([]any{}, group...), behind...)...), 0)
	return t.scan(tx, lo, queue.PrefixEnd(t.Key(group...)), limit, visit)
}

func (t Table[T]) scan(tx queue.Tx, lo, hi []byte, limit int, visit func(key []byte, v *T) bool) error {
	for kv, err := range tx.Scan(lo, hi, limit) {
		if err != nil {
			return err
		}
		v, err := t.decode(kv.Value, nil)
		if err != nil {
			return err
		}
		if !visit(kv.Key, v) {
			return nil
		}
	}
	return nil
}

// RawTable is a kind of row whose value is bytes as they came, for what is large
// and read seldom.
type RawTable struct{ name string }

// Key gives the full key of the row with these key parts.
func (t RawTable) Key(parts ...any) []byte {
	return queue.AppendKey(queue.Key(t.name), parts...)
}

// Get reads a row to look at it; nil when there is none.
func (t RawTable) Get(tx queue.Tx, parts ...any) ([]byte, error) { return tx.Get(t.Key(parts...)) }

// Put writes a row.
func (t RawTable) Put(tx queue.Tx, v []byte, parts ...any) error { return tx.Put(t.Key(parts...), v) }

// ErrUnreadable marks a row whose value is not what this program wrote: the
// store is damaged, and nothing is decided on a guess.
var ErrUnreadable = fmt.Errorf("records: unreadable row")

func (t Table[T]) decode(b []byte, err error) (*T, error) {
	if err != nil || b == nil {
		return nil, err
	}
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("%w in table %s: %w", ErrUnreadable, t.name, err)
	}
	return &v, nil
}
