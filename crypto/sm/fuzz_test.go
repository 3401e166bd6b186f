package sm

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzParseCiphertext: what is accepted is on the curve, has one encoding, and
// every refusal is the same.
func FuzzParseCiphertext(f *testing.F) {
	for _, v := range decryptVectors().Vectors {
		if len(v.Ciphertext) < 1000 {
			f.Add(unhex(f, v.Ciphertext))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseCiphertext(b)
		if err != nil {
			if err != ErrDecrypt { // the very same error, whatever the cause
				t.Fatalf("another error: %v", err)
			}
			return
		}
		again := (&ciphertext{x: c.x, y: c.y, c3: c.hash, c2: c.text}).der()
		if !bytes.Equal(again, b) {
			t.Fatalf("%x was accepted and encodes to %x", b, again)
		}
		if _, err := ParsePublicKey(c.C1()); err != nil {
			t.Fatalf("off the curve: %v", err)
		}
		if _, err := c.OpenWithX(make([]byte, 32)); err != nil && err != ErrDecrypt {
			t.Fatalf("another error: %v", err)
		}
	})
}

// FuzzParsePublicKey: a key has one form.
func FuzzParsePublicKey(f *testing.F) {
	for _, v := range publicKeyVectors().Vectors {
		f.Add(unhex(f, v.PublicKey))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		pub, err := ParsePublicKey(b)
		if err != nil {
			return
		}
		if !bytes.Equal(PublicKeyBytes(pub), b) {
			t.Fatalf("%x was accepted in another form", b)
		}
	})
}

// FuzzParseDigest: a digest has one text.
func FuzzParseDigest(f *testing.F) {
	f.Add(Sum(nil).String())
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParseDigest(s); err == nil && d.String() != s {
			t.Fatalf("%q is accepted as %s", s, d)
		}
	})
}

// FuzzOpenChunk: only the chunk itself opens, at its place; one error.
func FuzzOpenChunk(f *testing.F) {
	s, err := NewStream(make([]byte, 16), make([]byte, 7))
	if err != nil {
		f.Fatal(err)
	}
	good := s.SealChunk(nil, []byte("chunk"), 3, true)
	f.Add(good, uint32(3), true)
	f.Add(good[:15], uint32(3), true)
	f.Fuzz(func(t *testing.T, b []byte, i uint32, last bool) {
		got, err := s.OpenChunk(nil, b, i, last)
		same := bytes.Equal(b, good) && i == 3 && last
		if (err == nil) != same || err != nil && !errors.Is(err, ErrChunk) || same && string(got) != "chunk" {
			t.Fatalf("%q, %v", got, err)
		}
	})
}
