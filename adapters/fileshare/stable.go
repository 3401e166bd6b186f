package fileshare

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// spot stands for a path where very many are remembered.
type spot [16]byte

func spotOf(at string) spot {
	d := sm.Sum([]byte(at))
	return spot(d[:16])
}

// sight is a file as it was seen, and since when it stands still by our clock. Times
// are nanoseconds: there is one for each file of the share.
type sight struct {
	size, mod, change int64
	since             int64
	settled           uint64 // for which place all is done for it as it is; 0: none
}

func sightOf(info fs.FileInfo, now time.Time) sight {
	s := sight{size: info.Size(), mod: info.ModTime().UnixNano(), since: now.UnixNano()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.change = sys.Ctim.Nano()
	}
	return s
}

// same says whether a file stands still, in the way that is believed.
func (i *Import) same(a, b sight) bool {
	return a.size == b.size && (i.c.Stable == Size || a.mod == b.mod)
}

// look notes how all files stand. Those that are gone are forgotten.
func (i *Import) look(ctx context.Context, s *share) error {
	now := i.c.Now()
	next := map[spot]sight{}
	err := i.files(ctx, s, func(at string, e fs.DirEntry) error {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		is, key := sightOf(info, now), spotOf(at)
		if was, known := i.sights[key]; known && i.same(was, is) {
			is.since = was.since
			if was.change == is.change && was.mod == is.mod {
				is.settled = was.settled
			}
		}
		next[key] = is
		return nil
	})
	if err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.sights = next
	return nil
}

// files walks over all files that are looked at.
func (i *Import) files(ctx context.Context, s *share, each func(at string, e fs.DirEntry) error) error {
	var walk func(dir string, depth int) error
	walk = func(dir string, depth int) error {
		var below []string
		err := s.list(dir, func(e fs.DirEntry) error {
			at := path.Join(dir, e.Name())
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case !e.IsDir():
				return each(at, e)
			case depth < i.c.Depth && i.enters(at):
				below = append(below, at)
			}
			return nil
		})
		if err != nil && (depth == 0 || !passing(err)) {
			return s.gone(err)
		}
		for _, at := range below {
			if err := walk(at, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return walk(".", 0)
}

// passing are reasons not to look into a folder that say nothing of the others: it has
// gone, or is not for us.
func passing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, errLink)
}

// enters says whether a folder is looked into.
func (i *Import) enters(at string) bool {
	text, _ := shown(path.Base(at))
	return at != i.c.Archive && at != i.c.Quarantine && !matches(alwaysExcluded, text) && !matches(i.c.Exclude, text)
}

// gone tells trouble with a file from a share that is not there.
func (s *share) gone(err error) error { return errors.Join(s.there(), err) }

// whole says whether a file may be taken now.
func (i *Import) whole(s *share, at, mark string, info fs.FileInfo) (bool, error) {
	switch i.c.Stable {
	case Rename:
		return true, nil
	case Marker:
		return s.marked(i.c.Mark, mark)
	}
	i.mu.Lock()
	was, known := i.sights[spotOf(at)]
	i.mu.Unlock()
	now := i.c.Now()
	return known && i.same(was, sightOf(info, now)) && now.UnixNano()-was.since >= int64(i.c.Quiet), nil
}

// marked looks for the marker of what leads an item: its list or its body.
func (s *share) marked(mark, at string) (bool, error) {
	_, err := s.lstat(markerOf(mark, at))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func markerOf(mark, at string) string {
	return path.Join(path.Dir(at), strings.Replace(mark, "*", path.Base(at), 1))
}

// settle remembers that nothing is left to do for the files of an item as they are.
func (i *Import) settle(it *item) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, f := range it.files {
		if s, known := i.sights[spotOf(f.at)]; known {
			s.settled = short(it.place)
			i.sights[spotOf(f.at)] = s
		}
	}
}

func short(p digest) uint64 { return binary.BigEndian.Uint64(p[:8]) }

// settled says whether all files of an item were dealt with, for it, as they are.
func (i *Import) settled(it *item) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, f := range it.files {
		if i.sights[spotOf(f.at)].settled != short(it.place) {
			return false
		}
	}
	return len(it.files) > 0
}
