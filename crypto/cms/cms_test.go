package cms

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"flag"
	"math/big"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/emmansun/gmsm/pkcs7"
	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

var update = flag.Bool("update", false, "write testdata/vectors.json anew")

var when = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

// holder signs with a key of its own.
type holder struct {
	key  *sm.PrivateKey
	cert *smx509.Certificate
	rand *rand.ChaCha8
}

func (h *holder) Certificate() []byte             { return h.cert.Raw }
func (h *holder) Sign(msg []byte) ([]byte, error) { return sm.Sign(h.rand, h.key, msg) }

func newHolder(t testing.TB, seed byte, usage smx509.KeyUsage) *holder {
	t.Helper()
	r := rand.NewChaCha8([32]byte{seed})
	key, err := sm.GenerateKey(r)
	if err != nil {
		t.Fatal(err)
	}
	template := &smx509.Certificate{
		SerialNumber: big.NewInt(int64(seed)), Subject: pkix.Name{CommonName: "holder"},
		NotBefore: when.AddDate(-1, 0, 0), NotAfter: when.AddDate(1, 0, 0), KeyUsage: usage,
	}
	der, err := smx509.CreateCertificate(r, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := smx509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &holder{key, cert, r}
}

func signer(t testing.TB) *holder { return newHolder(t, 1, smx509.KeyUsageDigitalSignature) }

func sign(t testing.TB, h *holder, content string, at time.Time) []byte {
	t.Helper()
	der, err := Sign(h, []byte(content), at)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestSignParseVerify(t *testing.T) {
	h := signer(t)
	for _, at := range []time.Time{when, time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC)} {
		der := sign(t, h, `{"type":"x"}`, at.Add(123*time.Millisecond))
		s, err := Parse(der, 4096)
		if err != nil {
			t.Fatal(err)
		}
		if string(s.Content) != `{"type":"x"}` || !s.Time.Equal(at) || s.ID() != sm.Sum(s.Content) {
			t.Errorf("%q at %v", s.Content, s.Time)
		}
		if err := s.Verify(h.cert.Raw); err != nil {
			t.Error(err)
		}
		if err := s.Verify(newHolder(t, 2, smx509.KeyUsageDigitalSignature).cert.Raw); !errors.Is(err, ErrSigner) {
			t.Errorf("another certificate: %v", err)
		}
		if _, err := Parse(der, len(der)-1); !errors.Is(err, ErrMalformed) {
			t.Errorf("larger than allowed: %v", err)
		}
	}
}

// TestTimesWithoutEncoding: a time that no tool writes is refused, whoever claims to
// have signed then.
func TestTimesWithoutEncoding(t *testing.T) {
	h := signer(t)
	if _, err := Sign(h, []byte("x"), time.Date(1949, 12, 31, 23, 59, 59, 0, time.UTC)); err == nil {
		t.Error("signed before 1950")
	}
	der := sign(t, h, "content", time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC))
	for _, year := range []string{"1900", "1949", "2049", "0000"} {
		bad := bytes.Replace(der, []byte("20500101000000Z"), []byte(year+"0101000000Z"), 1)
		if _, err := Parse(bad, 4096); !errors.Is(err, ErrMalformed) || bytes.Equal(bad, der) {
			t.Errorf("%s: %v", year, err)
		}
	}
	last := sign(t, h, "content", time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC))
	if _, err := Parse(last, 4096); err != nil {
		t.Error(err)
	}
}

// TestMakeIsParse: what Make gives is what its bytes are read as.
func TestMakeIsParse(t *testing.T) {
	h := signer(t)
	for _, content := range []string{"", "x", strings.Repeat("x", 127), strings.Repeat("x", 70_000)} {
		made, der, err := Make(h, []byte(content), when)
		if err != nil {
			t.Fatal(err)
		}
		read, err := Parse(der, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(made.Content, read.Content) || !made.Time.Equal(read.Time) || made.ID() != read.ID() || !bytes.Equal(made.p.signed, read.p.signed) ||
			made.Verify(h.cert.Raw) != nil || read.Verify(h.cert.Raw) != nil {
			t.Errorf("%d bytes: %+v, read as %+v", len(content), made, read)
		}
	}
}

func TestKeyUsageIsEnforced(t *testing.T) {
	h := newHolder(t, 3, smx509.KeyUsageKeyEncipherment|smx509.KeyUsageDataEncipherment)
	if _, err := Sign(h, []byte("x"), when); !errors.Is(err, ErrSigner) {
		t.Errorf("an encryption certificate signed: %v", err)
	}
}

// Every single bit of a signed object matters.
func TestEveryFlipIsNoticed(t *testing.T) {
	h := signer(t)
	der := sign(t, h, `{"type":"yizhan-test","v":1}`, when)
	for i := range der {
		for bit := range 8 {
			bad := bytes.Clone(der)
			bad[i] ^= 1 << bit
			s, err := Parse(bad, 4096)
			if err != nil {
				continue
			}
			if err := s.Verify(h.cert.Raw); err == nil {
				t.Fatalf("bit %d of byte %d changed and it verifies", bit, i)
			}
		}
	}
}

// The looser forms that other parsers take are refused.
func TestMalleabilityIsRefused(t *testing.T) {
	h := signer(t)
	der := sign(t, h, "content", when)
	sha256 := asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	foreign, err := asn1.Marshal(sha256)
	if err != nil {
		t.Fatal(err)
	}
	sm3, err := asn1.Marshal(oidSM3)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"trailing byte":       append(bytes.Clone(der), 0),
		"leading byte":        append([]byte{0}, der...),
		"RFC 5652 label":      relabelled(t, der),
		"another digest":      bytes.ReplaceAll(der, sm3, foreign),
		"length in long form": longForm(der),
		"indefinite length":   append(append([]byte{0x30, 0x80}, der[4:]...), 0, 0),
		"cut":                 der[:len(der)-1],
		"empty":               {},
		"unsigned attribute":  pkcs7With(t, h, func(c *pkcs7.SignerInfoConfig) { c.ExtraUnsignedAttributes = extra() }),
		"further signed one":  pkcs7With(t, h, func(c *pkcs7.SignerInfoConfig) { c.ExtraSignedAttributes = extra() }),
		"no certificate":      pkcs7With(t, h, func(c *pkcs7.SignerInfoConfig) { c.SkipCertificates = true }),
		"two signers":         twoSigners(t, h),
	} {
		if _, err := Parse(bad, 8192); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func relabelled(t *testing.T, der []byte) []byte {
	out, err := Relabel(der)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// longForm writes the outer length with a needless byte.
func longForm(der []byte) []byte {
	return append([]byte{0x30, 0x83, 0}, der[2:]...)
}

func extra() []pkcs7.Attribute {
	return []pkcs7.Attribute{{Type: asn1.ObjectIdentifier{1, 2, 3}, Value: "x"}}
}

func pkcs7With(t *testing.T, h *holder, change func(*pkcs7.SignerInfoConfig)) []byte {
	t.Helper()
	sd, err := pkcs7.NewSMSignedData([]byte("content"))
	if err != nil {
		t.Fatal(err)
	}
	var c pkcs7.SignerInfoConfig
	change(&c)
	if err := sd.AddSigner(h.cert, h.key, c); err != nil {
		t.Fatal(err)
	}
	der, err := sd.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func twoSigners(t *testing.T, h *holder) []byte {
	t.Helper()
	sd, err := pkcs7.NewSMSignedData([]byte("content"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*holder{h, newHolder(t, 2, smx509.KeyUsageDigitalSignature)} {
		if err := sd.AddSigner(s.cert, s.key, pkcs7.SignerInfoConfig{}); err != nil {
			t.Fatal(err)
		}
	}
	der, err := sd.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// vector is one case for other implementations.
type vector struct {
	Name        string `json:"name"`
	Object      []byte `json:"object"`
	Certificate []byte `json:"certificate"`
	Class       string `json:"class"` // ok, malformed, signer, signature
	Content     []byte `json:"content,omitempty"`
}

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	b, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []vector
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	for _, v := range list {
		class := "ok"
		s, err := Parse(v.Object, 8192)
		if err == nil {
			err = s.Verify(v.Certificate)
		}
		switch {
		case errors.Is(err, ErrMalformed):
			class = "malformed"
		case errors.Is(err, ErrSigner):
			class = "signer"
		case errors.Is(err, ErrSignature):
			class = "signature"
		}
		if class != v.Class || class == "ok" && !bytes.Equal(s.Content, v.Content) {
			t.Errorf("%s: %s (%v), want %s", v.Name, class, err, v.Class)
		}
	}
	if len(list) < 8 {
		t.Errorf("%d vectors", len(list))
	}
}

func writeVectors(t *testing.T) {
	h, other := signer(t), newHolder(t, 2, smx509.KeyUsageDigitalSignature)
	der := sign(t, h, `{"type":"yizhan-test","v":1}`, when)
	changed := func(i int) []byte { b := bytes.Clone(der); b[i] ^= 1; return b }
	content := bytes.Index(der, []byte("yizhan-test"))
	list := []vector{
		{Name: "signed", Object: der, Certificate: h.cert.Raw, Class: "ok", Content: []byte(`{"type":"yizhan-test","v":1}`)},
		{Name: "GeneralizedTime from 2050", Object: sign(t, h, "x", when.AddDate(24, 0, 0)), Certificate: h.cert.Raw, Class: "ok", Content: []byte("x")},
		{Name: "another certificate is expected", Object: der, Certificate: other.cert.Raw, Class: "signer"},
		{Name: "signature changed", Object: changed(len(der) - 1), Certificate: h.cert.Raw, Class: "signature"},
		{Name: "content changed", Object: changed(content), Certificate: h.cert.Raw, Class: "malformed"},
		{Name: "RFC 5652 label", Object: relabelled(t, der), Certificate: h.cert.Raw, Class: "malformed"},
		{Name: "trailing byte", Object: append(bytes.Clone(der), 0), Certificate: h.cert.Raw, Class: "malformed"},
		{Name: "length in long form", Object: longForm(der), Certificate: h.cert.Raw, Class: "malformed"},
		{Name: "unsigned attribute", Object: pkcs7With(t, h, func(c *pkcs7.SignerInfoConfig) { c.ExtraUnsignedAttributes = extra() }), Certificate: h.cert.Raw, Class: "malformed"},
		{Name: "two signers", Object: twoSigners(t, h), Certificate: h.cert.Raw, Class: "malformed"},
		{Name: "no certificate", Object: pkcs7With(t, h, func(c *pkcs7.SignerInfoConfig) { c.SkipCertificates = true }), Certificate: h.cert.Raw, Class: "malformed"},
	}
	for _, c := range looseObjects(t, h, []byte(`{"type":"yizhan-test","v":1}`)) {
		list = append(list, vector{Name: "good signature, but: " + c.name, Object: c.object, Certificate: h.cert.Raw, Class: "malformed"})
	}
	b, err := json.MarshalIndent(list, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("testdata/vectors.json", append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// FuzzParse: what is accepted encodes to exactly these bytes; nothing panics.
func FuzzParse(f *testing.F) {
	h := signer(f)
	der, err := Sign(h, []byte("content"), when)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Add([]byte(strings.Repeat("\x30\x80", 100)))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Parse(b, 1<<16)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("an error without a class: %v", err)
			}
			if _, err := Relabel(b); err == nil {
				t.Fatal("relabelled what is refused")
			}
			return
		}
		if !bytes.Equal(s.p.encode(oidSignedData), b) {
			t.Fatal("accepted in another encoding")
		}
		if err := s.Verify(h.cert.Raw); err == nil && !bytes.Equal(b, der) {
			t.Fatal("another object verifies")
		} else if err != nil && !errors.Is(err, ErrSigner) && !errors.Is(err, ErrSignature) {
			t.Fatalf("an error without a class: %v", err)
		}
		if other, err := Relabel(b); err != nil || bytes.Equal(other, b) {
			t.Fatalf("relabel: %v", err)
		}
	})
}

// FuzzParseCertificate: a certificate is exactly the bytes given, and an error
// says what it is about.
func FuzzParseCertificate(f *testing.F) {
	f.Add(signer(f).cert.Raw)
	leaf, ca := issued(f, 7)
	f.Add(leaf.cert.Raw)
	f.Add(ca.Raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		cert, err := ParseCertificate(b)
		if err != nil {
			if !errors.Is(err, ErrCertificate) || cert != nil {
				t.Fatalf("%v, %v", cert, err)
			}
			return
		}
		if !bytes.Equal(cert.Raw, b) {
			t.Fatal("another certificate than was given")
		}
		_ = maySign(cert) // must not panic, whatever the key
	})
}
