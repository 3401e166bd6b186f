package certs

import (
	"bytes"
	"crypto/ecdsa"
	"slices"
	"time"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// book is by what the authority judges single certificates: the authority
// itself, the issuers of its entries, and what is revoked there.
type book struct {
	*chain
	revoked map[sm.Digest]*Revocation // by the SM3 of the certificate
	stolen  map[sm.Digest]bool        // keys that were revoked as key_compromise
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
		if _, err := readHolder(one, b.revoked); err != nil {
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
	b.stolen, err = a.stolenKeys(b.revoked)
	return b, err
}

// stolenKeys gives the keys of certificates that were revoked because others
// may have them. The certificate was kept when it was revoked; one whose
// revocation was put there by hand may be in an entry.
func (a *Authority) stolenKeys(revoked map[sm.Digest]*Revocation) (map[sm.Digest]bool, error) {
	out, missing := map[sm.Digest]bool{}, false
	for id, r := range revoked {
		if r.Reason != ReasonKeyCompromise {
			continue
		}
		cert, err := a.revokedCertificate(id)
		if err != nil {
			return nil, err
		}
		if cert == nil {
			missing = true
		} else if isSM2(cert) {
			out[sm.KeyID(cert.PublicKey.(*ecdsa.PublicKey))] = true
		}
	}
	if !missing {
		return out, nil
	}
	list, err := a.Certificates()
	for _, l := range list {
		if l.Revoked != nil && l.Revoked.Reason == ReasonKeyCompromise {
			out[l.KeyID] = true
		}
	}
	return out, err
}

// unstolen refuses a key that others may have, for whatever it is asked to be
// certified.
func (b *book) unstolen(holder, use string, key sm.Digest) error {
	if !b.stolen[key] {
		return nil
	}
	return fail(codeRevoked, "%s: its key to %s with was revoked because others may have it (%s), and gets no certificate again: it makes new keys, a node with yizhan cert renew", holder, use, ReasonKeyCompromise)
}

// standing gives the certificate of a key that is valid now and not revoked;
// nil if there is none.
func (b *book) standing(list []certEntry, use string, key sm.Digest, now time.Time) *Certificate {
	for _, e := range list {
		one, err := b.verify(e.Use, e.Cert)
		if err == nil && one.Use == use && one.KeyID == key && now.Before(one.NotAfter) && b.revocation(one) == nil {
			return one
		}
	}
	return nil
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
		c, err := b.verify(e.Use, e.Cert)
		if err != nil {
			return nil, within(name+": name its issuer first, with yizhan ca issuer", err)
		}
		if r := b.revocation(c); r != nil {
			return nil, fail(codeRevoked, "%s: certificate %s is revoked from %s on (%s), and is not listed again: bring another one", name, c.Serial, r.Effective.UTC().Format(time.RFC3339), r.Reason)
		}
		if slices.ContainsFunc(had, func(h certEntry) bool { return h.Use == e.Use && bytes.Equal(h.Cert, e.Cert) }) {
			continue
		}
		fresh = append(fresh, certEntry{Use: e.Use, Cert: e.Cert})
	}
	return append(fresh, had...), nil
}
