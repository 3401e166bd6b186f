// Package merkle is the SM3 Merkle tree of RFC 6962 (leaf prefix 0x00, node
// prefix 0x01): the tree hash over a payload's 1 MiB leaves, the append-only
// ledger with its inclusion and consistency proofs, and the codecs of ledger
// leaves and checkpoints (docs/spec/ledger-v1.md).
//
// The proof logic is transparency-dev/merkle; this package gives it SM3 and a
// row at a time instead of slices of slices.
package merkle

import (
	"fmt"
	"math/bits"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// LeafHash is the hash of a leaf's data.
func LeafHash(data ...[]byte) sm.Digest {
	h := sm.New()
	h.Write([]byte{0})
	for _, d := range data {
		h.Write(d)
	}
	return digest(h.Sum(nil))
}

// NodeHash is the hash of an inner node.
func NodeHash(l, r sm.Digest) sm.Digest { return sm.Sum([]byte{1}, l[:], r[:]) }

type hasher struct{}

func (hasher) EmptyRoot() []byte { d := sm.Sum(nil); return d[:] }
func (hasher) HashLeaf(b []byte) []byte {
	d := LeafHash(b)
	return d[:]
}
func (hasher) HashChildren(l, r []byte) []byte {
	d := sm.Sum([]byte{1}, l, r)
	return d[:]
}
func (hasher) Size() int { return sm.Size }

func digest(b []byte) (d sm.Digest) {
	copy(d[:], b)
	return d
}

func digests(list [][]byte) []sm.Digest {
	out := make([]sm.Digest, len(list))
	for i, b := range list {
		out[i] = digest(b)
	}
	return out
}

func slices(list []sm.Digest) [][]byte {
	out := make([][]byte, len(list))
	for i := range list {
		out[i] = list[i][:]
	}
	return out
}

// Root is the root over leaf hashes; of none it is SM3 of nothing.
func Root(leaves []sm.Digest) sm.Digest {
	switch n := len(leaves); n {
	case 0:
		return sm.Sum(nil)
	case 1:
		return leaves[0]
	default:
		k := 1 << (bits.Len(uint(n-1)) - 1)
		return NodeHash(Root(leaves[:k]), Root(leaves[k:]))
	}
}

// Inclusion proves leaf i among leaf hashes, leaf upwards.
func Inclusion(leaves []sm.Digest, i int) []sm.Digest {
	n := len(leaves)
	if n <= 1 {
		return nil
	}
	k := 1 << (bits.Len(uint(n-1)) - 1)
	if i < k {
		return append(Inclusion(leaves[:k], i), Root(leaves[k:]))
	}
	return append(Inclusion(leaves[k:], i-k), Root(leaves[:k]))
}

// VerifyInclusion checks that the leaf hash stands at index in the tree of
// this size and root.
func VerifyInclusion(leaf sm.Digest, index, size uint64, p []sm.Digest, root sm.Digest) error {
	return proof.VerifyInclusion(hasher{}, index, size, leaf[:], slices(p), root[:])
}

// VerifyConsistency checks that the tree of size2 only added leaves to the
// tree of size1. Every tree extends the empty one.
func VerifyConsistency(size1, size2 uint64, p []sm.Digest, root1, root2 sm.Digest) error {
	if size1 == 0 {
		if len(p) != 0 {
			return fmt.Errorf("merkle: a proof from the empty tree is empty")
		}
		return nil
	}
	return proof.VerifyConsistency(hasher{}, size1, size2, slices(p), root1[:], root2[:])
}

// NodeID names the root of a complete subtree of 2^Level leaves.
type NodeID struct {
	Level uint8
	Index uint64
}

// Fetch reads a stored node.
type Fetch func(NodeID) (sm.Digest, error)

// Append adds a leaf hash to a tree of this size and stores every subtree it
// completes: two nodes on average.
func Append(size uint64, leaf sm.Digest, get Fetch, put func(NodeID, sm.Digest) error) error {
	id, h := NodeID{0, size}, leaf
	for {
		if err := put(id, h); err != nil {
			return err
		}
		if id.Index%2 == 0 {
			return nil
		}
		left, err := get(NodeID{id.Level, id.Index - 1})
		if err != nil {
			return err
		}
		id, h = NodeID{id.Level + 1, id.Index / 2}, NodeHash(left, h)
	}
}

// RootAt computes the root of the first size leaves from stored nodes.
func RootAt(size uint64, get Fetch) (sm.Digest, error) {
	if size == 0 {
		return sm.Sum(nil), nil
	}
	ids := compact.RangeNodes(0, size, nil)
	root, err := get(nodeID(ids[len(ids)-1]))
	for i := len(ids) - 2; i >= 0 && err == nil; i-- {
		var left sm.Digest
		left, err = get(nodeID(ids[i]))
		root = NodeHash(left, root)
	}
	return root, err
}

func nodeID(id compact.NodeID) NodeID { return NodeID{uint8(id.Level), id.Index} }

// InclusionAt proves leaf index in the tree of the first size leaves.
func InclusionAt(index, size uint64, get Fetch) ([]sm.Digest, error) {
	nodes, err := proof.Inclusion(index, size)
	if err != nil {
		return nil, err
	}
	return build(nodes, get)
}

// ConsistencyAt proves that the first size2 leaves begin with the first size1.
func ConsistencyAt(size1, size2 uint64, get Fetch) ([]sm.Digest, error) {
	if size1 == 0 {
		return nil, nil
	}
	nodes, err := proof.Consistency(size1, size2)
	if err != nil {
		return nil, err
	}
	return build(nodes, get)
}

func build(nodes proof.Nodes, get Fetch) ([]sm.Digest, error) {
	list := make([][]byte, len(nodes.IDs))
	for i, id := range nodes.IDs {
		d, err := get(nodeID(id))
		if err != nil {
			return nil, err
		}
		list[i] = d[:]
	}
	list, err := nodes.Rehash(list, hasher{}.HashChildren)
	return digests(list), err
}
