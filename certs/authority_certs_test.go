package certs

import (
	"bytes"
	"crypto/rand"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// admittedDomain is an authority with node jia and its agency.
func admittedDomain(t *testing.T) (*Authority, string, *forge, string) {
	t.Helper()
	a, dir := newAuthority(t)
	f := newForge(t, "issue")
	spec := agencySpec(t, "11520300000000001", "示范单位甲")
	f.must(a.Admit(parsed(t, f.request("jia", spec)), testNow))
	return a, dir, f, string(spec.Code)
}

func csrOf(t *testing.T, f *forge, key *sm.PrivateKey, use string) *CSR {
	t.Helper()
	c, err := ParseCSR(f.csr(key, use))
	f.must(err)
	return c
}

// TestIssue: from a request to the directory, for every kind of holder.
func TestIssue(t *testing.T) {
	a, _, f, code := admittedDomain(t)
	sign, encrypt, admin, tsa, node := f.newKey(), f.newKey(), f.newKey(), f.newKey(), f.newKey()
	later := testNow.Add(time.Minute)
	issue := func(key *sm.PrivateKey, p Purpose) []byte {
		t.Helper()
		der, err := a.Issue(csrOf(t, f, key, p.Use), p, later)
		f.must(err)
		again, err := a.Issue(csrOf(t, f, key, p.Use), p, later.Add(time.Hour))
		f.must(err)
		if !bytes.Equal(der, again) {
			t.Errorf("%+v: asked again, another certificate was issued", p)
		}
		return der
	}
	der := issue(sign, Purpose{Agency: code, Use: UseSign})
	issue(encrypt, Purpose{Agency: code, Use: UseEncrypt})
	issue(node, Purpose{Node: "jia", Use: UseSign})
	issue(admin, Purpose{Administrator: "wang", Name: "管理员甲", Use: UseSign})
	stamp := issue(tsa, Purpose{TSA: true, URL: "http://tsa.example/", Use: UseSign})
	d := published(t, a, 0)
	g, _ := d.Agency(code)
	for use, key := range map[string]*sm.PrivateKey{UseSign: sign, UseEncrypt: encrypt} {
		c, err := g.Current(use, later.Add(time.Second))
		if err != nil || c.KeyID != sm.KeyID(&key.PublicKey) {
			t.Errorf("%s: the newest certificate is not of the new key: %v", use, err)
		}
	}
	if len(g.Certificates) != 4 || !g.Holds(UseSign, der) {
		t.Errorf("%d certificates", len(g.Certificates))
	}
	if n := d.Administrators(); len(n) != 1 || n[0].ID != "wang" || n[0].Name != "管理员甲" {
		t.Errorf("administrators: %+v", n)
	}
	if n := d.TSAs(); len(n) != 1 || !bytes.Equal(n[0].Certificate.DER, stamp) || n[0].URL != "http://tsa.example/" {
		t.Errorf("timestamp authorities: %+v", n)
	}

	// The next certificate of the same key stands beside the one before, with
	// which its tokens are verified.
	ended := d.TSAs()[0].Certificate.NotAfter.Add(time.Hour)
	again, err := a.Issue(csrOf(t, f, tsa, UseSign), Purpose{TSA: true, Use: UseSign}, ended)
	f.must(err)
	f.must(a.AddTSA(stamp, "http://former.example/"))
	file, err := a.Publish(later.Add(time.Hour))
	f.must(err)
	d, err = LoadDirectory(file, a.Certificate(), 0, later.Add(time.Hour))
	f.must(err)
	urls := map[string]string{}
	for _, one := range d.TSAs() {
		urls[string(one.Certificate.DER)] = one.URL
	}
	if len(urls) != 2 || urls[string(stamp)] != "http://former.example/" || urls[string(again)] != "http://tsa.example/" {
		t.Errorf("%d certificates of the timestamp authority: %q", len(urls), slices.Collect(maps.Values(urls)))
	}
}

func TestIssueRefusals(t *testing.T) {
	a, _, f, code := admittedDomain(t)
	key := f.newKey()
	if _, err := a.Issue(csrOf(t, f, key, UseSign), Purpose{Agency: code, Use: UseSign}, testNow); err != nil {
		t.Fatal(err)
	}
	stranger := agencySpec(t, "11520300000000002", "示范单位乙")
	for _, c := range []struct {
		name string
		key  *sm.PrivateKey
		use  string
		p    Purpose
		code string
	}{
		{"sign request, encrypt purpose", f.newKey(), UseSign, Purpose{Agency: code, Use: UseEncrypt}, codeUsage},
		{"no use", f.newKey(), UseSign, Purpose{Agency: code}, codeUsage},
		{"nobody", f.newKey(), UseSign, Purpose{Use: UseSign}, codeRequest},
		{"two holders", f.newKey(), UseSign, Purpose{Agency: code, Node: "jia", Use: UseSign}, codeRequest},
		{"agency not admitted", f.newKey(), UseSign, Purpose{Agency: string(stranger.Code), Use: UseSign}, codeRequest},
		{"no agency code", f.newKey(), UseSign, Purpose{Agency: "../x", Use: UseSign}, codeAgency},
		{"node not admitted", f.newKey(), UseSign, Purpose{Node: "yi", Use: UseSign}, codeRequest},
		{"no node id", f.newKey(), UseSign, Purpose{Node: "../x", Use: UseSign}, codeRequest},
		{"new administrator without a name", f.newKey(), UseSign, Purpose{Administrator: "li", Use: UseSign}, codeRequest},
		{"no administrator id", f.newKey(), UseSign, Purpose{Administrator: "../x", Name: "x", Use: UseSign}, codeRequest},
		{"administrator who encrypts", f.newKey(), UseEncrypt, Purpose{Administrator: "li", Name: "x", Use: UseEncrypt}, codeUsage},
		{"another's key", key, UseSign, Purpose{Node: "jia", Use: UseSign}, codeRequest},
		{"its own key for the other use", key, UseEncrypt, Purpose{Agency: code, Use: UseEncrypt}, codeRequest},
		{"URL of a file", f.newKey(), UseSign, Purpose{TSA: true, URL: "file:///x", Use: UseSign}, codeRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := a.Issue(csrOf(t, f, c.key, c.use), c.p, testNow)
			wantCode(t, err, c.code)
		})
	}
	published(t, a, 0) // nothing that was refused has left a trace that spoils it
}

// TestRevoke: from the authority's decision to the directory, the CRL and the
// answers of OCSP.
func TestRevoke(t *testing.T) {
	a, dir, f, code := admittedDomain(t)
	list, err := a.Certificates()
	f.must(err)
	i := slices.IndexFunc(list, func(l Listed) bool { return l.Holder == "agency "+code && l.Use == UseSign })
	victim := list[i]
	if len(list) != 4 || victim.Revoked != nil {
		t.Fatalf("%d certificates", len(list))
	}
	effective := testNow.Add(-time.Hour)
	f.must(a.Revoke(victim.DER, effective.Add(time.Minute), ReasonKeyCompromise))
	f.must(a.Revoke(victim.DER, effective, ReasonKeyCompromise))
	wantCode(t, a.Revoke(victim.DER, testNow, ReasonKeyCompromise), codeRequest)
	wantCode(t, a.Revoke(victim.DER, effective.Add(-time.Hour), "a whim"), codeRequest)
	wantCode(t, a.Revoke(a.Certificate(), testNow, ReasonCessation), codeRequest)
	wantCode(t, a.Revoke([]byte("x"), testNow, ReasonCessation), codeChain)
	g, _ := published(t, a, 0).Agency(code)
	_, err = g.Current(UseSign, testNow)
	wantCode(t, err, codeRevoked)
	if list, err = a.Certificates(); err != nil || list[i].Revoked == nil || !list[i].Revoked.Effective.Equal(effective) {
		t.Errorf("listed: %v, %+v", err, list[i].Revoked)
	}

	cert, err := smx509.ParseCertificate(victim.DER)
	f.must(err)
	for n := int64(1); n <= 2; n++ {
		der, err := a.CRL(testNow)
		f.must(err)
		c, err := ParseCRL(der, a.Certificate())
		f.must(err)
		r, ok := c.Find(cert.SerialNumber)
		if !ok || c.Len() != 1 || c.Number.Cmp(big.NewInt(n)) != 0 || r.Reason != ReasonKeyCompromise || !r.Effective.Equal(effective) {
			t.Errorf("CRL %s with %d entries: %+v", c.Number, c.Len(), r)
		}
	}
	for _, l := range list {
		q, err := NewOCSPRequest(l.DER, a.Certificate(), OCSPHashSM3, []byte{1})
		f.must(err)
		der, err := a.OCSP(q.DER, testNow)
		f.must(err)
		answer, err := q.ParseOCSPResponse(der, a.Certificate(), testNow)
		f.must(err)
		want := OCSPGood
		if l.Serial == victim.Serial {
			want = OCSPRevoked
		}
		if answer.Status != want {
			t.Errorf("%s, %s: %s", l.Holder, l.Use, answer.Status)
		}
	}
	planned := list[(i+1)%len(list)]
	f.must(a.Revoke(planned.DER, testNow.Add(time.Hour), ReasonSuperseded))
	for at, want := range map[time.Time]string{testNow: OCSPGood, testNow.Add(time.Hour): OCSPRevoked} {
		q, err := NewOCSPRequest(planned.DER, a.Certificate(), OCSPHashSM3, nil)
		f.must(err)
		der, err := a.OCSP(q.DER, at)
		f.must(err)
		if answer, err := q.ParseOCSPResponse(der, a.Certificate(), at); err != nil || answer.Status != want {
			t.Errorf("revoked from later on, at %s: %v, %+v", at, err, answer)
		}
	}
	q := &OCSPRequest{Serial: big.NewInt(5)}
	q.id, err = newCertID(OCSPHashSHA256, a.cert, q.Serial)
	f.must(err)
	q.DER, err = q.encode()
	f.must(err)
	der, err := a.OCSP(q.DER, testNow)
	f.must(err)
	if answer, err := q.ParseOCSPResponse(der, a.Certificate(), testNow); err != nil || answer.Status != OCSPUnknown {
		t.Errorf("never issued: %v, %+v", err, answer)
	}
	// All of it again from disk, and a list that is damaged.
	a, err = OpenAuthority(dir, testPassphrase, rand.Reader)
	f.must(err)
	f.must(os.WriteFile(filepath.Join(dir, crlFile), []byte("x"), 0o600))
	_, err = a.CRL(testNow)
	wantCode(t, err, codeCRL)
}

// TestRevokeInterrupted: a crash between the certificate and the entry leaves
// nothing revoked, and the same call goes through.
func TestRevokeInterrupted(t *testing.T) {
	a, dir, f, _ := admittedDomain(t)
	list, err := a.Certificates()
	f.must(err)
	f.must(a.Revoke(list[0].DER, testNow, ReasonSuperseded))
	f.must(os.Remove(filepath.Join(dir, entriesDir, revocationFile(sm.Sum(list[0].DER))+".json")))
	if n, err := a.revocations(); err != nil || len(n) != 0 {
		t.Errorf("%d revoked: %v", len(n), err)
	}
	f.must(a.Revoke(list[0].DER, testNow, ReasonSuperseded))
	if n, err := a.revocations(); err != nil || len(n) != 1 {
		t.Errorf("%d revoked: %v", len(n), err)
	}
}
