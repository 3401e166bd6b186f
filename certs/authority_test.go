package certs

import (
	"bytes"
	"crypto/rand"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/emmansun/gmsm/smx509"
)

var testPassphrase = []byte("a passphrase for tests")

func newAuthority(t *testing.T) (*Authority, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "authority")
	a, err := InitAuthority(dir, testDomain, testPassphrase, rand.Reader, testNow)
	if err != nil {
		t.Fatal(err)
	}
	return a, dir
}

func parsed(t *testing.T, b []byte) *Request {
	t.Helper()
	r, err := ParseRequest(b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// published publishes and loads as a node would.
func published(t *testing.T, a *Authority, atLeast uint64) *Directory {
	t.Helper()
	file, err := a.Publish(testNow)
	if err != nil {
		t.Fatal(err)
	}
	d, err := LoadDirectory(file, a.Certificate(), atLeast, testNow)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDomainFromNothing is the way of a domain: an authority, two nodes, a
// link, a directory; and all of it again from disk.
func TestDomainFromNothing(t *testing.T) {
	a, dir := newAuthority(t)
	f := newForge(t, "nodes")
	jia := agencySpec(t, "11520300000000001", "示范单位甲")
	yi := agencySpec(t, "11520300000000002", "示范单位乙")
	f.must(a.Admit(parsed(t, f.request("jia", jia)), testNow))
	f.must(a.Admit(parsed(t, f.request("yi", yi)), testNow))
	f.must(a.AddLink(Link{A: "jia", B: "yi", Dialer: "jia", Kind: "https", Ceiling: "work_secret"}))
	first := published(t, a, 1)
	if first.Version() != 1 || !first.list.Previous.IsZero() || first.Domain() != testDomain {
		t.Errorf("first version: %+v", first.list)
	}
	if _, next, err := first.NextHop("jia", string(yi.Code)); err != nil || next != "yi" {
		t.Errorf("next hop %q, %v", next, err)
	}
	if l, ok := first.Link("jia-yi"); !ok || l.Ceiling != "work_secret" {
		t.Error("link")
	}
	for _, h := range []interface {
		Current(string, time.Time) (*Certificate, error)
	}{must(first.Agency(string(jia.Code))), must(first.Node("yi"))} {
		for _, use := range []string{UseSign, UseEncrypt} {
			if c, err := h.Current(use, testNow); err != nil || c.NotAfter.Before(testNow.AddDate(4, 11, 0)) {
				t.Errorf("%s: %v", use, err)
			}
		}
	}

	again, err := OpenAuthority(dir, testPassphrase, rand.Reader)
	f.must(err)
	if again.Domain() != testDomain || !bytes.Equal(again.Certificate(), a.Certificate()) {
		t.Error("another authority after reopening")
	}
	second := published(t, again, 2)
	if second.Version() != 2 || second.list.Previous != first.id {
		t.Errorf("second version: %+v", second.list)
	}
	onDisk, err := os.ReadFile(filepath.Join(dir, "directory.yzd"))
	if err != nil || !bytes.Equal(onDisk, second.Raw()) {
		t.Errorf("directory.yzd is not what was published: %v", err)
	}
}

func must[T any](v T, ok bool) T {
	if !ok {
		panic("not there")
	}
	return v
}

func TestAuthorityCertificate(t *testing.T) {
	a, dir := newAuthority(t)
	der, err := ReadCertificate(filepath.Join(dir, "authority.crt"))
	if err != nil || !bytes.Equal(der, a.Certificate()) {
		t.Fatalf("authority.crt: %v", err)
	}
	cert, err := smx509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	want := smx509.KeyUsageCertSign | smx509.KeyUsageCRLSign | smx509.KeyUsageDigitalSignature
	if !cert.IsCA || cert.KeyUsage != want || cert.SignatureAlgorithm != smx509.SM2WithSM3 || cert.Subject.CommonName != testDomain {
		t.Errorf("CA %v, usage %b, %v", cert.IsCA, cert.KeyUsage, cert.SignatureAlgorithm)
	}
	if len(cert.SerialNumber.Bytes()) != 16 || cert.SerialNumber.Sign() <= 0 {
		t.Errorf("serial number %s", cert.SerialNumber)
	}
}

func TestAuthorityFilesAreItsOwners(t *testing.T) {
	a, dir := newAuthority(t)
	f := newForge(t, "modes")
	f.must(a.Admit(parsed(t, f.request("jia")), testNow))
	published(t, a, 1)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		want := fs.FileMode(0o600)
		if e.IsDir() {
			want = 0o700
		}
		if err == nil && info.Mode().Perm() != want {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		return err
	})
	f.must(err)
}
