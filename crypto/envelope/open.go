package envelope

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

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
	limited := io.LimitReader(r, e.Header.Payload.Size+1)
	blocks := newPipeline(
		func(b *block) { b.in, b.last, b.err = readUpTo(limited, b.in, blockSealed) },
		func(b *block) { b.leaf = merkle.LeafHash(b.in) },
	)
	defer blocks.stop()
	var leaves []sm.Digest
	size := int64(0)
	for last := false; !last; {
		b := blocks.next()
		if b.err != nil {
			return b.err
		}
		if last = b.last; len(b.in) > 0 {
			leaves = append(leaves, b.leaf)
		}
		size += int64(len(b.in))
	}
	if size != e.Header.Payload.Size || merkle.Root(leaves) != e.Header.Payload.Root {
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
	whole []byte  // the files of a payload of one chunk, which is opened once
}

// Open opens an envelope with one slot. The stored ciphertext must have been
// verified against the header's tree before (on arrival, or by
// VerifyPayload). Whatever is wrong with slot, key or payload, the error is
// ErrOpen; another error is the source's own.
func Open(ctx context.Context, e *Envelope, unwrap func(slot []byte) ([]byte, error), slot []byte, src Source) (*Opened, error) {
	sec, err := unlock(e, unwrap, slot)
	if err != nil {
		return nil, err
	}
	plain, err := sm.PlainSize(e.Header.Payload.Size)
	if err != nil {
		return nil, ErrOpen
	}
	o := &Opened{sec: sec, src: src, size: e.Header.Payload.Size, plain: plain}
	return o, o.openManifest(ctx, e)
}

// Unlocks says whether a slot holds the envelope's file key: what is left to
// check for a further recipient when Open has succeeded for one, since the key
// commitment admits one key only. The error is ErrOpen.
func Unlocks(e *Envelope, unwrap func(slot []byte) ([]byte, error), slot []byte) error {
	_, err := unlock(e, unwrap, slot)
	return err
}

func unlock(e *Envelope, unwrap func(slot []byte) ([]byte, error), slot []byte) (*secrets, error) {
	fileKey, err := unwrap(slot)
	if err != nil || len(fileKey) != 32 {
		return nil, ErrOpen
	}
	sec, err := derive(fileKey, e.Header.Salt, e.Header.ID, e.Header.Sender)
	if err != nil || !sm.Equal(sec.commitment, e.Header.Commitment) {
		return nil, ErrOpen
	}
	return sec, nil
}

// openManifest reads the end of the payload: its last chunk must open as the
// last, and the manifest must fit what lies before it.
func (o *Opened) openManifest(ctx context.Context, e *Envelope) error {
	from, skip := e.Header.Payload.Manifest, int64(0)
	if o.plain <= sm.ChunkPlain {
		skip = from // the files lie in the same chunk
	}
	r, err := o.read(ctx, from-skip, o.plain-from+skip)
	if err != nil {
		return err
	}
	defer r.Close()
	b := make([]byte, o.plain-from+skip) // at most a chunk or MaxManifest
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	o.whole, b = b[:skip], b[skip:]
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

// File streams file i. Length and SM3 are checked at the end: in place of the
// last bytes comes ErrOpen when they are not what the manifest says, and what
// was read before must then be thrown away.
func (o *Opened) File(ctx context.Context, i int) (io.ReadCloser, error) {
	r, err := o.Section(ctx, i, 0)
	if err != nil {
		return nil, err
	}
	info := o.Manifest.Files[i]
	return &fileReader{r: r, left: info.Size, sum: sm.New(), want: info.SM3}, nil
}

// Section streams file i from an offset to its end. Each chunk is opened in
// its place, and no other is; the file's SM3 says nothing about a section.
func (o *Opened) Section(ctx context.Context, i int, off int64) (io.ReadCloser, error) {
	if i < 0 || i >= len(o.ends) {
		return nil, fmt.Errorf("envelope: there is no file %d", i)
	}
	size := o.Manifest.Files[i].Size
	if off < 0 || off > size {
		return nil, fmt.Errorf("envelope: file %d has no byte %d", i, off)
	}
	from := o.ends[i] - size + off
	if len(o.whole) > 0 {
		return io.NopCloser(bytes.NewReader(o.whole[from:o.ends[i]])), nil
	}
	return o.read(ctx, from, size-off)
}

// Disclose gives every field and file with its salt.
func (o *Opened) Disclose() ([]Leaf, error) { return o.Manifest.leaves(o.sec) }

type fileReader struct {
	r    io.ReadCloser
	left int64
	sum  hash.Hash
	want sm.Digest
}

func (f *fileReader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	f.sum.Write(p[:n])
	f.left -= int64(n)
	if (f.left <= 0 || errors.Is(err, io.EOF)) && sm.Digest(f.sum.Sum(nil)) != f.want {
		return 0, ErrOpen
	}
	return n, err
}

func (f *fileReader) Close() error { return f.r.Close() }

// read streams n bytes of plaintext from an offset. No byte is given before
// its chunk and all before it have opened.
func (o *Opened) read(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	first := off / sm.ChunkPlain
	r, err := o.src.OpenAt(ctx, first*sm.ChunkSealed)
	if err != nil {
		return nil, err
	}
	end := min(o.size, ((off+n-1)/sm.ChunkPlain+1)*sm.ChunkSealed)
	s := &sealedBlocks{o: o, r: r, first: first, left: end - first*sm.ChunkSealed}
	return &plainReader{r: r, blocks: newPipeline(s.fill, s.open), skip: off % sm.ChunkPlain, left: n}, nil
}

// sealedBlocks reads and opens the chunks from first on.
type sealedBlocks struct {
	o     *Opened
	r     io.Reader
	first int64
	left  int64 // bytes still to be read
}

func (s *sealedBlocks) fill(b *block) {
	want := min(s.left, blockSealed)
	b.in, _, b.err = readUpTo(s.r, b.in, int(want))
	if b.err == nil && int64(len(b.in)) < want {
		b.err = ErrOpen
	}
	s.left -= want
	b.last = s.left <= 0
}

func (s *sealedBlocks) open(b *block) {
	b.out = slices.Grow(b.out, len(b.in))
	for i, in := s.first+b.index*blockChunks, b.in; len(in) > 0; i++ {
		n := min(len(in), sm.ChunkSealed)
		last := (i+1)*sm.ChunkSealed >= s.o.size
		out, err := s.o.sec.stream.OpenChunk(b.out, in[:n], uint32(i), last)
		if err != nil { // what opened before it is good
			b.err = ErrOpen
			return
		}
		b.out = out
		in = in[n:]
	}
}

type plainReader struct {
	r      io.ReadCloser
	blocks *pipeline
	skip   int64 // bytes of the first chunk before the offset
	left   int64
	out    []byte
	err    error
}

func (p *plainReader) Read(b []byte) (int, error) {
	for len(p.out) == 0 {
		if p.err != nil {
			return 0, p.err
		}
		if p.left == 0 {
			return 0, io.EOF
		}
		next := p.blocks.next()
		if p.err = next.err; p.err == nil && next.last && int64(len(next.out))-p.skip < p.left {
			p.err = ErrOpen
		}
		p.out = next.out[min(p.skip, int64(len(next.out))):]
		p.out = p.out[:min(p.left, int64(len(p.out)))]
		p.skip = 0
		p.left -= int64(len(p.out))
	}
	n := copy(b, p.out)
	p.out = p.out[n:]
	return n, nil
}

// Close ends reading; later reads give io.ErrClosedPipe.
func (p *plainReader) Close() error {
	p.out, p.err = nil, io.ErrClosedPipe
	p.blocks.stop()
	return p.r.Close()
}

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
