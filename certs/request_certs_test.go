package certs

import (
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// member is a node with one agency that was admitted, with its keys.
type member struct {
	*forge
	a    *Authority
	keys *memoryKeys
	code string
	d    *Directory
}

func newMember(t *testing.T) *member {
	t.Helper()
	a, _ := newAuthority(t)
	f := newForge(t, "member")
	m := &member{forge: f, a: a, keys: f.keys()}
	spec := agencySpec(t, "11520300000000001", "示范单位甲")
	m.code = string(spec.Code)
	b, err := NewRequest(m.keys, testDomain, NodeSpec{ID: "jia", Zone: "政务外网", TLSPin: [32]byte{1}}, []AgencySpec{spec}, testNow)
	f.must(err)
	f.must(a.Admit(parsed(t, b), testNow))
	m.d = published(t, a, 0)
	return m
}

// change makes a request and has it admitted and published, if it is.
func (m *member) change(t *testing.T, c Change) error {
	t.Helper()
	b, err := ChangeRequest(m.keys, m.d, "jia", c, testNow)
	if err != nil {
		return err
	}
	if err := m.a.Admit(parsed(t, b), testNow.Add(time.Minute)); err != nil {
		return err
	}
	m.d = published(t, m.a, 0)
	return nil
}

// TestRenew: an agency gets new keys, the node keeps its own, and what was
// before stays in the directory.
func TestRenew(t *testing.T) {
	m := newMember(t)
	at := testNow.Add(time.Hour)
	key := func(h *Holder, use string) sm.Digest {
		t.Helper()
		c, err := h.Current(use, at)
		m.must(err)
		return c.KeyID
	}
	node, _ := m.d.Node("jia")
	agency, _ := m.d.Agency(m.code)
	m.must(m.change(t, Change{Renew: []string{m.code, m.code}}))
	node2, _ := m.d.Node("jia")
	agency2, _ := m.d.Agency(m.code)
	for _, use := range []string{UseSign, UseEncrypt} {
		if key(&node.Holder, use) != key(&node2.Holder, use) || key(&agency.Holder, use) == key(&agency2.Holder, use) {
			t.Errorf("%s: the agency's key is new, the node's is not", use)
		}
		if !agency2.Holds(use, agency.Certificates[0].DER) && !agency2.Holds(use, agency.Certificates[1].DER) {
			t.Errorf("%s: the old certificate is gone", use)
		}
	}
	if len(node2.Certificates) != 2 || len(agency2.Certificates) != 4 || agency2.Name != agency.Name || node2.Zone != node.Zone || node2.TLSPin != node.TLSPin {
		t.Errorf("%d and %d certificates", len(node2.Certificates), len(agency2.Certificates))
	}
	m.must(m.change(t, Change{RenewNode: true}))
	node3, _ := m.d.Node("jia")
	if key(&node3.Holder, UseSign) == key(&node2.Holder, UseSign) || len(node3.Certificates) != 4 {
		t.Error("the node's keys are not new")
	}
	if a, _ := m.d.Agency(m.code); len(a.Certificates) != 4 {
		t.Errorf("the agency was not asked for and has %d certificates", len(a.Certificates))
	}
	wantCode(t, m.change(t, Change{Renew: []string{"11520300000000001X"}}), codeRequest)
	_, err := ChangeRequest(m.keys, m.d, "yi", Change{}, testNow)
	wantCode(t, err, codeRequest)
	if _, err := ChangeRequest(m.forge.keys(), m.d, "jia", Change{}, testNow); err == nil {
		t.Error("a keystore without the node's keys proved their possession")
	}
}

// TestImport: certificates of an outside authority stand in the directory once
// that authority is named in it, and those that do not fit are refused.
func TestImport(t *testing.T) {
	m := newMember(t)
	o := newOutside(t, "import")
	pub, err := m.keys.Generate()
	m.must(err)
	encryption := m.newKey()
	enveloped, err := SealEnvelopedKey(m.rand, pub, encryption)
	m.must(err)
	opened, err := OpenEnvelopedKey(enveloped, m.keys, sm.KeyID(pub))
	m.must(err)
	m.keys.keys[sm.KeyID(&opened.PublicKey)] = opened
	dual := Imported{Sign: o.cert(pub, signUsage, nil), Encrypt: o.cert(&opened.PublicKey, encryptUsage, nil)}
	change := Change{Imported: map[string]Imported{m.code: dual}}
	wantCode(t, m.change(t, change), codeChain)
	m.must(m.a.AddIssuer(o.root.Raw, "http://ca.example/list.crl", ""))
	m.must(m.a.AddIssuer(o.root.Raw, "http://ca.example/new.crl", "http://ca.example/ocsp"))
	m.must(m.change(t, change))
	m.must(m.change(t, change)) // again: nothing is done twice
	g, _ := m.d.Agency(m.code)
	for use, want := range map[string][]byte{UseSign: dual.Sign, UseEncrypt: dual.Encrypt} {
		if !g.Holds(use, want) || len(g.Certificates) != 4 {
			t.Errorf("%s: not in the directory, among %d", use, len(g.Certificates))
		}
	}
	if l := m.d.Issuers(); len(l) != 1 || l[0].CRL != "http://ca.example/new.crl" {
		t.Errorf("issuers: %+v", l)
	}
	wantCode(t, m.a.AddIssuer(m.a.Certificate(), "", ""), codeRequest)
	wantCode(t, m.a.AddIssuer(dual.Sign, "", ""), codeUsage)
	wantCode(t, m.a.AddIssuer(o.root.Raw, "file:///x", ""), codeRequest)

	// Spoiled by whoever carries the request, or by a careless hand.
	good, err := ChangeRequest(m.keys, m.d, "jia", change, testNow)
	m.must(err)
	stranger := newOutside(t, "stranger")
	for name, c := range map[string]struct {
		spoil func(*Request)
		code  string
	}{
		"added behind the proofs": {func(r *Request) { r.Certs = []certEntry{{Use: UseSign, Cert: dual.Sign}} }, codeRequest},
		"for another key": {func(r *Request) {
			r.Agencies[0].Certs[0].Cert = o.cert(&o.newKey().PublicKey, signUsage, nil)
			m.prove(r)
		}, codeRequest},
		"twice":       {func(r *Request) { r.Agencies[0].Certs[1] = r.Agencies[0].Certs[0]; m.prove(r) }, codeRequest},
		"unknown use": {func(r *Request) { r.Agencies[0].Certs[0].Use = "both"; m.prove(r) }, codeRequest},
		"no SM2":      {func(r *Request) { r.Agencies[0].Certs[0].Cert = []byte{0x30, 0}; m.prove(r) }, codeChain},
		"of a stranger": {func(r *Request) {
			r.Agencies[0].Certs[0].Cert = stranger.cert(pub, signUsage, nil)
			m.prove(r)
		}, codeChain},
		"swapped usage": {func(r *Request) {
			r.Agencies[0].Certs[0].Cert = o.cert(pub, encryptUsage, nil)
			m.prove(r)
		}, codeUsage},
	} {
		t.Run(name, func(t *testing.T) {
			r := parsed(t, good)
			c.spoil(r)
			b, err := strictjson.Marshal(r)
			m.must(err)
			got, err := ParseRequest(b)
			if err == nil {
				err = m.a.Admit(got, testNow)
			}
			wantCode(t, err, c.code)
		})
	}
}

// prove signs a spoiled request anew.
func (m *member) prove(r *Request) {
	r.Proofs = nil
	_, err := r.prove(m.keys)
	m.must(err)
}
