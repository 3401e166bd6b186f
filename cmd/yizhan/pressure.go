package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/queue/blob"
)

// diskSettings is section [disk] of config.toml. What is 0 has its default.
type diskSettings struct {
	RefuseBelow int64 `toml:"refuse_below_mib,omitempty" comment:"free MiB below which new documents are refused; 0: 512"`
	AcceptAbove int64 `toml:"accept_above_mib,omitempty" comment:"free MiB above which they are taken again; 0: one and a half times that"`
	Ballast     int64 `toml:"ballast_mib,omitempty" comment:"MiB kept aside, and given back when the disk is full; 0: 64"`
}

func (s *diskSettings) check(file string) error {
	if s.RefuseBelow < 0 || s.AcceptAbove < 0 || s.Ballast < 0 || s.RefuseBelow >= 1<<30 || s.AcceptAbove >= 1<<30 || s.Ballast >= 1<<20 {
		return exchange.Fail(exchange.CodeBadRequest, "%s: a size in [disk] is negative or too large; sizes are MiB", file)
	}
	if s.AcceptAbove != 0 && uint64(s.AcceptAbove)<<20 < s.marks().refuse {
		return exchange.Fail(exchange.CodeBadRequest, "%s: accept_above_mib is less than refuse_below_mib; leave it out for one and a half times that", file)
	}
	return nil
}

// marks are the bounds in bytes. The disk counts as full below what the store
// may need to end what it has begun.
type marks struct{ refuse, accept, full, ballast uint64 }

func (s *diskSettings) marks() marks {
	mib := func(v, instead int64) uint64 {
		if v == 0 {
			v = instead
		}
		return uint64(v) << 20
	}
	m := marks{refuse: mib(s.RefuseBelow, 512), ballast: mib(s.Ballast, 64)}
	m.accept = m.refuse + m.refuse/2
	if s.AcceptAbove != 0 {
		m.accept = mib(s.AcceptAbove, 0)
	}
	m.full = min(m.ballast, m.refuse) / 2
	return m
}

// watermark decides by the free space of the node's disks whether new work may begin:
// that of the data directory, where the ballast lies, that of the store, and the
// roomiest of those that payloads go to. It asks the system at most every lookEvery, since it is asked for
// every item; between two looks the fastest disk does not use up what lies
// between refusing and full.
type watermark struct {
	marks
	free func() (uint64, error) // of the data directory
	more func() ([]place, error)
	now  func() time.Time
	log  *slog.Logger
	path string // of the ballast

	mu       sync.Mutex
	looked   time.Time
	last     uint64
	refusing bool
}

// place is a disk that new work needs room on.
type place struct {
	path string
	free uint64
}

const lookEvery = 100 * time.Millisecond

// freeSpace is what the node's user may still write below dir, bytes.
func freeSpace(dir string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return s.Bavail * uint64(s.Bsize), nil
}

func (d dataDir) watermark(s *settings, log *slog.Logger) *watermark {
	return &watermark{
		marks: s.Disk.marks(), free: func() (uint64, error) { return freeSpace(string(d)) }, more: d.otherDisks, now: time.Now,
		log: log, path: d.path(ballastFile),
	}
}

// otherDisks are the store's, and the one that the next payload goes to. Before the
// first start there is neither.
func (d dataDir) otherDisks() (list []place, err error) {
	if free, err := freeSpace(d.path(storeDir)); err == nil {
		list = append(list, place{d.path(storeDir), free})
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if _, err := os.Stat(d.path(blobsDir)); errors.Is(err, fs.ErrNotExist) {
		return list, nil
	}
	roots, err := blob.Look(durable.OS, d.path(blobsDir))
	if err != nil {
		return nil, err
	}
	best, err := roomiest(roots)
	return append(list, best), err
}

// roomiest is where the next payload goes, as in the store of payloads.
func roomiest(roots []blob.Root) (best place, err error) {
	there := false
	for _, r := range roots {
		if free := uint64(max(0, r.Free)); r.Missing == "" && (!there || free > best.free) {
			best, there = place{r.Path, free}, true
		}
	}
	if !there {
		return best, fmt.Errorf("%w: %s", blob.ErrNoRoot, roots[0].Missing)
	}
	return best, nil
}

// least is what is free on the disk that has least, and on the node's own.
func (w *watermark) least() (at place, own uint64, err error) {
	if own, err = w.free(); err != nil {
		return place{}, 0, err
	}
	at = place{filepath.Dir(w.path), own}
	others, err := w.more()
	for _, p := range others {
		if p.free < at.free {
			at = p
		}
	}
	return at, own, err
}

// room is node.Config.Room. A disk that cannot be asked takes no new work.
func (w *watermark) room() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := w.now(); now.Sub(w.looked) >= lookEvery || now.Before(w.looked) {
		w.looked = now
		w.look()
	}
	if !w.refusing {
		return nil
	}
	return exchange.Fail(exchange.CodeNoSpace, "%d MiB are free, new documents are taken again from %d MiB on · 可用空间 %[1]d MiB，达到 %[2]d MiB 后恢复接收", w.last>>20, w.accept>>20)
}

// state is what the metrics show.
func (w *watermark) state() (free uint64, refusing bool, err error) {
	refusing = w.room() != nil
	at, _, err := w.least()
	return at.free, refusing, err
}

// look asks the system. What is refused once stays refused until there is
// clearly room, so that callers do not meet an answer that changes with every
// document. On a full disk the ballast is given back.
func (w *watermark) look() {
	at, own, err := w.least()
	if err != nil {
		w.log.Error("the free space is not known; new documents are refused", "error", err)
		at.free = 0
	}
	free := at.free
	w.last = free
	switch {
	case !w.refusing && free < w.refuse:
		w.refusing = true
		w.log.Error("the disk has no room for new documents; deliveries and receipts go on", "disk", at.path, "free_mib", free>>20, "refuse_below_mib", w.refuse>>20)
	case w.refusing && free >= w.accept:
		w.refusing = false
		w.log.Info("new documents are taken again", "free_mib", free>>20)
	}
	if own < w.full && err == nil {
		w.dropBallast(own)
	}
}

// dropBallast gives the ballast back to a disk that is full.
func (w *watermark) dropBallast(free uint64) {
	switch err := os.Remove(w.path); {
	case err == nil:
		w.log.Error("the disk is full: the ballast was given back, so that receipts can still be written; make room, then run yizhan ballast", "free_mib", free>>20)
	case !errors.Is(err, fs.ErrNotExist):
		w.log.Error("the disk is full, and the ballast could not be given back", "error", err)
	}
}

// watch looks when nobody asks.
func (w *watermark) watch(ctx context.Context) {
	for {
		_ = w.room() // what it says is for those who bring work
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			return
		}
	}
}

// makeBallast puts the ballast in place when there is room for it and more. A
// crash leaves a file that is too short, which the next call makes anew.
func (w *watermark) makeBallast() (made bool, err error) {
	if held, err := ballastSize(w.path); err != nil || held >= w.ballast {
		return false, err
	}
	free, err := w.free()
	if err != nil {
		return false, err
	}
	if free < w.accept+w.ballast {
		return false, exchange.Fail(exchange.CodeNoSpace, "%d MiB are free, the ballast is made from %d MiB on · 可用空间 %[1]d MiB，达到 %[2]d MiB 后才能重建预留文件", free>>20, (w.accept+w.ballast)>>20)
	}
	if err := os.Remove(w.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err := fillFile(w.path, int64(w.ballast)); err != nil {
		return false, errors.Join(err, os.Remove(w.path))
	}
	return true, nil
}

// ballastSize is what the ballast really holds of the disk; 0 without one.
func ballastSize(path string) (uint64, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() {
		return 0, fmt.Errorf("%s is not a file", path)
	}
	return min(uint64(s.Blocks)*512, uint64(info.Size())), nil
}

// fillFile makes a file that holds its size of the disk. Where the system
// reserves nothing it is filled with bytes that do not compress.
func fillFile(path string, size int64) (err error) {
	f, err := durable.OS.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Allocate(size); err != nil {
		return err
	}
	if held, err := ballastSize(path); err == nil && held >= uint64(size) {
		return f.Sync()
	}
	if _, err := io.CopyN(f, rand.Reader, size); err != nil {
		return err
	}
	return f.Sync()
}
