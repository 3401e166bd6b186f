//go:build !race

package model

// usually is how many sequences every run plays.
const usually = 25
