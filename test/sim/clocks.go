package sim

import "time"

// Clocks jump: a host that was off for long, a time server that lies, somebody
// who sets the date. Each host's clock goes off by seconds, hours or days, ahead
// and back, now and then right again, while the other's stays; in the quiet phase
// all are right. No promise may hang on a clock.
//
// Timestamps are left to the end: a token that contradicts the node's clock is
// refused, and evidence whose times it contradicts says so, as they should.

// farthest is how far a clock goes off.
const (
	strides  = 10
	farthest = strides * 24 * time.Hour
)

// jump sets a host's clock, one time of twenty.
func (w *world) jump(h *host) {
	if w.rng.IntN(20) > 0 {
		return
	}
	unit := []time.Duration{0, time.Second, time.Minute, time.Hour, 24 * time.Hour}[w.rng.IntN(5)]
	h.skew = time.Duration(w.rng.IntN(2*strides+1)-strides) * unit
	w.stats.Jumps++
	w.note("the clock of %s is off by %s", h.id, h.skew)
}

// RunClocks is Run with clocks that jump. In its runs no directory revokes
// anything, so that nothing at all may be void.
func RunClocks(seed uint64, steps, docs int) (hash string, stats Stats, err error) {
	return runWorld(2*seed+1, func(w *world) {
		w.jumps = true
		w.storm(steps, docs)
		for _, h := range w.hosts {
			h.skew = 0
		}
	})
}
