package blob

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/yizhan-gateway/yizhan/queue"
)

// sweepSegments flags what earlier generations left in segments and nothing
// refers to, gives back unused tails, and unlinks segments without live blobs.
func (s *Store) sweepSegments(ctx context.Context, referenced func(queue.Ref) (bool, error)) (removed int, err error) {
	names, err := s.fs.ReadDir(filepath.Join(s.dir, segmentsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("blob: %w", err)
	}
	for _, name := range names {
		var gen, seg uint32
		if _, err := fmt.Sscanf(name, "%08x-%08x.seg", &gen, &seg); err != nil || filepath.Base(s.segmentFile(gen, seg)) != name || gen >= s.gen {
			continue
		}
		n, err := s.sweepSegment(ctx, gen, seg, referenced)
		removed += n
		if err != nil {
			return removed, err
		}
	}
	return removed, nil
}

func (s *Store) sweepSegment(ctx context.Context, gen, seg uint32, referenced func(queue.Ref) (bool, error)) (removed int, err error) {
	f, err := s.fs.OpenForWrite(s.segmentFile(gen, seg))
	if err != nil {
		return 0, fmt.Errorf("blob: %w", err)
	}
	live := int64(0)
	end, holes, err := walk(f, gen, seg, func(w where, gone bool) error {
		if err := ctx.Err(); err != nil || gone {
			return err
		}
		needed, err := referenced(w.ref())
		if err != nil {
			return err
		}
		if needed {
			live += padded(int(w.size))
			return nil
		}
		removed++
		return s.deleteRecord(w)
	})
	if size, sizeErr := f.Size(); err == nil && sizeErr == nil && !holes && end < size {
		err = f.Truncate(end)
	}
	if err = errors.Join(err, f.Close()); err != nil || live > 0 || holes {
		return removed, err
	}
	return removed, s.remove(s.segmentFile(gen, seg))
}
