package certs

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
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

// replace admits what nothing proves, as an operator who made sure.
func replace(t *testing.T, a *Authority, r *Request, now time.Time) {
	t.Helper()
	m, err := a.Admission(now)
	if err == nil {
		m.Replace = true
		err = m.Add(r)
	}
	if err == nil {
		err = m.Commit()
	}
	if err != nil {
		t.Fatal(err)
	}
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

func TestOpenAuthorityRefuses(t *testing.T) {
	_, dir := newAuthority(t)
	if _, err := InitAuthority(dir, testDomain, testPassphrase, rand.Reader, testNow); !errors.Is(err, keystore.ErrExists) {
		t.Errorf("made over an authority: %v", err)
	}
	if _, err := OpenAuthority(dir, []byte("wrong"), rand.Reader); !errors.Is(err, keystore.ErrPassphrase) {
		t.Errorf("wrong passphrase: %v", err)
	}
	if _, err := OpenAuthority(filepath.Join(dir, "absent"), testPassphrase, rand.Reader); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	for _, domain := range []string{"", strings.Repeat("x", 129), "a\nb"} {
		_, err := InitAuthority(filepath.Join(t.TempDir(), "a"), domain, testPassphrase, rand.Reader, testNow)
		wantCode(t, err, "request_content")
	}
	crt := filepath.Join(dir, "authority.crt")
	good, err := os.ReadFile(crt)
	if err != nil {
		t.Fatal(err)
	}
	other := newForge(t, "other")
	for name, text := range map[string]string{
		"empty": "", "garbage": "x", "two certificates": string(good) + string(good),
		"a key": "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n",
	} {
		if err := os.WriteFile(crt, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenAuthority(dir, testPassphrase, rand.Reader); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	if err := os.WriteFile(crt, pemOf(other.root.Raw), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = OpenAuthority(dir, testPassphrase, rand.Reader)
	wantCode(t, err, "certificate_chain")
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

// TestAdmitAgain: the same request is done once however often it comes; a new
// one renews, and what was signed before still verifies.
func TestAdmitAgain(t *testing.T) {
	a, dir := newAuthority(t)
	f := newForge(t, "again")
	jia := agencySpec(t, "11520300000000001", "示范单位甲")
	r := parsed(t, f.request("jia", jia))
	f.must(a.Admit(r, testNow))
	before := published(t, a, 1)
	f.must(a.Admit(r, testNow.Add(time.Hour)))
	after := published(t, a, 2)
	if !equalEntries(before, after) {
		t.Error("admitting the same request again changed something")
	}

	// What the authority added by hand stays.
	path := filepath.Join(dir, "entries", "agency-"+string(jia.Code)+".json")
	var e agencyEntry
	b, err := os.ReadFile(path)
	f.must(err)
	f.must(strictjson.Unmarshal(b, &e))
	e.Groups = []string{"各县区政府"}
	b, err = strictjson.Marshal(&e)
	f.must(err)
	f.must(os.WriteFile(path, b, 0o600))

	renewed := jia
	renewed.Name = "示范单位甲（新）"
	replace(t, a, parsed(t, f.request("jia", renewed)), testNow.AddDate(1, 0, 0))
	third := published(t, a, 3)
	old, _ := before.Agency(string(jia.Code))
	now, _ := third.Agency(string(jia.Code))
	if len(now.Certificates) != 4 || now.Name != renewed.Name || len(now.Groups) != 1 {
		t.Fatalf("renewed: %d certificates, %+v", len(now.Certificates), now)
	}
	for _, use := range []string{UseSign, UseEncrypt} {
		was, err := old.Current(use, testNow)
		f.must(err)
		if !now.Holds(use, was.DER) {
			t.Errorf("%s: the old certificate is gone, and what it signed with it", use)
		}
		is, err := now.Current(use, testNow.AddDate(1, 0, 0))
		if err != nil || is.KeyID == was.KeyID {
			t.Errorf("%s: the old certificate is still current, %v", use, err)
		}
	}
	if n, _ := third.Node("jia"); len(n.Certificates) != 4 {
		t.Errorf("%d certificates of the node", len(n.Certificates))
	}
}

func equalEntries(a, b *Directory) bool {
	if len(a.list.Entries) != len(b.list.Entries) {
		return false
	}
	for i := range a.list.Entries {
		if a.list.Entries[i] != b.list.Entries[i] {
			return false
		}
	}
	return true
}

func TestAdmitRefuses(t *testing.T) {
	a, _ := newAuthority(t)
	f := newForge(t, "refuses")
	jia := agencySpec(t, "11520300000000001", "示范单位甲")
	f.must(a.Admit(parsed(t, f.request("jia", jia)), testNow))

	foreign, err := NewRequest(f.keys(), "elsewhere", spec("yi"), nil, testNow)
	f.must(err)
	wantCode(t, a.Admit(parsed(t, foreign), testNow), "request_content")

	// Another node asks for an agency that is served: nothing of it is taken.
	thief := parsed(t, f.request("yi", jia))
	err = a.Admit(thief, testNow)
	wantCode(t, err, "request_content")
	if err == nil || !strings.Contains(err.Error(), "node jia") {
		t.Errorf("got %v", err)
	}
	d := published(t, a, 1)
	if _, ok := d.Node("yi"); ok {
		t.Error("the thief's node was admitted")
	}
	if g, _ := d.Agency(string(jia.Code)); g.Node != "jia" || len(g.Certificates) != 2 {
		t.Error("the agency was taken")
	}

	// Out of the authority's own time.
	late := parsed(t, f.request("bing"))
	wantCode(t, a.Admit(late, testNow.AddDate(30, 0, 0)), "certificate_expired")
	wantCode(t, a.Admit(late, testNow.Add(-2*time.Hour)), "certificate_expired")
	// Near its end certificates end with it.
	f.must(a.Admit(late, testNow.AddDate(18, 0, 0)))
	n, _ := published(t, a, 2).Node("bing")
	if c, err := n.Current(UseSign, testNow.AddDate(19, 0, 0)); err != nil || c.NotAfter.After(a.cert.NotAfter) {
		t.Errorf("outlives the authority: %v", err)
	}
}

func TestAddLinkAndRoute(t *testing.T) {
	a, _ := newAuthority(t)
	f := newForge(t, "links")
	bing := agencySpec(t, "11520300000000003", "示范单位丙")
	f.must(a.Admit(parsed(t, f.request("jia")), testNow))
	f.must(a.Admit(parsed(t, f.request("yi")), testNow))
	f.must(a.Admit(parsed(t, f.request("bing", bing)), testNow))
	good := Link{ID: "l", A: "jia", B: "yi", Dialer: "yi", Kind: "ferry"}
	for name, change := range map[string]func(*Link){
		"bad id":      func(l *Link) { l.ID = "../l" },
		"bad kind":    func(l *Link) { l.Kind = "pigeon" },
		"no dialer":   func(l *Link) { l.Dialer = "" },
		"to itself":   func(l *Link) { l.B = "jia"; l.Dialer = "jia" },
		"to nobody":   func(l *Link) { l.B = "nobody" },
		"to a folder": func(l *Link) { l.B = "../x" },
	} {
		l := good
		change(&l)
		err := a.AddLink(l)
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else {
			wantCode(t, err, "request_content")
		}
	}
	for name, r := range map[string][3]string{
		"from nobody": {"nobody", "bing", "yi"}, "to nobody": {"jia", "nobody", "yi"}, "over nobody": {"jia", "bing", "nobody"},
		"to itself": {"jia", "jia", "yi"}, "over itself": {"jia", "bing", "jia"}, "from anywhere": {"*", "bing", "yi"},
	} {
		err := a.AddRoute(r[0], r[1], r[2])
		if err == nil {
			t.Errorf("route %s: accepted", name)
		} else {
			wantCode(t, err, "request_content")
		}
	}
	f.must(a.AddLink(good))
	f.must(a.AddLink(Link{A: "yi", B: "bing", Dialer: "yi", Kind: "https"}))
	d := published(t, a, 1)
	if _, _, err := d.NextHop("jia", string(bing.Code)); !errors.Is(err, ErrNoRoute) {
		t.Errorf("before the route: %v", err)
	}
	f.must(a.AddRoute("jia", "*", "yi"))
	d = published(t, a, 2)
	if l, next, err := d.NextHop("jia", string(bing.Code)); err != nil || next != "yi" || l.ID != "l" {
		t.Errorf("over the default route: %q, %v", next, err)
	}
	f.must(a.AddRoute("jia", "bing", "yi"))
	good.Ceiling = "internal"
	f.must(a.AddLink(good)) // replaces
	d = published(t, a, 3)
	if l, _ := d.Link("l"); l.Ceiling != "internal" {
		t.Error("the link was not replaced")
	}
	// A route that has no link is noticed before anybody gets the directory.
	f.must(a.AddRoute("bing", "jia", "jia"))
	_, err := a.Publish(testNow)
	wantCode(t, err, "directory_content")
	if b, err := a.Published(); err != nil || b.Version() != 3 {
		t.Errorf("a refused version was published: %v", err)
	}
}

// TestALinkOfOneWay: it leads nowhere from the side that only receives, an entry of a
// link with both ways has the bytes it always had, and a program that does not know
// the member refuses the directory.
func TestALinkOfOneWay(t *testing.T) {
	a, dir := newAuthority(t)
	f := newForge(t, "oneway")
	f.must(a.Admit(parsed(t, f.request("jia")), testNow))
	f.must(a.Admit(parsed(t, f.request("yi")), testNow))
	l := Link{ID: "jia-yi", A: "jia", B: "yi", Dialer: "jia", Kind: "ferry", Ceiling: "internal"}
	f.must(a.AddLink(l))
	entry := func() string {
		b, err := os.ReadFile(filepath.Join(dir, "entries", "link-jia-yi.json"))
		f.must(err)
		return string(b)
	}
	if want := `{"type":"yizhan-link","v":1,"domain":"` + testDomain + `","id":"jia-yi","a":"jia","b":"yi","dialer":"jia","kind":"ferry","ceiling":"internal"}`; entry() != want {
		t.Errorf("got %s, want %s", entry(), want)
	}
	l.OneWay = "bing"
	wantCode(t, a.AddLink(l), "request_content")
	l.OneWay, l.Kind = "jia", "https"
	wantCode(t, a.AddLink(l), "request_content")
	l.Kind = "ferry"
	f.must(a.AddLink(l))
	if want := `"v":1,"crit":["oneway"],"domain"`; !strings.Contains(entry(), want) || !strings.HasSuffix(entry(), `"ceiling":"internal","oneway":"jia"}`) {
		t.Errorf("got %s", entry())
	}
	var older struct {
		Type    string   `json:"type"`
		V       int      `json:"v"`
		Crit    []string `json:"crit,omitempty"`
		Domain  string   `json:"domain"`
		ID      string   `json:"id"`
		A       string   `json:"a"`
		B       string   `json:"b"`
		Dialer  string   `json:"dialer"`
		Kind    string   `json:"kind"`
		Ceiling string   `json:"ceiling"`
		Extra   strictjson.Extra
	}
	if err := strictjson.Unmarshal([]byte(entry()), &older); !errors.Is(err, strictjson.ErrCritical) {
		t.Errorf("a program that does not know the member: %v", err)
	}
	d := published(t, a, 1)
	if got, ok := d.LinkBetween("jia", "yi"); !ok || got.OneWay != "jia" || !got.Carries("jia") || got.Carries("yi") {
		t.Errorf("there: %+v", got)
	}
	if got, ok := d.LinkBetween("yi", "jia"); ok {
		t.Errorf("back: %+v", got)
	}
	f.must(a.AddLink(Link{ID: "yi-jia", A: "yi", B: "jia", Dialer: "yi", Kind: "ferry", OneWay: "yi"}))
	if got, ok := published(t, a, 2).LinkBetween("yi", "jia"); !ok || got.ID != "yi-jia" {
		t.Errorf("back over the other: %+v", got)
	}
	// A route back needs a way back.
	back := Link{ID: "yi-jia", A: "yi", B: "jia", Dialer: "yi", Kind: "ferry", OneWay: "jia"}
	f.must(a.AddLink(back))
	f.must(a.AddRoute("yi", "*", "jia"))
	_, err := a.Publish(testNow)
	wantCode(t, err, "directory_content")
}

// TestEntriesByHand: kinds of entries this version does not act on are put in
// as they are; a broken entry is named.
func TestEntriesByHand(t *testing.T) {
	a, dir := newAuthority(t)
	policy := `{"type":"yizhan-watch","v":1,"domain":"示范域","zulu":1,"alpha":2}`
	path := filepath.Join(dir, "entries", "inspection-1.json")
	if err := os.WriteFile(path, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "entries", "half.json.tmp"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if d := published(t, a, 1); !bytes.Contains(d.Raw(), []byte(policy)) {
		t.Error("the entry was not kept as it is")
	}
	if err := os.WriteFile(path, []byte(policy+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Publish(testNow); err == nil {
		t.Error("published an entry that is not in its one encoding")
	}
}
