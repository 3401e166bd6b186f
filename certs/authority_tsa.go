package certs

import (
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// AddTSA notes a timestamp authority for the next publication, whoever issued
// its certificate (DER): the directory trusts the certificate itself. url is
// where nodes ask it, and may be empty. Naming it again replaces the URL; one that
// is revoked is not named again.
func (a *Authority) AddTSA(der []byte, url string) error {
	e := tsaEntry{Type: tsaType, V: 1, Domain: a.domain, URL: url, Cert: der}
	t, err := e.check()
	if err != nil {
		return asRequest(err)
	}
	b, err := a.book()
	if err != nil {
		return err
	}
	if err := b.tsaStands(der); err != nil {
		return err
	}
	if err := b.unstolen("timestamp authority "+t.Certificate.Serial, UseSign, t.Certificate.KeyID); err != nil {
		return err
	}
	return a.putEntry(tsaFile(t.Certificate.KeyID), &e)
}

// tsaStands refuses the certificate of a timestamp authority that is revoked.
func (b *book) tsaStands(der []byte) error {
	if r := b.revoked[sm.Sum(der)]; r != nil {
		return fail(codeRevoked, "the certificate of this timestamp authority is revoked from %s on (%s): it makes a new key, and a certificate for that", r.Effective.UTC().Format(time.RFC3339), r.Reason)
	}
	return nil
}

func tsaFile(key sm.Digest) string { return "tsa-" + key.String()[:16] }
