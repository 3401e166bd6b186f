package certs

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// FuzzCertificate gives the chain any bytes as a certificate, and as that of
// an authority: an error has a code, and nothing but what the authority
// issued for the use is taken.
func FuzzCertificate(f *testing.F) {
	g := newForge(f, "fuzz")
	dual := g.dual()
	for _, c := range dual {
		f.Add(c.Cert)
	}
	f.Add(g.root.Raw)
	f.Add([]byte{0x30, 0x80})
	c, err := newChain(g.root.Raw)
	g.must(err)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := newChain(b); err != nil {
			wantSome(t, err)
		}
		for i, use := range []string{UseSign, UseEncrypt} {
			got, err := c.verify(use, b)
			if err != nil {
				wantSome(t, err)
				continue
			}
			if !bytes.Equal(b, dual[i].Cert) || got.Use != use {
				t.Fatal("a certificate that the authority did not issue for this")
			}
		}
	})
}

// FuzzReadCertificate: a PEM file holds exactly one certificate or is refused.
func FuzzReadCertificate(f *testing.F) {
	g := newForge(f, "fuzz")
	good := pemOf(g.root.Raw)
	f.Add(good)
	f.Add(append(bytes.Clone(good), good...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	path := filepath.Join(f.TempDir(), "authority.crt")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		der, err := ReadCertificate(path)
		if err != nil {
			wantSome(t, err)
			return
		}
		first, rest := pem.Decode(b)
		if second, _ := pem.Decode(rest); second != nil || !bytes.Equal(first.Bytes, der) {
			t.Fatalf("one of several was taken: %x", der)
		}
	})
}

// FuzzSignedList: what is given out of a file is in the file.
func FuzzSignedList(f *testing.F) {
	g := newForge(f, "fuzz")
	f.Add(g.sign(g.draft(g.usual()...)))
	f.Add([]byte(`{"type":"yizhan-directory-file","v":1,"list":"AA==","entries":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := SignedList(b)
		if err != nil {
			wantSome(t, err)
			return
		}
		if _, err := cms.Relabel(list); err == nil && len(list) == 0 {
			t.Fatal("a signed list of no bytes")
		}
	})
}

// FuzzTake gives a shelf any bytes as an update: it is in force as it was, or
// what the authority signed is, whole.
func FuzzTake(f *testing.F) {
	h := newHistory(newForge(f, "fuzz"))
	first, second := h.next(), h.next()
	begin := func(t testing.TB) *Shelf {
		s := openShelf(t, emptyDisk(1))
		if _, err := s.Trust(h.f.root.Raw, first); err != nil {
			t.Fatal(err)
		}
		return s
	}
	from := begin(f)
	had, err := listed(first)
	h.f.must(err)
	next, err := LoadDirectory(second, h.f.root.Raw, 0, testNow)
	h.f.must(err)
	good, err := next.deltaFrom(1, had)
	h.f.must(err)
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add(second)
	f.Add([]byte(`{"type":"yizhan-directory-delta","v":1,"from":1,"list":"","entries":[]}`))
	s := from
	f.Fuzz(func(t *testing.T, b []byte) {
		if u, err := parseDelta(b); err == nil {
			if again, err := strictjson.Marshal(u); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("parse then marshal gives other bytes, %v", err)
			}
		} else {
			wantSome(t, err)
		}
		d, err := s.Take(b)
		if err != nil {
			wantSome(t, err)
			if versionOf(s) != 1 {
				t.Fatal("an error, and another version in force")
			}
			return
		}
		if d.Version() == 2 {
			if !bytes.Equal(d.Raw(), second) {
				t.Fatal("another directory than was signed")
			}
			s = begin(t)
		}
	})
}

func FuzzLoadDirectory(f *testing.F) {
	g := newForge(f, "fuzz")
	good := g.sign(g.draft(g.usual()...))
	f.Add(good)
	f.Add(g.sign(g.draft()))
	f.Add(g.sign(g.draft(raw(`{"type":"later","v":1}`))))
	f.Add([]byte(`{"type":"yizhan-directory-file","v":1,"list":"","entries":[]}`))
	f.Add(good[:len(good)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := LoadDirectory(b, g.root.Raw, 0, testNow)
		if err != nil {
			wantSome(t, err)
			return
		}
		for _, a := range d.Agencies() {
			if _, ok := d.Node(a.Node); !ok {
				t.Fatal("an agency on no node")
			}
		}
		if !bytes.Equal(d.Raw(), b) {
			t.Fatal("not what was loaded")
		}
	})
}

// FuzzEntry feeds entries that the authority did sign: what lies behind the
// signature must not panic either.
func FuzzEntry(f *testing.F) {
	g := newForge(f, "fuzz")
	agency := g.agency("11520300000000001", "甲", "jia")
	agency.Parent, agency.Successor, agency.Branch, agency.Groups = agency.Code, agency.Code, BranchParty, []string{"组"}
	other := newForge(f, "other")
	for _, e := range append(g.usual(), agency, issuer(other), revocation(other.root.Raw, testNow), g.tsa(nil), g.administrator("a1"), policy(1)) {
		b, err := strictjson.Marshal(e)
		g.must(err)
		f.Add(b)
	}
	f.Add([]byte(`{"type":"later","v":1,"crit":[]}`))
	c, err := newChain(g.root.Raw)
	g.must(err)
	f.Fuzz(func(t *testing.T, b []byte) {
		d := newDirectory()
		d.list.Domain = testDomain
		if err := d.index([]strictjson.Raw{b}, c); err != nil {
			return
		}
		d.Search("甲", 1)
		for _, n := range d.nodes {
			d.LinksOf(n.ID)
		}
	})
}
