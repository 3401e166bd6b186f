package certs

import (
	"testing"
	"time"

	"github.com/emmansun/gmsm/smx509"
)

// TestRevokedDelegate: a responder whose certificate the directory or its
// issuer's list revokes is not believed from then on; one of another serial
// number, or whose serial number another issuer's list names, is.
func TestRevokedDelegate(t *testing.T) {
	f, w := newForge(t, "revoked delegate"), newOCSPWorld(t, OCSPHashSM3)
	delegate := w.delegate(nil)
	response := w.answer(delegate, goodAnswer())
	cert, err := smx509.ParseCertificate(delegate.Certificate)
	f.must(err)
	list := func(by *outside, serial int64) []*CRL {
		c, err := ParseCRL(by.crl(1, revokedSerial(serial, testNow, "superseded")), by.root.Raw)
		f.must(err)
		return []*CRL{c}
	}
	serial := cert.SerialNumber.Int64()
	for _, tt := range []struct {
		name    string
		entries []any
		known   []*CRL
		at      time.Time
		code    string
	}{
		{"nothing is known", nil, nil, testNow, ""},
		{"by the directory", []any{revocation(delegate.Certificate, testNow)}, nil, testNow, "ocsp_signature"},
		{"by the directory, before", []any{revocation(delegate.Certificate, testNow)}, nil, testNow.Add(-time.Second), ""},
		{"by a list", nil, list(w.outside, serial), testNow, "ocsp_signature"},
		{"by a list, before", nil, list(w.outside, serial), testNow.Add(-time.Second), ""},
		{"another one by a list", nil, list(w.outside, serial+1), testNow, ""},
		{"by a list of a namesake", nil, list(namesake(t, w.forge), serial), testNow, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := f.load(f.draft(append(append(f.usual(), issuer(w.forge)), tt.entries...)...))
			f.must(err)
			q := *w.request
			q.Revoked = func(der []byte) *Revocation { return d.RevocationOf(der, tt.known) }
			a, err := q.ParseOCSPResponse(response, w.root.Raw, tt.at)
			wantCode(t, err, tt.code)
			if tt.code != "" && a != nil {
				t.Error("an answer nevertheless")
			}
			if _, err := q.ParseOCSPResponse(w.answer(w.issuer(), goodAnswer()), w.root.Raw, tt.at); err != nil {
				t.Errorf("the issuer itself: %v", err)
			}
		})
	}
}
