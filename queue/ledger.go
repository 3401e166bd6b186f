package queue

import (
	"encoding/binary"
	"fmt"

	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// MaxLeafBytes bounds the data of a ledger leaf.
const MaxLeafBytes = 4 << 10

// Ledger is an append-only list of leaves with the Merkle tree over them, kept
// as rows under a name. A leaf becomes part of it in the transaction that
// makes the change it speaks of.
type Ledger struct{ Name string }

func (l Ledger) sizeKey() []byte         { return Key("ledger", l.Name, "size") }
func (l Ledger) leafKey(i uint64) []byte { return Key("ledger", l.Name, "leaf", i) }
func (l Ledger) nodeKey(n merkle.NodeID) []byte {
	return Key("ledger", l.Name, "node", []byte{n.Level}, n.Index)
}

// Append adds a leaf and gives its index.
func (l Ledger) Append(tx Tx, leaf []byte) (uint64, error) {
	if len(leaf) > MaxLeafBytes {
		return 0, fmt.Errorf("%w: a ledger leaf of %d bytes, at most %d are possible", ErrTooLarge, len(leaf), MaxLeafBytes)
	}
	row, err := tx.Lock(l.sizeKey())
	if err != nil {
		return 0, err
	}
	size, err := l.decodeSize(row)
	if err != nil {
		return 0, err
	}
	if err := tx.Insert(l.leafKey(size), leaf); err != nil {
		return 0, err
	}
	put := func(id merkle.NodeID, d sm.Digest) error { return tx.Insert(l.nodeKey(id), d[:]) }
	if err := merkle.Append(size, merkle.LeafHash(leaf), l.fetch(tx), put); err != nil {
		return 0, err
	}
	next := binary.BigEndian.AppendUint64(nil, size+1)
	if row == nil {
		return size, tx.Insert(l.sizeKey(), next)
	}
	return size, tx.Put(l.sizeKey(), next)
}

func (l Ledger) decodeSize(row []byte) (uint64, error) {
	switch len(row) {
	case 0:
		return 0, nil
	case 8:
		return binary.BigEndian.Uint64(row), nil
	}
	return 0, fmt.Errorf("queue: unreadable size of ledger %s", l.Name)
}

func (l Ledger) fetch(tx Tx) merkle.Fetch {
	return func(id merkle.NodeID) (d sm.Digest, err error) {
		row, err := tx.Get(l.nodeKey(id))
		if err == nil && len(row) != sm.Size {
			err = fmt.Errorf("queue: node %d/%d of ledger %s is missing", id.Level, id.Index, l.Name)
		}
		copy(d[:], row)
		return d, err
	}
}

// Recompute holds the nodes of the tree that come with a leaf against what is
// stored. It needs those of the leaves before, which must have been held before.
func (l Ledger) Recompute(tx Tx, index uint64, leaf []byte) (bad string, err error) {
	var trouble error
	put := func(id merkle.NodeID, d sm.Digest) error {
		row, err := tx.Get(l.nodeKey(id))
		if err != nil {
			trouble = err
			return err
		}
		if string(row) != string(d[:]) {
			bad = fmt.Sprintf("node %d/%d of the tree is missing or another", id.Level, id.Index)
		}
		return nil
	}
	if err := merkle.Append(index, merkle.LeafHash(leaf), l.fetch(tx), put); err != nil && trouble == nil {
		bad = err.Error()
	}
	return bad, trouble
}

// Size is the number of leaves.
func (l Ledger) Size(tx Tx) (uint64, error) {
	row, err := tx.Get(l.sizeKey())
	if err != nil {
		return 0, err
	}
	return l.decodeSize(row)
}

// Root is the root over the first size leaves.
func (l Ledger) Root(tx Tx, size uint64) (sm.Digest, error) { return merkle.RootAt(size, l.fetch(tx)) }

// Leaf is the data of a leaf.
func (l Ledger) Leaf(tx Tx, index uint64) ([]byte, error) {
	b, err := tx.Get(l.leafKey(index))
	if err == nil && b == nil {
		err = fmt.Errorf("queue: leaf %d of ledger %s is missing", index, l.Name)
	}
	return b, err
}

// Inclusion proves a leaf in the tree of the first size leaves.
func (l Ledger) Inclusion(tx Tx, index, size uint64) ([]sm.Digest, error) {
	return merkle.InclusionAt(index, size, l.fetch(tx))
}

// Consistency proves that the first to leaves begin with the first from.
func (l Ledger) Consistency(tx Tx, from, to uint64) ([]sm.Digest, error) {
	return merkle.ConsistencyAt(from, to, l.fetch(tx))
}
