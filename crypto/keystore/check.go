package keystore

import (
	"bytes"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// pbes2 is as much of an encrypted PKCS#8 key as tells its iterations.
type pbes2 struct {
	Algorithm struct {
		OID    asn1.ObjectIdentifier
		Params struct {
			KDF struct {
				OID    asn1.ObjectIdentifier
				Params struct {
					Salt       []byte
					Iterations int
					Rest       asn1.RawValue `asn1:"optional"`
					PRF        asn1.RawValue `asn1:"optional"`
				}
			}
			Cipher asn1.RawValue
		}
	}
	Data []byte
}

// checkIterations refuses key files whose passphrase is cheap to guess, and
// such that would keep the process busy for ever.
func checkIterations(der []byte) error {
	var p pbes2
	rest, err := asn1.Unmarshal(der, &p)
	if err != nil || len(rest) > 0 {
		return errors.New("not PKCS#8 under PBES2")
	}
	n := p.Algorithm.Params.KDF.Params.Iterations
	if n < Iterations || n > 10_000_000 {
		return fmt.Errorf("%d PBKDF2 iterations, %d to 10,000,000 are accepted", n, Iterations)
	}
	return nil
}

// SelfTest checks the algorithms against known answers of the standards and
// that every key signs and verifies. A node that fails it must not serve.
func (f *File) SelfTest() error {
	if got := sm.Sum([]byte("abc")).String(); got != "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0" {
		return errors.New("keystore: self-test: SM3 gives a wrong answer (GB/T 32905, A.1)")
	}
	if err := testSM4(); err != nil {
		return err
	}
	msg := []byte("yizhan self-test")
	for _, id := range f.IDs() {
		key, err := f.key(id)
		if err != nil {
			return err
		}
		sig, err := f.Sign(id, msg)
		if err != nil {
			return fmt.Errorf("keystore: self-test: %w", err)
		}
		if !sm.Verify(&key.PublicKey, msg, sig) || sm.Verify(&key.PublicKey, msg[1:], sig) {
			return fmt.Errorf("keystore: self-test: key %s does not sign", id)
		}
	}
	return nil
}

// testSM4 is the GCM vector of RFC 8998, A.1.
func testSM4() error {
	key, _ := hex.DecodeString("0123456789abcdeffedcba9876543210")
	nonce, _ := hex.DecodeString("00001234567800000000abcd")
	aad, _ := hex.DecodeString("feedfacedeadbeeffeedfacedeadbeefabaddad2")
	want, _ := hex.DecodeString("17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735d82710ca5c22f0ccfa7cbf93d496ac15a56834cbcf98c397b4024a2691233b8d83de3541e4c2b58177e065a9bf7b62ec")
	var plain []byte
	for _, b := range []byte{0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0xee, 0xaa} {
		plain = append(plain, bytes.Repeat([]byte{b}, 8)...)
	}
	aead, err := sm.NewGCM(key)
	if err != nil {
		return err
	}
	if !bytes.Equal(aead.Seal(nil, nonce, plain, aad), want) {
		return errors.New("keystore: self-test: SM4-GCM gives a wrong answer (RFC 8998, A.1)")
	}
	return nil
}

// Passphrase reads a passphrase from a file, which nobody else may read, or
// from an environment variable; one trailing line end is cut.
func Passphrase(file, env string) ([]byte, error) {
	if file == "" {
		if v := os.Getenv(env); v != "" {
			return []byte(v), nil
		}
		return nil, fmt.Errorf("keystore: no passphrase: name a file with --passphrase-file or set %s", env)
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("keystore: passphrase: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("keystore: passphrase file %s can be read by others: chmod 600 it", file)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("keystore: passphrase: %w", err)
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if len(b) == 0 {
		return nil, fmt.Errorf("keystore: passphrase file %s is empty", file)
	}
	return b, nil
}
