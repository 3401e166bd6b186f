package trust

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// TestSourcesOf: what is asked comes from the directory: its issuers that have
// a URL, and of those with a responder the certificates that they issued.
func TestSourcesOf(t *testing.T) {
	now := testNow
	dir := t.TempDir()
	secret := []byte(rand.Text())
	authority, err := certs.InitAuthority(filepath.Join(dir, "ca"), "示范域", secret, rand.Reader, now)
	must(t, err)
	keys, err := keystore.Create(filepath.Join(dir, "keys"), secret, rand.Reader)
	must(t, err)
	code, err := certs.MakeAgencyCode("11520300000000001")
	must(t, err)
	request, err := certs.NewRequest(keys, "示范域", certs.NodeSpec{ID: "jia"}, []certs.AgencySpec{{Code: code, Name: "单位"}}, now)
	must(t, err)
	admit := func(b []byte) *certs.Directory {
		r, err := certs.ParseRequest(b)
		must(t, err)
		must(t, authority.Admit(r, now))
		file, err := authority.Publish(now)
		must(t, err)
		d, err := certs.LoadDirectory(file, authority.Certificate(), 0, now)
		must(t, err)
		return d
	}
	d := admit(request)
	if list := SourcesOf(d, now); len(list) != 0 {
		t.Errorf("without issuers: %+v", list)
	}
	silent, lists, answers := newOutside(t), newOutside(t), newOutside(t)
	must(t, authority.AddIssuer(silent.root.Raw, "", ""))
	must(t, authority.AddIssuer(lists.root.Raw, "http://ca.example/list.crl", ""))
	must(t, authority.AddIssuer(answers.root.Raw, "", "http://ca.example/ocsp"))
	pub, err := keys.Generate()
	must(t, err)
	imported := answers.certFor(300, pub)
	b, err := certs.ChangeRequest(keys, d, "jia", certs.Change{Imported: map[string]certs.Imported{string(code): {Sign: imported}}}, now)
	must(t, err)
	d = admit(b)
	list := SourcesOf(d, now)
	if len(list) != 2 {
		t.Fatalf("%d sources", len(list))
	}
	for _, s := range list {
		switch sm.Sum(s.Issuer) {
		case sm.Sum(lists.root.Raw):
			if s.CRL == "" || len(s.Certificates) != 0 {
				t.Errorf("lists: %+v", s)
			}
		case sm.Sum(answers.root.Raw):
			if s.OCSP == "" || len(s.Certificates) != 1 || !bytes.Equal(s.Certificates[0], imported) {
				t.Errorf("answers: %d certificates", len(s.Certificates))
			}
		}
	}
	// Another certificate of the same authority makes no second source of it.
	again := *lists
	again.renew()
	must(t, authority.AddIssuer(again.root.Raw, "http://ca.example/other.crl", "http://ca.example/other"))
	file, err := authority.Publish(now)
	must(t, err)
	with, err := certs.LoadDirectory(file, authority.Certificate(), 0, now)
	must(t, err)
	for _, s := range SourcesOf(with, now) {
		if s.id() == again.source().id() && (s.CRL == "" || s.OCSP != "http://ca.example/other") {
			t.Errorf("of two certificates of one authority: %+v", s)
		}
	}
	if list := SourcesOf(with, now); len(list) != 2 {
		t.Errorf("%d sources of two authorities", len(list))
	}
	revoked := d.WithCRLs([]*certs.CRL{certs.RevokedByOCSP(answers.root.Raw, now, []certs.RevokedSerial{serial(300, now.Add(-time.Hour))})})
	for _, s := range SourcesOf(revoked, now) {
		if len(s.Certificates) != 0 {
			t.Error("asked about what is revoked")
		}
	}
}

// FuzzReadAnswers: whatever is on disk, it is refused or was signed.
func FuzzReadAnswers(f *testing.F) {
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"00":{}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := readAnswers(b, nil)
		if err == nil && len(list) > 0 {
			t.Error("an answer without an issuer was taken")
		}
		if _, err := json.Marshal(list); err != nil {
			t.Error(err)
		}
	})
}
