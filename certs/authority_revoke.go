package certs

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// maxPlanned is how long before it counts a revocation may be noted.
const maxPlanned = 366 * 24 * time.Hour

func revocationFile(id sm.Digest) string { return "revocation-" + id.String() }

// CheckEffective refuses a time from which a revocation of a certificate cannot
// sensibly count: before the certificate existed, after it ended by itself, or
// so far ahead that a mistyped year is likelier.
func CheckEffective(c *Certificate, effective, now time.Time) error {
	if err := inLifetime(c.Serial, c.NotBefore, c.NotAfter, effective); err != nil {
		return err
	}
	if effective.After(now.Add(maxPlanned)) {
		return fail(codeRequest, "certificate %s would be revoked from %s on: a revocation is planned at most %d days ahead", c.Serial, stamp(effective), int(maxPlanned.Hours()/24))
	}
	return nil
}

func inLifetime(serial string, notBefore, notAfter, effective time.Time) error {
	switch {
	case effective.Before(notBefore):
		return fail(codeRequest, "certificate %s is valid from %s on, and cannot be revoked from %s on, before it existed: choose that time or a later one, or name the certificates that are meant by --serial", serial, stamp(notBefore), stamp(effective))
	case effective.After(notAfter):
		return fail(codeRequest, "certificate %s ends by itself on %s, before %s, from which it would be revoked", serial, stamp(notAfter), stamp(effective))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Revoke notes, for the next publication, that a certificate (DER) ends at a
// time for a reason of [Reasons]. It need not be one that this authority
// issued; that of an issuer ends all that the issuer issued. A revocation may
// be made to count from an earlier time, never from a later one: somebody may
// have acted on it.
//
// The certificate is kept before the entry: after a crash between the two
// nothing is revoked, and the same call goes through again.
func (a *Authority) Revoke(der []byte, effective time.Time, reason string) error {
	cert, err := smx509.ParseCertificate(der)
	if err != nil {
		return &Error{Code: codeChain, Detail: "the certificate to revoke cannot be read", Err: err}
	}
	if bytes.Equal(der, a.cert.Raw) {
		return fail(codeRequest, "the authority cannot revoke its own certificate: it makes its successor")
	}
	if err := inLifetime(serialOf(cert), cert.NotBefore, cert.NotAfter, effective); err != nil {
		return err
	}
	id := sm.Sum(der)
	var had revocationEntry
	if err := a.entry(revocationFile(id), &had); err != nil {
		return err
	}
	e := revocationEntry{Type: revocationType, V: 1, Domain: a.domain, Cert: id, Effective: strictjson.TimeOf(effective), Reason: reason}
	if err := e.check(); err != nil {
		return asRequest(err)
	}
	if had.Type != "" && had.Effective < e.Effective {
		return fail(codeRequest, "certificate %x is revoked from %s on already", cert.SerialNumber, had.Effective.Time().Format(time.RFC3339))
	}
	dir := filepath.Join(a.dir, revokedDir)
	if err := durable.OS.MkdirAll(dir); err != nil {
		return err
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := durable.WriteFile(durable.OS, filepath.Join(dir, id.String()+".crt"), b); err != nil {
		return err
	}
	return a.putEntry(revocationFile(id), &e)
}

// Withdraw takes back a revocation (of a certificate, DER) that nobody has got
// yet. One that is published counts from an earlier time than before, if that
// is what is not published yet, and goes back to what is published.
func (a *Authority) Withdraw(der []byte) error {
	before, err := a.withdrawable(der)
	if err != nil {
		return err
	}
	name := revocationFile(sm.Sum(der))
	if before != nil {
		return a.putEntry(name, &revocationEntry{
			Type: revocationType, V: 1, Domain: a.domain, Cert: sm.Sum(der),
			Effective: strictjson.TimeOf(before.Effective), Reason: before.Reason,
		})
	}
	if err := durable.OS.Remove(a.entryPath(name)); err != nil {
		return err
	}
	return durable.OS.SyncDir(filepath.Join(a.dir, entriesDir))
}

// CheckWithdraw says why a revocation cannot be taken back; nil if it can.
func (a *Authority) CheckWithdraw(der []byte) error {
	_, err := a.withdrawable(der)
	return err
}

// withdrawable gives what is published of a certificate's revocation, nil for
// nothing, if something else is noted that can be taken back.
func (a *Authority) withdrawable(der []byte) (before *Revocation, err error) {
	cert, err := smx509.ParseCertificate(der)
	if err != nil {
		return nil, &Error{Code: codeChain, Detail: "the certificate cannot be read", Err: err}
	}
	serial, id := serialOf(cert), sm.Sum(der)
	var e revocationEntry
	if err := a.entry(revocationFile(id), &e); err != nil {
		return nil, err
	}
	if e.Type == "" {
		return nil, fail(codeRequest, "certificate %s is not revoked here", serial)
	}
	published, err := a.Published()
	if err != nil {
		return nil, err
	}
	if published != nil {
		before = published.revoked[id]
	}
	if before != nil && before.Effective.Equal(e.Effective.Time()) && before.Reason == e.Reason {
		return nil, fail(codeRequest, "certificate %s is revoked by version %d, which is published: whoever has it has acted on it, and cannot be told otherwise; its holder gets a new certificate instead", serial, published.Version())
	}
	number, err := a.inCRL(cert)
	if err != nil {
		return nil, err
	}
	if number != "" {
		return nil, fail(codeRequest, "certificate %s is in revocation list %s, which was made for others (%s): whoever has it has acted on it, and cannot be told otherwise; its holder gets a new certificate instead", serial, number, crlFile)
	}
	return before, nil
}

// inCRL gives the number of the last revocation list if a certificate is in it.
func (a *Authority) inCRL(cert *smx509.Certificate) (string, error) {
	b, err := durable.ReadFile(durable.OS, filepath.Join(a.dir, crlFile), MaxCRL)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	list, err := smx509.ParseRevocationList(b)
	if err != nil || list.Number == nil {
		return "", &Error{Code: codeCRL, Detail: crlFile + " cannot be read: restore it", Err: err}
	}
	for _, one := range list.RevokedCertificateEntries {
		if one.SerialNumber.Cmp(cert.SerialNumber) == 0 && bytes.Equal(list.RawIssuer, cert.RawIssuer) {
			return fmt.Sprint(list.Number), nil
		}
	}
	return "", nil
}
