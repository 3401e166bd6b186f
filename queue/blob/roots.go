package blob

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// Roots are added, never taken away: what they hold is named by records. The
// list of them lies in the first root; each of them carries a mark by which it
// is known, since a disk that is not mounted looks like an empty directory.
const (
	listFile = "roots.json"
	markFile = "root.json"
	maxRoots = 64
	maxList  = 256 << 10
	maxMark  = 4 << 10
)

// ErrNoRoot is returned when a root is not where it was added.
var ErrNoRoot = errors.New("a directory of blobs is missing; mount its disk · 缺少数据目录，请挂载其磁盘")

// ErrUnfit is returned for a directory that cannot become a root.
var ErrUnfit = errors.New("cannot hold blobs")

// Root is one of a store's directories. Missing says why it cannot be used.
type Root struct {
	Path    string `json:"path"`
	Free    int64  `json:"free"` // bytes
	Missing string `json:"missing,omitempty"`
}

// list is what listFile holds: the roots besides the first.
type list struct {
	Store string   `json:"store"` // by which the roots know whose they are
	Roots []string `json:"roots"`
}

// mark is what markFile holds: a root knows whose it is and which.
type mark struct {
	Store string `json:"store"`
	Root  int    `json:"root"` // 1 for the first that was added
}

// Added names the roots besides the first of a directory that is not open.
func Added(fsys durable.FS, dir string) ([]string, error) {
	l, err := readList(fsys, dir)
	return l.Roots, err
}

func (s *Store) readList() (list, error) { return readList(s.fs, s.dir) }

func readList(fsys durable.FS, dir string) (l list, err error) {
	b, err := durable.ReadFile(fsys, filepath.Join(dir, listFile), maxList)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &l)
	}
	if err == nil && (l.Store == "" || len(l.Roots) >= maxRoots || slices.ContainsFunc(l.Roots, func(p string) bool { return !filepath.IsAbs(p) })) {
		err = errors.New("not a list of roots")
	}
	if err != nil {
		return l, fmt.Errorf("blob: %s is unreadable; do not delete it, restore it: %w", filepath.Join(dir, listFile), err)
	}
	return l, nil
}

func (s *Store) writeJSON(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(s.fs, name, append(b, '\n')); err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	return nil
}

// recognise makes sure that a root is what was added under that path.
func recognise(fsys durable.FS, path string, want mark) error {
	b, err := durable.ReadFile(fsys, filepath.Join(path, markFile), maxMark)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("blob: %w: %s has no %s", ErrNoRoot, path, markFile)
	}
	var got mark
	if err == nil {
		err = json.Unmarshal(b, &got)
	}
	if err != nil {
		return fmt.Errorf("blob: %w: %s: %w", ErrNoRoot, path, err)
	}
	if got != want {
		return fmt.Errorf("blob: %w: in %s lies another one", ErrNoRoot, path)
	}
	return nil
}

// Roots tells the store's directories as they are now, the first one first.
func (s *Store) Roots() ([]Root, error) {
	l, err := s.readList()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, r := range *s.roots.Load() {
		dirs = append(dirs, r.dir)
	}
	return look(s.fs, l.Store, dirs), nil
}

// Look is Roots of a store that need not be open, by its first directory.
func Look(fsys durable.FS, dir string) ([]Root, error) {
	l, err := readList(fsys, dir)
	if err != nil {
		return nil, err
	}
	return look(fsys, l.Store, append([]string{dir}, l.Roots...)), nil
}

func look(fsys durable.FS, store string, dirs []string) []Root {
	out := make([]Root, 0, len(dirs))
	for i, dir := range dirs {
		one := Root{Path: dir}
		var away error
		if i > 0 {
			away = recognise(fsys, dir, mark{store, i})
		}
		if away == nil {
			one.Free, away = fsys.Free(dir)
		}
		if away != nil {
			one.Missing = away.Error()
		}
		out = append(out, one)
	}
	return out
}

// Add takes a directory that is empty, such as a new file system's, as another
// root. It may be called while the store is used, and again after it failed: a
// crash leaves a directory with this store's mark that is not yet in the list.
func (s *Store) Add(path string) error {
	s.adding.Lock()
	defer s.adding.Unlock()
	path = filepath.Clean(path)
	if err := s.fits(path); err != nil {
		return err
	}
	l, err := s.readList()
	if err != nil {
		return err
	}
	if l.Store == "" { // durable before any root carries it
		l.Store = rand.Text()
		if err := s.writeJSON(filepath.Join(s.dir, listFile), l); err != nil {
			return err
		}
	}
	own := mark{l.Store, len(l.Roots) + 1}
	if err := s.prepare(path, own); err != nil {
		return err
	}
	r, err := newRoot(s.fs, path, s.start, s.segment)
	if err != nil {
		return err
	}
	if err := s.syncUp(path); err != nil {
		return err
	}
	l.Roots = append(l.Roots, path)
	// A crash before this leaves the root unknown and empty; after it, every
	// start wants it. No blob goes there before the list is durable.
	if err := s.writeJSON(filepath.Join(s.dir, listFile), l); err != nil {
		return err
	}
	roots := append(slices.Clone(*s.roots.Load()), r)
	s.roots.Store(&roots)
	return nil
}

// syncUp makes the names durable that lead to a root, and those of the
// directories in it: whoever made it need not have, nor an Add that a crash
// ended. A power cut that takes a root's name back takes every blob in it along.
func (s *Store) syncUp(path string) error {
	for dir := path; ; dir = filepath.Dir(dir) {
		err := s.fs.SyncDir(dir)
		if errors.Is(err, syscall.EINVAL) && dir != path {
			return nil // an automounter's: what is mounted in it has its name from elsewhere
		}
		if err != nil {
			return fmt.Errorf("blob: %s %w: the names in %s cannot be made durable: %w", path, ErrUnfit, dir, err)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// fits refuses what is no place for a root before anything is written.
func (s *Store) fits(path string) error {
	roots := *s.roots.Load()
	if !filepath.IsAbs(path) {
		return fmt.Errorf("blob: %s %w: name it from / on", path, ErrUnfit)
	}
	if len(roots) >= maxRoots {
		return fmt.Errorf("blob: %s %w: there are %d roots, no more are possible", path, ErrUnfit, len(roots))
	}
	for _, r := range roots {
		if inside(path, r.dir) || inside(r.dir, path) {
			return fmt.Errorf("blob: %s %w: it and %s lie in one another", path, ErrUnfit, r.dir)
		}
	}
	return nil
}

func inside(a, b string) bool {
	return a == b || strings.HasPrefix(a, strings.TrimSuffix(b, "/")+"/")
}

// prepare marks a directory as this store's.
func (s *Store) prepare(path string, own mark) error {
	names, err := s.fs.ReadDir(path)
	if err != nil {
		return fmt.Errorf("blob: %s %w: %w", path, ErrUnfit, err)
	}
	if slices.Contains(names, markFile) {
		if err := recognise(s.fs, path, own); err != nil {
			return fmt.Errorf("blob: %s %w: it belongs to another node, or to this one under another path", path, ErrUnfit)
		}
		return nil
	}
	for _, name := range names {
		if name != "lost+found" && name != markFile+".tmp" {
			return fmt.Errorf("blob: %s %w: it is not empty", path, ErrUnfit)
		}
	}
	return s.writeJSON(filepath.Join(path, markFile), own)
}
