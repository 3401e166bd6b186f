package main

import (
	"bytes"
	"crypto/rand"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emmansun/gmsm/smx509"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/crypto/timestamp/tsatest"
)

// looked CADIR [DURATION] is an administrator who looks at the next publication,
// perhaps with another clock: LIST is then the SM3 of the list that was shown.
func looked(ts *testscript.TestScript, _ bool, args []string) {
	by := "0s"
	if len(args) > 1 {
		by = args[1]
	}
	ts.Check(ts.Exec("yizhan-in", by, "directory", "diff", args[0], "--json"))
	var d struct {
		List  string
		Fixed bool
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &d))
	if !d.Fixed {
		ts.Fatalf("the list is not fixed")
	}
	ts.Setenv("LIST", d.List)
}

// desk is an authority whose entries a test writes by hand.
type desk struct {
	*testing.T
	dir  string
	ca   *certs.Authority
	keys *keystore.Store
	code string
	now  time.Time
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{T: t, dir: t.TempDir(), now: time.Now()}
	pass := []byte(rand.Text())
	var err error
	d.ca, err = certs.InitAuthorityWith(d.dir, "示范域", func(keys string) (*keystore.Store, error) {
		d.keys, err = keystore.Create(keys, pass, rand.Reader)
		return d.keys, err
	}, rand.Reader, d.now)
	d.must(err)
	code, err := certs.MakeAgencyCode("11520000000000000")
	d.must(err)
	d.code = string(code)
	node, err := keystore.Create(t.TempDir(), pass, rand.Reader)
	d.must(err)
	b, err := certs.NewRequest(node, "示范域", certs.NodeSpec{ID: "jia", Zone: "政务外网", TLSPin: [32]byte{1}}, []certs.AgencySpec{{Code: code, Name: "单位甲"}}, d.now)
	d.must(err)
	r, err := certs.ParseRequest(b)
	d.must(err)
	d.must(d.ca.Admit(r, d.now))
	d.must(d.ca.AddAdministrator("zhang-san", "张三", node, d.now))
	_, err = d.ca.Publish(d.now)
	d.must(err)
	return d
}

func (d *desk) must(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

func (d *desk) entry(name string) string { return filepath.Join(d.dir, "entries", name+".json") }

// rewrite changes an entry's bytes.
func (d *desk) rewrite(name, from, to string) {
	d.Helper()
	b, err := os.ReadFile(d.entry(name))
	d.must(err)
	if !bytes.Contains(b, []byte(from)) {
		d.Fatalf("%s has no %s", name, from)
	}
	d.must(os.WriteFile(d.entry(name), bytes.Replace(b, []byte(from), []byte(to), 1), 0o600))
}

func (d *desk) diff() *directoryDiff {
	d.Helper()
	draft, err := d.ca.Draft(d.now)
	d.must(err)
	out, err := diffOf(draft.Before, draft.Directory, d.now)
	d.must(err)
	return out
}

// exchanged puts another key's certificate in the place of one, with the same
// serial, name and validity.
func (d *desk) exchanged(name string) (old, now []byte) {
	d.Helper()
	b, err := os.ReadFile(d.entry(name))
	d.must(err)
	var e struct{ Certs []struct{ Cert []byte } }
	d.must(json.Unmarshal(b, &e))
	old = e.Certs[0].Cert
	had, err := smx509.ParseCertificate(old)
	d.must(err)
	key, err := sm.GenerateKey(rand.Reader)
	d.must(err)
	parent, err := smx509.ParseCertificate(d.ca.Certificate())
	d.must(err)
	self, err := certs.Describe(d.ca.Certificate())
	d.must(err)
	signer, err := d.keys.Signer(self.KeyID)
	d.must(err)
	now, err = smx509.CreateCertificate(rand.Reader, &smx509.Certificate{
		SerialNumber: new(big.Int).Set(had.SerialNumber), Subject: had.Subject, NotBefore: had.NotBefore, NotAfter: had.NotAfter,
		KeyUsage: had.KeyUsage, BasicConstraintsValid: true,
	}, parent, &key.PublicKey, signer)
	d.must(err)
	d.rewrite(name, base64.StdEncoding.EncodeToString(old), base64.StdEncoding.EncodeToString(now))
	return old, now
}

// TestDiffLeavesNothingOut: whatever differs in the bytes that administrators
// approve is listed, also where no member says what.
func TestDiffLeavesNothingOut(t *testing.T) {
	tests := []struct {
		name   string
		spoil  func(d *desk)
		kind   string
		change string
		left   []string // nil: all is described
	}{
		{"nothing", func(*desk) {}, "", "", nil},
		{"a name", func(d *desk) { d.rewrite("agency-"+d.code, "单位甲", "单位乙") }, "agency", "changed", nil},
		{"an unknown member", func(d *desk) { d.rewrite("agency-"+d.code, `"}]}`, `"}],"x-forward":"y"}`) }, "agency", "changed", []string{"x-forward"}},
		{"an unknown member behind a name", func(d *desk) {
			d.rewrite("agency-"+d.code, "单位甲", "单位乙")
			d.rewrite("agency-"+d.code, `"}]}`, `"}],"x-forward":"y"}`)
		}, "agency", "changed", []string{"x-forward"}},
		{"crit", func(d *desk) { d.rewrite("node-jia", `"v":1,`, `"v":1,"crit":["zone"],`) }, "node", "changed", []string{"crit"}},
		{"an unknown member of an administrator", func(d *desk) {
			d.rewrite("administrator-zhang-san", `"}]}`, `"}],"x-vote":"2"}`)
		}, "administrator", "changed", []string{"x-vote"}},
		{"an entry of an unknown type", func(d *desk) {
			d.must(os.WriteFile(d.entry("zz"), []byte(`{"type":"yizhan-later","v":1,"what":"ever"}`), 0o600))
		}, "unknown", "added", []string{"type", "v", "what"}},
		{"an entry whose type looks like a known one", func(d *desk) {
			d.must(os.WriteFile(d.entry("zz"), []byte(`{"type":"agency","v":1,"domain":"示范域"}`), 0o600))
		}, "unknown", "added", []string{"domain", "type", "v"}},
		{"an unknown member in what is added", func(d *desk) {
			d.must(os.WriteFile(d.entry("policy"), []byte(`{"type":"yizhan-policy","v":1,"domain":"示范域","approvals":1,"x-except":"him"}`), 0o600))
		}, "policy", "changed", []string{"x-except"}},
		{"a policy that asks for nothing", func(d *desk) {
			d.must(os.WriteFile(d.entry("policy"), []byte(`{"type":"yizhan-policy","v":1,"domain":"示范域","approvals":0}`), 0o600))
		}, "policy", "added", []string{"approvals"}},
		{"the order", func(d *desk) { d.must(os.Rename(d.entry("administrator-zhang-san"), d.entry("z"))) }, "list", "changed", []string{"entries"}},
	}
	for _, tt := range tests {
		d := newDesk(t)
		tt.spoil(d)
		got := d.diff()
		if tt.kind == "" {
			if len(got.Changes) != 0 {
				t.Errorf("%s: %v", tt.name, got.Changes)
			}
			continue
		}
		if len(got.Changes) != 1 {
			t.Errorf("%s: %d changes: %v", tt.name, len(got.Changes), got.Changes)
			continue
		}
		c := got.Changes[0]
		if c.Kind != tt.kind || c.Change != tt.change || c.Undescribed != (tt.left != nil) || !slices.Equal(c.UndescribedMembers, tt.left) {
			t.Errorf("%s: %+v", tt.name, c)
		}
		if text := got.text("en"); strings.Contains(text, "not described here") != c.Undescribed {
			t.Errorf("%s: %s", tt.name, text)
		}
	}
}

// TestDiffShowsCertificates: a certificate is told from another one by its bytes
// and its key, not by its serial number.
func TestDiffShowsCertificates(t *testing.T) {
	d := newDesk(t)
	old, now := d.exchanged("administrator-zhang-san")
	was, err := certs.Describe(old)
	d.must(err)
	is, err := certs.Describe(now)
	d.must(err)
	if was.Serial != is.Serial {
		t.Fatal("another serial")
	}
	text := d.diff().text("zh")
	for _, want := range []string{certs.Fingerprint(old), certs.Fingerprint(now), inFours(was.KeyID), inFours(is.KeyID)} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in\n%s", want, text)
		}
	}
}

// TestDiffTellsTwinsApart: of two entries that would be called by one name both
// are shown.
func TestDiffTellsTwinsApart(t *testing.T) {
	d := newDesk(t)
	tsa, err := tsatest.New(rand.Reader, time.Now)
	d.must(err)
	der := base64.StdEncoding.EncodeToString(tsa.Certificate())
	for name, url := range map[string]string{"tsa-1": "http://one.example", "tsa-2": "http://two.example"} {
		d.must(os.WriteFile(d.entry(name), []byte(`{"type":"yizhan-tsa","v":1,"domain":"示范域","url":"`+url+`","cert":"`+der+`"}`), 0o600))
	}
	got := d.diff()
	text := got.text("en")
	if len(got.Changes) != 2 || !strings.Contains(text, "http://one.example") || !strings.Contains(text, "http://two.example") {
		t.Error(text)
	}
}

// TestDiffCannotBeWrittenOver: what a terminal would act on is shown by number.
func TestDiffCannotBeWrittenOver(t *testing.T) {
	d := newDesk(t)
	d.must(os.WriteFile(d.entry("zz"), []byte(`{"type":"yizhan-`+"\u202e"+`later\u001b[2K","v":1,"x\u001b[2K":1}`), 0o600))
	text := d.diff().text("en")
	if strings.ContainsAny(text, "\x1b\u202e") || !strings.Contains(text, `\u202elater\x1b[2K`) || !strings.Contains(text, `x\u{1b}[2K`) {
		t.Errorf("%q", text)
	}
}

// TestWatchedHolders: of whom the domain depends on, each has its newest
// certificate watched, and a former key of the authority is nobody's trouble.
func TestWatchedHolders(t *testing.T) {
	d := newDesk(t)
	for range 2 { // two timestamp authorities of one name
		tsa, err := tsatest.New(rand.Reader, time.Now)
		d.must(err)
		d.must(d.ca.AddTSA(tsa.Certificate(), ""))
	}
	for _, years := range []int{1, 3} { // an outside CA, and the same with its next certificate
		d.must(d.ca.AddIssuer(outsideRoot(t, "示范证书机构", years), "", ""))
	}
	d.must(d.ca.AddIssuer(outsideRoot(t, "另一证书机构", 2), "", ""))
	d.must(d.ca.Succeed(d.now))
	draft, err := d.ca.Draft(d.now)
	d.must(err)
	got := map[string]int{}
	days := map[string]float64{}
	list := watched(draft.Directory, "jia", d.now)
	for i := range list {
		got[list[i].kind]++
		days[list[i].whose] = list[i].days(d.now)
	}
	for kind, want := range map[string]int{"authority": 1, "timestamp": 1, "issuer": 2, "administrator": 1, "node": 2, "agency": 2} {
		if got[kind] != want {
			t.Errorf("%d of kind %s, want %d", got[kind], kind, want)
		}
	}
	if n := days["CN=示范证书机构"]; n < 3*365-1 || days["张三"] < 5*365-1 {
		t.Errorf("%v", days)
	}
	metric := soonest(list, d.now)
	if _, ok := metric[kindAndUse{"administrator", certs.UseSign}]; !ok || metric[kindAndUse{"issuer", certs.UseSign}] > 2*366 {
		t.Errorf("%v", metric)
	}
}

// outsideRoot is the certificate of a CA that is none of ours.
func outsideRoot(t *testing.T, name string, years int) []byte {
	t.Helper()
	key, err := sm.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &smx509.Certificate{
		SerialNumber: big.NewInt(int64(years)), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().AddDate(0, 0, -1), NotAfter: time.Now().AddDate(years, 0, 0),
		KeyUsage: smx509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := smx509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
