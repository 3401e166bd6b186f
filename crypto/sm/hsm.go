package sm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"io"
	"math/big"

	"github.com/emmansun/gmsm/sm2"
	"github.com/emmansun/gmsm/sm3"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// What a device needs that computes with private keys and leaves the rest to
// its caller.

// SignatureDigest is what a device signs that takes a digest: SM3(Z ‖ msg)
// with Z for the default user id (GB/T 32918.2, 5.5).
func SignatureDigest(pub *ecdsa.PublicKey, msg []byte) ([]byte, error) {
	return sm2.CalculateSM2Hash(pub, msg, nil)
}

// SignDigest signs what SignatureDigest gave; the signature is that of Sign.
func SignDigest(rand io.Reader, key *PrivateKey, digest []byte) ([]byte, error) {
	if len(digest) != Size {
		return nil, errors.New("sm: SignDigest signs a digest of 32 bytes")
	}
	return sm2.SignASN1(rand, key, digest, nil)
}

// SignatureFromRaw gives the DER form of r ‖ s.
func SignatureFromRaw(raw []byte) ([]byte, error) {
	if len(raw) != 64 {
		return nil, errors.New("sm: a raw signature has 64 bytes")
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(new(big.Int).SetBytes(raw[:32]))
		b.AddASN1BigInt(new(big.Int).SetBytes(raw[32:]))
	})
	return b.Bytes()
}

// Ciphertext is an SM2 ciphertext in its parts.
type Ciphertext struct {
	x, y *big.Int // C1
	hash []byte   // C3
	text []byte   // C2
}

// ParseCiphertext reads the DER form; every failure, a point off the curve
// included, is ErrDecrypt.
func ParseCiphertext(der []byte) (*Ciphertext, error) {
	if len(der) > maxWrapped+256 || !strictCiphertext(der) {
		return nil, ErrDecrypt
	}
	c := &Ciphertext{x: new(big.Int), y: new(big.Int)}
	var inner, hash, text cryptobyte.String
	in := cryptobyte.String(der)
	ok := in.ReadASN1(&inner, asn1.SEQUENCE) && inner.ReadASN1Integer(c.x) && inner.ReadASN1Integer(c.y) &&
		inner.ReadASN1(&hash, asn1.OCTET_STRING) && inner.ReadASN1(&text, asn1.OCTET_STRING)
	if !ok || len(text) == 0 || c.x.Sign() < 0 || c.y.Sign() < 0 || c.x.BitLen() > 256 || c.y.BitLen() > 256 {
		return nil, ErrDecrypt
	}
	c.hash, c.text = hash, text
	// An invalid point would let the answers of a device tell its key.
	if _, err := ParsePublicKey(c.C1()); err != nil {
		return nil, ErrDecrypt
	}
	return c, nil
}

// C1 is the point as 04 ‖ x ‖ y.
func (c *Ciphertext) C1() []byte {
	b := make([]byte, 65)
	b[0] = 4
	c.x.FillBytes(b[1:33])
	c.y.FillBytes(b[33:])
	return b
}

// C1C3C2 is the raw form that devices take (GM/T 0003.4-2012).
func (c *Ciphertext) C1C3C2() []byte {
	return append(append(c.C1(), c.hash...), c.text...)
}

// OpenWithX finishes decryption with the x coordinate of [d]C1. Of the two
// points with this x, C3 tells which one it is; ErrDecrypt when neither.
func (c *Ciphertext) OpenWithX(x []byte) ([]byte, error) {
	if len(x) != 32 {
		return nil, ErrDecrypt
	}
	for _, sign := range []byte{2, 3} {
		_, py := elliptic.UnmarshalCompressed(Curve(), append([]byte{sign}, x...))
		if py == nil {
			return nil, ErrDecrypt
		}
		y := py.FillBytes(make([]byte, 32))
		plain := sm3.Kdf(append(append([]byte{}, x...), y...), len(c.text))
		for i := range plain {
			plain[i] ^= c.text[i]
		}
		sum := Sum(x, plain, y)
		if Equal(sum, Digest(c.hash)) {
			return plain, nil
		}
	}
	return nil, ErrDecrypt
}
