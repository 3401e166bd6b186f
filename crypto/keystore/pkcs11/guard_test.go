//go:build cgo

package pkcs11

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ThalesIgnite/crypto11"
	p11 "github.com/miekg/pkcs11"

	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/keystore/keystoretest"
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
	return Config{Module: module, Token: "yizhan", Key: "node", PIN: []byte(testPIN)}
}

func opened(t *testing.T, c Config) *guard {
	t.Helper()
	g, err := openGuard(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

func TestWrappedModeKeepsTheContract(t *testing.T) {
	c := token(t)
	if err := GenerateKey(c); err != nil {
		t.Fatal(err)
	}
	with := func(use func(string, keystore.Guard, io.Reader) (*keystore.Store, error)) func(string) (*keystore.Store, error) {
		return func(dir string) (*keystore.Store, error) {
			g, err := OpenGuard(c)
			if err != nil {
				return nil, err
			}
			s, err := use(dir, g, rand.Reader)
			if err != nil {
				return nil, errors.Join(err, g.Close())
			}
			return s, nil
		}
	}
	keystoretest.Run(t, keystoretest.Mode{Create: with(keystore.CreateWrapped), Open: with(keystore.OpenWrapped), Imports: true})
}

func TestWrap(t *testing.T) {
	c := token(t)
	if _, err := OpenGuard(c); !errors.Is(err, ErrNoKey) {
		t.Fatalf("before the key is made: %v", err)
	}
	if err := GenerateKey(c); err != nil {
		t.Fatal(err)
	}
	if err := GenerateKey(c); !errors.Is(err, ErrKeyExists) {
		t.Fatalf("a second key: %v", err)
	}
	g := opened(t, c)
	secret := bytes.Repeat([]byte("secret"), 10)
	sealed, err := g.Wrap("name", secret)
	if err != nil || bytes.Contains(sealed, secret) {
		t.Fatal(err)
	}
	if back, err := g.Unwrap("name", sealed); err != nil || !bytes.Equal(back, secret) {
		t.Fatalf("unwrap: %v", err)
	}
	if again, err := g.Wrap("name", secret); err != nil || bytes.Equal(again, sealed) {
		t.Fatalf("the same bytes for two wraps, or %v", err)
	}
	if _, err := g.Unwrap("other name", sealed); !errors.Is(err, ErrWrapped) {
		t.Errorf("under another name: %v", err)
	}
	for _, n := range []int{0, maxSecret + 1} {
		if _, err := g.Wrap("name", make([]byte, n)); err == nil {
			t.Errorf("%d bytes were wrapped", n)
		}
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := g.Unwrap("name", bad); !errors.Is(err, ErrWrapped) {
			t.Errorf("byte %d flipped: %v", i, err)
		}
	}
	for _, bad := range [][]byte{nil, sealed[:len(sealed)-1], append(bytes.Clone(sealed), 0), []byte(magic)} {
		if _, err := g.Unwrap("name", bad); !errors.Is(err, ErrWrapped) {
			t.Errorf("%d bytes: %v", len(bad), err)
		}
	}
}

func TestOtherKeyDoesNotUnwrap(t *testing.T) {
	c := token(t)
	if err := GenerateKey(c); err != nil {
		t.Fatal(err)
	}
	sealed, err := opened(t, c).Wrap("name", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	other := c
	other.Key = "other"
	if err := GenerateKey(other); err != nil {
		t.Fatal(err)
	}
	if _, err := opened(t, other).Unwrap("name", sealed); !errors.Is(err, ErrWrapped) {
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
		if _, err := OpenGuard(bad); !errors.Is(err, ErrWeakKey) {
			t.Errorf("%s key: %v", label, err)
		}
	}
}

// pull takes the module from under everybody who uses it: all sessions and
// logins are gone, as when an HSM restarts.
func pull(t *testing.T, c Config) {
	t.Helper()
	ctx := p11.New(c.Module)
	if ctx == nil {
		t.Fatal("no module")
	}
	defer ctx.Destroy()
	if err := ctx.Finalize(); err != nil {
		t.Fatal(err)
	}
}

// TestLostTokenComesBack: the loss is an error that passes, never a panic, and
// nobody has to restart the node.
func TestLostTokenComesBack(t *testing.T) {
	c := token(t)
	if err := GenerateKey(c); err != nil {
		t.Fatal(err)
	}
	g := opened(t, c)
	sealed, err := g.Wrap("name", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	pull(t, c)
	if _, err := g.Unwrap("name", sealed); !errors.Is(err, ErrModule) || !errors.Is(err, keystore.ErrUnavailable) {
		t.Fatalf("while it is lost: %v", err)
	}
	if _, err := g.Wrap("name", []byte("x")); err != nil && !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("while it is lost: %v", err)
	}
	eventually(t, func() error {
		back, err := g.Unwrap("name", sealed)
		if err == nil && string(back) != "secret" {
			t.Error("another secret")
		}
		return err
	})
}

// eventually repeats until there is no error; the module is asked for again at
// most once a second.
func eventually(t *testing.T, fn func() error) {
	t.Helper()
	var err error
	for range 100 {
		if err = fn(); err == nil {
			return
		}
		if !errors.Is(err, keystore.ErrUnavailable) {
			t.Fatalf("an error that does not say it passes: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("did not come back: %v", err)
}

func TestClosedGuard(t *testing.T) {
	c := token(t)
	if err := GenerateKey(c); err != nil {
		t.Fatal(err)
	}
	g, err := openGuard(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(g.Close(), g.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Wrap("name", []byte("x")); !errors.Is(err, ErrModule) {
		t.Errorf("wrapped by a closed module: %v", err)
	}
}

// TestChangedPIN: a token that refuses the PIN is not asked again and again,
// which would lock it.
func TestChangedPIN(t *testing.T) {
	c := token(t)
	if err := GenerateKey(c); err != nil {
		t.Fatal(err)
	}
	g := opened(t, c)
	sealed, err := g.Wrap("name", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	pull(t, c)
	g.c.PIN = []byte("another PIN") // as if the token's had been changed
	if _, err := g.Unwrap("name", sealed); !errors.Is(err, ErrModule) {
		t.Fatalf("while it is lost: %v", err)
	}
	g.login.tried = time.Time{}
	_, err = g.Unwrap("name", sealed)
	if !errors.Is(err, ErrPIN) || !errors.Is(err, keystore.ErrUnavailable) {
		t.Fatalf("got %v", err)
	}
	g.c.PIN, g.login.tried = c.PIN, time.Time{} // even the right one is not offered
	if _, err := g.Unwrap("name", sealed); !errors.Is(err, ErrPIN) {
		t.Errorf("asked again: %v", err)
	}
}

// panicking is what crypto11 does when the token was pulled.
type panicking struct{}

func (panicking) NonceSize() int                         { return nonceSize }
func (panicking) Overhead() int                          { return tagSize }
func (panicking) Seal(_, _, _, _ []byte) []byte          { panic(errors.New("device removed")) }
func (panicking) Open(_, _, _, _ []byte) ([]byte, error) { panic(errors.New("device removed")) }

func TestPanicsOfTheModuleAreErrors(t *testing.T) {
	c := token(t)
	if err := GenerateKey(c); err != nil {
		t.Fatal(err)
	}
	g := opened(t, c)
	sealed, err := g.Wrap("name", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	g.login.current.login.aead = panicking{}
	if _, err := g.Unwrap("name", sealed); !errors.Is(err, ErrModule) {
		t.Errorf("unwrap: %v", err)
	}
	eventually(t, func() error { _, err := g.Unwrap("name", sealed); return err })
	g.login.current.login.aead = panicking{}
	if _, err := g.Wrap("name", []byte("x")); !errors.Is(err, ErrModule) {
		t.Errorf("wrap: %v", err)
	}
}

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
			_, err := OpenGuard(c)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err != nil && (strings.Contains(err.Error(), testPIN) || strings.Contains(err.Error(), "000000")) {
				t.Errorf("the error shows the PIN: %v", err)
			}
		})
	}
}
