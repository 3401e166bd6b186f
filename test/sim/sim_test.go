package sim

import (
	"flag"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

var (
	oneSeed = flag.Uint64("seed", 0, "replay this seed alone")
	seeds   = flag.Int("seeds", defaultSeeds, "how many seeds to run")
	first   = flag.Uint64("first", 1, "the first seed")
)

// One run: this many steps and documents at most.
const (
	runSteps = 260
	runDocs  = 6
)

func play(seed uint64) (Stats, error) {
	_, stats, err := Run(seed, runSteps, runDocs)
	if err != nil {
		err = fmt.Errorf("seed %d: %w\nreplay: go test ./test/sim -run TestPromises -seed %d", seed, err, seed)
	}
	return stats, err
}

// TestPromises holds I1–I5, I7, I8 and I10 against many seeds. A run is one
// goroutine; several runs go side by side.
func TestPromises(t *testing.T) {
	if *oneSeed != 0 {
		if _, err := play(*oneSeed); err != nil {
			t.Fatal(err)
		}
		return
	}
	n := uint64(*seeds)
	if testing.Short() {
		n = min(n, 100)
	}
	var (
		next   atomic.Uint64
		mu     sync.Mutex
		sum    Stats
		broken []error
		wait   sync.WaitGroup
	)
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for i := next.Add(1) - 1; i < n; i = next.Add(1) - 1 {
				s, err := play(*first + i)
				mu.Lock()
				if sum.add(s); err != nil {
					broken = append(broken, err)
				}
				stop := len(broken) >= 3
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	wait.Wait()
	for _, err := range broken {
		t.Error(err)
	}
	t.Logf("ran %d seeds: %+v", n, sum)
	if n >= 100 && (sum.Submitted == 0 || sum.Crashes == 0 || sum.Lost == 0 || sum.Doubled == 0 || sum.Mangled == 0 ||
		sum.Spread == 0 || sum.Strangers == 0 || sum.Stolen == 0 || sum.Void == 0 || sum.Waiting == 0 || sum.Held == 0 || sum.Requeued == 0) {
		t.Errorf("the storm did not blow: %+v", sum)
	}
}

// TestSameSeedSameRun: a run is a function of its seed, byte for byte.
func TestSameSeedSameRun(t *testing.T) {
	for seed := uint64(1); seed <= sameSeeds; seed++ {
		a, _, err := Run(seed, runSteps, runDocs)
		if err != nil {
			t.Fatal(err)
		}
		b, _, err := Run(seed, runSteps, runDocs)
		if err != nil {
			t.Fatal(err)
		}
		if a != b {
			t.Fatalf("seed %d ran differently: %s, %s", seed, a, b)
		}
	}
}
