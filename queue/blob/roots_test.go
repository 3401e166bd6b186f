package blob

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

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

// TestContractOverRoots: several directories keep the contract of one, whichever
// of them has most room at the moment.
func TestContractOverRoots(t *testing.T) {
	blobtest.Run(t, func(t *testing.T, dir string) queue.Blobs {
		first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
		if err := errors.Join(durable.OS.MkdirAll(first), durable.OS.MkdirAll(second)); err != nil {
			t.Fatal(err)
		}
		s, err := Open(varying{durable.OS}, first)
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
	if one, two := blobsIn(t, s, "/first"), blobsIn(t, s, "/second"); one != 4 || two != 2 {
		t.Errorf("%d lie in the first, %d in the second", one, two)
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

// TestRootsSurviveEveryCut: the power goes at each write, sync and rename while a
// root is added that a person has just made, and while blobs are put on two
// roots, deleted and copied out there. What was acknowledged is there, and goes
// on to be after a sweep; the root is one or is none, and can be added.
func TestRootsSurviveEveryCut(t *testing.T) {
	cuts := 0
	for seed := range uint64(2) {
		for cut, whole := 0, false; !whole; cut++ {
			whole = cutRoots(t, seed, cut)
			cuts++
		}
	}
	t.Logf("%d power cuts", cuts)
}

// cutRoots says whether everything was done before the cut came.
func cutRoots(t *testing.T, seed uint64, cut int) (whole bool) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, uint64(cut)))
	disk := crashfs.New(rng)
	if err := disk.MkdirAll("/first"); err != nil {
		t.Fatal(err)
	}
	disk.Room = map[string]int64{"/first": 2, "/mnt/second": 1}
	s, err := OpenSized(disk, "/first", 4096)
	if err != nil {
		t.Fatal(err)
	}
	disk.Mkdir("/mnt")
	disk.Mkdir("/mnt/second")
	left := cut
	hook := func(string, string) error {
		if left--; left < 0 {
			return crashfs.ErrInjected()
		}
		return nil
	}
	if seed%2 == 0 {
		disk.Before = hook
	} else {
		disk.After = hook
	}
	given := map[queue.Ref][]byte{}
	fillRoots(t, s, disk, rng, given, 3)
	added := s.Add("/mnt/second") == nil
	fillRoots(t, s, disk, rng, given, 20)
	_, _ = s.Compact(t.Context()) // the power may fail in it
	disk.Before, disk.After = nil, nil
	disk.Crash()
	checkRoots(t, disk, given, added, fmt.Sprintf("seed %d, cut at %d", seed, cut))
	return left >= 0
}

// fillRoots puts blobs now into the one root and now into the other, of which
// given remembers what must stay: most small ones are deleted again.
func fillRoots(t *testing.T, s *Store, disk *crashfs.FS, rng *rand.Rand, given map[queue.Ref][]byte, n int) {
	t.Helper()
	for i := range n {
		disk.Room["/mnt/second"] = int64(1 + 2*(i%2))
		b := bytes.Repeat([]byte{byte(1 + rng.IntN(255))}, rng.IntN(1500))
		if i%7 == 6 {
			b = bytes.Repeat(b[:min(len(b), 1)], 5000) // a file of its own
		}
		ref, err := s.Put(t.Context(), bytes.NewReader(b), MaxBlob)
		if err != nil {
			continue
		}
		if given[ref] = b; len(b) < 1500 && rng.IntN(5) > 0 {
			_ = s.Delete(t.Context(), ref) // one that failed may have taken effect
			delete(given, ref)
		}
	}
}

func checkRoots(t *testing.T, disk *crashfs.FS, given map[queue.Ref][]byte, added bool, where string) {
	t.Helper()
	s, err := OpenSized(disk, "/first", 4096)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	list, err := s.Roots()
	if err != nil || added && len(list) != 2 || len(list) == 2 && list[1].Missing != "" {
		t.Fatalf("%s: added %v, and there are %+v, %v", where, added, list, err)
	}
	if len(list) == 1 {
		if err := disk.MkdirAll("/mnt/second"); err != nil { // by whoever made it before
			t.Fatal(err)
		}
		if err := s.Add("/mnt/second"); err != nil {
			t.Fatalf("%s: it cannot be added: %v", where, err)
		}
	}
	for range 2 {
		for ref, want := range given {
			if got, err := readBack(t, s, ref); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s: %s: %d bytes of %d, %v", where, ref, len(got), len(want), err)
			}
		}
		if _, err := s.Sweep(t.Context(), func(ref queue.Ref) (bool, error) { return given[ref] != nil, nil }); err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		if _, err := s.Compact(t.Context()); err != nil {
			t.Fatalf("%s: %v", where, err)
		}
	}
}

// TestAllRootsAreTended: the room of every root is looked at, what nothing refers
// to goes from every root, what lives is copied out of sparse segments in every
// root, and all that is kept is visited.
func TestAllRootsAreTended(t *testing.T) {
	disk := crashfs.New(rand.New(rand.NewPCG(1, 1)))
	s := twoRoots(t, disk)
	paths := []string{"/first", "/second"}
	contents := map[queue.Ref][]byte{}
	in := map[string][]queue.Ref{}
	for i, path := range paths {
		disk.Room[path], disk.Room[paths[1-i]] = 3<<30, 1<<30
		if list, err := s.Roots(); err != nil || list[i].Free != 3<<30 || list[1-i].Free != 1<<30 {
			t.Fatalf("the room of the roots: %+v, %v", list, err)
		}
		for k := range 50 { // more than a segment of small ones, and some files
			b := bytes.Repeat([]byte{byte(i), byte(k)}, 800)
			if k >= 45 {
				b = bytes.Repeat(b, 50)
			}
			ref := putBytes(t, s, b)
			contents[ref] = b
			in[path] = append(in[path], ref)
		}
	}
	s = twoRoots(t, disk) // of an earlier start from now on
	lives := func(ref queue.Ref) bool {
		return slices.Contains([]queue.Ref{in["/first"][7], in["/first"][46], in["/second"][7], in["/second"][46]}, ref)
	}
	removed, err := s.Sweep(t.Context(), func(ref queue.Ref) (bool, error) { return lives(ref), nil })
	if err != nil || removed != 96 {
		t.Errorf("swept %d of 96, %v", removed, err)
	}
	segments, err := s.Compact(t.Context())
	if err != nil || segments != 2 {
		t.Errorf("copied %d segments out, one in each root is sparse: %v", segments, err)
	}
	for _, path := range paths {
		if names, err := disk.ReadDir(filepath.Join(path, segmentsDir)); err != nil || len(names) != 0 {
			t.Errorf("left in %s: %v, %v", path, names, err)
		}
	}
	visited := map[queue.Ref]bool{}
	if damaged, err := s.Each(t.Context(), func(ref queue.Ref, _ int64) error { visited[ref] = true; return nil }); err != nil || len(damaged) > 0 {
		t.Errorf("%v, %v", damaged, err)
	}
	for ref, want := range contents {
		got, err := readBack(t, s, ref)
		if lives(ref) != visited[ref] || lives(ref) && (err != nil || !bytes.Equal(got, want)) || !lives(ref) && !errors.Is(err, queue.ErrNoBlob) {
			t.Errorf("%s lives %v, is visited %v: %v", ref, lives(ref), visited[ref], err)
		}
	}
}

// varying is a file system whose free space is another one each time it is
// asked for, so that blobs go now here and now there.
type varying struct{ durable.FS }

func (varying) Free(string) (int64, error) { return rand.Int64N(1 << 40), nil }

// TestRootIsAddedInTraffic: callers put and read while a root is added; what each
// of them was given it reads, then and after a restart, and both roots hold some.
func TestRootIsAddedInTraffic(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	s := openSegments(t, varying{durable.OS}, first, 64<<10)
	var (
		mu    sync.Mutex
		given = map[queue.Ref][]byte{}
		put   sync.WaitGroup
		begun = make(chan struct{}, 8)
		stop  = make(chan struct{})
	)
	for i := range 8 {
		put.Go(func() {
			for j := 0; ; j++ {
				select {
				case <-stop:
					return
				default:
				}
				b := bytes.Repeat([]byte{byte(i), byte(j)}, 1+j*37%2000)
				if j%10 == 9 {
					b = bytes.Repeat(b, 1+70_000/len(b)) // a file of its own
				}
				ref, err := s.Put(t.Context(), bytes.NewReader(b), MaxBlob)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := readBack(t, s, ref); err != nil || !bytes.Equal(got, b) {
					t.Errorf("%s: %d bytes of %d, %v", ref, len(got), len(b), err)
				}
				mu.Lock()
				given[ref] = b
				mu.Unlock()
				if j == 10 {
					begun <- struct{}{}
				}
			}
		})
	}
	for range 8 {
		<-begun
	}
	if err := s.Add(second); err != nil {
		t.Error(err)
	}
	for end := time.Now().Add(time.Minute); blobsIn(t, s, second) < 20 && time.Now().Before(end) && !t.Failed(); {
		time.Sleep(time.Millisecond)
	}
	close(stop)
	put.Wait()
	s = openSegments(t, varying{durable.OS}, first, 64<<10)
	for ref, want := range given {
		if got, err := readBack(t, s, ref); err != nil || !bytes.Equal(got, want) {
			t.Errorf("after a restart, %s: %d bytes of %d, %v", ref, len(got), len(want), err)
		}
	}
	if one, two := blobsIn(t, s, first), blobsIn(t, s, second); one < 20 || two < 20 || one+two != len(given) {
		t.Errorf("%d were put, %d lie in the first root, %d in the second", len(given), one, two)
	}
}

// blobsIn counts what lies in a root.
func blobsIn(t *testing.T, s *Store, dir string) (n int) {
	t.Helper()
	for _, r := range *s.roots.Load() {
		if r.dir != dir {
			continue
		}
		if _, err := r.each(t.Context(), func(queue.Ref, int64) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// TestLookIsRoots: whoever has not opened a store sees the same directories.
func TestLookIsRoots(t *testing.T) {
	disk := crashfs.New(rand.New(rand.NewPCG(3, 4)))
	s := twoRoots(t, disk)
	same := func(missing int) {
		t.Helper()
		want, err := s.Roots()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Look(disk, "/first")
		if err != nil || !slices.Equal(got, want) || len(got) != 2 || (got[1].Missing != "") != (missing == 1) {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	same(-1)
	if err := disk.Remove("/second/" + markFile); err != nil {
		t.Fatal(err)
	}
	same(1)
}
