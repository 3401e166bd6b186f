//go:build !cgo

package pkcs11

import (
	"errors"
	"strings"
	"testing"
)

func TestWithoutCgo(t *testing.T) {
	if _, err := OpenGuard(Config{}); !errors.Is(err, ErrNoPKCS11) {
		t.Errorf("got %v", err)
	}
	if err := GenerateKey(Config{}); !errors.Is(err, ErrNoPKCS11) {
		t.Errorf("got %v", err)
	}
	// Cause and remedy.
	for _, want := range []string{"cgo", "CGO_ENABLED=1"} {
		if !strings.Contains(ErrNoPKCS11.Error(), want) {
			t.Errorf("%v does not say %q", ErrNoPKCS11, want)
		}
	}
}
