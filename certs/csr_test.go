package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"os/exec"
	"testing"

	"github.com/emmansun/gmsm/smx509"
	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

func TestCSR(t *testing.T) {
	f := newForge(t, "csr")
	key := f.newKey()
	for _, use := range []string{UseSign, UseEncrypt} {
		der := f.csr(key, use)
		for _, b := range [][]byte{der, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})} {
			c, err := ParseCSR(b)
			f.must(err)
			if c.Use != use || c.Subject.CommonName != "示范单位" || c.KeyID != sm.KeyID(&key.PublicKey) || !bytes.Equal(c.DER, der) {
				t.Errorf("read as %+v", c)
			}
		}
		theirs, err := smx509.ParseCertificateRequest(der)
		f.must(err)
		f.must(theirs.CheckSignature())
	}
	theirs, err := smx509.CreateCertificateRequest(f.rand, &smx509.CertificateRequest{Subject: pkix.Name{CommonName: "x"}}, key)
	f.must(err)
	if c, err := ParseCSR(theirs); err != nil || c.Use != "" {
		t.Errorf("a request of another implementation without key usage: %v", err)
	}
}

// csrCases are requests that must not be taken, with their failure class.
func csrCases(f *forge) []derCase {
	key := f.newKey()
	good := f.csr(key, UseSign)
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	other := f.csr(f.newKey(), UseSign)
	basic := func(b *cryptobyte.Builder) {
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1Boolean(true) })
	}
	ask := func(write func(*cryptobyte.Builder)) []byte {
		tbs, err := requestInfoAsking(key, write)
		f.must(err)
		return f.signDER(tbs, key)
	}
	swap := func(s signedDER) []byte { // the signature of another request
		b, err := sealed(readTBS(f, good).tbs, s.signature, nil)
		f.must(err)
		return b
	}
	return []derCase{
		{"good", good, ""},
		{"trailing byte", append(bytes.Clone(good), 0), codeRequest},
		{"signature changed", flipped, codeRequest},
		{"signature of another key", swap(readTBS(f, other)), codeRequest},
		{"RSA, P-256 or other algorithm", f.foreignCSR(), codeRequest},
		{"point off the curve", f.resign(good, sm.PublicKeyBytes(&key.PublicKey)[1:], bytes.Repeat([]byte{7}, 64), key), codeRequest},
		{"version 2", f.resign(good, []byte{2, 1, 0, 0x30}, []byte{2, 1, 1, 0x30}, key), codeRequest},
		{"wants to be an authority", ask(func(b *cryptobyte.Builder) { addExtension(b, oidBasic, true, basic) }), codeRequest},
		{"unknown critical extension", ask(func(b *cryptobyte.Builder) {
			addExtension(b, oidInvalidity, true, func(b *cryptobyte.Builder) { b.AddASN1NULL() })
		}), codeRequest},
		{"extension twice", ask(func(b *cryptobyte.Builder) {
			for range 2 {
				addExtension(b, oidKeyUsage, true, func(b *cryptobyte.Builder) { addUsage(b, signUsage) })
			}
		}), codeRequest},
		{"key usage of an authority", ask(func(b *cryptobyte.Builder) {
			addExtension(b, oidKeyUsage, true, func(b *cryptobyte.Builder) { addUsage(b, smx509.KeyUsageCertSign) })
		}), codeUsage},
		{"sign and encrypt at once", ask(func(b *cryptobyte.Builder) {
			addExtension(b, oidKeyUsage, true, func(b *cryptobyte.Builder) {
				addUsage(b, smx509.KeyUsageDigitalSignature|smx509.KeyUsageKeyEncipherment)
			})
		}), codeUsage},
		{"too long", make([]byte, MaxCSR+1), codeRequest},
		{"a certificate", f.root.Raw, codeRequest},
		{"PEM of another type", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: good}), codeRequest},
		{"empty", nil, codeRequest},
	}
}

// derCase is a file and what must be said of it: a code, or empty.
type derCase struct {
	name string
	der  []byte
	code string
}

func readTBS(f *forge, der []byte) signedDER {
	in := cryptobyte.String(der)
	var outer cryptobyte.String
	in.ReadASN1(&outer, tag.SEQUENCE)
	s, ok := readSigned(&outer)
	if !ok {
		f.t.Fatal("not signed")
	}
	return s
}

// requestInfoAsking is a request with extensions of the test's choice.
func requestInfoAsking(key *sm.PrivateKey, write func(*cryptobyte.Builder)) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0)
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(tag.SET, func(b *cryptobyte.Builder) {
				b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier([]int{2, 5, 4, 3})
					b.AddASN1(tag.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte("x")) })
				})
			})
		})
		addKey(b, &key.PublicKey)
		b.AddASN1(explicit0, func(b *cryptobyte.Builder) {
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidExtensionRequest)
				b.AddASN1(tag.SET, func(b *cryptobyte.Builder) { b.AddASN1(tag.SEQUENCE, write) })
			})
		})
	})
	return b.Bytes()
}

// foreignCSR is a request with a key of another curve; its bytes differ from
// run to run.
func (f *forge) foreignCSR() []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	f.must(err)
	der, err := smx509.CreateCertificateRequest(rand.Reader, &smx509.CertificateRequest{Subject: pkix.Name{CommonName: "x"}}, crypto.Signer(key))
	f.must(err)
	return der
}

func TestCSRRefusals(t *testing.T) {
	for _, c := range csrCases(newForge(t, "csr refusals")) {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseCSR(c.der)
			wantCode(t, err, c.code)
		})
	}
}

func FuzzParseCSR(f *testing.F) {
	for _, c := range csrCases(newForge(f, "csr refusals")) {
		if len(c.der) < 4<<10 {
			f.Add(c.der)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseCSR(b)
		if err != nil {
			wantSome(t, err)
			return
		}
		again, err := ParseCSR(c.DER)
		if err != nil || again.KeyID != c.KeyID || again.Use != c.Use {
			t.Errorf("read again: %v", err)
		}
	})
}

// openssl runs the system's OpenSSL, which is an independent implementation.
func openssl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is missing (Debian package openssl): scripts/test installs it where it may")
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), err
}
