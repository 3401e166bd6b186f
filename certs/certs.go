// Package certs is who is who: agency codes, the domain's authority with its
// dual SM2 certificates, and the signed [Directory] of agencies, nodes, links
// and routes that every node of a domain judges by (docs/spec/directory-v1.md).
package certs

import (
	"crypto/ecdsa"
	"crypto/subtle"
	"fmt"
	"time"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// Error is a refusal with a stable code: agency_code, certificate_expired,
// certificate_usage, certificate_chain, directory_rollback,
// directory_signature, directory_content, request_content, no_route.
type Error struct {
	Code   string
	Detail string
	Err    error
}

func (e *Error) Error() string {
	msg := e.Code + ": " + e.Detail
	if e.Err != nil {
		msg += ": " + e.Err.Error()
	}
	return msg
}

func (e *Error) Unwrap() error { return e.Err }

func fail(code, detail string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(detail, args...)}
}

// The uses of a dual certificate's halves.
const (
	UseSign    = "sign"
	UseEncrypt = "encrypt"
)

// Certificate is one SM2 certificate as the directory lists it.
type Certificate struct {
	Use       string
	DER       []byte
	KeyID     sm.Digest
	NotBefore time.Time
	NotAfter  time.Time
}

// PublicKey is the certificate's SM2 key.
func (c *Certificate) PublicKey() (*ecdsa.PublicKey, error) {
	cert, err := smx509.ParseCertificate(c.DER)
	if err != nil {
		return nil, err
	}
	pub, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return nil, fail("certificate_usage", "certificate %s has no SM2 key", cert.SerialNumber)
	}
	return pub, nil
}

// holder is what agencies and nodes share: certificates, newest first.
type holder struct {
	name         string
	Certificates []Certificate
}

// Current gives the newest certificate of a use that is valid at a time. The
// error says whether there is none of that use or none valid then.
func (h *holder) Current(use string, at time.Time) (*Certificate, error) {
	found := false
	for i := range h.Certificates {
		c := &h.Certificates[i]
		if c.Use != use {
			continue
		}
		found = true
		if !at.Before(c.NotBefore) && !at.After(c.NotAfter) {
			return c, nil
		}
	}
	if !found {
		return nil, fail("certificate_usage", "%s has no certificate to %s with", h.name, use)
	}
	return nil, fail("certificate_expired", "%s has no certificate to %s with that is valid on %s", h.name, use, at.Format(time.DateOnly))
}

// Holds says whether der is one of the holder's certificates of a use,
// whatever its validity.
func (h *holder) Holds(use string, der []byte) bool {
	for _, c := range h.Certificates {
		if c.Use == use && subtle.ConstantTimeCompare(c.DER, der) == 1 {
			return true
		}
	}
	return false
}

// Signer signs with the private key of a certificate.
func Signer(keys interface {
	Sign(id sm.Digest, msg []byte) ([]byte, error)
}, c *Certificate) cms.Signer {
	return signer{keys, c}
}

type signer struct {
	keys interface {
		Sign(id sm.Digest, msg []byte) ([]byte, error)
	}
	c *Certificate
}

func (s signer) Certificate() []byte             { return s.c.DER }
func (s signer) Sign(msg []byte) ([]byte, error) { return s.keys.Sign(s.c.KeyID, msg) }

// parseCertificate reads a certificate of a declared use, checks that its key
// is SM2 and its key usage fits, and that the authority issued it.
func parseCertificate(use string, der []byte, authority *smx509.Certificate) (*Certificate, error) {
	cert, err := smx509.ParseCertificate(der)
	if err != nil {
		return nil, &Error{Code: "certificate_chain", Detail: "a certificate cannot be read", Err: err}
	}
	pub, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != sm.Curve() {
		return nil, fail("certificate_usage", "certificate %s has no SM2 key", cert.SerialNumber)
	}
	if err := checkUsage(use, cert); err != nil {
		return nil, err
	}
	if err := cert.CheckSignatureFrom(authority); err != nil {
		return nil, &Error{Code: "certificate_chain", Detail: fmt.Sprintf("certificate %s is not issued by the authority", cert.SerialNumber), Err: err}
	}
	return &Certificate{Use: use, DER: der, KeyID: sm.KeyID(pub), NotBefore: cert.NotBefore, NotAfter: cert.NotAfter}, nil
}

const (
	signUsage    = smx509.KeyUsageDigitalSignature | smx509.KeyUsageContentCommitment
	encryptUsage = smx509.KeyUsageKeyEncipherment | smx509.KeyUsageDataEncipherment
)

func checkUsage(use string, cert *smx509.Certificate) error {
	want, refuse := signUsage, encryptUsage|smx509.KeyUsageKeyAgreement
	if use == UseEncrypt {
		want, refuse = encryptUsage, signUsage|smx509.KeyUsageCertSign
	}
	if use != UseSign && use != UseEncrypt || cert.IsCA || cert.KeyUsage&want == 0 || cert.KeyUsage&refuse != 0 {
		return fail("certificate_usage", "certificate %s is not one to %s with", cert.SerialNumber, use)
	}
	return nil
}
