package cms

import (
	"errors"
	"fmt"
	"sync"

	"github.com/emmansun/gmsm/smx509"
)

// ErrCertificate is what does not parse as a certificate.
var ErrCertificate = errors.New("cms: not an X.509 certificate")

// Bounds of what is remembered: together about 16 MiB.
const (
	maxRemembered     = 2048
	largestRemembered = 2 << 10 // bytes of DER
)

// remembered are certificates read before: a node meets the same ones with
// every document, and reading one costs a third of verifying with it.
var remembered = struct {
	sync.RWMutex
	byDER map[string]*smx509.Certificate
}{byDER: map[string]*smx509.Certificate{}}

// ParseCertificate reads a certificate; nothing is said about its trust. The
// result is shared and must not be changed.
func ParseCertificate(der []byte) (*smx509.Certificate, error) {
	remembered.RLock()
	cert := remembered.byDER[string(der)]
	remembered.RUnlock()
	if cert != nil {
		return cert, nil
	}
	cert, err := smx509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	if len(der) > largestRemembered {
		return cert, nil
	}
	remembered.Lock()
	defer remembered.Unlock()
	if len(remembered.byDER) >= maxRemembered {
		clear(remembered.byDER)
	}
	remembered.byDER[string(der)] = cert
	return cert, nil
}
