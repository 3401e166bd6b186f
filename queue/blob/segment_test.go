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
	s, err := OpenSegments(fsys, dir, size)
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
	for seed := range uint64(8) {
		for n := range 90 {
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
	for range 20 {
		b := bytes.Repeat([]byte{byte(1 + rng.IntN(255))}, rng.IntN(1500))
		if ref, err := s.Put(t.Context(), bytes.NewReader(b), 2000); err == nil {
			given[ref] = b
		}
	}
	disk.Before, disk.After = nil, nil
	disk.Crash()
	s = openSegments(t, disk, "blobs", 4096)
	for range 2 {
		for ref, want := range given {
			if got, err := readBack(t, s, ref); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("seed %d, cut at %d: %s: %v", seed, n, ref, err)
			}
		}
		if _, err := s.Sweep(t.Context(), func(ref queue.Ref) (bool, error) { return given[ref] != nil, nil }); err != nil {
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
	if err := disk.Corrupt(s.segmentFile(1, 1), 8*4000); err != nil {
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
		_, err := os.Stat(filepath.Clean(s.segmentFile(1, seg)))
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
		"files":    func(dir string) (*Store, error) { return Open(durable.OS, dir) },
		"segments": func(dir string) (*Store, error) { return OpenSegments(durable.OS, dir, SegmentSize) },
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
