// Package certs is who is who: agency codes, the domain's authority with its
// dual SM2 certificates, and the signed [Directory] of agencies, nodes, links
// and routes that every node of a domain judges by (docs/spec/directory-v1.md).
package certs

import (
	"crypto/ecdsa"
	"crypto/subtle"
	"fmt"
	"math/big"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// Error is a refusal with a stable code: agency_code, certificate_expired,
// certificate_revoked, certificate_usage, certificate_chain,
// directory_rollback, directory_fork, directory_signature, directory_approval,
// directory_content, directory_delta, directory_stale, request_content,
// request_unproven, no_route. Detail names the object and the reason.
type Error struct {
	Code   string
	Detail string
	Err    error
}

// Error gives code, detail and cause.
func (e *Error) Error() string {
	msg := e.Code
	if e.Detail != "" {
		msg += ": " + e.Detail
	}
	if e.Err != nil {
		msg += ": " + e.Err.Error()
	}
	return msg
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is says whether target is the class that e belongs to, like [ErrRollback].
func (e *Error) Is(target error) bool {
	class, ok := target.(*Error)
	return ok && class.Detail == "" && class.Err == nil && class.Code == e.Code
}

const (
	codeAgency    = "agency_code"
	codeExpired   = "certificate_expired"
	codeRevoked   = "certificate_revoked"
	codeUsage     = "certificate_usage"
	codeChain     = "certificate_chain"
	codeRollback  = "directory_rollback"
	codeFork      = "directory_fork"
	codeApproval  = "directory_approval"
	codeDelta     = "directory_delta"
	codeSignature = "directory_signature"
	codeContent   = "directory_content"
	codeStale     = "directory_stale"
	codeRequest   = "request_content"
	codeUnproven  = "request_unproven"
	codeNoRoute   = "no_route"
)

// The classes of errors, for errors.Is.
var (
	ErrAgencyCode = &Error{Code: codeAgency}
	ErrExpired    = &Error{Code: codeExpired}
	ErrRevoked    = &Error{Code: codeRevoked}
	ErrUsage      = &Error{Code: codeUsage}
	ErrChain      = &Error{Code: codeChain}
	ErrRollback   = &Error{Code: codeRollback}
	ErrFork       = &Error{Code: codeFork}
	ErrApproval   = &Error{Code: codeApproval}
	ErrDelta      = &Error{Code: codeDelta}
	ErrSignature  = &Error{Code: codeSignature}
	ErrContent    = &Error{Code: codeContent}
	ErrStale      = &Error{Code: codeStale}
	ErrRequest    = &Error{Code: codeRequest}
	ErrUnproven   = &Error{Code: codeUnproven}
	ErrNoRoute    = &Error{Code: codeNoRoute}
)

func fail(code, detail string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(detail, args...)}
}

// The uses of a dual certificate's halves.
const (
	UseSign    = "sign"
	UseEncrypt = "encrypt"
)

// Certificate is one SM2 certificate as the directory lists it. Issuer is zero
// for a timestamp authority's, which is trusted by itself; Serial is the serial
// number in hex.
// Revoked is nil for one that is not revoked.
type Certificate struct {
	Use       string
	DER       []byte
	KeyID     sm.Digest
	Issuer    IssuerID
	Serial    string
	NotBefore time.Time
	NotAfter  time.Time
	Revoked   *Revocation
}

// serial is Serial as a number.
func (c *Certificate) serial() (*big.Int, bool) { return new(big.Int).SetString(c.Serial, 16) }

// RevokedAt says whether the certificate's revocation counts at a time.
func (c *Certificate) RevokedAt(at time.Time) bool {
	return c.Revoked != nil && !at.Before(c.Revoked.Effective)
}

// MayStamp says whether a token of a timestamp authority with this certificate
// counts that says it was made at a time (RFC 3161, section 4). Once its key is
// in other hands none does, whatever its time: that time is the thief's word.
func (c *Certificate) MayStamp(at time.Time) bool {
	return c.Revoked == nil || !c.Revoked.Compromised && at.Before(c.Revoked.Effective)
}

// PublicKey is the certificate's SM2 key.
func (c *Certificate) PublicKey() (*ecdsa.PublicKey, error) {
	cert, err := cms.ParseCertificate(c.DER)
	if err != nil {
		return nil, err
	}
	pub, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return nil, fail(codeUsage, "certificate %s has no SM2 key", cert.SerialNumber)
	}
	return pub, nil
}

// Holder is what agencies and nodes share: certificates, newest first.
type Holder struct {
	Certificates []Certificate
	name         string
}

// Current gives the newest certificate of a use that is valid, and not
// revoked, at a time. The error says whether there is none of that use
// (ErrUsage), none valid then (ErrExpired), or none valid then that is not
// revoked (ErrRevoked).
func (h *Holder) Current(use string, at time.Time) (*Certificate, error) {
	var newest, revoked *Certificate
	for i := range h.Certificates {
		c := &h.Certificates[i]
		if c.Use != use {
			continue
		}
		valid := !at.Before(c.NotBefore) && !at.After(c.NotAfter)
		switch {
		case valid && !c.RevokedAt(at):
			return c, nil
		case valid && revoked == nil:
			revoked = c
		}
		if newest == nil {
			newest = c
		}
	}
	switch {
	case newest == nil:
		return nil, fail(codeUsage, "%s has no certificate to %s with", h.name, use)
	case revoked != nil:
		return nil, fail(codeRevoked, "%s has no certificate to %s with that is valid on %s and not revoked; the newest is revoked since %s (%s): it renews its keys with the authority",
			h.name, use, day(at), day(revoked.Revoked.Effective), revoked.Revoked.Reason)
	}
	return nil, fail(codeExpired, "%s has no certificate to %s with that is valid on %s; its newest is valid %s to %s: renew it with the authority, or check the clock",
		h.name, use, day(at), day(newest.NotBefore), day(newest.NotAfter))
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// Holds says whether der is one of the holder's certificates of a use,
// whatever its validity.
func (h *Holder) Holds(use string, der []byte) bool {
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
