package certs

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/pem"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// Bounds of a file with certificates.
const (
	MaxCertificateFile = 1 << 20 // bytes
	maxChain           = 16      // certificates
)

// ParseCertificates reads a file with certificates as authorities hand them
// out: one in DER, or one or several in PEM, with explanatory text between
// them or without. Gives the DER of each, in the order of the file; nothing is
// said about their trust. A file that holds anything else, a private key for
// instance, is refused.
func ParseCertificates(b []byte) ([][]byte, error) {
	if len(b) > MaxCertificateFile {
		return nil, fail(codeChain, "certificate file: %d bytes, at most %d are possible", len(b), MaxCertificateFile)
	}
	if !looksLikePEM(b) {
		return readable([][]byte{b})
	}
	var list [][]byte
	for looksLikePEM(b) {
		block, rest := pem.Decode(b)
		if block == nil {
			return nil, fail(codeChain, "certificate file: a PEM block is damaged")
		}
		if block.Type != "CERTIFICATE" || len(block.Headers) > 0 {
			return nil, fail(codeChain, "certificate file: it holds a PEM block %.40q, and not certificates alone", block.Type)
		}
		// The decoder skips a damaged block to find a whole one.
		if before := b[:len(b)-len(rest)]; bytes.Count(before, []byte("-----BEGIN ")) != 1 {
			return nil, fail(codeChain, "certificate file: a PEM block is damaged")
		}
		if len(list) == maxChain {
			return nil, fail(codeChain, "certificate file: more than %d certificates", maxChain)
		}
		list = append(list, block.Bytes)
		b = rest
	}
	return readable(list)
}

func readable(list [][]byte) ([][]byte, error) {
	for i, der := range list {
		if _, err := smx509.ParseCertificate(der); err != nil {
			return nil, &Error{Code: codeChain, Detail: "certificate file: a certificate cannot be read", Err: err}
		}
		list[i] = bytes.Clone(der)
	}
	return list, nil
}

// VerifyUse reads a certificate (DER) and checks that an issuer (DER), trusted
// by other means, issued it directly, and that its key usage is that of the
// use. Whether it is valid now is for the caller.
func VerifyUse(use string, der, issuer []byte) (*Certificate, error) {
	c, err := newChain(issuer)
	if err != nil {
		return nil, err
	}
	return c.verify(use, der)
}

// certificateOf describes a certificate with an SM2 key.
func certificateOf(use string, cert *smx509.Certificate) Certificate {
	return Certificate{
		Use: use, DER: cert.Raw, KeyID: sm.KeyID(cert.PublicKey.(*ecdsa.PublicKey)), Serial: serialOf(cert),
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
	}
}

// Describe reads a certificate (DER) with an SM2 key, without judging it.
func Describe(der []byte) (*Certificate, error) {
	cert, err := smx509.ParseCertificate(der)
	if err != nil {
		return nil, &Error{Code: codeChain, Detail: "a certificate cannot be read", Err: err}
	}
	if !isSM2(cert) {
		return nil, fail(codeUsage, "certificate %s is not SM2 with SM3", cert.SerialNumber)
	}
	use := UseSign
	if cert.KeyUsage&encryptUsage != 0 {
		use = UseEncrypt
	}
	c := certificateOf(use, cert)
	return &c, nil
}

// DescribeFor reads a certificate (DER) and checks that it is SM2 and that its
// key usage is that of a use. Who issued it is not judged.
func DescribeFor(use string, der []byte) (*Certificate, error) {
	c, err := Describe(der)
	if err != nil {
		return nil, err
	}
	cert, err := smx509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return c, checkUsage(use, cert)
}
