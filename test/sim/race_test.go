//go:build race

package sim

// A run is one goroutine: the race detector has little to find in it and makes
// it several times slower. scripts/test runs the full number without it.
const (
	defaultSeeds = 40
	sameSeeds    = 4
	raced        = true
)
