package cms

import (
	"bytes"
	"encoding/asn1"
	"fmt"
	"slices"
	"time"

	"github.com/emmansun/gmsm/smx509"
	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// Object identifiers of GB/T 35275-2017, GB/T 33560 and RFC 5652.
var (
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 156, 10197, 6, 1, 4, 2, 2}
	oidSignedDataRFC = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidData          = asn1.ObjectIdentifier{1, 2, 156, 10197, 6, 1, 4, 2, 1}
	oidSM3           = asn1.ObjectIdentifier{1, 2, 156, 10197, 1, 401}
	oidSM2Sign       = asn1.ObjectIdentifier{1, 2, 156, 10197, 1, 301, 1}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSigningTime   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 5}
)

var (
	context0 = tag.Tag(0).ContextSpecific().Constructed()
	maxUTC   = time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC)
)

// parts are what determines every byte of a signed object.
type parts struct {
	content   []byte
	digest    sm.Digest // of content
	cert      *smx509.Certificate
	time      time.Time
	signature []byte
	signed    []byte // attributes as the SET that is signed
}

// attributes gives the signed attributes as the SET that is signed.
func (p *parts) attributes() ([]byte, error) {
	list := [][]byte{
		attribute(oidContentType, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidData) }),
		attribute(oidMessageDigest, func(b *cryptobyte.Builder) { b.AddASN1OctetString(p.digest[:]) }),
		attribute(oidSigningTime, func(b *cryptobyte.Builder) { addTime(b, p.time) }),
	}
	slices.SortFunc(list, bytes.Compare) // DER orders the elements of a SET OF
	var b cryptobyte.Builder
	b.AddASN1(tag.SET, func(b *cryptobyte.Builder) {
		for _, a := range list {
			b.AddBytes(a)
		}
	})
	return b.Bytes()
}

func attribute(oid asn1.ObjectIdentifier, value cryptobyte.BuilderContinuation) []byte {
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1(tag.SET, value)
	})
	return b.BytesOrPanic() // constant identifiers and bounded values: cannot fail
}

// addTime writes UTCTime until 2049 and GeneralizedTime after, as RFC 5652.
func addTime(b *cryptobyte.Builder, t time.Time) {
	if t.Before(maxUTC) {
		b.AddASN1UTCTime(t)
		return
	}
	b.AddASN1GeneralizedTime(t)
}

// addAlgorithm writes NULL parameters, as other implementations of GB/T 35275
// do: what they sign with these attributes is in our encoding, too.
func addAlgorithm(b *cryptobyte.Builder, oid asn1.ObjectIdentifier) {
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1NULL()
	})
}

// encode writes the object under an outer content type.
func (p *parts) encode(outer asn1.ObjectIdentifier, attributes []byte) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, len(p.content)+len(p.cert.Raw)+1024))
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(outer)
		b.AddASN1(context0, func(b *cryptobyte.Builder) {
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1Int64(1)
				b.AddASN1(tag.SET, func(b *cryptobyte.Builder) { addAlgorithm(b, oidSM3) })
				b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(oidData)
					b.AddASN1(context0, func(b *cryptobyte.Builder) { b.AddASN1OctetString(p.content) })
				})
				b.AddASN1(context0, func(b *cryptobyte.Builder) { b.AddBytes(p.cert.Raw) })
				b.AddASN1(tag.SET, func(b *cryptobyte.Builder) {
					b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) { p.addSigner(b, attributes) })
				})
			})
		})
	})
	return b.Bytes()
}

func (p *parts) addSigner(b *cryptobyte.Builder, attributes []byte) {
	b.AddASN1Int64(1)
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(p.cert.RawIssuer)
		b.AddASN1BigInt(p.cert.SerialNumber)
	})
	addAlgorithm(b, oidSM3)
	// The same bytes as the signed SET, under the tag [0] IMPLICIT.
	b.AddBytes([]byte{byte(context0)})
	b.AddBytes(attributes[1:])
	addAlgorithm(b, oidSM2Sign)
	b.AddASN1OctetString(p.signature)
}

// decode finds the four parts and refuses every other encoding of them.
func decode(der []byte, outer asn1.ObjectIdentifier) (*parts, error) {
	p, err := find(der)
	if err != nil {
		return nil, err
	}
	if p.signed, err = p.attributes(); err != nil {
		return nil, err
	}
	again, err := p.encode(outer, p.signed)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if !bytes.Equal(again, der) {
		return nil, fmt.Errorf("%w: differs from its re-encoding", ErrMalformed)
	}
	return p, nil
}

// find walks to the four parts without judging what lies between; decode
// compares all of it afterwards.
func find(der []byte) (*parts, error) {
	var info, explicit, signed, content, octets, certs, certDER, signers, signer cryptobyte.String
	in := cryptobyte.String(der)
	ok := in.ReadASN1(&info, tag.SEQUENCE) &&
		info.SkipASN1(tag.OBJECT_IDENTIFIER) &&
		info.ReadASN1(&explicit, context0) &&
		explicit.ReadASN1(&signed, tag.SEQUENCE) &&
		signed.SkipASN1(tag.INTEGER) && signed.SkipASN1(tag.SET) &&
		signed.ReadASN1(&content, tag.SEQUENCE) &&
		content.SkipASN1(tag.OBJECT_IDENTIFIER) &&
		content.ReadASN1(&octets, context0) &&
		octets.ReadASN1(&octets, tag.OCTET_STRING) &&
		signed.ReadASN1(&certs, context0) &&
		certs.ReadASN1Element(&certDER, tag.SEQUENCE) &&
		signed.ReadASN1(&signers, tag.SET) &&
		signers.ReadASN1(&signer, tag.SEQUENCE)
	if !ok {
		return nil, fmt.Errorf("%w: not a SignedData with one certificate and one signer", ErrMalformed)
	}
	cert, err := ParseCertificate(certDER)
	if err != nil {
		return nil, fmt.Errorf("%w: certificate: %w", ErrMalformed, err)
	}
	p := &parts{content: octets, digest: sm.Sum(octets), cert: cert}
	return p, p.findSigner(signer)
}

func (p *parts) findSigner(signer cryptobyte.String) error {
	var attributes, signature cryptobyte.String
	ok := signer.SkipASN1(tag.INTEGER) && signer.SkipASN1(tag.SEQUENCE) && signer.SkipASN1(tag.SEQUENCE) &&
		signer.ReadASN1(&attributes, context0) &&
		signer.SkipASN1(tag.SEQUENCE) &&
		signer.ReadASN1(&signature, tag.OCTET_STRING)
	if !ok {
		return fmt.Errorf("%w: not a signer with attributes and a signature", ErrMalformed)
	}
	p.signature = signature
	for !attributes.Empty() {
		var a, value cryptobyte.String
		var oid asn1.ObjectIdentifier
		if !attributes.ReadASN1(&a, tag.SEQUENCE) || !a.ReadASN1ObjectIdentifier(&oid) || !a.ReadASN1(&value, tag.SET) {
			return fmt.Errorf("%w: attributes", ErrMalformed)
		}
		if oid.Equal(oidSigningTime) && !readTime(value, &p.time) {
			return fmt.Errorf("%w: signingTime", ErrMalformed)
		}
	}
	if p.time.IsZero() {
		return fmt.Errorf("%w: signingTime is missing", ErrMalformed)
	}
	return nil
}

func readTime(value cryptobyte.String, t *time.Time) bool {
	if value.PeekASN1Tag(tag.UTCTime) {
		return value.ReadASN1UTCTime(t)
	}
	return value.ReadASN1GeneralizedTime(t)
}
