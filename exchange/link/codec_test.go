package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// counting says how much was read, to show that limits come before reading.
type counting struct {
	r io.Reader
	n int
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

// endless never runs out.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestReadFrame(t *testing.T) {
	size := func(n uint32) string { return string(binary.BigEndian.AppendUint32(nil, n)) }
	for _, c := range []struct{ name, in, err string }{
		{"whole", "YZB1" + size(3) + "abc", ""},
		{"empty header", "YZB1" + size(0), ""},
		{"followed by more", "YZB1" + size(3) + "abcdef", ""},
		{"nothing", "", "begin like a bundle"},
		{"cut in the magic", "YZB", "begin like a bundle"},
		{"another magic", "YZB2" + size(3) + "abc", "begin like a bundle"},
		{"lower case", "yzb1" + size(3) + "abc", "begin like a bundle"},
		{"cut in the length", "YZB1" + size(3)[:2], "begin like a bundle"},
		{"cut in the header", "YZB1" + size(3) + "ab", "ends in its header"},
		{"too long", "YZB1" + size(MaxClearHeader+1), "8193 bytes"},
		{"far too long", "YZB1" + size(1<<32-1), "4294967295 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := readFrame(strings.NewReader(c.in))
			if c.err != "" {
				if !errors.Is(err, ErrFault) || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("got %v, want a fault saying %q", err, c.err)
				}
				return
			}
			if err != nil || !strings.HasPrefix(c.in, string(appendFrame(got))) {
				t.Fatalf("got %q, %v", got, err)
			}
		})
	}
	// A huge length is refused before anything is allocated or read for it.
	r := &counting{r: io.MultiReader(strings.NewReader("YZB1"+size(1<<31)), endless{})}
	if _, err := readFrame(r); err == nil || r.n != 8 {
		t.Fatalf("%v after reading %d bytes", err, r.n)
	}
}

func TestFooter(t *testing.T) {
	good := footer(1234)
	if len(good) != footerSize || string(good) != "YZBE\x00\x00\x00\x00\x00\x00\x04\xd2" {
		t.Fatalf("%q", good)
	}
	for name, c := range map[string]struct {
		in   []byte
		want bool
	}{
		"right":           {good, true},
		"followed":        {append(bytes.Clone(good), 1), true},
		"missing":         {nil, false},
		"cut":             {good[:11], false},
		"another length":  {footer(1235), false},
		"another magic":   {append([]byte("YZBX"), good[4:]...), false},
		"shifted by one":  {append([]byte{0}, good...), false},
		"length reversed": {append([]byte("YZBE"), 0xd2, 4, 0, 0, 0, 0, 0, 0), false},
	} {
		if got := whole(bytes.NewReader(c.in), 1234); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func goodClear() *Clear {
	return &Clear{
		Type: bundleType, V: 1, Domain: "d", Link: "a-b", From: "a", To: "b", Epoch: strings.Repeat("0a", 16), Seq: 1,
		Key: make([]byte, 139), Salt: make([]byte, 16), Sealed: Extent{Size: 1000}, Parts: PartsExtent{Count: 1, Size: 5},
	}
}

func TestParseClear(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Clear)
		err    string
	}{
		{"good", func(*Clear) {}, ""},
		{"smallest section", func(c *Clear) { c.Sealed.Size = sm.Overhead }, ""},
		{"largest section", func(c *Clear) { c.Sealed.Size = MaxSection }, ""},
		{"unknown member", func(c *Clear) { c.Extra = strictjson.Extra{{Name: "zz", Value: strictjson.Raw("1")}} }, ""},
		{"another type", func(c *Clear) { c.Type = "yizhan-bundle-inner" }, "not a yizhan-bundle"},
		{"another version", func(c *Clear) { c.V = 2 }, "not a yizhan-bundle"},
		{"critical", func(c *Clear) {
			c.Crit, c.Extra = []string{"zz"}, strictjson.Extra{{Name: "zz", Value: strictjson.Raw("1")}}
		}, "critical"},
		{"no section", func(c *Clear) { c.Sealed.Size = sm.Overhead - 1 }, "sealed section"},
		{"negative section", func(c *Clear) { c.Sealed.Size = -1 }, "sealed section"},
		{"section too large", func(c *Clear) { c.Sealed.Size = MaxSection + 1 }, "sealed section"},
		{"too many parts", func(c *Clear) { c.Parts.Count = MaxItems + 1 }, "parts"},
		{"negative parts", func(c *Clear) { c.Parts.Count = -1 }, "parts"},
		{"parts too large", func(c *Clear) { c.Parts.Size = MaxBundle + 1 }, "parts"},
		{"negative parts size", func(c *Clear) { c.Parts.Size = -1 }, "parts"},
		{"key too large", func(c *Clear) { c.Key = make([]byte, 513) }, "key, salt or epoch"},
		{"short salt", func(c *Clear) { c.Salt = c.Salt[1:] }, "key, salt or epoch"},
		{"long salt", func(c *Clear) { c.Salt = append(c.Salt, 0) }, "key, salt or epoch"},
		{"short epoch", func(c *Clear) { c.Epoch = c.Epoch[2:] }, "key, salt or epoch"},
	} {
		t.Run(c.name, func(t *testing.T) {
			clear := goodClear()
			c.change(clear)
			b, err := strictjson.Marshal(clear)
			if err != nil {
				t.Fatal(err)
			}
			_, err = parseClear(b)
			wantFault(t, err, c.err)
		})
	}
}

func wantFault(t *testing.T, err error, reason string) {
	t.Helper()
	if reason == "" {
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	if !errors.Is(err, ErrFault) || !strings.Contains(err.Error(), reason) {
		t.Fatalf("got %v, want a fault saying %q", err, reason)
	}
}

func goodInner() (*Inner, []byte) {
	return &Inner{
		Acks:  []Ack{{Epoch: strings.Repeat("0a", 16), Seq: 7, Items: []AckItem{{Status: node.Taken}, {Status: node.Damaged, Reason: "digest"}}}},
		Seen:  &SeenHead{Ledger: "L", Size: 3},
		Heads: [][]byte{},
		Items: []ManifestEntry{
			{Kind: node.KindHeader, ID: "h", Size: 3, Digest: sm.Sum([]byte("abc"))},
			{Kind: node.KindPart, ID: "h/0", Size: 100},
			{Kind: "hologram", ID: "x", Size: 2, Digest: sm.Sum([]byte("de"))},
		},
	}, []byte("abcde")
}

func TestParseInner(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Inner)
		bytes  func([]byte) []byte
		err    string
	}{
		{name: "good"},
		{name: "without what may be absent", change: func(in *Inner) { in.Seen = nil }},
		{name: "a proof", change: func(in *Inner) { in.Checkpoint = &ProvenHead{CMS: []byte{1}, From: 2, Proof: []sm.Digest{{}}} }},
		{name: "most heads", change: func(in *Inner) { in.Heads = make([][]byte, MaxHeads) }},
		{name: "too many heads", change: func(in *Inner) { in.Heads = make([][]byte, MaxHeads+1) }, err: "too many"},
		{name: "too many acks", change: func(in *Inner) { in.Acks = make([]Ack, MaxAcks+1) }, err: "too many"},
		{name: "too many items", change: func(in *Inner) {
			for len(in.Items) <= MaxItems {
				in.Items = append(in.Items, ManifestEntry{Kind: "x"})
			}
		}, err: "too many"},
		{name: "negative size", change: func(in *Inner) { in.Items[1].Size = -1 }, err: "an item of -1 bytes"},
		{name: "huge part", change: func(in *Inner) { in.Items[1].Size = MaxBundle + 1 }, err: "an item of"},
		{name: "long id", change: func(in *Inner) { in.Items[1].ID = strings.Repeat("x", 257) }, err: "an item of"},
		{name: "more bytes than items", change: func(in *Inner) { in.Items[0].Size = 2 }, err: "items of 4 bytes in 5"},
		{name: "fewer bytes than items", change: func(in *Inner) { in.Items[0].Size = 4 }, err: "items of 6 bytes in 5"},
		{name: "sizes that overflow together", change: func(in *Inner) {
			in.Items = append(in.Items, ManifestEntry{Kind: "x", Size: 1<<53 - 1}, ManifestEntry{Kind: "x", Size: -(1<<53 - 1)})
		}, err: "an item of"},
		{name: "empty", bytes: func([]byte) []byte { return nil }, err: "without head"},
		{name: "cut in the length", bytes: func(b []byte) []byte { return b[:3] }, err: "without head"},
		{name: "cut in the head", bytes: func(b []byte) []byte { return b[:40] }, err: "longer than the section"},
		{name: "length 4 GiB", bytes: func(b []byte) []byte { return append([]byte{255, 255, 255, 255}, b[4:]...) }, err: "longer than the section"},
		{name: "head shorter than it is", bytes: func(b []byte) []byte { b[3]--; return b }, err: "section:"},
		{name: "another type", bytes: func(b []byte) []byte {
			return bytes.Replace(b, []byte("yizhan-bundle-inner"), []byte("yizhan-bundle-other"), 1)
		}, err: "not a yizhan-bundle-inner"},
		{name: "another version", bytes: func(b []byte) []byte { return bytes.Replace(b, []byte(`"v":1`), []byte(`"v":2`), 1) }, err: "version 1"},
		{name: "white space", bytes: func(b []byte) []byte {
			b[3]++
			return bytes.Replace(b, []byte(`"v":1`), []byte(`"v": 1`), 1)
		}, err: "section:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, items := goodInner()
			if c.change != nil {
				c.change(in)
			}
			section, err := joinSection(in, items)
			if err != nil {
				t.Fatal(err)
			}
			if c.bytes != nil {
				section = c.bytes(section)
			}
			got, rest, err := parseInner(section)
			wantFault(t, err, c.err)
			if err != nil {
				return
			}
			if again, err := joinSection(got, rest); err != nil || !bytes.Equal(again, section) {
				t.Fatalf("another encoding: %v", err)
			}
		})
	}
}

func TestCheckParts(t *testing.T) {
	in, _ := goodInner()
	for _, c := range []struct {
		PartsExtent
		ok bool
	}{
		{PartsExtent{Count: 1, Size: 100}, true},
		{PartsExtent{Count: 1, Size: 99}, false},
		{PartsExtent{Count: 2, Size: 100}, false},
		{PartsExtent{Count: 0, Size: 0}, false},
	} {
		if err := in.checkParts(c.PartsExtent); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.PartsExtent, err)
		}
	}
}

func TestCheckKinds(t *testing.T) {
	for _, c := range []struct {
		kind     string
		critical bool
		ok       bool
	}{
		{node.KindHeader, true, true}, {node.KindConsignment, true, true}, {node.KindPart, true, true}, {node.KindReceipt, true, true},
		{"hologram", false, true}, {"hologram", true, false}, {"", true, false}, {"Header", true, false},
	} {
		in := &Inner{Items: []ManifestEntry{{Kind: c.kind, Critical: c.critical}}}
		if err := in.checkKinds(); (err == nil) != c.ok {
			t.Errorf("%q critical %v: %v", c.kind, c.critical, err)
		}
	}
}

// A broken connection looks like one that ended: what is missing is damaged,
// what came is not.
func TestUntilBroken(t *testing.T) {
	r := &untilBroken{io.MultiReader(strings.NewReader("abc"), broken{})}
	if b, err := io.ReadAll(r); err != nil || string(b) != "abc" {
		t.Fatalf("%q, %v", b, err)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, fmt.Errorf("the line is dead") }

// FuzzFrame: what is read back is what was there.
func FuzzFrame(f *testing.F) {
	for _, v := range readVectors(f).Vectors {
		f.Add(v.Bundle)
	}
	f.Add([]byte("YZB1\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		signed, err := readFrame(bytes.NewReader(b))
		if err == nil && !bytes.HasPrefix(b, appendFrame(signed)) {
			t.Fatal("another encoding")
		}
	})
}

// FuzzClear: a clear header has one encoding, and what is accepted keeps the
// limits.
func FuzzClear(f *testing.F) {
	for _, v := range readVectors(f).Vectors {
		f.Add([]byte(v.Clear))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseClear(b)
		if err != nil {
			if !errors.Is(err, ErrFault) {
				t.Fatal(err)
			}
			return
		}
		if again, err := strictjson.Marshal(c); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("another encoding: %s, %v", again, err)
		}
		if c.Sealed.Size > MaxSection || c.Parts.Count > MaxItems || c.Parts.Size > MaxBundle {
			t.Fatal("beyond the limits")
		}
	})
}

// FuzzSection: a section has one encoding, and the items fill it exactly.
func FuzzSection(f *testing.F) {
	for _, v := range readVectors(f).Vectors {
		f.Add(v.Section)
	}
	in, items := goodInner()
	section, err := joinSection(in, items)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(section)
	in, items = goodInner()
	in.Inside = true
	in.Passage = &Passage{Round: 3, From: 2, Last: 5, Heard: 1, Epoch: "e", UpTo: 7, Ranges: []Range{{From: 9, To: 12}}, Lacks: []Lack{{Seq: 4, Items: []AckItem{{Status: "taken"}, {Status: "damaged", Reason: "digest"}}}}}
	for _, e := range in.Items {
		if e.Kind == node.KindPart {
			items = append(items, make([]byte, e.Size)...)
		}
	}
	if section, err = joinSection(in, items); err != nil {
		f.Fatal(err)
	}
	f.Add(section)
	f.Fuzz(func(t *testing.T, b []byte) {
		in, rest, err := parseInner(b)
		if err != nil {
			if !errors.Is(err, ErrFault) {
				t.Fatal(err)
			}
			return
		}
		if again, err := joinSection(in, rest); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("another encoding, %v", err)
		}
		for _, e := range in.Items {
			if e.Kind != node.KindPart || in.Inside {
				rest = rest[e.Size:]
			}
		}
		if len(rest) != 0 {
			t.Fatalf("%d bytes belong to no item", len(rest))
		}
	})
}
