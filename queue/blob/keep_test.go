package blob

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/yizhan-gateway/yizhan/internal/durable/crashfs"
	"github.com/yizhan-gateway/yizhan/queue"
)

// TestKeep: what is deleted while the blobs are kept can be read until they are
// released, and is gone then.
func TestKeep(t *testing.T) {
	ctx := t.Context()
	s, err := Open(crashfs.New(rand.New(rand.NewPCG(1, 1))), "blobs")
	if err != nil {
		t.Fatal(err)
	}
	var refs []queue.Ref
	for _, size := range []int{10, 2 << 20} {
		ref, err := s.Put(ctx, bytes.NewReader(make([]byte, size)), MaxBlob)
		if err != nil {
			t.Fatal(err)
		}
		refs = append(refs, ref)
	}
	release := s.Keep()
	for _, ref := range refs {
		if err := s.Delete(ctx, ref); err != nil {
			t.Fatal(err)
		}
		r, err := s.Open(ctx, ref, 0)
		if err != nil {
			t.Fatalf("%s is gone while it is kept: %v", ref, err)
		}
		r.Close()
	}
	if _, err := s.Put(ctx, bytes.NewReader([]byte("x")), 10); err != nil {
		t.Errorf("nothing can be put while blobs are kept: %v", err)
	}
	if err := errors.Join(release(), release()); err != nil {
		t.Fatal(err)
	}
	for _, ref := range refs {
		if _, err := s.Open(ctx, ref, 0); !errors.Is(err, queue.ErrNoBlob) {
			t.Errorf("%s is there after its deletion: %v", ref, err)
		}
	}
	if _, err := s.Sweep(ctx, func(queue.Ref) (bool, error) { return true, nil }); err != nil {
		t.Error(err)
	}
}
