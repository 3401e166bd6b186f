package certs

import (
	"bytes"
	"slices"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// book is by what the authority judges single certificates: the authority
// itself, the issuers of its entries, and what is revoked there.
type book struct {
	*chain
	revoked map[sm.Digest]*Revocation // by the SM3 of the certificate
	named   []*smx509.Certificate
}

// book verifies under the authority and the issuers of its entries, as a
// reader of the next directory will.
func (a *Authority) book() (*book, error) {
	c, err := newChain(a.cert.Raw)
	if err != nil {
		return nil, err
	}
	raw, err := a.entries()
	if err != nil {
		return nil, err
	}
	b := &book{chain: c, revoked: map[sm.Digest]*Revocation{}}
	for _, one := range raw {
		kind, err := kindOf(one)
		if err != nil || kind != issuerType && kind != revocationType {
			continue
		}
		if _, _, err := readHolder(one, b.revoked); err != nil {
			return nil, err
		}
		if kind != issuerType {
			continue
		}
		var e issuerEntry
		if err := strictjson.Unmarshal(one, &e); err != nil {
			return nil, err
		}
		cert, err := e.check()
		if err != nil {
			return nil, err
		}
		c.add(cert, sm.Sum(e.Cert))
		b.named = append(b.named, cert)
	}
	return b, nil
}

// read verifies the certificates of a holder, newest first, and marks those
// that are revoked, by themselves or with their issuer.
func (b *book) read(list []certEntry) ([]Certificate, error) {
	out, err := b.chain.read(list)
	for i := range out {
		out[i].Revoked = b.revocation(&out[i])
	}
	return out, err
}

func (b *book) revocation(c *Certificate) *Revocation {
	first := b.revoked[sm.Sum(c.DER)]
	for _, issuer := range b.named {
		if r := b.revoked[sm.Sum(issuer.Raw)]; r != nil && issuerID(issuer) == c.Issuer {
			by := *r
			by.Source = SourceIssuer
			first = earliest(first, &by)
		}
	}
	return first
}

// withBrought puts certificates that came with a request before those that a
// holder has, if the authority or an issuer in its entries issued them.
func (b *book) withBrought(name string, had, brought []certEntry) ([]certEntry, error) {
	var fresh []certEntry
	for _, e := range brought {
		if slices.ContainsFunc(had, func(h certEntry) bool { return h.Use == e.Use && bytes.Equal(h.Cert, e.Cert) }) {
			continue
		}
		if _, err := b.verify(e.Use, e.Cert); err != nil {
			return nil, within(name+": name its issuer first, with yizhan ca issuer", err)
		}
		fresh = append(fresh, certEntry{Use: e.Use, Cert: e.Cert})
	}
	return append(fresh, had...), nil
}
