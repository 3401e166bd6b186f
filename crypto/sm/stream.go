package sm

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
)

// The STREAM construction over SM4-GCM: the plaintext is cut into chunks, each
// sealed under the nonce prefix ‖ u32 counter ‖ last flag. Order, number and
// end of the chunks are therefore authenticated, and any chunk can be opened
// alone. An empty plaintext is one empty last chunk.
const (
	ChunkPlain  = 65520
	Overhead    = 16
	ChunkSealed = ChunkPlain + Overhead // 64 KiB
	prefixSize  = 7
)

// ErrChunk is the one error of OpenChunk.
var ErrChunk = errors.New("sm: chunk does not open")

// Stream seals and opens the chunks of one payload. A key and prefix must
// never seal two different payloads. Safe for concurrent use.
type Stream struct {
	aead   cipher.AEAD
	prefix [prefixSize]byte
}

// NewStream takes a 16-byte key and a 7-byte nonce prefix.
func NewStream(key, prefix []byte) (*Stream, error) {
	if len(prefix) != prefixSize {
		return nil, fmt.Errorf("sm: the nonce prefix has %d bytes, got %d", prefixSize, len(prefix))
	}
	aead, err := NewGCM(key)
	if err != nil {
		return nil, err
	}
	s := &Stream{aead: aead}
	copy(s.prefix[:], prefix)
	return s, nil
}

func (s *Stream) nonce(i uint32, last bool) []byte {
	var n [12]byte
	copy(n[:], s.prefix[:])
	binary.BigEndian.PutUint32(n[prefixSize:], i)
	if last {
		n[11] = 1
	}
	return n[:]
}

// SealChunk appends sealed chunk i to dst. All chunks but the last hold
// exactly ChunkPlain bytes.
func (s *Stream) SealChunk(dst, plain []byte, i uint32, last bool) []byte {
	return s.aead.Seal(dst, s.nonce(i, last), plain, nil)
}

// OpenChunk appends the plaintext of chunk i to dst.
func (s *Stream) OpenChunk(dst, sealed []byte, i uint32, last bool) ([]byte, error) {
	if len(sealed) > ChunkSealed || !last && len(sealed) != ChunkSealed {
		return nil, ErrChunk
	}
	out, err := s.aead.Open(dst, s.nonce(i, last), sealed, nil)
	if err != nil {
		return nil, ErrChunk
	}
	return out, nil
}

// SealedSize is the ciphertext length of a plaintext of this length.
func SealedSize(plain int64) int64 {
	chunks := max(1, (plain+ChunkPlain-1)/ChunkPlain)
	return plain + chunks*Overhead
}

// PlainSize is the reverse; lengths that no plaintext gives are refused.
func PlainSize(sealed int64) (int64, error) {
	chunks := (sealed + ChunkSealed - 1) / ChunkSealed
	plain := sealed - chunks*Overhead
	if sealed < Overhead || plain < 0 || SealedSize(plain) != sealed {
		return 0, fmt.Errorf("sm: %d bytes are no length of a sealed payload", sealed)
	}
	return plain, nil
}
