// Package sm is the one door to SM2, SM3 and SM4 (GB/T 32918, GB/T 32905,
// GB/T 32907): digests, keys, signatures, key wrapping, HKDF-SM3, SM4-GCM and
// the STREAM cipher for payloads of any size.
//
// It fixes the choices that are easy to get wrong elsewhere: signatures are
// DER over the message with Z for the default user id 1234567812345678, SM2
// ciphertexts are ASN.1 (GB/T 35276), GCM nonces are 12 bytes. Randomness is
// always handed in, so that a simulation can replay a run byte for byte.
package sm

import (
	"bytes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/emmansun/gmsm/sm2"
	"github.com/emmansun/gmsm/sm3"
	"github.com/emmansun/gmsm/sm4"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Size is the length of an SM3 digest, bytes.
const Size = 32

// Digest is an SM3 digest; its text form is 64 lower-case hex digits.
type Digest [Size]byte

// String gives the text form.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// IsZero says whether the digest was never set.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return d.AppendText(make([]byte, 0, 2*Size)) }

// AppendText implements encoding.TextAppender.
func (d Digest) AppendText(b []byte) ([]byte, error) { return hex.AppendEncode(b, d[:]), nil }

// UnmarshalText accepts exactly the text form.
func (d *Digest) UnmarshalText(b []byte) error {
	if len(b) != 2*Size {
		return fmt.Errorf("sm: a digest has %d hex digits, got %d characters", 2*Size, len(b))
	}
	if bytes.ContainsAny(b, "ABCDEF") {
		return errors.New("sm: a digest is written in lower-case hex digits")
	}
	if _, err := hex.Decode(d[:], b); err != nil {
		return errors.New("sm: a digest is written in hex digits")
	}
	return nil
}

// ParseDigest reads the text form.
func ParseDigest(s string) (d Digest, err error) {
	err = d.UnmarshalText([]byte(s))
	return d, err
}

// New is a running SM3 (GB/T 32905).
func New() hash.Hash { return sm3.New() }

// Sum is the SM3 of the parts, one after the other.
func Sum(parts ...[]byte) (d Digest) {
	if len(parts) == 1 {
		return sm3.Sum(parts[0])
	}
	h := sm3.New()
	for _, p := range parts {
		h.Write(p)
	}
	h.Sum(d[:0])
	return d
}

// HMAC is HMAC-SM3 of the parts, one after the other.
func HMAC(key []byte, parts ...[]byte) (d Digest) {
	h := hmac.New(sm3.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	h.Sum(d[:0])
	return d
}

// Extract is the first half of HKDF-SM3, for who needs several outputs of one
// secret.
func Extract(secret, salt []byte) []byte {
	prk, err := hkdf.Extract(sm3.New, secret, salt)
	if err != nil {
		panic("sm: HKDF " + err.Error()) // SM3 is always there
	}
	return prk
}

// Expand is the second half: it derives n ≤ 8,160 bytes.
func Expand(prk, info []byte, n int) []byte {
	out, err := hkdf.Expand(sm3.New, prk, string(info), n)
	if err != nil {
		panic("sm: HKDF length " + err.Error()) // n is a constant of the caller
	}
	return out
}

// HKDF derives n ≤ 8,160 bytes with HKDF-SM3 (RFC 5869).
func HKDF(secret, salt, info []byte, n int) []byte { return Expand(Extract(secret, salt), info, n) }

// Expander is Expand for outputs of one digest's length:
// the key is taken in once for all of them. It is for one goroutine.
type Expander struct{ mac hash.Hash }

// NewExpander begins with what Extract gave.
func NewExpander(prk []byte) *Expander { return &Expander{hmac.New(sm3.New, prk)} }

// Digest gives the 32 bytes for info.
func (e *Expander) Digest(info []byte) (d Digest) {
	e.mac.Reset()
	e.mac.Write(info)
	e.mac.Write([]byte{1}) // the counter of the first block, which is all
	e.mac.Sum(d[:0])
	return d
}

// PrivateKey is an SM2 private key.
type PrivateKey = sm2.PrivateKey

// GenerateKey makes an SM2 key pair.
func GenerateKey(rand io.Reader) (*PrivateKey, error) { return sm2.GenerateKey(rand) }

// PublicKeyBytes gives the 65 bytes 04 ‖ x ‖ y. The key must be one of this
// package's or of a certificate that was parsed: a point off the curve panics.
func PublicKeyBytes(pub *ecdsa.PublicKey) []byte {
	point, err := sm2.PublicKeyToECDH(pub)
	if err != nil {
		panic("sm: " + err.Error())
	}
	return point.Bytes()
}

// ParsePublicKey reads those 65 bytes and refuses a point off the curve.
func ParsePublicKey(b []byte) (*ecdsa.PublicKey, error) {
	if len(b) != 65 || b[0] != 4 {
		return nil, errors.New("sm: a public key is 65 bytes beginning with 04")
	}
	pub, err := sm2.NewPublicKey(b)
	if err != nil {
		return nil, errors.New("sm: the public key is not a point of the SM2 curve")
	}
	return pub, nil
}

// KeyID names a key pair everywhere: the SM3 of its public key's 65 bytes.
func KeyID(pub *ecdsa.PublicKey) Digest { return Sum(PublicKeyBytes(pub)) }

// Sign signs msg (GB/T 32918.2, default user id); the signature is DER.
func Sign(rand io.Reader, key *PrivateKey, msg []byte) ([]byte, error) {
	return key.Sign(rand, msg, sm2.DefaultSM2SignerOpts)
}

// Verify checks a signature made by Sign. Any other encoding of the same
// numbers is refused.
func Verify(pub *ecdsa.PublicKey, msg, sig []byte) bool {
	if !sm2.IsSM2PublicKey(pub) || !strictSignature(sig) {
		return false
	}
	return sm2.VerifyASN1WithSM2(pub, nil, msg, sig)
}

// strictSignature says whether sig is SEQUENCE { r, s INTEGER } in DER, of at
// most the size that the curve allows.
func strictSignature(sig []byte) bool {
	if len(sig) > 72 {
		return false
	}
	var inner cryptobyte.String
	in := cryptobyte.String(sig)
	if !in.ReadASN1(&inner, asn1.SEQUENCE) || !in.Empty() {
		return false
	}
	var r, s []byte
	return inner.ReadASN1Integer(&r) && inner.ReadASN1Integer(&s) && inner.Empty()
}

// Encrypt wraps a short plaintext (at most 4 KiB) to a public key; the result
// is SM2Cipher in ASN.1 DER (GB/T 35276). When the key stream is all zeros the
// standard wants another try, and gmsm v0.44.0 makes that one with a wrong
// point: of plaintexts of n bytes one in 256^n does not open again. Wrap keys,
// which have 16 bytes and more.
func Encrypt(rand io.Reader, pub *ecdsa.PublicKey, plain []byte) ([]byte, error) {
	if len(plain) == 0 || len(plain) > maxWrapped {
		return nil, fmt.Errorf("sm: SM2 encrypts 1 to %d bytes, got %d", maxWrapped, len(plain))
	}
	return sm2.EncryptASN1(rand, pub, plain)
}

const maxWrapped = 4 << 10

// ErrDecrypt is the one error of Decrypt, whatever was wrong.
var ErrDecrypt = errors.New("sm: SM2 decryption failed")

// Decrypt unwraps what Encrypt made. Every failure is ErrDecrypt.
func Decrypt(key *PrivateKey, sealed []byte) ([]byte, error) {
	if len(sealed) > maxWrapped+256 || !strictCiphertext(sealed) {
		return nil, ErrDecrypt
	}
	plain, err := sm2.Decrypt(key, sealed)
	if err != nil {
		return nil, ErrDecrypt
	}
	return plain, nil
}

// strictCiphertext says whether b is SEQUENCE { x, y INTEGER; hash, cipher
// OCTET STRING } in DER and nothing else.
func strictCiphertext(b []byte) bool {
	var inner, hash, text cryptobyte.String
	var x, y []byte
	in := cryptobyte.String(b)
	if !in.ReadASN1(&inner, asn1.SEQUENCE) || !in.Empty() {
		return false
	}
	return inner.ReadASN1Integer(&x) && inner.ReadASN1Integer(&y) &&
		inner.ReadASN1(&hash, asn1.OCTET_STRING) && len(hash) == Size &&
		inner.ReadASN1(&text, asn1.OCTET_STRING) && inner.Empty()
}

// NewGCM is SM4-GCM with a 16-byte key, 12-byte nonce and 16-byte tag.
func NewGCM(key []byte) (cipher.AEAD, error) {
	block, err := sm4.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Curve is the SM2 curve of GB/T 32918.5.
func Curve() elliptic.Curve { return sm2.P256() }

// Equal compares digests that are secret, or compared with such, in constant
// time.
func Equal(a, b Digest) bool { return subtle.ConstantTimeCompare(a[:], b[:]) == 1 }
