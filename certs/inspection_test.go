package certs

import (
	"crypto/rand"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/keystore"
)

func inspection(node, link string) *inspectionEntry {
	return &inspectionEntry{Type: inspectionType, V: 1, Domain: testDomain, Node: node, Link: link}
}

// TestInspectedBy: whoever is an inspection point of a link on the way looks
// into what passes, whichever way it goes.
func TestInspectedBy(t *testing.T) {
	f := newForge(t, "inspected") // jia – yi – bing, a route from jia to bing
	jia, bing := "115203000000000018", "11520300000000003E"
	for _, c := range []struct {
		name     string
		points   []any
		from, to string
		want     string
	}{
		{"none", nil, "jia", bing, ""},
		{"the near end", []any{inspection("yi", "yi-bing")}, "jia", bing, "yi"},
		{"the far end", []any{inspection("bing", "yi-bing")}, "jia", bing, "bing"},
		{"both ends", []any{inspection("bing", "yi-bing"), inspection("yi", "yi-bing")}, "jia", bing, "yi bing"},
		{"the sender's own", []any{inspection("jia", "")}, "jia", bing, "jia"},
		{"another link", []any{inspection("yi", "yi-bing")}, "yi", jia, ""},
		{"all links of a node, once", []any{inspection("yi", "")}, "jia", bing, "yi"},
		{"the other way", []any{inspection("yi", "jia-yi")}, "yi", jia, "yi"},
		{"from the middle of the way", []any{inspection("yi", "yi-bing"), inspection("jia", "")}, "yi", bing, "yi"},
		{"no way at all", []any{inspection("bing", "")}, "bing", jia, ""},
		{"nobody", []any{inspection("yi", "")}, "jia", "11520300000000009X", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := f.load(f.draft(append(f.usual(), c.points...)...))
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(d.InspectedBy(c.from, c.to), " "); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestInspectionPointsAreEnds: an entry that could not be kept is refused.
func TestInspectionPointsAreEnds(t *testing.T) {
	f := newForge(t, "ends")
	for name, list := range map[string][]any{
		"no node":           {inspection("ding", "")},
		"no link":           {inspection("yi", "yi-ding")},
		"another's link":    {inspection("jia", "yi-bing")},
		"there twice":       {inspection("yi", ""), raw(`{"type":"yizhan-inspection","v":1,"domain":"` + testDomain + `","node":"yi","note":1}`)},
		"of another domain": {raw(`{"type":"yizhan-inspection","v":1,"domain":"another","node":"yi"}`)},
		"of a later kind":   {raw(`{"type":"yizhan-inspection","v":2,"domain":"` + testDomain + `","node":"yi"}`)},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := f.load(f.draft(append(f.usual(), list...)...))
			if err == nil {
				t.Fatal("taken")
			}
			wantCode(t, err, "directory_content")
		})
	}
}

// TestAuthorityNamesInspectionPoints: what is named is published, and goes with
// its link.
func TestAuthorityNamesInspectionPoints(t *testing.T) {
	m := newMember(t) // with node jia
	for i, id := range []string{"yi", "bing"} {
		keys, err := keystore.Create(filepath.Join(t.TempDir(), id), []byte("x"), rand.Reader)
		m.must(err)
		b, err := NewRequest(keys, testDomain, NodeSpec{ID: id, TLSPin: [32]byte{byte(7 + i)}}, nil, testNow)
		m.must(err)
		m.must(m.a.Admit(parsed(t, b), testNow))
	}
	m.must(m.a.AddLink(Link{A: "jia", B: "yi", Dialer: "jia", Kind: "https"}))
	m.must(m.a.AddLink(Link{A: "yi", B: "bing", Dialer: "yi", Kind: "https"}))
	for _, one := range []Inspection{{"jia", "jia-yi"}, {"yi", ""}} {
		m.must(m.a.AddInspection(one))
	}
	for _, one := range []Inspection{{"ding", ""}, {"jia", "yi-bing"}, {"jia", "x"}, {"jia", "../x"}, {"../x", ""}} {
		if m.a.AddInspection(one) == nil {
			t.Errorf("%v is taken", one)
		}
	}
	d := published(t, m.a, 0)
	if got := d.Inspections(); !slices.Equal(got, []Inspection{{"jia", "jia-yi"}, {"yi", ""}}) {
		t.Fatalf("published: %v", got)
	}
	m.must(m.a.RemoveInspection(Inspection{"jia", "jia-yi"}))
	if m.a.RemoveInspection(Inspection{"jia", "jia-yi"}) == nil {
		t.Error("removed twice")
	}
	m.must(m.a.AddInspection(Inspection{"jia", "jia-yi"}))
	r, err := m.a.Removal("node yi")
	m.must(err)
	if !slices.Contains(r.Taken, "inspection point jia of link jia-yi") || !slices.Contains(r.Taken, "inspection point yi") {
		t.Errorf("taken: %q", r.Taken)
	}
	m.must(r.Commit(testNow))
	if got := published(t, m.a, 0).Inspections(); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}
