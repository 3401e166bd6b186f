package certs

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

func spec(id string) NodeSpec {
	return NodeSpec{ID: id, Zone: "政务外网", URL: "https://" + id + ".example", TLSPin: sm.Sum([]byte(id))}
}

func agencySpec(t testing.TB, first17, name string) AgencySpec {
	t.Helper()
	code, err := MakeAgencyCode(first17)
	if err != nil {
		t.Fatal(err)
	}
	return AgencySpec{Code: code, Name: name, Aliases: []string{name + "办"}}
}

func (f *forge) request(node string, agencies ...AgencySpec) []byte {
	f.t.Helper()
	b, err := NewRequest(f.keys(), testDomain, spec(node), agencies, testNow)
	f.must(err)
	return b
}

func TestRequest(t *testing.T) {
	f := newForge(t, "request")
	b := f.request("jia", agencySpec(t, "11520300000000001", "示范单位甲"), agencySpec(t, "11520300000000002", "示范单位乙"))
	r, err := ParseRequest(b)
	f.must(err)
	if r.Node != "jia" || r.Domain != testDomain || len(r.Agencies) != 2 || len(r.Proofs) != 6 || r.Time.Time() != testNow {
		t.Errorf("got %+v", r)
	}
	again, err := strictjson.Marshal(r)
	if err != nil || !bytes.Equal(again, b) {
		t.Errorf("marshals to other bytes, %v", err)
	}
}

func TestNewRequestRefusesBeforeItMakesKeys(t *testing.T) {
	good := agencySpec(t, "11520300000000001", "示范单位甲")
	tests := []struct {
		name   string
		domain string
		change func(*NodeSpec)
		agency AgencySpec
		code   string
	}{
		{"no domain", "", nil, good, "request_content"},
		{"bad node id", testDomain, func(n *NodeSpec) { n.ID = "Jia" }, good, "request_content"},
		{"node id too long", testDomain, func(n *NodeSpec) { n.ID = strings.Repeat("a", 33) }, good, "request_content"},
		{"plain URL", testDomain, func(n *NodeSpec) { n.URL = "http://a" }, good, "request_content"},
		{"wrong check digit", testDomain, nil, AgencySpec{Code: "91350100M000100Y44", Name: "x"}, "agency_code"},
		{"agency without a name", testDomain, nil, AgencySpec{Code: good.Code}, "request_content"},
		{"no URL", testDomain, func(n *NodeSpec) { n.URL = "" }, good, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newForge(t, "request")
			keys, node := f.keys(), spec("jia")
			if tt.change != nil {
				tt.change(&node)
			}
			_, err := NewRequest(keys, tt.domain, node, []AgencySpec{tt.agency}, testNow)
			wantCode(t, err, tt.code)
			if tt.code != "" && len(keys.keys) != 0 {
				t.Errorf("%d keys were made", len(keys.keys))
			}
		})
	}
}

// TestRefusedRequests changes a request and proves it anew, so that only the
// fault in question is there.
func TestRefusedRequests(t *testing.T) {
	type change func(f *forge, keys *memoryKeys, r *Request)
	tests := []struct {
		name    string
		change  change
		reprove bool
		code    string
		says    string
	}{
		{"as it was", func(*forge, *memoryKeys, *Request) {}, false, "", ""},
		{"proven again", func(*forge, *memoryKeys, *Request) {}, true, "", ""},
		{"name changed after the proofs", func(_ *forge, _ *memoryKeys, r *Request) { r.Agencies[0].Name = "另一个" }, false, "request_content", "possession"},
		{"pin changed after the proofs", func(_ *forge, _ *memoryKeys, r *Request) { r.TLSPin = strings.Repeat("0", 64) }, false, "request_content", "possession"},
		{"a proof missing", func(_ *forge, _ *memoryKeys, r *Request) { r.Proofs = r.Proofs[1:] }, false, "request_content", "proofs"},
		{"no proofs", func(_ *forge, _ *memoryKeys, r *Request) { r.Proofs = nil }, false, "request_content", "proofs"},
		{"proofs in another order", func(_ *forge, _ *memoryKeys, r *Request) { r.Proofs[0], r.Proofs[1] = r.Proofs[1], r.Proofs[0] }, false, "request_content", "key 0"},
		{"someone else's key", func(f *forge, _ *memoryKeys, r *Request) {
			r.Agencies[0].Keys.Sign = sm.PublicKeyBytes(&f.newKey().PublicKey)
		}, false, "request_content", "possession"},
		{"key off the curve", func(_ *forge, _ *memoryKeys, r *Request) { r.Keys.Sign = bytes.Repeat([]byte{4}, 65) }, false, "request_content", "key 0"},
		{"no key", func(_ *forge, _ *memoryKeys, r *Request) { r.Keys.Encrypt = nil }, false, "request_content", "key"},
		{"one key for both uses", func(_ *forge, _ *memoryKeys, r *Request) { r.Keys.Encrypt = r.Keys.Sign }, true, "request_content", "twice"},
		{"agency twice", func(_ *forge, _ *memoryKeys, r *Request) { r.Agencies[1].Code = r.Agencies[0].Code }, true, "request_content", "twice"},
		{"wrong check digit", func(_ *forge, _ *memoryKeys, r *Request) { r.Agencies[0].Code = "91350100M000100Y44" }, true, "agency_code", "check digit"},
		{"agency without a name", func(_ *forge, _ *memoryKeys, r *Request) { r.Agencies[0].Name = "" }, true, "request_content", "name"},
		{"too many aliases", func(_ *forge, _ *memoryKeys, r *Request) { r.Agencies[0].Aliases = make([]string, 65) }, true, "request_content", "64"},
		{"bad node id", func(_ *forge, _ *memoryKeys, r *Request) { r.Node = "../jia" }, true, "request_content", "id"},
		{"bad pin", func(_ *forge, _ *memoryKeys, r *Request) { r.TLSPin = "00" }, true, "request_content", "tls_pin"},
		{"bad URL", func(_ *forge, _ *memoryKeys, r *Request) { r.URL = "ftp://x" }, true, "request_content", "URL"},
		{"renewal of another holder", func(_ *forge, _ *memoryKeys, r *Request) {
			r.Renews = []renewal{{Holder: "node yi", Key: sm.Sum(nil), Signature: []byte{1}}}
		}, true, "request_content", "does not name"},
		{"renewal twice", func(_ *forge, _ *memoryKeys, r *Request) {
			r.Renews = []renewal{{Holder: "node jia", Key: sm.Sum(nil), Signature: []byte{1}}, {Holder: "node jia", Key: sm.Sum(nil), Signature: []byte{1}}}
		}, true, "request_content", "has one already"},
		{"renewals without end", func(_ *forge, _ *memoryKeys, r *Request) { r.Renews = make([]renewal, 4) }, true, "request_content", "3 holders"},
		{"renewal without a signature", func(_ *forge, _ *memoryKeys, r *Request) {
			r.Renews = []renewal{{Holder: "node jia", Key: sm.Sum(nil)}}
		}, true, "request_content", "lacks"},
		{"renewal put in after the proofs", func(_ *forge, _ *memoryKeys, r *Request) {
			r.Renews = []renewal{{Holder: "node jia", Key: sm.Sum(nil), Signature: []byte{1}}}
		}, false, "request_content", "possession"},
		{"no domain", func(_ *forge, _ *memoryKeys, r *Request) { r.Domain = "" }, true, "request_content", "domain"},
		{"another type", func(_ *forge, _ *memoryKeys, r *Request) { r.Type = nodeType }, true, "request_content", ""},
		{"version 2", func(_ *forge, _ *memoryKeys, r *Request) { r.V = 2 }, true, "request_content", ""},
		{"critical member unknown", func(_ *forge, _ *memoryKeys, r *Request) {
			r.Crit, r.Extra = []string{"later"}, strictjson.Extra{{Name: "later", Value: raw("1")}}
		}, true, "request_content", "later"},
		{"member unknown", func(_ *forge, _ *memoryKeys, r *Request) {
			r.Extra = strictjson.Extra{{Name: "later", Value: raw("1")}}
		}, true, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newForge(t, "refused requests")
			keys := f.keys()
			b, err := NewRequest(keys, testDomain, spec("jia"), []AgencySpec{agencySpec(t, "11520300000000001", "甲"), agencySpec(t, "11520300000000002", "乙")}, testNow)
			f.must(err)
			r, err := ParseRequest(b)
			f.must(err)
			tt.change(f, keys, r)
			if tt.reprove {
				r.Proofs = nil
				b, err = r.prove(keys)
			} else {
				b, err = strictjson.Marshal(r)
			}
			f.must(err)
			got, err := ParseRequest(b)
			wantCode(t, err, tt.code)
			if err != nil && (got != nil || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("got %v, %v; want %q", got, err, tt.says)
			}
		})
	}
}

func TestRequestBitFlips(t *testing.T) {
	f := newForge(t, "flips")
	b := f.request("jia", agencySpec(t, "11520300000000001", "示范单位甲"))
	for at := range b {
		bad := bytes.Clone(b)
		bad[at] ^= 1 << (at % 8)
		if _, err := ParseRequest(bad); err == nil {
			t.Errorf("byte %d flipped: accepted", at)
		}
	}
	_, err := ParseRequest(make([]byte, MaxRequest+1))
	wantCode(t, err, "request_content")
}

func FuzzParseRequest(f *testing.F) {
	g := newForge(f, "fuzz")
	b := g.request("jia", agencySpec(f, "11520300000000001", "示范单位甲"))
	f.Add(b)
	f.Add(g.request("yi"))
	renews, err := os.ReadFile(filepath.Join("testdata", "request-renews.json"))
	g.must(err)
	f.Add(renews)
	f.Add(b[:len(b)/2])
	f.Add([]byte(`{"type":"yizhan-join-request","v":1,"domain":"x","node":"a","zone":"","tls_pin":"","keys":{"sign":"","encrypt":""},"agencies":[],"time":"2026-11-23T08:00:00.000Z"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRequest(b)
		if err != nil {
			wantSome(t, err)
			return
		}
		again, err := strictjson.Marshal(r)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("marshals to other bytes, %v", err)
		}
	})
}
