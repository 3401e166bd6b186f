package certs

import (
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"
)

// TestListsAddUp: what an earlier list revoked for good, no later one takes
// back, whether it leaves it out, dates it later or calls it a hold.
func TestListsAddUp(t *testing.T) {
	o := newOutside(t, "add up")
	read := func(o *outside, list ...RevokedSerial) *CRL {
		c, err := ParseCRL(o.crl(1, list...), o.root.Raw)
		o.must(err)
		return c
	}
	at, later := testNow.Add(-2*time.Hour), testNow.Add(-time.Hour)
	one := func(serial int64, at time.Time, reason string) RevokedSerial {
		return revokedSerial(serial, at, reason)
	}
	for _, tt := range []struct {
		name          string
		before, after []RevokedSerial
		lost          string
	}{
		{"nothing before", nil, []RevokedSerial{one(300, at, "superseded")}, ""},
		{"the same", []RevokedSerial{one(300, at, "superseded")}, []RevokedSerial{one(300, at, "superseded")}, ""},
		{"one more", []RevokedSerial{one(300, at, "superseded")}, []RevokedSerial{one(2, at, ""), one(300, at, "superseded"), one(70000, at, "")}, ""},
		{"left out", []RevokedSerial{one(300, at, "key_compromise")}, nil, "300 key_compromise"},
		{"left out without a reason", []RevokedSerial{one(300, at, "")}, nil, "300 unspecified"},
		{"left out between others", []RevokedSerial{one(2, at, ""), one(300, at, ""), one(70000, at, "")}, []RevokedSerial{one(2, at, ""), one(70000, at, "")}, "300 unspecified"},
		{"dated later", []RevokedSerial{one(300, at, "")}, []RevokedSerial{one(300, later, "")}, "300 unspecified"},
		{"dated earlier", []RevokedSerial{one(300, later, "")}, []RevokedSerial{one(300, at, "")}, ""},
		{"made a hold", []RevokedSerial{one(300, at, "key_compromise")}, []RevokedSerial{one(300, at, "certificate_hold")}, "300 key_compromise"},
		{"a hold lifted", []RevokedSerial{one(300, at, "certificate_hold")}, nil, ""},
		{"a hold made final", []RevokedSerial{one(300, at, "certificate_hold")}, []RevokedSerial{one(300, later, "key_compromise")}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var lost []string
			for _, r := range read(o, tt.after...).Lost(read(o, tt.before...)) {
				if !r.Effective.Equal(at) {
					t.Errorf("%s is from %s on", r.Serial, r.Effective)
				}
				lost = append(lost, fmt.Sprint(r.Serial, " ", r.Reason))
			}
			if got := strings.Join(lost, ", "); got != tt.lost {
				t.Errorf("lost: %q, want %q", got, tt.lost)
			}
		})
	}
	stranger := newOutside(t, "another")
	if got := read(o).Lost(read(stranger, one(300, at, ""))); len(got) != 0 || len(read(o).Lost(nil)) != 0 {
		t.Errorf("of another issuer: %v", got)
	}
	past, err := PastOf(o.root.Raw, []RevokedSerial{one(300, later, "superseded"), one(300, at, "superseded"), one(2, at, "")})
	o.must(err)
	if r, ok := past.Find(big.NewInt(300)); !ok || !r.Effective.Equal(at) || past.Len() != 2 || past.DER() != nil {
		t.Errorf("of two the earlier counts: %+v", r)
	}
	if got := read(o, one(2, at, "")).Lost(past); len(got) != 1 || got[0].Serial.Int64() != 300 {
		t.Errorf("after yet another list: %v", got)
	}
	many := make([]RevokedSerial, MaxPast+1)
	for i := range many {
		many[i] = one(int64(i+1), at, "")
	}
	_, err = PastOf(o.root.Raw, many)
	wantCode(t, err, "crl_content")
}
