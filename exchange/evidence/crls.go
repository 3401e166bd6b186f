package evidence

import (
	"fmt"

	"github.com/yizhan-gateway/yizhan/certs"
)

// MaxCRLs bounds the revocation lists of a file, MaxCRLBytes what they take
// together.
const (
	MaxCRLs     = 32
	MaxCRLBytes = 32 << 20
)

// withCRLs adds to the directory what the file's revocation lists say, so that
// signers are judged as the exporting node judged them. A list that none of
// the directory's issuers signed is a problem, and says nothing.
func (v *verifier) withCRLs(d *certs.Directory) *certs.Directory {
	if len(v.f.CRLs) == 0 {
		return d
	}
	total := 0
	for _, b := range v.f.CRLs {
		total += len(b)
	}
	if len(v.f.CRLs) > MaxCRLs || total > MaxCRLBytes {
		v.r.problem("revocation lists: %d of %d bytes, at most %d of %d are possible", len(v.f.CRLs), total, MaxCRLs, MaxCRLBytes)
		return d
	}
	var list []*certs.CRL
	for i, b := range v.f.CRLs {
		crl, err := ReadCRL(d, b)
		if err != nil {
			v.r.problem("revocation list %d: %v", i, err)
			continue
		}
		list = append(list, crl)
	}
	return d.WithCRLs(list)
}

// ReadCRL verifies a revocation list under the authority or whichever issuer
// of the directory signed it.
func ReadCRL(d *certs.Directory, b []byte) (*certs.CRL, error) {
	crl, err := certs.ParseCRL(b, d.Authority())
	if err == nil {
		return crl, nil
	}
	for _, issuer := range d.Issuers() {
		if crl, e := certs.ParseCRL(b, issuer.DER); e == nil {
			return crl, nil
		}
	}
	return nil, fmt.Errorf("of none of the directory's issuers: %w", err)
}
