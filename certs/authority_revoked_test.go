package certs

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// revokeAll revokes what a holder is listed with.
func (m *member) revokeAll(h *Holder, reason string) {
	for _, c := range h.Certificates {
		m.must(m.a.Revoke(c.DER, testNow, reason))
	}
}

// TestRevokedIsNotHandedOutAgain: asked again for the key of a revoked
// certificate, the authority lists another one, which counts.
func TestRevokedIsNotHandedOutAgain(t *testing.T) {
	m := newMember(t)
	later := testNow.Add(time.Hour)
	b, err := ChangeRequest(m.keys, m.d, "jia", Change{}, later)
	m.must(err)
	again := parsed(t, b)
	admin, clerk := m.newKey(), Purpose{Administrator: "wang", Name: "管理员甲", Use: UseSign}
	first, err := m.a.Issue(csrOf(t, m.forge, admin, UseSign), clerk, testNow)
	m.must(err)

	n, _ := m.d.Node("jia")
	m.revokeAll(&n.Holder, ReasonSuperseded)
	m.must(m.a.Revoke(first, testNow, ReasonSuperseded))
	replace(t, m.a, again, later)
	second, err := m.a.Issue(csrOf(t, m.forge, admin, UseSign), clerk, later)
	m.must(err)
	if bytes.Equal(first, second) {
		t.Error("the administrator got the revoked certificate again")
	}
	d := published(t, m.a, 0)
	after, _ := d.Node("jia")
	for _, use := range []string{UseSign, UseEncrypt} {
		c, err := after.Current(use, later.Add(time.Minute))
		if err != nil || n.Holds(use, c.DER) {
			t.Errorf("%s: %v", use, err)
		}
	}
	if len(after.Certificates) != 4 {
		t.Errorf("%d certificates: the revoked ones stay, for what they signed before", len(after.Certificates))
	}
	if c, err := d.Administrators()[0].Current(UseSign, later.Add(time.Minute)); err != nil || !bytes.Equal(c.DER, second) {
		t.Errorf("the administrator's certificate: %v", err)
	}
}

// TestStolenKeysGetNoCertificate: whatever a key that others may have is asked
// to be certified for, by whomever, it is not.
func TestStolenKeysGetNoCertificate(t *testing.T) {
	m := newMember(t)
	later := testNow.Add(time.Hour)
	b, err := ChangeRequest(m.keys, m.d, "jia", Change{Renew: []string{m.code}}, later)
	m.must(err)
	keeps := parsed(t, b) // the node's keys
	clerk := Purpose{Administrator: "wang", Name: "管理员甲", Use: UseSign}
	admin := m.newKey()
	der, err := m.a.Issue(csrOf(t, m.forge, admin, UseSign), clerk, testNow)
	m.must(err)
	stamper := m.newKey()
	stamp, err := m.a.Issue(csrOf(t, m.forge, stamper, UseSign), Purpose{TSA: true, Use: UseSign}, testNow)
	m.must(err)
	n, _ := m.d.Node("jia")
	m.revokeAll(&n.Holder, ReasonKeyCompromise)
	for _, c := range [][]byte{der, stamp} {
		m.must(m.a.Revoke(c, testNow, ReasonKeyCompromise))
	}

	refused := func(what string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("%s: accepted", what)
		}
		wantCode(t, err, codeRevoked)
	}
	admit := func(r *Request) error {
		admission, err := m.a.Admission(later)
		m.must(err)
		admission.Replace = true
		return admission.Add(r)
	}
	refused("the node's request", admit(keeps))
	_, err = m.a.Issue(csrOf(t, m.forge, admin, UseSign), clerk, later)
	refused("the administrator's request", err)
	_, err = m.a.Issue(csrOf(t, m.forge, stamper, UseSign), Purpose{TSA: true, Use: UseSign}, later)
	refused("the timestamp authority's request", err)
	refused("the timestamp authority's certificate", m.a.AddTSA(stamp, ""))

	// Also when the holder is gone, under another name, and when nobody kept
	// the certificate but an entry.
	_, err = m.a.Issue(csrOf(t, m.forge, m.keys.keys[keyOf(t, n, UseSign)], UseSign), clerk, later)
	if err == nil {
		t.Error("another's key was certified")
	}
	r, err := m.a.Removal("node jia")
	m.must(err)
	m.must(r.Commit(later))
	published(t, m.a, 0)
	refused("the node's request, after it was taken out", admit(keeps))
	_, err = m.a.Issue(csrOf(t, m.forge, m.keys.keys[keyOf(t, n, UseSign)], UseSign), clerk, later)
	refused("under another name", err)
	m.must(os.RemoveAll(m.a.dir + "/" + revokedDir))
	_, err = m.a.Issue(csrOf(t, m.forge, admin, UseSign), clerk, later)
	refused("without the kept certificate", err)
}

func keyOf(t *testing.T, n *Node, use string) sm.Digest {
	t.Helper()
	c, ok := newest(n.Certificates, use)
	if !ok {
		t.Fatal("no certificate")
	}
	return c.KeyID
}

// TestRevokedIsNotBroughtAgain: the certificate of an outside authority that
// was revoked here does not come back with a request.
func TestRevokedIsNotBroughtAgain(t *testing.T) {
	m := newMember(t)
	o := newOutside(t, "brought again")
	m.must(m.a.AddIssuer(o.root.Raw, "", ""))
	pub, err := m.keys.Generate()
	m.must(err)
	der := o.cert(pub, signUsage, nil)
	change := Change{Imported: map[string]Imported{m.code: {Sign: der}}}
	m.must(m.a.Revoke(der, testNow, ReasonSuperseded)) // before it was ever listed
	wantCode(t, m.change(t, change), codeRevoked)
	other := o.cert(pub, signUsage, nil)
	change = Change{Imported: map[string]Imported{m.code: {Sign: other}}}
	m.must(m.change(t, change))
	m.must(m.a.Revoke(other, testNow, ReasonSuperseded))
	wantCode(t, m.change(t, change), codeRevoked)
}

// TestRevocationTimes: a revocation counts from a time at which its certificate
// existed, and not from one that somebody mistyped.
func TestRevocationTimes(t *testing.T) {
	m := newMember(t)
	n, _ := m.d.Node("jia")
	c := &n.Certificates[0]
	for name, tt := range map[string]struct {
		at   time.Time
		code string
	}{
		"when it begins":            {c.NotBefore, ""},
		"before it existed":         {c.NotBefore.Add(-time.Second), codeRequest},
		"never":                     {time.Time{}, codeRequest},
		"a year ahead":              {testNow.AddDate(1, 0, 0), ""},
		"ten years ahead, after it": {testNow.AddDate(10, 0, 0), codeRequest},
		"two years ahead":           {testNow.AddDate(2, 0, 0), codeRequest},
	} {
		t.Run(name, func(t *testing.T) {
			wantCode(t, CheckEffective(c, tt.at, testNow), tt.code)
			if tt.at.Before(c.NotBefore) || tt.at.After(c.NotAfter) {
				before := everyEntry(t, m.a)
				wantCode(t, m.a.Revoke(c.DER, tt.at, ReasonSuperseded), codeRequest)
				if everyEntry(t, m.a) != before {
					t.Error("something was written")
				}
			}
		})
	}
}

// TestWithdraw: a revocation is taken back as long as nobody has it, and one
// that was made to count earlier goes back to what is published.
func TestWithdraw(t *testing.T) {
	m := newMember(t)
	n, _ := m.d.Node("jia")
	first, second := n.Certificates[0].DER, n.Certificates[1].DER
	before := everyEntry(t, m.a)
	wantCode(t, m.a.Withdraw(first), codeRequest) // not revoked
	m.must(m.a.Revoke(first, testNow, ReasonSuperseded))
	m.must(m.a.Withdraw(first))
	if everyEntry(t, m.a) != before {
		t.Error("the entries are not what they were")
	}

	m.must(m.a.Revoke(first, testNow, ReasonSuperseded))
	published(t, m.a, 0)
	wantCode(t, m.a.Withdraw(first), codeRequest)
	m.must(m.a.Revoke(first, testNow.Add(-time.Minute), ReasonKeyCompromise))
	m.must(m.a.Withdraw(first))
	d := published(t, m.a, 0)
	if r := d.revoked[sm.Sum(first)]; r == nil || !r.Effective.Equal(testNow) || r.Reason != ReasonSuperseded {
		t.Errorf("published: %+v", r)
	}

	// A list that was made for others tells it, too.
	m.must(m.a.Revoke(second, testNow, ReasonSuperseded))
	_, err := m.a.CRL(testNow)
	m.must(err)
	err = m.a.Withdraw(second)
	if wantCode(t, err, codeRequest); err == nil || !strings.Contains(err.Error(), "revocation list 1") {
		t.Errorf("got %v", err)
	}
	m.must(os.WriteFile(m.a.dir+"/"+crlFile, []byte("x"), 0o600))
	wantCode(t, m.a.Withdraw(second), codeCRL)
}
