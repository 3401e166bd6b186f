package ferry

import (
	"context"
	"errors"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange/link"
)

// slowest is the longest time between two notes that are written although nothing
// is new, as long as something is outstanding: the last answer may have been lost.
const slowest = time.Hour

// Watch imports and exports every so often, until ctx ends. Trouble is logged, and
// what met it is tried again.
func (s *Spool) Watch(ctx context.Context, every time.Duration) {
	pause, next := every, s.now().Add(every)
	for ctx.Err() == nil {
		came, err := s.step(ctx, !s.now().Before(next))
		if err != nil && !errors.Is(err, link.ErrHeld) && ctx.Err() == nil {
			s.log.Error("a ferry cannot go on now", "link", s.f.Link(), "error", err)
		}
		if came {
			pause = every
		} else if !s.now().Before(next) {
			pause = min(2*pause, slowest)
		}
		if came || !s.now().Before(next) {
			next = s.now().Add(pause)
		}
		select {
		case <-ctx.Done():
		case <-time.After(every):
		}
	}
}

// step imports and exports once; came says that something was there.
func (s *Spool) step(ctx context.Context, reminder bool) (came bool, err error) {
	in, err := s.Import(ctx)
	if err != nil { // what leaves needs nothing of what came
		_, failed := s.Export(ctx, false)
		return in.Files > 0, errors.Join(err, failed)
	}
	if reminder {
		status, err := s.f.Status(ctx)
		if err != nil {
			return in.Files > 0, err
		}
		reminder = status.Outstanding > 0 && status.OneWay == nil // else nobody could answer
	}
	out, err := s.Export(ctx, reminder)
	if err == nil && in.Bundles.Settled+out.Files > 0 {
		err = s.pruneOut(ctx)
	}
	return in.Files > 0, err
}
