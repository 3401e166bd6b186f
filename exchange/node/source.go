package node

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// source reads an envelope's ciphertext as one stream over its parts, opening
// one part at a time.
type source struct {
	n  *Node
	hh sm.Digest
}

// OpenAt implements envelope.Source.
func (s source) OpenAt(ctx context.Context, off int64) (io.ReadCloser, error) {
	return &partsReader{ctx: ctx, s: s, part: int(off / envelope.PartSize), off: off % envelope.PartSize}, nil
}

type partsReader struct {
	ctx  context.Context
	s    source
	part int
	off  int64
	r    io.ReadCloser
}

func (p *partsReader) Read(b []byte) (int, error) {
	for {
		if p.r == nil {
			r, err := p.s.n.openPart(p.ctx, p.s.hh, p.part, p.off)
			if err != nil {
				return 0, err
			}
			if r == nil {
				return 0, io.EOF
			}
			p.r = r
		}
		n, err := p.r.Read(b)
		if errors.Is(err, io.EOF) {
			err = p.advance()
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (p *partsReader) advance() error {
	err := p.r.Close()
	p.r, p.part, p.off = nil, p.part+1, 0
	return err
}

func (p *partsReader) Close() error {
	if p.r == nil {
		return nil
	}
	return p.r.Close()
}

// inMemory is an envelope's ciphertext that was verified and lies in memory.
type inMemory []byte

// OpenAt implements envelope.Source.
func (b inMemory) OpenAt(_ context.Context, off int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(b[min(off, int64(len(b))):])), nil
}

// errDamaged: what is stored is not what came.
var errDamaged = errors.New("node: the stored copy is damaged")

// openPart opens one stored part; nil when the envelope has no such part.
func (n *Node) openPart(ctx context.Context, hh sm.Digest, i int, off int64) (io.ReadCloser, error) {
	var part *records.Part
	err := n.view(ctx, func(tx queue.Tx) (err error) {
		part, err = records.Parts.Get(tx, hh, uint64(i))
		return err
	})
	if err != nil || part == nil {
		return nil, err
	}
	return n.c.Blobs.Open(ctx, part.Ref, off)
}

// Referenced says whether anything in the store still needs a blob. The
// sweep of the blob store asks it about blobs of earlier process starts.
func (n *Node) Referenced(ctx context.Context, ref queue.Ref) (bool, error) {
	needed := false
	err := n.view(ctx, func(tx queue.Tx) error {
		owner, err := records.BlobOwners.Get(tx, string(ref))
		if owner == nil || err != nil {
			return err
		}
		env, err := records.Envelopes.Get(tx, owner.Envelope)
		needed = env != nil
		return err
	})
	return needed, err
}

func (n *Node) open(ctx context.Context, e *envelope.Envelope, i int, slot []byte) (*envelope.Opened, error) {
	return n.openFrom(ctx, e, i, slot, source{n, e.Hash})
}

// openFrom is open with the ciphertext from elsewhere.
func (n *Node) openFrom(ctx context.Context, e *envelope.Envelope, i int, slot []byte, from envelope.Source) (*envelope.Opened, error) {
	var opened *envelope.Opened
	err := n.unwrapping(e, i, func(unwrap func([]byte) ([]byte, error)) (err error) {
		opened, err = envelope.Open(ctx, e, unwrap, slot, from)
		return err
	})
	if !errors.Is(err, envelope.ErrOpen) {
		return opened, err
	}
	// The bytes were verified when they came. If they no longer are what they
	// were, it is our disk that fails, and nobody else is told otherwise.
	if damage := n.stillStored(ctx, e, from); damage != nil {
		return nil, damage
	}
	return nil, err
}

// stillStored compares the stored payload with its header once more.
func (n *Node) stillStored(ctx context.Context, e *envelope.Envelope, from envelope.Source) error {
	if envelope.VerifyPayload(ctx, e, from) == nil {
		return nil
	}
	return &exchange.Error{Code: exchange.CodeTemporary, Temporary: true, Detail: "stored payload of " + e.Hash.String() + " is damaged", Err: errDamaged}
}

// unlocks says whether a slot opens an envelope that another slot has opened.
func (n *Node) unlocks(e *envelope.Envelope, i int, slot []byte) error {
	return n.unwrapping(e, i, func(unwrap func([]byte) ([]byte, error)) error {
		return envelope.Unlocks(e, unwrap, slot)
	})
}

// unwrapping runs fn with the key of recipient i; trouble with the key itself
// goes before whatever fn makes of it.
func (n *Node) unwrapping(e *envelope.Envelope, i int, fn func(func([]byte) ([]byte, error)) error) error {
	var trouble error
	err := fn(func(sealed []byte) ([]byte, error) {
		plain, err := n.unwrapFor(e.Header.Recipients[i], sealed)
		if err != nil && !errors.Is(err, sm.ErrDecrypt) {
			trouble = err
		}
		return plain, err
	})
	if trouble != nil {
		return trouble
	}
	return err
}

func (n *Node) unwrapFor(slot envelope.Slot, sealed []byte) ([]byte, error) {
	if slot.Role == envelope.RoleInspection && slot.Agency == n.c.ID {
		return n.UnwrapNode(sealed)
	}
	id, ok := n.encryptionKey(slot)
	if !ok {
		return nil, sm.ErrDecrypt
	}
	return n.c.Keys.Unwrap(id, sealed)
}

// encryptionKey finds the private key that a slot was made for, if it is here.
func (n *Node) encryptionKey(slot envelope.Slot) (sm.Digest, bool) {
	agency, ok := n.Directory().Agency(slot.Agency)
	if !ok {
		return sm.Digest{}, false
	}
	for _, c := range agency.Certificates {
		if c.Use == "encrypt" && cms.CertificateDigest(c.DER) == slot.Certificate {
			return c.KeyID, n.c.Keys.Has(c.KeyID)
		}
	}
	return sm.Digest{}, false
}
