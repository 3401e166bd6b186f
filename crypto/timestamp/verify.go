package timestamp

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/subtle"
	"fmt"
	"slices"
	"time"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// Verify checks that the holder of a certificate (DER) issued the token: the
// certificate may timestamp and was valid at the token's time, the token names
// exactly it, and digest and signature hold. That the certificate is one to be
// trusted is for the caller, whose directory lists it.
func (t *Token) Verify(der []byte) error {
	cert, err := cms.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("%w: certificate: %w", ErrSigner, err)
	}
	if err := MayTimestamp(cert); err != nil {
		return err
	}
	if err := t.names(cert); err != nil {
		return err
	}
	if t.Time.Before(cert.NotBefore) || t.Time.After(cert.NotAfter) {
		return fmt.Errorf("%w: the certificate is valid %s to %s, the token says %s", ErrSigner,
			cert.NotBefore.Format(time.DateOnly), cert.NotAfter.Format(time.DateOnly), t.Time.Format(time.DateOnly))
	}
	digest := sm.Sum(t.info)
	if subtle.ConstantTimeCompare(digest[:], t.signed.digest) != 1 {
		return fmt.Errorf("%w: the digest is not that of the content", ErrSignature)
	}
	if !sm.Verify(cert.PublicKey.(*ecdsa.PublicKey), t.attributes, t.signature) {
		return ErrSignature
	}
	return nil
}

// names checks that the token names this certificate, everywhere it names one.
func (t *Token) names(cert *smx509.Certificate) error {
	hash := sm.Sum(cert.Raw)
	serial := cert.SerialNumber.Bytes()
	switch {
	case subtle.ConstantTimeCompare(hash[:], t.signed.certHash) != 1:
		return fmt.Errorf("%w: signed with another certificate", ErrSigner)
	case !bytes.Equal(t.issuer, cert.RawIssuer) || !bytes.Equal(t.serial, serial):
		return fmt.Errorf("%w: the signer's issuer and serial number are those of another certificate", ErrSigner)
	case t.signed.certIssuer != nil && (!bytes.Equal(t.signed.certIssuer, cert.RawIssuer) || !bytes.Equal(t.signed.certSerial, serial)):
		return fmt.Errorf("%w: the signed attribute names another issuer or serial number", ErrSigner)
	case len(t.certificates) > 0 && !slices.ContainsFunc(t.certificates, func(c []byte) bool { return bytes.Equal(c, cert.Raw) }):
		return fmt.Errorf("%w: its certificate is not among those in the token", ErrSigner)
	}
	return nil
}

// MayTimestamp refuses a certificate that is not one of a timestamp authority:
// an SM2 key that may sign, no CA, and the extended key usage timeStamping,
// critical and alone (RFC 3161, 2.3), so that no other certificate in the
// domain can be taken for one.
func MayTimestamp(cert *smx509.Certificate) error {
	pub, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != sm.Curve() {
		return fmt.Errorf("%w: not an SM2 key", ErrSigner)
	}
	if cert.IsCA || cert.KeyUsage&smx509.KeyUsageDigitalSignature == 0 {
		return fmt.Errorf("%w: its key usage is not digitalSignature", ErrSigner)
	}
	alone := len(cert.ExtKeyUsage) == 1 && cert.ExtKeyUsage[0] == smx509.ExtKeyUsageTimeStamping && len(cert.UnknownExtKeyUsage) == 0
	for _, e := range cert.Extensions {
		if e.Id.Equal(oidExtKeyUsage) && e.Critical && alone {
			return nil
		}
	}
	return fmt.Errorf("%w: its extended key usage is not timeStamping, critical and alone", ErrSigner)
}
