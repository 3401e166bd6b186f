package sm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Known answers: GB/T 32905-2016 annex A, GB/T 32907 by RFC 8998 A.1.
func TestKnownAnswers(t *testing.T) {
	for text, want := range map[string]string{
		"abc": "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0",
		"abcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcd": "debe9ff92275b8a138604889c18e5a4d6fdb70e5387e5765293dcba39c0c5732",
	} {
		if got := Sum([]byte(text)).String(); got != want {
			t.Errorf("SM3(%s) = %s", text, got)
		}
		if got := Sum([]byte(text[:1]), []byte(text[1:])).String(); got != want {
			t.Errorf("SM3 in parts = %s", got)
		}
	}
	aead, err := NewGCM(unhex(t, "0123456789abcdeffedcba9876543210"))
	if err != nil {
		t.Fatal(err)
	}
	sealed := aead.Seal(nil, unhex(t, "00001234567800000000abcd"),
		unhex(t, "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccddddddddddddddddeeeeeeeeeeeeeeeeffffffffffffffffeeeeeeeeeeeeeeeeaaaaaaaaaaaaaaaa"),
		unhex(t, "feedfacedeadbeeffeedfacedeadbeefabaddad2"))
	if got := hex.EncodeToString(sealed); got != "17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735d82710ca5c22f0ccfa7cbf93d496ac15a56834cbcf98c397b4024a2691233b8d83de3541e4c2b58177e065a9bf7b62ec" {
		t.Errorf("SM4-GCM = %s", got)
	}
}

func random(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

func key(t testing.TB, seed byte) *PrivateKey {
	k, err := GenerateKey(random(seed))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSignAndVerify(t *testing.T) {
	k, other := key(t, 1), key(t, 2)
	msg := []byte("公文")
	sig, err := Sign(random(3), k, msg)
	if err != nil {
		t.Fatal(err)
	}
	if !Verify(&k.PublicKey, msg, sig) {
		t.Fatal("a good signature does not verify")
	}
	if Verify(&other.PublicKey, msg, sig) || Verify(&k.PublicKey, msg[1:], sig) {
		t.Error("a wrong key or message verifies")
	}
	for i := range sig {
		bad := bytes.Clone(sig)
		bad[i] ^= 1
		if Verify(&k.PublicKey, msg, bad) {
			t.Errorf("byte %d changed and it verifies", i)
		}
	}
	for name, bad := range map[string][]byte{
		"trailing byte": append(bytes.Clone(sig), 0),
		"empty":         nil,
		"long length":   append([]byte{sig[0], 0x81, sig[1]}, sig[2:]...),
	} {
		if Verify(&k.PublicKey, msg, bad) {
			t.Errorf("%s verifies", name)
		}
	}
}

// With injected randomness everything is a function of it: a simulation can
// be replayed byte for byte.
func TestDeterminism(t *testing.T) {
	make := func() []byte {
		r := random(9)
		k, err := GenerateKey(r)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := Sign(r, k, []byte("m"))
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := Encrypt(r, &k.PublicKey, []byte("secret"))
		if err != nil {
			t.Fatal(err)
		}
		return append(append(PublicKeyBytes(&k.PublicKey), sig...), sealed...)
	}
	first := make()
	for range 50 {
		if !bytes.Equal(first, make()) {
			t.Fatal("the same randomness gave other bytes")
		}
	}
}

func TestEncryptAndDecrypt(t *testing.T) {
	k, other := key(t, 1), key(t, 2)
	sealed, err := Encrypt(random(4), &k.PublicKey, []byte("a file key of thirty-two bytes!!"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Decrypt(k, sealed); err != nil || string(got) != "a file key of thirty-two bytes!!" {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := Decrypt(other, sealed); !errors.Is(err, ErrDecrypt) {
		t.Errorf("another key: %v", err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := Decrypt(k, bad); !errors.Is(err, ErrDecrypt) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	if _, err := Decrypt(k, append(bytes.Clone(sealed), 0)); !errors.Is(err, ErrDecrypt) {
		t.Error("a trailing byte passes")
	}
	if _, err := Encrypt(random(4), &k.PublicKey, nil); err == nil {
		t.Error("nothing was encrypted")
	}
}

func TestPublicKeys(t *testing.T) {
	k := key(t, 1)
	b := PublicKeyBytes(&k.PublicKey)
	back, err := ParsePublicKey(b)
	if err != nil || !back.Equal(&k.PublicKey) || KeyID(back) != Sum(b) {
		t.Fatal(err)
	}
	off := bytes.Clone(b)
	off[64] ^= 1
	for name, bad := range map[string][]byte{"off the curve": off, "infinity": make([]byte, 65), "compressed": b[:33], "empty": nil} {
		if _, err := ParsePublicKey(bad); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestDigestText(t *testing.T) {
	d := Sum([]byte("x"))
	if back, err := ParseDigest(d.String()); err != nil || back != d {
		t.Fatal(err)
	}
	for _, bad := range []string{"", d.String()[1:], d.String() + "0", "G" + d.String()[1:], "A" + d.String()[1:]} {
		if _, err := ParseDigest(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func stream(t testing.TB) *Stream {
	s, err := NewStream(make([]byte, 16), make([]byte, 7))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func seal(t testing.TB, plain []byte) (out []byte) {
	s := stream(t)
	for i := uint32(0); ; i++ {
		n := min(len(plain), ChunkPlain)
		last := n == len(plain)
		out = s.SealChunk(out, plain[:n], i, last)
		if plain = plain[n:]; last {
			return out
		}
	}
}

// open opens all chunks of a ciphertext as a reader must.
func open(t testing.TB, sealed []byte) (plain []byte, err error) {
	s := stream(t)
	for i := uint32(0); ; i++ {
		n := min(len(sealed), ChunkSealed)
		last := n == len(sealed)
		if plain, err = s.OpenChunk(plain, sealed[:n], i, last); err != nil || last {
			return plain, err
		}
		sealed = sealed[n:]
	}
}

func TestStreamSizes(t *testing.T) {
	for _, n := range []int{0, 1, ChunkPlain - 1, ChunkPlain, ChunkPlain + 1, 2 * ChunkPlain, 2*ChunkPlain + 7} {
		plain := bytes.Repeat([]byte{7}, n)
		sealed := seal(t, plain)
		if int64(len(sealed)) != SealedSize(int64(n)) {
			t.Errorf("%d bytes seal to %d, SealedSize says %d", n, len(sealed), SealedSize(int64(n)))
		}
		if back, err := PlainSize(int64(len(sealed))); err != nil || back != int64(n) {
			t.Errorf("PlainSize(%d) = %d, %v", len(sealed), back, err)
		}
		if got, err := open(t, sealed); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	for _, bad := range []int64{-1, 0, 15, ChunkSealed + 1, ChunkSealed + 16} {
		if _, err := PlainSize(bad); err == nil {
			t.Errorf("PlainSize(%d) was accepted", bad)
		}
	}
}

func TestStreamDetects(t *testing.T) {
	sealed := seal(t, bytes.Repeat([]byte{7}, 3*ChunkPlain+100))
	a, b, c, d := sealed[:ChunkSealed], sealed[ChunkSealed:2*ChunkSealed], sealed[2*ChunkSealed:3*ChunkSealed], sealed[3*ChunkSealed:]
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	flipped := bytes.Clone(sealed)
	flipped[100] ^= 1
	for name, bad := range map[string][]byte{
		"cut at a chunk": join(a, b, c),
		"cut in a chunk": sealed[:len(sealed)-1],
		"chunks swapped": join(b, a, c, d),
		"chunk dropped":  join(a, c, d),
		"chunk repeated": join(a, a, b, c, d),
		"last repeated":  join(a, b, c, d, d),
		"last alone":     d,
		"bit flipped":    flipped,
		"extended":       append(bytes.Clone(sealed), 0),
		"nothing":        {},
	} {
		if _, err := open(t, bad); !errors.Is(err, ErrChunk) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecrypt(f *testing.F) {
	k := key(f, 1)
	good, _ := Encrypt(random(4), &k.PublicKey, []byte("x"))
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Decrypt(k, b); err != nil && !errors.Is(err, ErrDecrypt) {
			t.Fatal(err)
		}
	})
}

func FuzzVerify(f *testing.F) {
	k := key(f, 1)
	msg := []byte("m")
	sig, _ := Sign(random(3), k, msg)
	f.Add(sig)
	f.Fuzz(func(t *testing.T, b []byte) {
		if !bytes.Equal(b, sig) && Verify(&k.PublicKey, msg, b) {
			t.Fatalf("another encoding verifies: %x", b)
		}
	})
}

// TestSignDigest: the signature of a digest is the signature of its message.
func TestSignDigest(t *testing.T) {
	source := random(7)
	key, err := GenerateKey(source)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := SignatureDigest(&key.PublicKey, []byte("message"))
	if err != nil {
		t.Fatal(err)
	}
	sig, err := SignDigest(source, key, digest)
	if err != nil || !Verify(&key.PublicKey, []byte("message"), sig) || Verify(&key.PublicKey, digest, sig) {
		t.Errorf("got %v", err)
	}
	if _, err := SignDigest(source, key, digest[1:]); err == nil {
		t.Error("a short digest was signed")
	}
}

// TestExpanderIsHKDF: many outputs of one secret are what HKDF gives for each.
func TestExpanderIsHKDF(t *testing.T) {
	secret, salt := []byte("a secret of some length"), []byte("salt")
	e := NewExpander(Extract(secret, salt))
	for _, info := range []string{"", "a", "yizhan/v1/field\x00\x00\x00\x01", string(bytes.Repeat([]byte("long"), 100)), "a"} {
		if got, want := e.Digest([]byte(info)), HKDF(secret, salt, []byte(info), Size); string(got[:]) != string(want) {
			t.Errorf("info %q: %x, HKDF gives %x", info, got, want)
		}
	}
}
