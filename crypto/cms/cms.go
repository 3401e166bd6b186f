// Package cms is SignedData in a strict profile of GB/T 35275: DER only,
// exactly one SM2/SM3 signer with its certificate, exactly the signed
// attributes contentType, messageDigest and signingTime, nothing unsigned,
// no trailing bytes (docs/spec/json-and-cms-v1.md).
//
// Content, certificate, time and signature determine every byte. Parsing is
// therefore: find these four, encode again, and refuse what differs. Trust is
// not decided here: Verify takes the certificate that the caller's directory
// names for the signer.
package cms

import (
	"crypto/ecdsa"
	"crypto/subtle"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// The failure classes.
var (
	ErrMalformed = errors.New("cms: not the one encoding of a signed object")
	ErrSigner    = errors.New("cms: not a certificate that may have signed this")
	ErrSignature = errors.New("cms: the signature does not verify")
)

// Signer signs as the holder of a certificate. Sign gets the whole message,
// computes Z and SM3 itself and gives the signature in DER.
type Signer interface {
	Certificate() []byte
	Sign(msg []byte) ([]byte, error)
}

// Sign makes a signed object. The signing time is cut to seconds.
func Sign(s Signer, content []byte, at time.Time) ([]byte, error) {
	_, der, err := Make(s, content, at)
	return der, err
}

// Make is Sign that also gives what Parse would make of the result.
func Make(s Signer, content []byte, at time.Time) (*Signed, []byte, error) {
	known, err := recall(s.Certificate())
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrSigner, err)
	}
	if err := maySign(known.cert); err != nil {
		return nil, nil, err
	}
	p := parts{content: content, digest: sm.Sum(content), cert: known.cert, signer: known.signer, time: at.UTC().Truncate(time.Second)}
	if p.signed, err = p.attributes(); err != nil {
		return nil, nil, err
	}
	if p.signature, err = s.Sign(p.signed); err != nil {
		return nil, nil, fmt.Errorf("cms: sign: %w", err)
	}
	return p.object(), p.encode(oidSignedData), nil
}

func (p *parts) object() *Signed {
	return &Signed{Content: p.content, Certificate: p.cert.Raw, Time: p.time, p: *p}
}

// maySign enforces the key usage of a dual certificate's signing half.
func maySign(cert *smx509.Certificate) error {
	if _, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok {
		return fmt.Errorf("%w: not an SM2 key", ErrSigner)
	}
	if cert.KeyUsage&smx509.KeyUsageDigitalSignature == 0 {
		return fmt.Errorf("%w: its key usage is not digitalSignature", ErrSigner)
	}
	return nil
}

// Signed is a signed object that is well formed. Nothing about its signer is
// known before Verify.
type Signed struct {
	Content     []byte
	Certificate []byte // DER, as embedded
	Time        time.Time

	p     parts
	once  sync.Once // the signature is looked at once
	holds bool
}

// Parse reads a signed object of at most atMost bytes.
func Parse(der []byte, atMost int) (*Signed, error) {
	if len(der) > atMost {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are possible", ErrMalformed, len(der), atMost)
	}
	p, err := decode(der, oidSignedData)
	if err != nil {
		return nil, err
	}
	return p.object(), nil
}

// Verify checks that exactly this certificate (DER) signed, that it may sign,
// and that the signature holds. Whether the certificate was valid at the time
// that matters is for the caller, who knows that time.
func (s *Signed) Verify(cert []byte) error {
	if subtle.ConstantTimeCompare(cert, s.Certificate) != 1 {
		return fmt.Errorf("%w: signed with another certificate", ErrSigner)
	}
	if err := maySign(s.p.cert); err != nil {
		return err
	}
	if !s.Holds() {
		return ErrSignature
	}
	return nil
}

// Holds says whether the signature is by the certificate shown, whatever that
// certificate may be used for. It tells a signature that may not be relied on
// from bytes that were damaged; it is never enough to rely on one.
func (s *Signed) Holds() bool {
	s.once.Do(func() {
		pub, ok := s.p.cert.PublicKey.(*ecdsa.PublicKey)
		s.holds = ok && sm.Verify(pub, s.p.signed, s.p.signature)
	})
	return s.holds
}

// ID names the object: the SM3 of its content.
func (s *Signed) ID() sm.Digest { return s.p.digest }

// Relabel gives the object with the outer type of RFC 5652 instead of GB/T
// 35275. The signature does not cover that label, so any CMS tool that knows
// SM2 verifies the result.
func Relabel(der []byte) ([]byte, error) {
	p, err := decode(der, oidSignedData)
	if err != nil {
		return nil, err
	}
	return p.encode(oidSignedDataRFC), nil
}
