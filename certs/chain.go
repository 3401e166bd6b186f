package certs

import (
	"crypto/ecdsa"
	"fmt"
	"slices"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// The key usages of the two halves of a dual certificate.
const (
	signUsage    = smx509.KeyUsageDigitalSignature | smx509.KeyUsageContentCommitment
	encryptUsage = smx509.KeyUsageKeyEncipherment | smx509.KeyUsageDataEncipherment
)

// chain verifies certificates under one authority and the issuers that its
// directory names besides.
type chain struct {
	authority *smx509.Certificate
	roots     *smx509.CertPool
	issuers   map[sm.Digest]*smx509.Certificate // by the SM3 of the DER, the authority among them
}

// IssuerID names who issues: the SM3 of a CA's subject and its public key. Two
// with one name are two, as anybody can give himself a name; two certificates
// of one name and one key are one, as nothing that the key signs tells them
// apart.
type IssuerID sm.Digest

// String gives it in hex.
func (i IssuerID) String() string { return sm.Digest(i).String() }

// IssuerOf gives the name of the issuer that a CA's certificate (DER) is of.
func IssuerOf(der []byte) (IssuerID, error) {
	cert, err := readCA(der, "an issuer's certificate")
	if err != nil {
		return IssuerID{}, err
	}
	return issuerID(cert), nil
}

// issuerID is for a certificate that readCA gave. The subject is DER, which
// says itself where it ends.
func issuerID(ca *smx509.Certificate) IssuerID {
	key := sm.PublicKeyBytes(ca.PublicKey.(*ecdsa.PublicKey))
	return IssuerID(sm.Sum(append(slices.Clone(ca.RawSubject), key...)))
}

// newChain reads the authority's certificate, which was trusted by other
// means: a CA with an SM2 key.
func newChain(der []byte) (*chain, error) {
	cert, err := readCA(der, "the authority's certificate")
	if err != nil {
		return nil, err
	}
	c := &chain{authority: cert, roots: smx509.NewCertPool(), issuers: map[sm.Digest]*smx509.Certificate{}}
	c.add(cert, sm.Sum(der))
	return c, nil
}

// add lets the certificates count that a CA issues.
func (c *chain) add(cert *smx509.Certificate, id sm.Digest) {
	c.roots.AddCert(cert)
	c.issuers[id] = cert
}

// readCA reads the certificate of a CA with an SM2 key.
func readCA(der []byte, what string) (*smx509.Certificate, error) {
	cert, err := smx509.ParseCertificate(der)
	if err != nil {
		return nil, &Error{Code: codeChain, Detail: what + " cannot be read", Err: err}
	}
	if !isSM2(cert) || !cert.BasicConstraintsValid || !cert.IsCA || cert.KeyUsage&smx509.KeyUsageCertSign == 0 {
		return nil, fail(codeUsage, "certificate %s is not one of an authority (a CA with an SM2 key)", cert.SerialNumber)
	}
	return cert, nil
}

func isSM2(cert *smx509.Certificate) bool {
	pub, ok := cert.PublicKey.(*ecdsa.PublicKey)
	return ok && pub.Curve == sm.Curve() && cert.SignatureAlgorithm == smx509.SM2WithSM3
}

// verify reads a certificate declared for a use: its key is SM2, its key usage
// fits, and the authority or a named issuer issued it, with nothing in
// between. It is judged at the beginning of its own validity: whether it is valid now is asked when it is used, and an old
// directory must verify for ever.
func (c *chain) verify(use string, der []byte) (*Certificate, error) {
	cert, err := smx509.ParseCertificate(der)
	if err != nil {
		return nil, &Error{Code: codeChain, Detail: "a certificate cannot be read", Err: err}
	}
	if !isSM2(cert) {
		return nil, fail(codeUsage, "certificate %s is not SM2 with SM3", cert.SerialNumber)
	}
	if err := checkUsage(use, cert); err != nil {
		return nil, err
	}
	if !cert.NotBefore.Before(cert.NotAfter) {
		return nil, fail(codeExpired, "certificate %s is never valid", cert.SerialNumber)
	}
	chains, err := cert.Verify(smx509.VerifyOptions{
		Roots: c.roots, Intermediates: smx509.NewCertPool(), CurrentTime: cert.NotBefore,
		KeyUsages: []smx509.ExtKeyUsage{smx509.ExtKeyUsageAny}, // the default is serverAuth
	})
	if err != nil {
		return nil, &Error{Code: codeChain, Detail: fmt.Sprintf("certificate %s is not one that the authority or an issuer in its directory issued", cert.SerialNumber), Err: err}
	}
	id := sm.KeyID(cert.PublicKey.(*ecdsa.PublicKey))
	return &Certificate{
		Use: use, DER: der, KeyID: id, Issuer: issuerID(chains[0][len(chains[0])-1]), Serial: serialOf(cert),
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
	}, nil
}

// checkUsage refuses a certificate whose key usage is not that of its declared
// use, and one that could serve for both.
func checkUsage(use string, cert *smx509.Certificate) error {
	if cert.IsCA || cert.KeyUsage&(smx509.KeyUsageCertSign|smx509.KeyUsageCRLSign) != 0 {
		return fail(codeUsage, "certificate %s is one of an authority", cert.SerialNumber)
	}
	signs := cert.KeyUsage&smx509.KeyUsageDigitalSignature != 0
	encrypts := cert.KeyUsage&encryptUsage != 0
	switch {
	case use != UseSign && use != UseEncrypt:
		return fail(codeUsage, "certificate %s is declared for %.20q: there are sign and encrypt", cert.SerialNumber, use)
	case cert.KeyUsage&signUsage != 0 && cert.KeyUsage&(encryptUsage|smx509.KeyUsageKeyAgreement) != 0:
		return fail(codeUsage, "certificate %s is for signing and encrypting both: dual certificates keep them apart", cert.SerialNumber)
	case use == UseSign && !signs && encrypts:
		return fail(codeUsage, "certificate %s is declared for sign and is an encryption certificate: were the two swapped?", cert.SerialNumber)
	case use == UseEncrypt && !encrypts && signs:
		return fail(codeUsage, "certificate %s is declared for encrypt and is a signing certificate: were the two swapped?", cert.SerialNumber)
	case use == UseSign && !signs || use == UseEncrypt && !encrypts:
		return fail(codeUsage, "certificate %s lacks the key usage to %s with", cert.SerialNumber, use)
	}
	return nil
}

// read verifies the certificates of an entry and sorts them newest first.
func (c *chain) read(list []certEntry) ([]Certificate, error) {
	if len(list) > maxCertificates {
		return nil, fail(codeContent, "more than %d certificates", maxCertificates)
	}
	var out []Certificate
	for _, e := range list {
		one, err := c.verify(e.Use, e.Cert)
		if err != nil {
			return nil, err
		}
		out = append(out, *one)
	}
	slices.SortStableFunc(out, func(a, b Certificate) int {
		if n := b.NotBefore.Compare(a.NotBefore); n != 0 {
			return n
		}
		return b.NotAfter.Compare(a.NotAfter)
	})
	return out, nil
}
