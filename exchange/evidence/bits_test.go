package evidence

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// flipped lists the positions at which one flipped bit leaves a file that
// verifies; which bit follows from the position's place in the list.
func (w *world) flipped(authority []byte, positions []int) (survived []string) {
	for i, at := range positions {
		b := bytes.Clone(w.raw)
		b[at] ^= 1 << (i % 8)
		r, err := Verify(b, authority, []Delivered{Sum(w.doc.body)})
		if err == nil && r.OK() {
			survived = append(survived, fmt.Sprintf("byte %d, bit %d, in %q", at, i%8, w.raw[max(0, at-24):min(len(w.raw), at+24)]))
		}
	}
	return survived
}

// span finds the value of a member that is a string.
func (w *world) span(t *testing.T, member string) []int {
	t.Helper()
	_, rest, ok := bytes.Cut(w.raw, []byte(`"`+member+`":"`))
	if !ok {
		t.Fatalf("there is no member %s", member)
	}
	from := len(w.raw) - len(rest)
	var all []int
	for at := from; w.raw[at] != '"'; at++ {
		all = append(all, at)
	}
	return all
}

// TestOneFlippedBitNeverVerifies walks over the whole file. Left to a test of
// its own are domain and authority, which say nothing to a verifier who has
// the authority's certificate.
func TestOneFlippedBitNeverVerifies(t *testing.T) {
	w := sharedWorld(t)
	told := append(w.span(t, "domain"), w.span(t, "authority")...)
	const count = 2000
	var positions []int
	for i := range count {
		at := i * len(w.raw) / count
		if !slices.Contains(told, at) {
			positions = append(positions, at)
		}
	}
	for _, where := range w.flipped(w.ours.directory.Authority(), positions) {
		t.Error(where)
	}
}

// Who has no certificate of the authority compares a fingerprint: every bit
// that goes into it counts.
func TestOneFlippedBitOfTheFilesOwnAuthorityNeverVerifies(t *testing.T) {
	w := sharedWorld(t)
	for _, where := range w.flipped(nil, w.span(t, "authority")) {
		t.Error(where)
	}
}

// wholeVector is the first file of the vectors with its authority: no key has to
// be made for it, which would take longer than a short run of a fuzz target.
func wholeVector(f *testing.F) (raw, authority []byte, given []Delivered) {
	b, err := os.ReadFile(filepath.Join("testdata", "evidence-v1.json"))
	if err != nil {
		f.Fatal(err)
	}
	var file evidenceVectors
	if err := json.Unmarshal(b, &file); err != nil {
		f.Fatal(err)
	}
	whole := &file.Vectors[0]
	for _, d := range whole.Delivered {
		given = append(given, Delivered{Size: d.Size, SM3: d.SM3})
	}
	return whole.file(nil), file.Authority, given
}

func FuzzParse(f *testing.F) {
	raw, _, _ := wholeVector(f)
	f.Add(raw)
	f.Add([]byte(`{"type":"yizhan-evidence","v":1,"domain":"","authority":"","directory":"","header":"","receipts":[],"checkpoint":""}`))
	f.Add([]byte(`{"type":"yizhan-evidence","v":1,"crit":["receipts"],"domain":"d","authority":"","directory":"","header":"","disclosed":[{"name":"n","salt":"","value":{}}],"receipts":[{"cms":"","seen":"1970-01-01T00:00:00.000Z","index":0,"leaf":"","proof":[]}],"checkpoint":"","zz":[1]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		parsed, err := Parse(b)
		if err != nil {
			if exchange.CodeOf(err) == exchange.CodeInternal {
				t.Fatalf("an error without a code: %v", err)
			}
			return
		}
		again, err := parsed.Marshal()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("parse then marshal differs: %v", err)
		}
	})
}

// slots are the signed or hashed byte strings of a file.
func (f *File) slots() []*[]byte {
	out := []*[]byte{&f.Header, &f.Directory, &f.Checkpoint}
	for i := range f.Receipts {
		out = append(out, &f.Receipts[i].CMS, &f.Receipts[i].Leaf)
	}
	return out
}

// FuzzVerify puts other bytes in the place of one signed object: nothing but
// the object itself may verify there.
func FuzzVerify(f *testing.F) {
	raw, authority, given := wholeVector(f)
	whole := func(t testing.TB) *File {
		file, err := Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	for i, slot := range whole(f).slots() {
		f.Add(uint(i), *slot)
		f.Add(uint(i+1), *slot)
	}
	f.Fuzz(func(t *testing.T, i uint, b []byte) {
		file := whole(t)
		list := file.slots()
		slot := list[i%uint(len(list))]
		same := bytes.Equal(*slot, b)
		*slot = b
		changed, err := file.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		r, err := Verify(changed, authority, given)
		if err != nil {
			t.Fatal(err)
		}
		if r.OK() != same {
			t.Fatalf("the same bytes: %v; problems %q", same, r.Problems)
		}
	})
}
