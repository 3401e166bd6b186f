package trust

import (
	"crypto/rand"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// TestRevokedResponder: once the issuer's list names its responder's
// certificate, the responder is believed no more; what it revoked before stays,
// also after another start.
func TestRevokedResponder(t *testing.T) {
	w := newWorld(t)
	key, err := sm.GenerateKey(rand.Reader)
	must(t, err)
	der, err := smx509.CreateCertificate(rand.Reader, &smx509.Certificate{
		SerialNumber: big.NewInt(77), Subject: pkix.Name{CommonName: "responder"},
		NotBefore: testNow.AddDate(0, -1, 0), NotAfter: testNow.AddDate(5, 0, 0),
		KeyUsage: smx509.KeyUsageDigitalSignature, ExtKeyUsage: []smx509.ExtKeyUsage{smx509.ExtKeyUsageOCSPSigning},
	}, w.root, &key.PublicKey, w.key)
	must(t, err)
	by := certs.OCSPResponder{Issuer: w.root.Raw, Certificate: der, Sign: func(msg []byte) ([]byte, error) { return sm.Sign(rand.Reader, key, msg) }}
	var revokes atomic.Int64
	revokes.Store(300)
	w.source.OCSP = serves(t, func(out http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		q, err := certs.ParseOCSPRequest(b)
		if err != nil {
			return
		}
		now := *w.now.Load()
		a := certs.OCSPAnswer{Status: certs.OCSPGood, ThisUpdate: now}
		if q.Serial.Int64() == revokes.Load() {
			a = certs.OCSPAnswer{Status: certs.OCSPRevoked, Effective: now, Reason: "key_compromise", ThisUpdate: now}
		}
		if answer, err := by.Answer(q, a, now); err == nil {
			_, _ = out.Write(answer)
		}
	})
	var file atomic.Pointer[[]byte]
	first, second := w.crl(1), w.crl(2, 77)
	file.Store(&first)
	w.source.CRL = serves(t, bytesAt(&file))
	w.source.Certificates = [][]byte{w.cert(300), w.cert(301)}
	w.source.Revoked = new(certs.Directory).RevocationOf
	watch := w.watcher()
	watch.Round(t.Context())
	if !w.revoked(300) || w.revoked(301) {
		t.Fatalf("%+v", watch.Status())
	}
	file.Store(&second)
	w.clock(testNow.Add(defaultInterval))
	watch.Round(t.Context()) // the list comes
	revokes.Store(301)
	w.clock(testNow.Add(2 * defaultInterval))
	watch.Round(t.Context())
	s := watch.Status()[1]
	if !strings.Contains(s.Error, "revoked since") || w.revoked(301) || !w.revoked(300) {
		t.Errorf("%+v", s)
	}
	w.applied = nil
	if w.watcher(); !w.revoked(300) {
		t.Error("what it revoked before is taken back")
	}
}
