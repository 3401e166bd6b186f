package certs

import (
	"bytes"
	"math/big"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// Where a revocation is known from besides the directory.
const (
	SourceCRL  = "CRL"  // a revocation list of the certificate's issuer
	SourceOCSP = "OCSP" // an answer of that issuer's responder
)

// WithCRLs gives a copy of the directory in which certificates are revoked,
// too, that the lists of their issuers name; of several revocations the
// earliest counts. A list speaks of what the very certificate issued that it
// was verified with, and of nothing else. So all judging goes through the
// directory, and whoever has the lists comes to the same result offline.
func (d *Directory) WithCRLs(list []*CRL) *Directory {
	by := map[sm.Digest][]*CRL{}
	for _, c := range list {
		id := sm.Sum(c.Issuer)
		by[id] = append(by[id], c)
	}
	return d.revoke(func(c *Certificate) *Revocation {
		serial, ok := new(big.Int).SetString(c.Serial, 16)
		if !ok {
			return nil
		}
		if c.Issuer.IsZero() { // a timestamp authority is trusted by itself
			return foundBy(list, c.DER, serial)
		}
		var first *Revocation
		for _, crl := range by[c.Issuer] {
			first = earlier(first, crl.revocation(serial))
		}
		return first
	})
}

// revocation is what the list says of a serial number; nil is nothing.
func (c *CRL) revocation(serial *big.Int) *Revocation {
	r, ok := c.Find(serial)
	if !ok {
		return nil
	}
	return &Revocation{Effective: r.Effective, Reason: r.Reason, Source: c.source}
}

// foundBy looks for a certificate of which it is not known who issued it. That
// is verified for the serial numbers that a list names, and those are few.
func foundBy(list []*CRL, der []byte, serial *big.Int) *Revocation {
	var first *Revocation
	for _, crl := range list {
		r := crl.revocation(serial)
		if r == nil {
			continue
		}
		issuer, err := smx509.ParseCertificate(crl.Issuer)
		if err != nil {
			continue
		}
		cert, err := smx509.ParseCertificate(der)
		if err == nil && bytes.Equal(cert.RawIssuer, issuer.RawSubject) && cert.CheckSignatureFrom(issuer) == nil {
			first = earlier(first, r)
		}
	}
	return first
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
