package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"path/filepath"
	"time"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// Lifetimes of what the authority signs.
const (
	authorityYears = 20
	holderYears    = 5
	nextUpdate     = 30 * 24 * time.Hour
	clockSkew      = time.Hour // certificates begin this much earlier
)

// Files in an authority's directory.
const (
	authorityFile = "authority.crt"
	keysDir       = "keys"
	entriesDir    = "entries"
	directoryName = "directory.yzd"
)

// Authority issues a domain's certificates and publishes its directory. Its
// directory on disk is used by one process at a time.
type Authority struct {
	dir    string
	domain string
	keys   *keystore.Store
	rand   io.Reader
	cert   *smx509.Certificate
	chain  *chain
	former [][]byte // its certificates before this one, DER
	above  *uint64  // see NumberAbove
}

// InitAuthority makes a new authority for a domain in dir. The certificate is
// written last: a directory without it was left by a crash, and holds nothing
// that was ever used.
func InitAuthority(dir, domain string, passphrase []byte, rand io.Reader, now time.Time) (*Authority, error) {
	return InitAuthorityWith(dir, domain, func(keys string) (*keystore.Store, error) { return keystore.Create(keys, passphrase, rand) }, rand, now)
}

// InitAuthorityWith is InitAuthority with a keystore of another mode, which
// create makes in the directory it is given.
func InitAuthorityWith(dir, domain string, create func(keys string) (*keystore.Store, error), rand io.Reader, now time.Time) (*Authority, error) {
	if err := checkDomain(domain); err != nil {
		return nil, err
	}
	keys, err := create(filepath.Join(dir, keysDir))
	if err != nil {
		return nil, err
	}
	if err := durable.OS.MkdirAll(filepath.Join(dir, entriesDir)); err != nil {
		return nil, err
	}
	pub, err := keys.Generate()
	if err != nil {
		return nil, err
	}
	a := &Authority{dir: dir, domain: domain, keys: keys, rand: rand}
	template := &smx509.Certificate{
		Subject:   pkix.Name{CommonName: domain, Organization: []string{domain}},
		NotBefore: now.Add(-clockSkew), NotAfter: now.AddDate(authorityYears, 0, 0),
		KeyUsage: smx509.KeyUsageCertSign | smx509.KeyUsageCRLSign | smx509.KeyUsageDigitalSignature,
		IsCA:     true, BasicConstraintsValid: true,
	}
	der, err := a.issue(template, template, pub, sm.KeyID(pub))
	if err != nil {
		return nil, err
	}
	if err := a.adopt(der); err != nil {
		return nil, err
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := durable.WriteFile(durable.OS, filepath.Join(dir, authorityFile), b); err != nil {
		return nil, err
	}
	return a, nil
}

// OpenAuthority opens an authority's directory.
func OpenAuthority(dir string, passphrase []byte, rand io.Reader) (*Authority, error) {
	return OpenAuthorityWith(dir, func(keys string) (*keystore.Store, error) { return keystore.Open(keys, passphrase, rand) }, rand)
}

// OpenAuthorityWith is OpenAuthority with a keystore of another mode, which
// open opens in the directory it is given.
func OpenAuthorityWith(dir string, open func(keys string) (*keystore.Store, error), rand io.Reader) (*Authority, error) {
	der, err := ReadCertificate(filepath.Join(dir, authorityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("certs: %s holds no authority, or one whose making was interrupted: make one in an empty directory: %w", dir, err)
	}
	if err != nil {
		return nil, err
	}
	keys, err := open(filepath.Join(dir, keysDir))
	if err != nil {
		return nil, err
	}
	a := &Authority{dir: dir, keys: keys, rand: rand}
	if err := a.adopt(der); err != nil {
		return nil, err
	}
	a.domain = a.cert.Subject.CommonName
	if err := a.listFormer(); err != nil {
		return nil, err
	}
	if !keys.Has(a.keyID()) {
		return nil, fail(codeChain, "the keystore does not hold the key of %s: both must be of one authority", authorityFile)
	}
	return a, nil
}

// ReadAuthority opens an authority's directory without its keys: to look at
// what would be published, and to approve it.
func ReadAuthority(dir string) (*Authority, error) {
	der, err := ReadCertificate(filepath.Join(dir, authorityFile))
	if err != nil {
		return nil, err
	}
	a := &Authority{dir: dir}
	if err := a.adopt(der); err != nil {
		return nil, err
	}
	a.domain = a.cert.Subject.CommonName
	_, err = a.succession()
	return a, err
}

// adopt takes the authority's own certificate.
func (a *Authority) adopt(der []byte) (err error) {
	if a.chain, err = newChain(der); err != nil {
		return err
	}
	a.cert = a.chain.authority
	return nil
}

const maxCertificateFile = 64 << 10 // bytes

// ReadCertificate reads one certificate from a PEM file and gives its DER.
func ReadCertificate(path string) ([]byte, error) {
	b, err := durable.ReadFile(durable.OS, path, maxCertificateFile)
	if err != nil {
		return nil, err
	}
	return parseCertificate(b, filepath.Base(path))
}

func parseCertificate(b []byte, name string) ([]byte, error) {
	block, rest := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fail(codeChain, "%s does not hold exactly one PEM certificate", name)
	}
	return block.Bytes, nil
}

// Certificate is the authority's certificate, DER.
func (a *Authority) Certificate() []byte { return a.cert.Raw }

// Domain is the trust domain's name.
func (a *Authority) Domain() string { return a.domain }

// issue signs a certificate with the authority's key and gives its DER.
func (a *Authority) issue(template, parent *smx509.Certificate, pub *ecdsa.PublicKey, by sm.Digest) ([]byte, error) {
	serial := make([]byte, 16)
	if _, err := io.ReadFull(a.rand, serial); err != nil {
		return nil, err
	}
	serial[0] = serial[0]&0x7f | 0x40 // positive, and always of 16 bytes
	template.SerialNumber = new(big.Int).SetBytes(serial)
	signer, err := a.keys.Signer(by)
	if err != nil {
		return nil, err
	}
	der, err := smx509.CreateCertificate(a.rand, template, parent, pub, signer)
	if err != nil {
		return nil, fmt.Errorf("certs: issue: %w", err)
	}
	return der, nil
}

func (a *Authority) keyID() sm.Digest { return sm.KeyID(a.cert.PublicKey.(*ecdsa.PublicKey)) }

// certify issues one certificate, valid no longer than the authority's.
func (a *Authority) certify(name string, pub *ecdsa.PublicKey, usage smx509.KeyUsage, now time.Time) ([]byte, error) {
	template, err := a.template(name, usage, now)
	if err != nil {
		return nil, err
	}
	return a.issue(template, a.cert, pub, a.keyID())
}

func (a *Authority) template(name string, usage smx509.KeyUsage, now time.Time) (*smx509.Certificate, error) {
	from, until := now.Add(-clockSkew), now.AddDate(holderYears, 0, 0)
	if from.Before(a.cert.NotBefore) {
		from = a.cert.NotBefore
	}
	if until.After(a.cert.NotAfter) {
		until = a.cert.NotAfter
	}
	if now.Before(a.cert.NotBefore) || !from.Before(until) {
		return nil, fail(codeExpired, "the authority's own certificate is valid %s to %s: check the clock, or make its successor", day(a.cert.NotBefore), day(a.cert.NotAfter))
	}
	return &smx509.Certificate{
		Subject:   pkix.Name{CommonName: name, Organization: []string{a.domain}},
		NotBefore: from, NotAfter: until, KeyUsage: usage, BasicConstraintsValid: true,
	}, nil
}

func nodeFile(id string) string     { return "node-" + id }
func agencyFile(code string) string { return "agency-" + code }
func linkFile(id string) string     { return "link-" + id }

// AddLink notes a link for the next publication, replacing one of the same id;
// an empty id is made of the two nodes. Its nodes were admitted before.
func (a *Authority) AddLink(l Link) error {
	if l.ID == "" {
		l.ID = l.A + "-" + l.B
	}
	if !linkForm.MatchString(l.ID) {
		return fail(codeRequest, "a link's id is 1 to 64 of a-z, 0-9 and -, not beginning with -")
	}
	if l.Kind != "https" && l.Kind != "ferry" {
		return fail(codeRequest, "link %s is of kind %.20q: there are https and ferry", l.ID, l.Kind)
	}
	if l.A == l.B || l.Dialer != l.A && l.Dialer != l.B {
		return fail(codeRequest, "link %s joins two nodes, and one of them dials", l.ID)
	}
	if why := l.oneWayFault(); why != "" {
		return fail(codeRequest, "link %s: %s", l.ID, why)
	}
	if err := a.admitted(l.A, l.B); err != nil {
		return err
	}
	entry := &linkEntry{
		Type: linkType, V: 1, Domain: a.domain, ID: l.ID, A: l.A, B: l.B, Dialer: l.Dialer, Kind: l.Kind, Ceiling: l.Ceiling, OneWay: l.OneWay,
	}
	if l.OneWay != "" {
		entry.Crit = []string{"oneway"}
	}
	return a.putEntry(linkFile(l.ID), entry)
}

// AddRoute notes that what is for agencies of node to goes from node from to
// its neighbour next. "*" as to stands for all nodes to which no link and no
// other route leads.
func (a *Authority) AddRoute(from, to, next string) error {
	file := routeFile(from, to)
	if to == anywhere {
		if err := a.admitted(from, next); err != nil {
			return err
		}
	} else if err := a.admitted(from, to, next); err != nil {
		return err
	}
	if from == to || from == next {
		return fail(codeRequest, "a route leads from a node over a neighbour to another node")
	}
	return a.putEntry(file, &routeEntry{Type: routeType, V: 1, Domain: a.domain, From: from, To: to, Next: next})
}

func routeFile(from, to string) string {
	if to == anywhere {
		to = "anywhere_"
	}
	return "route-" + from + "_" + to
}

// admitted checks that these are nodes with an entry.
func (a *Authority) admitted(nodes ...string) error {
	for _, id := range nodes {
		if !nameForm.MatchString(id) {
			return fail(codeRequest, "%.40q is no node's id", id)
		}
		var had nodeEntry
		if err := a.entry(nodeFile(id), &had); err != nil {
			return err
		}
		if had.ID == "" {
			return fail(codeRequest, "node %s was not admitted: admit it first", id)
		}
	}
	return nil
}

// entry reads an entry; an absent one leaves into as it is.
func (a *Authority) entry(name string, into any) error {
	b, err := durable.ReadFile(durable.OS, a.entryPath(name), maxEntry)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = strictjson.Unmarshal(b, into)
	}
	if err != nil {
		return &Error{Code: codeContent, Detail: "entry " + name, Err: err}
	}
	return nil
}

func (a *Authority) entryPath(name string) string {
	return filepath.Join(a.dir, entriesDir, name+".json")
}

func (a *Authority) putEntry(name string, entry any) error {
	b, err := strictjson.Marshal(entry)
	if err != nil {
		return err
	}
	return durable.WriteFile(durable.OS, a.entryPath(name), b)
}
