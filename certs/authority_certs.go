package certs

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"path/filepath"
	"slices"
	"time"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// Files in an authority's directory for what it revoked.
const (
	crlFile    = "authority.crl" // the last CRL, DER
	revokedDir = "revoked"       // the certificates that were revoked, PEM, by their SM3
)

// ocspLife is how long an answer of the authority may be used.
const ocspLife = time.Hour

// Purpose says for whom and for what a certificate is issued: exactly one of
// Agency, Node, Administrator and TSA.
type Purpose struct {
	Agency        string // code of an agency that was admitted
	Node          string // id of a node that was admitted
	Administrator string // id; a new one needs its Name
	TSA           bool   // a timestamp authority; URL may say where it answers
	Use           string // UseSign or UseEncrypt; only agencies and nodes encrypt
	Name          string
	URL           string
}

// Listed is a certificate with whose it is, as the authority's entries have it.
type Listed struct {
	Holder string // such as "agency CODE"
	Certificate
	Name string // of a person who approves; of others, that in the certificate
}

// Issue issues a certificate for a certification request, adds it to the entry
// of its holder for the next publication, and gives its DER. A key that has a
// valid certificate for this gets that same one: after a crash the request is
// made again, and what was done is not done twice. A certificate that is revoked
// is not given again, and a key that others may have gets none.
func (a *Authority) Issue(c *CSR, p Purpose, now time.Time) ([]byte, error) {
	if c.Use != "" && c.Use != p.Use {
		return nil, fail(codeUsage, "the request asks for a certificate to %s with, and not to %s with", c.Use, p.Use)
	}
	holder, err := p.holder()
	if err != nil {
		return nil, err
	}
	if err := a.unowned(c.KeyID, holder, p.Use); err != nil {
		return nil, err
	}
	b, err := a.book()
	if err != nil {
		return nil, err
	}
	if err := b.unstolen(holder, p.Use, c.KeyID); err != nil {
		return nil, err
	}
	switch {
	case p.TSA:
		return a.issueTSA(b, c, p, now)
	case p.Administrator != "":
		return a.issueAdministrator(b, c, p, now)
	case p.Node != "":
		var e nodeEntry
		if err := a.admitted(p.Node); err != nil {
			return nil, err
		}
		if err := a.entry(nodeFile(p.Node), &e); err != nil {
			return nil, err
		}
		return a.issueTo(nodeFile(p.Node), &e, &e.Certs, b, p.Node, c, p.Use, now)
	}
	var e agencyEntry
	if err := a.entry(agencyFile(p.Agency), &e); err != nil {
		return nil, err
	}
	if e.Code == "" {
		return nil, fail(codeRequest, "agency %s was not admitted: admit its node first", p.Agency)
	}
	return a.issueTo(agencyFile(p.Agency), &e, &e.Certs, b, p.Agency, c, p.Use, now)
}

// holder names whom the certificate is for, as Listed does.
func (p *Purpose) holder() (string, error) {
	if _, err := usageOf(p.Use); err != nil {
		return "", err
	}
	var list []string
	if p.Agency != "" {
		if _, err := ParseAgencyCode(p.Agency); err != nil {
			return "", err
		}
		list = append(list, "agency "+p.Agency)
	}
	if p.Node != "" {
		list = append(list, "node "+p.Node)
	}
	if p.Administrator != "" {
		list = append(list, "administrator "+p.Administrator)
	}
	if p.TSA {
		list = append(list, "timestamp authority")
	}
	if len(list) != 1 {
		return "", fail(codeRequest, "a certificate is for one agency, node, administrator or timestamp authority")
	}
	if (p.TSA || p.Administrator != "") && p.Use != UseSign {
		return "", fail(codeUsage, "%s only signs", list[0])
	}
	return list[0], nil
}

// unowned refuses a key that another holder has, or the same for another use:
// the directory would be refused.
func (a *Authority) unowned(key sm.Digest, holder, use string) error {
	list, err := a.Certificates()
	if err != nil {
		return err
	}
	for _, l := range list {
		if l.KeyID == key && (l.Holder != holder || l.Use != use) {
			return fail(codeRequest, "the key of this request is that of %s, to %s with: each holder and each use has its own", l.Holder, l.Use)
		}
	}
	if key == a.keyID() {
		return fail(codeRequest, "the key of this request is the authority's own")
	}
	return nil
}

// issueTo adds a certificate to the entry of a holder that lies in a file.
func (a *Authority) issueTo(file string, entry any, list *[]certEntry, b *book, name string, c *CSR, use string, now time.Time) ([]byte, error) {
	if had := b.standing(*list, use, c.KeyID, now); had != nil {
		return had.DER, nil
	}
	if err := roomFor(name, len(*list)+1); err != nil {
		return nil, err
	}
	usage, err := usageOf(use)
	if err != nil {
		return nil, err
	}
	der, err := a.certify(name, c.PublicKey, usage, now)
	if err != nil {
		return nil, err
	}
	*list = append([]certEntry{{Use: use, Cert: der}}, *list...)
	return der, a.putEntry(file, entry)
}

func (a *Authority) issueAdministrator(b *book, c *CSR, p Purpose, now time.Time) ([]byte, error) {
	e := administratorEntry{Type: administratorType, V: 1, Domain: a.domain, ID: p.Administrator, Name: p.Name}
	if !nameForm.MatchString(p.Administrator) {
		return nil, asRequest(e.check())
	}
	file := "administrator-" + p.Administrator
	if err := a.entry(file, &e); err != nil {
		return nil, err
	}
	if p.Name != "" {
		e.Name = p.Name
	}
	if err := e.check(); err != nil {
		return nil, asRequest(err)
	}
	return a.issueTo(file, &e, &e.Certs, b, p.Administrator, c, p.Use, now)
}

var (
	oidExtKeyUsage  = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidTimeStamping = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8}
)

// issueTSA issues the certificate of a timestamp authority: extended key usage
// timeStamping alone, and critical, as RFC 3161 has it. One that is revoked stays
// listed as such, and its key with it.
func (a *Authority) issueTSA(b *book, c *CSR, p Purpose, now time.Time) ([]byte, error) {
	_, e, err := a.tsaOf(func(have *TSA) bool { return have.Certificate.KeyID == c.KeyID })
	if err != nil {
		return nil, err
	}
	if err := b.tsaStands(e.Cert); err != nil {
		return nil, err
	}
	if cert, err := smx509.ParseCertificate(e.Cert); err == nil && now.Before(cert.NotAfter) {
		return e.Cert, nil
	}
	e.Type, e.V, e.Domain = tsaType, 1, a.domain
	if p.URL != "" {
		e.URL = p.URL
	}
	template, err := a.template("timestamp authority", signUsage, now)
	if err != nil {
		return nil, err
	}
	if c.Subject.CommonName != "" && isText(c.Subject.CommonName) {
		template.Subject.CommonName = c.Subject.CommonName
	}
	usage, err := asn1.Marshal([]asn1.ObjectIdentifier{oidTimeStamping})
	if err != nil {
		return nil, err
	}
	template.ExtraExtensions = []pkix.Extension{{Id: oidExtKeyUsage, Critical: true, Value: usage}}
	if e.Cert, err = a.issue(template, a.cert, c.PublicKey, a.keyID()); err != nil {
		return nil, err
	}
	if _, err := e.check(); err != nil {
		return nil, asRequest(err)
	}
	return e.Cert, a.putEntry(tsaFile(e.Cert), &e)
}

// Certificates lists the certificates of all entries, those of issuers among
// them, each with its revocation entry if there is one. Entries come by file
// name, the certificates of one as they stand in it.
func (a *Authority) Certificates() ([]Listed, error) {
	raw, err := a.entries()
	if err != nil {
		return nil, err
	}
	revoked := map[sm.Digest]*Revocation{}
	var out []Listed
	for _, b := range raw {
		h, err := readHolder(b, revoked)
		if err != nil {
			return nil, err
		}
		for _, e := range h.certs {
			cert, err := smx509.ParseCertificate(e.Cert)
			if err != nil || !isSM2(cert) {
				return nil, &Error{Code: codeChain, Detail: h.holder + ": a certificate cannot be read", Err: err}
			}
			one := Listed{h.holder, certificateOf(e.Use, cert), h.name}
			if one.Name == "" {
				one.Name = cert.Subject.CommonName
			}
			out = append(out, one)
		}
	}
	for i := range out {
		out[i].Revoked = revoked[sm.Sum(out[i].DER)]
	}
	return out, nil
}

// entryHolder is whose certificates an entry lists.
type entryHolder struct {
	holder, name string
	certs        []certEntry
}

// readHolder gives the certificates of one entry, or notes its revocation.
func readHolder(b strictjson.Raw, revoked map[sm.Digest]*Revocation) (h entryHolder, err error) {
	kind, err := kindOf(b)
	if err != nil {
		return h, err
	}
	switch kind {
	case agencyType:
		var e agencyEntry
		err = strictjson.Unmarshal(b, &e)
		return entryHolder{"agency " + e.Code, "", e.Certs}, err
	case nodeType:
		var e nodeEntry
		err = strictjson.Unmarshal(b, &e)
		return entryHolder{"node " + e.ID, "", e.Certs}, err
	case administratorType:
		var e administratorEntry
		err = strictjson.Unmarshal(b, &e)
		return entryHolder{"administrator " + e.ID, e.Name, e.Certs}, err
	case tsaType:
		var e tsaEntry
		err = strictjson.Unmarshal(b, &e)
		return entryHolder{"timestamp authority", "", []certEntry{{Use: UseSign, Cert: e.Cert}}}, err
	case issuerType:
		var e issuerEntry
		err = strictjson.Unmarshal(b, &e)
		return entryHolder{"issuer", "", []certEntry{{Use: UseSign, Cert: e.Cert}}}, err
	case revocationType:
		var e revocationEntry
		if err = strictjson.Unmarshal(b, &e); err == nil {
			revoked[e.Cert] = &Revocation{Effective: e.Effective.Time(), Reason: e.Reason, Source: SourceDirectory}
		}
	}
	return h, err
}

// revocations gives what the authority revoked of what its present key issued.
func (a *Authority) revocations() ([]RevokedSerial, error) {
	raw, err := a.entries()
	if err != nil {
		return nil, err
	}
	revoked := map[sm.Digest]*Revocation{}
	for _, b := range raw {
		if kind, err := kindOf(b); err != nil || kind != revocationType {
			continue
		}
		if _, err := readHolder(b, revoked); err != nil {
			return nil, err
		}
	}
	var out []RevokedSerial
	for id, r := range revoked {
		cert, err := a.revokedCertificate(id)
		if err != nil {
			return nil, err
		}
		if cert != nil && a.issued(cert.Raw) {
			out = append(out, RevokedSerial{cert.SerialNumber, r.Effective, r.Reason})
		}
	}
	slices.SortFunc(out, func(x, y RevokedSerial) int { return x.Serial.Cmp(y.Serial) })
	return out, nil
}

// issued says whether the authority's present key issued a certificate.
func (a *Authority) issued(der []byte) bool {
	cert, err := smx509.ParseCertificate(der)
	return err == nil && issuedBy(cert, a.cert)
}

// revokedCertificate gives a certificate that was revoked here; nil for one
// whose revocation entry was put there by hand.
func (a *Authority) revokedCertificate(id sm.Digest) (*smx509.Certificate, error) {
	der, err := ReadCertificate(filepath.Join(a.dir, revokedDir, id.String()+".crt"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	cert, err := smx509.ParseCertificate(der)
	if err != nil || sm.Sum(der) != id {
		return nil, &Error{Code: codeChain, Detail: "a revoked certificate is not the one its file is named after", Err: err}
	}
	return cert, nil
}

// CRL makes the authority's revocation list (DER) for those who use its
// certificates without its directory. Its number is one higher than the last
// one's; the list is durable before it is given, so that no number is used
// twice.
func (a *Authority) CRL(now time.Time) ([]byte, error) {
	path := filepath.Join(a.dir, crlFile)
	number := big.NewInt(1)
	before, err := durable.ReadFile(durable.OS, path, MaxCRL)
	if err == nil {
		had, err := lastCRL(before)
		if err != nil {
			return nil, err
		}
		number = new(big.Int).Add(had, number)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	list, err := a.revocations()
	if err != nil {
		return nil, err
	}
	now = now.UTC().Truncate(time.Second)
	der, err := NewCRL(a.cert.Raw, a.signBytes, number, now, now.Add(nextUpdate), list)
	if err != nil {
		return nil, err
	}
	return der, durable.WriteFile(durable.OS, path, der)
}

// lastCRL gives the number of the list that was made last, perhaps with a
// former key.
func lastCRL(der []byte) (*big.Int, error) {
	list, err := smx509.ParseRevocationList(der)
	if err != nil || list.Number == nil {
		return nil, &Error{Code: codeCRL, Detail: crlFile + " cannot be read: restore it, the next number depends on it", Err: err}
	}
	return list.Number, nil
}

func (a *Authority) signBytes(msg []byte) ([]byte, error) { return a.keys.Sign(a.keyID(), msg) }

// OCSP answers a request (DER) with the authority's own key. What it never
// issued, or no longer has an entry for, is unknown.
func (a *Authority) OCSP(request []byte, now time.Time) ([]byte, error) {
	q, err := ParseOCSPRequest(request)
	if err != nil {
		return OCSPRefusal(1)
	}
	now = now.UTC().Truncate(time.Second)
	answer := OCSPAnswer{Status: OCSPUnknown, ThisUpdate: now, NextUpdate: now.Add(ocspLife)}
	revoked, err := a.revocations()
	if err != nil {
		return nil, err
	}
	list, err := a.Certificates()
	if err != nil {
		return nil, err
	}
	serial := fmt.Sprintf("%x", q.Serial)
	if slices.ContainsFunc(list, func(l Listed) bool { return l.Serial == serial && a.issued(l.DER) }) {
		answer.Status = OCSPGood
	}
	for _, r := range revoked {
		// A revocation that counts from a later time on is told when it does.
		if r.Serial.Cmp(q.Serial) == 0 && !now.Before(r.Effective) {
			answer.Status, answer.Effective, answer.Reason = OCSPRevoked, r.Effective, r.Reason
		}
	}
	by := OCSPResponder{Issuer: a.cert.Raw, Sign: a.signBytes}
	return by.Answer(q, answer, now)
}
