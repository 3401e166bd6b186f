package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"

	"github.com/yizhan-gateway/yizhan/adapters/rest"
)

// restTLSSettings is section [rest_tls] of config.toml: agency systems are served
// over TLS when it names a certificate.
type restTLSSettings struct {
	Certificate string `toml:"certificate,omitempty" comment:"PEM with the chain; not an SM2 one"`
	Key         string `toml:"key,omitempty" comment:"PEM"`
}

func (s *restTLSSettings) open() (*tls.Config, error) {
	if s.Certificate == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(s.Certificate, s.Key)
	if err != nil {
		return nil, fmt.Errorf("[rest_tls]: %w", err)
	}
	return rest.TLS(pair), nil
}

func (s *restTLSSettings) scheme() string {
	if s.Certificate == "" {
		return "http"
	}
	return "https"
}

func serveREST(server *http.Server, l net.Listener) error {
	if server.TLSConfig == nil {
		return server.Serve(l)
	}
	return server.ServeTLS(l, "", "")
}
