package certs

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

var update = flag.Bool("update", false, "write testdata anew")

// vector is one file and what every implementation must say of it.
type vector struct {
	File    string `json:"file"`
	Kind    string `json:"kind"`               // directory, request, or delta (to be taken after another file)
	Trust   string `json:"trust,omitempty"`    // certificate of the authority; authority.crt unless said otherwise
	After   string `json:"after,omitempty"`    // directory that is in force at the reader
	AtLeast uint64 `json:"at_least,omitempty"` // lowest version that is not a rollback
	Expect  string `json:"expect"`             // accept, or the code of the refusal
	Why     string `json:"why"`
}

// codeVector is one agency code, or what was taken for one.
type codeVector struct {
	Code  string `json:"code"`
	Valid bool   `json:"valid"`
	Why   string `json:"why,omitempty"`
}

var codeVectors = []codeVector{
	{"91350100M000100Y43", true, "the published example"},
	{"115203000000000018", true, ""},
	{"000000000000000000", true, "all zero: the sum is 0"},
	{"91350100M000100Y44", false, "check digit"},
	{"91350100m000100y43", false, "lower case"},
	{"91350100M000100Y4", false, "17 characters"},
	{"91350100I000100Y43", false, "I is not of the alphabet"},
	{"", false, "empty"},
}

// makeVectors makes the vectors from a fixed seed: the same bytes every time.
func makeVectors(t *testing.T) (list []vector, files map[string][]byte) {
	f := newForge(t, "vectors")
	stranger := newForge(t, "a stranger")
	files = map[string][]byte{"authority.crt": pemOf(f.root.Raw)}
	usual := f.usual()
	add := func(v vector, b []byte) {
		list = append(list, v)
		files[v.File] = b
	}
	directory := func(file, expect, why string, d *draft) {
		add(vector{File: file, Kind: "directory", Expect: expect, Why: why}, f.sign(d))
	}
	with := func(more ...any) *draft { return f.draft(append(usual[:len(usual):len(usual)], more...)...) }

	directory("good.yzd", "accept", "three nodes, three agencies, two links and a route", with())
	list = append(list, vector{File: "good.yzd", Kind: "directory", AtLeast: 7, Expect: "accept", Why: "version 7 after version 7"})
	list = append(list, vector{File: "good.yzd", Kind: "directory", AtLeast: 8, Expect: "directory_rollback", Why: "version 7 after version 8"})
	directory("empty.yzd", "accept", "no entries", f.draft())
	directory("kept.yzd", "accept", "kinds of entries and members that version 1 does not act on", with(
		raw(`{"type":"yizhan-inspection","v":1,"domain":"示范域","node":"yi"}`),
		raw(`{"type":"something-later","v":1,"domain":"示范域"}`),
		raw(`{"type":"yizhan-policy","v":1,"domain":"示范域","approvals":0,"alpha":2}`)))
	directory("default-route.yzd", "accept", "a route to all other nodes", with(route("bing", "*", "yi")))

	d := with()
	d.by = stranger.self()
	directory("stranger.yzd", "directory_signature", "signed by another authority", d)
	b := bytes.Clone(files["good.yzd"])
	b[len(b)/3] ^= 1
	add(vector{File: "flipped.yzd", Kind: "directory", Expect: "directory_content", Why: "one bit of an entry changed"}, b)
	d = with()
	d.entries = d.entries[1:]
	directory("entry-missing.yzd", "directory_content", "the list names an entry that is not there", d)
	d = with()
	d.entries[0], d.entries[1] = d.entries[1], d.entries[0]
	directory("entry-order.yzd", "directory_content", "entries not in the order of the list", d)
	directory("entry-twice.yzd", "directory_content", "an agency twice", with(f.agency("11520300000000001", "另一个甲", "yi")))
	directory("critical.yzd", "directory_content", "an entry that must be understood", with(raw(`{"type":"later","v":1,"crit":["x"],"x":1}`)))
	directory("no-node.yzd", "directory_content", "an agency on a node that is not there", with(f.agency("11520300000000009", "示范单位壬", "nowhere")))
	directory("circle.yzd", "directory_content", "routes in a circle", with(f.node("ding"), route("jia", "ding", "yi"), route("yi", "ding", "jia")))
	swapped := f.agency("11520300000000009", "示范单位壬", "jia")
	swapped.Certs[0].Use, swapped.Certs[1].Use = UseEncrypt, UseSign
	directory("swapped.yzd", "certificate_usage", "signing and encryption certificate swapped", with(swapped))
	foreign := f.agency("11520300000000009", "示范单位壬", "jia")
	foreign.Certs = stranger.dual()
	directory("foreign.yzd", "certificate_chain", "certificates of another authority", with(foreign))
	slip := f.agency("11520300000000009", "示范单位壬", "jia")
	slip.Code = "91350100M000100Y44"
	directory("check-digit.yzd", "agency_code", "a wrong check digit", with(slip))

	request := f.request("ding", agencySpec(t, "11520300000000010", "示范单位癸"))
	add(vector{File: "request.json", Kind: "request", Expect: "accept", Why: "a node with one agency"}, request)
	r := parsed(t, request)
	r.Proofs[0], r.Proofs[1] = r.Proofs[1], r.Proofs[0]
	b, err := strictjson.Marshal(r)
	f.must(err)
	add(vector{File: "request-proofs.json", Kind: "request", Expect: "request_content", Why: "proofs of possession swapped"}, b)

	newer := &newerVectors{f: f, stranger: stranger, usual: usual, add: add, files: files}
	newer.trust()
	newer.places()
	newer.approvals()
	newer.successions()
	newer.after()
	newer.requests()
	newer.oneWay()
	return list, files
}

func indented(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

// TestVectorsAreStable: the encoding of version 1 does not drift.
func TestVectorsAreStable(t *testing.T) {
	list, files := makeVectors(t)
	files["vectors.json"] = indented(t, list)
	files["agency-codes.json"] = indented(t, codeVectors)
	for name, b := range files {
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		have, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(have, b) {
			t.Errorf("%s is made differently now: a change of the format is a version 2", name)
		}
	}
}

// TestVectors reads the files as another implementation would.
func TestVectors(t *testing.T) {
	authority, err := ReadCertificate(filepath.Join("testdata", "authority.crt"))
	if err != nil {
		t.Fatal(err)
	}
	var list []vector
	fromJSON(t, "vectors.json", &list)
	for _, v := range list {
		t.Run(v.File, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join("testdata", v.File))
			if err != nil {
				t.Fatal(err)
			}
			trusted := authority
			if v.Trust != "" {
				if trusted, err = ReadCertificate(filepath.Join("testdata", v.Trust)); err != nil {
					t.Fatal(err)
				}
			}
			switch {
			case v.Kind == "request":
				err = judgeRequest(t, v, trusted, b)
			case v.After != "":
				err = judgeAfter(t, v, trusted, b)
			default:
				_, err = LoadDirectory(b, trusted, v.AtLeast, testNow)
			}
			want := v.Expect
			if want == "accept" {
				want = ""
			}
			wantCode(t, err, want)
		})
	}
	var codes []codeVector
	fromJSON(t, "agency-codes.json", &codes)
	for _, v := range codes {
		if _, err := ParseAgencyCode(v.Code); (err == nil) != v.Valid {
			t.Errorf("%q (%s): %v", v.Code, v.Why, err)
		}
	}
	if len(list) < 60 || len(codes) < 5 {
		t.Errorf("%d vectors and %d codes: some are missing", len(list), len(codes))
	}
}

// judgeRequest reads a request as an authority does that has published a
// directory, or none.
func judgeRequest(t *testing.T, v vector, trusted, b []byte) error {
	t.Helper()
	r, err := ParseRequest(b)
	if err != nil || v.After == "" {
		return err
	}
	file, err := os.ReadFile(filepath.Join("testdata", v.After))
	if err != nil {
		t.Fatal(err)
	}
	d, err := LoadDirectory(file, trusted, 0, testNow)
	if err != nil {
		t.Fatal(err)
	}
	if unproven := r.Unproven(d, testNow); len(unproven) > 0 {
		return fail(codeUnproven, "not proven for %q", unproven)
	}
	return nil
}

func fromJSON(t *testing.T, name string, into any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
}
