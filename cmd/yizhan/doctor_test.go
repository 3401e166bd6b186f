package main

import (
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/adapters/peer"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// TestTheDoctorJudgesWhatWaits: each trouble is a warning with a cause and a
// remedy, and a node that is well has none.
func TestTheDoctorJudgesWhatWaits(t *testing.T) {
	now := time.Now()
	results := func(b backlog) map[string]finding {
		d := &doctor{now: now}
		d.judgeBacklog(&b)
		d.judgeNeighbours(&b)
		out := map[string]finding{}
		for _, f := range d.list {
			out[f.Name] = f
		}
		return out
	}
	queue := func(age time.Duration, parked uint64) node.Backlog {
		return node.Backlog{Links: []node.LinkQueues{{Link: "jia-yi", Waiting: 3, Parked: parked, Queues: []node.Queue{{Rank: "normal", Waiting: 3, Oldest: strictjson.TimeOf(now.Add(-age))}}}}}
	}
	up := []peer.Status{{Link: "jia-yi", Connected: true}}
	bad := queue(2*time.Hour, 1)
	bad.Quarantined = 2
	for name, f := range results(backlog{Running: true, Backlog: bad, Status: []peer.Status{{Link: "jia-yi", LastError: "no answer"}}}) {
		if f.Result != resultWarning || f.Remedy == "" || !strings.Contains(f.Cause, " · ") {
			t.Errorf("%s: %+v", name, f)
		}
	}
	good := results(backlog{Running: true, Backlog: queue(time.Minute, 0), Status: up})
	for _, name := range []string{"queue", "dead letters", "quarantine", "neighbours"} {
		if good[name].Result != resultOK {
			t.Errorf("%s: %+v", name, good[name])
		}
	}
	closed := queue(2*time.Hour, 0)
	closed.Links[0].ClosedUntil = strictjson.TimeOf(now.Add(time.Hour))
	if f := results(backlog{Running: true, Backlog: closed, Status: up})["queue"]; f.Result != resultOK {
		t.Errorf("outside the hours of the link: %+v", f)
	}
	if f := results(backlog{})["neighbours"]; !strings.Contains(f.Cause, "not run") {
		t.Errorf("of a stopped node: %+v", f)
	}
}

// TestWhatWaitsForACode is no queue that stands still, until its time is nearly over.
func TestWhatWaitsForACode(t *testing.T) {
	now := time.Now()
	judge := func(age time.Duration) map[string]string {
		d := &doctor{now: now}
		d.judgeBacklog(&backlog{Running: true, Backlog: node.Backlog{Links: []node.LinkQueues{{
			Link: "jia-yi", OneWay: "out", Waiting: 1, Queues: []node.Queue{{Rank: "normal", Waiting: 1, Oldest: strictjson.TimeOf(now.Add(-age))}},
		}}}})
		got := map[string]string{}
		for _, f := range d.list {
			got[f.Name] = f.Result
		}
		return got
	}
	if got := judge(20 * 24 * time.Hour); got["queue"] != resultOK || got["unconfirmed"] != "" {
		t.Errorf("after 20 days: %v", got)
	}
	if got := judge(22 * 24 * time.Hour); got["queue"] != resultOK || got["unconfirmed"] == resultOK || got["unconfirmed"] == "" {
		t.Errorf("after 22 days: %v", got)
	}
}
