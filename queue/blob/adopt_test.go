package blob

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/yizhan-gateway/yizhan/internal/durable/crashfs"
	"github.com/yizhan-gateway/yizhan/queue"
)

// TestAdopt: blobs of another store are read under the references they had, also
// after a power cut, and no reference is given twice.
func TestAdopt(t *testing.T) {
	ctx := t.Context()
	from, err := Open(crashfs.New(rand.New(rand.NewPCG(1, 1))), "blobs")
	if err != nil {
		t.Fatal(err)
	}
	contents := map[queue.Ref][]byte{}
	for _, size := range []int{0, 1, 5000, 1<<20 + 1, 3 << 20} {
		b := bytes.Repeat([]byte{byte(size), 7}, size)[:size]
		ref, err := from.Put(ctx, bytes.NewReader(b), MaxBlob)
		if err != nil {
			t.Fatal(err)
		}
		contents[ref] = b
	}
	fsys := crashfs.New(rand.New(rand.NewPCG(2, 2)))
	to, err := OpenAbove(fsys, "blobs", from.Generation())
	if err != nil {
		t.Fatal(err)
	}
	for ref, b := range contents {
		for range 2 {
			if err := to.Adopt(ctx, ref, bytes.NewReader(b)); err != nil {
				t.Fatal(err)
			}
		}
	}
	fsys.Crash()
	if to, err = Open(fsys, "blobs"); err != nil {
		t.Fatal(err)
	}
	if _, err := to.Sweep(ctx, func(ref queue.Ref) (bool, error) { _, ok := contents[ref]; return ok, nil }); err != nil {
		t.Fatal(err)
	}
	for ref, b := range contents {
		r, err := to.Open(ctx, ref, 0)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if r.Close(); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%s: %d bytes, %v, want %d", ref, len(got), err, len(b))
		}
		if err := to.Delete(ctx, ref); err != nil {
			t.Fatal(err)
		}
		if _, err := to.Open(ctx, ref, 0); err == nil {
			t.Errorf("%s is there after its deletion", ref)
		}
	}
	ref, err := to.Put(ctx, bytes.NewReader([]byte("new")), 10)
	if _, taken := contents[ref]; taken || err != nil {
		t.Errorf("%s was given again, %v", ref, err)
	}
	// Whatever is no reference, or one of the future, is refused.
	for _, ref := range []queue.Ref{"../x", "", "g00000001", "gffffffff-0000000000000001", "sffffffff-00000001-00000200-00000001"} {
		if err := to.Adopt(ctx, ref, bytes.NewReader(nil)); err == nil {
			t.Errorf("%q was adopted", ref)
		}
	}
}
