package link

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/emmansun/gmsm/sm2"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

const ferryVectorFile = "testdata/ferry-v1.json"

// ferryVectors are files as a ferry carries them, with what a reader must find in
// them (docs/spec/bundle-v1.md, "Over a ferry"). Keys are those of bundle-v1.json.
type ferryVectors struct {
	About    string        `json:"about"`
	Signer   []byte        `json:"signer_certificate"`
	Receiver []byte        `json:"receiver_certificate"`
	Key      []byte        `json:"receiver_key"`
	Vectors  []ferryVector `json:"vectors"`
}

type ferryVector struct {
	Name string `json:"name"`
	File []byte `json:"file"`
	// Bundles are what is found, in order. Where none can be read the reader goes on
	// at the next place that begins like one.
	Bundles []ferryBundle `json:"bundles"`
}

type ferryBundle struct {
	At      int      `json:"at"`
	Expect  string   `json:"expect"` // ok, truncated or fault
	Clear   string   `json:"clear,omitempty"`
	Section []byte   `json:"section,omitempty"`
	Passage string   `json:"passage,omitempty"` // its JSON, of a note
	Items   []string `json:"items,omitempty"`   // good or damaged
}

func TestFerryVectors(t *testing.T) {
	if *update {
		writeFerryVectors(t)
	}
	b, err := os.ReadFile(ferryVectorFile)
	if err != nil {
		t.Fatal(err)
	}
	all := new(ferryVectors)
	if err := json.Unmarshal(b, all); err != nil {
		t.Fatal(err)
	}
	key, err := sm2.NewPrivateKey(all.Key)
	if err != nil {
		t.Fatal(err)
	}
	if len(all.Vectors) < 8 {
		t.Fatalf("only %d vectors", len(all.Vectors))
	}
	for _, v := range all.Vectors {
		t.Run(v.Name, func(t *testing.T) {
			got, err := json.Marshal(readFerryFile(t, all, key, v.File))
			if err != nil {
				t.Fatal(err)
			}
			if want, _ := json.Marshal(v.Bundles); !bytes.Equal(got, want) {
				t.Fatalf("%.600s\nwant %.600s", got, want)
			}
		})
	}
}

// readFerryFile is the reader's side of the specification with this package's codec.
func readFerryFile(t *testing.T, all *ferryVectors, key *sm.PrivateKey, file []byte) []ferryBundle {
	list := []ferryBundle{}
	for at := 0; at < len(file); {
		one, length := readFerryBundle(all, key, file[at:])
		one.At = at
		list = append(list, one)
		if at += length; one.Expect == "fault" {
			next, err := nextBundle(bytes.NewReader(file), int64(one.At+1), int64(len(file)))
			if err != nil {
				t.Fatal(err)
			}
			at = int(next)
		}
	}
	return list
}

func readFerryBundle(all *ferryVectors, key *sm.PrivateKey, b []byte) (got ferryBundle, length int) {
	r := bytes.NewReader(b)
	u := unseal(r, all.Signer, key)
	if u == nil {
		return ferryBundle{Expect: "fault"}, 0
	}
	got = ferryBundle{Expect: "truncated", Clear: u.content, Section: u.section}
	if u.in.Passage != nil {
		passage, err := strictjson.Marshal(u.in.Passage)
		if err != nil {
			return ferryBundle{Expect: "fault"}, 0
		}
		got.Passage = string(passage)
	}
	small := u.small
	for _, e := range u.in.Items {
		got.Items = append(got.Items, stateOf(e, small[:e.Size]))
		small = small[e.Size:]
	}
	if whole(r, u.frame+u.clear.Sealed.Size+footerSize) {
		got.Expect = "ok"
	}
	return got, len(b) - r.Len()
}

// sealedInside makes a bundle of a ferry: the parts lie in the section.
func (m *maker) sealedInside(k *epochKey, seq uint64, in *Inner, items ...item) []byte {
	c := m.clear(k, strings.Repeat("0", 12)+"0001", seq)
	var body []byte
	for _, i := range items {
		in.Inside = true
		in.Items = append(in.Items, i.entry())
		body = append(body, i.bytes...)
	}
	b, _ := m.sealed(k, c, in, body, nil)
	return append(b, footer(int64(len(b)+footerSize))...)
}

func (m *maker) note(k *epochKey, p *Passage) []byte {
	in := noItems()
	in.Passage = p
	return m.sealedInside(k, 0, in)
}

func writeFerryVectors(t *testing.T) {
	m := newMaker(t)
	k, err := newEpochKey(m.rand, m.cert)
	m.must(err)
	var d [32]byte
	m.key.D.FillBytes(d[:])
	out := &ferryVectors{
		About:  "Files of a ferry, version 1: see docs/spec/bundle-v1.md, \"Over a ferry\". The keys are public and protect nothing. Byte strings are base64.",
		Signer: m.signer, Receiver: m.cert.DER, Key: d[:],
	}
	key, err := sm2.NewPrivateKey(d[:])
	m.must(err)
	add := func(name string, parts ...[]byte) {
		file := bytes.Join(parts, nil)
		out.Vectors = append(out.Vectors, ferryVector{name, file, readFerryFile(t, out, key, file)})
	}
	hh := strings.Repeat("ab", 32)
	first := []item{
		{kind: "header", id: hh, bytes: []byte("a header")},
		{kind: "consignment", id: hh + "/" + strings.Repeat("ef", 32), bytes: []byte("a consignment")},
		{kind: "part", id: hh + "/0", bytes: bytes.Repeat([]byte("part 0 "), 20)},
		{kind: "part", id: hh + "/1", bytes: []byte("the last part")},
	}
	begin := &Passage{Round: 1, From: 1, Last: 2, Ranges: []Range{}, Lacks: []Lack{}}
	told := &Passage{
		Round: 5, From: 3, Last: 9, Heard: 4, Epoch: strings.Repeat("0f", 16), UpTo: 6, Ranges: []Range{{From: 8, To: 8}, {From: 11, To: 40}},
		Lacks: []Lack{{Seq: 6, Items: []AckItem{{Status: "taken"}, {Status: "damaged", Reason: "digest"}, {Status: "refused", Reason: "unknown_kind"}}}},
	}
	note := m.note(k, begin)
	one := m.sealedInside(k, 1, noItems(), first...)
	two := m.sealedInside(k, 2, noItems(), item{kind: "receipt", id: strings.Repeat("cd", 32), bytes: []byte("a receipt")})
	flip := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[at] ^= 0x10
		return b
	}
	add("a note and two bundles", note, one, two)
	add("a note alone, that says all", m.note(k, told))
	add("a bundle without a note", one)
	add("a damaged bundle between two", note, flip(one, len(one)-100), two)
	add("a damaged note before two", flip(note, 30), one, two)
	add("cut in the second bundle", note, one[:len(one)-200])
	add("cut in the footer", note, one[:len(one)-1])
	add("something else before, between and behind", []byte("a scanner's stamp"), note, []byte("another one, YZB but no bundle"), two, []byte("YZB1"))
	add("the same bundle twice", note, two, two)
	add("a later version's member and item", note, m.sealedInside(k, 3, func() *Inner {
		in := noItems()
		in.Extra = strictjson.Extra{{Name: "zz_later", Value: strictjson.Raw(`true`)}}
		return in
	}(), first[0], item{kind: "hologram", id: "h", bytes: []byte("?")}), two)
	add("a critical item of an unknown kind", note, m.sealedInside(k, 3, noItems(), item{kind: "hologram", id: "h", bytes: []byte("?"), critical: true}), two)
	add("items in a note", m.sealedInside(k, 0, noItems(), first[0]), two)
	add("empty")
	b, err := json.MarshalIndent(out, "", " ")
	m.must(err)
	m.must(os.WriteFile(ferryVectorFile, append(b, '\n'), 0o644))
}
