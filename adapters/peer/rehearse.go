package peer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange/link"
)

// Rehearsal is what Rehearse measured: memory of the scheduler for each link
// that has nothing to do (its open poll apart), and calls to a link that does
// not answer for each of its back-offs.
type Rehearsal struct {
	BytesPerLink       float64
	AttemptsPerBackOff float64
}

// Rehearse drives the real schedule through hours with links of which some are
// dead, under a clock of its own and a network that answers or does not.
func Rehearse(ctx context.Context, links, dead int, hours time.Duration) Rehearsal {
	random := rand.New(rand.NewPCG(4, 2))
	s := newSchedule(func(below time.Duration) time.Duration { return time.Duration(random.Int64N(int64(below))) })
	now := time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC)
	before := heapNow()
	list := make([]*dialled, links)
	for i := range list {
		list[i] = &dialled{line: &line{link: fmt.Sprintf("link-%05d", i), session: new(link.Session)}, neighbour: "neighbour"}
	}
	s.add(ctx, list, now)
	attempts, backOffs := 0, 0
	refused := fmt.Errorf("%w: connection refused", errNoAnswer)
	isDead := map[*dialled]bool{}
	for _, d := range list[:dead] {
		isDead[d] = true
	}
	for until := now.Add(hours); !now.After(until) && ctx.Err() == nil; now = now.Add(max(s.next(now), time.Nanosecond)) {
		for {
			j, due := s.take(now)
			if !due {
				break
			}
			var err error
			if isDead[j.d] {
				attempts++
				if !now.Before(j.d.retryAt(poll)) { // one that comes earlier has no back-off of its own
					backOffs++
				}
				err = refused
			}
			if j.what == push {
				s.pushed(j, false, false, err, now)
			} else {
				s.called(j, nil, err, now)
			}
		}
	}
	for _, d := range list { // open polls are counted apart
		d.end(poll)
	}
	grown := heapNow() - before
	runtime.KeepAlive(list)
	return Rehearsal{float64(grown) / float64(links), float64(attempts) / float64(max(backOffs, 1))}
}

func heapNow() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
