package merkle

import (
	"hash"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// LeafSize is the length of a payload leaf, bytes; the last may be shorter.
const LeafSize = 1 << 20

// PayloadHash computes the tree hash of what is written to it. A part of
// eight aligned leaves gives the root of its subtree, so that the root over
// the parts' digests is the root over all leaves.
type PayloadHash struct {
	leaf   hash.Hash
	filled int
	leaves []sm.Digest
}

// NewPayloadHash starts an empty payload.
func NewPayloadHash() *PayloadHash { return &PayloadHash{leaf: sm.New()} }

// Write never fails.
func (p *PayloadHash) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		if p.filled == 0 {
			p.leaf.Reset()
			p.leaf.Write([]byte{0})
		}
		take := min(len(b), LeafSize-p.filled)
		p.leaf.Write(b[:take])
		b = b[take:]
		if p.filled += take; p.filled == LeafSize {
			p.flush()
		}
	}
	return n, nil
}

func (p *PayloadHash) flush() {
	p.leaves = append(p.leaves, digest(p.leaf.Sum(nil)))
	p.filled = 0
}

// Leaves gives the hashes of all leaves; nothing may be written afterwards.
func (p *PayloadHash) Leaves() []sm.Digest {
	if p.filled > 0 {
		p.flush()
	}
	return p.leaves
}

// Sum gives the root over the leaves; nothing may be written afterwards.
func (p *PayloadHash) Sum() sm.Digest { return Root(p.Leaves()) }
