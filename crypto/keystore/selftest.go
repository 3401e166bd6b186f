package keystore

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/emmansun/gmsm/sm2"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// SelfTest checks the algorithms against known answers, the randomness, and
// every key: it must sign and verify, unless its custody only decrypts, and
// open what is sealed to it. A node that fails it must not serve.
func (s *Store) SelfTest() error {
	for _, test := range []struct {
		name string
		fn   func() error
	}{
		{"SM3 (GB/T 32905, A.1)", testSM3},
		{"HMAC-SM3", testHMAC},
		{"HKDF-SM3", testHKDF},
		{"SM4-GCM (RFC 8998, A.1)", testSM4},
		{"SM2 signature (GB/T 32918.5, A.2)", testSM2Signature},
		{"SM2 decryption (GB/T 32918.5, A.3)", testSM2Decryption},
		{"randomness", s.testRandom},
		{"rows at rest", s.testRows},
	} {
		if err := test.fn(); err != nil {
			return fmt.Errorf("keystore: self-test: %s: %w", test.name, err)
		}
	}
	for _, id := range s.IDs() {
		if err := s.testKey(id); err != nil {
			return fmt.Errorf("keystore: self-test: key %s: %w", id, err)
		}
	}
	return nil
}

var errAnswer = errors.New("a wrong answer")

// answers compares what was computed with what is known, as hex.
func answers(got []byte, want string) error {
	if hex.EncodeToString(got) != want {
		return errAnswer
	}
	return nil
}

func fromHex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic("keystore: a constant is not hex")
	}
	return b
}

func testSM3() error {
	d := sm.Sum([]byte("abc"))
	return answers(d[:], "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0")
}

// The keyed hashes have no example in a standard; these answers are OpenSSL's.
const keyedKey = "0102030405060708090a0b0c0d0e0f10"

func testHMAC() error {
	d := sm.HMAC(fromHex(keyedKey), []byte("abc"))
	return answers(d[:], "a673f5905a6f786cccead2c394198d6716fe523f3c70da9adfdb8abb2da88345")
}

func testHKDF() error {
	return answers(sm.HKDF(fromHex(keyedKey), []byte("salt"), []byte("info"), 32),
		"95c7b33ec106731b732f7423a7e1f6530c6fcc4033b59b44be481b0073942c74")
}

func testSM4() error {
	aad := fromHex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
	nonce := fromHex("00001234567800000000abcd")
	var plain []byte
	for _, b := range []byte{0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0xee, 0xaa} {
		plain = append(plain, bytes.Repeat([]byte{b}, 8)...)
	}
	aead, err := sm.NewGCM(fromHex("0123456789abcdeffedcba9876543210"))
	if err != nil {
		return err
	}
	sealed := aead.Seal(nil, nonce, plain, aad)
	if err := answers(sealed, "17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735d82710ca5c22f0ccfa7cbf93d496ac15a56834cbcf98c397b4024a2691233b8d83de3541e4c2b58177e065a9bf7b62ec"); err != nil {
		return err
	}
	if back, err := aead.Open(nil, nonce, sealed, aad); err != nil || !bytes.Equal(back, plain) {
		return errAnswer
	}
	sealed[0] ^= 1
	if _, err := aead.Open(nil, nonce, sealed, aad); err == nil {
		return errors.New("it opened what was changed")
	}
	return nil
}

// The key of the standard's examples.
const (
	exampleKey    = "3945208f7b2144b13f36e38ac6d39f95889393692860b51a42fb81ef4df7c5b8"
	examplePublic = "0409f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13"
)

func testSM2Signature() error {
	pub, err := sm.ParsePublicKey(fromHex(examplePublic))
	if err != nil {
		return err
	}
	msg := []byte("message digest")
	sig := fromHex("3046022100f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3022100b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa")
	if !sm.Verify(pub, msg, sig) {
		return errors.New("it refused a right signature")
	}
	if sm.Verify(pub, msg[1:], sig) {
		return errors.New("it took a signature over another message")
	}
	sig[len(sig)-1] ^= 1
	if sm.Verify(pub, msg, sig) {
		return errors.New("it took a wrong signature")
	}
	return nil
}

func testSM2Decryption() error {
	key := new(sm2.PrivateKey)
	pub, err := sm.ParsePublicKey(fromHex(examplePublic))
	if err != nil {
		return err
	}
	key.PublicKey, key.D = *pub, new(big.Int).SetBytes(fromHex(exampleKey))
	sealed := fromHex("307c022004ebfc718e8d1798620432268e77feb6415e2ede0e073c0f4f640ecd2e149a73022100e858f9d81e5430a57b36daab8f950a3c64e6ee6a63094d99283aff767e124df0042059983c18f809e262923c53aec295d30383b54e39d609d160afcb1908d0bd8766041321886ca989ca9c7d58087307ca93092d651efa")
	plain, err := sm.Decrypt(key, sealed)
	if err != nil || string(plain) != "encryption standard" {
		return errAnswer
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := sm.Decrypt(key, sealed); err == nil {
		return errors.New("it opened what was changed")
	}
	return nil
}

// testRandom finds a source that is stuck or dead; more cannot be seen from
// outside.
func (s *Store) testRandom() error {
	a, b := make([]byte, 32), make([]byte, 32)
	for _, p := range [][]byte{a, b} {
		if _, err := io.ReadFull(s.rand, p); err != nil {
			return err
		}
	}
	if bytes.Equal(a, b) || bytes.Equal(a, make([]byte, 32)) {
		return errors.New("the source repeats itself")
	}
	return nil
}

func (s *Store) testRows() error {
	row, value := []byte("self-test"), []byte("value")
	sealed, err := s.SealRow(row, value)
	if err != nil {
		return err
	}
	if back, err := s.OpenRow(row, sealed); err != nil || !bytes.Equal(back, value) {
		return errAnswer
	}
	if _, err := s.OpenRow(value, sealed); err == nil {
		return errors.New("a value opened in another row")
	}
	return nil
}

func (s *Store) testKey(id sm.Digest) error {
	pub, err := s.Public(id)
	if err != nil {
		return err
	}
	if s.custody.Signs() {
		if err := s.testSigns(id, pub); err != nil {
			return err
		}
	}
	secret := []byte("yizhan self-test")
	sealed, err := sm.Encrypt(s.rand, pub, secret)
	if err != nil {
		return err
	}
	back, err := s.Unwrap(id, sealed)
	if err != nil {
		return err
	}
	if !bytes.Equal(back, secret) {
		return errors.New("it does not decrypt")
	}
	return nil
}

func (s *Store) testSigns(id sm.Digest, pub *ecdsa.PublicKey) error {
	msg := []byte("yizhan self-test")
	sig, err := s.Sign(id, msg)
	if err != nil {
		return err
	}
	if !sm.Verify(pub, msg, sig) || sm.Verify(pub, msg[1:], sig) {
		return errors.New("it does not sign")
	}
	return nil
}
