// Package bench measures on this machine, in one run, what Yizhan reaches and
// what it could reach. Absolute figures drift with the machine and the hour;
// the ratio of a figure to its bound, both of the same seconds, is what counts.
//
// A bound is the sum, over the passes that are really needed, of the
// stand-alone cost of the primitive, measured on all processors at once.
package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"time"
)

// Result is one line of the table. Ratio is how much of the bound was reached:
// 1 is all of it, for figures where more is better and where less is.
type Result struct {
	Name    string  `json:"name"`
	Value   float64 `json:"value"`
	Unit    string  `json:"unit"`
	Bound   float64 `json:"bound"`
	BoundIs string  `json:"bound_is"`
	Ratio   float64 `json:"ratio"`
}

// Report is what a run prints with --json.
type Report struct {
	Results []Result `json:"results"`
}

// Table writes the results for people.
func (r *Report) Table(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%-24s %12s %-12s %12s %6s\n", "name", "value", "unit", "bound", "ratio")
	for _, one := range r.Results {
		fmt.Fprintf(&b, "%-24s %12.1f %-12s %12.1f %6.2f\n    bound: %s\n", one.Name, one.Value, one.Unit, one.Bound, one.Ratio, one.BoundIs)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// rate runs fn on all processors for about d, at least once on each, and gives
// calls per second: the sum of what each reached in its own time, so that a
// long last call on one does not count as idleness of the others.
func rate(d time.Duration, fn func() error) (float64, error) {
	var wait sync.WaitGroup
	var mu sync.Mutex
	var total float64
	var failed error
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			calls, begin := 0, time.Now()
			var err error
			for err == nil && (calls == 0 || time.Since(begin) < d) {
				err = fn()
				calls++
			}
			mu.Lock()
			defer mu.Unlock()
			total += float64(calls) / time.Since(begin).Seconds()
			failed = errors.Join(failed, err)
		})
	}
	wait.Wait()
	return total, failed
}

// primitive is an operation whose stand-alone speed bounds the figures: unit
// is how much of it one call of fn does (bytes, or 1).
type primitive struct {
	unit float64
	fn   func() error
}

// pass is one thing that has to be done for each call of a figure: n times (or
// bytes) a primitive.
type pass struct {
	of   string // the primitive's name
	n    float64
	what string // what it is done to; may be empty
}

// figure is one line of a report before it is measured.
type figure struct {
	name, unit string
	scale      float64 // how much of the unit one call is
	// whole: one call fills all processors, and its memory is watched. Else
	// calls run side by side on all of them, long ones for a whole round.
	whole, long bool

	passes []pass
	fn     func(ctx context.Context) error
}

// runner measures figures against primitives.
type runner struct {
	primitives map[string]primitive
	slice      time.Duration // of a round, for each primitive and small figure
	rounds     int
	until      time.Time // from then on one round is enough; zero is never
}

// sample measures each primitive that a figure needs for a share of its time
// and keeps the best.
func (r *runner) sample(f *figure, share float64, into map[string]float64) error {
	done := map[string]bool{}
	for _, p := range f.passes {
		if done[p.of] {
			continue
		}
		done[p.of] = true
		one, known := r.primitives[p.of]
		if !known {
			return fmt.Errorf("%q is a primitive that nobody measures", p.of)
		}
		n, err := rate(time.Duration(share*float64(r.slice)), one.fn)
		if err != nil {
			return err
		}
		into[p.of] = max(into[p.of], n*one.unit)
	}
	return nil
}

// measure gives the round with the middle ratio.
func (r *runner) measure(ctx context.Context, f figure) ([]Result, error) {
	var rounds []Result
	peak := 0.0
	for range r.rounds {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		speeds := map[string]float64{}
		perSecond, grown, err := r.round(ctx, &f, speeds)
		if err != nil {
			return nil, fmt.Errorf("bench: %s: %w", f.name, err)
		}
		most, is := bound(f.passes, speeds)
		peak = max(peak, grown)
		rounds = append(rounds, Result{f.name, f.scale * perSecond, f.unit, f.scale * most, is, perSecond / most})
		if !r.until.IsZero() && time.Now().After(r.until) {
			break
		}
	}
	out := []Result{median(rounds)}
	if f.whole {
		out = append(out, Result{f.name + "_memory", peak, "MiB", memoryBound, "the most that the memory in use may grow", memoryBound / max(peak, 1)})
	}
	return out, nil
}

// shares is into how many pieces a round is cut. Machines change their speed
// within seconds, and others use them: figure and primitives take turns, and of
// each the best piece counts, which is the one that was disturbed least.
const shares = 20

// round gives calls a second and, of a whole figure, by how many MiB the memory
// in use grew.
func (r *runner) round(ctx context.Context, f *figure, speeds map[string]float64) (perSecond, grown float64, err error) {
	if f.whole || f.long {
		return r.longRound(ctx, f, speeds)
	}
	for range shares {
		if err := r.sample(f, 1.0/shares, speeds); err != nil {
			return 0, 0, err
		}
		n, err := rate(r.slice/shares, func() error { return f.fn(ctx) })
		if err != nil {
			return 0, 0, err
		}
		perSecond = max(perSecond, n)
	}
	return perSecond, 0, nil
}

// longRound is for what cannot be cut: the mean of the primitives before and
// after it counts.
func (r *runner) longRound(ctx context.Context, f *figure, speeds map[string]float64) (perSecond, grown float64, err error) {
	before, after := map[string]float64{}, map[string]float64{}
	if err := r.sample(f, 0.5, before); err != nil {
		return 0, 0, err
	}
	if f.whole {
		var seconds float64
		seconds, grown, err = timed(func() error { return f.fn(ctx) })
		perSecond = 1 / seconds
	} else {
		perSecond, err = rate(2*r.slice, func() error { return f.fn(ctx) })
	}
	err = errors.Join(err, r.sample(f, 0.5, after))
	for name := range before {
		speeds[name] = (before[name] + after[name]) / 2
	}
	return perSecond, grown, err
}

// timed gives the seconds fn takes and by how many MiB the memory in use grew
// at most while it ran. What earlier work left behind is given back first:
// else it would serve as memory that nobody counts.
func timed(fn func() error) (seconds, grown float64, err error) {
	debug.FreeOSMemory()
	debug.FreeOSMemory() // pools let go of what they keep at the second collection
	before, peak := inUse(), uint64(0)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			peak = max(peak, inUse())
			select {
			case <-tick.C:
			case <-quit:
				return
			}
		}
	}()
	begin := time.Now()
	err = fn()
	seconds = time.Since(begin).Seconds()
	close(quit)
	<-done
	return seconds, float64(peak-min(peak, before)) / (1 << 20), err
}

// inUse is the memory the process holds from the system.
func inUse() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}

// bound is how often a second all passes can be done, and of what it is made.
func bound(passes []pass, speeds map[string]float64) (float64, string) {
	seconds := 0.0
	var parts []string
	for _, p := range passes {
		seconds += p.n / speeds[p.of]
		name := p.of
		if p.what != "" {
			name += " of " + p.what
		}
		parts = append(parts, fmt.Sprintf("%s × %s at %s/s", count(p.n), name, count(speeds[p.of])))
	}
	return 1 / seconds, fmt.Sprintf("%s, over %d processors", strings.Join(parts, " + "), runtime.GOMAXPROCS(0))
}

func count(n float64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2fG", n/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1fM", n/1e6)
	case n >= 1e4:
		return fmt.Sprintf("%.1fk", n/1e3)
	}
	return fmt.Sprintf("%.4g", n)
}

// median gives the result of the middle ratio of several rounds: bound and
// figure of one round were measured within the same seconds.
func median(rounds []Result) Result {
	slices.SortFunc(rounds, func(a, b Result) int { return cmp.Compare(a.Ratio, b.Ratio) })
	return rounds[len(rounds)/2]
}

// The figures of keys under an HSM.
const (
	hsmSign   = "hsm_wrapped_sign"
	hsmUnwrap = "hsm_wrapped_unwrap"
)

// notMeasured says in the report why the figures with an HSM are zero.
func notMeasured(why string) []Result {
	return []Result{
		{Name: hsmSign, Unit: "signatures/s", BoundIs: "not measured: " + why},
		{Name: hsmUnwrap, Unit: "file keys/s", BoundIs: "not measured: " + why},
	}
}
