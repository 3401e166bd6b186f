package sim

import (
	"flag"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

var scenarios = flag.Uint64("scenarios", 0, "in how many scenarios TestEveryIO lets each I/O fail; 0: every sixth, in one")

// shareOfIO is how many I/Os lie between two that fail in the share of every run.
const shareOfIO = 6

// TestEveryIO: the n-th I/O fails, for every n: a commit of a store or an
// operation of a disk, with nothing of it there or all of it, and the process goes
// on or ends with it. Afterwards everything finishes and every promise holds.
func TestEveryIO(t *testing.T) {
	if raced {
		t.Skip("-race: one goroutine, ten times slower; scripts/test runs it in its step of 2,000 seeds")
	}
	stride := 1
	if *scenarios == 0 {
		stride = shareOfIO
	}
	failures, sum := 0, Stats{}
	for seed := range max(*scenarios, 1) {
		n, s := everyIO(t, seed, stride)
		failures += n
		sum.add(s)
	}
	t.Logf("%d failures, one in each run: %+v", failures, sum)
	if failures < 30 || sum.Crashes <= 2*failures { // each run ends with a restart of both
		t.Errorf("%d I/Os failed, the power went %d times, twice in each run at the end: the test does not bite", failures, sum.Crashes)
	}
}

// everyIO plays one scenario with each I/O failing that the stride meets, until
// there are no more; the ways begin at different ones.
func everyIO(t *testing.T, seed uint64, stride int) (failures int, sum Stats) {
	var (
		next atomic.Int64
		done atomic.Int64 // ways that have met the end
		mu   sync.Mutex
		wait sync.WaitGroup
		ends [ways]atomic.Bool
	)
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for done.Load() < int64(ways) && !t.Failed() {
				i := next.Add(1) - 1
				how := way(i % int64(ways))
				n := 1 + int(i/int64(ways))*stride + int(how)*stride/int(ways)
				if ends[how].Load() {
					continue
				}
				hit, s, err := RunStrike(seed, n, how)
				if err != nil {
					t.Errorf("scenario %d, I/O %d fails, way %d: %v", seed, n, how, err)
					return
				}
				if !hit {
					if !ends[how].Swap(true) {
						done.Add(1)
					}
					continue
				}
				mu.Lock()
				failures++
				sum.add(s)
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	return failures, sum
}
