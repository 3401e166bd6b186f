package keystore

import (
	"bytes"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/emmansun/gmsm/pkcs"
	"github.com/emmansun/gmsm/pkcs8"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

var passphrase = []byte("correct horse battery staple")

// shared is a keystore with one key, for tests that leave its files alone.
// Making one costs seconds of PBKDF2 under the race detector.
var shared = sync.OnceValues(func() (*Store, string) {
	dir, err := os.MkdirTemp("", "keystore-test-*")
	if err != nil {
		panic(err)
	}
	f, err := Create(filepath.Join(dir, "keys"), passphrase, rand.Reader)
	if err != nil {
		panic(err)
	}
	if _, err := f.Generate(); err != nil {
		panic(err)
	}
	return f, dir
})

func TestMain(m *testing.M) {
	_, dir := shared()
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// fresh copies the shared keystore's files.
func fresh(t *testing.T) (dir string, id sm.Digest) {
	t.Helper()
	f, from := shared()
	dir = filepath.Join(t.TempDir(), "keys")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(from, "keys"))); err != nil {
		t.Fatal(err)
	}
	for _, name := range keyFiles(t, dir) { // copies follow the umask
		if err := os.Chmod(name, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, f.IDs()[0]
}

func key(t *testing.T) (*Store, sm.Digest) {
	t.Helper()
	f, _ := shared()
	return f, f.IDs()[0]
}

func keyFiles(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.p8"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no key files: %v", err)
	}
	return names
}

func TestKeysOutliveTheProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "keys")
	f, err := Create(dir, passphrase, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := f.Generate()
	if err != nil {
		t.Fatal(err)
	}
	id := sm.KeyID(pub)
	sealedRow, err := f.SealRow([]byte("row"), []byte("value"))
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := sm.Encrypt(rand.Reader, pub, []byte("file key"))
	if err != nil {
		t.Fatal(err)
	}

	again, err := Open(dir, passphrase, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if !again.Has(id) || !slices.Equal(again.IDs(), []sm.Digest{id}) {
		t.Fatal("the key is gone")
	}
	sig, err := again.Sign(id, []byte("msg"))
	if err != nil || !sm.Verify(pub, []byte("msg"), sig) {
		t.Errorf("sign: %v", err)
	}
	if plain, err := again.Unwrap(id, wrapped); err != nil || string(plain) != "file key" {
		t.Errorf("unwrap: %v", err)
	}
	if plain, err := again.OpenRow([]byte("row"), sealedRow); err != nil || string(plain) != "value" {
		t.Errorf("open row: %v", err)
	}
	if again.MAC([]byte("a")) != f.MAC([]byte("a")) {
		t.Error("the blind index changed")
	}
	if err := again.SelfTest(); err != nil {
		t.Error(err)
	}
	if signer, err := again.Signer(id); err != nil || !pub.Equal(signer.Public()) {
		t.Errorf("signer: %v", err)
	}

	// A second Create spares what is there.
	if _, err := Create(dir, passphrase, rand.Reader); !errors.Is(err, ErrExists) {
		t.Errorf("created over a keystore: %v", err)
	}
	if names := keyFiles(t, dir); len(names) != 2 {
		t.Errorf("%d key files, want the storage secret and one key", len(names))
	}
}

func TestUnknownKey(t *testing.T) {
	f, _ := key(t)
	id := sm.Sum([]byte("nobody"))
	if f.Has(id) {
		t.Error("has a key that was never made")
	}
	if _, err := f.Sign(id, nil); !errors.Is(err, ErrNoKey) {
		t.Errorf("sign: %v", err)
	}
	if _, err := f.Unwrap(id, nil); !errors.Is(err, ErrNoKey) {
		t.Errorf("unwrap: %v", err)
	}
	if s, err := f.Signer(id); !errors.Is(err, ErrNoKey) || s != nil {
		t.Errorf("signer: %v, %v", s, err)
	}
}

func TestUnwrapHasOneError(t *testing.T) {
	f, id := key(t)
	pub, err := f.Public(id)
	if err != nil {
		t.Fatal(err)
	}
	good, err := sm.Encrypt(rand.Reader, pub, []byte("file key"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		if _, err := f.Unwrap(id, bad); err != sm.ErrDecrypt {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
}

func TestWrongPassphrase(t *testing.T) {
	dir, _ := fresh(t)
	for _, wrong := range []string{"", "wrong", string(passphrase) + "\n", string(passphrase[1:])} {
		if _, err := Open(dir, []byte(wrong), rand.Reader); !errors.Is(err, ErrPassphrase) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	if _, err := Create(filepath.Join(t.TempDir(), "k"), nil, rand.Reader); err == nil {
		t.Error("an empty passphrase was accepted")
	}
}

// TestModes holds I6 at the file system: only the owner reads keys.
func TestModes(t *testing.T) {
	dir := t.TempDir() // a directory that was there before is closed to others, too
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(dir, passphrase, rand.Reader); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
	for _, name := range keyFiles(t, dir) {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", filepath.Base(name), info.Mode(), err)
		}
	}
	dir, _ = fresh(t)
	for _, name := range keyFiles(t, dir) {
		for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o600} {
			if err := os.Chmod(name, mode); err != nil {
				t.Fatal(err)
			}
			if err := private(name); (err == nil) != (mode == 0o600) {
				t.Errorf("mode %o: %v", mode, err)
			}
		}
	}
	if err := os.Chmod(keyFiles(t, dir)[0], 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, passphrase, rand.Reader); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("got %v", err)
	}
}

// TestIterations reads the work factor back from the files.
func TestIterations(t *testing.T) {
	dir, _ := fresh(t)
	for _, name := range keyFiles(t, dir) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(b)
		n, err := iterations(block.Bytes)
		if err != nil || n < 65536 {
			t.Errorf("%s: %d iterations, %v", filepath.Base(name), n, err)
		}
	}
}

func TestOtherProtectionsAreRefused(t *testing.T) {
	key, err := sm.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	name := sm.KeyID(&key.PublicKey).String() + fileSuffix
	tests := []struct {
		name      string
		encrypter pkcs.PBESEncrypter
		want      string // empty: accepted
	}{
		{"ours", pkcs.NewSMPBESEncrypter(16, Iterations), ""},
		{"few iterations", pkcs.NewSMPBESEncrypter(16, Iterations-1), "65535 PBKDF2 iterations"},
		{"default of the library", nil, "not PKCS#8 under"},
		{"SHA-256", pkcs.NewPBESEncrypter(pkcs.SM4CBC, pkcs.NewPBKDF2Opts(pkcs.SHA256, 16, Iterations)), "not PKCS#8 under"},
		{"AES", pkcs.NewPBESEncrypter(pkcs.AES256CBC, pkcs.NewPBKDF2Opts(pkcs.SM3, 16, Iterations)), "not PKCS#8 under"},
		{"scrypt", pkcs.NewPBESEncrypter(pkcs.SM4CBC, pkcs.ScryptOpts{SaltSize: 16, CostParameter: 1 << 17, BlockSize: 1, ParallelizationParameter: 1}), "not PKCS#8 under"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			der, err := pkcs8.MarshalPrivateKey(key, passphrase, tt.encrypter)
			if err != nil {
				t.Fatal(err)
			}
			f := newFiles(t.TempDir(), passphrase)
			write(t, filepath.Join(f.dir, name), string(pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})))
			_, err = f.read(name)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestDamageIsNoticed flips bits of both kinds of file. Not one may lead to
// another key that is taken for ours.
func TestDamageIsNoticed(t *testing.T) {
	dir, id := fresh(t)
	good, _ := key(t)
	for _, path := range keyFiles(t, dir) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(b)
		for at := 3; at < len(block.Bytes); at += 24 {
			bad := bytes.Clone(block.Bytes)
			bad[at] ^= 1
			if n, err := iterations(bad); err == nil && n > 2*Iterations {
				continue // accepted and slow: not what is asked here
			}
			write(t, path, string(pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: bad})))
			f := newFiles(dir, passphrase)
			// Bytes that do not matter (the copy of the public key) may differ.
			err := f.load(filepath.Base(path))
			if err == nil && f.keys[id] == nil && (f.storage == nil || macOf(t, f) != good.MAC(nil)) {
				t.Errorf("%s with byte %d flipped gave another key", filepath.Base(path), at)
			}
		}
	}
}

func macOf(t *testing.T, f *files) sm.Digest {
	t.Helper()
	s := newStore(f, sm.Digest{}, rand.Reader)
	if err := s.derive(scalar(f.storage)); err != nil {
		t.Fatal(err)
	}
	return s.MAC(nil)
}

func TestStrangeFiles(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(t *testing.T, dir string)
		want  string // empty: opens all the same
	}{
		{"leftover of a crash", func(t *testing.T, dir string) { write(t, filepath.Join(dir, "x.p8.tmp"), "half") }, ""},
		{"a note", func(t *testing.T, dir string) { write(t, filepath.Join(dir, "README"), "hello") }, ""},
		{"named wrongly", func(t *testing.T, dir string) { write(t, filepath.Join(dir, "mine.p8"), "x") }, "not named by a key id"},
		{"not PEM", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, sm.Sum(nil).String()+fileSuffix), "x")
		}, "not an encrypted PKCS#8 key"},
		{"huge", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, sm.Sum(nil).String()+fileSuffix), strings.Repeat("x", maxKeyFile+1))
		}, "larger than"},
		{"renamed key", func(t *testing.T, dir string) {
			if err := os.Rename(ordinary(t, dir), filepath.Join(dir, sm.Sum(nil).String()+fileSuffix)); err != nil {
				t.Fatal(err)
			}
		}, "another key than its name says"},
		{"no storage secret", func(t *testing.T, dir string) {
			for _, name := range keyFiles(t, dir) {
				if strings.HasPrefix(filepath.Base(name), storagePrefix) {
					if err := os.Remove(name); err != nil {
						t.Fatal(err)
					}
				}
			}
		}, "no storage secret"},
		{"two storage secrets", func(t *testing.T, dir string) {
			name := ordinary(t, dir)
			if err := os.Rename(name, filepath.Join(dir, storagePrefix+filepath.Base(name))); err != nil {
				t.Fatal(err)
			}
		}, "two storage secrets"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, _ := fresh(t)
			tt.spoil(t, dir)
			_, err := Open(dir, passphrase, rand.Reader)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	if _, err := Open(filepath.Join(t.TempDir(), "absent"), passphrase, rand.Reader); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent directory: %v", err)
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// ordinary is the file of a key that is not the storage secret.
func ordinary(t *testing.T, dir string) string {
	t.Helper()
	for _, name := range keyFiles(t, dir) {
		if !strings.HasPrefix(filepath.Base(name), storagePrefix) {
			return name
		}
	}
	t.Fatal("no ordinary key")
	return ""
}

func TestRows(t *testing.T) {
	f, _ := key(t)
	row := []byte("inbox/1")
	sealed, err := f.SealRow(row, []byte("标题"))
	if err != nil {
		t.Fatal(err)
	}
	twice, err := f.SealRow(row, []byte("标题"))
	if err != nil || bytes.Equal(sealed, twice) {
		t.Errorf("equal values give equal bytes at rest, or %v", err)
	}
	if _, err := f.OpenRow([]byte("inbox/2"), sealed); err == nil {
		t.Error("a value moved to another row opens")
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := f.OpenRow(row, bad); err == nil {
			t.Errorf("byte %d flipped: opens", i)
		}
	}
	for n := range sealed {
		if _, err := f.OpenRow(row, sealed[:n]); err == nil {
			t.Errorf("%d bytes: opens", n)
		}
	}
	stranger, err := sm.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other := newStore(newFiles("", passphrase), sm.Digest{}, rand.Reader)
	if err := other.derive(scalar(stranger)); err != nil {
		t.Fatal(err)
	}
	if _, err := other.OpenRow(row, sealed); err == nil {
		t.Error("opens under another keystore")
	}
}

func TestMACKeepsPartsApart(t *testing.T) {
	f, _ := key(t)
	lists := [][][]byte{{}, {nil}, {nil, nil}, {[]byte("ab")}, {[]byte("a"), []byte("b")}, {[]byte("a"), []byte("b"), nil}, {nil, []byte("ab")}}
	seen := map[sm.Digest]int{}
	for i, parts := range lists {
		mac := f.MAC(parts...)
		if j, twice := seen[mac]; twice {
			t.Errorf("lists %d and %d give the same index", i, j)
		}
		seen[mac] = i
	}
}

// counting is randomness that a test can replay.
type counting struct{ n byte }

func (c *counting) Read(p []byte) (int, error) {
	for i := range p {
		c.n = c.n*5 + 17
		p[i] = c.n
	}
	return len(p), nil
}

func TestWithRandomIsDeterministic(t *testing.T) {
	f, id := key(t)
	one, two := f.WithRandom(&counting{}), f.WithRandom(&counting{})
	for range 3 {
		a, err := one.Sign(id, []byte("m"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := two.Sign(id, []byte("m"))
		if err != nil || !bytes.Equal(a, b) {
			t.Fatalf("signatures differ, %v", err)
		}
		c, err := one.SealRow([]byte("r"), []byte("v"))
		if err != nil {
			t.Fatal(err)
		}
		d, err := two.SealRow([]byte("r"), []byte("v"))
		if err != nil || !bytes.Equal(c, d) {
			t.Fatalf("rows differ, %v", err)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	f, id := key(t)
	pub, err := f.Public(id)
	if err != nil {
		t.Fatal(err)
	}
	view := f.WithRandom(&counting{}) // not safe by itself
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				sig, err := view.Sign(id, []byte("m"))
				if err != nil || !sm.Verify(pub, []byte("m"), sig) {
					t.Errorf("sign: %v", err)
				}
				sealed, err := view.SealRow([]byte("r"), []byte("v"))
				if err != nil {
					t.Error(err)
				}
				if _, err := f.OpenRow([]byte("r"), sealed); err != nil {
					t.Error(err)
				}
				f.IDs()
			}
		})
	}
	wg.Wait()
}

func TestPassphrase(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		write(t, path, text)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("YIZHAN_TEST_PASSPHRASE", "from env")
	t.Setenv("YIZHAN_TEST_EMPTY", "")
	tests := []struct {
		name, file, env string
		want, fault     string
	}{
		{"file", file("a", "secret", 0o600), "", "secret", ""},
		{"read-only file", file("ro", "secret", 0o400), "", "secret", ""},
		{"one newline is cut", file("b", "secret\n", 0o600), "", "secret", ""},
		{"only one", file("c", "secret\n\n", 0o600), "", "secret\n", ""},
		{"Windows line end", file("d", "secret\r\n", 0o600), "", "secret", ""},
		{"spaces stay", file("e", " secret ", 0o600), "", " secret ", ""},
		{"environment", "", "YIZHAN_TEST_PASSPHRASE", "from env", ""},
		{"the file goes first", file("f", "secret", 0o600), "YIZHAN_TEST_PASSPHRASE", "secret", ""},
		{"neither", "", "YIZHAN_TEST_EMPTY", "", "set the environment variable YIZHAN_TEST_EMPTY"},
		{"group may read", file("g", "secret", 0o640), "", "", "chmod 600"},
		{"all may read", file("h", "secret", 0o604), "", "", "chmod 600"},
		{"absent", filepath.Join(dir, "absent"), "YIZHAN_TEST_PASSPHRASE", "", "no such file"},
		{"empty", file("i", "\n", 0o600), "", "", "is empty"},
		{"too large", file("j", strings.Repeat("x", maxPassphrase+1), 0o600), "", "", "larger"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Passphrase(tt.file, tt.env)
			if tt.fault != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fault) || strings.Contains(err.Error(), "secret") {
					t.Errorf("got %v, want %q", err, tt.fault)
				}
				return
			}
			if err != nil || string(got) != tt.want {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func FuzzIterations(f *testing.F) {
	key, err := sm.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := pkcs8.MarshalPrivateKey(key, passphrase, pkcs.NewSMPBESEncrypter(16, Iterations))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := iterations(b); err == nil && (n < Iterations || n > maxIterations) {
			t.Fatalf("%d iterations accepted", n)
		}
	})
}
