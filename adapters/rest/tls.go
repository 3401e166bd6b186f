package rest

import (
	"crypto/tls"
	"net/http"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// TLS is what the interface speaks to agency systems: 1.3, and 1.2 for old clients
// (Java 8) with forward secrecy and authenticated encryption alone. A client may show
// a certificate; that it holds its key is proven by the handshake, and whose it is by
// the key file, so no further authority is trusted.
func TLS(certificate tls.Certificate) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{certificate},
		MinVersion:   tls.VersionTLS12,
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		ClientAuth: tls.RequestClientCert,
		NextProtos: []string{"h2", "http/1.1"},
	}
}

// certified finds the key that is bound to the certificate which a client has shown
// and proven to hold.
func (s *Server) certified(r *http.Request) (*Key, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, exchange.Fail(exchange.CodeUnauthenticated, "no Authorization: Bearer header, and no client certificate")
	}
	leaf, now := r.TLS.PeerCertificates[0], s.c.Node.Now()
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return nil, exchange.Fail(exchange.CodeUnauthenticated, "the client certificate is valid from %s to %s", leaf.NotBefore.Format(time.DateOnly), leaf.NotAfter.Format(time.DateOnly))
	}
	return s.c.Keys.certified(sm.Sum(leaf.Raw), now)
}
