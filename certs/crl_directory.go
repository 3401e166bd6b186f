package certs

import (
	"bytes"
	"maps"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// Where a revocation is known from besides the directory.
const (
	SourceCRL  = "CRL"  // a revocation list of the certificate's issuer
	SourceOCSP = "OCSP" // an answer of that issuer's responder
)

// WithCRLs gives a copy of the directory in which certificates are revoked,
// too, that the lists of their issuers name, or whose issuer's certificate a
// list names; of several revocations the earliest counts. A list speaks of what
// the issuer issued by whose certificate it was verified, and of nothing else.
// So all judging goes through the directory, and whoever has the lists comes to
// the same result offline.
func (d *Directory) WithCRLs(list []*CRL) *Directory {
	known := listsOf(list)
	ended := d.endings(known, d.authorities())
	out := d.revoke(func(c *Certificate) *Revocation { return earliest(ended[c.Issuer], known.find(c)) })
	out.ended = ended
	out.issuers = make([]*Issuer, len(d.issuers))
	for i, had := range d.issuers {
		one := *had
		one.Revoked = earliest(one.Revoked, known.of(one.DER))
		out.issuers[i] = &one
	}
	return out
}

// authorities lists the certificates (DER) of the authority and the issuers.
func (d *Directory) authorities() [][]byte {
	out := [][]byte{d.authority}
	for _, i := range d.issuers {
		out = append(out, i.DER)
	}
	return out
}

// endings gives what ends everything that an issuer issued: the revocations of
// this directory, and those of the lists, of the issuers' certificates. It
// looks at given certificates (DER), besides the directory's own issuers,
// because a revocation may be of one that the directory does not name.
func (d *Directory) endings(known *lists, issuers [][]byte) map[IssuerID]*Revocation {
	out := maps.Clone(d.ended)
	for _, der := range issuers {
		id, err := IssuerOf(der)
		if err != nil {
			continue
		}
		if r := earliest(d.revoked[sm.Sum(der)], known.of(der)); r != nil {
			by := *r
			by.Source = SourceIssuer
			out[id] = earliest(out[id], &by)
		}
	}
	return out
}

// lists are revocation lists by who issued them.
type lists struct {
	all []*CRL
	by  map[IssuerID][]*CRL
}

func listsOf(list []*CRL) *lists {
	l := &lists{list, map[IssuerID][]*CRL{}}
	for _, c := range list {
		l.by[c.by] = append(l.by[c.by], c)
	}
	return l
}

// find says what the lists say of a directory's certificate; nil is nothing.
func (l *lists) find(c *Certificate) (first *Revocation) {
	if len(l.all) == 0 {
		return nil
	}
	if c.Issuer == (IssuerID{}) { // a timestamp authority is trusted by itself
		return l.of(c.DER)
	}
	serial, ok := c.serial()
	if !ok {
		return nil
	}
	for _, crl := range l.by[c.Issuer] {
		first = earliest(first, crl.revocation(serial))
	}
	return first
}

// of is for a certificate of which it is not known who issued it: an issuer's,
// a timestamp authority's, a responder's. That is verified for the serial
// numbers that a list names, and those are few.
func (l *lists) of(der []byte) (first *Revocation) {
	if len(l.all) == 0 {
		return nil
	}
	cert, err := smx509.ParseCertificate(der)
	if err != nil {
		return nil
	}
	for _, crl := range l.all {
		r := crl.revocation(cert.SerialNumber)
		if r == nil {
			continue
		}
		issuer, err := smx509.ParseCertificate(crl.Issuer)
		if err == nil && issuedBy(cert, issuer) {
			first = earliest(first, r)
		}
	}
	return first
}

// RevocationOf gives what the directory and revocation lists say of a
// certificate (DER) that the directory need not name; nil is nothing.
func (d *Directory) RevocationOf(der []byte, list []*CRL) *Revocation {
	return earliest(d.revoked[sm.Sum(der)], listsOf(list).of(der))
}

// issuedBy asks for the name and the key: a name alone proves nothing.
func issuedBy(cert, issuer *smx509.Certificate) bool {
	return bytes.Equal(cert.RawIssuer, issuer.RawSubject) && cert.CheckSignatureFrom(issuer) == nil
}

// AllCertificates lists the certificates of agencies, nodes, administrators
// and timestamp authorities.
func (d *Directory) AllCertificates() []Certificate {
	var out []Certificate
	for _, a := range d.sorted {
		out = append(out, a.Certificates...)
	}
	for _, n := range d.nodes {
		out = append(out, n.Certificates...)
	}
	for _, a := range d.administrators {
		out = append(out, a.Certificates...)
	}
	for _, t := range d.tsas {
		out = append(out, t.Certificate)
	}
	return out
}
