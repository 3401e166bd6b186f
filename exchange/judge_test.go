package exchange

import (
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
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

// TestNobodyExpiresEarly: EXPIRED made before the time that the header names
// says nothing.
func TestNobodyExpiresEarly(t *testing.T) {
	ends := strictjson.TimeOf(time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC))
	routing, err := strictjson.Marshal(&Routing{Label: Public, Urgency: Normal, Kind: Official, Created: ends - 1000, Expires: ends})
	if err != nil {
		t.Fatal(err)
	}
	e := &envelope.Envelope{Header: envelope.Header{Routing: routing}}
	for at, want := range map[strictjson.Time]bool{ends - 1: true, ends: false, ends + 1: false} {
		if got := early(e, &Receipt{Stage: StageExpired, Time: at}); got != want {
			t.Errorf("at %d: %v, want %v", at, got, want)
		}
	}
}
