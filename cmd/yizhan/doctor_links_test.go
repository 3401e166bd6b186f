package main

import (
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// TestTheDoctorJudgesLinks: books that do not balance are an error, a ferry's long
// wait and its gaps warnings; what waits a day for a ferry is as it should be.
func TestTheDoctorJudgesLinks(t *testing.T) {
	now := time.Now()
	judged := func(s node.LinkState) (list []string) {
		d := &doctor{now: now}
		d.judgeLinks(&linkStatus{Links: []oneLink{{LinkState: s}}})
		for _, f := range d.list {
			if f.Result != resultOK && (f.Remedy == "" || !strings.Contains(f.Cause, "jia-yi")) {
				t.Errorf("%+v", f)
			}
			list = append(list, f.Name+" "+f.Result)
		}
		return list
	}
	ago := func(d time.Duration) strictjson.Time { return strictjson.TimeOf(now.Add(-d)) }
	for _, c := range []struct {
		state node.LinkState
		want  string
	}{
		{node.LinkState{Balanced: true}, "links ok"},
		{node.LinkState{}, "links error"},
		{node.LinkState{Balanced: true, OldestOutstanding: ago(100 * time.Hour)}, "links ok"},
		{node.LinkState{Balanced: true, Ferry: &node.FerryState{Oldest: ago(24 * time.Hour)}, OldestOutstanding: ago(48 * time.Hour)}, "links ok"},
		{node.LinkState{Balanced: true, Ferry: &node.FerryState{Oldest: ago(80 * time.Hour)}}, "links ok, ferries warning"},
		{node.LinkState{Balanced: true, Ferry: &node.FerryState{}, OldestOutstanding: ago(80 * time.Hour)}, "links ok, ferries warning"},
		{node.LinkState{Balanced: true, Ferry: &node.FerryState{}, Gaps: []node.Gap{{From: 1, To: 2}}}, "links ok, ferries warning"},
		{node.LinkState{Balanced: true, Status: &node.NeighbourState{Health: "ok", Skew: -60}}, "links ok"},
		{node.LinkState{Balanced: true, Status: &node.NeighbourState{Health: "ok", Skew: -61}}, "links ok, clocks warning"},
		{node.LinkState{Balanced: true, Status: &node.NeighbourState{Health: "ok", Skew: 61}}, "links ok, clocks warning"},
		{node.LinkState{Balanced: true, Status: &node.NeighbourState{Health: "warnings", Warnings: []string{"disk_low"}}}, "links ok, what neighbours say warning"},
	} {
		c.state.Link, c.state.Neighbour = "jia-yi", "jia-yi"
		if got := strings.Join(judged(c.state), ", "); got != c.want {
			t.Errorf("%+v: %s, want %s", c.state, got, c.want)
		}
	}
}
