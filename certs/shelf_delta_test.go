package certs

import (
	"bytes"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// watchedDisk counts how often kept versions are read, and holds up whoever
// reads one while it is told to.
type watchedDisk struct {
	durable.FS
	reads  atomic.Int64
	holdUp atomic.Pointer[chan struct{}]
	asked  chan struct{}
}

func (d *watchedDisk) Open(name string) (durable.File, error) {
	if strings.HasSuffix(name, copySuffix) && strings.Contains(name, shelfDir) {
		d.reads.Add(1)
		if hold := d.holdUp.Load(); hold != nil {
			d.asked <- struct{}{}
			<-*hold
		}
	}
	return d.FS.Open(name)
}

func newWatchedShelf(t *testing.T, versions int) (*watchedDisk, *Shelf, *history) {
	h := newHistory(newForge(t, "updates"))
	disk := &watchedDisk{FS: durable.OS, asked: make(chan struct{}, 64)}
	s, err := OpenShelf(disk, t.TempDir(), testClock)
	h.f.must(err)
	_, err = s.Trust(h.f.root.Raw, h.next())
	h.f.must(err)
	for range versions - 1 {
		_, err := s.Install(h.next())
		h.f.must(err)
	}
	disk.reads.Store(0)
	return disk, s, h
}

// TestUpdatesAreMadeOnce: ten links whose neighbours have the same version get
// the same bytes, made once, and those of another version theirs.
func TestUpdatesAreMadeOnce(t *testing.T) {
	disk, s, h := newWatchedShelf(t, 3)
	var wait sync.WaitGroup
	got := make([][]byte, 20)
	for i := range got {
		wait.Go(func() {
			b, err := s.Delta(uint64(1 + i%2))
			if err != nil {
				t.Error(err)
			}
			got[i] = b
		})
	}
	wait.Wait()
	for i, b := range got {
		if len(b) == 0 || !bytes.Equal(b, got[i%2]) {
			t.Errorf("link %d got other bytes", i)
		}
	}
	if n := disk.reads.Load(); n != 2 {
		t.Errorf("%d reads for two versions", n)
	}
	_, err := s.Install(h.next())
	h.f.must(err)
	if b, err := s.Delta(1); err != nil || bytes.Equal(b, got[0]) {
		t.Errorf("the update to a version that was replaced: %v", err)
	}
	if b, err := s.Delta(99); b != nil || err != nil {
		t.Errorf("from a version that is not here: %d bytes, %v", len(b), err)
	}
}

// TestInstallingGoesOnWhileAnUpdateIsMade: a slow disk keeps no new directory
// waiting, nor updates that are ready.
func TestInstallingGoesOnWhileAnUpdateIsMade(t *testing.T) {
	disk, s, h := newWatchedShelf(t, 3)
	ready, err := s.Delta(2)
	h.f.must(err)
	hold := make(chan struct{})
	disk.holdUp.Store(&hold)
	slow := make(chan []byte, 1)
	go func() {
		b, err := s.Delta(1)
		if err != nil {
			t.Error(err)
		}
		slow <- b
	}()
	<-disk.asked
	disk.holdUp.Store(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if b, err := s.Delta(2); err != nil || !bytes.Equal(b, ready) {
			t.Errorf("what is ready: %v", err)
		}
		if _, err := s.Install(h.next()); err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("an installation waits for a slow disk")
	}
	close(hold)
	if b := <-slow; len(b) == 0 {
		t.Error("the slow one got nothing")
	}
	if b, err := s.Delta(1); err != nil || !bytes.Contains(b, []byte("more3")) {
		t.Errorf("an update to the version before is given for the one in force: %v", err)
	}
}

// TestReadyUpdatesAreBounded: in number and in bytes.
func TestReadyUpdatesAreBounded(t *testing.T) {
	var u updates
	to := newDirectory()
	for from := range uint64(2 * readyUpdates) {
		u.put(from, to, []byte{byte(from)})
	}
	if len(u.list) != readyUpdates || u.bytes != readyUpdates {
		t.Errorf("%d updates, %d bytes", len(u.list), u.bytes)
	}
	big := make([]byte, readyBytes/2+1)
	u.put(100, to, big)
	u.put(101, to, big)
	if _, ok := u.get(100, to); ok || len(u.list) != 1 || u.bytes != len(big) {
		t.Errorf("%d updates, %d bytes", len(u.list), u.bytes)
	}
}
