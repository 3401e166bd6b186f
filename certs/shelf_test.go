package certs

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/internal/durable/crashfs"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

func testClock() time.Time { return testNow }

// history makes versions one after the other, each with one node more.
type history struct {
	f       *forge
	entries []any
	version uint64
	before  sm.Digest
	list    func(*list)
	approve []approver
}

func newHistory(f *forge) *history { return &history{f: f, entries: f.usual()} }

// next gives the file of the next version.
func (h *history) next(more ...any) []byte {
	h.entries = append(h.entries, h.f.node(fmt.Sprintf("more%d", h.version)))
	h.entries = append(h.entries, more...)
	d := h.f.draft(h.entries...)
	h.version++
	d.list.Version, d.list.Previous, d.approve = h.version, h.before, h.approve
	d.list.Issued = strictjson.TimeOf(testNow.Add(time.Duration(h.version) * time.Minute))
	if h.list != nil {
		h.list(&d.list)
	}
	content, err := strictjson.Marshal(&d.list)
	h.f.must(err)
	h.before = sm.Sum(content)
	return h.f.sign(d)
}

func openShelf(t testing.TB, fsys durable.FS) *Shelf {
	t.Helper()
	s, err := OpenShelf(fsys, "data", testClock)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func emptyDisk(seed uint64) *crashfs.FS {
	fsys := crashfs.New(rand.New(rand.NewPCG(seed, 1)))
	_ = fsys.MkdirAll("data") // cannot fail in memory
	return fsys
}

func versionOf(s *Shelf) uint64 { return s.version() }

func TestShelf(t *testing.T) {
	h := newHistory(newForge(t, "shelf"))
	disk := emptyDisk(1)
	s := openShelf(t, disk)
	if s.Current() != nil {
		t.Fatal("a directory from nowhere")
	}
	first := h.next()
	if _, err := s.Install(first); err == nil {
		t.Fatal("installed without anybody's trust")
	}
	if _, err := s.Take([]byte(`{}`)); err == nil {
		t.Fatal("took an update of nothing")
	}
	d, err := s.Trust(h.f.root.Raw, first)
	h.f.must(err)
	if d.Version() != 1 || s.Current() != d {
		t.Fatal("not in force")
	}
	files := [][]byte{first}
	for range kept + 4 {
		file := h.next()
		files = append(files, file)
		d, err := s.Install(file)
		h.f.must(err)
		if s.Current() != d || d.Version() != h.version {
			t.Fatal("not in force")
		}
		if again := openShelf(t, disk); versionOf(again) != h.version || again.Restored() != nil {
			t.Fatalf("version %d after opening again, %v", versionOf(again), again.Restored())
		}
	}
	// The version in force again is nothing new; older ones are refused.
	for i, file := range files {
		_, err := s.Install(file)
		if i == len(files)-1 {
			wantCode(t, err, "")
		} else {
			wantCode(t, err, "directory_rollback")
		}
	}
	names, err := disk.ReadDir(filepath.Join("data", shelfDir))
	if err != nil || len(names) != kept+1 {
		t.Errorf("%d versions are kept: %v, %v", len(names), names, err)
	}
	whole, err := s.Delta(0)
	h.f.must(err)
	for _, from := range []int{1, len(files) - 1} {
		other := openShelf(t, emptyDisk(uint64(from)))
		_, err = other.Trust(h.f.root.Raw, files[from-1])
		h.f.must(err)
		if d, err := other.Take(whole); err != nil || !bytes.Equal(d.Raw(), s.Current().Raw()) {
			t.Errorf("every entry, from %d: %v", from, err)
		}
	}
	for from := uint64(1); from <= h.version+1; from++ {
		delta, err := s.Delta(from)
		h.f.must(err)
		if (delta != nil) != (from == 0 || from+kept >= h.version && from < h.version) {
			t.Errorf("from %d: an update %v", from, delta != nil)
		}
		if delta == nil {
			continue
		}
		there := emptyDisk(from)
		other := openShelf(t, there)
		_, err = other.Trust(h.f.root.Raw, files[max(from, 1)-1])
		h.f.must(err)
		d, err := other.Take(delta)
		h.f.must(err)
		if !bytes.Equal(d.Raw(), s.Current().Raw()) || other.Current() != d {
			t.Errorf("from %d: another directory", from)
		}
		if _, err := other.Take(delta); err != nil {
			t.Errorf("from %d: the same update again: %v", from, err)
		}
		if from > 0 && len(delta) >= len(s.Current().Raw()) {
			t.Errorf("from %d: the update is as long as the directory", from)
		}
	}
}

func TestShelfRefuses(t *testing.T) {
	h := newHistory(newForge(t, "shelf refuses"))
	s := openShelf(t, emptyDisk(1))
	_, err := s.Trust(h.f.root.Raw, h.next())
	h.f.must(err)
	_, err = s.Install(h.next())
	h.f.must(err)
	saved := *h
	in := s.Current()
	for _, tt := range []struct {
		name string
		list func(*list)
		code string
	}{
		{"another history", func(l *list) { l.Previous = sm.Sum([]byte("x")) }, "directory_fork"},
		{"no history", func(l *list) { l.Previous = sm.Digest{} }, "directory_fork"},
		{"issued before", func(l *list) { l.Issued = 1 }, "directory_fork"},
		{"the same version with other content", func(l *list) { l.Version = 2 }, "directory_fork"},
		{"an older version", func(l *list) { l.Version = 1 }, "directory_rollback"},
		{"skips versions", func(l *list) { l.Version, l.Previous = 9, sm.Sum([]byte("unknown here")) }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			*h = saved
			h.list = tt.list
			_, err := s.Install(h.next())
			wantCode(t, err, tt.code)
			if err != nil && s.Current() != in {
				t.Error("the refused one is in force")
			}
		})
	}
	other := newForge(t, "another domain")
	d := other.draft()
	d.list.Domain, d.list.Version = "别的域", 99
	if _, err := s.Trust(other.root.Raw, other.sign(d)); err != nil {
		t.Errorf("a person may begin anew: %v", err)
	}
	d.list.Version = 98
	_, err = s.Trust(other.root.Raw, other.sign(d))
	wantCode(t, err, "directory_rollback")
	_, err = s.Install(h.next())
	wantCode(t, err, "directory_signature")
}

func TestRefusedDeltas(t *testing.T) {
	h := newHistory(newForge(t, "deltas"))
	s := openShelf(t, emptyDisk(1))
	_, err := s.Trust(h.f.root.Raw, h.next())
	h.f.must(err)
	behind := openShelf(t, emptyDisk(2))
	_, err = behind.Trust(h.f.root.Raw, s.Current().Raw())
	h.f.must(err)
	for range 3 {
		_, err = s.Install(h.next())
		h.f.must(err)
	}
	good, err := s.Delta(1)
	h.f.must(err)
	late, err := s.Delta(3)
	h.f.must(err)
	change := func(f func(*delta)) []byte {
		u, err := parseDelta(good)
		h.f.must(err)
		f(u)
		b, err := strictjson.Marshal(u)
		h.f.must(err)
		return b
	}
	stranger := newForge(t, "stranger")
	for _, tt := range []struct {
		name   string
		update []byte
		code   string
	}{
		{"nothing", nil, "directory_delta"},
		{"a directory", s.Current().Raw(), "directory_delta"},
		{"for whom knows more", late, "directory_delta"},
		{"version 2", change(func(u *delta) { u.V = 2 }), "directory_delta"},
		{"must be understood", change(func(u *delta) {
			u.Crit, u.Extra = []string{"later"}, strictjson.Extra{{Name: "later", Value: raw("1")}}
		}), "directory_delta"},
		{"an entry missing", change(func(u *delta) { u.Entries = u.Entries[1:] }), "directory_delta"},
		{"an entry too many", change(func(u *delta) { u.Entries = append(u.Entries, raw(`{"type":"later","v":1}`)) }), "directory_delta"},
		{"an entry twice", change(func(u *delta) { u.Entries = append(u.Entries, u.Entries[0]) }), "directory_delta"},
		{"an entry changed", change(func(u *delta) {
			u.Entries[0] = bytes.Replace(u.Entries[0], []byte("more"), []byte("less"), 1)
		}), "directory_delta"},
		{"a list by somebody else", change(func(u *delta) {
			f, err := parseFile(stranger.sign(stranger.draft()))
			h.f.must(err)
			u.List = f.List
		}), "directory_signature"},
		{"a list that is none", change(func(u *delta) { u.List = []byte("x") }), "directory_signature"},
		{"an approval that is none", change(func(u *delta) { u.Approvals = [][]byte{[]byte("x")} }), "directory_approval"},
		{"from elsewhere", change(func(u *delta) { u.From = 77 }), ""}, // what counts is that it fits
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := behind.Take(tt.update)
			wantCode(t, err, tt.code)
			if err != nil && versionOf(behind) != 1 {
				t.Error("the refused one is in force")
			}
		})
	}
	_, err = s.Install(h.next())
	h.f.must(err)
	_, err = s.Take(good) // older than what is in force
	wantCode(t, err, "directory_rollback")
	for i := range good {
		if i%31 == 0 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << (i % 8)
			fresh := openShelf(t, emptyDisk(3))
			if _, err := fresh.Trust(h.f.root.Raw, mustVersion(t, behind, 1)); err != nil {
				t.Fatal(err)
			}
			if d, err := fresh.Take(bad); err == nil && !bytes.Equal(d.Raw(), behind.Current().Raw()) {
				t.Errorf("byte %d flipped: accepted", i)
			}
		}
	}
}

func mustVersion(t *testing.T, s *Shelf, version uint64) []byte {
	t.Helper()
	b, err := durable.ReadFile(s.fs, s.copyOf(version), MaxDirectory)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var errPower = errors.New("power")

// TestShelfCrashes cuts the power before and after every change of the disk,
// in the middle of each kind of installation: afterwards the old directory is
// in force or the new one, and the same step again succeeds.
func TestShelfCrashes(t *testing.T) {
	h := newHistory(newForge(t, "crashes"))
	h.entries = nil // hundreds of directories are loaded
	v1, v2 := h.next(), h.next()
	before := *h
	heir, signed := h.f.heir()
	h.f = heir
	h.entries = nil
	h.list = func(l *list) { l.Succession = [][]byte{signed} }
	v3 := h.next()
	other := newForge(t, "another authority")
	anew := newHistory(other)
	anew.entries, anew.version = nil, 8
	v9 := anew.next()
	old := before.f.root.Raw

	begin := func(files ...[]byte) func(*Shelf) error {
		return func(s *Shelf) error {
			_, err := s.Trust(old, files[0])
			for _, f := range files[1:] {
				if err == nil {
					_, err = s.Install(f)
				}
			}
			return err
		}
	}
	nothing := func(*Shelf) error { return nil }
	tests := []struct {
		name     string
		setup    func(*Shelf) error
		step     func(*Shelf) error
		from, to uint64
	}{
		{"the first", nothing, begin(v1), 0, 1},
		{"the next", begin(v1), func(s *Shelf) error { _, err := s.Install(v2); return err }, 1, 2},
		{"an update", begin(v1), func(s *Shelf) error {
			u := deltaBetween(t, v1, v2, old)
			_, err := s.Take(u)
			return err
		}, 1, 2},
		{"of an heir", begin(v1, v2), func(s *Shelf) error { _, err := s.Install(v3); return err }, 2, 3},
		{"of another authority", begin(v1, v2), func(s *Shelf) error { _, err := s.Trust(other.root.Raw, v9); return err }, 2, 9},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cuts := 0
			for at := 0; ; at++ {
				disk := emptyDisk(uint64(at))
				if err := tt.setup(openShelf(t, disk)); err != nil {
					t.Fatal(err)
				}
				s := openShelf(t, disk)
				if cutAt(disk, at, func() error { return tt.step(s) }) {
					break // the step has fewer changes
				}
				cuts++
				looked, err := looking(t, disk)
				if err != nil {
					t.Fatalf("power cut %d: %v", at, err)
				}
				again := openShelf(t, disk)
				if looked != versionOf(again) {
					t.Fatalf("power cut %d: looking gives version %d, opening %d", at, looked, versionOf(again))
				}
				if v := versionOf(again); v != tt.from && v != tt.to {
					t.Fatalf("power cut %d: version %d is in force, not %d or %d", at, v, tt.from, tt.to)
				}
				if again.Restored() != nil {
					t.Fatalf("power cut %d: %v", at, again.Restored())
				}
				if err := tt.step(again); err != nil {
					t.Fatalf("power cut %d: the step again: %v", at, err)
				}
				if final := openShelf(t, disk); versionOf(final) != tt.to {
					t.Fatalf("power cut %d: version %d in the end", at, versionOf(final))
				}
			}
			if cuts < 10 {
				t.Errorf("only %d power cuts", cuts)
			}
		})
	}
}

// looking gives the version in force without a change of the disk.
func looking(t *testing.T, disk *crashfs.FS) (uint64, error) {
	disk.Before = func(op, name string) error {
		t.Errorf("looking makes a change: %s %s", op, name)
		return nil
	}
	defer func() { disk.Before = nil }()
	d, err := InForce(disk, "data", testClock)
	if d == nil || err != nil {
		return 0, err
	}
	return d.Version(), nil
}

// cutAt runs a step and cuts the power at one change of the disk: before it
// for an even number, after it for an odd one. It says whether the step was
// over before.
func cutAt(disk *crashfs.FS, at int, step func() error) (over bool) {
	n := 0
	hook := func(parity int) func(string, string) error {
		return func(string, string) error {
			if n == at && n%2 == parity {
				panic(errPower)
			}
			n++
			return nil
		}
	}
	disk.Before, disk.After = hook(0), hook(1)
	defer func() {
		disk.Before, disk.After = nil, nil
		if r := recover(); r == errPower {
			disk.Crash()
		} else if r != nil {
			panic(r)
		}
	}()
	if err := step(); err != nil {
		panic(err)
	}
	return true
}

func deltaBetween(t *testing.T, from, to, authority []byte) []byte {
	t.Helper()
	a, err := LoadDirectory(from, authority, 0, testNow)
	if err != nil {
		t.Fatal(err)
	}
	b, err := LoadDirectory(to, authority, 0, testNow)
	if err != nil {
		t.Fatal(err)
	}
	u, err := b.deltaFrom(a.Version(), a.list.Entries)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
