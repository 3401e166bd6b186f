package bench

import (
	"crypto/rand"
	"errors"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// The names of the primitives. Bytes are counted of those that say so.
const (
	opSM3    = "SM3 (B)"
	opSeal   = "SM4-GCM encryption (B)"
	opOpen   = "SM4-GCM decryption (B)"
	opSign   = "SM2 sign"
	opVerify = "SM2 verify"
	opWrap   = "SM2 encrypt"
	opUnwrap = "SM2 decrypt"
	// One after the other, because each finds the caches full of the other's
	// data: their stand-alone times add up to less than anybody can reach.
	opHSMSign   = "AES-256-GCM decryption of a key file in the token, then SM2 sign with a key used once"
	opHSMUnwrap = "AES-256-GCM decryption of a key file in the token, then SM2 decrypt with a key used once"
)

const bulkPiece = 1 << 20

// primitives are the algorithms alone, with keys and buffers at hand.
func primitives() (map[string]primitive, error) {
	key, err := sm.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	stream, err := sm.NewStream(make([]byte, 16), make([]byte, 7))
	if err != nil {
		return nil, err
	}
	bulk, chunk := make([]byte, bulkPiece), make([]byte, sm.ChunkPlain)
	sealed := stream.SealChunk(nil, chunk, 0, false)
	msg, fileKey := make([]byte, 256), make([]byte, 32)
	sig, err := sm.Sign(rand.Reader, key, msg)
	if err != nil {
		return nil, err
	}
	slot, err := sm.Encrypt(rand.Reader, &key.PublicKey, fileKey)
	if err != nil {
		return nil, err
	}
	return map[string]primitive{
		opSM3: {bulkPiece, func() error { sm.Sum(bulk); return nil }},
		opSeal: {sm.ChunkPlain, func() error {
			stream.SealChunk(make([]byte, 0, sm.ChunkSealed), chunk, 0, false)
			return nil
		}},
		opOpen: {sm.ChunkPlain, func() error {
			_, err := stream.OpenChunk(make([]byte, 0, sm.ChunkSealed), sealed, 0, false)
			return err
		}},
		opSign:   {1, func() error { _, err := sm.Sign(rand.Reader, key, msg); return err }},
		opVerify: {1, func() error { return must(sm.Verify(&key.PublicKey, msg, sig)) }},
		opWrap:   {1, func() error { _, err := sm.Encrypt(rand.Reader, &key.PublicKey, fileKey); return err }},
		opUnwrap: {1, func() error { _, err := sm.Decrypt(key, slot); return err }},
	}, nil
}

func must(ok bool) error {
	if !ok {
		return errors.New("bench: a signature does not verify")
	}
	return nil
}
