package blob

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/yizhan-gateway/yizhan/queue"
)

func (s *root) each(ctx context.Context, visit func(ref queue.Ref, size int64) error) (damaged []string, err error) {
	for i := range shards {
		if err := s.eachFile(ctx, filepath.Join(s.dir, shard(uint64(i))), visit); err != nil {
			return nil, err
		}
	}
	names, err := s.fs.ReadDir(filepath.Join(s.dir, segmentsDir))
	if err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	for _, name := range names {
		id, ok := parseSegment(name)
		if !ok {
			continue
		}
		holes, err := s.eachRecord(ctx, id, visit)
		if err != nil {
			return damaged, err
		}
		if holes {
			damaged = append(damaged, filepath.Join(s.dir, segmentsDir, name))
		}
	}
	return damaged, nil
}

func (s *root) eachFile(ctx context.Context, dir string, visit func(queue.Ref, int64) error) error {
	names, err := s.fs.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	for _, name := range names {
		if _, moved := parseRef(queue.Ref(name)); !moved && !refForm.MatchString(name) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		f, err := s.fs.Open(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("blob: %w", err)
		}
		size, err := f.Size()
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("blob: %w", err)
		}
		if err := visit(queue.Ref(name), size); err != nil {
			return err
		}
	}
	return nil
}

func (s *root) eachRecord(ctx context.Context, id segmentID, visit func(queue.Ref, int64) error) (holes bool, err error) {
	f, err := s.fs.Open(s.segmentFile(id.gen, id.seg))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("blob: %w", err)
	}
	_, holes, err = walk(f, id.gen, id.seg, func(w where, gone bool) error {
		if err := ctx.Err(); err != nil || gone {
			return err
		}
		return visit(w.ref(), int64(w.size))
	})
	return holes && !s.appending(id), errors.Join(err, f.Close())
}

// appending says whether batches are being written to a segment, which is half
// there meanwhile.
func (s *root) appending(id segmentID) bool {
	s.segments.table.Lock()
	defer s.segments.table.Unlock()
	l := s.segments.live[id]
	return id.gen == s.gen && l != nil && !l.full
}

func parseSegment(name string) (id segmentID, ok bool) {
	stem, ok := strings.CutSuffix(name, ".seg")
	gen, seg, two := strings.Cut(stem, "-")
	if !ok || !two || len(gen) != 8 || len(seg) != 8 {
		return id, false
	}
	g, err := strconv.ParseUint(gen, 16, 32)
	n, err2 := strconv.ParseUint(seg, 16, 32)
	return segmentID{uint32(g), uint32(n)}, err == nil && err2 == nil
}
