package envelope

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

func random(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// TestAt: a file reads the same at any place, whatever was read before.
func TestAt(t *testing.T) {
	for _, sizes := range [][]int{{1, 1}, {100, 70_000}, {sm.ChunkPlain, sm.ChunkPlain}, {3 * atChunks * sm.ChunkPlain, 1, (atBlocks + 3) * atChunks * sm.ChunkPlain}} {
		var list []fileSpec
		for i, n := range sizes {
			role := RoleAttachment
			if i == 0 {
				role = RoleBody
			}
			list = append(list, fileSpec{role, string(rune('a' + i)), random(byte(i), n)})
		}
		c := sealCase(t, list...)
		o, err := Open(t.Context(), c.e, c.yi.unwrap, c.s.Slots[0], c.m)
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range list {
			at, err := o.At(t.Context(), i)
			if err != nil {
				t.Fatal(err)
			}
			if err := iotest.TestReader(io.NewSectionReader(at, 0, int64(len(f.content))), f.content); len(f.content) < 1<<20 && err != nil {
				t.Errorf("file %d of %v: %v", i, sizes, err)
			}
			r := rand.New(rand.NewPCG(1, 2))
			for range 200 {
				off, n := r.IntN(len(f.content)+1), r.IntN(200_000)
				b := make([]byte, n)
				got, err := at.ReadAt(b, int64(off))
				want := f.content[off:min(off+n, len(f.content))]
				if !bytes.Equal(b[:got], want) || (got < n) != errors.Is(err, io.EOF) || got == n && err != nil && !errors.Is(err, io.EOF) {
					t.Fatalf("file %d of %v, %d bytes at %d: %d, %v", i, sizes, n, off, got, err)
				}
			}
			if f, big := at.(*fileAt); big && len(f.kept) > atBlocks {
				t.Errorf("%d blocks are kept", len(f.kept))
			}
		}
		if _, err := o.At(t.Context(), len(list)); err == nil {
			t.Error("a file that is not there")
		}
	}
}

// TestAtTellsDamage: what does not open is ErrOpen, and trouble with the source is
// the source's.
func TestAtTellsDamage(t *testing.T) {
	c := sealCase(t, fileSpec{RoleBody, "a", random(1, 20*sm.ChunkPlain)})
	o, err := Open(t.Context(), c.e, c.yi.unwrap, c.s.Slots[0], c.m)
	if err != nil {
		t.Fatal(err)
	}
	at, err := o.At(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	c.m.parts[0][5*sm.ChunkSealed+7] ^= 1
	b := make([]byte, 10)
	if _, err := at.ReadAt(b, 0); err != nil {
		t.Errorf("before it: %v", err)
	}
	if _, err := at.ReadAt(b, 5*sm.ChunkPlain); !errors.Is(err, ErrOpen) {
		t.Errorf("there: %v", err)
	}
	away := errors.New("away")
	o.src = failingSource{away}
	if _, err := at.ReadAt(b, 12*sm.ChunkPlain); !errors.Is(err, away) {
		t.Errorf("a source that fails: %v", err)
	}
}

type failingSource struct{ err error }

func (f failingSource) OpenAt(context.Context, int64) (io.ReadCloser, error) { return nil, f.err }

// TestInspectionPointsAreNodes: a slot for inspection may name a node, and opens
// like any other; no other slot may.
func TestInspectionPointsAreNodes(t *testing.T) {
	jia, yi, point := newParty(t, 1), newParty(t, 2), newParty(t, 3)
	for role, good := range map[Role]bool{RoleInspection: true, RoleRecipient: false} {
		m := new(memory)
		p := plan(jia, files(fileSpec{RoleBody, "a", []byte("body")}), yi)
		p.Recipients = append([]Recipient{{"yi-gate", role, point.encryptCert}}, p.Recipients...)
		s, err := Seal(t.Context(), p, jia, when, rand.NewChaCha8([32]byte{9}), m.put)
		var e *Envelope
		if err == nil {
			e, err = ParseHeader(s.Header)
		}
		if (err == nil) != good {
			t.Fatalf("%s: %v", role, err)
		}
		if !good {
			continue
		}
		if _, err := Open(t.Context(), e, point.unwrap, s.Slots[0], m); err != nil {
			t.Error(err)
		}
	}
}
