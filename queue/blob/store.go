package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/queue"
)

// Store is a node's blobs, used by one process at a time.
type Store struct {
	*start
	fs      durable.FS
	dir     string // the first root's
	segment int64
	adding  sync.Mutex
	roots   atomic.Pointer[[]*root] // never empty; the first one is the node's own

	kept kept
}

// Open starts a new boot generation over a directory, which it makes if
// needed, and over the roots that were added to it; one that is missing is an
// error that says which. The generation is durable before any blob carries
// it; a crash in between skips a number.
func Open(fsys durable.FS, dir string) (*Store, error) { return OpenSized(fsys, dir, SegmentSize) }

// OpenSized is Open with segments of another size: a multiple of 512 bytes.
func OpenSized(fsys durable.FS, dir string, segment int64) (*Store, error) {
	if segment < 2*align || segment > 1<<31 || segment%align != 0 {
		return nil, fmt.Errorf("blob: a segment of %d bytes; choose %d", segment, SegmentSize)
	}
	s := &Store{start: new(start), fs: fsys, dir: dir, segment: segment}
	first, err := newRoot(fsys, dir, s.start, segment)
	if err != nil {
		return nil, err
	}
	list, err := s.readList()
	if err != nil {
		return nil, err
	}
	roots := []*root{first}
	for i, path := range list.Roots {
		if err := recognise(fsys, path, mark{list.Store, i + 1}); err != nil {
			return nil, err
		}
		r, err := newRoot(fsys, path, s.start, segment)
		if err != nil {
			return nil, err
		}
		roots = append(roots, r)
	}
	s.roots.Store(&roots)
	return s, s.count()
}

// count begins the next generation.
func (s *Store) count() error {
	counter := filepath.Join(s.dir, "generation")
	b, err := durable.ReadFile(s.fs, counter, 16)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("blob: %w", err)
	}
	last, err := strconv.ParseUint("0"+strings.TrimSpace(string(b)), 10, 32)
	if err != nil {
		return fmt.Errorf("blob: %s is unreadable; do not delete it, restore it: %w", counter, err)
	}
	s.gen = uint32(last) + 1
	if err := durable.WriteFile(s.fs, counter, []byte(strconv.FormatUint(uint64(s.gen), 10)+"\n")); err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	return nil
}

// Put implements queue.Blobs.
func (s *Store) Put(ctx context.Context, r io.Reader, atMost int64) (queue.Ref, error) {
	to, err := s.roomiest()
	if err != nil {
		return "", err
	}
	return to.put(ctx, r, atMost)
}

// roomiest is the root that is there and has most room.
func (s *Store) roomiest() (*root, error) {
	roots := *s.roots.Load()
	if len(roots) == 1 {
		return roots[0], nil
	}
	list, err := s.Roots()
	if err != nil {
		return nil, err
	}
	best := -1
	for i, r := range list {
		if r.Missing == "" && (best < 0 || r.Free > list[best].Free) {
			best = i
		}
	}
	if best < 0 {
		return nil, fmt.Errorf("blob: %w: %s", ErrNoRoot, list[0].Missing)
	}
	return roots[best], nil
}

// Open implements queue.Blobs. What is in no root is absent only if all roots
// are there.
func (s *Store) Open(ctx context.Context, ref queue.Ref, off int64) (io.ReadCloser, error) {
	var absent error
	roots := *s.roots.Load()
	for _, r := range roots {
		f, err := r.open(ctx, ref, off)
		if !errors.Is(err, queue.ErrNoBlob) {
			return f, err
		}
		absent = err
	}
	if len(roots) == 1 {
		return nil, absent
	}
	list, err := s.Roots()
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(list, func(r Root) bool { return r.Missing != "" }); i >= 0 {
		return nil, fmt.Errorf("blob: %s may lie in a root that is away: %w: %s", ref, ErrNoRoot, list[i].Missing)
	}
	return nil, absent
}

// Delete implements queue.Blobs. In a root that is away the blob stays until
// the sweep after a start.
func (s *Store) Delete(ctx context.Context, ref queue.Ref) error {
	if s.kept.postpone(ref) {
		return nil
	}
	return s.delete(ctx, ref)
}

func (s *Store) delete(ctx context.Context, ref queue.Ref) (err error) {
	for _, r := range *s.roots.Load() {
		err = errors.Join(err, r.delete(ctx, ref))
	}
	return err
}

// Sweep removes what earlier generations left and referenced does not know,
// and their temporary files. It may run while the store is used.
func (s *Store) Sweep(ctx context.Context, referenced func(queue.Ref) (bool, error)) (removed int, err error) {
	for _, r := range *s.roots.Load() {
		n, one := r.sweep(ctx, referenced)
		removed, err = removed+n, errors.Join(err, one)
	}
	return removed, err
}

// Compact copies the live blobs of full segments that hold little out into
// files of their own, under their references, and gives back the segments'
// room. It may run while the store is used. Segments of earlier starts are
// known to it after a Sweep.
func (s *Store) Compact(ctx context.Context) (segments int, err error) {
	for _, r := range *s.roots.Load() {
		n, one := r.compact(ctx)
		segments, err = segments+n, errors.Join(err, one)
	}
	return segments, err
}

// Each visits every blob that is kept, in no particular order, one that lies
// in two places perhaps twice. It may run while the store is used: what comes
// or goes meanwhile may be missing. A segment with something in it that is no
// record is named in damaged.
func (s *Store) Each(ctx context.Context, visit func(ref queue.Ref, size int64) error) (damaged []string, err error) {
	for _, r := range *s.roots.Load() {
		names, err := r.each(ctx, visit)
		damaged = append(damaged, names...)
		if err != nil {
			return damaged, err
		}
	}
	return damaged, nil
}
