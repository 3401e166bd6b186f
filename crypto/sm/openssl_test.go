package sm

import (
	"bytes"
	stdcipher "crypto/cipher"
	"encoding/pem"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emmansun/gmsm/cipher"
	"github.com/emmansun/gmsm/sm2"
	"github.com/emmansun/gmsm/sm4"
	"github.com/emmansun/gmsm/smx509"
)

// The other implementation is the system's OpenSSL, by its command line.

const rounds = 20

// openssl runs commands in a directory of its own.
type openssl struct {
	t    *testing.T
	dir  string
	rand *mathrand.ChaCha8
}

// newOpenSSL skips only when the program is missing or was built without an
// algorithm of these families.
func newOpenSSL(t *testing.T, seed byte) *openssl {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed; with it (Debian: apt-get install openssl) this test compares the two implementations")
	}
	o := &openssl{t: t, dir: t.TempDir(), rand: mathrand.NewChaCha8([32]byte{seed})}
	for family, probe := range map[string][]string{
		"SM2": {"ecparam", "-name", "SM2", "-noout"},
		"SM3": {"dgst", "-sm3", os.DevNull},
		"SM4": {"enc", "-sm4-ctr", "-K", strings.Repeat("0", 32), "-iv", strings.Repeat("0", 32), "-in", os.DevNull},
	} {
		if out, err := exec.Command(path, probe...).CombinedOutput(); err != nil {
			t.Skipf("this openssl was built without %s: %s", family, bytes.TrimSpace(out))
		}
	}
	return o
}

func (o *openssl) file(name string) string { return filepath.Join(o.dir, name) }

func (o *openssl) write(name string, b []byte) string {
	o.t.Helper()
	if err := os.WriteFile(o.file(name), b, 0o600); err != nil {
		o.t.Fatal(err)
	}
	return o.file(name)
}

// try runs a command and gives its standard output.
func (o *openssl) try(args ...string) ([]byte, error) {
	cmd := exec.Command("openssl", args...)
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("openssl %s: %w: %s%s", strings.Join(args, " "), err, out.Bytes(), problem.Bytes())
	}
	return out.Bytes(), nil
}

func (o *openssl) run(args ...string) []byte {
	o.t.Helper()
	out, err := o.try(args...)
	if err != nil {
		o.t.Fatal(err)
	}
	return out
}

// bytes gives n random bytes.
func (o *openssl) bytes(n int) []byte {
	b := make([]byte, n)
	_, _ = io.ReadFull(o.rand, b)
	return b
}

// messages are random, of lengths around the block sizes of SM3 and SM4 and of
// any other up to 5,000.
func (o *openssl) messages() (list [][]byte) {
	for _, n := range []int{1, 15, 16, 17, 55, 56, 63, 64, 65, 128} {
		list = append(list, o.bytes(n))
	}
	for len(list) < rounds {
		list = append(list, o.bytes(1+int(o.rand.Uint64()%5000)))
	}
	return list
}

// theirKey is a key made by OpenSSL, with the names of its two files.
func (o *openssl) theirKey() (key *PrivateKey, private, public string) {
	o.t.Helper()
	private, public = o.file("their-key.pem"), o.file("their-public.pem")
	o.run("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:SM2", "-pkeyopt", "ec_param_enc:named_curve", "-out", private)
	o.run("pkey", "-in", private, "-pubout", "-out", public)
	text, err := os.ReadFile(private)
	if err != nil {
		o.t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		o.t.Fatal("no PEM in the key of openssl")
	}
	parsed, err := smx509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		o.t.Fatal(err)
	}
	return parsed.(*sm2.PrivateKey), private, public
}

// ourKey is a key made by this package, given to OpenSSL.
func (o *openssl) ourKey() (key *PrivateKey, private, public string) {
	o.t.Helper()
	key, err := GenerateKey(o.rand)
	if err != nil {
		o.t.Fatal(err)
	}
	private, public = o.privateFile("our-key.pem", key), o.file("our-public.pem")
	o.run("pkey", "-in", private, "-pubout", "-out", public)
	return key, private, public
}

func (o *openssl) privateFile(name string, key *PrivateKey) string {
	o.t.Helper()
	der, err := smx509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		o.t.Fatal(err)
	}
	return o.write(name, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// eachKey runs a comparison once with a key of each side.
func (o *openssl) eachKey(compare func(o *openssl, key *PrivateKey, private, public string)) {
	for name, make := range map[string]func() (*PrivateKey, string, string){"key of openssl": o.theirKey, "our key": o.ourKey} {
		key, private, public := make()
		o.t.Run(name, func(t *testing.T) {
			compare(&openssl{t, o.dir, o.rand}, key, private, public)
		})
	}
}

const distid = "distid:1234567812345678"

func (o *openssl) verifies(public, message, sig string) error {
	_, err := o.try("dgst", "-sm3", "-verify", public, "-sigopt", distid, "-signature", sig, message)
	return err
}

func TestOpenSSLAndWeVerifyEachOthersSignatures(t *testing.T) {
	newOpenSSL(t, 1).eachKey(func(o *openssl, key *PrivateKey, private, public string) {
		for i, msg := range o.messages() {
			message := o.write("message", msg)
			theirs := o.run("dgst", "-sm3", "-sign", private, "-sigopt", distid, message)
			if !Verify(&key.PublicKey, msg, theirs) {
				o.t.Errorf("message %d: we refuse %x of openssl", i, theirs)
			}
			if Verify(&key.PublicKey, append(msg, 0), theirs) {
				o.t.Errorf("message %d: another message verifies", i)
			}
			ours, err := Sign(o.rand, key, msg)
			if err != nil {
				o.t.Fatal(err)
			}
			sig := o.write("sig", ours)
			if err := o.verifies(public, message, sig); err != nil {
				o.t.Errorf("message %d: openssl refuses %x: %v", i, ours, err)
			}
			if o.verifies(public, o.write("message", append(msg, 0)), sig) == nil {
				o.t.Errorf("message %d: openssl verifies another message", i)
			}
		}
	})
}

func TestOpenSSLAndWeDecryptEachOthersCiphertexts(t *testing.T) {
	newOpenSSL(t, 2).eachKey(func(o *openssl, key *PrivateKey, private, public string) {
		for i := range rounds {
			plain := o.bytes(1 + i*13%200)
			theirs := o.run("pkeyutl", "-encrypt", "-pubin", "-inkey", public, "-in", o.write("plain", plain))
			if got, err := Decrypt(key, theirs); err != nil || !bytes.Equal(got, plain) {
				o.t.Errorf("message %d: %x of openssl decrypts to %x, %v", i, theirs, got, err)
			}
			ours, err := Encrypt(o.rand, &key.PublicKey, plain)
			if err != nil {
				o.t.Fatal(err)
			}
			got, err := o.try("pkeyutl", "-decrypt", "-inkey", private, "-in", o.write("sealed", ours))
			if err != nil || !bytes.Equal(got, plain) {
				o.t.Errorf("message %d: openssl decrypts %x to %x, %v", i, ours, got, err)
			}
		}
	})
}

func TestOpenSSLAndWeHashAlike(t *testing.T) {
	o := newOpenSSL(t, 3)
	for i, msg := range append(o.messages(), nil) {
		message := o.write("message", msg)
		if d := Sum(msg); !bytes.Equal(o.run("dgst", "-sm3", "-binary", message), d[:]) {
			t.Errorf("message %d: SM3 of %x", i, msg)
		}
		key := o.bytes(1 + i*7%100)
		d := HMAC(key, msg)
		if !bytes.Equal(o.run("dgst", "-sm3", "-binary", "-mac", "HMAC", "-macopt", "hexkey:"+hexOf(key), message), d[:]) {
			t.Errorf("message %d: HMAC-SM3 of %x under %x", i, msg, key)
		}
	}
}

// block is one mode of SM4 as gmsm and the standard library make it.
type block func(b stdcipher.Block, iv, in []byte, encrypt bool) []byte

func blocks(m stdcipher.BlockMode, in []byte) []byte {
	out := make([]byte, len(in))
	m.CryptBlocks(out, in)
	return out
}

func sm4Modes() map[string]block {
	return map[string]block{
		"sm4-cbc": func(b stdcipher.Block, iv, in []byte, encrypt bool) []byte {
			if encrypt {
				return blocks(stdcipher.NewCBCEncrypter(b, iv), in)
			}
			return blocks(stdcipher.NewCBCDecrypter(b, iv), in)
		},
		"sm4-ecb": func(b stdcipher.Block, _, in []byte, encrypt bool) []byte {
			if encrypt {
				return blocks(cipher.NewECBEncrypter(b), in)
			}
			return blocks(cipher.NewECBDecrypter(b), in)
		},
		"sm4-ctr": func(b stdcipher.Block, iv, in []byte, _ bool) []byte {
			out := make([]byte, len(in))
			stdcipher.NewCTR(b, iv).XORKeyStream(out, in)
			return out
		},
	}
}

func TestOpenSSLAndWeCipherAlike(t *testing.T) {
	o := newOpenSSL(t, 4)
	for name, mode := range sm4Modes() {
		for i, msg := range o.messages() {
			if name != "sm4-ctr" { // whole blocks: padding is not what is compared
				msg = append(msg, make([]byte, (16-len(msg)%16)%16)...)
			}
			key, iv := o.bytes(16), o.bytes(16)
			b, err := sm4.NewCipher(key)
			if err != nil {
				t.Fatal(err)
			}
			sealed := mode(b, iv, msg, true)
			if theirs := o.enc(name, key, iv, msg, "-e"); !bytes.Equal(theirs, sealed) {
				t.Errorf("%s, message %d: we encrypt to %x, openssl to %x", name, i, sealed, theirs)
			}
			if theirs := o.enc(name, key, iv, sealed, "-d"); !bytes.Equal(theirs, msg) || !bytes.Equal(mode(b, iv, sealed, false), msg) {
				t.Errorf("%s, message %d: decrypts to something else", name, i)
			}
		}
	}
}

func (o *openssl) enc(name string, key, iv, in []byte, direction string) []byte {
	o.t.Helper()
	args := []string{"enc", "-" + name, direction, "-nopad", "-K", hexOf(key), "-in", o.write("in", in)}
	if name != "sm4-ecb" {
		args = append(args, "-iv", hexOf(iv))
	}
	return o.run(args...)
}

// The command line has no SM4-GCM, but GCM encrypts as counter mode does from
// the block nonce ‖ 2.
func TestOpenSSLReadsWhatOurGCMEncrypts(t *testing.T) {
	o := newOpenSSL(t, 5)
	for i, msg := range o.messages() {
		key, nonce := o.bytes(16), o.bytes(12)
		aead, err := NewGCM(key)
		if err != nil {
			t.Fatal(err)
		}
		sealed := aead.Seal(nil, nonce, msg, nil)
		counter := joined(nonce, []byte{0, 0, 0, 2})
		if got := o.enc("sm4-ctr", key, counter, sealed[:len(msg)], "-d"); !bytes.Equal(got, msg) {
			t.Errorf("message %d: openssl reads %x", i, got)
		}
	}
}

// keyFile writes a public key of 65 bytes as openssl reads it.
func (o *openssl) keyFile(point []byte) string {
	algorithm := unhex(o.t, "301306072a8648ce3d020106082a811ccf5501822d")
	return o.write("public.pem", pem.EncodeToMemory(&pem.Block{
		Type: "PUBLIC KEY", Bytes: sequence(algorithm, tlv(3, []byte{0}, point)),
	}))
}

// The vectors are ours; OpenSSL must agree with every one, those over a digest
// included. (pkeyutl and not dgst, which cuts a signature file to 72 bytes.)
func TestOpenSSLAgreesWithTheSignatureVectors(t *testing.T) {
	o := newOpenSSL(t, 6)
	for _, v := range verifyVectors().Vectors {
		args := []string{"pkeyutl", "-verify", "-pubin", "-inkey", o.keyFile(unhex(t, v.PublicKey)), "-sigfile", o.write("sig", unhex(t, v.Signature))}
		if v.Digest == "" {
			args = append(args, "-rawin", "-digest", "sm3", "-pkeyopt", distid, "-in", o.write("message", unhex(t, v.Message)))
		} else {
			args = append(args, "-in", o.write("digest", unhex(t, v.Digest)))
		}
		if _, err := o.try(args...); (err == nil) != v.valid() {
			t.Errorf("%s is %s %s: %v", v.Name, v.Result, v.Class, err)
		}
	}
}

func TestOpenSSLAgreesWithThePublicKeyVectors(t *testing.T) {
	o := newOpenSSL(t, 7)
	for _, v := range publicKeyVectors().Vectors {
		if v.Class == "COMPRESSED" || v.Class == "HYBRID" {
			continue // forms that OpenSSL knows and this project does not use
		}
		if _, err := o.try("pkey", "-pubin", "-in", o.keyFile(unhex(t, v.PublicKey)), "-pubcheck", "-noout"); (err == nil) != v.valid() {
			t.Errorf("%s is %s %s: %v", v.Name, v.Result, v.Class, err)
		}
	}
}

// lax are the classes in which OpenSSL may read more than this project does:
// it reduces coordinates, takes BER, and leaves bytes behind unread. That the
// plaintext then comes out shows that our check alone refuses.
var lax = map[string]bool{
	"COORDINATE_TOO_LARGE": true, "NEGATIVE_INTEGER": true, "NON_CANONICAL_DER": true,
	"TRAILING_BYTES": true, "EMPTY": true, "EMPTY_PLAINTEXT": true, "TOO_LONG": true,
}

func TestOpenSSLAgreesWithTheDecryptionVectors(t *testing.T) {
	o := newOpenSSL(t, 8)
	for _, v := range decryptVectors().Vectors {
		key, err := sm2.NewPrivateKey(unhex(t, v.PrivateKey))
		if err != nil {
			t.Fatal(err)
		}
		private := o.privateFile("key.pem", key)
		got, err := o.try("pkeyutl", "-decrypt", "-inkey", private, "-in", o.write("sealed", unhex(t, v.Ciphertext)))
		switch {
		case v.valid() && (err != nil || hexOf(got) != v.Plaintext):
			t.Errorf("%s is valid: %x, %v", v.Name, got, err)
		case !v.valid() && err == nil && !lax[v.Class]:
			t.Errorf("%s is invalid, %s: openssl decrypts it to %x", v.Name, v.Class, got)
		}
	}
}
