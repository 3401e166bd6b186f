package certs

import (
	"crypto/ecdsa"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// Bounds of what a directory may hold besides agencies, nodes, links and
// routes.
const (
	maxEntries = 200_000
	maxIssuers = 64 // issuers, timestamp authorities, administrators
	maxURL     = 2048
)

// The reasons of a revocation.
const (
	ReasonKeyCompromise      = "key_compromise"
	ReasonCACompromise       = "ca_compromise"
	ReasonAffiliationChanged = "affiliation_changed"
	ReasonSuperseded         = "superseded"
	ReasonCessation          = "cessation"
	ReasonPrivilegeWithdrawn = "privilege_withdrawn"
)

// Reasons lists them.
func Reasons() []string {
	return []string{
		ReasonKeyCompromise, ReasonCACompromise, ReasonAffiliationChanged,
		ReasonSuperseded, ReasonCessation, ReasonPrivilegeWithdrawn,
	}
}

// Where a revocation is known from.
const (
	SourceDirectory = "directory" // a revocation entry
	SourceIssuer    = "issuer"    // the certificate of its issuer is revoked
)

// Revocation ends a certificate at a time: what another node received before
// verifies for ever, what comes at that time or later is refused. Compromised
// says that the key is, or may be, in other hands: the reason is
// key_compromise, or a list gives none. Who may date what he signs as he likes,
// like a timestamp authority, is then not believed about any time.
type Revocation struct {
	Effective   time.Time
	Reason      string
	Source      string
	Compromised bool
}

// earliest gives the revocation that takes effect first, nil is none; and if
// any of them says so, that the key is compromised.
func earliest(list ...*Revocation) (first *Revocation) {
	compromised := false
	for _, r := range list {
		compromised = compromised || r != nil && r.Compromised
		if first == nil || r != nil && r.Effective.Before(first.Effective) {
			first = r
		}
	}
	if compromised && !first.Compromised {
		both := *first
		both.Compromised = true
		first = &both
	}
	return first
}

// RevokedCertificate is a revocation entry: Certificate is the SM3 of the
// certificate's DER. The certificate need not be in the directory.
type RevokedCertificate struct {
	Certificate sm.Digest
	Revocation
}

// Issuer is a CA besides the authority whose certificates count: an outside
// one, or a former key of the authority. CRL and OCSP are URLs, perhaps empty.
type Issuer struct {
	DER       []byte
	Subject   string
	CRL, OCSP string
	NotBefore time.Time
	NotAfter  time.Time
	Revoked   *Revocation // ends everything that it issued
}

// TSA is a timestamp authority whose tokens are accepted. It is trusted by its
// certificate alone, whoever issued that.
type TSA struct {
	URL         string
	Certificate Certificate
}

type issuerEntry struct {
	Type   string   `json:"type"`
	V      int      `json:"v"`
	Crit   []string `json:"crit,omitempty"`
	Domain string   `json:"domain"`
	Cert   []byte   `json:"cert"`
	CRL    string   `json:"crl,omitempty"`
	OCSP   string   `json:"ocsp,omitempty"`
	Extra  strictjson.Extra
}

type revocationEntry struct {
	Type      string          `json:"type"`
	V         int             `json:"v"`
	Crit      []string        `json:"crit,omitempty"`
	Domain    string          `json:"domain"`
	Cert      sm.Digest       `json:"cert"` // SM3 of the certificate's DER
	Effective strictjson.Time `json:"effective"`
	Reason    string          `json:"reason"`
	Extra     strictjson.Extra
}

type tsaEntry struct {
	Type   string   `json:"type"`
	V      int      `json:"v"`
	Crit   []string `json:"crit,omitempty"`
	Domain string   `json:"domain"`
	URL    string   `json:"url,omitempty"`
	Cert   []byte   `json:"cert"`
	Extra  strictjson.Extra
}

// addRevocation notes a revocation before any certificate is read.
func (d *Directory) addRevocation(raw strictjson.Raw, c *chain) error {
	var e revocationEntry
	if err := d.common(raw, revocationType, &e, &e.V, &e.Domain); err != nil {
		return err
	}
	if err := e.check(); err != nil {
		return err
	}
	if _, twice := d.revoked[e.Cert]; twice {
		return fail(codeContent, "the revocation of certificate %s is there twice", e.Cert)
	}
	if e.Cert == sm.Sum(c.authority.Raw) {
		return fail(codeContent, "the authority's own certificate is revoked by what it signed: it is replaced by its successor")
	}
	d.revoked[e.Cert] = &Revocation{Effective: e.Effective.Time(), Reason: e.Reason, Source: SourceDirectory, Compromised: e.Reason == ReasonKeyCompromise}
	return nil
}

func (e *revocationEntry) check() error {
	if !slices.Contains(Reasons(), e.Reason) {
		return fail(codeContent, "a revocation's reason is one of %s", strings.Join(Reasons(), ", "))
	}
	if e.Effective == 0 || e.Cert.IsZero() {
		return fail(codeContent, "a revocation names a certificate and the time from which it counts")
	}
	return nil
}

// addIssuer adds a CA to those whose certificates count, before any holder's
// certificate is read.
func (d *Directory) addIssuer(raw strictjson.Raw, c *chain) error {
	var e issuerEntry
	if err := d.common(raw, issuerType, &e, &e.V, &e.Domain); err != nil {
		return err
	}
	if len(d.issuers) >= maxIssuers {
		return fail(codeContent, "more than %d issuers", maxIssuers)
	}
	cert, err := e.check()
	if err != nil {
		return err
	}
	id := sm.Sum(e.Cert)
	if c.issuers[id] != nil {
		return fail(codeContent, "issuer %s is there twice, or the authority itself", id)
	}
	who := issuerID(cert)
	if d.revoked[id] != nil && who == issuerID(c.authority) {
		return fail(codeContent, "issuer %s is revoked and has the name and key of the authority: it is replaced by its successor", id)
	}
	one := &Issuer{
		DER: e.Cert, Subject: cert.Subject.String(), CRL: e.CRL, OCSP: e.OCSP,
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, Revoked: d.revoked[id],
	}
	c.add(cert, id)
	d.issuers = append(d.issuers, one)
	if one.Revoked != nil {
		r := *one.Revoked
		r.Source = SourceIssuer
		d.ended[who] = earliest(d.ended[who], &r)
	}
	return nil
}

func (e *issuerEntry) check() (*smx509.Certificate, error) {
	cert, err := readCA(e.Cert, "an issuer's certificate")
	if err != nil {
		return nil, err
	}
	for _, u := range []string{e.CRL, e.OCSP} {
		if !isURL(u) {
			return nil, fail(codeContent, "issuer %s: a URL is like https://host:port/path, with http or https", cert.SerialNumber)
		}
	}
	return cert, nil
}

// isURL accepts nothing at all, and http or https URLs without a user, as CRLs
// and timestamp authorities have them: what is fetched is signed by itself.
func isURL(s string) bool {
	if s == "" {
		return true
	}
	u, err := url.Parse(s)
	return err == nil && len(s) <= maxURL && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil && u.Fragment == ""
}

// addTSA adds a timestamp authority.
func (d *Directory) addTSA(raw strictjson.Raw) error {
	var e tsaEntry
	if err := d.common(raw, tsaType, &e, &e.V, &e.Domain); err != nil {
		return err
	}
	if len(d.tsas) >= maxIssuers {
		return fail(codeContent, "more than %d timestamp authorities", maxIssuers)
	}
	one, err := e.check()
	if err != nil {
		return err
	}
	// One key may have several certificates, one after the other.
	name := "timestamp authority with key " + one.Certificate.KeyID.String()
	if err := d.owns(name, &one.Certificate); err != nil {
		return err
	}
	one.Certificate.Revoked = d.revoked[sm.Sum(e.Cert)]
	d.tsas = append(d.tsas, one)
	return nil
}

func (e *tsaEntry) check() (*TSA, error) {
	cert, err := smx509.ParseCertificate(e.Cert)
	if err != nil {
		return nil, &Error{Code: codeChain, Detail: "a timestamp authority's certificate cannot be read", Err: err}
	}
	serial := serialOf(cert)
	if !isSM2(cert) || cert.IsCA || cert.KeyUsage&smx509.KeyUsageDigitalSignature == 0 || !slices.Equal(cert.ExtKeyUsage, []smx509.ExtKeyUsage{smx509.ExtKeyUsageTimeStamping}) {
		return nil, fail(codeUsage, "certificate %s is not one of a timestamp authority (SM2, digitalSignature, extended key usage timeStamping alone)", serial)
	}
	if !isURL(e.URL) {
		return nil, fail(codeContent, "timestamp authority %s: its URL is not like https://host:port/path, with http or https", serial)
	}
	return &TSA{URL: e.URL, Certificate: Certificate{
		Use: UseSign, DER: e.Cert, KeyID: sm.KeyID(cert.PublicKey.(*ecdsa.PublicKey)), Serial: serial,
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
	}}, nil
}

func serialOf(cert *smx509.Certificate) string { return fmt.Sprintf("%x", cert.SerialNumber) }

// Issuers lists the CAs besides the authority whose certificates count, in the
// order of the directory.
func (d *Directory) Issuers() []*Issuer { return d.issuers }

// TSAs lists the timestamp authorities, in the order of the directory.
func (d *Directory) TSAs() []*TSA { return d.tsas }

// Revocations lists the revocation entries by time, then by certificate.
func (d *Directory) Revocations() []RevokedCertificate {
	var out []RevokedCertificate
	for id, r := range d.revoked {
		out = append(out, RevokedCertificate{id, *r})
	}
	slices.SortFunc(out, func(a, b RevokedCertificate) int {
		if n := a.Effective.Compare(b.Effective); n != 0 {
			return n
		}
		return strings.Compare(a.Certificate.String(), b.Certificate.String())
	})
	return out
}

// revoke gives a copy of the directory in which each certificate is revoked at
// the earlier of what it was and what by says of it; nil is nothing.
func (d *Directory) revoke(by func(*Certificate) *Revocation) *Directory {
	out := *d
	again := func(h Holder) Holder {
		h.Certificates = slices.Clone(h.Certificates)
		for i := range h.Certificates {
			c := &h.Certificates[i]
			c.Revoked = earliest(c.Revoked, by(c))
		}
		return h
	}
	out.agencies, out.sorted = make(map[string]*Agency, len(d.agencies)), make([]*Agency, len(d.sorted))
	for i, a := range d.sorted {
		one := *a
		one.Holder = again(a.Holder)
		out.agencies[a.Code], out.sorted[i] = &one, &one
	}
	out.nodes = make(map[string]*Node, len(d.nodes))
	for id, n := range d.nodes {
		one := *n
		one.Holder = again(n.Holder)
		out.nodes[id] = &one
	}
	out.administrators = make([]*Administrator, len(d.administrators))
	for i, a := range d.administrators {
		one := *a
		one.Holder = again(a.Holder)
		out.administrators[i] = &one
	}
	out.tsas = make([]*TSA, len(d.tsas))
	for i, t := range d.tsas {
		one := *t
		one.Certificate.Revoked = earliest(one.Certificate.Revoked, by(&one.Certificate))
		out.tsas[i] = &one
	}
	return &out
}
