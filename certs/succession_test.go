package certs

import (
	"bytes"
	"testing"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
)

func TestSuccession(t *testing.T) {
	first := newForge(t, "succession")
	second, to2 := first.heir()
	third, to3 := second.heir()
	thief, byThief := first.heir() // with the first key, after it was replaced
	stranger := newForge(t, "stranger")
	named := func(subject string) (*forge, []byte) {
		next := &forge{t: t, rand: first.rand, serial: 9000}
		next.key = next.newKey()
		next.root = next.selfSigned(next.key, func(c *smx509.Certificate) { c.Subject.CommonName = subject })
		signed, err := cms.Sign(first.self(), next.root.Raw, testNow)
		first.must(err)
		return next, signed
	}
	renamed, byOtherName := named("另一个域")
	signed := func(by *forge, content []byte) []byte {
		b, err := cms.Sign(by.self(), content, testNow)
		first.must(err)
		return b
	}
	list := func(by *forge, succession ...[]byte) []byte {
		d := by.draft(append(by.usual(), issuer(first))...)
		if by == first {
			d = by.draft(by.usual()...)
		}
		d.list.Succession = succession
		return by.sign(d)
	}
	tests := []struct {
		name  string
		file  []byte
		trust *forge
		code  string
	}{
		{"none", list(first), first, ""},
		{"by the heir, for who trusts the first", list(second, to2), first, ""},
		{"by the heir, for who trusts the heir", list(second, to2), second, ""},
		{"by the heir's heir, for who trusts the first", list(third, to2, to3), first, ""},
		{"by the heir's heir, for who trusts the heir", list(third, to2, to3), second, ""},
		{"by the heir's heir, for who trusts it", list(third, to2, to3), third, ""},
		{"for a stranger", list(third, to2, to3), stranger, "directory_signature"},
		{"by the heir without a succession", list(second), first, "directory_signature"},
		{"a step missing", list(third, to3), first, "directory_signature"},
		{"a step missing, that does not matter here", list(third, to3), second, ""},
		{"out of order", list(third, to3, to2), first, "directory_signature"},
		{"to somebody else", list(second, to2, to3), first, "directory_signature"},
		{"old list after succession", list(first), second, "directory_signature"},
		{"thief of the old key, for who trusts the new", list(thief, byThief), second, "directory_signature"},
		{"thief of the old key, on top", list(thief, to2, byThief), second, "directory_signature"},
		{"signed by the wrong key", list(second, signed(stranger, second.root.Raw)), first, "directory_signature"},
		{"to another name", list(renamed, byOtherName), first, "directory_signature"},
		{"to no certificate", list(second, signed(first, []byte("x"))), first, "certificate_chain"},
		{"garbage", list(second, []byte("x")), first, "directory_signature"},
		{"garbage for who trusts the heir", list(second, []byte("x")), second, "directory_signature"},
		{"endless", list(second, bytesOf(to2, maxSuccessions+1)...), first, "directory_signature"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := LoadDirectory(tt.file, tt.trust.root.Raw, 0, testNow)
			wantCode(t, err, tt.code)
		})
	}
}

func bytesOf(b []byte, n int) (out [][]byte) {
	for range n {
		out = append(out, b)
	}
	return out
}

// TestShelfFollowsSuccessions: a node that skipped versions and successions
// follows; from then on it trusts the new key alone, and who stole the old one
// cannot publish here.
func TestShelfFollowsSuccessions(t *testing.T) {
	first := newForge(t, "shelf successions")
	h := newHistory(first)
	holder := first.agency("11520300000000009", "示范单位壬", "jia") // certified by the first key
	v1 := h.next(holder)
	second, to2 := first.heir()
	third, to3 := second.heir()
	disk := emptyDisk(1)
	s := openShelf(t, disk)
	_, err := s.Trust(first.root.Raw, v1)
	first.must(err)

	before := h.before
	h.f, h.entries, h.version = third, append(third.usual(), issuer(first), holder), 6
	h.list = func(l *list) { l.Succession = [][]byte{to2, to3} }
	d, err := s.Install(h.next())
	first.must(err)
	if !bytes.Equal(d.Authority(), third.root.Raw) {
		t.Error("the heir is not the authority")
	}
	a, _ := d.Agency(holder.Code)
	if _, err := a.Current(UseSign, testNow); err != nil {
		t.Errorf("a certificate by the first key: %v", err)
	}
	der, err := s.certificate(authorityFile)
	if err != nil || !bytes.Equal(der, third.root.Raw) {
		t.Errorf("the new certificate is not durable: %v", err)
	}
	s = openShelf(t, disk)
	h.before = before
	for _, thief := range []*forge{first, second} {
		own, signed := thief.heir()
		for name, d := range map[string]*draft{"plainly": thief.draft(), "with an heir": own.draft()} {
			d.list.Version = 99
			if name != "plainly" {
				d.list.Succession = [][]byte{signed}
			}
			by := thief
			if name != "plainly" {
				by = own
			}
			file := by.sign(d)
			_, err := s.Install(file)
			wantCode(t, err, "directory_signature")
			_, err = s.Trust(thief.root.Raw, file) // a person is talked into trusting the old certificate
			wantCode(t, err, "directory_signature")
		}
	}
	if versionOf(s) != 7 {
		t.Errorf("version %d", versionOf(s))
	}
}

// FuzzSuccession: no bytes but what the authority signed lead from its
// certificate to its heir's.
func FuzzSuccession(f *testing.F) {
	first := newForge(f, "fuzz")
	second, good := first.heir()
	_, further := second.heir()
	f.Add(good)
	f.Add(further)
	f.Add(good[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, err := readSuccession(b); err != nil {
			wantSome(t, err)
		}
		if err := follow([][]byte{b}, first.root.Raw, second.root.Raw); err == nil && !bytes.Equal(b, good) {
			t.Fatal("another succession than was signed")
		}
	})
}
