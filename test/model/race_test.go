//go:build race

package model

// usually is how many sequences every run plays. They are one goroutine each: scripts/test
// plays the full number without the race detector.
const usually = 3
