package envelope

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
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

// Sealed is the result: the signed header, its hash, the slots in the order of
// the header's recipients, and the subtree digest of each part.
type Sealed struct {
	Header   []byte
	Hash     sm.Digest
	Slots    [][]byte
	Parts    []sm.Digest
	Payload  Payload
	Manifest *Manifest
}

// Seal encrypts the files and the manifest in one pass and signs the header.
// It holds about three chunks of 64 KiB whatever the document's size.
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
	if err := out.seal(ctx, sec.stream.Sealer(plain), put); err != nil {
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

func makeSlots(rand io.Reader, list []Recipient, fileKey []byte) ([]Slot, [][]byte, error) {
	var slots []Slot
	var sealed [][]byte
	for _, r := range list {
		pub, err := encryptionKey(r.Certificate)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: recipient %s: %w", ErrInvalid, r.Agency, err)
		}
		slot, err := sm.Encrypt(rand, pub, fileKey)
		if err != nil {
			return nil, nil, err
		}
		slots = append(slots, Slot{Agency: r.Agency, Role: r.Role, Certificate: sm.Sum(r.Certificate), Slot: sm.Sum(slot)})
		sealed = append(sealed, slot)
	}
	return slots, sealed, nil
}

func encryptionKey(der []byte) (*ecdsa.PublicKey, error) {
	cert, err := smx509.ParseCertificate(der)
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

// seal hands the ciphertext over part by part, hashing it on the way.
func (s *Sealed) seal(ctx context.Context, ciphertext io.Reader, put PutPart) error {
	r := bufio.NewReaderSize(ciphertext, sm.ChunkSealed)
	for i := 0; ; i++ {
		if _, err := r.Peek(1); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		tree := merkle.NewPayloadHash()
		limited := &io.LimitedReader{R: r, N: PartSize}
		part := &failing{r: io.TeeReader(limited, tree)}
		if err := put(ctx, i, part); err != nil || part.err != nil {
			return errors.Join(part.err, err)
		}
		if _, err := r.Peek(1); limited.N > 0 && !errors.Is(err, io.EOF) {
			return errors.New("envelope: a part was not read to its end")
		}
		s.Payload.Size += PartSize - limited.N
		s.Parts = append(s.Parts, tree.Sum())
		s.Payload.Root = merkle.Root(s.Parts)
	}
}

// failing remembers the error of what it reads, should the reader of it not
// pass it on.
type failing struct {
	r   io.Reader
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}

func (s *Sealed) sign(h *Header, signer cms.Signer, at time.Time) error {
	if err := h.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	content, err := strictjson.Marshal(h)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if s.Header, err = cms.Sign(signer, content, at); err != nil {
		return err
	}
	if len(s.Header) > MaxHeader {
		return fmt.Errorf("%w: a header of %d bytes, at most %d are possible", ErrInvalid, len(s.Header), MaxHeader)
	}
	s.Hash = sm.Sum(content)
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
