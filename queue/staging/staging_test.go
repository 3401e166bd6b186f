package staging

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/iotest"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

const owner = "91350100M000100Y43"

// sealer seals as the keystore does, under a fixed key.
type sealer struct{}

func (sealer) SealRow(row, plain []byte) ([]byte, error) {
	aead, err := sm.NewGCM(make([]byte, 16))
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, make([]byte, 12), plain, row), nil
}

func (sealer) OpenRow(row, sealed []byte) ([]byte, error) {
	aead, err := sm.NewGCM(make([]byte, 16))
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, make([]byte, 12), sealed, row)
}

var start = time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)

type scene struct {
	*Store
	dir  string
	now  time.Time
	full error
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{dir: t.TempDir(), now: start}
	s.reopen(t)
	return s
}

func (s *scene) reopen(t *testing.T) {
	t.Helper()
	var err error
	s.Store, err = Open(Config{
		Dir: s.dir, Sealer: sealer{}, Room: func() error { return s.full }, Now: func() time.Time { return s.now },
		MaxSize: 64 << 20, MaxFiles: 3, Keep: 24 * time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (s *scene) create(t *testing.T, size int) string {
	t.Helper()
	i, err := s.Create(owner, int64(size), map[string]string{"filename": "正文.ofd"})
	if err != nil {
		t.Fatal(err)
	}
	return i.ID
}

func (s *scene) add(t *testing.T, id string, offset int, b []byte) int {
	t.Helper()
	n, err := s.Append(t.Context(), owner, id, int64(offset), bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return offset + int(n)
}

func (s *scene) content(t *testing.T, id string) []byte {
	t.Helper()
	_, r, err := s.Open(owner, id)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(iotest.OneByteReader(io.LimitReader(r, 10)))
	rest, err2 := io.ReadAll(r)
	if err = errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return append(b, rest...)
}

func random(size int) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(size)})
	_, _ = r.Read(b)
	return b
}

// A file that comes in pieces of any size, from callers that go away in the middle,
// and over restarts, is what was sent, and no byte that was taken is asked for again.
func TestPiecesOfAnySize(t *testing.T) {
	for _, size := range []int{1, pieceSize - 1, pieceSize, pieceSize + 1, 5*pieceSize + 77} {
		s := newScene(t)
		id, want, at := s.create(t, size), random(size), 0
		dice := rand.New(rand.NewPCG(1, uint64(size)))
		for at < size {
			n := min(1+dice.IntN(2*pieceSize), size-at)
			r := io.Reader(bytes.NewReader(want[at : at+n]))
			gone := errors.New("the caller is gone")
			if dice.IntN(2) == 0 {
				r = io.MultiReader(r, iotest.ErrReader(gone))
			}
			got, err := s.Append(t.Context(), owner, id, int64(at), r)
			if err != nil && !errors.Is(err, gone) || got != int64(n) {
				t.Fatalf("%d of %d bytes taken: %v", got, n, err)
			}
			at += n
			if dice.IntN(3) == 0 {
				s.reopen(t)
			}
			if info, err := s.Info(owner, id); err != nil || info.Offset != int64(at) || info.Size != int64(size) || info.Meta["filename"] != "正文.ofd" {
				t.Fatalf("%+v %v, want the offset %d", info, err, at)
			}
		}
		if !bytes.Equal(s.content(t, id), want) {
			t.Fatalf("%d bytes came back otherwise", size)
		}
	}
}

// A crash of the machine takes back what no state names, whatever of it reached the
// disk; other bytes may come in its place.
func TestWhatNoStateNamesIsCutOff(t *testing.T) {
	s := newScene(t)
	id := s.create(t, 3*pieceSize)
	first := random(pieceSize + 100)
	at := s.add(t, id, 0, first)
	before, err := os.ReadFile(filepath.Join(s.dir, id, "state"))
	if err != nil {
		t.Fatal(err)
	}
	s.add(t, id, at, random(2*pieceSize-100))
	if err := os.WriteFile(filepath.Join(s.dir, id, "state"), before, 0o600); err != nil {
		t.Fatal(err)
	}
	s.reopen(t)
	other := bytes.Repeat([]byte{7}, 2*pieceSize-100)
	s.add(t, id, at, other)
	if !bytes.Equal(s.content(t, id), slices.Concat(first, other)) {
		t.Fatal("not what was sent the second time")
	}
}

func TestNoPlaintextOnTheDisk(t *testing.T) {
	s := newScene(t)
	text := []byte("关于试点工作的通知（征求意见稿）")
	content := bytes.Repeat(text, 2*pieceSize/len(text))
	id := s.create(t, len(content)+100)
	s.add(t, id, 0, content)
	seen := 0
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		seen += len(b)
		if bytes.Contains(b, text[:12]) || bytes.Contains(b, []byte("正文")) {
			t.Errorf("%s holds plaintext", path)
		}
		return err
	})
	if err != nil || seen < len(content) {
		t.Fatalf("%d bytes were looked at: %v", seen, err)
	}
}

func TestDamageIsFound(t *testing.T) {
	s := newScene(t)
	for name, damage := range map[string]func(data []byte) []byte{
		"a bit":            func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"cut":              func(b []byte) []byte { return b[:len(b)-1] },
		"pieces exchanged": func(b []byte) []byte { return slices.Concat(b[sealedPiece:], b[:sealedPiece]) },
	} {
		id := s.create(t, 2*pieceSize)
		s.add(t, id, 0, random(2*pieceSize))
		path := filepath.Join(s.dir, id, "data")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, damage(b), 0o600); err != nil {
			t.Fatal(err)
		}
		_, r, err := s.Open(owner, id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		_ = r.Close()
	}
}

func TestRefusals(t *testing.T) {
	s := newScene(t)
	for _, size := range []int64{-1, 0, 64<<20 + 1} {
		if _, err := s.Create(owner, size, nil); !errors.Is(err, ErrSize) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	id := s.create(t, 100)
	for _, at := range []int64{-1, 1, 100} {
		if _, err := s.Append(t.Context(), owner, id, at, bytes.NewReader(nil)); !errors.Is(err, ErrOffset) {
			t.Errorf("at %d: %v", at, err)
		}
	}
	if _, _, err := s.Open(owner, id); !errors.Is(err, ErrUnfinished) {
		t.Errorf("opened: %v", err)
	}
	if n, err := s.Append(t.Context(), owner, id, 0, bytes.NewReader(make([]byte, 101))); n != 100 || err != nil {
		t.Errorf("%d bytes of 101 were taken: %v", n, err)
	}
	s.create(t, 1)
	s.create(t, 1)
	if _, err := s.Create(owner, 1, nil); !errors.Is(err, ErrFull) {
		t.Errorf("a fourth: %v", err)
	}
	s.full = errors.New("no room")
	if _, err := s.Create("91350100M000100Y44", 1, nil); !errors.Is(err, s.full) {
		t.Errorf("without room: %v", err)
	}
}

func TestOthersLearnNothing(t *testing.T) {
	s := newScene(t)
	id, other := s.create(t, 100), "91350100M000100Y44"
	_, info := s.Info(other, id)
	_, add := s.Append(t.Context(), other, id, 0, bytes.NewReader([]byte("x")))
	_, _, open := s.Open(other, id)
	for name, err := range map[string]error{
		"info": info, "append": add, "open": open, "remove": s.Remove(other, id), "release": s.Release(other, id, 0),
	} {
		if !errors.Is(err, ErrNone) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range []string{"", "..", "../" + id, id[:25], id + "/", "x/../" + id} {
		if _, err := s.Info(owner, bad); !errors.Is(err, ErrNone) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestOneCallAtATime(t *testing.T) {
	s := newScene(t)
	id := s.create(t, 100)
	r, w := io.Pipe()
	done := make(chan error)
	go func() {
		_, err := s.Append(context.Background(), owner, id, 0, r)
		done <- err
	}()
	if _, err := w.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), owner, id, 0, bytes.NewReader([]byte("y"))); !errors.Is(err, ErrBusy) {
		t.Errorf("a second: %v", err)
	}
	if err := s.Remove(owner, id); !errors.Is(err, ErrBusy) {
		t.Errorf("removed meanwhile: %v", err)
	}
	_ = w.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestWhatEnds(t *testing.T) {
	s := newScene(t)
	left, used, damaged := s.create(t, 100), s.create(t, 1), s.create(t, 1)
	s.add(t, used, 0, []byte("x"))
	if err := s.Release(owner, used, time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, damaged, "state"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Info(owner, damaged); !errors.Is(err, ErrDamaged) {
		t.Errorf("damaged: %v", err)
	}
	if !bytes.Equal(s.content(t, used), []byte("x")) {
		t.Error("it must stay for a repetition")
	}
	s.now = start.Add(time.Hour)
	if n, err := s.Sweep(); n != 1 || err != nil {
		t.Fatalf("%d removed: %v", n, err)
	}
	s.add(t, left, 0, []byte("x")) // keeps it for another day
	s.now = start.Add(24*time.Hour + time.Minute)
	if _, err := s.Info(owner, left); err != nil {
		t.Error(err)
	}
	s.now = time.Now().Add(48 * time.Hour) // the damaged one is told by its folder's time
	s.now = s.now.Add(24 * time.Hour)
	if n, err := s.Sweep(); n != 2 || err != nil {
		t.Fatalf("%d removed: %v", n, err)
	}
	if names, err := os.ReadDir(s.dir); err != nil || len(names) != 0 {
		t.Fatalf("%v %v", names, err)
	}
}
