package main

import (
	"time"

	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// certificateSoon is how close to its end a certificate is told to neighbours.
const certificateSoon = 7 * 24 * time.Hour

// about is what this program tells the neighbours of itself.
func (g *gateway) about() node.About {
	now := time.Now()
	_, refusing, err := g.space.state()
	a := node.About{Program: versionInfo().Version, DiskLow: refusing || err != nil}
	for _, days := range soonest(watched(g.directory.Load(), g.settings.Node, now), now) {
		if days < certificateSoon.Hours()/24 {
			a.Warnings = append(a.Warnings, "certificate_ends")
			break
		}
	}
	return a
}
