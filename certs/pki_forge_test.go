package certs

import (
	"bytes"
	"crypto"
	"crypto/x509/pkix"
	"encoding/hex"
	"io"
	"math/big"
	"testing"
	"time"

	"github.com/emmansun/gmsm/sm2"
	"github.com/emmansun/gmsm/smx509"
	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// outside is a certification authority that is none of ours, as an agency may
// have its certificates from.
type outside struct {
	*forge
}

func newOutside(t testing.TB, seed string) *outside {
	o := &outside{newForge(t, seed)}
	o.root = o.selfSigned(o.key, func(c *smx509.Certificate) {
		c.Subject = pkix.Name{Country: []string{"CN"}, CommonName: "示范证书机构 " + seed}
		c.KeyUsage = smx509.KeyUsageCertSign | smx509.KeyUsageCRLSign
		c.SubjectKeyId = []byte("key of " + seed)
	})
	return o
}

func (o *outside) sign(msg []byte) ([]byte, error) { return sm.Sign(o.rand, o.key, msg) }

func (o *outside) crl(number int64, list ...RevokedSerial) []byte {
	o.t.Helper()
	der, err := NewCRL(o.root.Raw, o.sign, big.NewInt(number), testNow, testNow.AddDate(0, 0, 7), list)
	o.must(err)
	return der
}

func revokedSerial(serial int64, effective time.Time, reason string) RevokedSerial {
	return RevokedSerial{big.NewInt(serial), effective, reason}
}

// signer gives a key in memory to what signs requests and certificates.
type memorySigner struct {
	f   *forge
	key *sm.PrivateKey
}

func (m memorySigner) Public() crypto.PublicKey { return &m.key.PublicKey }

func (m memorySigner) Sign(_ io.Reader, msg []byte, _ crypto.SignerOpts) ([]byte, error) {
	return sm.Sign(m.f.rand, m.key, msg)
}

func (f *forge) csr(key *sm.PrivateKey, use string) []byte {
	f.t.Helper()
	der, err := NewCSR(memorySigner{f, key}, pkix.Name{Country: []string{"CN"}, CommonName: "示范单位"}, use, f.rand)
	f.must(err)
	return der
}

// Unwrap lets memoryKeys open enveloped keys.
func (m *memoryKeys) Unwrap(id sm.Digest, wrapped []byte) ([]byte, error) {
	key := m.keys[id]
	if key == nil {
		return nil, sm.ErrDecrypt
	}
	return sm.Decrypt(key, wrapped)
}

// resign replaces old by new in what was signed, all lengths staying, and
// signs again.
func (f *forge) resign(der, old, replacement []byte, key *sm.PrivateKey) []byte {
	f.t.Helper()
	in := cryptobyte.String(der)
	var outer cryptobyte.String
	if len(old) != len(replacement) || !in.ReadASN1(&outer, tag.SEQUENCE) {
		f.t.Fatal("cannot resign that")
	}
	s, ok := readSigned(&outer)
	if !ok || bytes.Count(s.tbs, old) != 1 {
		f.t.Fatalf("what is to be replaced is there %d times", bytes.Count(s.tbs, old))
	}
	return f.signDER(bytes.Replace(s.tbs, old, replacement, 1), key)
}

func (f *forge) signDER(tbs []byte, key *sm.PrivateKey) []byte {
	f.t.Helper()
	signature, err := sm.Sign(f.rand, key, tbs)
	f.must(err)
	out, err := sealed(tbs, signature, nil)
	f.must(err)
	return out
}

// built gives what a builder writes.
func (f *forge) built(write func(*cryptobyte.Builder)) []byte {
	f.t.Helper()
	var b cryptobyte.Builder
	write(&b)
	out, err := b.Bytes()
	f.must(err)
	return out
}

func privateKey(t testing.TB, text string) *sm.PrivateKey {
	t.Helper()
	d, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	key, err := sm2.NewPrivateKey(d)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
