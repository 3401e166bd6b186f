package certs

import "github.com/yizhan-gateway/yizhan/crypto/sm"

// AddTSA notes a timestamp authority for the next publication, whoever issued
// its certificate (DER): the directory trusts the certificate itself. url is
// where nodes ask it, and may be empty. Naming it again replaces the URL.
func (a *Authority) AddTSA(der []byte, url string) error {
	e := tsaEntry{Type: tsaType, V: 1, Domain: a.domain, URL: url, Cert: der}
	t, err := e.check()
	if err != nil {
		return asRequest(err)
	}
	return a.putEntry(tsaFile(t.Certificate.KeyID), &e)
}

func tsaFile(key sm.Digest) string { return "tsa-" + key.String()[:16] }
