package cms

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/emmansun/gmsm/pkcs7"
	"github.com/emmansun/gmsm/smx509"
	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// Cross-tests with gmsm's pkcs7, an implementation that is not ours.

// issued gives a signing certificate under a CA of its own.
func issued(t testing.TB, seed byte) (h *holder, ca *smx509.Certificate) {
	t.Helper()
	authority := newHolder(t, seed, smx509.KeyUsageCertSign|smx509.KeyUsageDigitalSignature)
	key, err := sm.GenerateKey(authority.rand)
	if err != nil {
		t.Fatal(err)
	}
	make := func(template, parent *smx509.Certificate, pub any) *smx509.Certificate {
		der, err := smx509.CreateCertificate(authority.rand, template, parent, pub, authority.key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := smx509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	ca = &smx509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: when.AddDate(-5, 0, 0), NotAfter: when.AddDate(5, 0, 0),
		KeyUsage: smx509.KeyUsageCertSign | smx509.KeyUsageDigitalSignature, IsCA: true, BasicConstraintsValid: true,
	}
	ca = make(ca, ca, &authority.key.PublicKey)
	leaf := make(&smx509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "agency"}, NotBefore: when.AddDate(-1, 0, 0), NotAfter: when.AddDate(1, 0, 0),
		KeyUsage: smx509.KeyUsageDigitalSignature | smx509.KeyUsageContentCommitment,
	}, ca, &key.PublicKey)
	return &holder{key, leaf, authority.rand}, ca
}

func pool(certs ...*smx509.Certificate) *smx509.CertPool {
	p := smx509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

func p7(t testing.TB, der []byte) *pkcs7.PKCS7 {
	t.Helper()
	p, err := pkcs7.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// forms are an object under both outer types.
func forms(t *testing.T, der []byte) map[string][]byte {
	return map[string][]byte{"GB/T 35275": der, "RFC 5652": relabelled(t, der)}
}

func TestOthersVerifyOurs(t *testing.T) {
	h := signer(t)
	for name, form := range forms(t, sign(t, h, "content", when)) {
		p := p7(t, form)
		if err := p.Verify(); err != nil || string(p.Content) != "content" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOthersVerifyOursWithTheChain: chain and validity, right and wrong.
func TestOthersVerifyOursWithTheChain(t *testing.T) {
	h, ca := issued(t, 40)
	_, other := issued(t, 41)
	late := when.AddDate(2, 0, 0)
	for name, form := range forms(t, sign(t, h, "content", when)) {
		if err := p7(t, form).VerifyWithChainAtTime(pool(ca), &when); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if p7(t, form).VerifyWithChainAtTime(pool(other), &when) == nil {
			t.Errorf("%s: verifies under another authority", name)
		}
		if p7(t, form).VerifyWithChainAtTime(pool(ca), &late) == nil {
			t.Errorf("%s: verifies after the certificate ended", name)
		}
		wrong := p7(t, form)
		wrong.Content = []byte("contenu")
		if wrong.Verify() == nil {
			t.Errorf("%s: another content verifies", name)
		}
	}
}

// TestRandomObjectsVerifyInBothDirections: random contents, times and keys.
func TestRandomObjectsVerifyInBothDirections(t *testing.T) {
	r := rand.New(rand.NewPCG(35275, 5652))
	for i := range 100 {
		h, ca := issued(t, byte(100+i%20))
		content := make([]byte, 1+r.IntN(5000))
		_, _ = h.rand.Read(content)
		at := when.Add(time.Duration(r.IntN(300)-150) * 24 * time.Hour)
		der, err := Sign(h, content, at)
		if err != nil {
			t.Fatal(err)
		}
		for name, form := range forms(t, der) {
			if err := p7(t, form).VerifyWithChainAtTime(pool(ca), &at); err != nil {
				t.Fatalf("object %d, %s: %v", i, name, err)
			}
		}
		sd, err := pkcs7.NewSMSignedData(content)
		if err == nil {
			err = sd.AddSigner(h.cert, h.key, pkcs7.SignerInfoConfig{})
		}
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := sd.Finish()
		if err != nil {
			t.Fatal(err)
		}
		s, err := Parse(theirs, 1<<16)
		if err == nil {
			err = s.Verify(h.cert.Raw)
		}
		if err != nil || !bytes.Equal(s.Content, content) {
			t.Fatalf("object %d of theirs: %v", i, err)
		}
	}
}

func TestWeVerifyTheirs(t *testing.T) {
	h := signer(t)
	s, err := Parse(pkcs7With(t, h, func(*pkcs7.SignerInfoConfig) {}), 8192)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(h.cert.Raw); err != nil {
		t.Error(err)
	}
}

// TestStreamedDigestsAgree: pkcs7 signs a digest that was computed while the
// content streamed by; with the content put in its place the object is ours,
// and an object of ours verifies there against a streamed digest.
func TestStreamedDigestsAgree(t *testing.T) {
	h := signer(t)
	content := bytes.Repeat([]byte("streamed "), 5000)
	hash := sm.New()
	for part := range slices.Chunk(content, 700) {
		_, _ = hash.Write(part)
	}
	digest := hash.Sum(nil)
	sd, err := pkcs7.NewSMSignedDataWithDigest(digest)
	if err == nil {
		err = sd.AddSigner(h.cert, h.key, pkcs7.SignerInfoConfig{})
	}
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := sd.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(theirs, 1<<16); !errors.Is(err, ErrMalformed) {
		t.Errorf("an object without its content: %v", err)
	}
	at, sig := attributesOf(t, theirs)
	whole := &shape{attributes: at, signature: sig}
	s, err := Parse(whole.encode(t, h, content), 1<<17)
	if err == nil {
		err = s.Verify(h.cert.Raw)
	}
	if err != nil {
		t.Errorf("their signature over the streamed digest: %v", err)
	}
	p := p7(t, sign(t, h, string(content), when))
	p.Content = digest
	if err := p.VerifyAsDigest(); err != nil {
		t.Errorf("our object against the streamed digest: %v", err)
	}
}

// attributesOf finds signed attributes and signature in an object without content.
func attributesOf(t *testing.T, der []byte) (attributes [][]byte, signature []byte) {
	t.Helper()
	var info struct {
		Type    asn1.ObjectIdentifier
		Content struct {
			Version     int
			Digests     asn1.RawValue
			Inner       asn1.RawValue
			Certificate asn1.RawValue `asn1:"tag:0"`
			Signers     []struct {
				Version    int
				Issuer     asn1.RawValue
				Digest     asn1.RawValue
				Attributes asn1.RawValue `asn1:"tag:0"`
				Algorithm  asn1.RawValue
				Signature  []byte
			} `asn1:"set"`
		} `asn1:"explicit,tag:0"`
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		t.Fatal(err)
	}
	for rest := info.Content.Signers[0].Attributes.Bytes; len(rest) > 0; {
		var one asn1.RawValue
		next, err := asn1.Unmarshal(rest, &one)
		if err != nil {
			t.Fatal(err)
		}
		attributes, rest = append(attributes, one.FullBytes), next
	}
	return attributes, info.Content.Signers[0].Signature
}

// shape is a SignedData that differs from the profile in one way or another;
// the zero value is the profile. Its signature is always good.
type shape struct {
	outer, inner     asn1.ObjectIdentifier
	attributes       [][]byte // in this order, instead of the profile's
	signature        []byte
	detached         bool
	noNull           bool // algorithms without parameters
	moreCertificates [][]byte
	signerVersion    int64
	crl              []byte
}

func (s *shape) algorithm(b *cryptobyte.Builder, oid asn1.ObjectIdentifier) {
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		if !s.noNull {
			b.AddASN1NULL()
		}
	})
}

func attribute(oid asn1.ObjectIdentifier, value cryptobyte.BuilderContinuation) []byte {
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1(tag.SET, value)
	})
	return b.BytesOrPanic()
}

// profile are the three attributes in DER order.
func profile(t testing.TB, content []byte) [][]byte {
	p := parts{content: content, digest: sm.Sum(content), time: when}
	set, err := p.attributes()
	if err != nil {
		t.Fatal(err)
	}
	var list [][]byte
	in := cryptobyte.String(set)
	var all, one cryptobyte.String
	in.ReadASN1(&all, tag.SET)
	for !all.Empty() {
		all.ReadASN1Element(&one, tag.SEQUENCE)
		list = append(list, one)
	}
	return list
}

func joined(list [][]byte) []byte { return bytes.Join(list, nil) }

func (s *shape) encode(t testing.TB, h *holder, content []byte) []byte {
	t.Helper()
	if s.outer == nil {
		s.outer = oidSignedData
	}
	if s.inner == nil {
		s.inner = oidData
	}
	if s.attributes == nil {
		s.attributes = profile(t, content)
	}
	if s.signerVersion == 0 {
		s.signerVersion = 1
	}
	if s.signature == nil {
		sorted := slices.SortedFunc(slices.Values(s.attributes), bytes.Compare) // DER is what is signed
		var set cryptobyte.Builder
		set.AddASN1(tag.SET, func(b *cryptobyte.Builder) { b.AddBytes(joined(sorted)) })
		var err error
		if s.signature, err = h.Sign(set.BytesOrPanic()); err != nil {
			t.Fatal(err)
		}
	}
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(s.outer)
		b.AddASN1(context0, func(b *cryptobyte.Builder) {
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) { s.addSigned(b, h, content) })
		})
	})
	return b.BytesOrPanic()
}

func (s *shape) addSigned(b *cryptobyte.Builder, h *holder, content []byte) {
	b.AddASN1Int64(1)
	b.AddASN1(tag.SET, func(b *cryptobyte.Builder) { s.algorithm(b, oidSM3) })
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(s.inner)
		if !s.detached {
			b.AddASN1(context0, func(b *cryptobyte.Builder) { b.AddASN1OctetString(content) })
		}
	})
	b.AddASN1(context0, func(b *cryptobyte.Builder) {
		b.AddBytes(h.cert.Raw)
		b.AddBytes(joined(s.moreCertificates))
	})
	if s.crl != nil {
		b.AddASN1(tag.Tag(1).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddBytes(s.crl) })
	}
	b.AddASN1(tag.SET, func(b *cryptobyte.Builder) {
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1Int64(s.signerVersion)
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddBytes(h.cert.RawIssuer)
				b.AddASN1BigInt(h.cert.SerialNumber)
			})
			s.algorithm(b, oidSM3)
			b.AddASN1(context0, func(b *cryptobyte.Builder) { b.AddBytes(joined(s.attributes)) })
			s.algorithm(b, oidSM2Sign)
			b.AddASN1OctetString(s.signature)
		})
	})
}

// looseObject is an object with a good signature by the right holder over the
// right content that is not in the profile, and whether pkcs7 takes it.
type looseObject struct {
	name   string
	object []byte
	pkcs7  bool
}

func looseObjects(t *testing.T, h *holder, content []byte) []looseObject {
	t.Helper()
	good := sign(t, h, string(content), when)
	order := func(n ...int) [][]byte {
		var out [][]byte
		for _, i := range n {
			out = append(out, profile(t, content)[i])
		}
		return out
	}
	withContentType := func(oid asn1.ObjectIdentifier) [][]byte {
		list := profile(t, content)
		list[0] = attribute(oidContentType, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oid) })
		return list
	}
	more := attribute(asn1.ObjectIdentifier{1, 2, 3}, func(b *cryptobyte.Builder) { b.AddASN1OctetString([]byte("x")) })
	other := newHolder(t, 2, smx509.KeyUsageDigitalSignature)
	return []looseObject{
		{"other attribute order", (&shape{attributes: order(2, 1, 0)}).encode(t, h, content), true},
		{"an attribute twice", (&shape{attributes: order(0, 0, 1, 2)}).encode(t, h, content), true},
		{"signingTime missing", (&shape{attributes: order(0, 2)}).encode(t, h, content), true},
		{"contentType missing", (&shape{attributes: order(1, 2)}).encode(t, h, content), true},
		{"messageDigest missing", (&shape{attributes: order(0, 1)}).encode(t, h, content), false},
		{"contentType of another kind", (&shape{attributes: withContentType(oidSignedData)}).encode(t, h, content), true},
		{"further signed attribute", (&shape{attributes: append(profile(t, content), more)}).encode(t, h, content), true},
		{"no attributes at all", withoutAttributes(t, h, content), true},
		{"unsigned attribute added", pkcs7With(t, h, func(c *pkcs7.SignerInfoConfig) { c.ExtraUnsignedAttributes = extra() }), true},
		{"trailing byte behind the object", append(bytes.Clone(good), 0), true},
		{"trailing bytes inside", trailingInside(good), true},
		{"length with a needless zero", longForm(good), false},
		{"length in needlessly many bytes", append([]byte{0x30, 0x84, 0, 0}, good[2:]...), false},
		{"indefinite length", append(append([]byte{0x30, 0x80}, good[4:]...), 0, 0), true},
		{"RFC 5652 label", relabelled(t, good), true},
		{"inner type of RFC 5652", (&shape{inner: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}}).encode(t, h, content), true},
		{"algorithms without NULL", (&shape{noNull: true}).encode(t, h, content), true},
		{"a second certificate", (&shape{moreCertificates: [][]byte{other.cert.Raw}}).encode(t, h, content), true},
		{"another signer version", (&shape{signerVersion: 3}).encode(t, h, content), true},
		{"a CRL inside", (&shape{crl: []byte{0x30, 0}}).encode(t, h, content), false},
		{"two signers", twoSigners(t, h), true},
		{"no certificate", pkcs7With(t, h, func(c *pkcs7.SignerInfoConfig) { c.SkipCertificates = true }), false},
		{"detached content", (&shape{detached: true}).encode(t, h, content), false},
	}
}

// TestWhatOthersAcceptAndWeRefuse is the table of laxness: every object here has
// a good signature by the right holder over the right content, and pkcs7 takes
// most. A reader that did would let one statement have many byte strings, and
// let an attacker choose among them.
func TestWhatOthersAcceptAndWeRefuse(t *testing.T) {
	h := signer(t)
	content := []byte(`{"type":"yizhan-test","v":1}`)
	for _, c := range looseObjects(t, h, content) {
		if _, err := Parse(c.object, 8192); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: we say %v", c.name, err)
		}
		p, err := pkcs7.Parse(c.object)
		if err == nil {
			err = p.Verify()
		}
		if (err == nil) != c.pkcs7 {
			t.Errorf("%s: pkcs7 says %v", c.name, err)
		}
	}
	// The same builder without a deviation makes what Sign makes.
	plain := (&shape{}).encode(t, h, content)
	if s, err := Parse(plain, 8192); err != nil || s.Verify(h.cert.Raw) != nil {
		t.Errorf("the profile itself: %v", err)
	}
}

// trailingInside puts two bytes behind the signer infos, within the SignedData.
func trailingInside(der []byte) []byte {
	out := append(bytes.Clone(der), 5, 0)
	for _, at := range outerLengths(der) {
		n := int(out[at])<<8 | int(out[at+1])
		n += 2
		out[at], out[at+1] = byte(n>>8), byte(n)
	}
	return out
}

// outerLengths are the places of the two-byte lengths of the three outer
// elements: ContentInfo, [0], SignedData.
func outerLengths(der []byte) (places []int) {
	at := 0
	for range 3 {
		if der[at+1] != 0x82 {
			panic(fmt.Sprintf("a length of another size at %d", at))
		}
		places = append(places, at+2)
		at += 4
		if len(places) == 1 {
			at += 2 + int(der[at+1]) // the object identifier
		}
	}
	return places
}

func withoutAttributes(t testing.TB, h *holder, content []byte) []byte {
	t.Helper()
	sd, err := pkcs7.NewSMSignedData(content)
	if err == nil {
		err = sd.SignWithoutAttr(h.cert, h.key, pkcs7.SignerInfoConfig{})
	}
	if err != nil {
		t.Fatal(err)
	}
	der, err := sd.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return der
}
