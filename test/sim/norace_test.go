//go:build !race

package sim

const (
	defaultSeeds = 2000
	sameSeeds    = 20
	raced        = false
)
