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
	"slices"
	"strings"
	"time"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
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
	keys   *keystore.File
	rand   io.Reader
	cert   *smx509.Certificate
}

// InitAuthority makes a new authority for a domain in dir.
func InitAuthority(dir, domain string, passphrase []byte, rand io.Reader, now time.Time) (*Authority, error) {
	if domain == "" || len(domain) > 128 {
		return nil, fail("request_content", "a domain's name has 1 to 128 bytes")
	}
	keys, err := keystore.Create(filepath.Join(dir, keysDir), passphrase, rand)
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
	if a.cert, err = a.issue(template, template, pub, sm.KeyID(pub)); err != nil {
		return nil, err
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
	return a, durable.WriteFile(durable.OS, filepath.Join(dir, authorityFile), b)
}

// OpenAuthority opens an authority's directory.
func OpenAuthority(dir string, passphrase []byte, rand io.Reader) (*Authority, error) {
	keys, err := keystore.Open(filepath.Join(dir, keysDir), passphrase, rand)
	if err != nil {
		return nil, err
	}
	der, err := ReadCertificate(filepath.Join(dir, authorityFile))
	if err != nil {
		return nil, err
	}
	cert, err := smx509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &Authority{dir: dir, domain: cert.Subject.CommonName, keys: keys, rand: rand, cert: cert}, nil
}

// ReadCertificate reads one certificate from a PEM file and gives its DER.
func ReadCertificate(path string) ([]byte, error) {
	b, err := durable.ReadFile(durable.OS, path, 64<<10)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fail("certificate_chain", "%s does not hold exactly one PEM certificate", filepath.Base(path))
	}
	return block.Bytes, nil
}

// Certificate is the authority's certificate, DER.
func (a *Authority) Certificate() []byte { return a.cert.Raw }

// Domain is the trust domain's name.
func (a *Authority) Domain() string { return a.domain }

// issue signs a certificate with the authority's key.
func (a *Authority) issue(template, parent *smx509.Certificate, pub *ecdsa.PublicKey, by sm.Digest) (*smx509.Certificate, error) {
	serial := make([]byte, 16)
	if _, err := io.ReadFull(a.rand, serial); err != nil {
		return nil, err
	}
	serial[0] &= 0x7f
	template.SerialNumber = new(big.Int).SetBytes(serial)
	signer, err := a.keys.Signer(by)
	if err != nil {
		return nil, err
	}
	der, err := smx509.CreateCertificate(a.rand, template, parent, pub, signer)
	if err != nil {
		return nil, fmt.Errorf("certs: issue: %w", err)
	}
	return smx509.ParseCertificate(der)
}

func (a *Authority) keyID() sm.Digest { return sm.KeyID(a.cert.PublicKey.(*ecdsa.PublicKey)) }

// dual issues the two certificates of one holder.
func (a *Authority) dual(name string, keys dualKey, now time.Time) ([]certEntry, error) {
	var out []certEntry
	for _, half := range []struct {
		use   string
		key   []byte
		usage smx509.KeyUsage
	}{{UseSign, keys.Sign, signUsage}, {UseEncrypt, keys.Encrypt, encryptUsage}} {
		pub, err := sm.ParsePublicKey(half.key)
		if err != nil {
			return nil, err
		}
		cert, err := a.issue(&smx509.Certificate{
			Subject:   pkix.Name{CommonName: name, Organization: []string{a.domain}},
			NotBefore: now.Add(-clockSkew), NotAfter: now.AddDate(holderYears, 0, 0),
			KeyUsage: half.usage, BasicConstraintsValid: true,
		}, a.cert, pub, a.keyID())
		if err != nil {
			return nil, err
		}
		out = append(out, certEntry{Use: half.use, Cert: cert.Raw})
	}
	return out, nil
}

// Admit issues certificates for a node and its agencies and notes their
// entries for the next publication. An entry of the same name is replaced.
func (a *Authority) Admit(r *Request, now time.Time) error {
	if r.Domain != a.domain {
		return fail("request_content", "the request is for domain %.128q, this is the authority of %.128q", r.Domain, a.domain)
	}
	certificates, err := a.dual(r.Node, r.Keys, now)
	if err != nil {
		return err
	}
	node := &nodeEntry{
		Type: nodeType, V: 1, Domain: a.domain, ID: r.Node, Zone: r.Zone, URL: r.URL, TLSPin: r.TLSPin, Certs: certificates,
	}
	if err := a.putEntry("node-"+r.Node, node); err != nil {
		return err
	}
	for _, g := range r.Agencies {
		if certificates, err = a.dual(g.Code, g.Keys, now); err != nil {
			return err
		}
		agency := &agencyEntry{
			Type: agencyType, V: 1, Domain: a.domain, Code: g.Code, Name: g.Name, Aliases: g.Aliases, Node: r.Node, Certs: certificates,
		}
		if err := a.putEntry("agency-"+g.Code, agency); err != nil {
			return err
		}
	}
	return nil
}

// AddLink notes a link for the next publication; an empty id is made of the
// two nodes.
func (a *Authority) AddLink(l Link) error {
	if l.ID == "" {
		l.ID = l.A + "-" + l.B
	}
	if !linkForm.MatchString(l.ID) {
		return fail("request_content", "a link's name is 1 to 64 of a-z, 0-9 and -, not beginning with -")
	}
	return a.putEntry("link-"+l.ID, &linkEntry{
		Type: linkType, V: 1, Domain: a.domain, ID: l.ID, A: l.A, B: l.B, Dialer: l.Dialer, Kind: l.Kind, Ceiling: l.Ceiling,
	})
}

// AddRoute notes that what is for agencies of node to goes from node from to
// its neighbour next.
func (a *Authority) AddRoute(from, to, next string) error {
	for _, name := range []string{from, to, next} {
		if !nameForm.MatchString(name) {
			return fail("request_content", "a route names nodes")
		}
	}
	return a.putEntry("route-"+from+"-to-"+to, &routeEntry{Type: routeType, V: 1, Domain: a.domain, From: from, To: to, Next: next})
}

func (a *Authority) putEntry(name string, entry any) error {
	b, err := strictjson.Marshal(entry)
	if err != nil {
		return err
	}
	return durable.WriteFile(durable.OS, filepath.Join(a.dir, entriesDir, name+".json"), b)
}

// Publish signs the next version of the directory over all entries, verifies
// it as a node would, and gives the directory file. A crash before its
// WriteFile returns leaves the version unpublished or published, never torn.
func (a *Authority) Publish(now time.Time) ([]byte, error) {
	l := &list{
		Type: listType, V: 1, Domain: a.domain, Version: 1,
		Issued: strictjson.TimeOf(now), NextUpdate: strictjson.TimeOf(now.Add(nextUpdate)),
	}
	before, err := a.published()
	if err != nil {
		return nil, err
	}
	if before != nil {
		l.Version, l.Previous = before.Version()+1, before.id
	}
	f := &directoryFile{Type: fileType, V: 1}
	if f.Entries, err = a.entries(); err != nil {
		return nil, err
	}
	for _, e := range f.Entries {
		l.Entries = append(l.Entries, sm.Sum(e))
	}
	content, err := strictjson.Marshal(l)
	if err != nil {
		return nil, err
	}
	self := &Certificate{Use: UseSign, DER: a.cert.Raw, KeyID: a.keyID()}
	if f.List, err = cms.Sign(Signer(a.keys, self), content, now); err != nil {
		return nil, err
	}
	b, err := strictjson.Marshal(f)
	if err != nil {
		return nil, err
	}
	if _, err := LoadDirectory(b, a.cert.Raw, l.Version, now); err != nil {
		return nil, fmt.Errorf("certs: not published: %w", err)
	}
	return b, durable.WriteFile(durable.OS, filepath.Join(a.dir, directoryName), b)
}

func (a *Authority) published() (*Directory, error) {
	b, err := durable.ReadFile(durable.OS, filepath.Join(a.dir, directoryName), MaxDirectory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return LoadDirectory(b, a.cert.Raw, 0, time.Time{})
}

func (a *Authority) entries() ([]strictjson.Raw, error) {
	dir := filepath.Join(a.dir, entriesDir)
	names, err := durable.OS.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var out []strictjson.Raw
	for _, name := range names {
		if !strings.HasSuffix(name, ".json") {
			continue
		}
		b, err := durable.ReadFile(durable.OS, filepath.Join(dir, name), 1<<20)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}
