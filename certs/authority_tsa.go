package certs

import (
	"bytes"
	"path/filepath"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/durable"
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
	file, _, err := a.tsaOf(func(have *TSA) bool { return bytes.Equal(have.Certificate.DER, der) })
	if err != nil {
		return err
	}
	if file == "" {
		file = tsaFile(der)
	}
	return a.putEntry(file, &e)
}

// tsaOf gives the entry of a timestamp authority that is, with its file: of
// several the one whose certificate ends last. The file is empty if there is
// none.
func (a *Authority) tsaOf(is func(*TSA) bool) (file string, newest tsaEntry, err error) {
	names, err := durable.OS.ReadDir(filepath.Join(a.dir, entriesDir))
	if err != nil {
		return "", newest, err
	}
	var ends time.Time
	for _, name := range names {
		name, ok := strings.CutSuffix(name, ".json")
		if !ok || !strings.HasPrefix(name, tsaPrefix) {
			continue
		}
		var e tsaEntry
		if err := a.entry(name, &e); err != nil {
			return "", newest, err
		}
		have, err := e.check()
		if err != nil {
			return "", newest, within("entry "+name, err)
		}
		if is(have) && have.Certificate.NotAfter.After(ends) {
			file, newest, ends = name, e, have.Certificate.NotAfter
		}
	}
	return file, newest, nil
}

// tsaStands refuses the certificate of a timestamp authority that is revoked.
func (b *book) tsaStands(der []byte) error {
	if r := b.revoked[sm.Sum(der)]; r != nil {
		return fail(codeRevoked, "the certificate of this timestamp authority is revoked from %s on (%s): it makes a new key, and a certificate for that", r.Effective.UTC().Format(time.RFC3339), r.Reason)
	}
	return nil
}

const tsaPrefix = "tsa-"

// tsaFile names an entry by its certificate: another one for the same key does
// not take its place, since a token is verified with the very certificate that
// it names.
func tsaFile(der []byte) string { return tsaPrefix + sm.Sum(der).String()[:16] }
