package certs

import (
	"testing"
	"time"

	"github.com/emmansun/gmsm/smx509"
)

// TestWithCRLs: an issuer's list revokes what that issuer issued, at its time,
// and a list that happens to name another issuer's serial numbers does not.
func TestWithCRLs(t *testing.T) {
	f, o, p := newForge(t, "with crls"), newOutside(t, "with crls"), newOutside(t, "with crls too")
	usual := f.usual()
	agency := usual[3].(*agencyEntry)
	agency.Certs = o.dual()
	tsa := o.tsa(nil)
	tsaCert, err := smx509.ParseCertificate(tsa.Cert)
	f.must(err)
	d, err := f.load(f.draft(append(usual, issuer(o.forge), issuer(p.forge), tsa)...))
	f.must(err)
	a, _ := d.Agency(agency.Code)
	signing, err := a.Current(UseSign, testNow)
	f.must(err)
	cert, err := smx509.ParseCertificate(signing.DER)
	f.must(err)
	at := testNow.Add(-time.Hour)
	lists := func(o *outside, at time.Time) *CRL {
		c, err := ParseCRL(o.crl(1, revokedSerial(cert.SerialNumber.Int64(), at, "key_compromise"),
			revokedSerial(tsaCert.SerialNumber.Int64(), at, "superseded")), o.root.Raw)
		f.must(err)
		return c
	}
	current := func(d *Directory) error {
		a, _ := d.Agency(agency.Code)
		_, err := a.Current(UseSign, testNow)
		return err
	}
	wantCode(t, current(d.WithCRLs(nil)), "")
	wantCode(t, current(d.WithCRLs([]*CRL{lists(p, at)})), "")
	wantCode(t, current(d.WithCRLs([]*CRL{lists(o, testNow.Add(time.Hour))})), "")
	with := d.WithCRLs([]*CRL{lists(p, at), lists(o, at)})
	wantCode(t, current(with), codeRevoked)
	if r := with.TSAs()[0].Certificate.Revoked; r == nil || r.Reason != "superseded" {
		t.Errorf("timestamp authority: %+v", r)
	}
	if r := d.WithCRLs([]*CRL{lists(p, at)}).TSAs()[0].Certificate.Revoked; r != nil {
		t.Errorf("timestamp authority, by a list of another issuer: %+v", r)
	}
	q := newOutside(t, "of the same name")
	q.root = q.selfSigned(q.key, func(c *smx509.Certificate) {
		c.Subject, c.KeyUsage = o.root.Subject, smx509.KeyUsageCertSign|smx509.KeyUsageCRLSign
	})
	same := d.WithCRLs([]*CRL{lists(q, at)})
	wantCode(t, current(same), "")
	if r := same.TSAs()[0].Certificate.Revoked; r != nil {
		t.Errorf("timestamp authority, by an issuer of the same name: %+v", r)
	}
	b, _ := with.Agency(agency.Code)
	if r := b.Certificates[0].Revoked; b.Certificates[0].Use == UseSign && (r == nil || r.Source != SourceCRL || !r.Effective.Equal(at)) {
		t.Errorf("revocation: %+v", r)
	}
	if _, err := b.Current(UseEncrypt, testNow); err != nil {
		t.Errorf("the other half: %v", err)
	}
	wantCode(t, current(d), "") // the directory itself is as it was
	answers := RevokedByOCSP(o.root.Raw, testNow, []RevokedSerial{{cert.SerialNumber, at.Add(-time.Hour), "key_compromise"}})
	both, _ := d.WithCRLs([]*CRL{lists(o, at), answers}).Agency(agency.Code)
	for _, c := range both.Certificates {
		if c.Use == UseSign && (c.Revoked.Source != SourceOCSP || !c.Revoked.Effective.Equal(at.Add(-time.Hour))) {
			t.Errorf("the earlier of two: %+v", c.Revoked)
		}
	}
}
