package blob

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/internal/durable/crashfs"
	"github.com/yizhan-gateway/yizhan/queue"
	"github.com/yizhan-gateway/yizhan/queue/blob/blobtest"
)

func TestContract(t *testing.T) {
	blobtest.Run(t, func(t *testing.T, dir string) queue.Blobs {
		s, err := Open(durable.OS, dir)
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

// files lists what lies in the shards.
func files(t *testing.T, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != "generation" {
			out = append(out, d.Name())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestNothingIsLeftOfAFailedPut(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(durable.OS, dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), bytes.NewReader(make([]byte, 100)), 10); !errors.Is(err, queue.ErrTooLarge) {
		t.Fatal(err)
	}
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// ownFiles is a segment size that makes every blob as long as it an own file.
const ownFiles = 1024

// TestSweep: only what earlier starts left and nobody refers to goes.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	first, err := OpenSized(durable.OS, dir, ownFiles)
	if err != nil {
		t.Fatal(err)
	}
	store := func(s *Store) queue.Ref {
		ref, err := s.Put(t.Context(), bytes.NewReader(make([]byte, ownFiles)), ownFiles)
		if err != nil {
			t.Fatal(err)
		}
		return ref
	}
	kept, orphan := store(first), store(first)
	temp := filepath.Join(dir, "07", "g00000001-0000000000000007.tmp")
	foreign := filepath.Join(dir, "07", "README")
	for _, name := range []string{temp, foreign} {
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	second, err := OpenSized(durable.OS, dir, ownFiles)
	if err != nil {
		t.Fatal(err)
	}
	young := store(second)
	n, err := second.Sweep(t.Context(), func(ref queue.Ref) (bool, error) { return ref == kept, nil })
	if err != nil || n != 2 {
		t.Errorf("removed %d, %v; an orphan and a temporary file were there", n, err)
	}
	left := files(t, dir)
	for ref, want := range map[string]bool{string(kept): true, string(orphan): false, string(young): true, "README": true, filepath.Base(temp): false} {
		if slices.Contains(left, ref) != want {
			t.Errorf("%s: there %v, want %v", ref, !want, want)
		}
	}
}

// TestPowerCut: whatever a disk forgets, a reference that Put gave out opens
// with the right bytes afterwards.
func TestPowerCut(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		disk := crashfs.New(rng)
		given := map[queue.Ref][]byte{}
		for range 3 {
			s, err := OpenSized(disk, "blobs", ownFiles)
			if err != nil {
				t.Fatal(err)
			}
			cutAt := rng.IntN(60)
			disk.Before = func(string, string) error {
				if cutAt--; cutAt < 0 {
					return crashfs.ErrInjected()
				}
				return nil
			}
			for range 8 {
				b := make([]byte, 1+rng.IntN(2*ownFiles))
				for i := range b {
					b[i] = byte(1 + rng.IntN(255))
				}
				if ref, err := s.Put(t.Context(), bytes.NewReader(b), 2*ownFiles); err == nil {
					given[ref] = b
				}
			}
			disk.Before = nil
			disk.Crash()
		}
		s, err := OpenSized(disk, "blobs", ownFiles)
		if err != nil {
			t.Fatal(err)
		}
		for ref, want := range given {
			r, err := s.Open(t.Context(), ref, 0)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("seed %d: %s reads %x, want %x (%v)", seed, ref, got, want, err)
			}
		}
	}
}

// TestEveryOperationFails: fail the n-th disk operation for every n, before or
// after it took effect; Put answers with an error or with a good reference.
func TestEveryOperationFails(t *testing.T) {
	content := bytes.Repeat([]byte("content "), ownFiles/8)
	for _, after := range []bool{false, true} {
		for n := range 12 {
			disk := crashfs.New(rand.New(rand.NewPCG(1, 1)))
			s, err := OpenSized(disk, "blobs", ownFiles)
			if err != nil {
				t.Fatal(err)
			}
			count := 0
			hook := func(string, string) error {
				if count++; count == n+1 {
					return crashfs.ErrInjected()
				}
				return nil
			}
			if after {
				disk.After = hook
			} else {
				disk.Before = hook
			}
			ref, err := s.Put(t.Context(), bytes.NewReader(content), 2*ownFiles)
			disk.Before, disk.After = nil, nil
			if (err == nil) != (count <= n) {
				t.Fatalf("operation %d failed (after %v) and Put said %v", n, after, err)
			}
			if err != nil {
				continue
			}
			r, err := s.Open(t.Context(), ref, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := io.ReadAll(r); !bytes.Equal(got, content) {
				t.Fatalf("reads %d bytes", len(got))
			}
		}
	}
}

// TestGenerationsRise: a start never reuses the generation of an earlier one,
// and an unreadable counter is an error, not a fresh start.
func TestGenerationsRise(t *testing.T) {
	dir := t.TempDir()
	for want := uint32(1); want <= 3; want++ {
		s, err := Open(durable.OS, dir)
		if err != nil || s.gen != want {
			t.Fatalf("generation %d, %v", s.gen, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "generation"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(durable.OS, dir); err == nil {
		t.Fatal("an unreadable generation was ignored")
	}
}
