package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/queue"
)

// copyBelow is the share of a full segment that must be live for it to stay;
// with less the live blobs move into files of their own.
const copyBelow = 4

// segmentID names a segment.
type segmentID struct{ gen, seg uint32 }

// liveness counts the bytes of a segment that are not deleted. Segments of
// earlier starts are counted once the sweep has looked at them.
type liveness struct {
	bytes, size int64
	full        bool
	moving      map[queue.Ref]bool // deleted while the segment is copied out; nil when it is not
}

func (g *segments) count(id segmentID, live, size int64) {
	g.table.Lock()
	defer g.table.Unlock()
	l := g.live[id]
	l.bytes += live
	l.size += size
}

// takeEmpty forgets a full segment without live bytes and says that its file
// is to be removed; the table is locked.
func (g *segments) takeEmpty(id segmentID) bool {
	l := g.live[id]
	if l == nil || !l.full || l.bytes > 0 || l.moving != nil {
		return false
	}
	delete(g.live, id)
	return true
}

// deleteRecord flags a record, or removes the file that it moved into. The
// flag is not synced: a blob that comes back after a crash is one that nothing
// refers to.
func (s *root) deleteRecord(w where) error {
	g := s.segments
	g.flagging.Lock()
	defer g.flagging.Unlock()
	f, err := s.fs.OpenForWrite(s.segmentFile(w.gen, w.seg))
	if errors.Is(err, fs.ErrNotExist) {
		return s.removeMoved(w)
	}
	if err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	size, _, gone, ok, err := readHeader(f, w)
	flagged := err == nil && ok && !gone && size == w.size
	if flagged {
		_, err = f.WriteAt([]byte{deleted}, int64(w.off)+flagAt)
	}
	if err = errors.Join(err, f.Close()); err != nil || !flagged {
		return err
	}
	if err := s.removeMoved(w); err != nil { // of a copying out that a crash ended
		return err
	}
	id := segmentID{w.gen, w.seg}
	g.table.Lock()
	if l := g.live[id]; l != nil {
		l.bytes -= padded(int(size))
		if l.moving != nil {
			l.moving[w.ref()] = true
		}
	}
	empty := g.takeEmpty(id)
	g.table.Unlock()
	if empty {
		return s.remove(s.segmentFile(w.gen, w.seg))
	}
	return nil
}

func (s *root) compact(ctx context.Context) (segments int, err error) {
	s.tidying.Lock()
	defer s.tidying.Unlock()
	for _, id := range s.segments.sparse() {
		if err := ctx.Err(); err != nil {
			return segments, err
		}
		if err := s.copyOut(ctx, id); err != nil {
			return segments, err
		}
		segments++
	}
	return segments, nil
}

// sparse marks and names the segments that are worth copying out.
func (g *segments) sparse() []segmentID {
	g.table.Lock()
	defer g.table.Unlock()
	var list []segmentID
	for id, l := range g.live {
		if l.full && l.moving == nil && l.bytes*copyBelow < l.size {
			list = append(list, id)
		}
	}
	return list
}

// copyOut writes each live record into a file of its own before it unlinks the
// segment. A crash in between leaves both, with the same bytes, and the next
// sweep of the segment goes on. A reader opens the segment, else the file: one
// of them is there at any time.
func (s *root) copyOut(ctx context.Context, id segmentID) error {
	if !s.startMoving(id) {
		return nil
	}
	holes, err := s.copyRecords(ctx, id)
	if err != nil || holes {
		s.stopMoving(id, holes)
		return err
	}
	s.segments.flagging.Lock() // no deletion between the unlinking and the look at what was deleted
	defer s.segments.flagging.Unlock()
	// The copies of what was deleted go before the segment that says so: between the
	// two a reader would find them.
	for ref := range s.deletedMeanwhile(id) {
		if w, ok := parseRef(ref); ok {
			err = errors.Join(err, s.removeMoved(w))
		}
	}
	if err == nil {
		err = s.remove(s.segmentFile(id.gen, id.seg))
	}
	s.stopMoving(id, err == nil)
	return err
}

// deletedMeanwhile is what was deleted while a segment is copied out; flagging is
// locked.
func (s *root) deletedMeanwhile(id segmentID) map[queue.Ref]bool {
	g := s.segments
	g.table.Lock()
	defer g.table.Unlock()
	return g.live[id].moving
}

func (s *root) startMoving(id segmentID) bool {
	g := s.segments
	g.table.Lock()
	defer g.table.Unlock()
	l := g.live[id]
	if l == nil || l.moving != nil {
		return false
	}
	l.moving = map[queue.Ref]bool{}
	return true
}

// stopMoving ends a copying out; forget takes the segment out of the table for
// good.
func (s *root) stopMoving(id segmentID, forget bool) {
	g := s.segments
	g.table.Lock()
	defer g.table.Unlock()
	if g.live[id].moving = nil; forget {
		delete(g.live, id)
	}
}

func (s *root) copyRecords(ctx context.Context, id segmentID) (holes bool, err error) {
	f, err := s.fs.Open(s.segmentFile(id.gen, id.seg))
	if err != nil {
		return false, fmt.Errorf("blob: %w", err)
	}
	_, holes, err = walk(f, id.gen, id.seg, func(w where, gone bool) error {
		if gone {
			return s.removeMoved(w) // of an attempt that ended before the deletion
		}
		err := s.moveOut(ctx, f, w)
		if errors.Is(err, queue.ErrNoBlob) {
			return nil // deleted since
		}
		return err
	})
	return holes, errors.Join(err, f.Close())
}

// moveOut copies one record. A damaged one stays where it is, and its segment
// with it: an error.
func (s *root) moveOut(ctx context.Context, f durable.File, w where) error {
	if err := check(f, w); err != nil {
		return err
	}
	dir, file := s.movedPlace(w)
	temp := file + ".tmp"
	if err := s.remove(temp); err != nil { // of an attempt that a crash ended
		return err
	}
	if err := s.write(ctx, temp, io.NewSectionReader(f, int64(w.off)+headerSize, int64(w.size)), int64(w.size)); err != nil {
		return errors.Join(err, s.remove(temp))
	}
	if err := s.fs.Rename(temp, file); err != nil {
		return errors.Join(fmt.Errorf("blob: %w", err), s.remove(temp))
	}
	if err := s.fs.SyncDir(dir); err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	return nil
}

// openRecord opens what holds a record and says at which offset its data begins.
func (s *root) openRecord(w where) (f durable.File, from int64, err error) {
	f, err = s.fs.Open(s.segmentFile(w.gen, w.seg))
	if errors.Is(err, fs.ErrNotExist) {
		_, file := s.movedPlace(w)
		f, err = s.fs.Open(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, 0, fmt.Errorf("%w: %s", queue.ErrNoBlob, w.ref())
		}
		if err != nil {
			return nil, 0, fmt.Errorf("blob: %w", err)
		}
		return f, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("blob: %w", err)
	}
	if err := check(f, w); err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, int64(w.off) + headerSize, nil
}

// movedPlace is where a record lies after it was copied out.
func (s *root) movedPlace(w where) (dir, file string) {
	dir = filepath.Join(s.dir, shard(uint64(w.seg)*31+uint64(w.off)/align))
	return dir, filepath.Join(dir, string(w.ref()))
}

func (s *root) removeMoved(w where) error {
	_, file := s.movedPlace(w)
	return s.remove(file)
}
