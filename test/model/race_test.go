//go:build race

package model

// usually is how many sequences every run plays; the race detector makes signatures slow.
const usually = 6
