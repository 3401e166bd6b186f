package certs

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/asn1"
	"fmt"
	"slices"
	"time"

	"github.com/emmansun/gmsm/smx509"
	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// The statuses of a certificate.
const (
	OCSPGood    = "good"
	OCSPRevoked = "revoked"
	OCSPUnknown = "unknown"
)

// OCSPAnswer is what a responder said of one certificate.
type OCSPAnswer struct {
	Status     string
	Effective  time.Time // of a revocation
	Reason     string    // of a revocation, as in [RevokedSerial]
	ThisUpdate time.Time
	NextUpdate time.Time // zero: newer status is always there
	ProducedAt time.Time
	Fresh      bool // it answers this very request: the nonce came back
}

var (
	statusGood    = tag.Tag(0).ContextSpecific()
	statusRevoked = tag.Tag(1).ContextSpecific().Constructed()
	statusUnknown = tag.Tag(2).ContextSpecific()
	byKey         = explicit2
)

// maxOCSPAge is how old an answer without nextUpdate may be.
const maxOCSPAge = 24 * time.Hour

// single is one SingleResponse.
type single struct {
	id     *certID
	answer OCSPAnswer
}

// ocspResponse is a response that is well formed; nothing is known yet about
// who signed it.
type ocspResponse struct {
	signed   signedDER
	name     []byte // subject of the responder (DER), empty when it is named by its key
	produced time.Time
	list     []single
	nonce    []byte
	certs    [][]byte
}

// ParseOCSPResponse reads a response and looks for the answer to the request.
// The signer is the issuer (DER) itself, or one whose certificate comes with
// the response, was issued directly by it, and is for signing OCSP
// (extendedKeyUsage OCSPSigning, digitalSignature, not a CA, valid now).
// A delegate that q.Revoked knows as revoked by now does not count.
// thisUpdate and nextUpdate bound its use; a nonce that comes back must be the
// request's. Many responders sign in advance and give none: then Fresh is
// false, and the times alone limit a replay.
func (q *OCSPRequest) ParseOCSPResponse(der, issuer []byte, now time.Time) (*OCSPAnswer, error) {
	r, err := parseOCSPResponse(der)
	if err != nil {
		return nil, err
	}
	ca, err := smx509.ParseCertificate(issuer)
	if err != nil {
		return nil, &Error{Code: codeChain, Detail: "the issuer's certificate cannot be read", Err: err}
	}
	if err := r.verify(ca, now, q.Revoked); err != nil {
		return nil, err
	}
	if r.nonce != nil && !bytes.Equal(r.nonce, q.Nonce) {
		return nil, ocspFail("it answers another request: the nonce is not ours")
	}
	i := slices.IndexFunc(r.list, func(s single) bool { return s.id.is(q.id) })
	if i < 0 {
		return nil, ocspFail("it does not speak of certificate %s", q.Serial)
	}
	a := r.list[i].answer
	a.ProducedAt, a.Fresh = r.produced, r.nonce != nil
	return &a, a.checkTime(now)
}

func (a *OCSPAnswer) checkTime(now time.Time) error {
	until := a.NextUpdate
	if until.IsZero() {
		until = a.ThisUpdate.Add(maxOCSPAge)
	}
	if a.ThisUpdate.After(now.Add(clockSkew)) || a.ProducedAt.After(now.Add(clockSkew)) || now.After(until.Add(clockSkew)) {
		return fail(codeOCSPTime, "the answer is for %s to %s: the responder gives an old one, or a clock is wrong",
			a.ThisUpdate.Format(time.RFC3339), until.Format(time.RFC3339))
	}
	return nil
}

// responseErrors are OCSPResponseStatus by number; 4 is not used.
var responseErrors = map[int]string{
	1: "malformedRequest", 2: "internalError", 3: "tryLater", 5: "sigRequired", 6: "unauthorized",
}

func parseOCSPResponse(der []byte) (*ocspResponse, error) {
	if len(der) > MaxOCSPResponse {
		return nil, ocspFail("%d bytes, at most %d are possible", len(der), MaxOCSPResponse)
	}
	in := cryptobyte.String(der)
	var outer, wrapped, body, octets, basic cryptobyte.String
	var status int
	if !in.ReadASN1(&outer, tag.SEQUENCE) || !in.Empty() || !outer.ReadASN1Enum(&status) {
		return nil, ocspFail("not an OCSP response in DER, or bytes follow it")
	}
	if status != 0 {
		word := responseErrors[status]
		if word == "" || !outer.Empty() {
			return nil, ocspFail("status %d", status)
		}
		return nil, ocspFail("the responder says %s", word)
	}
	var kind asn1.ObjectIdentifier
	ok := outer.ReadASN1(&wrapped, explicit0) && outer.Empty() &&
		wrapped.ReadASN1(&body, tag.SEQUENCE) && wrapped.Empty() &&
		body.ReadASN1ObjectIdentifier(&kind) && kind.Equal(oidOCSPBasic) &&
		body.ReadASN1(&octets, tag.OCTET_STRING) && body.Empty() &&
		octets.ReadASN1(&basic, tag.SEQUENCE) && octets.Empty()
	if !ok {
		return nil, ocspFail("not a basic response")
	}
	r := new(ocspResponse)
	if r.signed, ok = readSigned(&basic); !ok {
		return nil, ocspFail("not signed with SM2 and SM3 (OID %s)", oidSM2WithSM3)
	}
	if err := r.readCerts(basic); err != nil {
		return nil, err
	}
	return r, r.readData(r.signed.tbs)
}

func (r *ocspResponse) readCerts(in cryptobyte.String) error {
	if in.Empty() {
		return nil
	}
	var wrapped, list cryptobyte.String
	if !in.ReadASN1(&wrapped, explicit0) || !in.Empty() || !wrapped.ReadASN1(&list, tag.SEQUENCE) || !wrapped.Empty() {
		return ocspFail("certificates")
	}
	for !list.Empty() {
		var one cryptobyte.String
		if len(r.certs) == maxOCSPSigners || !list.ReadASN1Element(&one, tag.SEQUENCE) {
			return ocspFail("certificates: at most %d are expected", maxOCSPSigners)
		}
		r.certs = append(r.certs, one)
	}
	return nil
}

func (r *ocspResponse) readData(tbs cryptobyte.String) error {
	var data, list cryptobyte.String
	if !tbs.ReadASN1(&data, tag.SEQUENCE) || !r.readResponder(&data) {
		return ocspFail("responderID")
	}
	if !readGeneralized(&data, &r.produced) || !data.ReadASN1(&list, tag.SEQUENCE) || list.Empty() {
		return ocspFail("producedAt and at least one answer are expected")
	}
	for !list.Empty() {
		s, ok := readSingle(&list)
		if !ok || len(r.list) == maxOCSPAnswers {
			return ocspFail("answer %d, of at most %d", len(r.list), maxOCSPAnswers)
		}
		r.list = append(r.list, s)
	}
	if data.Empty() {
		return nil
	}
	var extensions cryptobyte.String
	if !data.ReadASN1(&extensions, explicit1) || !data.Empty() {
		return ocspFail("responseExtensions")
	}
	var err error
	r.nonce, err = readNonce(extensions)
	return err
}

// readResponder reads by which name the responder goes. A key hash is SHA-1 by
// RFC 6960 and is not compared: the signature is verified in any case.
func (r *ocspResponse) readResponder(data *cryptobyte.String) bool {
	var id, inner cryptobyte.String
	if data.PeekASN1Tag(explicit1) {
		ok := data.ReadASN1(&id, explicit1) && id.ReadASN1Element(&inner, tag.SEQUENCE) && id.Empty()
		r.name = inner
		return ok
	}
	return data.ReadASN1(&id, byKey) && id.ReadASN1(&inner, tag.OCTET_STRING) && id.Empty() &&
		len(inner) > 0 && len(inner) <= maxResponseID
}

func readSingle(list *cryptobyte.String) (s single, ok bool) {
	var one, next cryptobyte.String
	if !list.ReadASN1(&one, tag.SEQUENCE) {
		return s, false
	}
	if s.id, ok = readCertID(&one); !ok || !s.answer.readStatus(&one) || !readGeneralized(&one, &s.answer.ThisUpdate) {
		return s, false
	}
	if one.PeekASN1Tag(explicit0) {
		if !one.ReadASN1(&next, explicit0) || !readGeneralized(&next, &s.answer.NextUpdate) || !next.Empty() ||
			s.answer.NextUpdate.Before(s.answer.ThisUpdate) {
			return s, false
		}
	}
	if one.Empty() {
		return s, true
	}
	var wrapped, sequence cryptobyte.String
	if !one.ReadASN1(&wrapped, explicit1) || !one.Empty() || !wrapped.ReadASN1(&sequence, tag.SEQUENCE) || !wrapped.Empty() {
		return s, false
	}
	extensions, ok := readExtensions(sequence)
	return s, ok && !slices.ContainsFunc(extensions, func(e extension) bool { return e.critical })
}

func (a *OCSPAnswer) readStatus(in *cryptobyte.String) bool {
	var status cryptobyte.String
	switch {
	case in.PeekASN1Tag(statusGood):
		a.Status = OCSPGood
		return in.ReadASN1(&status, statusGood) && status.Empty()
	case in.PeekASN1Tag(statusUnknown):
		a.Status = OCSPUnknown
		return in.ReadASN1(&status, statusUnknown) && status.Empty()
	}
	a.Status, a.Reason = OCSPRevoked, crlReasons[0]
	if !in.ReadASN1(&status, statusRevoked) || !readGeneralized(&status, &a.Effective) {
		return false
	}
	if status.Empty() {
		return true
	}
	var wrapped cryptobyte.String
	if !status.ReadASN1(&wrapped, explicit0) || !status.Empty() {
		return false
	}
	n, ok := readReason(&wrapped)
	a.Reason = crlReasons[n]
	return ok && wrapped.Empty()
}

// verify checks who signed.
func (r *ocspResponse) verify(ca *smx509.Certificate, now time.Time, revoked func([]byte) *Revocation) error {
	if !isSM2(ca) || !ca.IsCA {
		return fail(codeUsage, "certificate %s is not one of an authority (a CA with an SM2 key)", ca.SerialNumber)
	}
	if r.by(ca) {
		return nil
	}
	for _, der := range r.certs {
		delegate, err := smx509.ParseCertificate(der)
		if err != nil {
			return &Error{Code: codeOCSPSignature, Detail: "response: a certificate in it cannot be read", Err: err}
		}
		if !r.by(delegate) {
			continue
		}
		if err := mayAnswer(delegate, ca, now); err != nil || revoked == nil {
			return err
		}
		return notRevoked(delegate, revoked(der), now)
	}
	return fail(codeOCSPSignature, "response: neither the issuer nor a delegate whose certificate is in it has signed")
}

func (r *ocspResponse) by(cert *smx509.Certificate) bool {
	pub, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || r.name != nil && !bytes.Equal(r.name, cert.RawSubject) {
		return false
	}
	return sm.Verify(pub, r.signed.tbs, r.signed.signature)
}

// notRevoked refuses a delegate whose certificate was revoked. Whoever stole
// its key would otherwise go on saying good.
func notRevoked(delegate *smx509.Certificate, r *Revocation, now time.Time) error {
	if r == nil || now.Before(r.Effective) {
		return nil
	}
	return fail(codeOCSPSignature, "response: the delegate's certificate %s is revoked since %s (%s, by the %s): the issuer gives its responder another one",
		delegate.SerialNumber, r.Effective.UTC().Format(time.RFC3339), r.Reason, r.Source)
}

// mayAnswer judges a delegate's certificate by itself.
func mayAnswer(delegate, ca *smx509.Certificate, now time.Time) error {
	bad := func(why string) error {
		return fail(codeOCSPSignature, "response: the delegate's certificate %s %s", delegate.SerialNumber, why)
	}
	if !isSM2(delegate) || !issuedBy(delegate, ca) {
		return bad("was not issued by the issuer itself")
	}
	if delegate.IsCA || delegate.KeyUsage&smx509.KeyUsageDigitalSignature == 0 ||
		!slices.Contains(delegate.ExtKeyUsage, smx509.ExtKeyUsageOCSPSigning) || len(delegate.UnhandledCriticalExtensions) > 0 {
		return bad("is not for signing OCSP")
	}
	if now.Before(delegate.NotBefore.Add(-clockSkew)) || now.After(delegate.NotAfter) {
		return bad("is not valid now")
	}
	return nil
}

// OCSPResponder signs answers: the issuer itself, or its delegate, whose
// certificate then comes along. Sign computes Z and SM3 itself.
type OCSPResponder struct {
	Issuer      []byte // DER
	Certificate []byte // of the delegate, DER; empty when the issuer signs
	Sign        func([]byte) ([]byte, error)
}

// Answer makes the response (DER) to a request. produced is now; an answer
// about another issuer's certificate is unauthorized, as RFC 6960 has it.
func (r *OCSPResponder) Answer(q *OCSPRequest, a OCSPAnswer, produced time.Time) ([]byte, error) {
	ca, err := smx509.ParseCertificate(r.Issuer)
	if err != nil {
		return nil, &Error{Code: codeChain, Detail: "the issuer's certificate cannot be read", Err: err}
	}
	if !q.about(ca) {
		return OCSPRefusal(6)
	}
	by, more := ca, func(*cryptobyte.Builder) {}
	if len(r.Certificate) > 0 {
		if by, err = smx509.ParseCertificate(r.Certificate); err != nil {
			return nil, &Error{Code: codeChain, Detail: "the responder's certificate cannot be read", Err: err}
		}
		more = func(b *cryptobyte.Builder) {
			b.AddASN1(explicit0, func(b *cryptobyte.Builder) {
				b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(by.Raw) })
			})
		}
	}
	tbs, err := responseData(by.RawSubject, q, a, produced)
	if err != nil {
		return nil, err
	}
	signature, err := r.Sign(tbs)
	if err != nil {
		return nil, fmt.Errorf("certs: OCSP: %w", err)
	}
	basic, err := sealed(tbs, signature, more)
	if err != nil {
		return nil, err
	}
	return ocspWrap(0, basic)
}

// OCSPRefusal is a response without an answer, by its status of RFC 6960:
// 1 malformedRequest, 2 internalError, 3 tryLater, 6 unauthorized.
func OCSPRefusal(status int) ([]byte, error) { return ocspWrap(status, nil) }

func ocspWrap(status int, basic []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Enum(int64(status))
		if basic == nil {
			return
		}
		b.AddASN1(explicit0, func(b *cryptobyte.Builder) {
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidOCSPBasic)
				b.AddASN1OctetString(basic)
			})
		})
	})
	return b.Bytes()
}

func responseData(name []byte, q *OCSPRequest, a OCSPAnswer, produced time.Time) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(explicit1, func(b *cryptobyte.Builder) { b.AddBytes(name) })
		b.AddASN1GeneralizedTime(produced.UTC())
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				q.id.add(b)
				a.addStatus(b)
				b.AddASN1GeneralizedTime(a.ThisUpdate.UTC())
				if !a.NextUpdate.IsZero() {
					b.AddASN1(explicit0, func(b *cryptobyte.Builder) { b.AddASN1GeneralizedTime(a.NextUpdate.UTC()) })
				}
			})
		})
		addNonce(b, explicit1, q.Nonce)
	})
	return b.Bytes()
}

func (a *OCSPAnswer) addStatus(b *cryptobyte.Builder) {
	switch a.Status {
	case OCSPGood:
		b.AddASN1(statusGood, func(*cryptobyte.Builder) {})
	case OCSPRevoked:
		b.AddASN1(statusRevoked, func(b *cryptobyte.Builder) {
			b.AddASN1GeneralizedTime(a.Effective.UTC())
			if n := reasonNumber(a.Reason); n != 0 {
				b.AddASN1(explicit0, func(b *cryptobyte.Builder) { b.AddASN1Enum(int64(n)) })
			}
		})
	default:
		b.AddASN1(statusUnknown, func(*cryptobyte.Builder) {})
	}
}

// RevokedByOCSP gathers what a responder said of an issuer's certificates in
// the form in which a directory takes revocations, [Directory.WithCRLs].
func RevokedByOCSP(issuer []byte, this time.Time, list []RevokedSerial) *CRL {
	return gathered(issuer, SourceOCSP, this, list)
}
