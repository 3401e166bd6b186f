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

func pattern(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

// TestBlocksComeInOrder seals and opens sizes around every border: of a chunk,
// of a block that one worker takes, of a part.
func TestBlocksComeInOrder(t *testing.T) {
	for _, n := range []int{1, sm.ChunkPlain, blockPlain - 1, blockPlain, blockPlain + 1, 8 * blockPlain, 20*blockPlain + 77} {
		body := pattern(n)
		c := sealCase(t, fileSpec{RoleBody, "a.ofd", body}, fileSpec{RoleAttachment, "b.ofd", []byte("b")})
		if err := VerifyPayload(t.Context(), c.e, c.m); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		o, err := c.open(t, c.e, c.yi, 0)
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		for i, want := range [][]byte{body, []byte("b")} {
			r, err := o.File(t.Context(), i)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(iotest.HalfReader(r))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, file %d: %d bytes, %v", n, i, len(got), err)
			}
			if err := errors.Join(r.Close(), r.Close()); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestFaultsOfTheSourceAreNoEnd: a broken upload must not become a shorter
// document, whatever error it breaks with.
func TestFaultsOfTheSourceAreNoEnd(t *testing.T) {
	for _, fault := range []error{io.ErrUnexpectedEOF, errors.New("broken")} {
		for _, n := range []int{0, 10, blockPlain, blockPlain + 1, 9*blockPlain + 10} {
			sender := newParty(t, 1)
			broken := io.MultiReader(bytes.NewReader(make([]byte, n)), iotest.ErrReader(fault))
			seq := func(yield func(File, error) bool) {
				yield(File{Role: RoleBody, Name: "a", Type: "application/ofd", Content: broken}, nil)
			}
			_, err := Seal(t.Context(), plan(sender, seq, newParty(t, 2)), sender, when, sender.rand, new(memory).put)
			if !errors.Is(err, fault) {
				t.Errorf("%v after %d bytes: %v", fault, n, err)
			}
		}
	}
}

// TestSealEndsWithItsCaller: when a part cannot be stored, or the caller reads
// no further, nothing goes on reading the files.
func TestSealEndsWithItsCaller(t *testing.T) {
	full := errors.New("disk full")
	for name, put := range map[string]PutPart{
		"fails": func(context.Context, int, io.Reader) error { return full },
		"fails late": func(_ context.Context, _ int, r io.Reader) error {
			_, err := io.CopyN(io.Discard, r, blockSealed)
			return errors.Join(err, full)
		},
		"reads short": func(_ context.Context, _ int, r io.Reader) error { _, err := io.CopyN(io.Discard, r, 5); return err },
	} {
		source := &counted{r: zeros{}}
		seq := func(yield func(File, error) bool) {
			yield(File{Role: RoleBody, Name: "a", Type: "application/ofd", Content: source}, nil)
		}
		sender := newParty(t, 1)
		if _, err := Seal(t.Context(), plan(sender, seq, newParty(t, 2)), sender, when, sender.rand, put); err == nil {
			t.Errorf("%s: sealed", name)
		}
		// The race detector sees whoever reads on.
		if source.n > (maxBlocks+2)*blockPlain {
			t.Errorf("%s: %d bytes were read", name, source.n)
		}
	}
}

type counted struct {
	r io.Reader
	n int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}
