//go:build cgo

package pkcs11

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ThalesIgnite/crypto11"
)

const testPIN = "1234567890"

// token makes a SoftHSM2 token of its own for the test.
func token(t *testing.T) Config {
	t.Helper()
	module := ""
	for _, path := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so", "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so"} {
		if _, err := os.Stat(path); err == nil {
			module = path
			break
		}
	}
	util, err := exec.LookPath("softhsm2-util")
	if err != nil || module == "" {
		t.Skip("SoftHSM2 is missing (Debian package softhsm2): scripts/test installs it where it may")
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "softhsm2.conf")
	text := fmt.Sprintf("directories.tokendir = %s/tokens\nobjectstore.backend = file\nlog.level = ERROR\n", dir)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	out, err := exec.Command(util, "--init-token", "--free", "--label", "yizhan", "--pin", testPIN, "--so-pin", testPIN).CombinedOutput()
	if err != nil {
		t.Fatalf("softhsm2-util: %v: %s", err, out)
	}
	return Config{Module: module, Token: "yizhan", Key: "storage", PIN: []byte(testPIN)}
}

func opened(t *testing.T, c Config) *Wrapper {
	t.Helper()
	w, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func TestWrap(t *testing.T) {
	c := token(t)
	if _, err := Open(c); !errors.Is(err, ErrNoKey) {
		t.Fatalf("before the key is made: %v", err)
	}
	if err := GenerateKey(c); err != nil {
		t.Fatal(err)
	}
	if err := GenerateKey(c); !errors.Is(err, ErrKeyExists) {
		t.Fatalf("a second key: %v", err)
	}
	w := opened(t, c)
	secret, sealed, err := w.NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	if len(secret) != SecretSize || bytes.Contains(sealed, secret) {
		t.Fatalf("secret of %d bytes", len(secret))
	}
	back, err := w.Unwrap(sealed)
	if err != nil || !bytes.Equal(back, secret) {
		t.Fatalf("unwrap: %v", err)
	}
	again, err := w.Wrap(secret)
	if err != nil || bytes.Equal(again, sealed) {
		t.Fatalf("the same bytes for two wraps, or %v", err)
	}
	if _, err := w.Wrap(secret[1:]); err == nil {
		t.Error("a short secret was wrapped")
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := w.Unwrap(bad); !errors.Is(err, ErrWrapped) {
			t.Errorf("byte %d flipped: %v", i, err)
		}
	}
	for _, bad := range [][]byte{nil, sealed[:len(sealed)-1], append(bytes.Clone(sealed), 0), []byte(magic)} {
		if _, err := w.Unwrap(bad); !errors.Is(err, ErrWrapped) {
			t.Errorf("%d bytes: %v", len(bad), err)
		}
	}
}

func TestReopenedAndOtherKey(t *testing.T) {
	c := token(t)
	if err := GenerateKey(c); err != nil {
		t.Fatal(err)
	}
	w, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	secret, sealed, err := w.NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if back, err := opened(t, c).Unwrap(sealed); err != nil || !bytes.Equal(back, secret) {
		t.Fatalf("after reopening: %v", err)
	}
	other := c
	other.Key = "other"
	if err := GenerateKey(other); err != nil {
		t.Fatal(err)
	}
	if _, err := opened(t, other).Unwrap(sealed); !errors.Is(err, ErrWrapped) {
		t.Errorf("under another key: %v", err)
	}
}

func TestWeakKeysAreRefused(t *testing.T) {
	c := token(t)
	context, err := configure(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		label       string
		bits        int
		extractable bool
	}{{"extractable", 256, true}, {"short", 128, false}} {
		set, err := crypto11.NewAttributeSetWithIDAndLabel([]byte(tt.label), []byte(tt.label))
		if err != nil {
			t.Fatal(err)
		}
		if err := set.Set(crypto11.CkaExtractable, tt.extractable); err != nil {
			t.Fatal(err)
		}
		if _, err := context.GenerateSecretKeyWithAttributes(set, tt.bits, crypto11.CipherAES); err != nil {
			t.Fatal(err)
		}
	}
	if err := context.Close(); err != nil {
		t.Fatal(err)
	}
	for _, label := range []string{"extractable", "short"} {
		bad := c
		bad.Key = label
		if _, err := Open(bad); !errors.Is(err, ErrWeakKey) {
			t.Errorf("%s key: %v", label, err)
		}
	}
}

func TestModuleFailuresAreErrors(t *testing.T) {
	c := token(t)
	if err := GenerateKey(c); err != nil {
		t.Fatal(err)
	}
	w, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	secret, sealed, err := w.NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	// crypto11's Seal panics on a closed context; Wrap must not.
	if _, err := w.Wrap(secret); err == nil {
		t.Error("wrapped by a closed module")
	}
	if _, err := w.Unwrap(sealed); err == nil {
		t.Error("unwrapped by a closed module")
	}
	if _, err := opened(t, c).withAEAD(panicking{}).Wrap(secret); !errors.Is(err, ErrModule) {
		t.Errorf("a panicking module: %v", err)
	}
	if _, err := opened(t, c).withAEAD(panicking{}).Unwrap(sealed); !errors.Is(err, ErrModule) {
		t.Errorf("a panicking module: %v", err)
	}
}

// panicking is what crypto11 does when the token was pulled.
type panicking struct{}

func (panicking) NonceSize() int                         { return nonceSize }
func (panicking) Overhead() int                          { return tagSize }
func (panicking) Seal(_, _, _, _ []byte) []byte          { panic(errors.New("device removed")) }
func (panicking) Open(_, _, _, _ []byte) ([]byte, error) { panic(errors.New("device removed")) }
func (w *Wrapper) withAEAD(a panicking) *Wrapper         { w.aead = a; return w }

func TestConfigIsChecked(t *testing.T) {
	good := token(t)
	tests := []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"no module", func(c *Config) { c.Module = "" }, "no module"},
		{"no token", func(c *Config) { c.Token = "" }, "no token"},
		{"no key", func(c *Config) { c.Key = "" }, "no key"},
		{"no PIN", func(c *Config) { c.PIN = nil }, "no PIN"},
		{"another token", func(c *Config) { c.Token = "nowhere" }, "nowhere"},
		{"another module", func(c *Config) { c.Module = "/nonexistent.so" }, "nonexistent"},
		{"wrong PIN", func(c *Config) { c.PIN = []byte("000000") }, "PIN"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := good
			tt.change(&c)
			_, err := Open(c)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err != nil && (strings.Contains(err.Error(), testPIN) || strings.Contains(err.Error(), "000000")) {
				t.Errorf("the error shows the PIN: %v", err)
			}
		})
	}
}

func TestConcurrentUse(t *testing.T) {
	c := token(t)
	if err := GenerateKey(c); err != nil {
		t.Fatal(err)
	}
	w := opened(t, c)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				secret, sealed, err := w.NewSecret()
				if err != nil {
					t.Error(err)
					return
				}
				if back, err := w.Unwrap(sealed); err != nil || !bytes.Equal(back, secret) {
					t.Error("unwrap", err)
				}
			}
		})
	}
	wg.Wait()
}
