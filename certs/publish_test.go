package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// approving makes an authority with three administrators and their keys.
func approving(t *testing.T) (*Authority, string, map[string]*memoryKeys, *forge) {
	t.Helper()
	a, dir := newAuthority(t)
	f := newForge(t, "approving")
	f.must(a.Admit(parsed(t, f.request("jia")), testNow))
	keys := map[string]*memoryKeys{}
	for _, id := range []string{"zhang-san", "li-si", "wang-wu"} {
		keys[id] = f.keys()
		f.must(a.AddAdministrator(id, "管理员"+id, keys[id], testNow))
	}
	setPolicy(t, a, 2)
	return a, dir, keys, f
}

func setPolicy(t *testing.T, a *Authority, approvals int) {
	t.Helper()
	if _, err := a.SetPolicy(approvals, testNow); err != nil {
		t.Fatal(err)
	}
}

// TestPolicyThatNobodyCouldMeet: who is named without a valid certificate does
// not count.
func TestPolicyThatNobodyCouldMeet(t *testing.T) {
	a, _, keys, f := approving(t)
	revoke := func(id string, at time.Time) {
		list, err := a.Certificates()
		f.must(err)
		for _, l := range list {
			if l.Holder == "administrator "+id {
				f.must(a.Revoke(l.DER, at, ReasonKeyCompromise))
			}
		}
	}
	end := testNow.AddDate(holderYears, 0, 0).Add(time.Hour)
	tests := []struct {
		name    string
		prepare func()
		n       int
		now     time.Time
		code    string
		unable  []string
	}{
		{"less than none", func() {}, -1, testNow, "request_content", nil},
		{"more than a policy can ask for", func() {}, maxIssuers + 1, testNow, "request_content", nil},
		{"all", func() {}, 3, testNow, "", nil},
		{"one more than there are", func() {}, 4, testNow, "request_content", nil},
		{"one revoked", func() { revoke("wang-wu", testNow) }, 3, testNow, "request_content", nil},
		{"without the revoked one", func() {}, 2, testNow, "", []string{"wang-wu"}},
		{"one revoked later", func() { revoke("li-si", testNow.Add(time.Hour)) }, 2, testNow, "", []string{"wang-wu"}},
		{"all ended", func() {}, 1, end, "request_content", nil},
		{"none is always possible", func() {}, 0, end, "", []string{"li-si", "wang-wu", "zhang-san"}},
		{"one renewed", func() { f.must(a.AddAdministrator("zhang-san", "张三", keys["zhang-san"], end)) }, 1, end, "", []string{"li-si", "wang-wu"}},
	}
	for _, tt := range tests {
		tt.prepare()
		q, err := a.SetPolicy(tt.n, tt.now)
		wantCode(t, err, tt.code)
		if err == nil && (q.Missing() != 0 || !slices.Equal(q.Unable, tt.unable)) {
			t.Errorf("%s: %+v", tt.name, q)
		}
	}
}

func (m *memoryKeys) Has(id sm.Digest) bool { return m.keys[id] != nil }

func TestPublishWithApprovals(t *testing.T) {
	a, dir, keys, f := approving(t)
	_, err := a.Publish(testNow)
	wantCode(t, err, "directory_approval")
	if _, err := os.Stat(filepath.Join(dir, directoryName)); !errors.Is(err, fs.ErrNotExist) {
		t.Error("published without approvals")
	}

	// Approving needs the folder alone, and fixes what is approved.
	desk, err := ReadAuthority(dir)
	f.must(err)
	if _, err := desk.Publish(testNow); err == nil {
		t.Error("published without keys")
	}
	draft, err := desk.Draft(testNow)
	f.must(err)
	wantCode(t, desk.Approve(draft, "nobody", keys["li-si"], testNow), "directory_approval")
	wantCode(t, desk.Approve(draft, "li-si", keys["wang-wu"], testNow), "directory_approval")
	f.must(desk.Approve(draft, "li-si", keys["li-si"], testNow))
	f.must(desk.Approve(draft, "li-si", keys["li-si"], testNow)) // again changes nothing
	wantCode(t, draft.Approved(), "directory_approval")
	later := testNow.Add(time.Hour)
	draft, err = desk.Draft(later)
	f.must(err)
	if !draft.Directory.Issued().Equal(testNow) || len(draft.Directory.Approvals()) != 1 {
		t.Error("the draft was not fixed")
	}
	f.must(desk.Approve(draft, "wang-wu", keys["wang-wu"], later))
	wantCode(t, draft.Approved(), "")
	file, err := a.Publish(later)
	f.must(err)
	d, err := LoadDirectory(file, a.Certificate(), 0, later)
	f.must(err)
	if got := d.Approvals(); !slices.Equal(got, []string{"li-si", "wang-wu"}) || !d.Issued().Equal(testNow) {
		t.Errorf("approved by %v, issued %s", got, d.Issued())
	}
	for _, name := range []string{draftFile, filepath.Join(approvalsDir, "li-si.cms")} {
		if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there", name)
		}
	}
	// The same approvals do not publish the next version.
	_, err = a.Publish(later)
	wantCode(t, err, "directory_approval")
}

// TestChangedEntriesVoidApprovals: what is published is what was approved.
func TestChangedEntriesVoidApprovals(t *testing.T) {
	a, _, keys, f := approving(t)
	approve := func(id string) *Draft {
		d, err := a.Draft(testNow)
		f.must(err)
		f.must(a.Approve(d, id, keys[id], testNow))
		return d
	}
	approve("zhang-san")
	approve("li-si")
	f.must(a.Admit(parsed(t, f.request("yi")), testNow))
	_, err := a.Publish(testNow)
	wantCode(t, err, "directory_approval")
	d, err := a.Draft(testNow)
	f.must(err)
	if !slices.Equal(d.Void, []string{"li-si", "zhang-san"}) || len(d.Directory.Approvals()) != 0 {
		t.Errorf("void: %v, approved: %v", d.Void, d.Directory.Approvals())
	}
	if d := approve("zhang-san"); !slices.Equal(d.Void, []string{"li-si"}) {
		t.Errorf("void: %v", d.Void)
	}
	approve("wang-wu")
	published(t, a, 1)
	// A policy of the version before counts for the one that abolishes it.
	setPolicy(t, a, 0)
	_, err = a.Publish(testNow)
	wantCode(t, err, "directory_approval")
	approve("zhang-san")
	approve("li-si")
	published(t, a, 2)
	published(t, a, 3)
}

func TestDraftRefuses(t *testing.T) {
	a, dir, keys, f := approving(t)
	d, err := a.Draft(testNow)
	f.must(err)
	f.must(a.Approve(d, "li-si", keys["li-si"], testNow))
	for name, text := range map[string]string{draftFile: "{}", filepath.Join(approvalsDir, "li-si.cms"): "x"} {
		path := filepath.Join(dir, name)
		good, err := os.ReadFile(path)
		f.must(err)
		f.must(os.WriteFile(path, []byte(text), 0o600))
		if _, err := a.Draft(testNow); err == nil {
			t.Errorf("%s: not noticed", name)
		}
		f.must(os.WriteFile(path, good, 0o600))
	}
	// One administrator's approval under another's name is not his.
	f.must(os.Rename(filepath.Join(dir, approvalsDir, "li-si.cms"), filepath.Join(dir, approvalsDir, "wang-wu.cms")))
	d, err = a.Draft(testNow)
	f.must(err)
	if len(d.Directory.Approvals()) != 0 || !slices.Equal(d.Void, []string{"li-si"}) {
		t.Errorf("approved: %v, void: %v", d.Directory.Approvals(), d.Void)
	}
	f.must(a.putEntry("policy", &policyEntry{Type: policyType, V: 1, Domain: testDomain, Approvals: 4}))
	_, err = a.Draft(testNow)
	wantCode(t, err, "directory_content")
}

func TestSucceed(t *testing.T) {
	a, dir := newAuthority(t)
	f := newForge(t, "succeed")
	jia := agencySpec(t, "11520300000000001", "示范单位甲")
	f.must(a.Admit(parsed(t, f.request("jia", jia)), testNow))
	first := published(t, a, 1)
	certificates := [][]byte{a.Certificate()}
	for range 2 {
		f.must(a.Succeed(testNow))
		certificates = append(certificates, a.Certificate())
	}
	a, err := OpenAuthority(dir, testPassphrase, rand.Reader)
	f.must(err)
	if !bytes.Equal(a.Certificate(), certificates[2]) {
		t.Fatal("another authority after opening")
	}
	for i, der := range certificates[:2] {
		if had, err := ReadCertificate(filepath.Join(dir, FormerFile(der))); err != nil || !bytes.Equal(had, der) {
			t.Errorf("former certificate %d is not kept: %v", i, err)
		}
	}
	file, err := a.Publish(testNow)
	f.must(err)
	for i, der := range certificates {
		d, err := LoadDirectory(file, der, 2, testNow)
		if err != nil {
			t.Fatalf("for who trusts certificate %d: %v", i, err)
		}
		if !bytes.Equal(d.Authority(), certificates[2]) || d.Successions() != 2 || len(d.Issuers()) != 2 || d.list.Previous != first.id {
			t.Errorf("%d successions, %d issuers", d.Successions(), len(d.Issuers()))
		}
		g, _ := d.Agency(string(jia.Code))
		if c, err := g.Current(UseSign, testNow); err != nil || c.Issuer != issuerNamed(t, certificates[0]) {
			t.Errorf("what the first key issued: %v", err)
		}
	}
	// The new key issues from now on; what the old one issued stays.
	replace(t, a, parsed(t, f.request("jia", jia)), testNow.AddDate(0, 1, 0))
	g, _ := published(t, a, 3).Agency(string(jia.Code))
	if len(g.Certificates) != 4 || g.Certificates[0].Issuer != issuerNamed(t, certificates[2]) {
		t.Errorf("%d certificates", len(g.Certificates))
	}
	names := func(der []byte) string {
		c, err := smx509.ParseCertificate(der)
		f.must(err)
		if _, ok := c.PublicKey.(*ecdsa.PublicKey); !ok {
			t.Error("no SM2 key")
		}
		return string(c.RawSubject)
	}
	if names(certificates[0]) != names(certificates[2]) {
		t.Error("another name")
	}
}

// TestSucceedCrashes: after a crash at any step the authority opens as the old
// one or the new one, publishes, and succeeds again.
func TestSucceedCrashes(t *testing.T) {
	f := newForge(t, "succeed crashes")
	for _, lost := range [][]string{
		{authorityFile, entriesDir}, // before the certificate: a signed object for nobody
		{entriesDir},                // after it, and before the issuer's entry
	} {
		a, dir := newAuthority(t)
		f.must(a.Admit(parsed(t, f.request("jia")), testNow))
		published(t, a, 1)
		saved := t.TempDir()
		f.must(os.CopyFS(saved, os.DirFS(dir)))
		f.must(a.Succeed(testNow))
		for _, name := range lost {
			f.must(os.RemoveAll(filepath.Join(dir, name)))
			if name == entriesDir {
				f.must(os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(saved, name))))
				continue
			}
			b, err := os.ReadFile(filepath.Join(saved, name))
			f.must(err)
			f.must(os.WriteFile(filepath.Join(dir, name), b, 0o600))
		}
		a, err := OpenAuthority(dir, testPassphrase, rand.Reader)
		f.must(err)
		want := 2 - len(lost)
		if d := published(t, a, 2); d.Successions() != want || len(d.Issuers()) != want {
			t.Errorf("%d successions, %d issuers, want %d", d.Successions(), len(d.Issuers()), want)
		}
		f.must(a.Succeed(testNow))
		if d := published(t, a, 3); d.Successions() != want+1 {
			t.Errorf("%d successions in the end", d.Successions())
		}
	}
}

// TestDraftTimes: what lies there as the list to approve gives its times alone,
// and those only while they are such as a clock would give.
func TestDraftTimes(t *testing.T) {
	a, dir, _, f := approving(t)
	path := filepath.Join(dir, draftFile)
	fix := func() *list {
		f.must(a.clearDraft())
		d, err := a.Draft(testNow)
		f.must(err)
		f.must(a.Fix(d))
		l := d.Directory.list
		return &l
	}
	tests := []struct {
		name  string
		spoil func(l *list)
		code  string
		fixed bool
	}{
		{"as it was made", func(*list) {}, "", true},
		{"earlier", func(l *list) { l.Issued -= 60_000 }, "", true},
		{"by a clock that is a little ahead", func(l *list) { l.Issued = strictjson.TimeOf(testNow.Add(listSkew)) }, "", true},
		{"issued in the future", func(l *list) { l.Issued = strictjson.TimeOf(testNow.Add(listSkew + time.Second)) }, "directory_content", false},
		{"due before it was issued", func(l *list) { l.NextUpdate = l.Issued }, "directory_content", false},
		{"due in years", func(l *list) { l.NextUpdate = l.Issued + strictjson.Time((maxListLife+time.Second)/time.Millisecond) }, "directory_content", false},
		{"overdue", func(l *list) { l.Issued -= 3_000_000_000; l.NextUpdate = strictjson.TimeOf(testNow.Add(-time.Second)) }, "", false},
		{"another version", func(l *list) { l.Version = 9 }, "", false},
		{"an entry less", func(l *list) { l.Entries = l.Entries[1:] }, "", false},
		{"what is not known here", func(l *list) { l.Extra = strictjson.Extra{{Name: "x-more", Value: []byte("1")}} }, "", false},
	}
	for _, tt := range tests {
		l := fix()
		tt.spoil(l)
		b, err := strictjson.Marshal(l)
		f.must(err)
		f.must(os.WriteFile(path, b, 0o600))
		d, err := a.Draft(testNow)
		wantCode(t, err, tt.code)
		if err != nil {
			if _, err := a.Publish(testNow); err == nil {
				t.Errorf("%s: published", tt.name)
			}
			continue
		}
		if d.Fixed() != tt.fixed || tt.fixed != (d.Directory.id == sm.Sum(b)) {
			t.Errorf("%s: fixed %v", tt.name, d.Fixed())
		}
		if len(d.Directory.list.Extra) > 0 || d.Directory.Version() != 1 {
			t.Errorf("%s: %+v", tt.name, d.Directory.list)
		}
	}

	// What needs no approval is issued when it is published, whoever looked before.
	setPolicy(t, a, 0)
	fix()
	later := testNow.Add(20 * 24 * time.Hour)
	file, err := a.Publish(later)
	f.must(err)
	d, err := LoadDirectory(file, a.Certificate(), 0, later)
	f.must(err)
	if !d.Issued().Equal(later) {
		t.Errorf("issued %s", d.Issued())
	}
	// A clock behind the last publication makes nothing that anybody would take.
	_, err = a.Draft(testNow)
	wantCode(t, err, "directory_content")
}

// TestPartsCoverTheList: every entry is a part with its hash in the list, named
// by what it is about, and what is not known here is a part of the list.
func TestPartsCoverTheList(t *testing.T) {
	f := newForge(t, "parts")
	heir, signed := f.heir()
	person, _ := f.person("zhang-san")
	outside := f.selfSigned(f.newKey(), func(*smx509.Certificate) {})
	d := heir.draft(append(heir.usual(), issuer(f), person, &issuerEntry{Type: issuerType, V: 1, Domain: testDomain, Cert: outside.Raw},
		strictjson.Raw(`{"type":"yizhan-later","v":1}`))...)
	d.list.Succession = [][]byte{signed}
	d.list.Extra = strictjson.Extra{{Name: "x-more", Value: []byte("1")}}
	loaded, err := heir.load(d)
	f.must(err)
	parts, err := loaded.Parts()
	f.must(err)
	if parts[0].Kind != "list" || parts[1].Kind != "authority" || len(parts) != 2+len(d.entries) {
		t.Fatalf("%d parts", len(parts))
	}
	seen := map[string]bool{}
	for i, p := range parts[2:] {
		if p.Hash != loaded.list.Entries[i] {
			t.Errorf("part %d has another hash", i)
		}
		if key := p.Kind + " " + p.ID; seen[key] {
			t.Errorf("%s twice", key)
		} else {
			seen[key] = true
		}
	}
	for _, want := range []string{"node jia", "agency " + d.codes[0], "link jia-yi", "route jia – bing", "administrator zhang-san",
		"issuer " + Fingerprint(outside.Raw), `unknown "yizhan-later" ` + sm.Sum([]byte(`{"type":"yizhan-later","v":1}`)).String()} {
		if !seen[want] {
			t.Errorf("no %s", want)
		}
	}
}

// TestApproverOfARenewal: who was given a further key approves that with the key
// that both versions know, and from then on with the new one.
func TestApproverOfARenewal(t *testing.T) {
	a, _, keys, f := approving(t)
	approve := func(id string, at time.Time) *Certificate {
		t.Helper()
		d, err := a.Draft(at)
		f.must(err)
		c, err := d.Approver(id, keys[id], at)
		f.must(err)
		f.must(a.Approve(d, id, keys[id], at))
		return c
	}
	approve("zhang-san", testNow)
	first := approve("li-si", testNow)
	_, err := a.Publish(testNow)
	f.must(err)

	end := testNow.AddDate(holderYears, 0, 0)
	late := end.AddDate(0, -1, 0)
	for _, id := range []string{"zhang-san", "li-si"} {
		f.must(a.AddAdministrator(id, "管理员"+id, keys[id], late))
	}
	if c := approve("li-si", late); !bytes.Equal(c.DER, first.DER) {
		t.Error("approved with a certificate that the version before does not know")
	}
	approve("zhang-san", late)
	file, err := a.Publish(late)
	f.must(err)
	d, err := LoadDirectory(file, a.Certificate(), 0, late)
	f.must(err)
	if q := d.Quorum(end.Add(time.Hour)); q.Missing() != 0 || !slices.Equal(q.Unable, []string{"wang-wu"}) {
		t.Errorf("%+v", q)
	}
	if q := d.Quorum(late.AddDate(holderYears, 0, 1)); q.Missing() != 2 || len(q.Unable) != 3 {
		t.Errorf("%+v", q)
	}

	// A key that the next version revokes is not approved with.
	f.must(a.Revoke(first.DER, late, ReasonSuperseded))
	if c := approve("li-si", late.Add(time.Minute)); bytes.Equal(c.DER, first.DER) {
		t.Error("approved with what is revoked")
	}
	after := end.Add(time.Hour)
	f.must(a.clearDraft())
	approve("li-si", after)
	approve("zhang-san", after)
	_, err = a.Publish(after)
	f.must(err)
	next, err := a.Draft(after)
	f.must(err)
	_, err = next.Approver("wang-wu", keys["wang-wu"], after)
	wantCode(t, err, "directory_approval")
}

// TestNumberAbove: an authority that came from a backup publishes what nodes
// with the versions that were lost take, and no number is burnt.
func TestNumberAbove(t *testing.T) {
	a, dir := newAuthority(t)
	f := newForge(t, "above")
	f.must(a.Admit(parsed(t, f.request("jia")), testNow))
	first, err := a.Publish(testNow)
	f.must(err)
	behind, ahead := openShelf(t, emptyDisk(1)), openShelf(t, emptyDisk(2))
	for _, s := range []*Shelf{behind, ahead} {
		_, err := s.Trust(a.Certificate(), first)
		f.must(err)
	}
	for range 3 {
		file, err := a.Publish(testNow.Add(time.Minute))
		f.must(err)
		_, err = ahead.Install(file)
		f.must(err)
	}

	f.must(os.WriteFile(filepath.Join(dir, directoryName), first, 0o600)) // from the backup
	a, err = OpenAuthority(dir, testPassphrase, rand.Reader)
	f.must(err)
	now := testNow.Add(time.Hour)
	wantCode(t, a.NumberAbove(maxSkipped+2, true), "request_content")
	wantCode(t, a.NumberAbove(1<<63, true), "request_content")
	number := func() uint64 {
		t.Helper()
		again, err := ReadAuthority(dir) // what was noted, and by no process
		f.must(err)
		d, err := again.Draft(now)
		f.must(err)
		return d.Directory.Version()
	}
	f.must(a.NumberAbove(1, true))
	if n := number(); n != 2 {
		t.Errorf("a number that is published leads to %d", n)
	}
	f.must(a.NumberAbove(4, false))
	if n := number(); n != 2 {
		t.Errorf("what was not kept leads to %d", n)
	}
	f.must(a.NumberAbove(9, true))
	f.must(a.NumberAbove(0, true))
	if n := number(); n != 2 {
		t.Errorf("what was taken back leads to %d", n)
	}
	f.must(a.NumberAbove(4, true))
	if n := number(); n != 6 {
		t.Errorf("above 4 is %d", n)
	}
	file, err := a.Publish(now)
	f.must(err)
	for _, s := range []*Shelf{behind, ahead} {
		d, err := s.Install(file)
		if err != nil || d.Version() != 6 {
			t.Errorf("not taken: %v", err)
		}
	}
	file, err = a.Publish(now)
	f.must(err)
	if d, err := ahead.Install(file); err != nil || d.Version() != 7 {
		t.Errorf("the number was not forgotten: %v", err)
	}
	for _, text := range []string{"x", "99999999999", "-1"} {
		f.must(os.WriteFile(filepath.Join(dir, aboveFile), []byte(text), 0o600))
		_, err = a.Draft(now)
		wantCode(t, err, "directory_content")
	}
}
