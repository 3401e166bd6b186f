package rest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// selfSigned makes a certificate of nobody in particular.
func selfSigned(t *testing.T, until time.Duration) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(until)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// secure serves an office over TLS.
func (o *office) secure(t *testing.T) (ask func(*tls.Config) (*http.Response, error)) {
	t.Helper()
	server := httptest.NewUnstartedServer(o.handler)
	server.TLS = TLS(selfSigned(t, time.Hour))
	server.StartTLS()
	t.Cleanup(server.Close)
	return func(c *tls.Config) (*http.Response, error) {
		c.InsecureSkipVerify = true // the test's own server
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: c, DisableKeepAlives: true}}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/v1/inbox/count", nil)
		o.must(err)
		res, err := client.Do(req)
		if err == nil {
			res.Body.Close()
		}
		return res, err
	}
}

// TestTLSPolicy: 1.3 and 1.2 with the suites that are named; nothing older, no suite
// without forward secrecy or with CBC.
func TestTLSPolicy(t *testing.T) {
	ask := newOffice(t, 0).secure(t)
	for name, c := range map[string]struct {
		config *tls.Config
		served bool
	}{
		"1.3":                   {&tls.Config{MinVersion: tls.VersionTLS13}, true},
		"1.2, as Java 8 has it": {&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}}, true},
		"1.2 with CBC":          {&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256}}, false},
		"1.2 without ECDHE":     {&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}}, false},
		"1.1":                   {&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false},
	} {
		if _, err := ask(c.config); (err == nil) != c.served {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestClientCertificates: the holder of a bound certificate is its agency, until it
// is revoked; the certificate as such, which is no secret, lets nobody in.
func TestClientCertificates(t *testing.T) {
	o := newOffice(t, 0)
	ask := o.secure(t)
	mine, stranger, old := selfSigned(t, time.Hour), selfSigned(t, time.Hour), selfSigned(t, -time.Hour)
	bind := func(c tls.Certificate, scope string) (Key, error) {
		return o.ring.Bind(rand.Reader, c.Certificate[0], certs.AgencyCode(o.yi), []string{scope}, nil, "", time.Now())
	}
	key, err := bind(mine, ScopeReceive)
	o.must(err)
	if _, err := bind(mine, ScopeReceive); exchange.CodeOf(err) != exchange.CodeBadRequest {
		t.Errorf("bound twice: %v", err)
	}
	_, err = bind(old, ScopeReceive)
	o.must(err)
	status := func(c ...tls.Certificate) int {
		t.Helper()
		res, err := ask(&tls.Config{Certificates: c})
		o.must(err)
		return res.StatusCode
	}
	if got := status(mine); got != http.StatusOK {
		t.Errorf("the holder: %d", got)
	}
	for name, got := range map[string]int{"nobody": status(), "a stranger": status(stranger), "one that has ended": status(old)} {
		if got != http.StatusUnauthorized {
			t.Errorf("%s: %d", name, got)
		}
	}
	o.keys["hash"] = key.Certificate.String()
	if a := o.do("hash", http.MethodGet, "/v1/inbox/count", nil, nil); a.status != http.StatusUnauthorized || !strings.Contains(a.problem().Fix, "certificate") {
		t.Errorf("its digest as a key: %d %s", a.status, a.body)
	}
	o.must(o.ring.Revoke(key.ID))
	if got := status(mine); got != http.StatusUnauthorized {
		t.Errorf("revoked: %d", got)
	}
	if _, err = bind(mine, ScopeSend); err != nil {
		t.Fatal(err)
	}
	if got := status(mine); got != http.StatusForbidden {
		t.Errorf("without the scope: %d", got)
	}
}
