package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/queue/blob"
)

// fakeDisk is a disk whose free space the test sets.
type fakeDisk struct {
	free  uint64
	more  []place
	err   error
	asked int
	clock time.Time
}

func (f *fakeDisk) watermark(dir string, log *slog.Logger) *watermark {
	return &watermark{
		marks: (&diskSettings{RefuseBelow: 100, AcceptAbove: 150, Ballast: 2}).marks(), log: log, path: filepath.Join(dir, ballastFile),
		free: func() (uint64, error) { f.asked++; return f.free, f.err }, more: func() ([]place, error) { return f.more, nil }, now: func() time.Time { return f.clock },
	}
}

// TestTheWatermarkHasTwoMarks: refused below the lower, taken from the higher
// on, and in between what it was.
func TestTheWatermarkHasTwoMarks(t *testing.T) {
	f := &fakeDisk{clock: time.Now()}
	var log bytes.Buffer
	w := f.watermark(t.TempDir(), slog.New(slog.NewTextHandler(&log, nil)))
	for i, step := range []struct {
		mib     uint64
		refused bool
	}{{120, false}, {100, false}, {99, true}, {120, true}, {149, true}, {150, false}, {101, false}, {0, true}, {200, false}} {
		f.free, f.clock = step.mib<<20, f.clock.Add(lookEvery)
		err := w.room()
		if (err != nil) != step.refused {
			t.Errorf("step %d, %d MiB: %v", i, step.mib, err)
		}
		if step.refused && (exchange.CodeOf(err) != exchange.CodeNoSpace || !strings.Contains(err.Error(), "可用空间")) {
			t.Errorf("step %d: %v", i, err)
		}
	}
	if n := strings.Count(log.String(), "no room for new documents"); n != 2 {
		t.Errorf("the log says %d times that the disk has no room", n)
	}
	f.err, f.clock = errors.New("gone"), f.clock.Add(lookEvery)
	if w.room() == nil {
		t.Error("a disk that cannot be asked takes new work")
	}
}

// TestTheWatermarkIsCheap: the system is asked once for many items.
func TestTheWatermarkIsCheap(t *testing.T) {
	f := &fakeDisk{free: 1 << 30, clock: time.Now()}
	w := f.watermark(t.TempDir(), slog.New(slog.DiscardHandler))
	for range 1000 {
		if err := w.room(); err != nil {
			t.Fatal(err)
		}
	}
	if f.asked != 1 {
		t.Errorf("asked %d times", f.asked)
	}
}

// TestTheBallast: it holds what it says, is given back on a full disk and not
// before, and comes back only when there is room for it.
func TestTheBallast(t *testing.T) {
	f := &fakeDisk{free: 151 << 20, clock: time.Now()}
	w := f.watermark(t.TempDir(), slog.New(slog.DiscardHandler))
	held := func() uint64 {
		t.Helper()
		n, err := ballastSize(w.path)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if made, err := w.makeBallast(); made || exchange.CodeOf(err) != exchange.CodeNoSpace || held() != 0 {
		t.Fatalf("made on a disk with no room for it: %v, %v", made, err)
	}
	f.free = 152 << 20
	if made, err := w.makeBallast(); !made || err != nil || held() != 2<<20 {
		t.Fatalf("made %v, %v: holds %d", made, err, held())
	}
	if made, err := w.makeBallast(); made || err != nil {
		t.Fatalf("made a second time: %v, %v", made, err)
	}
	for _, step := range []struct {
		free uint64
		held uint64
	}{{90 << 20, 2 << 20}, {1 << 20, 2 << 20}, {1<<20 - 1, 0}, {0, 0}} {
		f.free, f.clock = step.free, f.clock.Add(lookEvery)
		if w.room() == nil {
			t.Error("new work is taken")
		}
		if held() != step.held {
			t.Errorf("with %d bytes free the ballast holds %d", step.free, held())
		}
	}
	// What a crash left of it is made anew.
	f.free = 1 << 30
	if err := os.WriteFile(w.path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if made, err := w.makeBallast(); !made || err != nil || held() != 2<<20 {
		t.Fatalf("made %v, %v: holds %d", made, err, held())
	}
}

// TestDiskSettings: sizes that cannot be meant are refused by name.
func TestDiskSettings(t *testing.T) {
	for _, s := range []diskSettings{{RefuseBelow: -1}, {Ballast: 1 << 21}, {AcceptAbove: 511}, {RefuseBelow: 1000, AcceptAbove: 999}} {
		if err := s.check("config.toml"); exchange.CodeOf(err) != exchange.CodeBadRequest || !strings.Contains(err.Error(), "config.toml") {
			t.Errorf("%+v: %v", s, err)
		}
	}
	for _, s := range []diskSettings{{}, {RefuseBelow: 1000}, {AcceptAbove: 512}} {
		if err := s.check("config.toml"); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
		if m := s.marks(); m.accept < m.refuse || m.full >= m.refuse || m.ballast == 0 {
			t.Errorf("%+v gives %+v", s, m)
		}
	}
}

// TestEveryDiskCounts: the store's disk may be another one, and payloads go to the one
// of theirs that has most room; the ballast lies on the node's own.
func TestEveryDiskCounts(t *testing.T) {
	f := &fakeDisk{free: 1 << 30, clock: time.Now()}
	var log bytes.Buffer
	w := f.watermark(t.TempDir(), slog.New(slog.NewTextHandler(&log, nil)))
	if made, err := w.makeBallast(); !made || err != nil {
		t.Fatalf("made %v, %v", made, err)
	}
	for i, step := range []struct {
		own, other uint64
		refused    bool
	}{{1000, 1000, false}, {1000, 99, true}, {1000, 140, true}, {1000, 150, false}, {99, 1000, true}, {150, 150, false}, {1000, 0, true}} {
		f.free, f.more, f.clock = step.own<<20, []place{{"/srv/more", step.other << 20}}, f.clock.Add(lookEvery)
		if err := w.room(); (err != nil) != step.refused {
			t.Errorf("step %d: %v", i, err)
		}
	}
	if !strings.Contains(log.String(), "disk=/srv/more") {
		t.Errorf("the log names no disk: %s", &log)
	}
	if held, err := ballastSize(w.path); err != nil || held != 2<<20 {
		t.Errorf("the ballast was given back for another disk: it holds %d, %v", held, err)
	}
	one := func(free int64, missing string) blob.Root {
		return blob.Root{Path: fmt.Sprint(free), Free: free, Missing: missing}
	}
	if at, err := roomiest([]blob.Root{one(3, ""), one(9, "away"), one(5, ""), one(4, "")}); err != nil || at.free != 5 || at.path != "5" {
		t.Errorf("the next payload goes to %+v, %v", at, err)
	}
	if _, err := roomiest([]blob.Root{one(3, "away")}); !errors.Is(err, blob.ErrNoRoot) {
		t.Errorf("no directory is there: %v", err)
	}
}

// TestDisksOfANode: they are found before the first start and after one, and a second
// directory of payloads is among them.
func TestDisksOfANode(t *testing.T) {
	d := dataDir(t.TempDir())
	if list, err := d.otherDisks(); err != nil || len(list) != 0 {
		t.Errorf("before the first start: %v, %v", list, err)
	}
	more := t.TempDir()
	blobs, err := blob.Open(durable.OS, d.path(blobsDir))
	if err == nil {
		err = errors.Join(blobs.Add(more), os.Mkdir(d.path(storeDir), 0o700))
	}
	if err != nil {
		t.Fatal(err)
	}
	if list, err := d.otherDisks(); err != nil || len(list) != 2 || list[0].path != d.path(storeDir) {
		t.Errorf("%v, %v", list, err)
	}
	if err := os.WriteFile(d.path(blobsDir)+"/roots.json", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.otherDisks(); err == nil {
		t.Error("a list of directories that cannot be read is taken for none")
	}
}
