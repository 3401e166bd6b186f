// Package blobtest is the contract that every queue.Blobs passes.
package blobtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/yizhan-gateway/yizhan/queue"
)

// Open opens the blobs kept in dir; called again with the same dir it must
// find them.
type Open func(t *testing.T, dir string) queue.Blobs

// Run holds blobs against the contract.
func Run(t *testing.T, open Open) {
	for name, test := range map[string]func(*testing.T, Open){
		"round trip at any offset":      roundTrip,
		"atMost":                        atMost,
		"a failing source leaves none":  failingSource,
		"Delete":                        deleting,
		"foreign references":            foreign,
		"found again after reopening":   reopened,
		"concurrent":                    concurrent,
		"a cancelled context is obeyed": cancelled,
	} {
		t.Run(name, func(t *testing.T) { test(t, open) })
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

func put(t *testing.T, s queue.Blobs, b []byte) queue.Ref {
	t.Helper()
	ref, err := s.Put(t.Context(), bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func read(t *testing.T, s queue.Blobs, ref queue.Ref, off int64) []byte {
	t.Helper()
	r, err := s.Open(t.Context(), ref, off)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func roundTrip(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	for _, n := range []int{0, 1, 4095, 4096, 1 << 20, 8 << 20} {
		b := random(n)
		ref := put(t, s, b)
		if len(ref) == 0 || len(ref) > 64 || strings.ContainsAny(string(ref), "/\\ \n") {
			t.Errorf("reference %q", ref)
		}
		for _, off := range []int{0, 1, n / 2, n} {
			if off <= n && !bytes.Equal(read(t, s, ref, int64(off)), b[off:]) {
				t.Errorf("%d bytes from %d differ", n, off)
			}
		}
	}
}

func atMost(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	if _, err := s.Put(t.Context(), bytes.NewReader(make([]byte, 11)), 10); !errors.Is(err, queue.ErrTooLarge) {
		t.Errorf("11 bytes of at most 10: %v", err)
	}
	if _, err := s.Put(t.Context(), bytes.NewReader(make([]byte, 8<<20+1)), 1<<40); !errors.Is(err, queue.ErrTooLarge) {
		t.Errorf("more than 8 MiB: %v", err)
	}
}

func failingSource(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	broken := errors.New("the source broke")
	source := io.MultiReader(bytes.NewReader(random(1000)), iotestReader{broken})
	if _, err := s.Put(t.Context(), source, 1<<20); !errors.Is(err, broken) {
		t.Errorf("a broken source: %v", err)
	}
}

type iotestReader struct{ err error }

func (r iotestReader) Read([]byte) (int, error) { return 0, r.err }

func deleting(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	ref := put(t, s, []byte("x"))
	for range 2 { // twice is no error
		if err := s.Delete(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Open(t.Context(), ref, 0); !errors.Is(err, queue.ErrNoBlob) {
		t.Errorf("a deleted blob: %v", err)
	}
}

func foreign(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	for _, ref := range []queue.Ref{"", "x", "../generation", "g00000001-0000000000000001/../../x", "g00000009-00000000000000ff"} {
		if _, err := s.Open(t.Context(), ref, 0); !errors.Is(err, queue.ErrNoBlob) {
			t.Errorf("reference %q: %v", ref, err)
		}
	}
}

func reopened(t *testing.T, open Open) {
	dir := t.TempDir()
	s := open(t, dir)
	b := random(5000)
	ref := put(t, s, b)
	s = open(t, dir)
	if !bytes.Equal(read(t, s, ref, 0), b) {
		t.Error("not found again")
	}
	if other := put(t, s, b); other == ref {
		t.Error("a reference was given twice")
	}
}

func concurrent(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	var wait sync.WaitGroup
	for i := range 16 {
		wait.Go(func() {
			b := random(100 * (i + 1))
			ref, err := s.Put(t.Context(), bytes.NewReader(b), 1<<20)
			if err != nil {
				t.Error(err)
				return
			}
			r, err := s.Open(t.Context(), ref, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, b) {
				t.Errorf("blob %d: %v", i, err)
			}
		})
	}
	wait.Wait()
}

func cancelled(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Put(ctx, bytes.NewReader([]byte("x")), 10); !errors.Is(err, context.Canceled) {
		t.Errorf("Put: %v", err)
	}
}
