package cms

import (
	"encoding/asn1"
	"fmt"
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
	signer    []byte // issuer and serial number of the certificate
	time      time.Time
	signature []byte
	signed    []byte // attributes as the SET that is signed
}

// The pieces that never change.
var (
	version1   = []byte{byte(tag.INTEGER), 1, 1}
	typeData   = encoded(oidData)
	sm3        = algorithm(oidSM3)
	sm2Sign    = algorithm(oidSM2Sign)
	typeSigned = map[string][]byte{oidSignedData.String(): encoded(oidSignedData), oidSignedDataRFC.String(): encoded(oidSignedDataRFC)}

	attributeType   = encoded(oidContentType)
	attributeDigest = encoded(oidMessageDigest)
	attributeTime   = encoded(oidSigningTime)
)

func encoded(oid asn1.ObjectIdentifier) []byte {
	var b cryptobyte.Builder
	b.AddASN1ObjectIdentifier(oid)
	return b.BytesOrPanic() // of a constant
}

// algorithm has NULL parameters, as other implementations of GB/T 35275 write
// them: what they sign with these attributes is in our encoding, too.
func algorithm(oid asn1.ObjectIdentifier) []byte {
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1NULL()
	})
	return b.BytesOrPanic() // of a constant
}

// signerOf names a certificate as a signer does.
func signerOf(cert *smx509.Certificate) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(cert.RawIssuer)
		b.AddASN1BigInt(cert.SerialNumber)
	})
	return b.Bytes()
}

// attributes gives the signed attributes as the SET that is signed. DER orders
// the elements of a SET OF by their bytes; these three differ in their lengths.
func (p *parts) attributes() ([]byte, error) {
	stamp, kind, err := encodeTime(p.time)
	if err != nil {
		return nil, err
	}
	return written(func(w *writer) {
		w.wrapped(tag.SET, func() {
			w.attribute(attributeDigest, func() { w.wrapped(tag.OCTET_STRING, func() { w.add(p.digest[:]) }) })
			w.attribute(attributeTime, func() { w.wrapped(kind, func() { w.add(stamp) }) })
			w.attribute(attributeType, func() { w.add(typeData) })
		})
	}), nil
}

func (w *writer) attribute(oid []byte, value func()) {
	w.wrapped(tag.SEQUENCE, func() {
		w.wrapped(tag.SET, value)
		w.add(oid)
	})
}

// encodeTime gives UTCTime until 2049 and GeneralizedTime after, as RFC 5652
// does. What lies before has no encoding here, and nothing was signed then.
func encodeTime(t time.Time) ([]byte, tag.Tag, error) {
	t = t.UTC()
	switch {
	case t.Year() < 1950 || t.Year() > 9999:
		return nil, 0, fmt.Errorf("%w: a signing time in the year %d", ErrMalformed, t.Year())
	case t.Before(maxUTC):
		return t.AppendFormat(nil, "060102150405Z"), tag.UTCTime, nil
	}
	return t.AppendFormat(nil, "20060102150405Z"), tag.GeneralizedTime, nil
}

// encode writes the object under an outer content type.
func (p *parts) encode(outer asn1.ObjectIdentifier) []byte {
	return written(func(w *writer) { p.write(w, outer) })
}

// write gives the object to a writer, the last byte first.
func (p *parts) write(w *writer, outer asn1.ObjectIdentifier) {
	w.wrapped(tag.SEQUENCE, func() {
		w.wrapped(context0, func() {
			w.wrapped(tag.SEQUENCE, func() {
				w.wrapped(tag.SET, func() { w.wrapped(tag.SEQUENCE, func() { p.writeSigner(w) }) })
				w.wrapped(context0, func() { w.add(p.cert.Raw) })
				w.wrapped(tag.SEQUENCE, func() {
					w.wrapped(context0, func() { w.wrapped(tag.OCTET_STRING, func() { w.add(p.content) }) })
					w.add(typeData)
				})
				w.wrapped(tag.SET, func() { w.add(sm3) })
				w.add(version1)
			})
		})
		w.add(typeSigned[outer.String()])
	})
}

func (p *parts) writeSigner(w *writer) {
	w.wrapped(tag.OCTET_STRING, func() { w.add(p.signature) })
	w.add(sm2Sign)
	// The same bytes as the signed SET, under the tag [0] IMPLICIT.
	w.add(p.signed[1:])
	w.add([]byte{byte(context0)})
	w.add(sm3)
	w.add(p.signer)
	w.add(version1)
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
	if !same(der, func(w *writer) { p.write(w, outer) }) {
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
	cert, err := recall(certDER)
	if err != nil {
		return nil, fmt.Errorf("%w: certificate: %w", ErrMalformed, err)
	}
	p := &parts{content: octets, digest: sm.Sum(octets), cert: cert.cert, signer: cert.signer}
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
