//go:build race

package link

// A run is one goroutine: the race detector has little to find in it and makes it
// several times slower. scripts/test plays the whole of the long ones without it.
const raced = true
