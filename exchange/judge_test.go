package exchange

import (
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
)

// TestValidSigner: what was received before a revocation took effect verifies
// for ever; what comes at that time or later is refused.
func TestValidSigner(t *testing.T) {
	now := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	valid := certs.Certificate{Use: certs.UseSign, DER: []byte("a"), NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(1, 0, 0)}
	revoked := valid
	revoked.DER, revoked.Revoked = []byte("b"), &certs.Revocation{Effective: now, Reason: certs.ReasonKeyCompromise, Source: certs.SourceDirectory}
	encrypt := valid
	encrypt.DER, encrypt.Use = []byte("c"), certs.UseEncrypt
	list := []certs.Certificate{valid, revoked, encrypt}
	for _, tt := range []struct {
		der  string
		at   time.Time
		code string
	}{
		{"a", now, ""},
		{"a", now.AddDate(2, 0, 0), CodeCertificateExpired},
		{"a", now.AddDate(-2, 0, 0), CodeCertificateExpired},
		{"b", now.Add(-time.Millisecond), ""},
		{"b", now, CodeCertificateRevoked},
		{"b", now.AddDate(0, 1, 0), CodeCertificateRevoked},
		{"c", now, CodeCertificateUsage},
		{"d", now, CodeSignatureInvalid},
	} {
		err := ValidSigner(list, []byte(tt.der), tt.at)
		if (err == nil) != (tt.code == "") || err != nil && CodeOf(err) != tt.code {
			t.Errorf("%s at %s: %v, want %q", tt.der, tt.at, err, tt.code)
		}
	}
}
