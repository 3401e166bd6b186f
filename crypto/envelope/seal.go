package envelope

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"math"
	"slices"
	"time"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// Recipient is whom a slot is made for. Certificate is the encryption
// certificate, DER.
type Recipient struct {
	Agency      string
	Role        Role
	Certificate []byte
}

// File is one file to seal; its content is read once, to the end, before the
// next file is asked for.
type File struct {
	Role    string
	Name    string
	Type    string
	Content io.Reader
}

// Plan is what to seal. Routing and Document are objects in the one encoding;
// the self slot comes last among the Recipients.
type Plan struct {
	Domain     string
	ID         string
	Sender     string
	Directory  uint64
	Recipients []Recipient
	Routing    strictjson.Raw
	Document   strictjson.Raw
	Files      iter.Seq2[File, error]
}

// PutPart takes one part of ciphertext: it must read r to its end and have
// made it durable when it returns without error.
type PutPart func(ctx context.Context, index int, r io.Reader) error

// Sealed is the result: the signed header, what ParseHeader gives of it, its hash,
// the slots in the order of the header's recipients, and the subtree digest of
// each part.
type Sealed struct {
	Header   []byte
	Envelope *Envelope
	Hash     sm.Digest
	Slots    [][]byte
	Parts    []sm.Digest
	Payload  Payload
	Manifest *Manifest
}

// Seal encrypts the files and the manifest in one pass and signs the header.
// Whatever the document's size it holds at most 24 MiB, and for a document of
// less than 1 MiB about twice its size. The files are read by a goroutine of
// Seal's own, which has ended when Seal returns.
func Seal(ctx context.Context, p Plan, s cms.Signer, at time.Time, rand io.Reader, put PutPart) (*Sealed, error) {
	fileKey, salt := make([]byte, 32), sm.Digest{}
	if _, err := io.ReadFull(rand, fileKey); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(rand, salt[:]); err != nil {
		return nil, err
	}
	sec, err := derive(fileKey, salt, p.ID, p.Sender)
	if err != nil {
		return nil, err
	}
	out := new(Sealed)
	h := Header{
		Type: headerType, V: 1, Domain: p.Domain, ID: p.ID, Directory: p.Directory, Sender: p.Sender,
		Routing: p.Routing, Salt: salt, Commitment: sec.commitment,
	}
	if h.Recipients, out.Slots, err = makeSlots(rand, p.Recipients, fileKey); err != nil {
		return nil, err
	}
	plain := newPlaintext(&p)
	defer plain.stop()
	if err := out.seal(ctx, sec.stream, plain, put); err != nil {
		return nil, err
	}
	out.Payload.Manifest, out.Manifest = plain.offset, plain.manifest
	leaves, err := plain.manifest.leaves(sec)
	if err != nil {
		return nil, err
	}
	if h.Fields, err = commitFields(leaves); err != nil {
		return nil, err
	}
	h.Payload = out.Payload
	return out, out.sign(&h, s, at)
}

func encryptionKey(der []byte) (*ecdsa.PublicKey, error) {
	cert, err := cms.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	pub, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != sm.Curve() {
		return nil, errors.New("not an SM2 certificate")
	}
	if cert.KeyUsage&(smx509.KeyUsageKeyEncipherment|smx509.KeyUsageDataEncipherment) == 0 {
		return nil, errors.New("not a certificate to encrypt with")
	}
	return pub, nil
}

// seal hands the ciphertext over part by part. Reading and hashing the
// plaintext, sealing and hashing the ciphertext, and the caller's writing all
// happen at once.
func (s *Sealed) seal(ctx context.Context, stream *sm.Stream, plain io.Reader, put PutPart) error {
	blocks := newPipeline(plainBlocks(plain), func(b *block) { sealBlock(stream, b) })
	defer blocks.stop()
	for i, ended := 0, false; !ended; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := &partReader{blocks: blocks, left: PartSize / blockSealed}
		if err := put(ctx, i, part); err != nil || part.err != nil {
			return errors.Join(part.err, err)
		}
		if len(part.out) > 0 || !part.ended && part.left > 0 {
			return errors.New("envelope: a part was not read to its end")
		}
		ended = part.ended
		s.Payload.Size += part.size
		s.Parts = append(s.Parts, merkle.Root(part.leaves))
	}
	s.Payload.Root = merkle.Root(s.Parts)
	return nil
}

// plainBlocks cuts the plaintext into blocks. One byte is read ahead of each,
// to know which is the last.
func plainBlocks(r io.Reader) func(*block) {
	var ahead []byte
	return func(b *block) {
		b.in = append(b.in, ahead...)
		if b.in, b.last, b.err = readUpTo(r, b.in, blockPlain-len(b.in)); b.last || b.err != nil {
			return
		}
		ahead, b.last, b.err = readUpTo(r, ahead[:0], 1)
		b.last = b.last && len(ahead) == 0
	}
}

func sealBlock(stream *sm.Stream, b *block) {
	b.out = slices.Grow(b.out, len(b.in)+sm.Overhead*blockChunks)
	for i, in := b.index*blockChunks, b.in; ; i++ {
		if i > math.MaxUint32 {
			b.err = fmt.Errorf("%w: a payload has at most 2^32 chunks", ErrInvalid)
			return
		}
		n := min(len(in), sm.ChunkPlain)
		last := n == len(in)
		b.out = stream.SealChunk(b.out, in[:n], uint32(i), last && b.last)
		if in = in[n:]; last {
			break
		}
	}
	b.leaf = merkle.LeafHash(b.out)
}

// partReader reads the blocks of one part.
type partReader struct {
	blocks *pipeline
	left   int // blocks that still fit
	out    []byte
	leaves []sm.Digest
	size   int64
	ended  bool
	err    error // remembered, should the reader not pass it on
}

func (p *partReader) Read(b []byte) (int, error) {
	if len(p.out) == 0 {
		if p.err != nil {
			return 0, p.err
		}
		if p.ended || p.left == 0 {
			return 0, io.EOF
		}
		next := p.blocks.next()
		if p.err = next.err; p.err != nil {
			return 0, p.err
		}
		p.out, p.ended, p.left = next.out, next.last, p.left-1
		p.leaves = append(p.leaves, next.leaf)
		p.size += int64(len(p.out))
	}
	n := copy(b, p.out)
	p.out = p.out[n:]
	return n, nil
}

func (s *Sealed) sign(h *Header, signer cms.Signer, at time.Time) error {
	if err := h.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	content, err := strictjson.Marshal(h)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	signed, der, err := cms.Make(signer, content, at)
	if err != nil {
		return err
	}
	s.Header = der
	if len(s.Header) > MaxHeader {
		return fmt.Errorf("%w: a header of %d bytes, at most %d are possible", ErrInvalid, len(s.Header), MaxHeader)
	}
	s.Hash = signed.ID()
	s.Envelope = &Envelope{Header: *h, Hash: s.Hash, signed: signed}
	return nil
}

// plaintext is the files, one after the other, and the manifest behind them.
type plaintext struct {
	plan     *Plan
	next     func() (File, error, bool)
	stop     func()
	manifest *Manifest
	offset   int64 // plaintext bytes of the files read so far
	r        io.Reader
	sum      hash.Hash
	size     int64
	tail     bool
}

func newPlaintext(p *Plan) *plaintext {
	t := &plaintext{plan: p, manifest: &Manifest{
		Type: manifestType, V: 1, Domain: p.Domain, Envelope: p.ID, Document: p.Document, Files: []FileInfo{},
	}}
	t.next, t.stop = iter.Pull2(p.Files)
	return t
}

func (t *plaintext) Read(b []byte) (int, error) {
	for {
		if t.r == nil {
			if t.tail {
				return 0, io.EOF
			}
			if err := t.advance(); err != nil {
				return 0, err
			}
		}
		n, err := t.r.Read(b)
		if !t.tail {
			t.sum.Write(b[:n])
			t.size += int64(n)
		}
		if err == io.EOF { // only the bare value is an end; a wrapped one is a fault of the source
			err = t.endFile()
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// advance begins the next file or, behind the last, the manifest.
func (t *plaintext) advance() error {
	f, err, more := t.next()
	if err != nil {
		return err
	}
	if !more {
		return t.beginManifest()
	}
	i := len(t.manifest.Files)
	if i == MaxFiles {
		return fmt.Errorf("%w: more than %d files", ErrInvalid, MaxFiles)
	}
	if (i == 0) != (f.Role == RoleBody) || i > 0 && f.Role != RoleAttachment {
		return ErrNoBody
	}
	if err := checkName(i, f.Name, f.Type); err != nil {
		return err
	}
	t.manifest.Files = append(t.manifest.Files, FileInfo{Role: f.Role, Name: f.Name, Type: f.Type})
	t.r, t.sum, t.size = f.Content, sm.New(), 0
	return nil
}

func (t *plaintext) endFile() error {
	t.r = nil
	if t.tail {
		return nil
	}
	i := len(t.manifest.Files) - 1
	if t.size == 0 {
		return fmt.Errorf("%w: file %d", ErrEmptyFile, i)
	}
	t.manifest.Files[i].Size = t.size
	t.sum.Sum(t.manifest.Files[i].SM3[:0])
	t.offset += t.size
	return nil
}

func (t *plaintext) beginManifest() error {
	if len(t.manifest.Files) == 0 {
		return ErrNoBody
	}
	b, err := strictjson.Marshal(t.manifest)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if len(b) > MaxManifest {
		return fmt.Errorf("%w: a manifest of %d bytes, at most %d are possible", ErrInvalid, len(b), MaxManifest)
	}
	t.r, t.tail = bytes.NewReader(b), true
	return nil
}
