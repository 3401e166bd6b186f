package certs

import (
	"bytes"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/internal/durable/crashfs"
)

// TestShelfFaults: a disk that refuses a change leaves the old directory in
// force, and the next attempt succeeds.
func TestShelfFaults(t *testing.T) {
	h := newHistory(newForge(t, "faults"))
	h.entries = nil
	v1, v2 := h.next(), h.next()
	for at := range 40 {
		disk := emptyDisk(uint64(at))
		s := openShelf(t, disk)
		_, err := s.Trust(h.f.root.Raw, v1)
		h.f.must(err)
		n := 0
		disk.Before = func(string, string) error {
			if n++; n == at+1 {
				return crashfs.ErrInjected()
			}
			return nil
		}
		_, err = s.Install(v2)
		disk.Before = nil
		if err != nil && versionOf(s) != 1 {
			t.Fatalf("fault %d: %v, and version %d is in force", at, err, versionOf(s))
		}
		if _, err := s.Install(v2); err != nil || versionOf(s) != 2 || versionOf(openShelf(t, disk)) != 2 {
			t.Fatalf("fault %d: %v", at, err)
		}
	}
}

// TestShelfRot (I8): a directory file that rots is noticed, shown, and replaced
// by its copy; when that is gone, too, nothing older takes its place.
func TestShelfRot(t *testing.T) {
	h := newHistory(newForge(t, "rot"))
	disk := emptyDisk(1)
	s := openShelf(t, disk)
	_, err := s.Trust(h.f.root.Raw, h.next())
	h.f.must(err)
	_, err = s.Install(h.next())
	h.f.must(err)
	file := filepath.Join("data", directoryName)
	h.f.must(disk.Corrupt(file, 12345))
	again := openShelf(t, disk)
	if versionOf(again) != 2 || again.Restored() == nil {
		t.Errorf("version %d, %v", versionOf(again), again.Restored())
	}
	if third := openShelf(t, disk); third.Restored() != nil {
		t.Errorf("not mended: %v", third.Restored())
	}
	h.f.must(disk.Corrupt(file, 12345))
	h.f.must(disk.Corrupt(again.copyOf(2), 999))
	if _, err := OpenShelf(disk, "data", testClock); err == nil {
		t.Error("rolled back by rot")
	}
	h.f.must(disk.Corrupt(again.copyOf(1), 999))
	if _, err := again.Delta(1); err == nil {
		t.Error("an update from a rotten version")
	}
}

// TestShelfReload: what another process installs comes into force, and what is
// older or refused does not.
func TestShelfReload(t *testing.T) {
	h := newHistory(newForge(t, "reload"))
	disk := emptyDisk(1)
	serving, installing := openShelf(t, disk), openShelf(t, disk)
	v1, v2, v3 := h.next(), h.next(), h.next()
	_, err := installing.Trust(h.f.root.Raw, v1)
	h.f.must(err)
	d, err := serving.Reload()
	if err != nil || d.Version() != 1 || versionOf(serving) != 1 {
		t.Fatalf("reload: %v", err)
	}
	_, err = installing.Install(v2)
	h.f.must(err)
	if d, err := serving.Install(v3); err != nil || d.Version() != 3 {
		t.Fatalf("install after another: %v", err)
	}
	if _, err := installing.Install(v2); !errors.Is(err, ErrRollback) {
		t.Errorf("rollback by another process: %v", err)
	}
	// The whole folder is put back to an earlier state while serving.
	for _, name := range []string{directoryName, versionFile} {
		h.f.must(disk.Remove(filepath.Join("data", name)))
	}
	h.f.must(durable.WriteFile(disk, filepath.Join("data", directoryName), v2))
	if _, err := serving.Reload(); !errors.Is(err, ErrRollback) || versionOf(serving) != 3 {
		t.Errorf("rolled back: %v, version %d", err, versionOf(serving))
	}
}

// TestShelfJudgesWhatIsCopiedByHand: a directory file that was put in its place
// is judged by the version before, too, while a node runs and when it starts.
func TestShelfJudgesWhatIsCopiedByHand(t *testing.T) {
	f := newForge(t, "by hand")
	zhang, byZhang := f.person("zhang-san")
	h := newHistory(f)
	v1 := h.next()
	h.approve = []approver{byZhang}
	v2 := h.next(zhang, policy(1))
	approved := *h
	v3 := h.next()
	*h = approved
	h.approve, h.entries = nil, f.usual()
	alone := h.next() // the authority's key alone, without the policy
	*h = approved
	h.version, h.before, h.entries = 1, f.idOf(v1), append(f.usual(), zhang, policy(1))
	fork := h.next()
	for name, tt := range map[string]struct {
		file []byte
		code string
	}{"approved": {v3, ""}, "by the authority alone": {alone, "directory_approval"}, "another history": {fork, "directory_fork"}} {
		t.Run(name, func(t *testing.T) {
			disk := emptyDisk(1)
			s := openShelf(t, disk)
			_, err := s.Trust(f.root.Raw, v1)
			f.must(err)
			_, err = s.Install(v2)
			f.must(err)
			f.must(durable.WriteFile(disk, filepath.Join("data", directoryName), tt.file))
			_, err = s.Reload()
			wantCode(t, err, tt.code)
			again := openShelf(t, disk)
			if tt.code == "" {
				if versionOf(s) != 3 || versionOf(again) != 3 {
					t.Error("not in force")
				}
				return
			}
			wantCode(t, again.Restored(), tt.code)
			if versionOf(s) != 2 || !bytes.Equal(again.Current().Raw(), v2) {
				t.Errorf("versions %d, %d", versionOf(s), versionOf(again))
			}
		})
	}
}

// idOf is the SM3 of the list of a directory file.
func (f *forge) idOf(file []byte) sm.Digest {
	d, err := LoadDirectory(file, f.root.Raw, 0, testNow)
	f.must(err)
	return d.id
}

// TestDataBeforeTheShelf: the three files of earlier data directories are
// opened as they are.
func TestDataBeforeTheShelf(t *testing.T) {
	h := newHistory(newForge(t, "earlier"))
	disk := emptyDisk(1)
	v1, v2 := h.next(), h.next()
	for name, b := range map[string][]byte{authorityFile: pemOf(h.f.root.Raw), directoryName: v1, versionFile: []byte("1\n")} {
		h.f.must(durable.WriteFile(disk, filepath.Join("data", name), b))
	}
	s := openShelf(t, disk)
	if versionOf(s) != 1 {
		t.Fatal("not opened")
	}
	_, err := s.Install(v2)
	h.f.must(err)
	if u, err := s.Delta(1); err != nil || u == nil {
		t.Errorf("no update from the version before the shelf: %v", err)
	}
	versions, err := s.versions()
	if err != nil || !slices.Equal(versions, []uint64{1, 2}) {
		t.Errorf("kept: %v, %v", versions, err)
	}
	h.f.must(durable.WriteFile(disk, filepath.Join("data", versionFile), []byte("seven\n")))
	if _, err := OpenShelf(disk, "data", testClock); err == nil {
		t.Error("an unreadable version counts as none")
	}
}
