package main

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// Metrics of the books. Sums have no link; a link is named only of a ferry, of
// which there are few, and when its books do not balance.
var (
	metricArrived     = describe("yizhan_items_arrived", "Items of bundles that arrived since the store began, by what became of them.", "outcome")
	metricExported    = describe("yizhan_items_exported", "What was given to links to carry since the store began, by what became of it.", "outcome")
	metricUnbalanced  = describe("yizhan_link_books_unbalanced", "1 when the books of a link do not balance or cannot be read.", "link")
	metricFerryUnder  = describe("yizhan_ferry_bundles_outstanding", "Bundles of a ferry that the neighbour has not acknowledged.", "link")
	metricFerryOldest = describe("yizhan_ferry_oldest_seconds", "How long ago the oldest of them was made.", "link")
	metricFerryLost   = describe("yizhan_ferry_bundles_lost", "Of them, those that the neighbour has missed and that leave again.", "link")
	metricFerryGaps   = describe("yizhan_ferry_gaps", "Runs of the neighbour's bundles that are missing behind those that came.", "link")
	metricUnwell      = describe("yizhan_neighbours_unwell", "Neighbours whose last status warns of something.")
	metricStatusAge   = describe("yizhan_neighbour_status_age_seconds", "How long ago the last status of a neighbour came.", "link")
	metricSkew        = describe("yizhan_neighbour_clock_skew_seconds", "How far the neighbour's clock is ahead of this node's.", "link")
	metricFerryHeard  = describe("yizhan_ferry_heard_seconds", "How long ago a note of the neighbour was last read.", "link")
)

var linkMetricDescs = []*prometheus.Desc{
	metricArrived, metricExported, metricUnbalanced, metricFerryUnder, metricFerryOldest, metricFerryLost, metricFerryGaps, metricFerryHeard,
	metricUnwell, metricStatusAge, metricSkew,
}

// links tells the books. Of a store that cannot be read nothing is told.
func (c collector) links(ctx context.Context, now time.Time, out gauge) {
	states, err := c.g.node.LinkStates(ctx, "")
	if err != nil {
		c.g.log.Warn("the books of the links could not be read for the metrics", "error", err)
		return
	}
	sums := map[string]uint64{}
	exports := map[string]uint64{}
	unwell := 0
	for i := range states {
		s := &states[i]
		for outcome, n := range map[string]uint64{"accepted": s.Accepted, "duplicate": s.Duplicate, "refused": s.Refused, "deferred": s.Deferred, "damaged": s.Damaged} {
			sums[outcome] += n
		}
		for outcome, n := range map[string]uint64{"acked": s.Acked, "outstanding": s.Outstanding, "ended": s.Ended} {
			exports[outcome] += n
		}
		if !s.Balanced {
			out(metricUnbalanced, 1, s.Link)
		}
		if s.Status != nil && s.Status.Health != "ok" {
			unwell++
		}
		if i < namedLinks {
			ferryMetrics(s, now, out)
			statusMetrics(s, now, out)
		}
	}
	out(metricUnwell, float64(unwell))
	for outcome, n := range sums {
		out(metricArrived, float64(n), outcome)
	}
	for outcome, n := range exports {
		out(metricExported, float64(n), outcome)
	}
}

// oldStatus is when a status is so old that its link is named: over https another
// comes every quarter of an hour.
const oldStatus = time.Hour

// statusMetrics names a link when it is a ferry, its neighbour has not been heard for
// long, or its clock is off.
func statusMetrics(s *node.LinkState, now time.Time, out gauge) {
	if s.Status == nil {
		return
	}
	age := max(0, now.Sub(s.Status.Heard.Time()))
	if s.Ferry != nil || age > oldStatus || skewed(s.Status) {
		out(metricStatusAge, age.Seconds(), s.Link)
		out(metricSkew, float64(s.Status.Skew), s.Link)
	}
}

func ferryMetrics(s *node.LinkState, now time.Time, out gauge) {
	f := s.Ferry
	if f == nil {
		return
	}
	out(metricFerryUnder, float64(f.Bundles), s.Link)
	out(metricFerryLost, float64(f.Lost), s.Link)
	out(metricFerryGaps, float64(len(s.Gaps)), s.Link)
	if f.Oldest != 0 {
		out(metricFerryOldest, max(0, now.Sub(f.Oldest.Time()).Seconds()), s.Link)
	}
	if f.Heard != 0 {
		out(metricFerryHeard, max(0, now.Sub(f.Heard.Time()).Seconds()), s.Link)
	}
}
