package timestamp

import (
	"bytes"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/emmansun/gmsm/smx509"
	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// Issuer gives tokens. A node never does; the authority in the test tree does,
// and who writes another one can compare with it.
type Issuer struct {
	Signer   cms.Signer
	Policy   asn1.ObjectIdentifier
	Accuracy time.Duration // whole seconds; zero states none
	GB       bool          // outer type of GB/T 35275 instead of RFC 5652
}

// Issue answers a request with a token. at is cut to milliseconds.
func (i *Issuer) Issue(r *Request, serial int64, at time.Time) ([]byte, error) {
	cert, err := cms.ParseCertificate(i.Signer.Certificate())
	if err != nil {
		return nil, fmt.Errorf("%w: certificate: %w", ErrSigner, err)
	}
	if err := MayTimestamp(cert); err != nil {
		return nil, err
	}
	at = at.UTC().Truncate(time.Millisecond)
	var info cryptobyte.Builder
	i.addInfo(&info, r, serial, at)
	content, err := info.Bytes()
	if err != nil {
		return nil, fmt.Errorf("timestamp: issue: %w", err)
	}
	attributes := attributeSet(content, cert, at)
	signature, err := i.Signer.Sign(attributes)
	if err != nil {
		return nil, fmt.Errorf("timestamp: issue: %w", err)
	}
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1Int64(0) })
		i.addToken(b, content, attributes, signature, cert, r.CertReq)
	})
	return b.Bytes()
}

// Refusal is a response without a token; status 2 is a rejection.
func Refusal(status int64, words string) []byte {
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1Int64(status)
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(tag.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(words)) })
			})
		})
	})
	return b.BytesOrPanic() // nothing in it can fail to encode
}

func (i *Issuer) addInfo(b *cryptobyte.Builder, r *Request, serial int64, at time.Time) {
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1ObjectIdentifier(i.Policy)
		addImprint(b, r.Imprint)
		b.AddASN1Int64(serial)
		b.AddASN1(tag.GeneralizedTime, func(b *cryptobyte.Builder) { b.AddBytes([]byte(at.Format("20060102150405.999") + "Z")) })
		if i.Accuracy > 0 {
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1Int64(int64(i.Accuracy / time.Second)) })
		}
		if len(r.Nonce) > 0 {
			b.AddASN1BigInt(new(big.Int).SetBytes(r.Nonce))
		}
	})
}

// attributeSet gives the signed attributes as the SET that is signed.
func attributeSet(content []byte, cert *smx509.Certificate, at time.Time) []byte {
	digest, hash := sm.Sum(content), sm.Sum(cert.Raw)
	list := [][]byte{
		attribute(oidContentType, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidTSTInfo) }),
		attribute(oidMessageDigest, func(b *cryptobyte.Builder) { b.AddASN1OctetString(digest[:]) }),
		attribute(oidSigningTime, func(b *cryptobyte.Builder) { b.AddASN1UTCTime(at) }),
		attribute(oidSigningCertV2, func(b *cryptobyte.Builder) {
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
						addAlgorithm(b, oidSM3)
						b.AddASN1OctetString(hash[:])
					})
				})
			})
		}),
	}
	slices.SortFunc(list, bytes.Compare) // DER orders the elements of a SET OF
	var b cryptobyte.Builder
	b.AddASN1(tag.SET, func(b *cryptobyte.Builder) {
		for _, a := range list {
			b.AddBytes(a)
		}
	})
	return b.BytesOrPanic() // constant identifiers and bounded values
}

func attribute(oid asn1.ObjectIdentifier, value cryptobyte.BuilderContinuation) []byte {
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1(tag.SET, value)
	})
	return b.BytesOrPanic() // as above
}

func (i *Issuer) addToken(b *cryptobyte.Builder, content, attributes, signature []byte, cert *smx509.Certificate, withCert bool) {
	outer := oidSignedData
	if i.GB {
		outer = oidSignedDataGB
	}
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(outer)
		b.AddASN1(context0, func(b *cryptobyte.Builder) {
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1Int64(3)
				b.AddASN1(tag.SET, func(b *cryptobyte.Builder) { addAlgorithm(b, oidSM3) })
				b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(oidTSTInfo)
					b.AddASN1(context0, func(b *cryptobyte.Builder) { b.AddASN1OctetString(content) })
				})
				if withCert {
					b.AddASN1(context0, func(b *cryptobyte.Builder) { b.AddBytes(cert.Raw) })
				}
				b.AddASN1(tag.SET, func(b *cryptobyte.Builder) {
					b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) { addSigner(b, cert, attributes, signature) })
				})
			})
		})
	})
}

func addSigner(b *cryptobyte.Builder, cert *smx509.Certificate, attributes, signature []byte) {
	b.AddASN1Int64(1)
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(cert.RawIssuer)
		b.AddASN1BigInt(cert.SerialNumber)
	})
	addAlgorithm(b, oidSM3)
	b.AddBytes([]byte{byte(context0)})
	b.AddBytes(attributes[1:])
	addAlgorithm(b, oidSM2Sign)
	b.AddASN1OctetString(signature)
}
