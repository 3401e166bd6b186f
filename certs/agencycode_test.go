package certs

import (
	"strings"
	"testing"
)

func TestParseAgencyCode(t *testing.T) {
	tests := []struct {
		name, code string
		want       string // in the error; empty: accepted
	}{
		{"published example", "91350100M000100Y43", ""},
		{"wrong check digit", "91350100M000100Y44", "check digit"},
		{"empty", "", "18 characters"},
		{"short", "91350100M000100Y4", "18 characters"},
		{"long", "91350100M000100Y433", "18 characters"},
		{"lower case", "91350100m000100y43", "character 9"},
		{"lower-case check digit", "11520300000000001h", "check digit"},
		{"letter I", "9135010IM000100Y43", "character 8"},
		{"letter O", "O1350100M000100Y43", "character 1"},
		{"letter S", "91350100S000100Y43", "character 9"},
		{"letter V", "91350100M000100V43", "character 16"},
		{"letter Z", "91350100M000100Z43", "character 16"},
		{"space", " 1350100M000100Y43", "character 1"},
		{"full width", "\uff191350100M000100Y", "character 1"},
		{"NUL", "91350100M000100Y4\x00", "check digit"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, err := ParseAgencyCode(tt.code)
			if tt.want == "" {
				if err != nil || code.String() != tt.code {
					t.Fatalf("got %q, %v", code, err)
				}
				return
			}
			wantCode(t, err, "agency_code")
			if code != "" || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q, %v; want %q", code, err, tt.want)
			}
		})
	}
}

// TestCheckDigitIsNamed: who mistyped the last digit is told the right one.
func TestCheckDigitIsNamed(t *testing.T) {
	_, err := ParseAgencyCode("91350100M000100Y4X")
	if err == nil || !strings.Contains(err.Error(), "check digit 3") && !strings.Contains(err.Error(), "is 3") {
		t.Errorf("got %v", err)
	}
}

func TestMakeAgencyCode(t *testing.T) {
	if code, err := MakeAgencyCode("91350100M000100Y4"); err != nil || code != "91350100M000100Y43" {
		t.Errorf("got %q, %v", code, err)
	}
	for _, bad := range []string{"", "91350100M000100Y", "91350100M000100Y43", "91350100m000100Y4", "91350100M000100 4"} {
		code, err := MakeAgencyCode(bad)
		wantCode(t, err, "agency_code")
		if code != "" {
			t.Errorf("%q gave %q beside the error", bad, code)
		}
	}
}

// TestSlipsAreCaught changes each character of a code to each other one, and
// swaps each two neighbours.
func TestSlipsAreCaught(t *testing.T) {
	const good = "91350100M000100Y43"
	for i := range good {
		for _, c := range codeAlphabet {
			slip := good[:i] + string(c) + good[i+1:]
			if _, err := ParseAgencyCode(slip); (err == nil) != (slip == good) {
				t.Errorf("%s: %v", slip, err)
			}
		}
		if i > 0 && good[i] != good[i-1] {
			slip := good[:i-1] + string(good[i]) + string(good[i-1]) + good[i+1:]
			if _, err := ParseAgencyCode(slip); err == nil {
				t.Errorf("%s, two characters swapped, was accepted", slip)
			}
		}
	}
}

func FuzzParseAgencyCode(f *testing.F) {
	for _, s := range []string{"91350100M000100Y43", "", "91350100m000100y43", strings.Repeat("0", 18), strings.Repeat("Y", 18), "\xff\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		code, err := ParseAgencyCode(s)
		if err != nil {
			wantCode(t, err, "agency_code")
			if code != "" {
				t.Fatal("a code beside an error")
			}
			return
		}
		again, err := MakeAgencyCode(s[:17])
		if err != nil || again != code || string(code) != s {
			t.Fatalf("%q: made again it is %q, %v", s, again, err)
		}
	})
}
