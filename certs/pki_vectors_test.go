package certs

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// certVector is one object of another authority, or for one, and what every
// implementation must say of it. Bytes are in base64.
type certVector struct {
	Kind    string    `json:"kind"` // csr, crl, ocsp_request, ocsp_response, enveloped_key
	Name    string    `json:"name"`
	DER     []byte    `json:"der"`
	Issuer  []byte    `json:"issuer,omitempty"`      // certificate under which it is verified
	Request []byte    `json:"request,omitempty"`     // ocsp_response: what it answers
	Now     time.Time `json:"now,omitzero"`          // ocsp_response: when it is judged
	Signing string    `json:"signing_key,omitempty"` // enveloped_key: private key that opens it, hex
	Gives   string    `json:"gives,omitempty"`       // what is read from an accepted one
	Expect  string    `json:"expect"`                // accept, or the code of the refusal
}

// certVectors gives the vectors: made from fixed seeds, the same bytes each
// time. What is refused for its length alone, or differs from run to run, is
// in the tests and not here.
func certVectors(t testing.TB) []certVector {
	var out []certVector
	add := func(list []derCase, v certVector) {
		for _, c := range list {
			if len(c.der) > 4<<10 || strings.HasPrefix(c.name, "RSA") {
				continue
			}
			one := v
			one.Name, one.DER, one.Expect = c.name, c.der, c.code
			if one.DER == nil {
				one.DER = []byte{}
			}
			if one.Expect == "" {
				one.Expect = "accept"
				one.Gives = one.read(t)
			}
			out = append(out, one)
		}
	}
	add(csrCases(newForge(t, "vectors of requests")), certVector{Kind: "csr"})
	o := newOutside(t, "vectors of lists")
	add(crlCases(o), certVector{Kind: "crl", Issuer: o.root.Raw})
	w := newOCSPWorld(t, OCSPHashSM3)
	add(ocspRequestCases(w), certVector{Kind: "ocsp_request"})
	add(ocspCases(w), certVector{Kind: "ocsp_response", Issuer: w.root.Raw, Request: w.request.DER, Now: testNow})
	f := newForge(t, "vectors of enveloped keys")
	signing := f.newKey()
	d := signing.D.FillBytes(make([]byte, 32))
	add(envelopedCases(f, signing), certVector{Kind: "enveloped_key", Signing: hex.EncodeToString(d)})
	return out
}

// parse reads a vector and says what it found.
func (v *certVector) parse(t testing.TB) (string, error) {
	switch v.Kind {
	case "csr":
		c, err := ParseCSR(v.DER)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("key %s to %s with", c.KeyID, c.Use), nil
	case "crl":
		c, err := ParseCRL(v.DER, v.Issuer)
		if err != nil {
			return "", err
		}
		said := fmt.Sprintf("number %s", c.Number)
		for _, r := range c.Revoked() {
			said += fmt.Sprintf("; %x from %s for %s", r.Serial, r.Effective.Format(time.RFC3339), r.Reason)
		}
		return said, nil
	case "ocsp_request":
		q, err := ParseOCSPRequest(v.DER)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("serial %x by %s, nonce %x", q.Serial, q.id.hash, q.Nonce), nil
	case "ocsp_response":
		q, err := ParseOCSPRequest(v.Request)
		if err != nil {
			t.Fatal(err)
		}
		a, err := q.ParseOCSPResponse(v.DER, v.Issuer, v.Now)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s, fresh: %v", a.Status, a.Fresh), nil
	case "enveloped_key":
		f := &forge{t: t}
		keys := f.keys()
		key := privateKey(t, v.Signing)
		keys.keys[sm.KeyID(&key.PublicKey)] = key
		got, err := OpenEnvelopedKey(v.DER, keys, sm.KeyID(&key.PublicKey))
		if err != nil {
			return "", err
		}
		return hex.EncodeToString(got.D.FillBytes(make([]byte, 32))), nil
	}
	t.Fatalf("kind %q", v.Kind)
	return "", nil
}

func (v *certVector) read(t testing.TB) string {
	t.Helper()
	said, err := v.parse(t)
	if err != nil {
		t.Fatalf("%s, %s: %v", v.Kind, v.Name, err)
	}
	return said
}

const certVectorsFile = "certificates.json"

// TestCertVectorsAreStable: what is written does not drift.
func TestCertVectorsAreStable(t *testing.T) {
	b := indented(t, certVectors(t))
	path := filepath.Join("testdata", certVectorsFile)
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
		t.Errorf("%s is made differently now", path)
	}
}

// TestCertVectors reads the file as another implementation would.
func TestCertVectors(t *testing.T) {
	var list []certVector
	fromJSON(t, certVectorsFile, &list)
	count := map[string]int{}
	for _, v := range list {
		count[v.Kind]++
		t.Run(v.Kind+"/"+v.Name, func(t *testing.T) {
			said, err := v.parse(t)
			want := strings.TrimPrefix(v.Expect, "accept")
			wantCode(t, err, want)
			if said != v.Gives {
				t.Errorf("it says %q, want %q", said, v.Gives)
			}
		})
	}
	for _, kind := range []string{"csr", "crl", "ocsp_request", "ocsp_response", "enveloped_key"} {
		if count[kind] < 5 {
			t.Errorf("%d vectors of %s", count[kind], kind)
		}
	}
}
