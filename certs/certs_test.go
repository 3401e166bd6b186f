package certs

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

func TestCurrent(t *testing.T) {
	at := func(year int) time.Time { return time.Date(year, 6, 1, 0, 0, 0, 0, time.UTC) }
	h := Holder{name: "agency X", Certificates: []Certificate{
		{Use: UseSign, DER: []byte("future"), NotBefore: at(2030), NotAfter: at(2035)},
		{Use: UseSign, DER: []byte("newer"), NotBefore: at(2024), NotAfter: at(2028)},
		{Use: UseSign, DER: []byte("older"), NotBefore: at(2020), NotAfter: at(2025)},
	}}
	tests := []struct {
		name, use string
		at        time.Time
		want      string
		code      string
		says      string
	}{
		{"newest valid", UseSign, at(2026), "newer", "", ""},
		{"both valid", UseSign, at(2025), "newer", "", ""},
		{"only the older", UseSign, at(2022), "older", "", ""},
		{"first instant", UseSign, at(2020), "older", "", ""},
		{"last instant", UseSign, at(2028), "newer", "", ""},
		{"after the last instant", UseSign, at(2028).Add(1), "", "certificate_expired", "2028-06-01"},
		{"expired", UseSign, at(2040), "", "certificate_expired", "2040-06-01"},
		{"not yet valid", UseSign, at(2010), "", "certificate_expired", "2010-06-01"},
		{"no such use", UseEncrypt, at(2026), "", "certificate_usage", "encrypt"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := h.Current(tt.use, tt.at)
			wantCode(t, err, tt.code)
			if tt.code == "" {
				if string(c.DER) != tt.want {
					t.Errorf("got %s, want %s", c.DER, tt.want)
				}
				return
			}
			if err == nil || c != nil || !strings.Contains(err.Error(), "agency X") || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v", err)
			}
		})
	}
	if !h.Holds(UseSign, []byte("older")) || h.Holds(UseEncrypt, []byte("older")) || h.Holds(UseSign, []byte("other")) || h.Holds(UseSign, nil) {
		t.Error("Holds")
	}
}

func TestSigner(t *testing.T) {
	f := newForge(t, "signer")
	keys := f.keys()
	pub, err := keys.Generate()
	f.must(err)
	c := &Certificate{Use: UseSign, DER: f.cert(pub, signUsage, nil), KeyID: sm.KeyID(pub)}
	signed, err := cms.Sign(Signer(keys, c), []byte("content"), testNow)
	f.must(err)
	s, err := cms.Parse(signed, 4096)
	f.must(err)
	if err := s.Verify(c.DER); err != nil || !bytes.Equal(s.Content, []byte("content")) {
		t.Errorf("got %v", err)
	}
	if got, err := c.PublicKey(); err != nil || !got.Equal(pub) {
		t.Errorf("public key: %v", err)
	}
	c.KeyID = sm.Sum(nil)
	if _, err := cms.Sign(Signer(keys, c), []byte("content"), testNow); err == nil {
		t.Error("signed without the key")
	}
}

func TestErrorClasses(t *testing.T) {
	err := fmt.Errorf("entry 3: %w", &Error{Code: "directory_rollback", Detail: "version 1", Err: errors.New("cause")})
	if !errors.Is(err, ErrRollback) || errors.Is(err, ErrStale) || errors.Is(ErrRollback, fail("directory_rollback", "other")) {
		t.Error("classes are told apart by their code")
	}
	for _, part := range []string{"entry 3", "directory_rollback", "version 1", "cause"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not say %q", err, part)
		}
	}
}
