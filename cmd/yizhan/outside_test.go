package main

import (
	"crypto/rand"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emmansun/gmsm/smx509"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// authorityOutside is a certification authority that is none of ours, as it
// would be in another building: it makes encryption keys itself.
type authorityOutside struct {
	key    *sm.PrivateKey
	root   *smx509.Certificate
	number int64
	list   atomic.Pointer[[]byte]
}

// outsides are those of the running scripts, by the directory they work in.
var (
	outsidesLock sync.Mutex
	outsides     = map[string]*authorityOutside{}
)

// outsideca init FILE            makes it; its certificate goes to FILE, and its
//
//	list is at $CA_URL from then on
//
// outsideca issue CSR SIGN ENC KEY   a dual certificate for a request
// outsideca revoke CERTIFICATE…      a new list that names these
func outsideCA(ts *testscript.TestScript, _ bool, args []string) {
	where := ts.MkAbs(".")
	if args[0] == "init" {
		o := newAuthorityOutside(ts)
		outsidesLock.Lock()
		outsides[where] = o
		outsidesLock.Unlock()
		o.revoke(ts)
		writePEM(ts, args[1], "CERTIFICATE", o.root.Raw)
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(*o.list.Load()) }))
		ts.Defer(s.Close)
		ts.Setenv("CA_URL", s.URL+"/list.crl")
		return
	}
	outsidesLock.Lock()
	o := outsides[where]
	outsidesLock.Unlock()
	switch args[0] {
	case "issue":
		o.issue(ts, args[1], args[2], args[3], args[4])
	case "revoke":
		o.revoke(ts, args[1:]...)
	default:
		ts.Fatalf("outsideca %s", args[0])
	}
}

func newAuthorityOutside(ts *testscript.TestScript) *authorityOutside {
	key, err := sm.GenerateKey(rand.Reader)
	ts.Check(err)
	template := &smx509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "示范证书机构"},
		NotBefore: time.Now().AddDate(0, 0, -1), NotAfter: time.Now().AddDate(9, 0, 0),
		KeyUsage: smx509.KeyUsageCertSign | smx509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := smx509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	ts.Check(err)
	root, err := smx509.ParseCertificate(der)
	ts.Check(err)
	return &authorityOutside{key: key, root: root}
}

func writePEM(ts *testscript.TestScript, name, kind string, der []byte) {
	ts.Check(os.WriteFile(ts.MkAbs(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

func (o *authorityOutside) issue(ts *testscript.TestScript, csr, sign, encrypt, enveloped string) {
	b, err := os.ReadFile(ts.MkAbs(csr))
	ts.Check(err)
	request, err := certs.ParseCSR(b)
	ts.Check(err)
	made, err := sm.GenerateKey(rand.Reader)
	ts.Check(err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	ts.Check(err)
	for _, half := range []struct {
		file  string
		pub   any
		usage smx509.KeyUsage
	}{
		{sign, request.PublicKey, smx509.KeyUsageDigitalSignature | smx509.KeyUsageContentCommitment},
		{encrypt, &made.PublicKey, smx509.KeyUsageKeyEncipherment | smx509.KeyUsageDataEncipherment},
	} {
		serial = new(big.Int).Add(serial, big.NewInt(1))
		der, err := smx509.CreateCertificate(rand.Reader, &smx509.Certificate{
			SerialNumber: serial, Subject: request.Subject,
			NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().AddDate(1, 0, 0), KeyUsage: half.usage,
		}, o.root, half.pub, o.key)
		ts.Check(err)
		writePEM(ts, half.file, "CERTIFICATE", der)
	}
	b, err = certs.SealEnvelopedKey(rand.Reader, request.PublicKey, made)
	ts.Check(err)
	writePEM(ts, enveloped, certs.EnvelopedKeyPEM, b)
}

func (o *authorityOutside) revoke(ts *testscript.TestScript, files ...string) {
	var list []certs.RevokedSerial
	for _, name := range files {
		der, err := certs.ReadCertificate(ts.MkAbs(name))
		ts.Check(err)
		cert, err := smx509.ParseCertificate(der)
		ts.Check(err)
		list = append(list, certs.RevokedSerial{Serial: cert.SerialNumber, Effective: time.Now().Add(-time.Hour), Reason: certs.ReasonKeyCompromise})
	}
	o.number++
	sign := func(msg []byte) ([]byte, error) { return sm.Sign(rand.Reader, o.key, msg) }
	der, err := certs.NewCRL(o.root.Raw, sign, big.NewInt(o.number), time.Now(), time.Now().AddDate(0, 0, 7), list)
	ts.Check(err)
	o.list.Store(&der)
}
