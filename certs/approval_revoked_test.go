package certs

import (
	"strings"
	"testing"
	"time"

	"github.com/emmansun/gmsm/smx509"
)

// namesake is an outside authority with the name of another one.
func namesake(t *testing.T, of *forge) *outside {
	o := newOutside(t, "namesake")
	o.root = o.selfSigned(o.key, func(c *smx509.Certificate) {
		c.Subject, c.KeyUsage = of.root.Subject, smx509.KeyUsageCertSign|smx509.KeyUsageCRLSign
	})
	return o
}

func issuerNamed(t *testing.T, der []byte) IssuerID {
	t.Helper()
	id, err := IssuerOf(der)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// renewed is the same authority, name and key, with another certificate.
func renewed(o *outside) *outside {
	again := *o.forge
	again.root = o.selfSigned(o.key, func(c *smx509.Certificate) {
		c.Subject, c.KeyUsage = o.root.Subject, smx509.KeyUsageCertSign|smx509.KeyUsageCRLSign
	})
	return &outside{&again}
}

// TestApprovalsByRevoked: a version brings the revocation of who approves it,
// or of who issued his certificate; or the lists that are known here do. The
// version in force does not know yet, and its policy counts all the same.
func TestApprovalsByRevoked(t *testing.T) {
	f, o := newForge(t, "approvals by revoked"), newOutside(t, "issuer of an administrator")
	zhang, byZhang := f.person("zhang-san")
	li, byLi := o.person("li-si")
	liCert, err := smx509.ParseCertificate(byLi.by.Certificate())
	f.must(err)
	other := namesake(t, o.forge)
	hour := testNow.Add(-time.Hour)
	names := func(by *outside, serial int64, at time.Time) []*CRL {
		c, err := ParseCRL(by.crl(1, revokedSerial(serial, at, "key_compromise")), by.root.Raw)
		f.must(err)
		return []*CRL{c}
	}
	above := newOutside(t, "issuer of the issuer")
	o.root = func() *smx509.Certificate {
		der := above.cert(&o.key.PublicKey, smx509.KeyUsageCertSign|smx509.KeyUsageCRLSign, func(c *smx509.Certificate) {
			c.Subject, c.IsCA, c.NotBefore = o.root.Subject, true, testNow.AddDate(-1, 0, 0)
		})
		cert, err := smx509.ParseCertificate(der)
		f.must(err)
		return cert
	}()
	serial := liCert.SerialNumber.Int64()
	for _, tt := range []struct {
		name  string
		next  []any // besides zhang-san and a policy of one approval
		known []*CRL
		says  string
	}{
		{"nothing is revoked", []any{li, issuer(o.forge)}, nil, ""},
		{"his certificate", []any{issuer(o.forge), revocation(byLi.by.Certificate(), hour)}, nil, "missing are 1 of: li-si"},
		{"his certificate, from later on", []any{issuer(o.forge), revocation(byLi.by.Certificate(), testNow.Add(time.Hour))}, nil, ""},
		{"his issuer's", []any{li, issuer(o.forge), revocation(o.root.Raw, hour)}, nil, "missing are 1 of: li-si"},
		{"his issuer's, which the version does not name", []any{revocation(o.root.Raw, hour)}, nil, "missing are 1 of: li-si"},
		{"a later certificate of his issuer", []any{issuer(renewed(o).forge), revocation(o.root.Raw, hour)}, nil, "missing are 1 of: li-si"},
		{"that of a namesake of his issuer", []any{li, issuer(o.forge), issuer(other.forge), revocation(other.root.Raw, hour)}, nil, ""},
		{"his certificate, by a list", []any{li, issuer(o.forge)}, names(o, serial, hour), "missing are 1 of: li-si"},
		{"his certificate, by a list that another certificate of his issuer verifies", []any{li, issuer(o.forge)}, names(renewed(o), serial, hour), "missing are 1 of: li-si"},
		{"his certificate, by a list, from later on", []any{li, issuer(o.forge)}, names(o, serial, testNow.Add(time.Hour)), ""},
		{"his serial number, by a list of a namesake", []any{li, issuer(o.forge)}, names(other, serial, hour), ""},
		{"his issuer's, by a list of who issued that", []any{li, issuer(o.forge)}, names(above, o.root.SerialNumber.Int64(), hour), "missing are 1 of: li-si"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHistory(f)
			s := openShelf(t, emptyDisk(1))
			h.entries, h.approve = append(f.usual(), zhang, li, issuer(o.forge), policy(2)), []approver{byZhang, byLi}
			_, err := s.Trust(f.root.Raw, h.next())
			f.must(err)
			in := s.Current()
			s.Know(tt.known)
			h.entries = append(append(f.usual(), zhang, policy(1)), tt.next...)
			file := h.next()
			if tt.says == "" {
				_, err := s.Install(file)
				wantCode(t, err, "")
				return
			}
			for how, install := range map[string]func() error{
				"installed": func() error { _, err := s.Install(file); return err },
				"an update": func() error { _, err := s.Take(deltaOf(t, s, file)); return err },
			} {
				if err := install(); err == nil || !strings.Contains(err.Error(), tt.says) || s.Current() != in {
					t.Errorf("%s: %v does not say %q", how, err, tt.says)
				}
			}
		})
	}
}

// TestApprovalsUnderARevokedAuthority: the heir revokes the certificate of the
// authority before, whose key was stolen. The thief has that key, and the
// administrators that it made; they approve nothing any more.
func TestApprovalsUnderARevokedAuthority(t *testing.T) {
	f := newForge(t, "revoked authority")
	zhang, byZhang := f.person("zhang-san")
	heir, signed := f.heir()
	again, byAgain := heir.person("zhang-san")
	for _, tt := range []struct {
		name string
		more []any
		code string
	}{
		{"it is listed", []any{issuer(f)}, ""},
		{"it is listed and revoked", []any{issuer(f), revocation(f.root.Raw, testNow.Add(-time.Hour))}, "directory_approval"},
		{"it is revoked and not listed", []any{revocation(f.root.Raw, testNow.Add(-time.Hour))}, "directory_approval"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHistory(f)
			h.entries, h.approve = append(f.usual(), zhang, policy(1)), []approver{byZhang}
			s := openShelf(t, emptyDisk(1))
			_, err := s.Trust(f.root.Raw, h.next())
			f.must(err)
			h.f, h.entries = heir, append(append(heir.usual(), policy(0)), tt.more...)
			h.list = func(l *list) { l.Succession = [][]byte{signed} }
			_, err = s.Install(h.next())
			wantCode(t, err, tt.code)
		})
	}
	// Its heir's certificate does not count as the former one's: name alone.
	h := newHistory(heir)
	h.entries, h.approve = append(heir.usual(), again, policy(1), issuer(f), revocation(f.root.Raw, testNow.Add(-time.Hour))), []approver{byAgain}
	_, err := openShelf(t, emptyDisk(2)).Trust(heir.root.Raw, h.next())
	wantCode(t, err, "")
}

// TestIssuerIsNameAndKey: whichever of an issuer's certificates was revoked or
// verified a list, it speaks of all that the issuer's key signed; and one of
// the same name and another key does not.
func TestIssuerIsNameAndKey(t *testing.T) {
	f, o := newForge(t, "name and key"), newOutside(t, "an issuer")
	other, again := namesake(t, o.forge), renewed(o)
	usual := f.usual()
	mine, theirs := usual[3].(*agencyEntry), usual[4].(*agencyEntry)
	mine.Certs, theirs.Certs = o.dual(), other.dual()
	revokedIn := func(d *Directory, code string) bool {
		a, _ := d.Agency(code)
		return a.Certificates[0].RevokedAt(testNow) || a.Certificates[1].RevokedAt(testNow)
	}
	all := append(usual, issuer(o.forge), issuer(again.forge), issuer(other.forge))
	for _, root := range []*outside{o, again, other} {
		d, err := f.load(f.draft(append(all, revocation(root.root.Raw, testNow))...))
		f.must(err)
		if revokedIn(d, mine.Code) != (root != other) || revokedIn(d, theirs.Code) != (root == other) {
			t.Errorf("revoking certificate %x: %v, %v", root.root.SerialNumber, revokedIn(d, mine.Code), revokedIn(d, theirs.Code))
		}
	}
	d, err := f.load(f.draft(all...))
	f.must(err)
	for _, c := range d.AllCertificates() {
		if want := issuerID(o.root); c.Issuer == want && c.Issuer == issuerID(other.root) {
			t.Error("two issuers of one name are one")
		}
	}
	signing, err := smx509.ParseCertificate(mine.Certs[0].Cert)
	f.must(err)
	for _, by := range []*outside{o, again, other} {
		c, err := ParseCRL(by.crl(1, revokedSerial(signing.SerialNumber.Int64(), testNow, "superseded")), by.root.Raw)
		f.must(err)
		if got := revokedIn(d.WithCRLs([]*CRL{c}), mine.Code); got != (by != other) {
			t.Errorf("a list under certificate %x: %v", by.root.SerialNumber, got)
		}
	}
	// An answer by a delegate of the namesake is none of the issuer's.
	w := &ocspWorld{outside: o}
	request, err := NewOCSPRequest(mine.Certs[0].Cert, o.root.Raw, OCSPHashSM3, nil)
	f.must(err)
	w.request = request
	delegate := (&ocspWorld{outside: other}).delegate(nil)
	delegate.Issuer = o.root.Raw
	der, err := delegate.Answer(request, goodAnswer(), testNow)
	f.must(err)
	_, err = request.ParseOCSPResponse(der, o.root.Raw, testNow)
	wantCode(t, err, "ocsp_signature")
	// The authority is not revoked by another name for it.
	self := renewed(&outside{f})
	_, err = f.load(f.draft(append(usual[:3:3], issuer(self.forge), revocation(self.root.Raw, testNow))...))
	wantCode(t, err, "directory_content")
}
