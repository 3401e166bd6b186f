package certs

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"path/filepath"
	"testing"

	"github.com/emmansun/gmsm/sm2"
	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// TestEnvelopedKey: made here and by gmsm, opened here and by gmsm.
func TestEnvelopedKey(t *testing.T) {
	f := newForge(t, "enveloped")
	keys := f.keys()
	pub, err := keys.Generate()
	f.must(err)
	signing := keys.keys[sm.KeyID(pub)]
	key := f.newKey()
	ours, err := SealEnvelopedKey(f.rand, pub, key)
	f.must(err)
	theirs, err := sm2.MarshalEnvelopedPrivateKey(rand.Reader, pub, key)
	f.must(err)
	armoured := pem.EncodeToMemory(&pem.Block{Type: EnvelopedKeyPEM, Bytes: ours})
	for name, b := range map[string][]byte{"ours": ours, "theirs": theirs, "PEM": armoured} {
		got, err := OpenEnvelopedKey(b, keys, sm.KeyID(pub))
		if err != nil || !got.Equal(key) {
			t.Errorf("%s: %v", name, err)
		}
	}
	got, err := sm2.ParseEnvelopedPrivateKey(signing, ours)
	if err != nil || !got.Equal(key) {
		t.Errorf("gmsm does not open ours: %v", err)
	}
}

// TestEnvelopedKeyIntoKeystore: from the authority into custody, with the
// signing key in a file and under an HSM, and while that is away.
func TestEnvelopedKeyIntoKeystore(t *testing.T) {
	f := newForge(t, "into keystore")
	hsm := &guardOfTest{}
	aead, err := sm.NewGCM([]byte("sixteen bytes ok"))
	f.must(err)
	hsm.AEAD = aead
	file, err := keystore.Create(filepath.Join(t.TempDir(), "keys"), []byte(rand.Text()), rand.Reader)
	f.must(err)
	wrapped, err := keystore.CreateWrapped(filepath.Join(t.TempDir(), "keys"), hsm, rand.Reader)
	f.must(err)
	for name, store := range map[string]*keystore.Store{"file": file, "wrapped": wrapped} {
		t.Run(name, func(t *testing.T) {
			pub, err := store.Generate()
			f.must(err)
			signer, err := store.Signer(sm.KeyID(pub))
			f.must(err)
			csr, err := NewCSR(signer, pkix.Name{CommonName: "x"}, UseSign, rand.Reader)
			f.must(err)
			if _, err := ParseCSR(csr); err != nil {
				t.Error(err)
			}
			key := f.newKey()
			b, err := SealEnvelopedKey(rand.Reader, pub, key)
			f.must(err)
			hsm.away = true
			if _, err := OpenEnvelopedKey(b, store, sm.KeyID(pub)); name == "wrapped" && !errors.Is(err, keystore.ErrUnavailable) {
				t.Errorf("while the HSM is away: %v", err)
			}
			hsm.away = false
			got, err := OpenEnvelopedKey(b, store, sm.KeyID(pub))
			f.must(err)
			if err := store.Import(got); err != nil || !store.Has(sm.KeyID(&key.PublicKey)) {
				t.Errorf("not imported: %v", err)
			}
		})
	}
}

// guardOfTest stands for an HSM that wraps keys.
type guardOfTest struct {
	cipher.AEAD
	away bool
}

func (g *guardOfTest) Wrap(name string, plain []byte) ([]byte, error) {
	if g.away {
		return nil, keystore.ErrUnavailable
	}
	return g.Seal(nil, make([]byte, 12), plain, []byte(name)), nil
}

func (g *guardOfTest) Unwrap(name string, sealed []byte) ([]byte, error) {
	if g.away {
		return nil, keystore.ErrUnavailable
	}
	return g.Open(nil, make([]byte, 12), sealed, []byte(name))
}

func (*guardOfTest) Close() error { return nil }

// envelopedCases are enveloped keys that must not open for a signing key.
func envelopedCases(f *forge, signing *sm.PrivateKey) []derCase {
	key := f.newKey()
	good, err := SealEnvelopedKey(f.rand, &signing.PublicKey, key)
	f.must(err)
	change := func(old, replacement []byte) []byte {
		if bytes.Count(good, old) != 1 {
			f.t.Fatalf("% x is there %d times", old, bytes.Count(good, old))
		}
		return bytes.Replace(good, old, replacement, 1)
	}
	foreign, err := SealEnvelopedKey(f.rand, &f.newKey().PublicKey, key)
	f.must(err)
	last := bytes.Clone(good)
	last[len(last)-1] ^= 1
	other := f.newKey()
	e, err := parseEnvelopedKey(good)
	f.must(err)
	short := f.built(func(b *cryptobyte.Builder) {
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidSM4ECB) })
			b.AddBytes(e.wrapped)
			b.AddASN1BitString(sm.PublicKeyBytes(e.public))
			b.AddASN1BitString(e.private[:31])
		})
	})
	sm4ECB := []byte{0x06, 0x08, 0x2a, 0x81, 0x1c, 0xcf, 0x55, 0x01, 0x68, 0x01}
	return []derCase{
		{"good", good, ""},
		{"trailing byte", append(bytes.Clone(good), 0), codeKey},
		{"private key changed", last, codeKey},
		{"public key of another pair", change(sm.PublicKeyBytes(&key.PublicKey), sm.PublicKeyBytes(&other.PublicKey)), codeKey},
		{"public key off the curve", change(sm.PublicKeyBytes(&key.PublicKey)[1:], bytes.Repeat([]byte{7}, 64)), codeKey},
		{"for another signing key", foreign, codeKey},
		{"SM4-CBC", change(sm4ECB, append(bytes.Clone(sm4ECB[:9]), 2)), codeKey},
		{"private key of 31 bytes", short, codeKey},
		{"truncated", good[:len(good)-1], codeKey},
		{"too long", make([]byte, MaxEnvelopedKey+1), codeKey},
		{"a private key in PEM", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: good}), codeKey},
		{"empty", nil, codeKey},
	}
}

func TestEnvelopedKeyRefusals(t *testing.T) {
	f := newForge(t, "enveloped refusals")
	keys := f.keys()
	pub, err := keys.Generate()
	f.must(err)
	for _, c := range envelopedCases(f, keys.keys[sm.KeyID(pub)]) {
		t.Run(c.name, func(t *testing.T) {
			_, err := OpenEnvelopedKey(c.der, keys, sm.KeyID(pub))
			wantCode(t, err, c.code)
		})
	}
}

// TestEnvelopedKeySaysOneThing: what is wrong inside is not told apart, and an
// HSM that does not answer is not taken for a wrong key.
func TestEnvelopedKeySaysOneThing(t *testing.T) {
	f := newForge(t, "enveloped refusals")
	keys := f.keys()
	pub, err := keys.Generate()
	f.must(err)
	said := map[string]bool{}
	for _, c := range envelopedCases(f, keys.keys[sm.KeyID(pub)]) {
		switch c.name {
		case "private key changed", "public key of another pair", "for another signing key":
			_, err := OpenEnvelopedKey(c.der, keys, sm.KeyID(pub))
			said[err.Error()] = true
		case "good":
			if _, err := OpenEnvelopedKey(c.der, away{}, sm.KeyID(pub)); !errors.Is(err, keystore.ErrUnavailable) {
				t.Errorf("an HSM that is away: %v", err)
			}
		}
	}
	if len(said) != 1 {
		t.Errorf("%d different errors: %v", len(said), said)
	}
}

// away is an HSM that does not answer.
type away struct{}

func (away) Unwrap(sm.Digest, []byte) ([]byte, error) { return nil, keystore.ErrUnavailable }

func FuzzOpenEnvelopedKey(f *testing.F) {
	g := newForge(f, "enveloped refusals")
	keys := g.keys()
	pub, err := keys.Generate()
	g.must(err)
	for _, c := range envelopedCases(g, keys.keys[sm.KeyID(pub)]) {
		if len(c.der) <= MaxEnvelopedKey {
			f.Add(c.der)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		key, err := OpenEnvelopedKey(b, keys, sm.KeyID(pub))
		if err != nil {
			wantSome(t, err)
			return
		}
		e, err := parseEnvelopedKey(b)
		if err != nil || !e.public.Equal(&key.PublicKey) {
			t.Errorf("the key does not fit: %v", err)
		}
	})
}

func TestParseCertificates(t *testing.T) {
	f := newForge(t, "files")
	one, two := f.cert(&f.newKey().PublicKey, signUsage, nil), f.cert(&f.newKey().PublicKey, encryptUsage, nil)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for _, c := range []struct {
		name string
		file []byte
		n    int
		code string
	}{
		{"DER", one, 1, ""},
		{"PEM", pemOf(one), 1, ""},
		{"chain with text", join([]byte("subject=甲\n"), pemOf(one), []byte("issuer=乙\n"), pemOf(two), []byte("\nend\n")), 2, ""},
		{"DER with a trailing byte", append(bytes.Clone(one), 0), 0, codeChain},
		{"private key behind it", join(pemOf(one), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}})), 0, codeChain},
		{"damaged block before it", join([]byte("-----BEGIN CERTIFICATE-----\n!!\n"), pemOf(one)), 0, codeChain},
		{"damaged block behind it", join(pemOf(one), []byte("-----BEGIN CERTIFICATE-----\n!!\n")), 0, codeChain},
		{"17", bytes.Repeat(pemOf(one), 17), 0, codeChain},
		{"no certificate in the block", pemOf([]byte{0x30, 0}), 0, codeChain},
		{"too long", make([]byte, MaxCertificateFile+1), 0, codeChain},
		{"empty", nil, 0, codeChain},
	} {
		t.Run(c.name, func(t *testing.T) {
			list, err := ParseCertificates(c.file)
			wantCode(t, err, c.code)
			if len(list) != c.n {
				t.Errorf("%d certificates", len(list))
			}
		})
	}
	_, err := VerifyUse(UseSign, one, f.root.Raw)
	wantCode(t, err, "")
	_, err = VerifyUse(UseEncrypt, one, f.root.Raw)
	wantCode(t, err, codeUsage)
	_, err = VerifyUse(UseSign, one, newOutside(t, "files").root.Raw)
	wantCode(t, err, codeChain)
}

func FuzzParseCertificates(f *testing.F) {
	g := newForge(f, "files")
	one := g.cert(&g.newKey().PublicKey, signUsage, nil)
	f.Add(one)
	f.Add(append(pemOf(one), pemOf(one)...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n!!\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := ParseCertificates(b)
		if err != nil {
			wantSome(t, err)
			return
		}
		var file []byte
		for _, der := range list {
			file = append(file, pemOf(der)...)
		}
		again, err := ParseCertificates(file)
		if err != nil || len(again) != len(list) {
			t.Errorf("read again: %v", err)
		}
	})
}
