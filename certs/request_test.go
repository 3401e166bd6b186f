package certs

import (
	"bytes"
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
		{"wrong check digit", func(_ *forge, _ *memoryKeys, r *Request) { r.Agencies[0].Code = "91350100M000100Y44" }, true, "agency_code", "check digit"},
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
