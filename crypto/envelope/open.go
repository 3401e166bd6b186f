package envelope

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// Source gives the stored ciphertext, all parts as one stream, from an offset.
type Source interface {
	OpenAt(ctx context.Context, off int64) (io.ReadCloser, error)
}

// VerifyPayload reads the whole ciphertext and compares it with the header.
func VerifyPayload(ctx context.Context, e *Envelope, src Source) error {
	r, err := src.OpenAt(ctx, 0)
	if err != nil {
		return err
	}
	defer r.Close()
	tree := merkle.NewPayloadHash()
	n, err := io.Copy(tree, io.LimitReader(r, e.Header.Payload.Size+1))
	if err != nil {
		return err
	}
	if n != e.Header.Payload.Size || tree.Sum() != e.Header.Payload.Root {
		return fmt.Errorf("%w: the payload is not the one the header names", ErrMalformed)
	}
	return nil
}

// Opened is an envelope that one key opens. Its slot, key commitment, last
// chunk and manifest are right; files may be streamed.
type Opened struct {
	Manifest *Manifest

	sec   *secrets
	src   Source
	size  int64 // ciphertext
	plain int64
	ends  []int64 // where each file ends in the plaintext
}

// Open opens an envelope with one slot. The stored ciphertext must have been
// verified against the header's tree before (on arrival, or by
// VerifyPayload). Whatever is wrong with slot, key or payload, the error is
// ErrOpen; another error is the source's own.
func Open(ctx context.Context, e *Envelope, unwrap func(slot []byte) ([]byte, error), slot []byte, src Source) (*Opened, error) {
	fileKey, err := unwrap(slot)
	if err != nil || len(fileKey) != 32 {
		return nil, ErrOpen
	}
	sec, err := derive(fileKey, e.Header.Salt, e.Header.ID, e.Header.Sender)
	if err != nil || !sm.Equal(sec.commitment, e.Header.Commitment) {
		return nil, ErrOpen
	}
	plain, err := sm.PlainSize(e.Header.Payload.Size)
	if err != nil {
		return nil, ErrOpen
	}
	o := &Opened{sec: sec, src: src, size: e.Header.Payload.Size, plain: plain}
	return o, o.openManifest(ctx, e)
}

// openManifest reads the end of the payload: its last chunk must open as the
// last, and the manifest must fit what lies before it.
func (o *Opened) openManifest(ctx context.Context, e *Envelope) error {
	from := e.Header.Payload.Manifest
	r, err := o.read(ctx, from, o.plain-from)
	if err != nil {
		return err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	m, err := parseManifest(b)
	if err != nil || m.Envelope != e.Header.ID || m.Domain != e.Header.Domain {
		return ErrOpen
	}
	end := int64(0)
	for _, f := range m.Files {
		if f.Size > from-end {
			return ErrOpen
		}
		end += f.Size
		o.ends = append(o.ends, end)
	}
	if end != from {
		return ErrOpen
	}
	o.Manifest = m
	leaves, err := m.leaves(o.sec)
	if err != nil || VerifyDisclosure(&e.Header, leaves) != nil {
		return ErrOpen
	}
	return nil
}

// File streams file i. Length and SM3 are checked at the end: in place of
// io.EOF comes ErrOpen when they are not what the manifest says, and what was
// read before must then be thrown away.
func (o *Opened) File(ctx context.Context, i int) (io.ReadCloser, error) {
	if i < 0 || i >= len(o.ends) {
		return nil, fmt.Errorf("envelope: there is no file %d", i)
	}
	info := o.Manifest.Files[i]
	r, err := o.read(ctx, o.ends[i]-info.Size, info.Size)
	if err != nil {
		return nil, err
	}
	return &fileReader{r: r, sum: sm.New(), want: info.SM3}, nil
}

// Disclose gives every field and file with its salt.
func (o *Opened) Disclose() ([]Leaf, error) { return o.Manifest.leaves(o.sec) }

type fileReader struct {
	r    io.ReadCloser
	sum  hash.Hash
	want sm.Digest
}

func (f *fileReader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	f.sum.Write(p[:n])
	if errors.Is(err, io.EOF) && sm.Digest(f.sum.Sum(nil)) != f.want {
		err = ErrOpen
	}
	return n, err
}

func (f *fileReader) Close() error { return f.r.Close() }

// read streams n bytes of plaintext from an offset, opening chunk by chunk.
func (o *Opened) read(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	chunk := off / sm.ChunkPlain
	r, err := o.src.OpenAt(ctx, chunk*sm.ChunkSealed)
	if err != nil {
		return nil, err
	}
	return &chunkReader{o: o, r: r, chunk: chunk, skip: off % sm.ChunkPlain, left: n}, nil
}

type chunkReader struct {
	o      *Opened
	r      io.ReadCloser
	chunk  int64
	skip   int64
	left   int64
	sealed []byte
	plain  []byte // all of the chunk
	out    []byte // what of it is still to be given
}

func (c *chunkReader) Read(p []byte) (int, error) {
	for len(c.out) == 0 {
		if c.left == 0 {
			return 0, io.EOF
		}
		if err := c.step(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.out[:min(int64(len(c.out)), c.left)])
	c.out = c.out[n:]
	if c.left -= int64(n); c.left == 0 {
		c.out = nil
	}
	return n, nil
}

func (c *chunkReader) step() error {
	length := min(sm.ChunkSealed, c.o.size-c.chunk*sm.ChunkSealed)
	if length < sm.Overhead {
		return ErrOpen
	}
	if c.sealed == nil {
		c.sealed = make([]byte, sm.ChunkSealed)
	}
	if _, err := io.ReadFull(c.r, c.sealed[:length]); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrOpen
	} else if err != nil {
		return err
	}
	last := (c.chunk+1)*sm.ChunkSealed >= c.o.size
	plain, err := c.o.sec.stream.OpenChunk(c.plain[:0], c.sealed[:length], uint32(c.chunk), last)
	if err != nil {
		return ErrOpen
	}
	c.plain, c.out = plain, plain[min(c.skip, int64(len(plain))):]
	c.skip, c.chunk = 0, c.chunk+1
	return nil
}

func (c *chunkReader) Close() error { return c.r.Close() }

// detail is a small sealed object for one certificate.
type detail struct {
	Type  string   `json:"type"`
	V     int      `json:"v"`
	Crit  []string `json:"crit,omitempty"`
	Key   []byte   `json:"key"`
	Box   []byte   `json:"box"`
	Extra strictjson.Extra
}

const (
	detailType = "yizhan-detail"
	maxDetail  = 16 << 10
)

// SealDetail seals up to 16 KiB to an encryption certificate (DER), bound to
// a context.
func SealDetail(rand io.Reader, cert, context, plain []byte) ([]byte, error) {
	if len(plain) > maxDetail {
		return nil, fmt.Errorf("%w: a detail of %d bytes, at most %d are possible", ErrInvalid, len(plain), maxDetail)
	}
	pub, err := encryptionKey(cert)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	key := make([]byte, 32)
	if _, err := io.ReadFull(rand, key); err != nil {
		return nil, err
	}
	d := detail{Type: detailType, V: 1}
	if d.Key, err = sm.Encrypt(rand, pub, key); err != nil {
		return nil, err
	}
	material := detailSecrets(key, context)
	aead, err := sm.NewGCM(material[:16])
	if err != nil {
		return nil, err
	}
	d.Box = aead.Seal(nil, material[16:], plain, context)
	return strictjson.Marshal(&d)
}

func detailSecrets(key, context []byte) []byte {
	return sm.HKDF(key, nil, append([]byte("yizhan/v1/detail"), context...), 16+12)
}

// OpenDetail is the reverse of SealDetail; every failure is ErrOpen.
func OpenDetail(unwrap func([]byte) ([]byte, error), context, sealed []byte) ([]byte, error) {
	var d detail
	if len(sealed) > 2*maxDetail || strictjson.Unmarshal(sealed, &d) != nil || d.Type != detailType || d.V != 1 {
		return nil, ErrOpen
	}
	key, err := unwrap(d.Key)
	if err != nil || len(key) != 32 {
		return nil, ErrOpen
	}
	material := detailSecrets(key, context)
	aead, err := sm.NewGCM(material[:16])
	if err != nil {
		return nil, ErrOpen
	}
	plain, err := aead.Open(nil, material[16:], d.Box, context)
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}
