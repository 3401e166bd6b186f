package timestamp_test

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/crypto/timestamp"
	"github.com/yizhan-gateway/yizhan/crypto/timestamp/tsatest"
)

var update = flag.Bool("update", false, "write testdata/vectors.json anew")

// vector is one case for other implementations: a response, the imprint and
// nonce that were sent, the authority's certificate, and what comes of it.
type vector struct {
	Name        string    `json:"name"`
	Response    []byte    `json:"response"`
	Imprint     sm.Digest `json:"imprint"`
	Nonce       []byte    `json:"nonce"`
	Certificate []byte    `json:"certificate"`
	Class       string    `json:"class"` // ok, malformed, refused, mismatch, signer, signature
	Time        string    `json:"time,omitempty"`
}

var classes = map[string]error{
	"malformed": timestamp.ErrMalformed, "refused": timestamp.ErrRefused, "mismatch": timestamp.ErrMismatch,
	"signer": timestamp.ErrSigner, "signature": timestamp.ErrSignature,
}

func (v *vector) judge() (*timestamp.Token, error) {
	der, err := timestamp.ParseResponse(v.Response)
	if err != nil {
		return nil, err
	}
	token, err := timestamp.Parse(der)
	if err != nil {
		return nil, err
	}
	r := timestamp.Request{Imprint: v.Imprint, Nonce: v.Nonce}
	if err := r.Match(token); err != nil {
		return nil, err
	}
	return token, token.Verify(v.Certificate)
}

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	var list []vector
	if err := json.Unmarshal(must[[]byte](t)(os.ReadFile("testdata/vectors.json")), &list); err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, v := range list {
		count[v.Class]++
		token, err := v.judge()
		if v.Class == "ok" {
			if err != nil || token.Time.Format("2006-01-02T15:04:05.999Z") != v.Time {
				t.Errorf("%s: %v", v.Name, err)
			}
			continue
		}
		if want := classes[v.Class]; want == nil || !errors.Is(err, want) {
			t.Errorf("%s: %v, want class %s", v.Name, err, v.Class)
		}
	}
	for class := range classes {
		if count[class] == 0 || count["ok"] < 4 {
			t.Errorf("vectors by class: %v", count)
		}
	}
}

// brokenCertificates are templates of what must not be taken for a timestamp
// authority's.
func brokenCertificates(t testing.TB) map[string]*smx509.Certificate {
	usage := func(critical bool, list ...asn1.ObjectIdentifier) []pkix.Extension {
		return []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: critical, Value: must[[]byte](t)(asn1.Marshal(list))}}
	}
	timeStamping, email := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8}, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 4}
	out := map[string]*smx509.Certificate{}
	for name, change := range map[string]func(*smx509.Certificate){
		"extended key usage not critical":    func(c *smx509.Certificate) { c.ExtraExtensions = usage(false, timeStamping) },
		"extended key usage not alone":       func(c *smx509.Certificate) { c.ExtraExtensions = usage(true, timeStamping, email) },
		"extended key usage with an unknown": func(c *smx509.Certificate) { c.ExtraExtensions = usage(true, timeStamping, tsatest.Policy) },
		"another extended key usage":         func(c *smx509.Certificate) { c.ExtraExtensions = usage(true, email) },
		"no extended key usage":              func(c *smx509.Certificate) { c.ExtraExtensions = nil },
		"key usage not digitalSignature":     func(c *smx509.Certificate) { c.KeyUsage = smx509.KeyUsageKeyEncipherment },
		"a CA":                               func(c *smx509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true },
	} {
		c := tsatest.Template(when)
		change(c)
		out[name] = c
	}
	return out
}

func writeVectors(t *testing.T) {
	r := &timestamp.Request{Imprint: sm.Sum([]byte("checkpoint")), Nonce: []byte{0x81, 2, 3, 4, 5, 6, 7, 8}, CertReq: true}
	key := must[*tsatest.Key](t)(tsatest.NewKey(random(5), tsatest.Template(when)))
	other := must[*tsatest.Key](t)(tsatest.NewKey(random(6), tsatest.Template(when)))
	var list []vector
	add := func(name string, response []byte, class string) *vector {
		list = append(list, vector{Name: name, Response: response, Imprint: r.Imprint, Nonce: r.Nonce, Certificate: key.DER, Class: class})
		v := &list[len(list)-1]
		if class == "ok" {
			v.Time = when.Format("2006-01-02T15:04:05.999Z")
		}
		return v
	}
	issue := func(i timestamp.Issuer, r timestamp.Request) []byte { return must[[]byte](t)(i.Issue(&r, 7, when)) }
	plain := timestamp.Issuer{Signer: key, Policy: tsatest.Policy, Accuracy: 1e9}
	good := issue(plain, *r)
	add("a token with the signer's certificate", good, "ok")
	add("outer type of GB/T 35275", issue(timestamp.Issuer{Signer: key, Policy: tsatest.Policy, GB: true}, *r), "ok")
	add("no certificate in the token", issue(plain, timestamp.Request{Imprint: r.Imprint, Nonce: r.Nonce}), "ok")
	add("SignedData of version 1", replace(t, good, []byte{2, 1, 3, 0x31}, []byte{2, 1, 1, 0x31}), "ok")
	add("no accuracy", issue(timestamp.Issuer{Signer: key, Policy: tsatest.Policy}, *r), "ok")
	v := add("at a whole second", must[[]byte](t)(plain.Issue(r, 7, when.Truncate(1e9))), "ok")
	v.Time = "2026-11-25T08:00:00Z"
	add("the authority refuses", timestamp.Refusal(2, "not today"), "refused")
	add("the authority waits", timestamp.Refusal(3, ""), "refused")
	add("of another imprint", issue(plain, timestamp.Request{Imprint: sm.Sum([]byte("other")), Nonce: r.Nonce, CertReq: true}), "mismatch")
	add("of another nonce", issue(plain, timestamp.Request{Imprint: r.Imprint, Nonce: []byte{1}, CertReq: true}), "mismatch")
	add("without a nonce", issue(plain, timestamp.Request{Imprint: r.Imprint, CertReq: true}), "mismatch")
	add("of another authority", issue(timestamp.Issuer{Signer: other, Policy: tsatest.Policy}, *r), "signer")
	add("before the certificate began", must[[]byte](t)(plain.Issue(r, 7, when.AddDate(-2, 0, 0))), "signer")
	add("after the certificate ended", must[[]byte](t)(plain.Issue(r, 7, when.AddDate(11, 0, 0))), "signer")
	templates := brokenCertificates(t)
	for _, name := range slices.Sorted(maps.Keys(templates)) {
		broken := must[*tsatest.Key](t)(tsatest.NewKey(random(7), templates[name]))
		v := add("certificate: "+name, good, "signer")
		v.Certificate = broken.DER
	}
	add("signature changed", flip(good, len(good)-1), "signature")
	add("time changed", replace(t, good, []byte("20261125"), []byte("20251125")), "signature")
	add("another digest algorithm", replace(t, good, mustOID(t, 1, 2, 156, 10197, 1, 401), mustOID(t, 1, 2, 156, 10197, 1, 410)), "malformed")
	add("content of another type", replace(t, good, mustOID(t, 1, 2, 840, 113549, 1, 9, 16, 1, 4), mustOID(t, 1, 2, 840, 113549, 1, 9, 16, 1, 5)), "malformed")
	add("signingCertificateV2 missing", replace(t, good, mustOID(t, 1, 2, 840, 113549, 1, 9, 16, 2, 47), mustOID(t, 1, 2, 840, 113549, 1, 9, 16, 2, 48)), "malformed")
	add("trailing byte", append(bytes.Clone(good), 0), "malformed")
	add("cut", good[:len(good)-1], "malformed")
	add("granted without a token", []byte{0x30, 5, 0x30, 3, 2, 1, 0}, "malformed")
	add("empty", nil, "malformed")
	b := must[[]byte](t)(json.MarshalIndent(list, "", " "))
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("testdata/vectors.json", append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

func mustOID(t testing.TB, arcs ...int) []byte {
	return must[[]byte](t)(asn1.Marshal(asn1.ObjectIdentifier(arcs)))
}

// replace changes every occurrence of bytes; of the same length, so that the
// DER stays whole.
func replace(t testing.TB, b, from, to []byte) []byte {
	t.Helper()
	if !bytes.Contains(b, from) || len(from) != len(to) {
		t.Fatalf("%x is not there to be replaced", from)
	}
	return bytes.ReplaceAll(b, from, to)
}

func flip(b []byte, i int) []byte { b = bytes.Clone(b); b[i] ^= 1; return b }
