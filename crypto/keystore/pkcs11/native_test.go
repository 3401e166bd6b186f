//go:build cgo

package pkcs11

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/keystore/keystoretest"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

var nativeConfig = Config{Module: "fake.so", Token: "hsm", Key: "node-a", PIN: []byte("1234")}

func nativeMode(hsm *fakeHSM, n Numbers) keystoretest.Mode {
	with := func(use func(string, keystore.Custody, io.Reader) (*keystore.Store, error)) func(string) (*keystore.Store, error) {
		return func(dir string) (*keystore.Store, error) {
			c, err := openNative(nativeConfig, n, hsm.load)
			if err != nil {
				return nil, err
			}
			return use(dir, c, rand.Reader)
		}
	}
	return keystoretest.Mode{Create: with(keystore.CreateNative), Open: with(keystore.OpenNative)}
}

// TestNativeModeKeepsTheContract with the numbers of every profile that signs:
// digests, whole messages, raw and DER forms, decryption by mechanism and by
// point.
func TestNativeModeKeepsTheContract(t *testing.T) {
	cases := map[string]Numbers{
		"signs whole messages": {KeyType: 0x80000004, Generate: 0x80008001, Sign: 0x80008101, SignsWhole: true, Decrypt: 0x80008000},
		"decrypts by point":    {KeyType: 0x80000004, Generate: 0x80008001, Sign: 0x80008104},
	}
	for name, n := range Profiles {
		if n.Sign != 0 {
			cases[name] = n
		}
	}
	for name, n := range cases {
		// Each run has a token of its own.
		t.Run(name, func(t *testing.T) {
			keystoretest.Run(t, nativeMode(newFakeHSM(n), n))
		})
	}
}

func TestNativeTokenComesBack(t *testing.T) {
	n := Profiles["tass"]
	hsm := newFakeHSM(n)
	c, err := openNative(nativeConfig, n, hsm.load)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := c.Generate(nil)
	if err != nil {
		t.Fatal(err)
	}
	id := sm.KeyID(pub)
	hsm.setDown(true)
	for range 3 {
		if _, err := c.Sign(nil, id, []byte("m")); !errors.Is(err, keystore.ErrUnavailable) {
			t.Fatalf("while it is lost: %v", err)
		}
	}
	hsm.setDown(false)
	eventually(t, func() error {
		sig, err := c.Sign(nil, id, []byte("m"))
		if err == nil && !sm.Verify(pub, []byte("m"), sig) {
			t.Error("a wrong signature")
		}
		return err
	})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if hsm.loads != hsm.releases {
		t.Errorf("loaded %d times, released %d times", hsm.loads, hsm.releases)
	}
	if _, err := c.Sign(nil, id, []byte("m")); !errors.Is(err, ErrModule) {
		t.Errorf("after closing: %v", err)
	}
}

// TestWrongNumbers: what the module does not know is not a loss, and does not
// cost the login.
func TestWrongNumbers(t *testing.T) {
	right := Profiles["tass"]
	hsm := newFakeHSM(right)
	for name, change := range map[string]func(*Numbers){
		"generate": func(n *Numbers) { n.Generate = 1 },
		"sign":     func(n *Numbers) { n.Sign = 1 },
		"decrypt":  func(n *Numbers) { n.Decrypt = 1 },
	} {
		n := right
		change(&n)
		c, err := openNative(nativeConfig, n, hsm.load)
		if err != nil {
			t.Fatal(err)
		}
		_, err = keystore.CreateNative(filepath.Join(t.TempDir(), "keys"), c, rand.Reader)
		var store *keystore.Store
		if err == nil {
			store, err = keystore.OpenNative(mustDir(t, c), c, rand.Reader)
		}
		if err == nil {
			_, err = store.Generate()
		}
		if err == nil {
			err = store.SelfTest()
		}
		if !errors.Is(err, ErrNumbers) {
			t.Errorf("%s: %v", name, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func mustDir(t *testing.T, c keystore.Custody) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	if _, err := keystore.CreateNative(dir, c, rand.Reader); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestDecryptOnly: a device without a mechanism to sign is judged by what its
// keys are for.
func TestDecryptOnly(t *testing.T) {
	n := Profiles["tass"]
	n.Sign = 0
	mode := nativeMode(newFakeHSM(n), n)
	s, err := mode.Create(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	pub, err := s.Generate()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SelfTest(); err != nil {
		t.Error(err)
	}
	if _, err := s.Sign(sm.KeyID(pub), []byte("m")); !errors.Is(err, ErrNumbers) {
		t.Errorf("sign: %v", err)
	}
}

// TestBadCiphertextIsNotALoss: a module that answers a broken ciphertext with
// a code of its own keeps its login, and the document is not tried for ever.
func TestBadCiphertextIsNotALoss(t *testing.T) {
	n := Profiles["tass"]
	hsm := newFakeHSM(n)
	hsm.vague = true
	c, err := openNative(nativeConfig, n, hsm.load)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := c.Generate(nil)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := sm.Encrypt(rand.Reader, pub, []byte("file key"))
	if err != nil {
		t.Fatal(err)
	}
	sealed[len(sealed)-1] ^= 1
	for range 3 {
		if _, err := c.Unwrap(sm.KeyID(pub), sealed); err != sm.ErrDecrypt {
			t.Errorf("got %v", err)
		}
	}
	if hsm.loads != 1 {
		t.Errorf("logged in %d times", hsm.loads)
	}
}

// TestManyLoseTheModule: the first failure throws the login away while others
// are still at work with it; nobody waits for ever.
func TestManyLoseTheModule(t *testing.T) {
	n := Profiles["tass"]
	hsm := newFakeHSM(n)
	c, err := openNative(nativeConfig, n, hsm.load)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := c.Generate(nil)
	if err != nil {
		t.Fatal(err)
	}
	id := sm.KeyID(pub)
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for range 300 {
				_, err := c.Sign(nil, id, []byte("m"))
				if err != nil && !errors.Is(err, keystore.ErrUnavailable) {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		hsm.setDown(true)
		time.Sleep(time.Millisecond)
		hsm.setDown(false)
		time.Sleep(time.Millisecond)
	}
	wait.Wait()
	eventually(t, func() error { _, err := c.Sign(nil, id, []byte("m")); return err })
}

// TestDecryptInSoftHSM: SM2 decryption with a private key that never leaves a
// real token, through CKM_ECDH1_DERIVE.
func TestDecryptInSoftHSM(t *testing.T) {
	c := token(t)
	custody, err := OpenNative(c, Profiles["ecdh"])
	if err != nil {
		t.Fatal(err)
	}
	pub, err := custody.Generate(nil)
	if err != nil {
		t.Fatal(err)
	}
	id := sm.KeyID(pub)
	var sealed [][]byte
	for i := range 20 {
		slot, err := sm.Encrypt(rand.Reader, pub, bytes.Repeat([]byte{byte(i)}, 32))
		if err != nil {
			t.Fatal(err)
		}
		sealed = append(sealed, slot)
	}
	check := func(c keystore.Custody) {
		t.Helper()
		for i, slot := range sealed {
			if plain, err := c.Unwrap(id, slot); err != nil || !bytes.Equal(plain, bytes.Repeat([]byte{byte(i)}, 32)) {
				t.Fatalf("ciphertext %d: %x, %v", i, plain, err)
			}
			bad := bytes.Clone(slot)
			bad[len(bad)-1] ^= 1
			if _, err := c.Unwrap(id, bad); err != sm.ErrDecrypt {
				t.Fatalf("flipped ciphertext %d: %v", i, err)
			}
		}
	}
	check(custody)
	if _, err := custody.Sign(nil, id, []byte("m")); !errors.Is(err, ErrNumbers) {
		t.Errorf("SoftHSM cannot sign SM2: %v", err)
	}
	if err := custody.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := OpenNative(c, Profiles["ecdh"])
	if err != nil {
		t.Fatal(err)
	}
	if list := again.Public(); len(list) != 1 || sm.KeyID(list[0]) != id {
		t.Fatalf("after opening again: %d keys", len(list))
	}
	check(again)
	pull(t, c)
	if _, err := again.Unwrap(id, sealed[0]); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("while it is lost: %v", err)
	}
	eventually(t, func() error { _, err := again.Unwrap(id, sealed[0]); return err })
	check(again)
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestNativeConfigIsChecked(t *testing.T) {
	hsm := newFakeHSM(Profiles["tass"])
	for name, change := range map[string]func(*Config){
		"no PIN":        func(c *Config) { c.PIN = nil },
		"another token": func(c *Config) { c.Token = "nowhere" },
		"wrong PIN":     func(c *Config) { c.PIN = []byte("0000") },
	} {
		c := nativeConfig
		change(&c)
		if _, err := openNative(c, Profiles["tass"], hsm.load); err == nil || bytes.Contains([]byte(err.Error()), []byte("0000")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func octets(b []byte) []byte {
	var out cryptobyte.Builder
	out.AddASN1OctetString(b)
	return out.BytesOrPanic()
}

func rawOf(t testingT, sig []byte) []byte {
	var inner cryptobyte.String
	in := cryptobyte.String(sig)
	r, s := make([]byte, 0), make([]byte, 0)
	if !in.ReadASN1(&inner, asn1.SEQUENCE) || !inner.ReadASN1Integer(&r) || !inner.ReadASN1Integer(&s) {
		t.Fatal("not a signature")
	}
	pad := func(b []byte) []byte { return append(make([]byte, 32-len(b)), b...) }
	return slices.Concat(pad(r), pad(s))
}

type testingT interface{ Fatal(...any) }

// TestBareAndWrappedPoints: a bare point whose second byte is 63 is the DER of
// an OCTET STRING, too.
func TestBareAndWrappedPoints(t *testing.T) {
	ambiguous := 0
	for ambiguous < 2 {
		key, err := sm.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point := sm.PublicKeyBytes(&key.PublicKey)
		if point[1] == barePoint-2 {
			ambiguous++
		}
		for _, b := range [][]byte{point, octets(point)} {
			if got, err := parsePoint(b); err != nil || !got.Equal(&key.PublicKey) {
				t.Fatalf("%x: %v", b, err)
			}
		}
	}
}
