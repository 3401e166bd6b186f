package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/asn1"
	"fmt"
	"math/big"

	"github.com/emmansun/gmsm/smx509"
	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// The hashes by which a request names the issuer of a certificate. They name
// and prove nothing: the answer's signature does. SHA-1, which RFC 6960
// responders know in any case, is not made here.
const (
	OCSPHashSM3    = "SM3"
	OCSPHashSHA256 = "SHA-256"
)

// Bounds of OCSP messages.
const (
	MaxOCSPRequest  = 16 << 10  // bytes
	MaxOCSPResponse = 256 << 10 // bytes
	maxOCSPAnswers  = 128
	maxNonce        = 32 // bytes; RFC 9654 permits 1 to 32 in what we make
)

var (
	oidOCSPBasic   = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}
	oidOCSPNonce   = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}
	maxResponseID  = 64 // bytes of a responder's key hash
	maxOCSPSigners = 4
)

// certID names a certificate in OCSP: hashes of its issuer's name and key, and
// its serial number.
type certID struct {
	hash      string
	name, key []byte
	serial    *big.Int
}

// newCertID names a certificate of an issuer.
func newCertID(hash string, issuer *smx509.Certificate, serial *big.Int) (*certID, error) {
	pub, ok := issuer.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != sm.Curve() {
		return nil, fail(codeUsage, "certificate %s has no SM2 key", issuer.SerialNumber)
	}
	digest := func(b []byte) []byte { s := sm.Sum(b); return s[:] }
	switch hash {
	case OCSPHashSM3:
	case OCSPHashSHA256:
		digest = func(b []byte) []byte { s := sha256.Sum256(b); return s[:] }
	default:
		return nil, fail(codeOCSP, "hash %.20q: there are %s and %s", hash, OCSPHashSM3, OCSPHashSHA256)
	}
	return &certID{hash: hash, name: digest(issuer.RawSubject), key: digest(sm.PublicKeyBytes(pub)), serial: serial}, nil
}

// is says whether two names are the same.
func (c *certID) is(other *certID) bool {
	return c.hash == other.hash && bytes.Equal(c.name, other.name) && bytes.Equal(c.key, other.key) && c.serial.Cmp(other.serial) == 0
}

func (c *certID) add(b *cryptobyte.Builder) {
	oid := oidSM3
	if c.hash == OCSPHashSHA256 {
		oid = oidSHA256
	}
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oid)
			b.AddASN1NULL()
		})
		b.AddASN1OctetString(c.name)
		b.AddASN1OctetString(c.key)
		b.AddASN1BigInt(c.serial)
	})
}

// readCertID reads a name; one by a hash that is not known here has an empty
// hash and is nobody's.
func readCertID(in *cryptobyte.String) (*certID, bool) {
	var id, algorithm, name, key, serial cryptobyte.String
	var oid asn1.ObjectIdentifier
	ok := in.ReadASN1(&id, tag.SEQUENCE) && id.ReadASN1(&algorithm, tag.SEQUENCE) &&
		algorithm.ReadASN1ObjectIdentifier(&oid) && absentOrNull(algorithm) &&
		id.ReadASN1(&name, tag.OCTET_STRING) && id.ReadASN1(&key, tag.OCTET_STRING) &&
		len(name) <= 64 && len(key) <= 64 && readSerial(&id, &serial) && id.Empty()
	if !ok {
		return nil, false
	}
	c := &certID{name: name, key: key, serial: new(big.Int).SetBytes(serial)}
	switch {
	case oid.Equal(oidSM3):
		c.hash = OCSPHashSM3
	case oid.Equal(oidSHA256):
		c.hash = OCSPHashSHA256
	}
	return c, true
}

// OCSPRequest asks a responder for the status of one certificate.
type OCSPRequest struct {
	DER    []byte
	Serial *big.Int
	Nonce  []byte // empty for none

	// Revoked says what is known of the certificate (DER) of a delegate that
	// signed the response; nil: nothing is.
	Revoked func(der []byte) *Revocation

	id *certID
}

// NewOCSPRequest asks about a certificate (DER) of an issuer (DER). hash is
// [OCSPHashSM3] or [OCSPHashSHA256], whichever the responder knows; nonce has 1
// to 32 bytes, or is nil for none.
func NewOCSPRequest(cert, issuer []byte, hash string, nonce []byte) (*OCSPRequest, error) {
	ca, err := smx509.ParseCertificate(issuer)
	if err != nil {
		return nil, &Error{Code: codeChain, Detail: "the issuer's certificate cannot be read", Err: err}
	}
	c, err := smx509.ParseCertificate(cert)
	if err != nil {
		return nil, &Error{Code: codeChain, Detail: "the certificate cannot be read", Err: err}
	}
	if !bytes.Equal(c.RawIssuer, ca.RawSubject) {
		return nil, fail(codeChain, "certificate %s is of another issuer", c.SerialNumber)
	}
	if len(nonce) > maxNonce {
		return nil, fail(codeOCSP, "a nonce of %d bytes, at most %d are possible", len(nonce), maxNonce)
	}
	id, err := newCertID(hash, ca, c.SerialNumber)
	if err != nil {
		return nil, err
	}
	q := &OCSPRequest{Serial: c.SerialNumber, Nonce: nonce, id: id}
	q.DER, err = q.encode()
	return q, err
}

func (q *OCSPRequest) encode() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(tag.SEQUENCE, q.id.add)
			})
			addNonce(b, explicit2, q.Nonce)
		})
	})
	return b.Bytes()
}

// addNonce writes extensions under a tag, if there is a nonce.
func addNonce(b *cryptobyte.Builder, under tag.Tag, nonce []byte) {
	if len(nonce) == 0 {
		return
	}
	b.AddASN1(under, func(b *cryptobyte.Builder) {
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			addExtension(b, oidOCSPNonce, false, func(b *cryptobyte.Builder) { b.AddASN1OctetString(nonce) })
		})
	})
}

// readNonce reads extensions of which a nonce is the only one that may be
// critical.
func readNonce(in cryptobyte.String) (nonce []byte, err error) {
	var sequence cryptobyte.String
	if !in.ReadASN1(&sequence, tag.SEQUENCE) || !in.Empty() {
		return nil, fail(codeOCSP, "extensions")
	}
	list, ok := readExtensions(sequence)
	if !ok {
		return nil, fail(codeOCSP, "extensions")
	}
	for _, e := range list {
		var value cryptobyte.String
		switch {
		case e.id.Equal(oidOCSPNonce):
			if !e.value.ReadASN1(&value, tag.OCTET_STRING) || !e.value.Empty() || len(value) == 0 || len(value) > 4*maxNonce {
				return nil, fail(codeOCSP, "nonce")
			}
			nonce = value
		case e.critical:
			return nil, fail(codeOCSP, "critical extension %s is not known here", e.id)
		}
	}
	return nonce, nil
}

// ParseOCSPRequest reads a request about exactly one certificate. A signature
// of the requestor is not taken: the responder answers anyone.
func ParseOCSPRequest(der []byte) (*OCSPRequest, error) {
	if len(der) > MaxOCSPRequest {
		return nil, fail(codeOCSP, "request: %d bytes, at most %d are possible", len(der), MaxOCSPRequest)
	}
	in := cryptobyte.String(der)
	var outer, tbs, list, one cryptobyte.String
	ok := in.ReadASN1(&outer, tag.SEQUENCE) && in.Empty() &&
		outer.ReadASN1(&tbs, tag.SEQUENCE) && outer.Empty() &&
		tbs.SkipOptionalASN1(explicit1) && // requestorName
		tbs.ReadASN1(&list, tag.SEQUENCE) &&
		list.ReadASN1(&one, tag.SEQUENCE) && list.Empty()
	if !ok {
		return nil, fail(codeOCSP, "not an unsigned OCSP request of version 1 about exactly one certificate")
	}
	id, ok := readCertID(&one)
	if !ok || !one.Empty() {
		return nil, fail(codeOCSP, "request: the certificate it asks about")
	}
	q := &OCSPRequest{DER: der, Serial: id.serial, id: id}
	if tbs.Empty() {
		return q, nil
	}
	var extensions cryptobyte.String
	if !tbs.ReadASN1(&extensions, explicit2) || !tbs.Empty() {
		return nil, fail(codeOCSP, "request: requestExtensions")
	}
	var err error
	q.Nonce, err = readNonce(extensions)
	return q, err
}

// about says whether the request is about a certificate of an issuer.
func (q *OCSPRequest) about(issuer *smx509.Certificate) bool {
	id, err := newCertID(q.id.hash, issuer, q.id.serial)
	return err == nil && id.is(q.id)
}

func ocspFail(detail string, args ...any) *Error {
	return fail(codeOCSP, "response: %s", fmt.Sprintf(detail, args...))
}
