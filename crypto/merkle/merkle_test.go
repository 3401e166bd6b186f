package merkle

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// tree is a stored tree in memory.
type tree struct {
	nodes  map[NodeID]sm.Digest
	leaves []sm.Digest
}

func (tr *tree) get(id NodeID) (sm.Digest, error) {
	d, ok := tr.nodes[id]
	if !ok {
		return d, fmt.Errorf("node %v is not stored", id)
	}
	return d, nil
}

func (tr *tree) append(t testing.TB, leaf sm.Digest) {
	put := func(id NodeID, d sm.Digest) error {
		if _, twice := tr.nodes[id]; twice {
			t.Fatalf("node %v was stored twice", id)
		}
		tr.nodes[id] = d
		return nil
	}
	if err := Append(uint64(len(tr.leaves)), leaf, tr.get, put); err != nil {
		t.Fatal(err)
	}
	tr.leaves = append(tr.leaves, leaf)
}

func newTree(t testing.TB, n int) *tree {
	tr := &tree{nodes: map[NodeID]sm.Digest{}}
	for i := range n {
		tr.append(t, LeafHash(fmt.Appendf(nil, "leaf %d", i)))
	}
	return tr
}

// The stored tree agrees with the definition at every size.
func TestStoredTreeIsTheTree(t *testing.T) {
	tr := newTree(t, 200)
	for size := 0; size <= 200; size++ {
		got, err := RootAt(uint64(size), tr.get)
		if err != nil || got != Root(tr.leaves[:size]) {
			t.Fatalf("root of %d: %s, %v", size, got, err)
		}
	}
}

func TestInclusionProofs(t *testing.T) {
	tr := newTree(t, 70)
	for size := 1; size <= 70; size++ {
		root := Root(tr.leaves[:size])
		for i := range size {
			p, err := InclusionAt(uint64(i), uint64(size), tr.get)
			if err != nil {
				t.Fatal(err)
			}
			direct := Inclusion(tr.leaves[:size], i)
			if fmt.Sprint(p) != fmt.Sprint(direct) {
				t.Fatalf("leaf %d of %d: two proofs", i, size)
			}
			if err := VerifyInclusion(tr.leaves[i], uint64(i), uint64(size), p, root); err != nil {
				t.Fatalf("leaf %d of %d: %v", i, size, err)
			}
			if VerifyInclusion(LeafHash([]byte("other")), uint64(i), uint64(size), p, root) == nil {
				t.Fatalf("another leaf passes at %d of %d", i, size)
			}
			if size > 1 && VerifyInclusion(tr.leaves[i], uint64((i+1)%size), uint64(size), p, root) == nil {
				t.Fatalf("leaf %d of %d passes at another place", i, size)
			}
		}
	}
}

func TestConsistencyProofs(t *testing.T) {
	tr := newTree(t, 70)
	fork := newTree(t, 40)
	fork.append(t, LeafHash([]byte("another history")))
	for a := 0; a <= 70; a++ {
		for b := a; b <= 70; b++ {
			p, err := ConsistencyAt(uint64(a), uint64(b), tr.get)
			if err != nil {
				t.Fatal(a, b, err)
			}
			old, now := Root(tr.leaves[:a]), Root(tr.leaves[:b])
			if err := VerifyConsistency(uint64(a), uint64(b), p, old, now); err != nil {
				t.Fatalf("%d to %d: %v", a, b, err)
			}
			if a > 0 && VerifyConsistency(uint64(a), uint64(b), p, LeafHash([]byte("x")), now) == nil {
				t.Fatalf("%d to %d from another root passes", a, b)
			}
		}
	}
	p, err := ConsistencyAt(41, 70, tr.get)
	if err != nil {
		t.Fatal(err)
	}
	if VerifyConsistency(41, 70, p, Root(fork.leaves), Root(tr.leaves)) == nil {
		t.Error("a fork passes for a beginning")
	}
}

// A part's digest is its subtree: the root over the parts is the root over
// all leaves, for every length.
func TestPartsAreSubtrees(t *testing.T) {
	const part = 8 * LeafSize
	for _, size := range []int{1, LeafSize - 1, LeafSize, LeafSize + 1, part - 1, part, part + 1, 2*part + 3*LeafSize + 5} {
		data := bytes.Repeat([]byte{byte(size)}, size)
		whole := NewPayloadHash()
		for from := 0; from < size; from += 700001 {
			_, _ = whole.Write(data[from:min(from+700001, size)])
		}
		var parts []sm.Digest
		for from := 0; from < size; from += part {
			h := NewPayloadHash()
			_, _ = h.Write(data[from:min(from+part, size)])
			parts = append(parts, h.Sum())
		}
		if whole.Sum() != Root(parts) {
			t.Errorf("%d bytes: the root over parts is another", size)
		}
		if n := len(whole.Leaves()); n != (size+LeafSize-1)/LeafSize {
			t.Errorf("%d bytes have %d leaves", size, n)
		}
	}
}

func checkpoint() *Checkpoint {
	return &Checkpoint{Domain: "d", Ledger: "01ARZ3NDEKTSV4RRFFQ69G5FAV", Node: "jia", Size: 3, Root: LeafHash([]byte("r")), Time: strictjson.Time(1)}
}

func TestCodecs(t *testing.T) {
	b, err := checkpoint().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if back, err := ParseCheckpoint(b); err != nil || back.Size != 3 || back.Node != "jia" {
		t.Errorf("%+v, %v", back, err)
	}
	leaf := &Leaf{Event: "accepted", Envelope: sm.Sum(nil).String(), Object: sm.Sum(nil), At: 1}
	l, err := leaf.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseLeaf(l); err != nil {
		t.Error(err)
	}
	if _, err := ParseLeaf(b); err == nil {
		t.Error("a checkpoint passes for a leaf")
	}
	if _, err := ParseCheckpoint(l); err == nil {
		t.Error("a leaf passes for a checkpoint")
	}
	if _, err := ParseCheckpoint(bytes.Repeat([]byte(" "), MaxCheckpoint+1)); err == nil {
		t.Error("an oversized checkpoint passes")
	}
}

func FuzzParse(f *testing.F) {
	b, _ := checkpoint().Marshal()
	f.Add(b)
	leaf, _ := (&Leaf{Event: "accepted", Envelope: sm.Sum(nil).String(), Object: sm.Sum(nil), At: 1}).Marshal()
	f.Add(leaf)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := ParseCheckpoint(b); err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("an error without a class: %v", err)
		}
		if _, err := ParseLeaf(b); err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("an error without a class: %v", err)
		}
		if c, err := ParseCheckpoint(b); err == nil {
			if again, err := c.Marshal(); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("checkpoint %q marshals to %q, %v", b, again, err)
			}
		}
		if l, err := ParseLeaf(b); err == nil {
			if again, err := l.Marshal(); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("leaf %q marshals to %q, %v", b, again, err)
			}
		}
	})
}

// FuzzProofs: whatever a neighbour claims, a leaf or a root that is not there
// never passes. (A proof alone does not fix the size: the one from 13 to 21
// leaves passes as one to 19, which has the same shape. Sizes are signed with
// their roots.)
func FuzzProofs(f *testing.F) {
	tr := newTree(f, 21)
	root, old := Root(tr.leaves), Root(tr.leaves[:13])
	flat := func(p []sm.Digest) (b []byte) {
		for _, d := range p {
			b = append(b, d[:]...)
		}
		return b
	}
	f.Add(uint64(5), uint64(21), flat(Inclusion(tr.leaves, 5)))
	f.Add(uint64(20), uint64(21), flat(Inclusion(tr.leaves, 20)))
	consistency, err := ConsistencyAt(13, 21, tr.get)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint64(13), uint64(21), flat(consistency))
	f.Add(uint64(1)<<63, uint64(1)<<63+1, []byte{})
	f.Fuzz(func(t *testing.T, a, b uint64, proof []byte) {
		var p []sm.Digest
		for len(proof) >= sm.Size && len(p) < 200 {
			p, proof = append(p, sm.Digest(proof[:sm.Size])), proof[sm.Size:]
		}
		for i, leaf := range tr.leaves {
			if VerifyInclusion(leaf, a, b, p, root) == nil && b == 21 && a != uint64(i) {
				t.Fatalf("leaf %d passes at %d of %d", i, a, b)
			}
		}
		if VerifyInclusion(LeafHash([]byte("forged")), a, b, p, root) == nil {
			t.Fatal("a forged leaf passes")
		}
		if VerifyConsistency(a, b, p, old, root) == nil && a > 0 && a >= b {
			t.Fatalf("a proof from %d to %d passes", a, b)
		}
		if a > 0 && VerifyConsistency(a, b, p, LeafHash([]byte("forged")), root) == nil {
			t.Fatal("a forged root passes for an earlier one")
		}
	})
}
