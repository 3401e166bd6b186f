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

type run func(seed uint64, steps, docs int) (string, Stats, error)

func play(t *testing.T, run run, seed uint64) (Stats, error) {
	_, stats, err := run(seed, runSteps, runDocs)
	if err != nil {
		err = fmt.Errorf("seed %d: %w\nreplay: go test ./test/sim -run %s -seed %d", seed, err, t.Name(), seed)
	}
	return stats, err
}

// TestPromises holds I1–I5, I7, I8 and I10 against many seeds.
func TestPromises(t *testing.T) {
	n, sum := playAll(t, Run, uint64(*seeds))
	if n >= 100 && (sum.Submitted == 0 || sum.Crashes == 0 || sum.Lost == 0 || sum.Doubled == 0 || sum.Mangled == 0 ||
		sum.Spread == 0 || sum.Strangers == 0 || sum.Stolen == 0 || sum.Void == 0 || sum.Waiting == 0 || sum.Held == 0 || sum.Requeued == 0 || sum.Full == 0 || sum.GivenUp == 0 || sum.Unknown == 0) {
		t.Errorf("the storm did not blow: %+v", sum)
	}
}

// TestDiskLoss holds I11: in each run a node's disk is destroyed in the middle
// of the storm and the node goes on from a backup, now and then twice.
func TestDiskLoss(t *testing.T) {
	n, sum := playAll(t, RunLoss, uint64(*seeds)/4)
	if n >= 100 && (sum.Submitted == 0 || sum.Crashes == 0 || sum.Lost == 0 || sum.Doubled == 0 || sum.Mangled == 0) {
		t.Errorf("the storm did not blow: %+v", sum)
	}
}

// playAll plays seeds, or the one that is asked for. A run is one goroutine;
// several runs go side by side.
func playAll(t *testing.T, run run, n uint64) (uint64, Stats) {
	var (
		next   atomic.Uint64
		mu     sync.Mutex
		sum    Stats
		broken []error
		wait   sync.WaitGroup
	)
	if *oneSeed != 0 {
		if _, err := play(t, run, *oneSeed); err != nil {
			t.Fatal(err)
		}
		return 1, sum
	}
	if testing.Short() {
		n = min(n, 100)
	}
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for i := next.Add(1) - 1; i < n; i = next.Add(1) - 1 {
				s, err := play(t, run, *first+i)
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
	return n, sum
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
