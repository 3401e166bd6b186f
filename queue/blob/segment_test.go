package blob

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/internal/durable/crashfs"
	"github.com/yizhan-gateway/yizhan/queue"
	"github.com/yizhan-gateway/yizhan/queue/blob/blobtest"
)

func openSegments(t testing.TB, fsys durable.FS, dir string, size int64) *Store {
	t.Helper()
	s, err := OpenSized(fsys, dir, size)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestContractOfSegments(t *testing.T) {
	for _, size := range []int64{4096, 2 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			blobtest.Run(t, func(t *testing.T, dir string) queue.Blobs { return openSegments(t, durable.OS, dir, size) })
		})
	}
}

func putBytes(t *testing.T, s *Store, b []byte) queue.Ref {
	t.Helper()
	ref, err := s.Put(t.Context(), bytes.NewReader(b), MaxBlob)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// readBack gives what a reference delivers.
func readBack(t *testing.T, s *Store, ref queue.Ref) ([]byte, error) {
	t.Helper()
	r, err := s.Open(t.Context(), ref, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// TestInterruptedSourceIsNoEnd: an upload that breaks off is not stored as if
// it had ended there.
func TestInterruptedSourceIsNoEnd(t *testing.T) {
	s := openSegments(t, durable.OS, t.TempDir(), 1<<20)
	broken := io.MultiReader(bytes.NewReader([]byte("half")), brokenReader{})
	if _, err := s.Put(t.Context(), broken, 100); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Put said %v", err)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestSegmentsSurviveEveryCut: the power fails at the n-th disk operation for
// every n, which had taken effect or not; what Put gave out opens afterwards
// with its bytes, and goes on doing so after a sweep.
func TestSegmentsSurviveEveryCut(t *testing.T) {
	for seed := range uint64(5) {
		for n := range 150 {
			cutSegments(t, seed, n, n%2 == 0)
		}
	}
}

func cutSegments(t *testing.T, seed uint64, n int, after bool) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, uint64(n)))
	disk := crashfs.New(rng)
	s := openSegments(t, disk, "blobs", 4096)
	hook := func(string, string) error {
		if n--; n < 0 {
			return crashfs.ErrInjected()
		}
		return nil
	}
	if after {
		disk.After = hook
	} else {
		disk.Before = hook
	}
	given := map[queue.Ref][]byte{}
	var order []queue.Ref
	for range 20 {
		b := bytes.Repeat([]byte{byte(1 + rng.IntN(255))}, rng.IntN(1500))
		if ref, err := s.Put(t.Context(), bytes.NewReader(b), 2000); err == nil {
			given[ref] = b
			order = append(order, ref)
		}
	}
	for _, ref := range order { // one blob of ten stays, so that there is something to copy out
		if rng.IntN(10) > 0 {
			_ = s.Delete(t.Context(), ref) // one that failed may have taken effect
			delete(given, ref)
		}
	}
	_, _ = s.Compact(t.Context()) // the power may fail in it
	disk.Before, disk.After = nil, nil
	disk.Crash()
	s = openSegments(t, disk, "blobs", 4096)
	for range 3 {
		for ref, want := range given {
			if got, err := readBack(t, s, ref); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("seed %d, cut at %d: %s: %v", seed, n, ref, err)
			}
		}
		if _, err := s.Sweep(t.Context(), func(ref queue.Ref) (bool, error) { return given[ref] != nil, nil }); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDamagedRecordIsNotDelivered: a flipped bit is an error before the first
// byte, at any offset.
func TestDamagedRecordIsNotDelivered(t *testing.T) {
	disk := crashfs.New(rand.New(rand.NewPCG(1, 1)))
	s := openSegments(t, disk, "blobs", 1<<16)
	ref := putBytes(t, s, make([]byte, 5000))
	if err := disk.Corrupt(own(s).segmentFile(1, 1), 8*4000); err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 4900} {
		if _, err := s.Open(t.Context(), ref, off); !errors.Is(err, ErrDamaged) {
			t.Errorf("from %d: %v", off, err)
		}
	}
	w, _ := parseRef(ref)
	w.size--
	if _, err := s.Open(t.Context(), w.ref(), 0); !errors.Is(err, queue.ErrNoBlob) {
		t.Errorf("a reference of another length: %v", err)
	}
}

// TestEmptySegmentGoes: by Delete for a full one of this start, by Sweep for
// one of an earlier start; deleting twice counts once.
func TestEmptySegmentGoes(t *testing.T) {
	dir := t.TempDir()
	s := openSegments(t, durable.OS, dir, 4096)
	var refs []queue.Ref
	for range 9 { // two a segment
		refs = append(refs, putBytes(t, s, make([]byte, 1500)))
	}
	there := func(seg uint32) bool {
		_, err := os.Stat(filepath.Clean(own(s).segmentFile(1, seg)))
		return err == nil
	}
	for range 3 {
		if err := s.Delete(t.Context(), refs[0]); err != nil || !there(1) {
			t.Fatalf("a live blob's segment: there %v, %v", there(1), err)
		}
	}
	if err := s.Delete(t.Context(), refs[1]); err != nil || there(1) {
		t.Fatalf("an empty segment: there %v, %v", there(1), err)
	}
	s = openSegments(t, durable.OS, dir, 4096)
	n, err := s.Sweep(t.Context(), func(ref queue.Ref) (bool, error) { return ref == refs[2], nil })
	if err != nil || n != 6 || !there(2) || there(3) || there(5) {
		t.Errorf("swept %d, %v; there %v %v %v", n, err, there(2), there(3), there(5))
	}
	if _, err := readBack(t, s, refs[2]); err != nil {
		t.Error(err)
	}
}

// TestManyCallersShareABatch: with callers that put, read and delete at once
// every reference is another's and delivers its own bytes.
func TestManyCallersShareABatch(t *testing.T) {
	s := openSegments(t, durable.OS, t.TempDir(), 1<<16)
	var wait sync.WaitGroup
	for i := range 80 {
		wait.Go(func() {
			for j := range 10 {
				b := bytes.Repeat([]byte{byte(i), byte(j)}, 500)
				ref, err := s.Put(t.Context(), bytes.NewReader(b), 1000)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := readBack(t, s, ref); err != nil || !bytes.Equal(got, b) {
					t.Error(err)
				}
				if err := s.Delete(t.Context(), ref); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
}

// TestRottedHeaderIsDamage: a header that cannot be read is damage, the blobs
// behind it are delivered, and no sweep or copying out takes the segment away.
func TestRottedHeaderIsDamage(t *testing.T) {
	for name, rotten := range map[string]int{"first": 0, "in the middle": 1, "last": 2} {
		t.Run(name, func(t *testing.T) {
			disk := crashfs.New(rand.New(rand.NewPCG(1, 1)))
			s := openSegments(t, disk, "blobs", 1<<16)
			var refs []queue.Ref
			for i := range 3 {
				refs = append(refs, putBytes(t, s, bytes.Repeat([]byte{byte(i)}, 600)))
			}
			w, _ := parseRef(refs[rotten])
			if err := disk.Corrupt(own(s).segmentFile(w.gen, w.seg), 8*(int(w.off)+5)); err != nil {
				t.Fatal(err)
			}
			s = openSegments(t, disk, "blobs", 1<<16)
			for range 2 {
				for i, ref := range refs {
					_, err := readBack(t, s, ref)
					if ref == "" {
						continue // swept
					}
					if want := i == rotten; errors.Is(err, ErrDamaged) != want || err != nil && !want {
						t.Errorf("blob %d: %v", i, err)
					}
				}
				if _, err := s.Sweep(t.Context(), func(ref queue.Ref) (bool, error) { return ref == refs[0], nil }); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Compact(t.Context()); err != nil {
					t.Fatal(err)
				}
				for i := range refs {
					if i != 0 && i != rotten {
						refs[i] = ""
					}
				}
			}
		})
	}
}

// TestSparseSegmentIsCopiedOut: of a full segment in which little lives, of
// this start or an earlier one, the living blobs keep their references and the
// rest gives its room back.
func TestSparseSegmentIsCopiedOut(t *testing.T) {
	for name, again := range map[string]bool{"this start": false, "an earlier start": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openSegments(t, durable.OS, dir, 64<<10)
			given := map[queue.Ref][]byte{}
			for i := range 130 { // 42 a segment
				b := bytes.Repeat([]byte{byte(i)}, 1500)
				given[putBytes(t, s, b)] = b
			}
			stays := map[queue.Ref]bool{}
			for ref := range given {
				w, _ := parseRef(ref)
				if stays[ref] = w.seg == 2 || w.off == 1536; !stays[ref] {
					if err := s.Delete(t.Context(), ref); err != nil {
						t.Fatal(err)
					}
				}
			}
			if again {
				s = openSegments(t, durable.OS, dir, 64<<10)
				if _, err := s.Sweep(t.Context(), func(ref queue.Ref) (bool, error) { return stays[ref], nil }); err != nil {
					t.Fatal(err)
				}
			}
			moved, err := s.Compact(t.Context())
			if want := 2; err != nil || moved < want {
				t.Fatalf("moved %d, %v", moved, err)
			}
			for seg, want := range map[uint32]bool{1: false, 2: true, 3: false} {
				if _, err := os.Stat(own(s).segmentFile(1, seg)); (err == nil) != want {
					t.Errorf("segment %d: %v", seg, err)
				}
			}
			check := func() {
				for ref, want := range given {
					got, err := readBack(t, s, ref)
					if stays[ref] && (err != nil || !bytes.Equal(got, want)) || !stays[ref] && !errors.Is(err, queue.ErrNoBlob) {
						t.Errorf("%s, stays %v: %v", ref, stays[ref], err)
					}
				}
			}
			check()
			for ref := range given { // a moved blob goes like any other
				if w, _ := parseRef(ref); w.seg == 1 && stays[ref] {
					if err := s.Delete(t.Context(), ref); err != nil {
						t.Fatal(err)
					}
					stays[ref] = false
				}
			}
			check()
			s = openSegments(t, durable.OS, dir, 64<<10) // and a moved one that nothing refers to is swept
			for ref := range stays {
				stays[ref] = false
			}
			if _, err := s.Sweep(t.Context(), func(queue.Ref) (bool, error) { return false, nil }); err != nil {
				t.Fatal(err)
			}
			check()
		})
	}
}

// TestCopyingOutBesideReadersAndDeletions: whatever comes at the same time, a
// blob that was not deleted delivers its bytes and one that was is gone.
func TestCopyingOutBesideReadersAndDeletions(t *testing.T) {
	s := openSegments(t, durable.OS, t.TempDir(), 32<<10)
	var wait, tidying sync.WaitGroup
	stop := make(chan struct{})
	tidying.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := s.Compact(t.Context()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range 16 {
		wait.Go(func() {
			var refs []queue.Ref
			for j := range 60 {
				refs = append(refs, putBytes(t, s, bytes.Repeat([]byte{byte(i), byte(j)}, 700)))
			}
			for j, ref := range refs {
				if j%8 != 0 {
					if err := s.Delete(t.Context(), ref); err != nil {
						t.Error(err)
					}
				}
			}
			for range 5 {
				for j, ref := range refs {
					got, err := readBack(t, s, ref)
					if j%8 == 0 && (err != nil || !bytes.Equal(got, bytes.Repeat([]byte{byte(i), byte(j)}, 700))) || j%8 != 0 && !errors.Is(err, queue.ErrNoBlob) {
						t.Errorf("blob %d of %d: %v", j, i, err)
					}
				}
			}
			for j := 0; j < len(refs); j += 8 {
				if err := s.Delete(t.Context(), refs[j]); err != nil {
					t.Error(err)
				}
				if _, err := readBack(t, s, refs[j]); !errors.Is(err, queue.ErrNoBlob) {
					t.Errorf("a deleted blob: %v", err)
				}
			}
		})
	}
	wait.Wait()
	close(stop)
	tidying.Wait()
}

// FuzzWalk: whatever lies in a segment, the walker ends, and what it visits
// lies within the file.
func FuzzWalk(f *testing.F) {
	record := make([]byte, 1024)
	fillHeader(record, where{1, 1, 0, 600})
	f.Add(record)
	f.Add(append(make([]byte, 512), record...))
	f.Fuzz(func(t *testing.T, b []byte) {
		disk := crashfs.New(rand.New(rand.NewPCG(1, 1)))
		file, _ := disk.Create("f")
		_, _ = file.Write(b)
		_, _, err := walk(file, 1, 1, func(w where, _ bool) error {
			if int64(w.off)+headerSize > int64(len(b)) {
				t.Errorf("a record at %d of %d", w.off, len(b))
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkPut64Callers(b *testing.B) {
	data := make([]byte, 10<<10)
	for name, open := range map[string]func(string) (*Store, error){
		"own files": func(dir string) (*Store, error) { return OpenSized(durable.OS, dir, 1024) },
		"segments":  func(dir string) (*Store, error) { return Open(durable.OS, dir) },
	} {
		b.Run(name, func(b *testing.B) {
			s, err := open(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := s.Put(b.Context(), bytes.NewReader(data), MaxBlob); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// own is a store's first root.
func own(s *Store) *root { return (*s.roots.Load())[0] }
