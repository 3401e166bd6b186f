package timestamp

import (
	"bytes"
	"encoding/asn1"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// Object identifiers of RFC 3161, RFC 5035, RFC 5652, GB/T 33560 and
// GB/T 35275.
var (
	oidTSTInfo       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidSignedDataGB  = asn1.ObjectIdentifier{1, 2, 156, 10197, 6, 1, 4, 2, 2}
	oidSM3           = asn1.ObjectIdentifier{1, 2, 156, 10197, 1, 401}
	oidSM2           = asn1.ObjectIdentifier{1, 2, 156, 10197, 1, 301}
	oidSM2Sign       = asn1.ObjectIdentifier{1, 2, 156, 10197, 1, 301, 1}
	oidSM2WithSM3    = asn1.ObjectIdentifier{1, 2, 156, 10197, 1, 501}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSigningTime   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 5}
	oidSigningCertV2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}
	oidExtKeyUsage   = asn1.ObjectIdentifier{2, 5, 29, 37}
)

var (
	context0     = tag.Tag(0).ContextSpecific().Constructed()
	context1     = tag.Tag(1).ContextSpecific().Constructed()
	context0Prim = tag.Tag(0).ContextSpecific()
	context1Prim = tag.Tag(1).ContextSpecific()
)

// Bounds of what a token may hold.
const (
	maxChain      = 8
	maxAttributes = 16
	maxExtensions = 16
)

// Token is a TimeStampToken that is well formed. Nothing about its signer is
// known before Verify.
type Token struct {
	Policy   asn1.ObjectIdentifier
	Imprint  sm.Digest
	Serial   []byte        // big-endian
	Time     time.Time     // genTime, UTC
	Accuracy time.Duration // zero when the authority states none
	Nonce    []byte        // big-endian; empty when there is none

	raw          []byte
	info         []byte   // TSTInfo, the signed content
	certificates [][]byte // DER, as embedded; perhaps none
	issuer       []byte   // of the signer's certificate, DER
	serial       []byte   // of the signer's certificate
	attributes   []byte   // as the SET that is signed
	signature    []byte
	signed       signedAttributes
}

// signedAttributes are the values that are looked at; any others are covered
// by the signature and say nothing here.
type signedAttributes struct {
	digest      []byte
	certHash    []byte
	certIssuer  []byte // optional, DER
	certSerial  []byte
	signingTime time.Time // optional
}

// Raw is the token's DER.
func (t *Token) Raw() []byte { return t.raw }

// Parse reads a token.
func Parse(der []byte) (*Token, error) {
	if len(der) > MaxToken {
		return nil, malformed("token: %d bytes, at most %d are possible", len(der), MaxToken)
	}
	t := &Token{raw: bytes.Clone(der)}
	signed, err := openContentInfo(t.raw)
	if err != nil {
		return nil, err
	}
	signer, err := t.readSignedData(signed)
	if err != nil {
		return nil, err
	}
	if err := t.readSigner(signer); err != nil {
		return nil, err
	}
	return t, t.readInfo(t.info)
}

func openContentInfo(der cryptobyte.String) (signed cryptobyte.String, err error) {
	var info, explicit cryptobyte.String
	var outer asn1.ObjectIdentifier
	if !der.ReadASN1(&info, tag.SEQUENCE) || !der.Empty() || !info.ReadASN1ObjectIdentifier(&outer) {
		return nil, malformed("token: not a ContentInfo")
	}
	if !outer.Equal(oidSignedData) && !outer.Equal(oidSignedDataGB) {
		return nil, malformed("token: not SignedData of RFC 5652 or GB/T 35275")
	}
	if !info.ReadASN1(&explicit, context0) || !info.Empty() || !explicit.ReadASN1(&signed, tag.SEQUENCE) || !explicit.Empty() {
		return nil, malformed("token: SignedData")
	}
	return signed, nil
}

// readSignedData gives the one SignerInfo.
func (t *Token) readSignedData(in cryptobyte.String) (signer cryptobyte.String, err error) {
	var version int
	var digests, content, explicit, octets, signers cryptobyte.String
	var contentType asn1.ObjectIdentifier
	if !in.ReadASN1Integer(&version) || version != 1 && version != 3 {
		return nil, malformed("token: SignedData of another version than 1 or 3")
	}
	if !in.ReadASN1(&digests, tag.SET) || !readAlgorithm(&digests, oidSM3) || !digests.Empty() {
		return nil, malformed("token: not exactly the digest algorithm SM3")
	}
	if !in.ReadASN1(&content, tag.SEQUENCE) || !content.ReadASN1ObjectIdentifier(&contentType) || !contentType.Equal(oidTSTInfo) {
		return nil, malformed("token: the content is not a TSTInfo")
	}
	if !content.ReadASN1(&explicit, context0) || !content.Empty() || !explicit.ReadASN1(&octets, tag.OCTET_STRING) || !explicit.Empty() {
		return nil, malformed("token: content")
	}
	t.info = octets
	if err := t.readCertificates(&in); err != nil {
		return nil, err
	}
	// Revocation lists at [1] would be refused here: their place is the
	// directory or the evidence file.
	if !in.ReadASN1(&signers, tag.SET) || !in.Empty() || !signers.ReadASN1(&signer, tag.SEQUENCE) || !signers.Empty() {
		return nil, malformed("token: not exactly one signer")
	}
	return signer, nil
}

func (t *Token) readCertificates(in *cryptobyte.String) error {
	var list cryptobyte.String
	var present bool
	if !in.ReadOptionalASN1(&list, &present, context0) {
		return malformed("token: certificates")
	}
	for present && !list.Empty() {
		var one cryptobyte.String
		if !list.ReadASN1Element(&one, tag.SEQUENCE) || len(t.certificates) == maxChain {
			return malformed("token: certificates, at most %d", maxChain)
		}
		t.certificates = append(t.certificates, one)
	}
	return nil
}

func (t *Token) readSigner(in cryptobyte.String) error {
	var version int
	var sid, element, signature cryptobyte.String
	if !in.ReadASN1Integer(&version) || version != 1 {
		return malformed("signer: not named by issuer and serial number")
	}
	if !in.ReadASN1(&sid, tag.SEQUENCE) || !readIssuerAndSerial(&sid, &t.issuer, &t.serial) {
		return malformed("signer: issuer and serial number")
	}
	if !readAlgorithm(&in, oidSM3) {
		return malformed("signer: not with SM3")
	}
	if !in.ReadASN1Element(&element, context0) {
		return malformed("signer: no signed attributes")
	}
	// The same bytes under the tag of a SET are what the signature covers.
	t.attributes = append([]byte{byte(tag.SET)}, element[1:]...)
	if !readAlgorithm(&in, oidSM2Sign, oidSM2WithSM3, oidSM2) {
		return malformed("signer: not with SM2")
	}
	if !in.ReadASN1(&signature, tag.OCTET_STRING) || !in.Empty() {
		return malformed("signer: unsigned attributes, or no signature")
	}
	t.signature = signature
	return t.readAttributes(t.attributes)
}

func readIssuerAndSerial(sid *cryptobyte.String, issuer, serial *[]byte) bool {
	var name cryptobyte.String
	if !sid.ReadASN1Element(&name, tag.SEQUENCE) {
		return false
	}
	*issuer = name
	return readNumber(sid, serial) && sid.Empty()
}

// readAttributes reads the SET in DER: sorted, every attribute once, each with
// exactly one value.
func (t *Token) readAttributes(set cryptobyte.String) error {
	var list cryptobyte.String
	if !set.ReadASN1(&list, tag.SET) || !set.Empty() {
		return malformed("signed attributes")
	}
	var before []byte
	seen := map[string]bool{}
	for !list.Empty() {
		var whole, a, values cryptobyte.String
		var oid asn1.ObjectIdentifier
		if !list.ReadASN1Element(&whole, tag.SEQUENCE) {
			return malformed("signed attributes")
		}
		if bytes.Compare(before, whole) > 0 || len(seen) == maxAttributes {
			return malformed("signed attributes: not in the order of DER, or more than %d", maxAttributes)
		}
		before = whole
		if !whole.ReadASN1(&a, tag.SEQUENCE) || !a.ReadASN1ObjectIdentifier(&oid) || !a.ReadASN1(&values, tag.SET) || !a.Empty() {
			return malformed("signed attributes")
		}
		if seen[oid.String()] {
			return malformed("signed attributes: %v is there twice", oid)
		}
		seen[oid.String()] = true
		if err := t.readAttribute(oid, values); err != nil {
			return err
		}
	}
	for _, need := range []asn1.ObjectIdentifier{oidContentType, oidMessageDigest, oidSigningCertV2} {
		if !seen[need.String()] {
			return malformed("signed attributes: %v is missing", need)
		}
	}
	return nil
}

func (t *Token) readAttribute(oid asn1.ObjectIdentifier, v cryptobyte.String) error {
	var one cryptobyte.String
	var contentType asn1.ObjectIdentifier
	var ok bool
	switch {
	case oid.Equal(oidContentType):
		ok = v.ReadASN1ObjectIdentifier(&contentType) && contentType.Equal(oidTSTInfo)
	case oid.Equal(oidMessageDigest):
		ok = v.ReadASN1(&one, tag.OCTET_STRING) && len(one) == sm.Size
		t.signed.digest = one
	case oid.Equal(oidSigningTime):
		ok = readTime(&v, &t.signed.signingTime)
	case oid.Equal(oidSigningCertV2):
		return t.readSigningCertificate(v)
	default:
		return nil
	}
	if !ok || !v.Empty() {
		return malformed("signed attribute %v", oid)
	}
	return nil
}

// readSigningCertificate reads the first ESSCertIDv2, which names the signer's
// certificate by its SM3; those that may follow narrow the chain and say
// nothing here.
func (t *Token) readSigningCertificate(v cryptobyte.String) error {
	var attribute, list, id, hash cryptobyte.String
	if !v.ReadASN1(&attribute, tag.SEQUENCE) || !v.Empty() || !attribute.ReadASN1(&list, tag.SEQUENCE) || !list.ReadASN1(&id, tag.SEQUENCE) {
		return malformed("signingCertificateV2")
	}
	if !readAlgorithm(&id, oidSM3) {
		return malformed("signingCertificateV2: not with SM3")
	}
	if !id.ReadASN1(&hash, tag.OCTET_STRING) || len(hash) != sm.Size {
		return malformed("signingCertificateV2: hash")
	}
	t.signed.certHash = hash
	if id.Empty() {
		return nil
	}
	var both, names, explicit, name cryptobyte.String
	directoryName := tag.Tag(4).ContextSpecific().Constructed()
	if !id.ReadASN1(&both, tag.SEQUENCE) || !id.Empty() || !both.ReadASN1(&names, tag.SEQUENCE) ||
		!names.ReadASN1(&explicit, directoryName) || !names.Empty() || !explicit.ReadASN1Element(&name, tag.SEQUENCE) || !explicit.Empty() ||
		!readNumber(&both, &t.signed.certSerial) || !both.Empty() {
		return malformed("signingCertificateV2: issuer and serial number")
	}
	t.signed.certIssuer = name
	return nil
}

// readTime reads UTCTime or GeneralizedTime in UTC.
func readTime(v *cryptobyte.String, at *time.Time) bool {
	if v.PeekASN1Tag(tag.UTCTime) {
		return v.ReadASN1UTCTime(at)
	}
	return readGeneralizedTime(v, at)
}

// readGeneralizedTime reads YYYYMMDDhhmmss[.f…]Z as RFC 3161 has it: the
// fraction does not end with a zero and is cut to nanoseconds.
func readGeneralizedTime(v *cryptobyte.String, at *time.Time) bool {
	var b cryptobyte.String
	if !v.ReadASN1(&b, tag.GeneralizedTime) || len(b) > 32 {
		return false
	}
	text, utc := strings.CutSuffix(string(b), "Z")
	seconds, fraction, has := strings.Cut(text, ".")
	if !utc || len(seconds) != 14 || has && (fraction == "" || strings.HasSuffix(fraction, "0") || strings.Trim(fraction, "0123456789") != "") {
		return false
	}
	t, err := time.Parse("20060102150405", seconds)
	if err != nil {
		return false
	}
	fraction = (fraction + "000000000")[:9]
	var ns time.Duration
	for _, c := range []byte(fraction) {
		ns = ns*10 + time.Duration(c-'0')
	}
	*at = t.Add(ns)
	return true
}

// readInfo reads the TSTInfo.
func (t *Token) readInfo(in cryptobyte.String) error {
	var seq cryptobyte.String
	var version int
	if !in.ReadASN1(&seq, tag.SEQUENCE) || !in.Empty() || !seq.ReadASN1Integer(&version) || version != 1 {
		return malformed("TSTInfo: not of version 1")
	}
	if !seq.ReadASN1ObjectIdentifier(&t.Policy) {
		return malformed("TSTInfo: policy")
	}
	if err := readImprint(&seq, &t.Imprint); err != nil {
		return err
	}
	if !readNumber(&seq, &t.Serial) {
		return malformed("TSTInfo: serial number")
	}
	if !readGeneralizedTime(&seq, &t.Time) {
		return malformed("TSTInfo: genTime")
	}
	if seq.PeekASN1Tag(tag.SEQUENCE) {
		if err := t.readAccuracy(&seq); err != nil {
			return err
		}
	}
	return t.readInfoRest(seq)
}

func (t *Token) readInfoRest(seq cryptobyte.String) error {
	var skipped, extensions cryptobyte.String
	var present bool
	if seq.PeekASN1Tag(tag.BOOLEAN) {
		var ordering bool
		if !seq.ReadASN1Boolean(&ordering) || !ordering {
			return malformed("TSTInfo: ordering") // DER leaves the default out
		}
	}
	if seq.PeekASN1Tag(tag.INTEGER) && !readNumber(&seq, &t.Nonce) {
		return malformed("TSTInfo: nonce")
	}
	if !seq.ReadOptionalASN1(&skipped, &present, context0) { // tsa: a name; the certificate says who it is
		return malformed("TSTInfo: tsa")
	}
	if !seq.ReadOptionalASN1(&extensions, &present, context1) || !seq.Empty() {
		return malformed("TSTInfo: extensions, or bytes left over")
	}
	return noneCritical(extensions)
}

// readAccuracy reads seconds, milliseconds and microseconds, each optional.
func (t *Token) readAccuracy(in *cryptobyte.String) error {
	var a cryptobyte.String
	var seconds uint32
	ok := in.ReadASN1(&a, tag.SEQUENCE)
	if ok && a.PeekASN1Tag(tag.INTEGER) {
		ok = a.ReadASN1Integer(&seconds)
	}
	t.Accuracy = time.Duration(seconds) * time.Second
	for _, part := range []struct {
		tag  tag.Tag
		unit time.Duration
	}{{context0Prim, time.Millisecond}, {context1Prim, time.Microsecond}} {
		if !ok || !a.PeekASN1Tag(part.tag) {
			continue
		}
		var n int64
		if ok = a.ReadASN1Int64WithTag(&n, part.tag) && n >= 1 && n <= 999; ok {
			t.Accuracy += time.Duration(n) * part.unit
		}
	}
	if !ok || !a.Empty() {
		return malformed("TSTInfo: accuracy")
	}
	return nil
}

// noneCritical refuses an extension that must be understood: none is known.
func noneCritical(list cryptobyte.String) error {
	for n := 0; !list.Empty(); n++ {
		var one cryptobyte.String
		var oid asn1.ObjectIdentifier
		if n == maxExtensions || !list.ReadASN1(&one, tag.SEQUENCE) || !one.ReadASN1ObjectIdentifier(&oid) {
			return malformed("TSTInfo: extensions")
		}
		if one.PeekASN1Tag(tag.BOOLEAN) {
			return malformed("TSTInfo: extension %v must be understood and is not known here", oid)
		}
		if !one.SkipASN1(tag.OCTET_STRING) || !one.Empty() {
			return malformed("TSTInfo: extension %v", oid)
		}
	}
	return nil
}
