package merkle

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

var update = flag.Bool("update", false, "write testdata/ledger-v1.json anew")

// ledgerVectors is testdata/ledger-v1.json; crypto/sm/testdata/README.md says
// what its members mean to another implementation.
type ledgerVectors struct {
	About       string           `json:"about"`
	Leaves      []string         `json:"leaves"` // JSON of the leaves of one ledger
	Hashes      []sm.Digest      `json:"hashes"`
	Roots       []sm.Digest      `json:"roots"` // of the first 0, 1, 2 … leaves
	Inclusion   []proofVector    `json:"inclusion"`
	Consistency []proofVector    `json:"consistency"`
	Objects     []recordVector   `json:"objects"`
	Sequences   []sequenceVector `json:"sequences"`
}

// proofVector is a proof that verifies or, with a class, does not. For
// consistency, from and size are the two sizes, old and root the two roots.
type proofVector struct {
	Name   string      `json:"name"`
	Result string      `json:"result"`
	Class  string      `json:"class,omitempty"`
	Leaf   *sm.Digest  `json:"leaf,omitempty"`
	Index  uint64      `json:"index,omitempty"`
	From   uint64      `json:"from,omitempty"`
	Size   uint64      `json:"size"`
	Old    *sm.Digest  `json:"old,omitempty"`
	Root   sm.Digest   `json:"root"`
	Proof  []sm.Digest `json:"proof"`
}

// recordVector is the JSON of a leaf or a checkpoint.
type recordVector struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"` // leaf or checkpoint
	Result string `json:"result"`
	Class  string `json:"class,omitempty"`
	JSON   string `json:"json"`
}

// sequenceVector are two heads of one ledger: do they fit each other?
type sequenceVector struct {
	Name   string      `json:"name"`
	Result string      `json:"result"`
	Class  string      `json:"class,omitempty"`
	First  string      `json:"first"` // JSON of the checkpoint that is remembered
	Second string      `json:"second"`
	Proof  []sm.Digest `json:"proof"`
}

func marshalled(t *testing.T, m interface{ Marshal() ([]byte, error) }) string {
	t.Helper()
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func makeLedgerVectors(t *testing.T) *ledgerVectors {
	f := &ledgerVectors{About: "Ledger leaves, roots, proofs and checkpoints of ledger-v1: see crypto/sm/testdata/README.md."}
	events := []string{"accepted", "taken", "delivered", "acted", "receipt", "handed", "ended"}
	for i := range 13 {
		l := &Leaf{Event: events[i%len(events)], Object: sm.Sum([]byte{byte(i)}), At: 1763884800000}
		if i%3 != 2 {
			l.Envelope = sm.Sum([]byte("header")).String()
		}
		text := marshalled(t, l)
		f.Leaves, f.Hashes = append(f.Leaves, text), append(f.Hashes, LeafHash([]byte(text)))
	}
	for n := range len(f.Hashes) + 1 {
		f.Roots = append(f.Roots, Root(f.Hashes[:n]))
	}
	f.inclusion()
	f.consistency(t)
	f.objects(t)
	f.sequences(t)
	return f
}

func (f *ledgerVectors) inclusion() {
	good := func(i, size int) proofVector {
		leaf := f.Hashes[i]
		return proofVector{Result: "valid", Leaf: &leaf, Index: uint64(i), Size: uint64(size), Root: f.Roots[size], Proof: Inclusion(f.Hashes[:size], i)}
	}
	add := func(name string, v proofVector, class string, edit func(*proofVector)) {
		v.Name, v.Proof = name, append([]sm.Digest{}, v.Proof...)
		if edit != nil {
			edit(&v)
			v.Result, v.Class = "invalid", class
		}
		f.Inclusion = append(f.Inclusion, v)
	}
	add("only leaf", good(0, 1), "", nil)
	add("first of 13", good(0, 13), "", nil)
	add("last of 13, on the right edge", good(12, 13), "", nil)
	add("leaf 5 of 13", good(5, 13), "", nil)
	add("leaf 7 of 8, a complete tree", good(7, 8), "", nil)
	other := LeafHash([]byte("another leaf"))
	add("another leaf", good(5, 13), "LEAF_CHANGED", func(v *proofVector) { v.Leaf = &other })
	add("hash of a node in place of a leaf", good(4, 13), "LEAF_CHANGED", func(v *proofVector) {
		node := NodeHash(f.Hashes[4], f.Hashes[5])
		v.Leaf, v.Index, v.Proof = &node, 2, v.Proof[1:]
	})
	add("another index", good(5, 13), "WRONG_PLACE", func(v *proofVector) { v.Index = 4 })
	add("index behind the end", good(12, 13), "WRONG_PLACE", func(v *proofVector) { v.Index = 13 })
	add("index 2^63", good(5, 13), "WRONG_PLACE", func(v *proofVector) { v.Index = 1 << 62 })
	add("another root", good(5, 13), "ROOT_CHANGED", func(v *proofVector) { v.Root = f.Roots[12] })
	add("a digest of the proof changed", good(5, 13), "PROOF_CHANGED", func(v *proofVector) { v.Proof[2][31] ^= 1 })
	add("digests in another order", good(5, 13), "PROOF_CHANGED", func(v *proofVector) { v.Proof[0], v.Proof[1] = v.Proof[1], v.Proof[0] })
	add("a digest is missing", good(5, 13), "PROOF_LENGTH", func(v *proofVector) { v.Proof = v.Proof[:len(v.Proof)-1] })
	add("a digest too many", good(5, 13), "PROOF_LENGTH", func(v *proofVector) { v.Proof = append(v.Proof, sm.Digest{}) })
	add("no proof at all", good(5, 13), "PROOF_LENGTH", func(v *proofVector) { v.Proof = []sm.Digest{} })
	add("size 0", good(0, 1), "WRONG_PLACE", func(v *proofVector) { v.Size, v.Root = 0, f.Roots[0] })
}

func (f *ledgerVectors) consistency(t *testing.T) {
	tr := newTree(t, 0)
	for _, h := range f.Hashes {
		tr.append(t, h)
	}
	good := func(from, size int) proofVector {
		p, err := ConsistencyAt(uint64(from), uint64(size), tr.get)
		if err != nil {
			t.Fatal(err)
		}
		old := f.Roots[from]
		return proofVector{Result: "valid", From: uint64(from), Size: uint64(size), Old: &old, Root: f.Roots[size], Proof: append([]sm.Digest{}, p...)}
	}
	add := func(name string, v proofVector, class string, edit func(*proofVector)) {
		v.Name = name
		if edit != nil {
			edit(&v)
			v.Result, v.Class = "invalid", class
		}
		f.Consistency = append(f.Consistency, v)
	}
	add("from nothing", good(0, 13), "", nil)
	add("the same size", good(6, 6), "", nil)
	add("from a complete tree", good(8, 13), "", nil)
	add("6 to 13", good(6, 13), "", nil)
	add("12 to 13", good(12, 13), "", nil)
	forged := LeafHash([]byte("another history"))
	add("another history before", good(6, 13), "FORK", func(v *proofVector) { v.Old = &forged })
	add("another history after", good(6, 13), "FORK", func(v *proofVector) { v.Root = forged })
	add("same size, other root", good(6, 6), "FORK", func(v *proofVector) { v.Root = forged })
	add("smaller than before", good(6, 13), "ROLLED_BACK", func(v *proofVector) {
		old := v.Root
		v.From, v.Size, v.Root, v.Old = 13, 6, *v.Old, &old
	})
	add("a digest changed", good(6, 13), "PROOF_CHANGED", func(v *proofVector) { v.Proof[0][0] ^= 1 })
	add("a digest is missing", good(6, 13), "PROOF_LENGTH", func(v *proofVector) { v.Proof = v.Proof[1:] })
	add("a digest too many", good(6, 13), "PROOF_LENGTH", func(v *proofVector) { v.Proof = append(v.Proof, sm.Digest{}) })
	add("a proof from nothing that is not empty", good(0, 13), "PROOF_LENGTH", func(v *proofVector) { v.Proof = []sm.Digest{{}} })
}

func (f *ledgerVectors) objects(t *testing.T) {
	leaf, head := f.Leaves[0], marshalled(t, checkpoint())
	good := func(name, kind, text string) {
		f.Objects = append(f.Objects, recordVector{name, kind, "valid", "", text})
	}
	bad := func(name, kind, class, text string) {
		f.Objects = append(f.Objects, recordVector{name, kind, "invalid", class, text})
	}
	replaced := func(in, old, now string) string {
		if !strings.Contains(in, old) {
			t.Fatalf("%q is not in %q", old, in)
		}
		return strings.Replace(in, old, now, 1)
	}
	good("a leaf", "leaf", leaf)
	good("a leaf about no envelope", "leaf", f.Leaves[2])
	good("a leaf with an unknown member", "leaf", strings.TrimSuffix(leaf, "}")+`,"zz":1}`)
	good("a checkpoint", "checkpoint", head)
	for _, o := range []struct{ kind, text, other string }{{"leaf", leaf, head}, {"checkpoint", head, leaf}} {
		bad(o.kind+": the other kind", o.kind, "WRONG_TYPE", o.other)
		bad(o.kind+": version 2", o.kind, "WRONG_VERSION", replaced(o.text, `"v":1`, `"v":2`))
		bad(o.kind+": unknown critical member", o.kind, "UNKNOWN_CRITICAL", replaced(o.text, `"v":1`, `"v":1,"crit":["later"]`))
		bad(o.kind+": white space", o.kind, "NON_CANONICAL_JSON", replaced(o.text, `"v":1`, `"v": 1`))
		bad(o.kind+": member twice", o.kind, "NON_CANONICAL_JSON", replaced(o.text, `"v":1`, `"v":1,"v":1`))
		bad(o.kind+": bytes behind", o.kind, "NON_CANONICAL_JSON", o.text+"\n")
		bad(o.kind+": cut", o.kind, "TRUNCATED", o.text[:len(o.text)-1])
		bad(o.kind+": nothing", o.kind, "EMPTY", "")
	}
	bad("leaf: no event", "leaf", "MEMBER_MISSING", replaced(leaf, `"event":"accepted",`, ""))
	bad("leaf: digest in capitals", "leaf", "NON_CANONICAL_JSON", replaced(leaf, sm.Sum([]byte{0}).String(), strings.ToUpper(sm.Sum([]byte{0}).String())))
	bad("leaf: more than 1 KiB", "leaf", "TOO_LONG", replaced(leaf, `"accepted"`, `"`+strings.Repeat("a", MaxLeaf)+`"`))
	bad("checkpoint: no node", "checkpoint", "MEMBER_MISSING", replaced(head, `"node":"jia"`, `"node":""`))
	bad("checkpoint: negative size", "checkpoint", "NON_CANONICAL_JSON", replaced(head, `"size":3`, `"size":-3`))
	bad("checkpoint: size above 2^53", "checkpoint", "NON_CANONICAL_JSON", replaced(head, `"size":3`, `"size":9007199254740993`))
	bad("checkpoint: more than 2 KiB", "checkpoint", "TOO_LONG", replaced(head, `"jia"`, `"`+strings.Repeat("j", MaxCheckpoint)+`"`))
}

// sequences: what a witness makes of a second head.
func (f *ledgerVectors) sequences(t *testing.T) {
	head := func(size int, edit func(*Checkpoint)) string {
		c := checkpoint()
		c.Size, c.Root, c.Time = uint64(size), f.Roots[size], c.Time+1
		if edit != nil {
			edit(c)
		}
		return marshalled(t, c)
	}
	proof := func(i int) []sm.Digest { return append([]sm.Digest{}, f.Consistency[i].Proof...) }
	const grown = 3 // "6 to 13" above
	other := func(c *Checkpoint) { c.Root = LeafHash([]byte("another history")) }
	f.Sequences = []sequenceVector{
		{"grown", "valid", "", head(6, nil), head(13, nil), proof(grown)},
		{"the same again", "valid", "", head(6, nil), head(6, nil), []sm.Digest{}},
		{"grown from another history", "invalid", "FORK", head(6, other), head(13, nil), proof(grown)},
		{"same size, other root", "invalid", "FORK", head(6, nil), head(6, other), []sm.Digest{}},
		{"smaller", "invalid", "ROLLED_BACK", head(13, nil), head(6, nil), proof(grown)},
		{"another ledger", "invalid", "ANOTHER_LEDGER", head(6, nil), head(13, func(c *Checkpoint) { c.Ledger = "01ARZ3NDEKTSV4RRFFQ69G5FAW" }), proof(grown)},
		{"another node", "invalid", "ANOTHER_LEDGER", head(6, nil), head(13, func(c *Checkpoint) { c.Node = "yi" }), proof(grown)},
		{"grown without a proof", "invalid", "PROOF_LENGTH", head(6, nil), head(13, nil), []sm.Digest{}},
	}
}

// follows is what ledger-v1, "Witnessing", asks of the second head.
func (v *sequenceVector) follows() error {
	first, err := ParseCheckpoint([]byte(v.First))
	if err != nil {
		return err
	}
	second, err := ParseCheckpoint([]byte(v.Second))
	if err != nil {
		return err
	}
	if first.Ledger != second.Ledger || first.Node != second.Node {
		return errors.New("another ledger")
	}
	return VerifyConsistency(first.Size, second.Size, v.Proof, first.Root, second.Root)
}

func verdictOf(err error) string {
	if err != nil {
		return "invalid"
	}
	return "valid"
}

func TestLedgerVectors(t *testing.T) {
	path := filepath.Join("testdata", "ledger-v1.json")
	made, err := json.MarshalIndent(makeLedgerVectors(t), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	made = append(made, '\n')
	if *update {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(path, made, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, made) {
		t.Errorf("%s is made differently now: a change of the format is a version 2", path)
	}
	var f ledgerVectors
	if err := json.Unmarshal(have, &f); err != nil {
		t.Fatal(err)
	}
	for i, text := range f.Leaves {
		if LeafHash([]byte(text)) != f.Hashes[i] {
			t.Errorf("hash of leaf %d", i)
		}
	}
	for n, root := range f.Roots {
		if Root(f.Hashes[:n]) != root {
			t.Errorf("root of %d leaves", n)
		}
	}
	for _, v := range f.Inclusion {
		if err := VerifyInclusion(*v.Leaf, v.Index, v.Size, v.Proof, v.Root); verdictOf(err) != v.Result {
			t.Errorf("inclusion, %s: %v, want %s %s", v.Name, err, v.Result, v.Class)
		}
	}
	for _, v := range f.Consistency {
		if err := VerifyConsistency(v.From, v.Size, v.Proof, *v.Old, v.Root); verdictOf(err) != v.Result {
			t.Errorf("consistency, %s: %v, want %s %s", v.Name, err, v.Result, v.Class)
		}
	}
	for _, v := range f.Objects {
		var err error
		if v.Kind == "leaf" {
			_, err = ParseLeaf([]byte(v.JSON))
		} else {
			_, err = ParseCheckpoint([]byte(v.JSON))
		}
		if verdictOf(err) != v.Result || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want %s %s", v.Name, err, v.Result, v.Class)
		}
	}
	for _, v := range f.Sequences {
		if err := v.follows(); verdictOf(err) != v.Result {
			t.Errorf("sequence, %s: %v, want %s %s", v.Name, err, v.Result, v.Class)
		}
	}
	n := len(f.Inclusion) + len(f.Consistency) + len(f.Objects) + len(f.Sequences)
	t.Logf("ledger-v1.json: %d vectors ran", n)
}
