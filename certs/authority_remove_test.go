package certs

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// TestAdmitJudgesTheDraft: a request that proves all that it must, and with
// which no version could be published any more, leaves nothing behind.
func TestAdmitJudgesTheDraft(t *testing.T) {
	m := newMember(t)
	n, _ := m.d.Node("jia")
	sign, ok := newest(n.Certificates, UseSign)
	if !ok {
		t.Fatal("no certificate")
	}
	for name, spoil := range map[string]func(r *Request){
		"the TLS key of another node": func(r *Request) { r.TLSPin = hex.EncodeToString(n.TLSPin[:]) },
		"a key of another holder": func(r *Request) {
			pub, err := sign.PublicKey()
			m.must(err)
			r.Keys.Encrypt = sm.PublicKeyBytes(pub)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := NewRequest(m.keys, testDomain, NodeSpec{ID: "yi", TLSPin: [32]byte{7}}, nil, testNow)
			m.must(err)
			r := parsed(t, b)
			spoil(r)
			m.prove(r)
			before := everyEntry(t, m.a)
			err = m.a.Admit(parsed(t, encoded(t, r)), testNow)
			wantCode(t, err, codeRequest)
			if err == nil || !strings.Contains(err.Error(), "nothing was changed") || everyEntry(t, m.a) != before {
				t.Errorf("got %v", err)
			}
			published(t, m.a, 0)
		})
	}

	// A draft that is broken already blocks admissions, with that as the cause,
	// and an admission that mends it passes.
	b, err := NewRequest(m.keys, testDomain, NodeSpec{ID: "yi"}, []AgencySpec{agencySpec(t, "11520300000000002", "示范单位乙")}, testNow)
	m.must(err)
	yi := parsed(t, b)
	m.must(m.a.ChangeAgency(m.code, AgencyChange{Parent: &yi.Agencies[0].Code}))
	b, err = NewRequest(m.keys, testDomain, NodeSpec{ID: "bing"}, nil, testNow)
	m.must(err)
	if err := m.a.Admit(parsed(t, b), testNow); err == nil || !strings.Contains(err.Error(), "already without this change") {
		t.Errorf("got %v", err)
	}
	m.must(m.a.Admit(yi, testNow))
	published(t, m.a, 0)
}

// TestRemove: what was admitted by mistake is taken out, with all that hangs on
// it, and nothing that others need.
func TestRemove(t *testing.T) {
	m := newMember(t)
	yi, bing := agencySpec(t, "11520300000000002", "示范单位乙"), agencySpec(t, "11520300000000003", "示范单位丙")
	m.must(m.a.Admit(parsed(t, m.request("yi", yi, bing)), testNow))
	m.must(m.a.AddLink(Link{A: "jia", B: "yi", Dialer: "jia", Kind: "https", Ceiling: "internal"}))
	m.must(m.a.AddRoute("jia", "*", "yi"))
	take := func(holder string) *Removal {
		t.Helper()
		r, err := m.a.Removal(holder)
		m.must(err)
		m.must(r.Commit(testNow))
		return r
	}
	r := take("node yi")
	want := []string{"route jia to *", "link jia-yi", "agency " + string(yi.Code), "agency " + string(bing.Code), "node yi"}
	if !slices.Equal(r.Taken, want) || len(r.Published) > 0 {
		t.Errorf("took %q, published %q", r.Taken, r.Published)
	}
	if d := published(t, m.a, 2); len(d.Agencies()) != 1 || len(d.nodes) != 1 || len(d.order) != 0 {
		t.Error("something is left")
	}
	if r := take("node yi"); len(r.Taken) > 0 {
		t.Errorf("took %q again", r.Taken)
	}

	// What others name is not taken away under them.
	m.must(m.a.Admit(parsed(t, m.request("yi", yi, bing)), testNow.Add(time.Second)))
	m.must(m.a.ChangeAgency(m.code, AgencyChange{Successor: ptr(string(yi.Code))}))
	before := everyEntry(t, m.a)
	r, err := m.a.Removal("agency " + string(yi.Code))
	m.must(err)
	err = r.Commit(testNow)
	wantCode(t, err, codeRequest)
	if err == nil || !strings.Contains(err.Error(), "successor") || everyEntry(t, m.a) != before {
		t.Errorf("got %v", err)
	}
}

func ptr(s string) *string { return &s }

// TestRestore: a wrong admission and a wrong removal are undone until they are
// published; what is published ends with the next version, and comes back by
// nobody's request but the holder's.
func TestRestore(t *testing.T) {
	m := newMember(t)
	undo := func(holder string) *Removal {
		t.Helper()
		r, err := m.a.Restoration(holder)
		m.must(err)
		m.must(r.Commit(testNow))
		return r
	}
	same := func(what string) {
		t.Helper()
		if d := published(t, m.a, 0); !equalEntries(d, m.d) {
			t.Errorf("%s: not as it was published", what)
		}
	}
	stranger := m.request("jia", agencySpec(t, "11520300000000001", "示范单位甲"), agencySpec(t, "11520300000000002", "示范单位乙"))
	replace(t, m.a, parsed(t, stranger), testNow)
	r := undo("node jia")
	if !slices.Equal(r.Back, []string{"agency " + m.code, "node jia"}) || !slices.Equal(r.Taken, []string{"agency " + string(agencySpec(t, "11520300000000002", "").Code)}) {
		t.Errorf("back %q, taken %q", r.Back, r.Taken)
	}
	same("a wrong admission")

	r, err := m.a.Removal("node jia")
	m.must(err)
	m.must(r.Commit(testNow))
	if !slices.Equal(r.Published, []string{"agency " + m.code, "node jia"}) {
		t.Errorf("published %q", r.Published)
	}
	wantCode(t, m.a.Admit(parsed(t, stranger), testNow), codeUnproven)
	undo("node jia")
	same("a wrong removal")

	r, err = m.a.Removal("agency " + m.code)
	m.must(err)
	m.must(r.Commit(testNow))
	if d := published(t, m.a, 0); len(d.Agencies()) != 0 {
		t.Error("the agency is still there")
	}
	_, err = m.a.Restoration("agency " + m.code)
	wantCode(t, err, codeRequest)
}

// TestAgencyMoves: an agency goes to another node when it is taken out first
// and somebody made sure, and keeps what it was listed with.
func TestAgencyMoves(t *testing.T) {
	m := newMember(t)
	moved := parsed(t, m.request("yi", agencySpec(t, "11520300000000001", "示范单位甲")))
	wantCode(t, m.a.Admit(moved, testNow), codeRequest)
	r, err := m.a.Removal("agency " + m.code)
	m.must(err)
	m.must(r.Commit(testNow))
	wantCode(t, m.a.Admit(moved, testNow), codeUnproven)
	replace(t, m.a, moved, testNow)
	if g, _ := published(t, m.a, 0).Agency(m.code); g.Node != "yi" || len(g.Certificates) != 4 {
		t.Errorf("on node %s with %d certificates", g.Node, len(g.Certificates))
	}
}

// TestCertificatesAreNotDropped: a holder that is listed with as many
// certificates as a directory may list gets no further one, and keeps those it
// has: the first of them is still there to open what was sealed to it. What was
// never used may be taken out for it.
func TestCertificatesAreNotDropped(t *testing.T) {
	m := newMember(t)
	at, first := testNow, m.d
	for range maxCertificates/2 - 1 {
		at = at.Add(time.Hour)
		b, err := ChangeRequest(m.keys, m.d, "jia", Change{RenewNode: true}, at)
		m.must(err)
		m.must(m.a.Admit(parsed(t, b), at))
	}
	m.d = published(t, m.a, 0)
	before := everyEntry(t, m.a)
	b, err := ChangeRequest(m.keys, m.d, "jia", Change{RenewNode: true}, at.Add(time.Hour))
	m.must(err)
	further := parsed(t, b)
	for what, err := range map[string]error{
		"admit": m.a.Admit(further, at.Add(time.Hour)),
		"issue": issueErr(m.a, csrOf(t, m.forge, m.newKey(), UseSign), Purpose{Node: "jia", Use: UseSign}, at),
	} {
		if wantCode(t, err, codeRequest); err == nil || !strings.Contains(err.Error(), "yizhan ca remove --serial") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if everyEntry(t, m.a) != before {
		t.Error("something was written")
	}
	now, _ := m.d.Node("jia")
	was, _ := first.Node("jia")
	for _, c := range was.Certificates {
		if len(now.Certificates) != maxCertificates || !now.Holds(c.Use, c.DER) {
			t.Errorf("%d certificates, and the first to %s is gone", len(now.Certificates), c.Use)
		}
	}

	for _, use := range []string{UseSign, UseEncrypt} {
		c, ok := newest(now.Certificates[10:], use)
		if !ok {
			t.Fatal("no certificate")
		}
		r, err := m.a.CertificateRemoval(c.Serial)
		m.must(err)
		if len(r.Taken) != 1 || len(r.Published) != 1 {
			t.Errorf("takes %q, published %q", r.Taken, r.Published)
		}
		m.must(r.Commit(at))
	}
	m.must(m.a.Admit(further, at.Add(time.Hour)))

	g, _ := m.d.Agency(m.code)
	_, err = m.a.CertificateRemoval(g.Certificates[0].Serial)
	wantCode(t, err, codeRequest) // its only one
	if r, err := m.a.CertificateRemoval("abcdef"); err != nil || len(r.Taken) > 0 {
		t.Errorf("of nobody: %v", err)
	}
}

func issueErr(a *Authority, c *CSR, p Purpose, now time.Time) error {
	_, err := a.Issue(c, p, now)
	return err
}
