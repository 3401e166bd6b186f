package blob

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/queue"
)

// sweepSegments flags what earlier generations left in segments and nothing
// refers to, gives back unused tails, and unlinks segments without live blobs.
func (s *root) sweepSegments(ctx context.Context, referenced func(queue.Ref) (bool, error)) (removed int, err error) {
	names, err := s.fs.ReadDir(filepath.Join(s.dir, segmentsDir))
	if err != nil {
		return 0, fmt.Errorf("blob: %w", err)
	}
	for _, name := range names {
		id, ok := parseSegment(name)
		if !ok || id.gen >= s.gen {
			continue
		}
		n, err := s.sweepSegment(ctx, id, referenced)
		removed += n
		if err != nil {
			return removed, err
		}
	}
	return removed, nil
}

func (s *root) sweepSegment(ctx context.Context, id segmentID, referenced func(queue.Ref) (bool, error)) (removed int, err error) {
	s.segments.table.Lock()
	_, known := s.segments.live[id]
	if !known {
		s.segments.live[id] = &liveness{} // not full: nobody else unlinks it yet
	}
	s.segments.table.Unlock()
	if known {
		return 0, nil
	}
	removed, holes, err := s.flagUnreferenced(ctx, id, referenced)
	s.segments.table.Lock()
	if s.segments.live[id].full = true; err != nil || holes {
		delete(s.segments.live, id) // looked at again by the next sweep, and never unlinked
	}
	empty := s.segments.takeEmpty(id)
	s.segments.table.Unlock()
	if empty {
		err = s.remove(s.segmentFile(id.gen, id.seg))
	}
	return removed, err
}

// flagUnreferenced counts the live bytes of an earlier start's segment, flags
// what nothing refers to and cuts off the unused tail.
func (s *root) flagUnreferenced(ctx context.Context, id segmentID, referenced func(queue.Ref) (bool, error)) (removed int, holes bool, err error) {
	f, err := s.fs.OpenForWrite(s.segmentFile(id.gen, id.seg))
	if err != nil {
		return 0, false, fmt.Errorf("blob: %w", err)
	}
	end, holes, err := walk(f, id.gen, id.seg, func(w where, _ bool) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		gone, err := s.countRecord(f, w)
		if err != nil || gone {
			return err
		}
		needed, err := referenced(w.ref())
		if err != nil || needed {
			return err
		}
		removed++
		return s.deleteRecord(w)
	})
	if size, sizeErr := f.Size(); err == nil && sizeErr == nil && !holes && end < size {
		err = f.Truncate(end)
	}
	return removed, holes, errors.Join(err, f.Close())
}

// countRecord counts a record that is not deleted; no deletion comes between
// the look at its flag and the count.
func (s *root) countRecord(f durable.File, w where) (gone bool, err error) {
	s.segments.flagging.Lock()
	defer s.segments.flagging.Unlock()
	if _, _, gone, _, err = readHeader(f, w); err != nil {
		return false, fmt.Errorf("blob: %w", err)
	}
	live := padded(int(w.size))
	if gone {
		live = 0
	}
	s.segments.count(segmentID{w.gen, w.seg}, live, padded(int(w.size)))
	return gone, nil
}
