package main

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// Metrics of what waits and of the disk. A link is named by its name in the
// directory, and only while something waits for it or goes wrong with it, so
// that ten thousand links that are well add nothing. What is asked for costs
// rows for each lane and none for each document (node.Queues).
var (
	metricWaiting     = describe("yizhan_queue_waiting", "What waits for a link, by rank.", "link", "rank")
	metricOldest      = describe("yizhan_queue_oldest_seconds", "How long the first of a rank has waited for a link.", "link", "rank")
	metricPaused      = describe("yizhan_queue_held_back", "Entries for a link that met trouble and wait for themselves.", "link")
	metricDead        = describe("yizhan_dead_letters", "Deliveries over a link that are parked until an operator decides.", "link")
	metricApproval    = describe("yizhan_awaiting_approval", "Deliveries over a link that wait for administrators to approve them.", "link")
	metricHeld        = describe("yizhan_link_held", "1 while an operator holds the link.", "link")
	metricFailures    = describe("yizhan_link_failures", "Calls over a link that failed, in a row.", "link")
	metricDown        = describe("yizhan_links_down", "Links of this node that are not connected.")
	metricUnnamed     = describe("yizhan_links_unnamed", "Links with something to say that are left out above, to bound the answer.")
	metricUndone      = describe("yizhan_work_waiting", "Steps of distributing and delivering that wait on this node.")
	metricQuarantine  = describe("yizhan_quarantine_entries", "What could not be used and is kept for the operator.")
	metricDiskFree    = describe("yizhan_disk_free_bytes", "Free space of the data directory's file system.")
	metricDiskRefuses = describe("yizhan_disk_refusing", "1 while new documents are refused for lack of space.")
	metricBallast     = describe("yizhan_ballast_bytes", "What the ballast holds of the disk; 0 after it was given back.")
)

var queueMetrics = []*prometheus.Desc{
	metricWaiting, metricOldest, metricPaused, metricDead, metricApproval, metricHeld, metricFailures, metricDown, metricUnnamed,
	metricUndone, metricQuarantine, metricDiskFree, metricDiskRefuses, metricBallast,
}

// namedLinks bounds the links that one answer names.
const namedLinks = 1000

type gauge func(d *prometheus.Desc, v float64, labels ...string)

// queues tells what waits. Of a store that cannot be read nothing is told:
// absent is not 0.
func (c collector) queues(ctx context.Context, now time.Time, out gauge) {
	b, err := c.g.node.Queues(ctx, "")
	if err != nil {
		c.g.log.Warn("what waits could not be read for the metrics", "error", err)
		return
	}
	out(metricUndone, float64(b.Undone))
	out(metricQuarantine, float64(b.Quarantined))
	failures, down := map[string]int{}, 0
	for _, s := range c.g.peer.Status() {
		failures[s.Link] = s.Failures
		if !s.Connected {
			down++
		}
	}
	out(metricDown, float64(down))
	named, unnamed := 0, 0
	for i := range b.Links {
		q := &b.Links[i]
		switch {
		case q.Waiting == 0 && q.Parked == 0 && q.Guarded == 0 && q.Hold == nil && failures[q.Link] == 0:
		case named == namedLinks:
			unnamed++
		default:
			named++
			linkMetrics(q, failures[q.Link], now, out)
		}
	}
	out(metricUnnamed, float64(unnamed))
}

func linkMetrics(q *node.LinkQueues, failures int, now time.Time, out gauge) {
	for _, one := range q.Queues {
		out(metricWaiting, float64(one.Waiting), q.Link, one.Rank)
		if one.Oldest != 0 {
			out(metricOldest, max(0, now.Sub(one.Oldest.Time()).Seconds()), q.Link, one.Rank)
		}
	}
	out(metricPaused, float64(q.Paused), q.Link)
	out(metricDead, float64(q.Parked), q.Link)
	out(metricApproval, float64(q.Guarded), q.Link)
	out(metricHeld, one(q.Hold != nil), q.Link)
	out(metricFailures, float64(failures), q.Link)
}

func (c collector) disk(out gauge) {
	free, refusing, err := c.g.space.state()
	if err == nil {
		out(metricDiskFree, float64(free))
	}
	out(metricDiskRefuses, one(refusing))
	if held, err := ballastSize(c.g.space.path); err == nil {
		out(metricBallast, float64(held))
	}
}
