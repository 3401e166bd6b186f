package certs

import (
	"bytes"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/emmansun/gmsm/smx509"
	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// Bounds of a certificate revocation list. One of the largest size takes
// about 32 MiB of memory: its bytes, and 16 bytes for each entry.
const (
	MaxCRL        = 16 << 20 // bytes
	maxCRLEntries = 1_000_000
	maxSerial     = 20 // bytes
)

// CRL is a certificate revocation list that an issuer signed. Immutable, safe
// for concurrent use.
type CRL struct {
	Issuer     []byte // the certificate (DER) it was verified with
	Number     *big.Int
	ThisUpdate time.Time
	NextUpdate time.Time // by when the next one is due; zero for answers of OCSP

	by      IssuerID
	source  string
	file    []byte     // DER as it was signed; nil for answers of OCSP
	raw     []byte     // what the signature covers
	entries []crlEntry // by serial
}

// crlEntry is one revoked serial number: where it is in raw, and the rest.
type crlEntry struct {
	effective int64 // seconds since 1970
	offset    uint32
	length    uint8
	reason    uint8
}

// RevokedSerial is one entry of a CRL. Reason is a word of the directory, or
// unspecified, certificate_hold or aa_compromise.
type RevokedSerial struct {
	Serial    *big.Int
	Effective time.Time
	Reason    string
}

// The reasons of RFC 5280 by their numbers, in the words of the directory.
// removeFromCRL (8) is for delta CRLs, which are refused; 7 is not used.
var crlReasons = [...]string{
	0: "unspecified", 1: "key_compromise", 2: "ca_compromise", 3: "affiliation_changed", 4: "superseded",
	5: "cessation", 6: "certificate_hold", 9: "privilege_withdrawn", 10: "aa_compromise",
}

// noReason is kept for an entry that gives none; its word is unspecified, too.
const noReason = 0xff

func reasonWord(n uint8) string {
	if n == noReason {
		n = 0
	}
	return crlReasons[n]
}

// ParseCRL reads a CRL, DER or PEM, and verifies it under its issuer's
// certificate (DER), which is trusted by other means. The signature is checked
// before the entries are read. It takes complete CRLs of version 2 alone: a
// critical extension that is not known here (delta CRLs, those for some
// reasons or of several issuers) could mean that a certificate is not listed
// and revoked nevertheless.
//
// A revocation is effective at the entry's invalidityDate, when it has one
// that is earlier than its revocationDate: the key was in other hands from
// then on, and only the paperwork took longer.
func ParseCRL(b, issuer []byte) (*CRL, error) {
	if len(b) > MaxCRL {
		return nil, fail(codeCRL, "%d bytes, at most %d are possible", len(b), MaxCRL)
	}
	der, ok := fromPEM(b, "X509 CRL")
	if !ok {
		return nil, fail(codeCRL, "not exactly one PEM block X509 CRL")
	}
	der = bytes.Clone(der)
	in := cryptobyte.String(der)
	var outer cryptobyte.String
	if !in.ReadASN1(&outer, tag.SEQUENCE) || !in.Empty() {
		return nil, fail(codeCRL, "not a CRL in DER, or bytes follow it")
	}
	s, ok := readSigned(&outer)
	if !ok || !outer.Empty() {
		return nil, fail(codeCRL, "not signed with SM2 and SM3 (OID %s)", oidSM2WithSM3)
	}
	ca, key, err := issuerKey(issuer, smx509.KeyUsageCRLSign, "CRLs")
	if err != nil {
		return nil, err
	}
	if !sm.Verify(key, s.tbs, s.signature) {
		return nil, fail(codeCRLSignature, "the CRL is not signed by the issuer %s", ca.SerialNumber)
	}
	c := &CRL{Issuer: bytes.Clone(issuer), by: issuerID(ca), file: der, raw: s.tbs, source: SourceCRL}
	return c, c.read(ca)
}

func (c *CRL) read(ca *smx509.Certificate) error {
	var list, algorithm, name, revoked, wrapped, extensions cryptobyte.String
	var version int
	in := cryptobyte.String(c.raw)
	if !in.ReadASN1(&list, tag.SEQUENCE) || !list.ReadASN1Integer(&version) || version != 1 {
		return fail(codeCRL, "a CRL of version 2 is expected")
	}
	if !list.ReadASN1(&algorithm, tag.SEQUENCE) || !isSM2WithSM3(algorithm) || !list.ReadASN1Element(&name, tag.SEQUENCE) {
		return fail(codeCRL, "signature algorithm or issuer")
	}
	if !bytes.Equal(name, ca.RawSubject) {
		return fail(codeCRL, "it is of another issuer than %.100q", ca.Subject)
	}
	if !readTime(&list, &c.ThisUpdate) || !readTime(&list, &c.NextUpdate) || c.NextUpdate.Before(c.ThisUpdate) {
		return fail(codeCRL, "thisUpdate and nextUpdate: both are needed, in the forms of RFC 5280 and in order")
	}
	if list.PeekASN1Tag(tag.SEQUENCE) {
		if !list.ReadASN1(&revoked, tag.SEQUENCE) || revoked.Empty() {
			return fail(codeCRL, "revokedCertificates")
		}
	}
	if !list.ReadASN1(&wrapped, explicit0) || !wrapped.ReadASN1(&extensions, tag.SEQUENCE) || !wrapped.Empty() || !list.Empty() {
		return fail(codeCRL, "crlExtensions: at least a CRL number is needed")
	}
	if err := c.readExtensions(extensions); err != nil {
		return err
	}
	return c.readEntries(revoked)
}

func (c *CRL) readExtensions(in cryptobyte.String) error {
	list, ok := readExtensions(in)
	if !ok {
		return fail(codeCRL, "crlExtensions")
	}
	for _, e := range list {
		switch {
		case e.id.Equal(oidCRLNumber):
			n := new(big.Int)
			if !e.value.ReadASN1Integer(n) || !e.value.Empty() || n.Sign() < 0 || n.BitLen() > 8*maxSerial {
				return fail(codeCRL, "CRL number")
			}
			c.Number = n
		case e.critical:
			return fail(codeCRL, "critical extension %s is not known here: only complete CRLs of one issuer are taken", e.id)
		}
	}
	if c.Number == nil {
		return fail(codeCRL, "it has no CRL number, by which an older one would be recognised")
	}
	return nil
}

func (c *CRL) readEntries(in cryptobyte.String) error {
	all := in
	n := 0
	for ; !all.Empty(); n++ { // counted before memory is taken for them
		if n == maxCRLEntries || !all.SkipASN1(tag.SEQUENCE) {
			return fail(codeCRL, "entry %d is not one, or more than %d are there", n, maxCRLEntries)
		}
	}
	c.entries = make([]crlEntry, 0, n)
	for i := range n {
		e, err := c.readEntry(&in)
		if err != nil {
			return within(fmt.Sprintf("entry %d", i), err)
		}
		c.entries = append(c.entries, e)
	}
	slices.SortFunc(c.entries, func(a, b crlEntry) int { return bytes.Compare(c.serial(a), c.serial(b)) })
	for i := 1; i < len(c.entries); i++ {
		if bytes.Equal(c.serial(c.entries[i-1]), c.serial(c.entries[i])) {
			return fail(codeCRL, "serial number %x is there twice", c.serial(c.entries[i]))
		}
	}
	return nil
}

func (c *CRL) serial(e crlEntry) []byte { return c.raw[e.offset : int(e.offset)+int(e.length)] }

func (c *CRL) readEntry(in *cryptobyte.String) (e crlEntry, err error) {
	var one, list, serial cryptobyte.String
	var at time.Time
	if !in.ReadASN1(&one, tag.SEQUENCE) {
		return e, fail(codeCRL, "not an entry")
	}
	if !readSerial(&one, &serial) {
		return e, fail(codeCRL, "serial number: 1 to %d bytes, positive, are expected", maxSerial)
	}
	// serial is a part of raw, and both end together with what follows it.
	e.offset = uint32(cap(c.raw) - cap(serial))
	e.length = uint8(len(serial))
	if !readTime(&one, &at) {
		return e, fail(codeCRL, "revocationDate")
	}
	e.effective, e.reason = at.Unix(), noReason
	if one.Empty() {
		return e, nil
	}
	if !one.ReadASN1(&list, tag.SEQUENCE) || !one.Empty() {
		return e, fail(codeCRL, "crlEntryExtensions")
	}
	return e, e.readExtensions(list)
}

// readSerial gives the bytes of a positive INTEGER, which DER makes minimal.
func readSerial(in, out *cryptobyte.String) bool {
	element := *in
	var b []byte
	if !in.ReadASN1Integer(&b) || len(b) == 0 || len(b) > maxSerial {
		return false
	}
	return element.ReadASN1(out, tag.INTEGER) && trimZero(out)
}

// trimZero takes the sign byte of a positive INTEGER away; false for others.
func trimZero(b *cryptobyte.String) bool {
	if (*b)[0]&0x80 != 0 {
		return false
	}
	if (*b)[0] == 0 {
		*b = (*b)[1:]
	}
	return len(*b) > 0 && len(*b) <= maxSerial
}

func (e *crlEntry) readExtensions(in cryptobyte.String) error {
	list, ok := readExtensions(in)
	if !ok {
		return fail(codeCRL, "crlEntryExtensions")
	}
	for _, x := range list {
		switch {
		case x.id.Equal(oidReason):
			n, ok := readReason(&x.value)
			if !ok || !x.value.Empty() {
				return fail(codeCRL, "reasonCode: none that a complete CRL has")
			}
			e.reason = n
		case x.id.Equal(oidInvalidity):
			var at time.Time
			if !readGeneralized(&x.value, &at) || !x.value.Empty() {
				return fail(codeCRL, "invalidityDate")
			}
			e.effective = min(e.effective, at.Unix())
		case x.critical:
			return fail(codeCRL, "critical extension %s is not known here", x.id)
		}
	}
	return nil
}

func readReason(in *cryptobyte.String) (uint8, bool) {
	var n int
	if !in.ReadASN1Enum(&n) || n < 0 || n >= len(crlReasons) || crlReasons[n] == "" {
		return 0, false
	}
	return uint8(n), true
}

// DER is the list as its issuer signed it, to be passed on; nil for answers of
// OCSP. It must not be changed.
func (c *CRL) DER() []byte { return c.file }

// Len is how many serial numbers are revoked.
func (c *CRL) Len() int { return len(c.entries) }

// Find says whether a serial number is revoked, since when and why.
func (c *CRL) Find(serial *big.Int) (RevokedSerial, bool) {
	e, ok := c.find(serial)
	if !ok {
		return RevokedSerial{}, false
	}
	return c.revoked(e), true
}

func (c *CRL) find(serial *big.Int) (crlEntry, bool) {
	if serial.Sign() <= 0 {
		return crlEntry{}, false
	}
	i, ok := slices.BinarySearchFunc(c.entries, serial.Bytes(), func(e crlEntry, s []byte) int {
		return bytes.Compare(c.serial(e), s)
	})
	if !ok {
		return crlEntry{}, false
	}
	return c.entries[i], true
}

// revocation is what the list says of a serial number; nil is nothing.
func (c *CRL) revocation(serial *big.Int) *Revocation {
	e, ok := c.find(serial)
	if !ok {
		return nil
	}
	r := c.revoked(e)
	return &Revocation{
		Effective: r.Effective, Reason: r.Reason, Source: c.source,
		Compromised: r.Reason == ReasonKeyCompromise || e.reason == noReason,
	}
}

func (c *CRL) revoked(e crlEntry) RevokedSerial {
	return RevokedSerial{new(big.Int).SetBytes(c.serial(e)), time.Unix(e.effective, 0).UTC(), reasonWord(e.reason)}
}

// Revoked lists the revoked serial numbers in the order of their bytes.
func (c *CRL) Revoked() []RevokedSerial {
	out := make([]RevokedSerial, len(c.entries))
	for i, e := range c.entries {
		out[i] = c.revoked(e)
	}
	return out
}

// Stale says whether the next CRL was due before a time. A stale CRL is shown
// and used: what it revoked stays revoked.
func (c *CRL) Stale(now time.Time) bool { return !c.NextUpdate.IsZero() && now.After(c.NextUpdate) }

// Replaces checks that a CRL may take the place of the one before it, nil for
// none: a lower number would take revocations back.
func (c *CRL) Replaces(before *CRL) error {
	if before == nil || before.Number == nil || c.Number == nil || before.by != c.by {
		return nil
	}
	if c.Number.Cmp(before.Number) < 0 {
		return fail(codeCRLRollback, "CRL number %s is lower than %s, which was in force here: the source gives an old one", c.Number, before.Number)
	}
	return nil
}

// CheckTime refuses a CRL from the future, by more than a clock may be wrong:
// it would make older, right ones look like rollbacks.
func (c *CRL) CheckTime(now time.Time) error {
	if c.ThisUpdate.After(now.Add(clockSkew)) {
		return fail(codeCRL, "it was made on %s, which is in the future: check the clock", c.ThisUpdate.Format(time.RFC3339))
	}
	return nil
}

// reasonNumber is the reverse of crlReasons; none, and unknown words, are
// unspecified.
func reasonNumber(word string) int {
	if word == "" {
		return 0
	}
	return max(0, slices.Index(crlReasons[:], word))
}

// NewCRL makes a CRL (DER) as an issuer (its certificate, DER) does that signs
// with sign, which computes Z and SM3 itself. An entry's Effective becomes its
// revocationDate and, when it lies before thisUpdate, its invalidityDate, too:
// that is what other readers of CRLs look for in an effective time.
func NewCRL(issuer []byte, sign func([]byte) ([]byte, error), number *big.Int, this, next time.Time, list []RevokedSerial) ([]byte, error) {
	ca, key, err := issuerKey(issuer, smx509.KeyUsageCRLSign, "CRLs")
	if err != nil {
		return nil, err
	}
	if len(list) > maxCRLEntries {
		return nil, fail(codeCRL, "%d entries, at most %d are possible", len(list), maxCRLEntries)
	}
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b RevokedSerial) int { return a.Serial.Cmp(b.Serial) })
	tbs, err := crlBytes(ca, number, this, next, list)
	if err != nil {
		return nil, err
	}
	signature, err := sign(tbs)
	if err != nil {
		return nil, fmt.Errorf("certs: CRL: %w", err)
	}
	if !sm.Verify(key, tbs, signature) {
		return nil, fail(codeCRLSignature, "the key that signed is not that of certificate %s", ca.SerialNumber)
	}
	return sealed(tbs, signature, nil)
}

func crlBytes(ca *smx509.Certificate, number *big.Int, this, next time.Time, list []RevokedSerial) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		addSM2WithSM3(b)
		b.AddBytes(ca.RawSubject)
		addTime(b, this)
		addTime(b, next)
		if len(list) > 0 {
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, r := range list {
					addRevoked(b, r, this)
				}
			})
		}
		b.AddASN1(explicit0, func(b *cryptobyte.Builder) {
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				if len(ca.SubjectKeyId) > 0 {
					addExtension(b, oidAuthorityKey, false, func(b *cryptobyte.Builder) {
						b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
							b.AddASN1(tag.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(ca.SubjectKeyId) })
						})
					})
				}
				addExtension(b, oidCRLNumber, false, func(b *cryptobyte.Builder) { b.AddASN1BigInt(number) })
			})
		})
	})
	return b.Bytes()
}

func addRevoked(b *cryptobyte.Builder, r RevokedSerial, this time.Time) {
	reason := reasonNumber(r.Reason)
	past := r.Effective.Before(this)
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(r.Serial)
		addTime(b, r.Effective)
		if reason == 0 && !past {
			return
		}
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			if reason != 0 { // RFC 5280: unspecified is left out
				addExtension(b, oidReason, false, func(b *cryptobyte.Builder) { b.AddASN1Enum(int64(reason)) })
			}
			if past {
				addExtension(b, oidInvalidity, false, func(b *cryptobyte.Builder) { b.AddASN1GeneralizedTime(r.Effective.UTC()) })
			}
		})
	})
}
