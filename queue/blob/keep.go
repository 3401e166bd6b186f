package blob

import (
	"context"
	"errors"
	"sync"

	"github.com/yizhan-gateway/yizhan/queue"
)

// kept are the deletions that wait until nobody keeps the blobs any more.
type kept struct {
	mu        sync.Mutex
	keepers   int
	postponed []queue.Ref
}

func (k *kept) postpone(ref queue.Ref) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keepers == 0 {
		return false
	}
	k.postponed = append(k.postponed, ref)
	return true
}

// Keep lets every blob that is there now stay until release: deletions are
// carried out then, and Sweep and Compact wait. Blobs can be put and read. A
// crash forgets the deletions; the sweep of the next start finds what nothing
// refers to.
func (s *Store) Keep() (release func() error) {
	roots := *s.roots.Load()
	for _, r := range roots {
		r.tidying.Lock()
	}
	s.kept.mu.Lock()
	s.kept.keepers++
	s.kept.mu.Unlock()
	return sync.OnceValue(func() (err error) {
		defer func() {
			for _, r := range roots {
				r.tidying.Unlock()
			}
		}()
		s.kept.mu.Lock()
		s.kept.keepers--
		list := s.kept.postponed
		s.kept.postponed = nil
		s.kept.mu.Unlock()
		for _, ref := range list {
			err = errors.Join(err, s.delete(context.Background(), ref))
		}
		return err
	})
}
