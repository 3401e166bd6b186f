package blob

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/internal/durable/crashfs"
	"github.com/yizhan-gateway/yizhan/queue"
	"github.com/yizhan-gateway/yizhan/queue/blob/blobtest"
)

// twoRoots is a store over two directories, of which the second has most room.
func twoRoots(t testing.TB, disk *crashfs.FS) *Store {
	t.Helper()
	for _, dir := range []string{"/first", "/second"} {
		if err := disk.MkdirAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	disk.Room = map[string]int64{"/first": 1 << 30, "/second": 2 << 30}
	s, err := OpenSized(disk, "/first", 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := s.Roots(); err != nil || len(list) == 2 {
		return s
	}
	if err := s.Add("/second"); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestContractOverRoots: several directories keep the contract of one.
func TestContractOverRoots(t *testing.T) {
	blobtest.Run(t, func(t *testing.T, dir string) queue.Blobs {
		first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
		if err := errors.Join(durable.OS.MkdirAll(first), durable.OS.MkdirAll(second)); err != nil {
			t.Fatal(err)
		}
		s, err := Open(durable.OS, first)
		if err != nil {
			t.Fatal(err)
		}
		if list, err := s.Roots(); err != nil || len(list) == 1 {
			if err := errors.Join(err, s.Add(second)); err != nil {
				t.Fatal(err)
			}
		}
		return s
	})
}

// TestRootIsAddedWhileRunning: what is put goes where most room is, what was put
// is found wherever it lies, also after a power cut.
func TestRootIsAddedWhileRunning(t *testing.T) {
	disk := crashfs.New(rand.New(rand.NewPCG(1, 1)))
	if err := errors.Join(disk.MkdirAll("/first"), disk.MkdirAll("/second")); err != nil {
		t.Fatal(err)
	}
	disk.Room = map[string]int64{"/first": 10, "/second": 20}
	s, err := OpenSized(disk, "/first", 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	given := map[queue.Ref][]byte{}
	put := func() {
		for _, size := range []int{10, 100_000} {
			b := bytes.Repeat([]byte{byte(len(given) + 1)}, size)
			ref, err := s.Put(t.Context(), bytes.NewReader(b), MaxBlob)
			if err != nil {
				t.Fatal(err)
			}
			given[ref] = b
		}
	}
	put()
	if err := s.Add("/second"); err != nil {
		t.Fatal(err)
	}
	put()
	disk.Room["/second"] = 5
	put()
	count := func(dir string) (n int) {
		root := *s.roots.Load()
		for _, r := range root {
			if r.dir == dir {
				if _, err := r.each(t.Context(), func(queue.Ref, int64) error { n++; return nil }); err != nil {
					t.Fatal(err)
				}
			}
		}
		return n
	}
	if count("/first") != 4 || count("/second") != 2 {
		t.Errorf("%d lie in the first, %d in the second", count("/first"), count("/second"))
	}
	disk.Crash()
	if s, err = OpenSized(disk, "/first", 64<<10); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sweep(t.Context(), func(ref queue.Ref) (bool, error) { _, ok := given[ref]; return ok, nil }); err != nil {
		t.Fatal(err)
	}
	for ref, want := range given {
		r, err := s.Open(t.Context(), ref, 0)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if r.Close(); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", ref, len(got), err)
		}
	}
}

// TestRootsThatAreAway: a root whose disk is not mounted, or that is another's,
// is named at the start, and never replaced by an empty one.
func TestRootsThatAreAway(t *testing.T) {
	disk := crashfs.New(rand.New(rand.NewPCG(1, 1)))
	s := twoRoots(t, disk)
	ref, err := s.Put(t.Context(), bytes.NewReader([]byte("x")), 10)
	if err != nil {
		t.Fatal(err)
	}
	if err := disk.Rename("/second/root.json", "/second/away"); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSized(disk, "/first", 64<<10); !errors.Is(err, ErrNoRoot) {
		t.Errorf("a start without a root: %v", err)
	}
	list, err := s.Roots()
	if err != nil || len(list) != 2 || list[1].Missing == "" {
		t.Errorf("%+v, %v", list, err)
	}
	other, err := s.Put(t.Context(), bytes.NewReader([]byte("y")), 10)
	if err != nil {
		t.Errorf("with a root away nothing can be put: %v", err)
	}
	if err := disk.Rename("/second/away", "/second/root.json"); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []queue.Ref{ref, other} {
		if _, err := s.Open(t.Context(), ref, 0); err != nil {
			t.Error(err)
		}
	}
	for _, path := range []string{"second", "/first", "/first/below", "/", "/second", "/nowhere"} {
		if err := s.Add(path); !errors.Is(err, ErrUnfit) {
			t.Errorf("%s became a root: %v", path, err)
		}
	}
}

// TestAddingSurvivesEveryCut: the power goes at each step of adding a root;
// afterwards it is one or is none, and can be added.
func TestAddingSurvivesEveryCut(t *testing.T) {
	for seed := range uint64(20) {
		for cut := 0; ; cut++ {
			disk := crashfs.New(rand.New(rand.NewPCG(seed, uint64(cut))))
			if err := errors.Join(disk.MkdirAll("/first"), disk.MkdirAll("/second")); err != nil {
				t.Fatal(err)
			}
			disk.Room = map[string]int64{"/first": 1, "/second": 2}
			s, err := OpenSized(disk, "/first", 64<<10)
			if err != nil {
				t.Fatal(err)
			}
			left := cut
			disk.Before = func(string, string) error {
				if left--; left < 0 {
					return crashfs.ErrInjected()
				}
				return nil
			}
			failed := s.Add("/second")
			var ref queue.Ref
			if failed == nil {
				ref, err = s.Put(t.Context(), bytes.NewReader([]byte("x")), 10)
			}
			disk.Before = nil
			disk.Crash()
			again, open := OpenSized(disk, "/first", 64<<10)
			if open != nil {
				t.Fatalf("seed %d, cut at %d: %v", seed, cut, open)
			}
			if ref != "" && err == nil {
				if _, err := again.Open(t.Context(), ref, 0); err != nil {
					t.Fatalf("seed %d, cut at %d: %v", seed, cut, err)
				}
			}
			if list, _ := again.Roots(); len(list) == 1 {
				if err := again.Add("/second"); err != nil {
					t.Fatalf("seed %d, cut at %d: it cannot be added: %v", seed, cut, err)
				}
			}
			if failed == nil && left >= 0 {
				break
			}
		}
	}
}
