package certs

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/asn1"
	"encoding/pem"
	"time"

	"github.com/emmansun/gmsm/smx509"
	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// Object identifiers of GM/T 0006, RFC 5280, RFC 2986 and RFC 6960.
var (
	oidSM2WithSM3   = asn1.ObjectIdentifier{1, 2, 156, 10197, 1, 501}
	oidSM2Curve     = asn1.ObjectIdentifier{1, 2, 156, 10197, 1, 301}
	oidSM3          = asn1.ObjectIdentifier{1, 2, 156, 10197, 1, 401}
	oidSHA256       = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidECPublicKey  = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidKeyUsage     = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidBasic        = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidCRLNumber    = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidReason       = asn1.ObjectIdentifier{2, 5, 29, 21}
	oidInvalidity   = asn1.ObjectIdentifier{2, 5, 29, 24}
	oidAuthorityKey = asn1.ObjectIdentifier{2, 5, 29, 35}
)

var (
	explicit0 = tag.Tag(0).ContextSpecific().Constructed()
	explicit1 = tag.Tag(1).ContextSpecific().Constructed()
	explicit2 = tag.Tag(2).ContextSpecific().Constructed()
)

// signedDER is what certification requests, CRLs and OCSP responses have in
// common: bytes, and an SM2 signature with SM3 over them.
type signedDER struct {
	tbs       []byte // the whole element, as it is signed
	signature []byte
}

// readSigned reads the three from the content of their SEQUENCE. A signature
// by any other algorithm is not read.
func readSigned(in *cryptobyte.String) (s signedDER, ok bool) {
	var tbs, algorithm, signature cryptobyte.String
	if !in.ReadASN1Element(&tbs, tag.SEQUENCE) || !in.ReadASN1(&algorithm, tag.SEQUENCE) || !isSM2WithSM3(algorithm) {
		return s, false
	}
	if !readBits(in, &signature) {
		return s, false
	}
	return signedDER{tbs, signature}, true
}

// isSM2WithSM3 judges the content of an AlgorithmIdentifier: the parameters
// are absent, as GM/T 0006 has them, or NULL, as some authorities write.
func isSM2WithSM3(algorithm cryptobyte.String) bool {
	var oid asn1.ObjectIdentifier
	return algorithm.ReadASN1ObjectIdentifier(&oid) && oid.Equal(oidSM2WithSM3) && absentOrNull(algorithm)
}

func absentOrNull(parameters cryptobyte.String) bool {
	return parameters.Empty() || bytes.Equal(parameters, []byte{5, 0})
}

func addSM2WithSM3(b *cryptobyte.Builder) {
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidSM2WithSM3) })
}

// readBits reads a BIT STRING of whole bytes.
func readBits(in, out *cryptobyte.String) bool {
	return in.ReadASN1(out, tag.BIT_STRING) && len(*out) > 0 && (*out)[0] == 0 && out.Skip(1)
}

// readKey reads a SubjectPublicKeyInfo with an uncompressed SM2 key.
func readKey(in *cryptobyte.String) (*ecdsa.PublicKey, bool) {
	var info, algorithm, point cryptobyte.String
	var kind, curve asn1.ObjectIdentifier
	ok := in.ReadASN1(&info, tag.SEQUENCE) && info.ReadASN1(&algorithm, tag.SEQUENCE) &&
		algorithm.ReadASN1ObjectIdentifier(&kind) && kind.Equal(oidECPublicKey) &&
		algorithm.ReadASN1ObjectIdentifier(&curve) && curve.Equal(oidSM2Curve) && algorithm.Empty() &&
		readBits(&info, &point) && info.Empty()
	if !ok {
		return nil, false
	}
	pub, err := sm.ParsePublicKey(point)
	return pub, err == nil
}

func addKey(b *cryptobyte.Builder, pub *ecdsa.PublicKey) {
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidECPublicKey)
			b.AddASN1ObjectIdentifier(oidSM2Curve)
		})
		b.AddASN1BitString(sm.PublicKeyBytes(pub))
	})
}

// sealed puts a signature behind the bytes it covers, and what may follow.
func sealed(tbs, signature []byte, more func(*cryptobyte.Builder)) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		addSM2WithSM3(b)
		b.AddASN1BitString(signature)
		if more != nil {
			more(b)
		}
	})
	return b.Bytes()
}

// extension is one X.509 extension.
type extension struct {
	id       asn1.ObjectIdentifier
	critical bool
	value    cryptobyte.String
}

// maxExtensions bounds a list of extensions; real ones have a handful.
const maxExtensions = 32

// readExtensions reads the content of a SEQUENCE OF Extension, each once.
func readExtensions(in cryptobyte.String) (list []extension, ok bool) {
	for !in.Empty() {
		e, ok := readExtension(&in)
		if !ok || len(list) == maxExtensions {
			return nil, false
		}
		for _, other := range list {
			if other.id.Equal(e.id) {
				return nil, false
			}
		}
		list = append(list, e)
	}
	return list, len(list) > 0
}

func readExtension(in *cryptobyte.String) (e extension, ok bool) {
	var one cryptobyte.String
	if !in.ReadASN1(&one, tag.SEQUENCE) || !one.ReadASN1ObjectIdentifier(&e.id) {
		return e, false
	}
	if one.PeekASN1Tag(tag.BOOLEAN) && (!one.ReadASN1Boolean(&e.critical) || !e.critical) {
		return e, false // false is the default, and DER leaves defaults out
	}
	return e, one.ReadASN1(&e.value, tag.OCTET_STRING) && one.Empty()
}

func addExtension(b *cryptobyte.Builder, id asn1.ObjectIdentifier, critical bool, value func(*cryptobyte.Builder)) {
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(id)
		if critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1(tag.OCTET_STRING, value)
	})
}

// The two forms of time that RFC 5280 permits: always with seconds, always Z.
const (
	utcForm         = "060102150405Z"
	generalizedForm = "20060102150405Z"
)

var year2050 = time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC)

// readTime reads UTCTime for times until 2049 and GeneralizedTime after.
func readTime(in *cryptobyte.String, t *time.Time) bool {
	if in.PeekASN1Tag(tag.GeneralizedTime) {
		return readGeneralized(in, t) && !t.Before(year2050)
	}
	var text cryptobyte.String
	if !in.ReadASN1(&text, tag.UTCTime) || len(text) != len(utcForm) {
		return false
	}
	// A year of two digits is one of 1950 to 2049.
	century := "20"
	if text[0] >= '5' {
		century = "19"
	}
	return parseTime(century+string(text), t)
}

func readGeneralized(in *cryptobyte.String, t *time.Time) bool {
	var text cryptobyte.String
	return in.ReadASN1(&text, tag.GeneralizedTime) && parseTime(string(text), t)
}

func parseTime(text string, t *time.Time) bool {
	at, err := time.Parse(generalizedForm, text)
	*t = at
	return err == nil && len(text) == len(generalizedForm)
}

func addTime(b *cryptobyte.Builder, t time.Time) {
	if t.Before(year2050) {
		b.AddASN1UTCTime(t.UTC())
		return
	}
	b.AddASN1GeneralizedTime(t.UTC())
}

// fromPEM gives the DER of a file that is DER or one PEM block of a type.
func fromPEM(b []byte, kinds ...string) ([]byte, bool) {
	if !looksLikePEM(b) {
		return b, true
	}
	block, rest := pem.Decode(b)
	if block == nil || len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		return nil, false
	}
	for _, kind := range kinds {
		if block.Type == kind {
			return block.Bytes, true
		}
	}
	return nil, false
}

// looksLikePEM tells text from DER, in which the words of PEM may occur, too:
// a SEQUENCE of more than 127 bytes begins as no text does.
func looksLikePEM(b []byte) bool {
	binary := len(b) > 1 && b[0] == 0x30 && b[1] >= 0x80
	return !binary && bytes.Contains(b, []byte("-----BEGIN "))
}

// issuerKey reads the certificate of an authority that signs what a usage
// stands for, CRLs for instance.
func issuerKey(der []byte, usage smx509.KeyUsage, word string) (*smx509.Certificate, *ecdsa.PublicKey, error) {
	cert, err := smx509.ParseCertificate(der)
	if err != nil {
		return nil, nil, &Error{Code: codeChain, Detail: "the issuer's certificate cannot be read", Err: err}
	}
	if !isSM2(cert) || !cert.BasicConstraintsValid || !cert.IsCA {
		return nil, nil, fail(codeUsage, "certificate %s is not one of an authority (a CA with an SM2 key)", cert.SerialNumber)
	}
	if cert.KeyUsage&usage == 0 {
		return nil, nil, fail(codeUsage, "certificate %s lacks the key usage to sign %s", cert.SerialNumber, word)
	}
	return cert, cert.PublicKey.(*ecdsa.PublicKey), nil
}
