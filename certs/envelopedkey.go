package certs

import (
	"crypto/ecdsa"
	"encoding/asn1"
	"errors"
	"io"

	"github.com/emmansun/gmsm/sm2"
	"github.com/emmansun/gmsm/sm4"
	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// MaxEnvelopedKey bounds an SM2EnvelopedKey, bytes of DER or PEM; real ones
// have about 250.
const MaxEnvelopedKey = 4 << 10

// EnvelopedKeyPEM is the type of a PEM block that holds an SM2EnvelopedKey.
const EnvelopedKeyPEM = "SM2 ENVELOPED KEY"

// SM4 in ECB mode, and plain SM4, which some authorities write for the same.
var (
	oidSM4    = asn1.ObjectIdentifier{1, 2, 156, 10197, 1, 104}
	oidSM4ECB = asn1.ObjectIdentifier{1, 2, 156, 10197, 1, 104, 1}
)

// envelopedKey is an SM2EnvelopedKey (GB/T 35276, 7.4): a private key under a
// one-time SM4 key, which is under a public key.
//
//	SM2EnvelopedKey ::= SEQUENCE {
//	  symAlgID               AlgorithmIdentifier, -- SM4 in ECB mode
//	  symEncryptedKey        SM2Cipher,           -- to the signing key
//	  sm2PublicKey           BIT STRING,          -- 04 ‖ x ‖ y
//	  sm2EncryptedPrivateKey BIT STRING }         -- 32 bytes
type envelopedKey struct {
	public  *ecdsa.PublicKey
	wrapped []byte // SM2Cipher
	private []byte // 32 bytes under SM4
}

// parseEnvelopedKey reads the structure; nothing is decrypted yet.
func parseEnvelopedKey(b []byte) (*envelopedKey, error) {
	if len(b) > MaxEnvelopedKey {
		return nil, fail(codeKey, "enveloped key: %d bytes, at most %d are possible", len(b), MaxEnvelopedKey)
	}
	der, ok := fromPEM(b, EnvelopedKeyPEM)
	if !ok {
		return nil, fail(codeKey, "enveloped key: not exactly one PEM block %s", EnvelopedKeyPEM)
	}
	var outer, algorithm, cipher, point, private cryptobyte.String
	var oid asn1.ObjectIdentifier
	in := cryptobyte.String(der)
	ok = in.ReadASN1(&outer, tag.SEQUENCE) && in.Empty() &&
		outer.ReadASN1(&algorithm, tag.SEQUENCE) && outer.ReadASN1Element(&cipher, tag.SEQUENCE) &&
		readBits(&outer, &point) && readBits(&outer, &private) && outer.Empty() &&
		algorithm.ReadASN1ObjectIdentifier(&oid)
	if !ok {
		return nil, fail(codeKey, "enveloped key: not an SM2EnvelopedKey of GB/T 35276 in DER")
	}
	if !oid.Equal(oidSM4ECB) && !oid.Equal(oidSM4) || !absentOrNull(algorithm) {
		return nil, fail(codeKey, "enveloped key: under %s, and not under SM4 in ECB mode", oid)
	}
	if len(private) != 32 {
		return nil, fail(codeKey, "enveloped key: a private key of %d bytes, and not of 32", len(private))
	}
	pub, err := sm.ParsePublicKey(point)
	if err != nil {
		return nil, &Error{Code: codeKey, Detail: "enveloped key: its public key", Err: err}
	}
	return &envelopedKey{pub, cipher, private}, nil
}

// OpenEnvelopedKey opens an SM2EnvelopedKey, DER or PEM, with the signing key
// that it was made for, wherever that is kept, and gives the private key that
// fits the public key in it. SM4-ECB protects no integrity: that the two fit
// is what does. Whatever keeps it from opening is one and the same error; an
// HSM that does not answer is that error, to be tried again.
func OpenEnvelopedKey(b []byte, keys interface {
	Unwrap(id sm.Digest, sealed []byte) ([]byte, error)
}, signing sm.Digest) (*sm.PrivateKey, error) {
	e, err := parseEnvelopedKey(b)
	if err != nil {
		return nil, err
	}
	shut := fail(codeKey, "enveloped key: it does not open with the signing key %s: the authority has to make it for that key", signing)
	secret, err := keys.Unwrap(signing, e.wrapped)
	if err != nil && !errors.Is(err, sm.ErrDecrypt) {
		return nil, err
	}
	if err != nil || len(secret) != sm4.BlockSize {
		return nil, shut
	}
	key, err := sm2.NewPrivateKey(ecb(secret, e.private, false))
	if err != nil || !key.PublicKey.Equal(e.public) {
		return nil, shut
	}
	return key, nil
}

// SealEnvelopedKey makes an SM2EnvelopedKey (DER) as an authority does that
// makes the encryption keys of its holders.
func SealEnvelopedKey(rand io.Reader, to *ecdsa.PublicKey, key *sm.PrivateKey) ([]byte, error) {
	secret := make([]byte, sm4.BlockSize)
	if _, err := io.ReadFull(rand, secret); err != nil {
		return nil, err
	}
	wrapped, err := sm.Encrypt(rand, to, secret)
	if err != nil {
		return nil, err
	}
	private := ecb(secret, key.D.FillBytes(make([]byte, 32)), true)
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidSM4ECB)
			b.AddASN1NULL()
		})
		b.AddBytes(wrapped)
		b.AddASN1BitString(sm.PublicKeyBytes(&key.PublicKey))
		b.AddASN1BitString(private)
	})
	return b.Bytes()
}

// ecb is SM4 on two blocks, each by itself, as the standard has it: under a
// key that is used once, for a random number.
func ecb(secret, in []byte, encrypt bool) []byte {
	block, err := sm4.NewCipher(secret)
	if err != nil {
		panic("certs: " + err.Error()) // the key has 16 bytes
	}
	out := make([]byte, len(in))
	for i := 0; i < len(in); i += sm4.BlockSize {
		if encrypt {
			block.Encrypt(out[i:], in[i:])
		} else {
			block.Decrypt(out[i:], in[i:])
		}
	}
	return out
}
