package timestamp_test

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emmansun/gmsm/pkcs7"
	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/crypto/timestamp"
	"github.com/yizhan-gateway/yizhan/crypto/timestamp/tsatest"
)

// Cross-tests with gmsm's pkcs7 and the standard library's ASN.1, which are
// not ours: they read and verify our tokens, and we read theirs. OpenSSL 3.0
// reads requests and responses, and cannot judge them: its `ts -verify` gives
// SM2 the bare digest of the signed attributes, without Z, so that no standard
// SM2 signature verifies there.

// tstInfo is RFC 3161's structure as encoding/asn1 knows it.
type tstInfo struct {
	Version  int
	Policy   asn1.ObjectIdentifier
	Imprint  imprint
	Serial   int
	Time     time.Time `asn1:"generalized"`
	Accuracy accuracy  `asn1:"optional"`
	Nonce    int64     `asn1:"optional"`
}

type imprint struct {
	Algorithm pkix.AlgorithmIdentifier
	Hash      []byte
}

type accuracy struct {
	Seconds int `asn1:"optional"`
	Millis  int `asn1:"optional,tag:0"`
	Micros  int `asn1:"optional,tag:1"`
}

type essCertID struct {
	Algorithm pkix.AlgorithmIdentifier
	Hash      []byte
}

type signingCertificate struct{ Certs []essCertID }

var oidSM3 = pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 156, 10197, 1, 401}}

func TestOthersVerifyOurs(t *testing.T) {
	at := when.Truncate(time.Second)
	key := must[*tsatest.Key](t)(tsatest.NewKey(random(5), tsatest.Template(at)))
	for name, gb := range map[string]bool{"RFC 5652": false, "GB/T 35275": true} {
		issuer := timestamp.Issuer{Signer: key, Policy: tsatest.Policy, Accuracy: 2 * time.Second, GB: gb}
		r := &timestamp.Request{Imprint: sm.Sum([]byte("x")), Nonce: []byte{7}, CertReq: true}
		token := must[[]byte](t)(timestamp.ParseResponse(must[[]byte](t)(issuer.Issue(r, 5, at))))
		p7 := must[*pkcs7.PKCS7](t)(pkcs7.Parse(token))
		pool := smx509.NewCertPool()
		pool.AddCert(must[*smx509.Certificate](t)(smx509.ParseCertificate(key.DER)))
		if err := p7.Verify(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var info tstInfo
		if rest, err := asn1.Unmarshal(p7.Content, &info); err != nil || len(rest) > 0 {
			t.Fatalf("%s: %v", name, err)
		}
		if !info.Time.Equal(at) || info.Nonce != 7 || info.Serial != 5 || info.Accuracy.Seconds != 2 || !bytes.Equal(info.Imprint.Hash, r.Imprint[:]) {
			t.Errorf("%s: %+v", name, info)
		}
	}
}

// theirs makes a token with gmsm's pkcs7.
func theirs(t *testing.T, key *tsatest.Key, gb bool, info any, extra ...pkcs7.Attribute) []byte {
	t.Helper()
	content := must[[]byte](t)(asn1.Marshal(info))
	sd := must[*pkcs7.SignedData](t)(pkcs7.NewSMSignedData(content))
	sd.GetSignedData().ContentInfo.ContentType = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
	cert := must[*smx509.Certificate](t)(smx509.ParseCertificate(key.DER))
	if err := sd.AddSigner(cert, key.Private, pkcs7.SignerInfoConfig{ExtraSignedAttributes: extra}); err != nil {
		t.Fatal(err)
	}
	der := must[[]byte](t)(sd.Finish())
	if !gb {
		der = relabel(t, der)
	}
	return der
}

// relabel gives SignedData of GB/T 35275 the outer type of RFC 5652.
func relabel(t *testing.T, der []byte) []byte {
	var outer struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue
	}
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		t.Fatal(err)
	}
	outer.Type = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	return must[[]byte](t)(asn1.Marshal(outer))
}

func TestWeVerifyTheirs(t *testing.T) {
	at := when.Truncate(time.Second)
	key := must[*tsatest.Key](t)(tsatest.NewKey(random(5), tsatest.Template(at)))
	other := must[*tsatest.Key](t)(tsatest.NewKey(random(6), tsatest.Template(at)))
	digest := sm.Sum([]byte("x"))
	info := tstInfo{
		Version: 1, Policy: tsatest.Policy, Imprint: imprint{oidSM3, digest[:]}, Serial: 9,
		Time: at, Accuracy: accuracy{1, 500, 20}, Nonce: 77,
	}
	names := func(k *tsatest.Key) pkcs7.Attribute {
		hash := sm.Sum(k.DER)
		return pkcs7.Attribute{
			Type:  asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47},
			Value: signingCertificate{[]essCertID{{oidSM3, hash[:]}}},
		}
	}
	further := pkcs7.Attribute{Type: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 52}, Value: []byte("signed, and says nothing here")}
	for _, gb := range []bool{false, true} {
		token, err := timestamp.Parse(theirs(t, key, gb, info, names(key), further))
		if err != nil {
			t.Fatal(err)
		}
		if err := token.Verify(key.DER); err != nil {
			t.Error(err)
		}
		if !token.Time.Equal(at) || token.Accuracy != 1500020*time.Microsecond || !bytes.Equal(token.Nonce, []byte{77}) || !bytes.Equal(token.Serial, []byte{9}) || token.Imprint != digest {
			t.Errorf("%+v", token)
		}
	}
	// A good signature is not enough: the signed attribute must name the
	// certificate, or another one with the same key could stand in for it.
	token := must[*timestamp.Token](t)(timestamp.Parse(theirs(t, key, false, info, names(other))))
	if err := token.Verify(key.DER); !errors.Is(err, timestamp.ErrSigner) {
		t.Errorf("the attribute names another certificate: %v", err)
	}
	if _, err := timestamp.Parse(theirs(t, key, false, info)); !errors.Is(err, timestamp.ErrMalformed) {
		t.Errorf("no signingCertificateV2: %v", err)
	}
	sha := names(key)
	sha.Value = signingCertificate{[]essCertID{{pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}}, digest[:]}}}
	if _, err := timestamp.Parse(theirs(t, key, false, info, sha)); !errors.Is(err, timestamp.ErrMalformed) {
		t.Errorf("signingCertificateV2 with SHA-256: %v", err)
	}
	later := info
	later.Version = 2
	if _, err := timestamp.Parse(theirs(t, key, false, later, names(key))); !errors.Is(err, timestamp.ErrMalformed) {
		t.Errorf("TSTInfo of version 2: %v", err)
	}
}

func TestOpenSSLReadsOurs(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is missing (Debian package openssl): scripts/test installs it where it may")
	}
	a := must[*tsatest.TSA](t)(tsatest.New(random(1), now))
	r := &timestamp.Request{Imprint: sm.Sum([]byte("x")), Nonce: []byte{0x4d, 2}, CertReq: true}
	query := must[[]byte](t)(r.Marshal())
	for kind, c := range map[string]struct {
		der  []byte
		says []string
	}{
		"-query": {query, []string{"Hash Algorithm: sm3", "Nonce: 0x4D02", "Certificate required: yes"}},
		"-reply": {must[[]byte](t)(a.Respond(query)), []string{"Status: Granted", "1.3.6.1.4.1.32473.1.1", "Nov 25 08:00:00.25 2026 GMT", "Nonce: 0x4D02", "Accuracy: 0x01 seconds"}},
	} {
		path := filepath.Join(t.TempDir(), "der")
		if err := os.WriteFile(path, c.der, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("openssl", "ts", kind, "-in", path, "-text").CombinedOutput()
		for _, want := range c.says {
			if err != nil || !strings.Contains(string(out), want) {
				t.Errorf("%s: %q is missing: %v\n%s", kind, want, err, out)
			}
		}
	}
}
