// Package blob keeps write-once byte strings of up to 8 MiB, durable before Put
// returns. It implements queue.Blobs.
//
// What is shorter than 1 MiB is appended to a segment, a preallocated file that
// many blobs share: all that wait at the same time are written and synced at
// once. Longer ones are files of their own: written under a temporary name,
// fsynced, renamed, their directory fsynced.
//
// A reference is the boot generation of the process that wrote the blob and a
// number, "g00000003-000000000000002a", or a place in a segment,
// "s00000003-00000001-00004200-00002800" (generation, segment, offset, length).
// What no record refers to is swept in the background; only generations before
// the running one are looked at, so that a blob whose record is just being
// committed is never taken away. Segments in which little lives are copied out
// (Compact), under the same references.
//
// Blobs lie in one root, or in several when an operator added some: a new one
// goes where most room is, and a reference is looked for in all of them.
package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/queue"
)

// MaxBlob is the largest blob, bytes.
const MaxBlob = 8 << 20

// shards spread the files over directories.
const shards = 256

// root is a directory of blobs.
type root struct {
	*start
	fs       durable.FS
	dir      string
	segments *segments
	tidying  sync.Mutex // Sweep and Compact run one at a time
}

// start is what the roots of one start share: no two of them give out the same
// reference.
type start struct {
	gen uint32
	own atomic.Uint64 // files of their own
	seg atomic.Uint32 // segments
}

func newRoot(fsys durable.FS, dir string, at *start, segment int64) (*root, error) {
	if err := fsys.MkdirAll(filepath.Join(dir, segmentsDir)); err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	for i := range shards {
		if err := fsys.MkdirAll(filepath.Join(dir, shard(uint64(i)))); err != nil {
			return nil, fmt.Errorf("blob: %w", err)
		}
	}
	return &root{start: at, fs: fsys, dir: dir, segments: newSegments(segment)}, nil
}

func shard(n uint64) string { return fmt.Sprintf("%02x", n%shards) }

var refForm = regexp.MustCompile(`^g[0-9a-f]{8}-[0-9a-f]{16}$`)

// place is where a reference's file lies; anything but a reference of ours is
// refused, so that no path can be smuggled in.
func (s *root) place(ref queue.Ref) (dir, file string, err error) {
	if !refForm.MatchString(string(ref)) {
		return "", "", fmt.Errorf("%w: not a reference", queue.ErrNoBlob)
	}
	dir = filepath.Join(s.dir, string(ref[len(ref)-2:]))
	return dir, filepath.Join(dir, string(ref)), nil
}

func (s *root) put(ctx context.Context, r io.Reader, atMost int64) (queue.Ref, error) {
	atMost = min(atMost, MaxBlob)
	var begun []byte
	for i := range s.segments.buffers {
		b := &s.segments.buffers[i]
		buffer := b.take()
		if buffer == nil {
			continue
		}
		defer b.give(buffer)
		record := *buffer
		n := copy(record[headerSize:], begun)
		m, err := fill(contextReader{ctx, r}, record[headerSize+n:headerSize+b.most])
		n += m
		switch {
		case int64(n) > atMost:
			return "", fmt.Errorf("%w: a blob of more than %d bytes", queue.ErrTooLarge, atMost)
		case err == io.EOF:
			record = record[:padded(n)]
			clear(record[headerSize+n:])
			return s.append(&pending{record: record, size: uint32(n)})
		case err != nil:
			return "", err
		}
		begun = record[headerSize : headerSize+n]
	}
	return s.putFile(ctx, io.MultiReader(bytes.NewReader(begun), r), atMost)
}

// fill reads until b is full; io.EOF says that r ended before. io.ReadFull
// could not tell that from a source that broke with io.ErrUnexpectedEOF, as an
// interrupted upload does.
func fill(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	if n == len(b) {
		err = nil
	}
	return n, err
}

func (s *root) putFile(ctx context.Context, r io.Reader, atMost int64) (queue.Ref, error) {
	ref := queue.Ref(fmt.Sprintf("g%08x-%016x", s.gen, s.own.Add(1)))
	dir, file, err := s.place(ref)
	if err != nil {
		return "", err
	}
	temp := file + ".tmp"
	if err := s.write(ctx, temp, r, min(atMost, MaxBlob)); err != nil {
		return "", errors.Join(err, s.remove(temp))
	}
	if err := s.fs.Rename(temp, file); err != nil {
		return "", errors.Join(fmt.Errorf("blob: %w", err), s.remove(temp))
	}
	// A crash here may lose the name; nothing refers to it yet.
	if err := s.fs.SyncDir(dir); err != nil {
		return "", errors.Join(fmt.Errorf("blob: %w", err), s.remove(file))
	}
	return ref, nil
}

func (s *root) write(ctx context.Context, temp string, r io.Reader, atMost int64) error {
	f, err := s.fs.Create(temp)
	if err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	n, err := io.Copy(f, io.LimitReader(contextReader{ctx, r}, atMost+1))
	if err == nil && n > atMost {
		err = fmt.Errorf("%w: a blob of more than %d bytes", queue.ErrTooLarge, atMost)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

func (s *root) remove(name string) error {
	if err := s.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("blob: %w", err)
	}
	return nil
}

func (s *root) open(ctx context.Context, ref queue.Ref, off int64) (io.ReadCloser, error) {
	if w, ok := parseRef(ref); ok {
		return s.openSegment(ctx, w, off)
	}
	_, file, err := s.place(ref)
	if err != nil {
		return nil, err
	}
	f, err := s.fs.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", queue.ErrNoBlob, ref)
	}
	if err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	if off > 0 {
		if _, err := f.Seek(off, io.SeekStart); err != nil {
			return nil, errors.Join(fmt.Errorf("blob: %w", err), f.Close())
		}
	}
	return struct {
		io.Reader
		io.Closer
	}{contextReader{ctx, f}, f}, nil
}

func (s *root) openSegment(ctx context.Context, w where, off int64) (io.ReadCloser, error) {
	f, from, err := s.openRecord(w)
	if err != nil {
		return nil, err
	}
	off = min(max(off, 0), int64(w.size))
	return struct {
		io.Reader
		io.Closer
	}{contextReader{ctx, io.NewSectionReader(f, from+off, int64(w.size)-off)}, f}, nil
}

// delete need not be durable: a blob that comes back after a crash is one that
// nothing refers to.
func (s *root) delete(_ context.Context, ref queue.Ref) error {
	if w, ok := parseRef(ref); ok {
		return s.deleteRecord(w)
	}
	_, file, err := s.place(ref)
	if err != nil {
		return err
	}
	return s.remove(file)
}

func (s *root) sweep(ctx context.Context, referenced func(queue.Ref) (bool, error)) (removed int, err error) {
	s.tidying.Lock()
	defer s.tidying.Unlock()
	for i := range shards {
		dir := filepath.Join(s.dir, shard(uint64(i)))
		names, err := s.fs.ReadDir(dir)
		if err != nil {
			return removed, fmt.Errorf("blob: %w", err)
		}
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return removed, err
			}
			gone, err := s.sweepOne(dir, name, referenced)
			if err != nil {
				return removed, err
			}
			if gone {
				removed++
			}
		}
	}
	n, err := s.sweepSegments(ctx, referenced)
	return removed + n, err
}

func (s *root) sweepOne(dir, name string, referenced func(queue.Ref) (bool, error)) (bool, error) {
	ref, temporary := strings.CutSuffix(name, ".tmp")
	if _, moved := parseRef(queue.Ref(ref)); !moved && !refForm.MatchString(ref) {
		return false, nil // not ours: left alone
	}
	gen, err := strconv.ParseUint(ref[1:9], 16, 32)
	if err != nil || uint32(gen) >= s.gen {
		return false, err
	}
	if !temporary {
		needed, err := referenced(queue.Ref(ref))
		if needed || err != nil {
			return false, err
		}
	}
	return true, s.remove(filepath.Join(dir, name))
}
