package peer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
)

// GenerateTLS makes the key a node shows on its links (ECDSA P-256), a
// self-signed certificate for it, and the pin for the directory: the SHA-256
// of the SubjectPublicKeyInfo. Nobody trusts the certificate itself.
func GenerateTLS(rand io.Reader) (certPEM, keyPEM []byte, pin [32]byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand)
	if err != nil {
		return nil, nil, pin, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "yizhan link"},
		NotBefore:    time.Unix(0, 0), NotAfter: time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, pin, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, pin, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, pin, err
	}
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	return certPEM, keyPEM, pinOf(cert), nil
}

func pinOf(cert *x509.Certificate) [32]byte { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

var errPin = errors.New("peer: the other side does not show the key that the directory pins")

// shows says whether the connection's other side holds the key pinned for a
// node.
func shows(state *tls.ConnectionState, node *certs.Node) bool {
	if state == nil || len(state.PeerCertificates) == 0 {
		return false
	}
	pin := pinOf(state.PeerCertificates[0])
	return subtle.ConstantTimeCompare(pin[:], node.TLSPin[:]) == 1
}

// serverTLS admits neighbours only: the handshake fails for a key that the
// directory in force pins for none of this node's neighbours.
func (p *Peer) serverTLS() *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{p.c.Certificate},
		ClientAuth:   tls.RequireAnyClientCert,
		VerifyConnection: func(s tls.ConnectionState) error {
			d := p.c.Node.Directory()
			for _, l := range d.LinksOf(p.c.Node.ID()) {
				if n, ok := d.Node(l.Neighbour(p.c.Node.ID())); ok && shows(&s, n) {
					return nil
				}
			}
			return errPin
		},
	}
}

// clientTLS talks to one neighbour only. InsecureSkipVerify switches off the
// public trust store; VerifyConnection, which is never skipped, decides by
// the pin alone.
func (p *Peer) clientTLS(neighbour string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Certificates:       []tls.Certificate{p.c.Certificate},
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			n, ok := p.c.Node.Directory().Node(neighbour)
			if !ok {
				return fmt.Errorf("peer: node %s is not in the directory", neighbour)
			}
			if !shows(&s, n) {
				return errPin
			}
			return nil
		},
	}
}
