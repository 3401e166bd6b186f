package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"

	"github.com/emmansun/gmsm/smx509"
	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// MaxCSR bounds a certification request, bytes.
const MaxCSR = 64 << 10

const maxAttributes = 16

var oidExtensionRequest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}

// CSR is a certification request (PKCS#10) whose signature proved that who
// made it holds the private key.
type CSR struct {
	DER       []byte
	Subject   pkix.Name
	PublicKey *ecdsa.PublicKey
	KeyID     sm.Digest
	Use       string // UseSign or UseEncrypt, by the key usage asked for; empty when none was
}

// NewCSR makes a certification request (DER) for a key. The signer gets the
// message and computes Z and SM3 itself, as [keystore.Store.Signer] gives it.
// An encryption key signs its own request, too, and nothing else ever.
func NewCSR(key crypto.Signer, subject pkix.Name, use string, rand io.Reader) ([]byte, error) {
	pub, ok := key.Public().(*ecdsa.PublicKey)
	if !ok || pub.Curve != sm.Curve() {
		return nil, fail(codeRequest, "a certification request is made with an SM2 key")
	}
	usage, err := usageOf(use)
	if err != nil {
		return nil, err
	}
	name, err := asn1.Marshal(subject.ToRDNSequence())
	if err != nil {
		return nil, &Error{Code: codeRequest, Detail: "subject", Err: err}
	}
	tbs, err := requestInfo(name, pub, usage)
	if err != nil {
		return nil, err
	}
	signature, err := key.Sign(rand, tbs, crypto.Hash(0))
	if err != nil {
		return nil, fmt.Errorf("certs: certification request: %w", err)
	}
	if !sm.Verify(pub, tbs, signature) {
		return nil, fail(codeRequest, "the key's signature does not verify: is the custody's signature encoding set right?")
	}
	return sealed(tbs, signature, nil)
}

func usageOf(use string) (smx509.KeyUsage, error) {
	switch use {
	case UseSign:
		return signUsage, nil
	case UseEncrypt:
		return encryptUsage, nil
	}
	return 0, fail(codeUsage, "a certificate is for sign or encrypt, not for %.20q", use)
}

func requestInfo(name []byte, pub *ecdsa.PublicKey, usage smx509.KeyUsage) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0)
		b.AddBytes(name)
		addKey(b, pub)
		b.AddASN1(explicit0, func(b *cryptobyte.Builder) {
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidExtensionRequest)
				b.AddASN1(tag.SET, func(b *cryptobyte.Builder) {
					b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
						addExtension(b, oidKeyUsage, true, func(b *cryptobyte.Builder) { addUsage(b, usage) })
					})
				})
			})
		})
	})
	return b.Bytes()
}

// addUsage writes a KeyUsage of bits that all are in the first byte. A named
// bit list ends with its last set bit.
func addUsage(b *cryptobyte.Builder, usage smx509.KeyUsage) {
	var bits, last byte
	for i := range 8 {
		if usage&(1<<i) != 0 {
			bits |= 0x80 >> i
			last = byte(i)
		}
	}
	b.AddASN1(tag.BIT_STRING, func(b *cryptobyte.Builder) { b.AddBytes([]byte{7 - last, bits}) })
}

// ParseCSR reads a certification request, DER or PEM, and checks its proof of
// possession. Attributes other than an extension request do not matter; an
// extension that is asked for as critical, and that only an authority may
// grant itself or that is unknown, is refused rather than left out silently.
func ParseCSR(b []byte) (*CSR, error) {
	if len(b) > MaxCSR {
		return nil, fail(codeRequest, "certification request: %d bytes, at most %d are possible", len(b), MaxCSR)
	}
	der, ok := fromPEM(b, "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")
	if !ok {
		return nil, fail(codeRequest, "certification request: not exactly one PEM block CERTIFICATE REQUEST")
	}
	in := cryptobyte.String(der)
	var outer cryptobyte.String
	if !in.ReadASN1(&outer, tag.SEQUENCE) || !in.Empty() {
		return nil, fail(codeRequest, "certification request: not PKCS#10 in DER, or bytes follow it")
	}
	s, ok := readSigned(&outer)
	if !ok || !outer.Empty() {
		return nil, fail(codeRequest, "certification request: not signed with SM2 and SM3 (OID %s)", oidSM2WithSM3)
	}
	c, err := readRequestInfo(s.tbs)
	if err != nil {
		return nil, err
	}
	if !sm.Verify(c.PublicKey, s.tbs, s.signature) {
		return nil, fail(codeRequest, "certification request: its signature does not prove possession of the private key (SM2 with the default user id 1234567812345678)")
	}
	c.DER = der
	return c, nil
}

func readRequestInfo(tbs cryptobyte.String) (*CSR, error) {
	c := new(CSR)
	var info, name, attributes cryptobyte.String
	var version int
	if !tbs.ReadASN1(&info, tag.SEQUENCE) || !info.ReadASN1Integer(&version) || version != 0 || !info.ReadASN1Element(&name, tag.SEQUENCE) {
		return nil, fail(codeRequest, "certification request: not of version 1 with a subject")
	}
	var subject pkix.RDNSequence
	if rest, err := asn1.Unmarshal(name, &subject); err != nil || len(rest) > 0 || len(subject) == 0 {
		return nil, &Error{Code: codeRequest, Detail: "certification request: subject", Err: err}
	}
	c.Subject.FillFromRDNSequence(&subject)
	var ok bool
	if c.PublicKey, ok = readKey(&info); !ok {
		return nil, fail(codeRequest, "certification request: its key is not an uncompressed point of the SM2 curve")
	}
	c.KeyID = sm.KeyID(c.PublicKey)
	if !info.ReadASN1(&attributes, explicit0) || !info.Empty() {
		return nil, fail(codeRequest, "certification request: attributes")
	}
	return c, c.readAttributes(attributes)
}

func (c *CSR) readAttributes(in cryptobyte.String) error {
	bad := fail(codeRequest, "certification request: attributes")
	asked := false
	for n := 0; !in.Empty(); n++ {
		var one, values, list cryptobyte.String
		var id asn1.ObjectIdentifier
		if n == maxAttributes || !in.ReadASN1(&one, tag.SEQUENCE) || !one.ReadASN1ObjectIdentifier(&id) ||
			!one.ReadASN1(&values, tag.SET) || values.Empty() || !one.Empty() {
			return bad
		}
		if !id.Equal(oidExtensionRequest) {
			continue
		}
		if asked || !values.ReadASN1(&list, tag.SEQUENCE) || !values.Empty() {
			return bad
		}
		asked = true
		if err := c.readAsked(list); err != nil {
			return err
		}
	}
	return nil
}

func (c *CSR) readAsked(in cryptobyte.String) error {
	list, ok := readExtensions(in)
	if !ok {
		return fail(codeRequest, "certification request: the extensions it asks for")
	}
	for _, e := range list {
		var err error
		switch {
		case e.id.Equal(oidKeyUsage):
			c.Use, err = useOf(e.value)
		case e.id.Equal(oidBasic):
			var basic cryptobyte.String
			// An empty SEQUENCE: cA is false.
			if !e.value.ReadASN1(&basic, tag.SEQUENCE) || !basic.Empty() || !e.value.Empty() {
				err = fail(codeRequest, "certification request: it asks for a certificate of an authority")
			}
		case e.critical:
			err = fail(codeRequest, "certification request: it asks for the critical extension %s, which is not issued here", e.id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// useOf tells from a key usage which half of a dual certificate it asks for.
func useOf(value cryptobyte.String) (string, error) {
	var bits asn1.BitString
	if !value.ReadASN1BitString(&bits) || !value.Empty() {
		return "", fail(codeRequest, "certification request: key usage")
	}
	var usage smx509.KeyUsage
	for i := range 9 {
		usage |= smx509.KeyUsage(bits.At(i)) << i
	}
	switch {
	case usage&^signUsage == 0 && usage&smx509.KeyUsageDigitalSignature != 0:
		return UseSign, nil
	case usage&^(encryptUsage|smx509.KeyUsageKeyAgreement) == 0 && usage&encryptUsage != 0:
		return UseEncrypt, nil
	}
	return "", fail(codeUsage, "certification request: it asks for a key usage that is neither that of a signing nor that of an encryption certificate: dual certificates keep them apart")
}
