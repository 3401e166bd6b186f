package certs

import (
	"bytes"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emmansun/gmsm/smx509"
	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// ocspWorld is an issuer, a certificate of it, and a request about that.
type ocspWorld struct {
	*outside
	cert    []byte
	request *OCSPRequest
}

func newOCSPWorld(t testing.TB, hash string) *ocspWorld {
	w := &ocspWorld{outside: newOutside(t, "ocsp")}
	w.cert = w.outside.cert(&w.newKey().PublicKey, signUsage, nil)
	var err error
	w.request, err = NewOCSPRequest(w.cert, w.root.Raw, hash, []byte("sixteen bytes..."))
	w.must(err)
	return w
}

func (w *ocspWorld) issuer() *OCSPResponder { return &OCSPResponder{Issuer: w.root.Raw, Sign: w.sign} }

// delegate is a responder with a certificate of its own.
func (w *ocspWorld) delegate(change func(*smx509.Certificate)) *OCSPResponder {
	key := w.newKey()
	der := w.outside.cert(&key.PublicKey, smx509.KeyUsageDigitalSignature, func(c *smx509.Certificate) {
		c.Subject.CommonName = "responder"
		c.ExtKeyUsage = []smx509.ExtKeyUsage{smx509.ExtKeyUsageOCSPSigning}
		if change != nil {
			change(c)
		}
	})
	return &OCSPResponder{Issuer: w.root.Raw, Certificate: der, Sign: func(msg []byte) ([]byte, error) { return sm.Sign(w.rand, key, msg) }}
}

func goodAnswer() OCSPAnswer {
	return OCSPAnswer{Status: OCSPGood, ThisUpdate: testNow, NextUpdate: testNow.Add(time.Hour)}
}

func (w *ocspWorld) answer(r *OCSPResponder, a OCSPAnswer) []byte {
	w.t.Helper()
	der, err := r.Answer(w.request, a, testNow)
	w.must(err)
	return der
}

func TestOCSP(t *testing.T) {
	for _, hash := range []string{OCSPHashSM3, OCSPHashSHA256} {
		w := newOCSPWorld(t, hash)
		asked, err := ParseOCSPRequest(w.request.DER)
		w.must(err)
		if !bytes.Equal(asked.Nonce, w.request.Nonce) || asked.Serial.Cmp(w.request.Serial) != 0 || !asked.about(w.root) {
			t.Errorf("%s: the request is read as %+v", hash, asked)
		}
		w.request.Nonce = asked.Nonce
		for name, r := range map[string]*OCSPResponder{"issuer": w.issuer(), "delegate": w.delegate(nil)} {
			for _, want := range []OCSPAnswer{
				goodAnswer(),
				{Status: OCSPRevoked, Effective: testNow.Add(-time.Hour), Reason: "key_compromise", ThisUpdate: testNow},
				{Status: OCSPRevoked, Effective: testNow.Add(-time.Hour), Reason: "unspecified", ThisUpdate: testNow},
				{Status: OCSPUnknown, ThisUpdate: testNow},
			} {
				got, err := w.request.ParseOCSPResponse(w.answer(r, want), w.root.Raw, testNow)
				w.must(err)
				want.ProducedAt, want.Fresh = testNow, true
				if *got != want {
					t.Errorf("%s, %s: got %+v, want %+v", hash, name, *got, want)
				}
			}
		}
	}
}

// ocspCases are responses to the request of a world, with their failure class.
func ocspCases(w *ocspWorld) []derCase {
	good := w.answer(w.issuer(), goodAnswer())
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	stranger := newOutside(w.t, "ocsp stranger")
	refusal := func(status int) []byte {
		der, err := OCSPRefusal(status)
		w.must(err)
		return der
	}
	otherNonce := *w.request
	otherNonce.Nonce = []byte("other")
	noNonce := *w.request
	noNonce.Nonce = nil
	about, err := NewOCSPRequest(w.outside.cert(&w.newKey().PublicKey, signUsage, nil), w.root.Raw, OCSPHashSM3, w.request.Nonce)
	w.must(err)
	to := func(q *OCSPRequest) []byte {
		der, err := w.issuer().Answer(q, goodAnswer(), testNow)
		w.must(err)
		return der
	}
	old := goodAnswer()
	old.ThisUpdate, old.NextUpdate = testNow.AddDate(0, 0, -2), testNow.AddDate(0, 0, -1)
	backwards := goodAnswer()
	backwards.NextUpdate = testNow.Add(-time.Second)
	future := goodAnswer()
	future.ThisUpdate, future.NextUpdate = testNow.AddDate(0, 0, 2), testNow.AddDate(0, 0, 3)
	endless := OCSPAnswer{Status: OCSPGood, ThisUpdate: testNow.AddDate(0, 0, -2)}
	byDelegate := func(change func(*smx509.Certificate)) []byte { return w.answer(w.delegate(change), goodAnswer()) }
	liar := w.delegate(nil)
	liar.Sign = stranger.sign
	return []derCase{
		{"good", good, ""},
		{"by a delegate", byDelegate(nil), ""},
		{"without nonce", to(&noNonce), ""},
		{"another nonce", to(&otherNonce), codeOCSP},
		{"about another certificate", to(about), codeOCSP},
		{"trailing byte", append(bytes.Clone(good), 0), codeOCSP},
		{"signature changed", flipped, codeOCSPSignature},
		{"another issuer", w.answer(&OCSPResponder{Issuer: w.root.Raw, Sign: stranger.sign}, goodAnswer()), codeOCSPSignature},
		{"a delegate that did not sign", w.answer(liar, goodAnswer()), codeOCSPSignature},
		{"delegate without OCSPSigning", byDelegate(func(c *smx509.Certificate) { c.ExtKeyUsage = nil }), codeOCSPSignature},
		{"delegate for servers", byDelegate(func(c *smx509.Certificate) { c.ExtKeyUsage = []smx509.ExtKeyUsage{smx509.ExtKeyUsageServerAuth} }), codeOCSPSignature},
		{"delegate without digitalSignature", byDelegate(func(c *smx509.Certificate) { c.KeyUsage = smx509.KeyUsageKeyEncipherment }), codeOCSPSignature},
		{"delegate that is a CA", byDelegate(func(c *smx509.Certificate) { c.IsCA = true }), codeOCSPSignature},
		{"expired delegate", byDelegate(func(c *smx509.Certificate) { c.NotAfter = testNow.AddDate(0, 0, -1) }), codeOCSPSignature},
		{"delegate of another issuer", w.answer(w.strangersDelegate(stranger), goodAnswer()), codeOCSPSignature},
		{"old answer", w.answer(w.issuer(), old), codeOCSPTime},
		{"old answer without end", w.answer(w.issuer(), endless), codeOCSPTime},
		{"from the future", w.answer(w.issuer(), future), codeOCSPTime},
		{"nextUpdate before thisUpdate", w.answer(w.issuer(), backwards), codeOCSP},
		{"tryLater", refusal(3), codeOCSP},
		{"unauthorized", refusal(6), codeOCSP},
		{"status 4", refusal(4), codeOCSP},
		{"successful without an answer", refusal(0), codeOCSP},
		{"too long", make([]byte, MaxOCSPResponse+1), codeOCSP},
		{"empty", nil, codeOCSP},
	}
}

// strangersDelegate has a certificate that another authority issued in the
// issuer's name.
func (w *ocspWorld) strangersDelegate(stranger *outside) *OCSPResponder {
	r := w.delegate(nil)
	key := w.newKey()
	parent := *w.root
	template := &smx509.Certificate{
		SerialNumber: big.NewInt(5), Subject: w.root.Subject, NotBefore: testNow.AddDate(0, -1, 0), NotAfter: testNow.AddDate(1, 0, 0),
		KeyUsage: smx509.KeyUsageDigitalSignature, ExtKeyUsage: []smx509.ExtKeyUsage{smx509.ExtKeyUsageOCSPSigning},
	}
	parent.PublicKey = &stranger.key.PublicKey
	der, err := smx509.CreateCertificate(w.rand, template, &parent, &key.PublicKey, stranger.key)
	w.must(err)
	r.Certificate = der
	r.Sign = func(msg []byte) ([]byte, error) { return sm.Sign(w.rand, key, msg) }
	return r
}

func TestOCSPRefusals(t *testing.T) {
	w := newOCSPWorld(t, OCSPHashSM3)
	for _, c := range ocspCases(w) {
		t.Run(c.name, func(t *testing.T) {
			a, err := w.request.ParseOCSPResponse(c.der, w.root.Raw, testNow)
			wantCode(t, err, c.code)
			if err == nil && a.Fresh != (c.name != "without nonce") {
				t.Errorf("fresh: %v", a.Fresh)
			}
		})
	}
	t.Run("produced in the future", func(t *testing.T) {
		der, err := w.issuer().Answer(w.request, goodAnswer(), testNow.Add(2*time.Hour))
		w.must(err)
		_, err = w.request.ParseOCSPResponse(der, w.root.Raw, testNow)
		wantCode(t, err, codeOCSPTime)
	})
	t.Run("a request about another's certificate", func(t *testing.T) {
		stranger := newOutside(t, "ocsp stranger")
		_, err := NewOCSPRequest(w.cert, stranger.root.Raw, OCSPHashSM3, nil)
		wantCode(t, err, codeChain)
		q, err := NewOCSPRequest(stranger.cert(&stranger.newKey().PublicKey, signUsage, nil), stranger.root.Raw, OCSPHashSM3, nil)
		w.must(err)
		der, err := w.issuer().Answer(q, goodAnswer(), testNow)
		w.must(err)
		_, err = q.ParseOCSPResponse(der, stranger.root.Raw, testNow)
		wantCode(t, err, codeOCSP)
		if !strings.Contains(err.Error(), "unauthorized") {
			t.Errorf("%v", err)
		}
	})
}

// ocspRequestCases are requests that a responder does not read.
func ocspRequestCases(w *ocspWorld) []derCase {
	two := w.built(func(b *cryptobyte.Builder) {
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
					for range 2 {
						b.AddASN1(tag.SEQUENCE, w.request.id.add)
					}
				})
			})
		})
	})
	return []derCase{
		{"good", w.request.DER, ""},
		{"trailing byte", append(bytes.Clone(w.request.DER), 0), codeOCSP},
		{"truncated", w.request.DER[:len(w.request.DER)-1], codeOCSP},
		{"two certificates", two, codeOCSP},
		{"too long", make([]byte, MaxOCSPRequest+1), codeOCSP},
		{"empty", nil, codeOCSP},
	}
}

func TestOCSPRequestRefusals(t *testing.T) {
	for _, c := range ocspRequestCases(newOCSPWorld(t, OCSPHashSM3)) {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseOCSPRequest(c.der)
			wantCode(t, err, c.code)
		})
	}
}

func FuzzParseOCSPRequest(f *testing.F) {
	for _, c := range ocspRequestCases(newOCSPWorld(f, OCSPHashSM3)) {
		if len(c.der) <= MaxOCSPRequest {
			f.Add(c.der)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := ParseOCSPRequest(b)
		if err != nil {
			wantSome(t, err)
			return
		}
		if q.id.hash == "" {
			return // a hash that is not made here
		}
		again, err := q.encode()
		if err != nil {
			t.Fatal(err)
		}
		other, err := ParseOCSPRequest(again)
		if err != nil || !other.id.is(q.id) {
			t.Errorf("written back: %v", err)
		}
	})
}

func FuzzParseOCSPResponse(f *testing.F) {
	w := newOCSPWorld(f, OCSPHashSM3)
	for _, c := range ocspCases(w) {
		if len(c.der) < 4<<10 {
			f.Add(c.der)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := w.request.ParseOCSPResponse(b, w.root.Raw, testNow); err != nil {
			wantSome(t, err)
		}
		// Behind the signature, which a mutation never passes.
		if err := new(ocspResponse).readData(b); err != nil {
			wantSome(t, err)
		}
	})
}

// TestOCSPWithOpenSSL: OpenSSL reads what is made here, and asks what is read
// here.
func TestOCSPWithOpenSSL(t *testing.T) {
	w := newOCSPWorld(t, OCSPHashSHA256)
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		w.must(os.WriteFile(path, b, 0o600))
		return path
	}
	pemFile := func(name string, der []byte) string {
		return write(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	ca, cert := pemFile("ca.pem", w.root.Raw), pemFile("cert.pem", w.cert)
	request := filepath.Join(dir, "request.der")
	out, err := openssl(t, "ocsp", "-issuer", ca, "-sha256", "-cert", cert, "-reqout", request)
	if err != nil {
		t.Fatalf("openssl makes no request: %v\n%s", err, out)
	}
	b, err := os.ReadFile(request)
	w.must(err)
	q, err := ParseOCSPRequest(b)
	w.must(err)
	if !q.about(w.root) || q.Serial.Cmp(w.request.Serial) != 0 || len(q.Nonce) == 0 {
		t.Errorf("OpenSSL's request is read as %+v", q)
	}
	answer := OCSPAnswer{Status: OCSPRevoked, Effective: testNow.Add(-time.Hour), Reason: "key_compromise", ThisUpdate: testNow}
	response := write("response.der", w.answer(w.issuer(), answer))
	out, err = openssl(t, "ocsp", "-respin", response, "-noverify", "-text")
	for _, want := range []string{"Cert Status: revoked", "keyCompromise", "SM2-with-SM3"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("openssl ocsp: %v: %q is missing in\n%s", err, want, out)
		}
	}
}
