package cms

import (
	"errors"
	"fmt"
	"sync"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
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
	byDER map[string]*certificate
}{byDER: map[string]*certificate{}}

// certificate is one that was read, with what is made of it again and again.
type certificate struct {
	cert   *smx509.Certificate
	signer []byte    // issuer and serial number
	digest sm.Digest // of its DER
}

// ParseCertificate reads a certificate; nothing is said about its trust. The
// result is shared and must not be changed.
func ParseCertificate(der []byte) (*smx509.Certificate, error) {
	known, err := recall(der)
	if err != nil {
		return nil, err
	}
	return known.cert, nil
}

// CertificateDigest is the SM3 of a certificate's DER, made once for those that
// are remembered.
func CertificateDigest(der []byte) sm.Digest {
	known, err := recall(der)
	if err != nil { // its bytes have a digest all the same
		return sm.Sum(der)
	}
	return known.digest
}

func recall(der []byte) (*certificate, error) {
	remembered.RLock()
	known := remembered.byDER[string(der)]
	remembered.RUnlock()
	if known != nil {
		return known, nil
	}
	cert, err := smx509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	known = &certificate{cert: cert, digest: sm.Sum(der)}
	if known.signer, err = signerOf(cert); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	if len(der) > largestRemembered {
		return known, nil
	}
	remembered.Lock()
	defer remembered.Unlock()
	if len(remembered.byDER) >= maxRemembered {
		clear(remembered.byDER)
	}
	remembered.byDER[string(der)] = known
	return known, nil
}
