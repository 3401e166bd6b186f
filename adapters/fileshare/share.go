package fileshare

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"
)

// share is the directory, reached through descriptors. Paths below it are of raw
// bytes, with slashes; "." is the share itself. No link is followed: each folder on
// the way is looked at and then opened, and is the one that was looked at.
type share struct {
	path     string
	sentinel string
	reserved []string // what no list may name: the sentinel, the import's own folders
	root     *os.Root
	self     fs.FileInfo

	mu   sync.Mutex
	dirs map[string]*os.Root // that stay open until the end of a run
}

const maxOpenDirs = 128

// errLink: a link, or something else that is neither file nor folder.
var errLink = errors.New("fileshare: not a regular file or folder")

// openShare opens the share for one run. Without its sentinel it is not there.
func openShare(c *Config) (*share, error) {
	root, err := os.OpenRoot(c.Share)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrShareGone, err)
	}
	s := &share{path: c.Share, sentinel: c.Sentinel, reserved: []string{c.Archive, c.Quarantine}, root: root, dirs: map[string]*os.Root{".": root}}
	if !c.SentinelCounts {
		s.reserved = append(s.reserved, c.Sentinel)
	}
	if s.self, err = root.Stat("."); err == nil {
		err = s.seeSentinel(root)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrShareGone, err), s.close())
	}
	return s, nil
}

func (s *share) seeSentinel(root *os.Root) error {
	info, err := root.Lstat(s.sentinel)
	if err == nil && !info.Mode().IsRegular() {
		err = errLink
	}
	if err != nil {
		return fmt.Errorf("its sentinel %q: %w", s.sentinel, err)
	}
	return nil
}

// there looks anew whether the path still leads to this share. It is asked before
// anything is concluded from a file that is missing.
func (s *share) there() error {
	root, err := os.OpenRoot(s.path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrShareGone, err)
	}
	defer root.Close()
	info, err := root.Stat(".")
	if err == nil {
		err = s.seeSentinel(root)
	}
	if err == nil && !os.SameFile(info, s.self) {
		err = errors.New("another directory is in its place")
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrShareGone, err)
	}
	return nil
}

func (s *share) close() (err error) {
	for _, d := range s.dirs {
		err = errors.Join(err, d.Close())
	}
	return err
}

// dir opens a folder. Many stay open for the run; done lets go of the others.
func (s *share) dir(at string) (root *os.Root, done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.dirs[at]; d != nil {
		return d, func() {}, nil
	}
	from := s.root
	for part := range strings.SplitSeq(at, "/") {
		next, err := enter(from, part)
		if from != s.root {
			from.Close()
		}
		if err != nil {
			return nil, nil, err
		}
		from = next
	}
	if len(s.dirs) < maxOpenDirs {
		s.dirs[at] = from
		return from, func() {}, nil
	}
	return from, func() { from.Close() }, nil
}

// enter opens a folder in another one that is no link, and was none meanwhile.
func enter(from *os.Root, name string) (*os.Root, error) {
	if name == "" || name == ".." || name == "." {
		return nil, errLink
	}
	before, err := from.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !before.IsDir() {
		return nil, errLink
	}
	next, err := from.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	after, err := next.Stat(".")
	if err == nil && !os.SameFile(before, after) {
		err = errLink
	}
	if err != nil {
		next.Close()
		return nil, err
	}
	return next, nil
}

// lstat looks at a file.
func (s *share) lstat(at string) (fs.FileInfo, error) {
	d, done, err := s.dir(path.Dir(at))
	if err != nil {
		return nil, err
	}
	defer done()
	return d.Lstat(path.Base(at))
}

// open opens a regular file for reading, and waits for nobody: a pipe would hold it
// for ever.
func (s *share) open(at string) (*os.File, fs.FileInfo, error) {
	d, done, err := s.dir(path.Dir(at))
	if err != nil {
		return nil, nil, err
	}
	defer done()
	before, err := d.Lstat(path.Base(at))
	if err != nil {
		return nil, nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, nil, errLink
	}
	f, err := d.OpenFile(path.Base(at), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	after, err := f.Stat()
	if err == nil && !os.SameFile(before, after) {
		err = errLink
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, after, nil
}

// list gives the names in a folder in portions, in the order of the disk.
func (s *share) list(at string, each func(fs.DirEntry) error) error {
	d, done, err := s.dir(at)
	if err != nil {
		return err
	}
	defer done()
	f, err := d.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		entries, err := f.ReadDir(1024)
		for _, e := range entries {
			if err := each(e); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// mkdir makes a folder and those above it.
func (s *share) mkdir(at string) error {
	walked := "."
	for part := range strings.SplitSeq(at, "/") {
		d, done, err := s.dir(walked)
		if err != nil {
			return err
		}
		err = d.Mkdir(part, 0o750)
		done()
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		walked = path.Join(walked, part)
	}
	return nil
}

// move renames within the share. What is there under the new name stays: the file gets
// another one.
func (s *share) move(from, to string) error {
	if err := s.mkdir(path.Dir(to)); err != nil {
		return err
	}
	a, doneA, err := s.dir(path.Dir(from))
	if err != nil {
		return err
	}
	defer doneA()
	b, doneB, err := s.dir(path.Dir(to))
	if err != nil {
		return err
	}
	defer doneB()
	name := path.Base(to)
	for n := 2; ; n++ {
		if _, err := b.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return err
		}
		ext := path.Ext(path.Base(to))
		name = fmt.Sprintf("%s~%d%s", strings.TrimSuffix(path.Base(to), ext), n, ext)
	}
	return renameAt(a, path.Base(from), b, name)
}

// renameAt goes through descriptors of both folders, so that nobody leads it elsewhere.
func renameAt(a *os.Root, from string, b *os.Root, to string) error {
	fa, err := a.Open(".")
	if err != nil {
		return err
	}
	defer fa.Close()
	fb, err := b.Open(".")
	if err != nil {
		return err
	}
	defer fb.Close()
	if err := syscall.Renameat(int(fa.Fd()), from, int(fb.Fd()), to); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// sync makes the names in a folder durable.
func (s *share) sync(at string) error {
	d, done, err := s.dir(at)
	if err != nil {
		return err
	}
	defer done()
	return syncDir(d)
}

func syncDir(d *os.Root) error {
	f, err := d.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
