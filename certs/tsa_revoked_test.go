package certs

import (
	"math/big"
	"testing"
	"time"

	"github.com/emmansun/gmsm/smx509"
	"golang.org/x/crypto/cryptobyte"
)

// TestMayStamp: which tokens of a revoked timestamp authority count (RFC 3161,
// section 4). The compromise of its key ends all of them, from whichever of
// several revocations it is known; a list that gives no reason means as much.
func TestMayStamp(t *testing.T) {
	f, o := newForge(t, "may stamp"), newOutside(t, "may stamp")
	tsa := o.tsa(func(c *smx509.Certificate) { c.SerialNumber = big.NewInt(300) })
	entry := func(reason string, at time.Time) any {
		e := revocation(tsa.Cert, at)
		e.Reason = reason
		return e
	}
	read := func(der []byte) *CRL {
		c, err := ParseCRL(der, o.root.Raw)
		f.must(err)
		return c
	}
	list := func(reason string, at time.Time) *CRL { return read(o.crl(1, revokedSerial(300, at, reason))) }
	said := read(o.signDER(o.crlWith(func(b *cryptobyte.Builder) {
		addExtension(b, oidReason, false, func(b *cryptobyte.Builder) { b.AddASN1Enum(0) })
	}, nil), o.key)) // unspecified, in so many words
	past, err := PastOf(o.root.Raw, []RevokedSerial{revokedSerial(300, testNow, "key_compromise")})
	f.must(err)
	const never, before, always = "never", "before", "always"
	for _, tt := range []struct {
		name    string
		entries []any
		known   []*CRL
		counts  string
	}{
		{"not revoked", nil, nil, always},
		{"superseded", []any{entry(ReasonSuperseded, testNow)}, nil, before},
		{"cessation", []any{entry(ReasonCessation, testNow)}, nil, before},
		{"affiliation changed", []any{entry(ReasonAffiliationChanged, testNow)}, nil, before},
		{"key compromise", []any{entry(ReasonKeyCompromise, testNow)}, nil, never},
		{"superseded, by a list", nil, []*CRL{list("superseded", testNow)}, before},
		{"unspecified, by a list", nil, []*CRL{said}, before},
		{"no reason, by a list", nil, []*CRL{list("", testNow)}, never},
		{"key compromise, by a list", nil, []*CRL{list("key_compromise", testNow)}, never},
		{"key compromise, by an earlier list", nil, []*CRL{past}, never},
		{"superseded first, and key compromise later by a list", []any{entry(ReasonSuperseded, testNow.Add(-time.Minute))}, []*CRL{list("key_compromise", testNow)}, never},
		{"superseded first by a list, and key compromise later", []any{entry(ReasonKeyCompromise, testNow)}, []*CRL{list("superseded", testNow.Add(-time.Minute))}, never},
		{"another certificate", nil, []*CRL{read(o.crl(1, revokedSerial(301, testNow, "key_compromise")))}, always},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := f.load(f.draft(append(append(f.usual(), issuer(o.forge), tsa), tt.entries...)...))
			f.must(err)
			c := d.WithCRLs(tt.known).TSAs()[0].Certificate
			for at, want := range map[time.Time]bool{testNow.AddDate(0, 0, -1): tt.counts != never, testNow: tt.counts == always, testNow.AddDate(0, 0, 1): tt.counts == always} {
				if c.MayStamp(at) != want {
					t.Errorf("at %s: %v", at, !want)
				}
			}
		})
	}
}
