package certs

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

func issuer(f *forge) *issuerEntry {
	return &issuerEntry{Type: issuerType, V: 1, Domain: testDomain, Cert: f.root.Raw, CRL: "http://ca.example/list.crl", OCSP: "https://ca.example/ocsp"}
}

func revocation(der []byte, at time.Time) *revocationEntry {
	return &revocationEntry{Type: revocationType, V: 1, Domain: testDomain, Cert: sm.Sum(der), Effective: strictjson.TimeOf(at), Reason: ReasonKeyCompromise}
}

func (f *forge) tsa(change func(*smx509.Certificate)) *tsaEntry {
	return &tsaEntry{Type: tsaType, V: 1, Domain: testDomain, URL: "http://tsa.example/", Cert: f.cert(&f.newKey().PublicKey, signUsage, func(c *smx509.Certificate) {
		c.ExtKeyUsage = []smx509.ExtKeyUsage{smx509.ExtKeyUsageTimeStamping}
		if change != nil {
			change(c)
		}
	})}
}

func (f *forge) administrator(id string) *administratorEntry {
	return &administratorEntry{Type: administratorType, V: 1, Domain: testDomain, ID: id, Name: "管理员" + id, Certs: f.dual()[:1]}
}

func policy(n int) *policyEntry {
	return &policyEntry{Type: policyType, V: 1, Domain: testDomain, Approvals: n}
}

// TestIssuers: a certificate of an outside CA counts when the directory names
// that CA, wherever in the list, and only then.
func TestIssuers(t *testing.T) {
	f, outside := newForge(t, "issuers"), newForge(t, "outside")
	usual := f.usual()
	usual[3].(*agencyEntry).Certs = outside.dual()
	_, err := f.load(f.draft(usual...))
	wantCode(t, err, "certificate_chain")
	d, err := f.load(f.draft(append(usual, issuer(outside))...))
	f.must(err)
	a, _ := d.Agency(usual[3].(*agencyEntry).Code)
	c, err := a.Current(UseSign, testNow)
	f.must(err)
	if c.Issuer != issuerID(outside.root) || c.Serial == "" || c.Revoked != nil {
		t.Errorf("certificate: %+v", c)
	}
	got := d.Issuers()
	if len(got) != 1 || got[0].CRL != "http://ca.example/list.crl" || got[0].OCSP == "" || got[0].Subject == "" || got[0].Revoked != nil {
		t.Errorf("issuers: %+v", got)
	}
	n, _ := d.Node("jia")
	if c, err := n.Current(UseSign, testNow); err != nil || c.Issuer != issuerID(f.root) {
		t.Errorf("the authority's own: %+v, %v", c, err)
	}
}

func TestRevocation(t *testing.T) {
	f := newForge(t, "revocation")
	usual := f.usual()
	agency := usual[3].(*agencyEntry)
	effective := testNow.Add(time.Hour)
	d, err := f.load(f.draft(append(usual, revocation(agency.Certs[0].Cert, effective))...))
	f.must(err)
	a, _ := d.Agency(agency.Code)
	for _, tt := range []struct {
		at   time.Time
		code string
	}{{testNow, ""}, {effective.Add(-time.Millisecond), ""}, {effective, "certificate_revoked"}, {effective.AddDate(1, 0, 0), "certificate_revoked"}, {effective.AddDate(9, 0, 0), "certificate_expired"}} {
		_, err := a.Current(UseSign, tt.at)
		wantCode(t, err, tt.code)
		if tt.code == "certificate_revoked" && !errors.Is(err, ErrRevoked) {
			t.Errorf("not of class ErrRevoked: %v", err)
		}
	}
	if c, err := a.Current(UseEncrypt, effective); err != nil || c.Revoked != nil {
		t.Errorf("the other half: %v", err)
	}
	list := d.Revocations()
	if len(list) != 1 || list[0].Certificate != sm.Sum(agency.Certs[0].Cert) || !list[0].Effective.Equal(effective) || list[0].Source != SourceDirectory || list[0].Reason != ReasonKeyCompromise {
		t.Errorf("revocations: %+v", list)
	}
}

// TestRevokedIsSkipped: the newest certificate that is not revoked is current.
func TestRevokedIsSkipped(t *testing.T) {
	f := newForge(t, "skipped")
	older := f.dual()
	newer := f.cert(&f.newKey().PublicKey, signUsage, func(c *smx509.Certificate) { c.NotBefore = testNow.AddDate(0, 0, -1) })
	draft := changed(f, 3, func(e *agencyEntry) { e.Certs = append(older, certEntry{Use: UseSign, Cert: newer}) })
	draft.add(t, revocation(newer, testNow))
	d, err := f.load(draft)
	f.must(err)
	a := d.Agencies()[0]
	for at, want := range map[time.Duration][]byte{-time.Hour: newer, 0: older[0].Cert} {
		if c, err := a.Current(UseSign, testNow.Add(at)); err != nil || string(c.DER) != string(want) {
			t.Errorf("%s: another certificate, %v", at, err)
		}
	}
}

// TestRevokedIssuer: what a revoked CA issued is revoked with it, at the
// earlier of the two times.
func TestRevokedIssuer(t *testing.T) {
	f, outside := newForge(t, "revoked issuer"), newForge(t, "outside")
	for _, own := range []time.Duration{-time.Hour, time.Hour} {
		certs := outside.dual()
		draft := changed(f, 3, func(e *agencyEntry) { e.Certs = certs })
		draft.add(t, issuer(outside))
		draft.add(t, revocation(outside.root.Raw, testNow))
		draft.add(t, revocation(certs[0].Cert, testNow.Add(own)))
		d, err := f.load(draft)
		f.must(err)
		want, source := testNow, SourceIssuer
		if own < 0 {
			want, source = testNow.Add(own), SourceDirectory
		}
		for _, c := range d.Agencies()[0].Certificates {
			if c.Use == UseSign && (c.Revoked == nil || !c.Revoked.Effective.Equal(want) || c.Revoked.Source != source) {
				t.Errorf("revoked: %+v, want %s by %s", c.Revoked, want, source)
			}
			if c.Use == UseEncrypt && (c.Revoked == nil || c.Revoked.Source != SourceIssuer) {
				t.Errorf("revoked: %+v", c.Revoked)
			}
		}
		if d.Issuers()[0].Revoked == nil {
			t.Error("the issuer is not revoked")
		}
	}
}

// TestRevokeIsACopy: revocations from elsewhere leave the directory as it was.
func TestRevokeIsACopy(t *testing.T) {
	f := newForge(t, "copy")
	d, err := f.load(f.draft(append(f.usual(), f.tsa(nil), f.administrator("a1"))...))
	f.must(err)
	copied := d.revoke(func(*Certificate) *Revocation {
		return &Revocation{Effective: testNow, Reason: ReasonSuperseded, Source: "crl"}
	})
	for _, tt := range []struct {
		d    *Directory
		want bool
	}{{d, false}, {copied, true}} {
		a, _ := tt.d.Agency(d.Agencies()[0].Code)
		n, _ := tt.d.Node("jia")
		got := []bool{a.Certificates[0].RevokedAt(testNow), tt.d.Agencies()[0].Certificates[1].RevokedAt(testNow), n.Certificates[0].RevokedAt(testNow),
			tt.d.TSAs()[0].Certificate.RevokedAt(testNow), tt.d.Administrators()[0].Certificates[0].RevokedAt(testNow)}
		for i, is := range got {
			if is != tt.want {
				t.Errorf("%d: revoked %v, want %v", i, is, tt.want)
			}
		}
	}
}

func TestTSAsAdministratorsPolicy(t *testing.T) {
	f, outside := newForge(t, "others"), newForge(t, "outside")
	stamp := outside.tsa(nil) // trusted by itself, whoever issued it
	d, err := f.load(f.draft(append(f.usual(), stamp, f.administrator("zhang-san"), f.administrator("li-si"), policy(0), revocation(stamp.Cert, testNow))...))
	f.must(err)
	if got := d.TSAs(); len(got) != 1 || got[0].URL != "http://tsa.example/" || !got[0].Certificate.RevokedAt(testNow) || got[0].Certificate.RevokedAt(testNow.Add(-1)) {
		t.Errorf("timestamp authorities: %+v", got)
	}
	if got := d.Administrators(); len(got) != 2 || got[0].ID != "zhang-san" || len(got[1].Certificates) != 1 {
		t.Errorf("administrators: %+v", got)
	}
	if d.Policy().Approvals != 0 {
		t.Errorf("policy: %+v", d.Policy())
	}
	bare, err := f.load(f.draft())
	f.must(err)
	if bare.Policy() != (Policy{}) || len(bare.Administrators())+len(bare.TSAs())+len(bare.Issuers())+len(bare.Revocations()) != 0 {
		t.Error("found what is not there")
	}
}

func TestRefusedTrustEntries(t *testing.T) {
	f, outside := newForge(t, "refused trust"), newForge(t, "outside")
	usual := f.usual()
	is := func(change func(*issuerEntry)) any { e := issuer(outside); change(e); return e }
	rev := func(change func(*revocationEntry)) any {
		e := revocation(usual[3].(*agencyEntry).Certs[0].Cert, testNow)
		change(e)
		return e
	}
	tsa := func(change func(*tsaEntry)) any { e := f.tsa(nil); change(e); return e }
	adm := func(change func(*administratorEntry)) any { e := f.administrator("a1"); change(e); return e }
	pol := func(change func(*policyEntry)) any { e := policy(0); change(e); return e }
	many := func(n int, one func(i int) any) (out []any) {
		for i := range n {
			out = append(out, one(i))
		}
		return out
	}
	tests := []struct {
		name    string
		entries []any
		code    string
		says    string
	}{
		{"issuer of another domain", []any{is(func(e *issuerEntry) { e.Domain = "x" })}, "directory_content", "domain"},
		{"issuer of version 2", []any{is(func(e *issuerEntry) { e.V = 2 })}, "directory_content", "version"},
		{"issuer twice", []any{issuer(outside), is(func(e *issuerEntry) { e.CRL = "" })}, "directory_content", "twice"},
		{"the authority as issuer", []any{issuer(f)}, "directory_content", "authority itself"},
		{"issuer that is no CA", []any{is(func(e *issuerEntry) { e.Cert = f.dual()[0].Cert })}, "certificate_usage", ""},
		{"issuer that is no certificate", []any{is(func(e *issuerEntry) { e.Cert = []byte("x") })}, "certificate_chain", "read"},
		{"issuer with a password in its URL", []any{is(func(e *issuerEntry) { e.CRL = "http://a:b@c/" })}, "directory_content", "URL"},
		{"issuer with a file as URL", []any{is(func(e *issuerEntry) { e.OCSP = "file:///etc/passwd" })}, "directory_content", "URL"},
		{"issuer with a long URL", []any{is(func(e *issuerEntry) { e.OCSP = "http://a/" + strings.Repeat("a", maxURL) })}, "directory_content", "URL"},
		{"too many issuers", many(maxIssuers+1, func(i int) any {
			return is(func(e *issuerEntry) { e.Cert = newForge(t, fmt.Sprint(i)).root.Raw })
		}), "directory_content", "64 issuers"},

		{"revocation of another domain", []any{rev(func(e *revocationEntry) { e.Domain = "x" })}, "directory_content", "domain"},
		{"revocation twice", []any{rev(func(*revocationEntry) {}), rev(func(e *revocationEntry) { e.Effective++ })}, "directory_content", "twice"},
		{"revocation for an unknown reason", []any{rev(func(e *revocationEntry) { e.Reason = "mood" })}, "directory_content", "reason"},
		{"revocation of nothing", []any{rev(func(e *revocationEntry) { e.Cert = sm.Digest{} })}, "directory_content", "names a certificate"},
		{"revocation from no time", []any{rev(func(e *revocationEntry) { e.Effective = 0 })}, "directory_content", "time"},
		{"revocation of the authority", []any{revocation(f.root.Raw, testNow)}, "directory_content", "successor"},
		{"revocation with a critical member", []any{raw(`{"type":"yizhan-revocation","v":1,"crit":["x"],"domain":"示范域","x":1}`)}, "directory_content", ""},

		{"timestamp authority of another domain", []any{tsa(func(e *tsaEntry) { e.Domain = "x" })}, "directory_content", "domain"},
		{"timestamp authority without the purpose", []any{tsa(func(e *tsaEntry) { e.Cert = f.dual()[0].Cert })}, "certificate_usage", "timeStamping"},
		{"timestamp authority with another purpose, too", []any{f.tsa(func(c *smx509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, smx509.ExtKeyUsageServerAuth) })}, "certificate_usage", "alone"},
		{"timestamp authority that is a CA", []any{f.tsa(func(c *smx509.Certificate) { c.IsCA = true })}, "certificate_usage", ""},
		{"timestamp authority that is no certificate", []any{tsa(func(e *tsaEntry) { e.Cert = nil })}, "certificate_chain", "read"},
		{"timestamp authority at no URL", []any{tsa(func(e *tsaEntry) { e.URL = "tsa" })}, "directory_content", "URL"},

		{"administrator twice", []any{f.administrator("a1"), f.administrator("a1")}, "directory_content", "twice"},
		{"administrator with a bad id", []any{adm(func(e *administratorEntry) { e.ID = "张三" })}, "directory_content", "id"},
		{"administrator without a name", []any{adm(func(e *administratorEntry) { e.Name = "" })}, "directory_content", "name"},
		{"administrator who encrypts", []any{adm(func(e *administratorEntry) { e.Certs = f.dual() })}, "directory_content", "only signs"},
		{"administrator of another authority", []any{adm(func(e *administratorEntry) { e.Certs = outside.dual()[:1] })}, "certificate_chain", ""},
		{"administrator with an agency's key", []any{adm(func(e *administratorEntry) { e.Certs = usual[3].(*agencyEntry).Certs[:1] })}, "directory_content", "same key"},
		{"too many administrators", many(maxIssuers+1, func(i int) any {
			return adm(func(e *administratorEntry) { e.ID, e.Certs = fmt.Sprint("a", i), nil })
		}), "directory_content", "64 administrators"},

		{"two policies", []any{policy(0), pol(func(e *policyEntry) { e.Extra = strictjson.Extra{{Name: "note", Value: raw("1")}} })}, "directory_content", "two policies"},
		{"policy below zero", []any{policy(-1)}, "directory_content", "approvals"},
		{"policy beyond all bounds", []any{policy(maxIssuers + 1)}, "directory_content", "approvals"},
		{"policy that nobody can meet", []any{policy(2), f.administrator("a1")}, "directory_content", "1 administrators"},
		{"policy of another domain", []any{pol(func(e *policyEntry) { e.Domain = "x" })}, "directory_content", "domain"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := f.load(f.draft(append(usual[:len(usual):len(usual)], tt.entries...)...))
			wantCode(t, err, tt.code)
			if err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v does not say %q", err, tt.says)
			}
		})
	}
}
