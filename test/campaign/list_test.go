package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryCampaignIsThere: the tests that the campaigns run exist under their
// names, and what they say still has the words that are looked for.
func TestEveryCampaignIsThere(t *testing.T) {
	names := map[string]bool{}
	for _, c := range campaigns {
		if names[c.name] || c.what == "" || c.counts == "" || c.usually < 1 {
			t.Errorf("%s: named twice, or without words", c.name)
		}
		names[c.name] = true
		if c.test == nil {
			continue
		}
		args := c.test(1)
		files, err := filepath.Glob(filepath.Join("../..", args[0], "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		var code strings.Builder
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			code.Write(b)
		}
		for test := range strings.SplitSeq(strings.Trim(args[2], "^($)"), "|") {
			if !strings.Contains(code.String(), "func "+test+"(t *testing.T)") {
				t.Errorf("%s: %s has no %s", c.name, args[0], test)
			}
		}
	}
}

// TestWhatATestSaysIsSummed: lines as the tests print them.
func TestWhatATestSaysIsSummed(t *testing.T) {
	for name, line := range map[string]string{
		"simulation": "    sim_test.go:91: ran 7 seeds: {Submitted:5 Crashes:3 Receipts:11}",
		"kill":       "    kill_test.go:71: 5 documents, 7 kills of 3 nodes, 9 heads compared; 0 lost, 0 duplicated, 11 receipts verified",
		"gate":       "    boundary_test.go:71: 5 documents, 7 kills of 4 nodes, 70 files carried: {Files:70 Lost:14 Doubled:7 Truncated:4}; 0 lost, 0 duplicated, 11 receipts verified",
		"power-cut":  "    powercut_test.go:71: 5 documents, 7 power cuts of ext4; 0 lost, 0 duplicated, 11 receipts verified",
		"disk-full":  "    full_test.go:71: 5 documents, 7 times full; 0 lost, 0 duplicated, 11 receipts verified",
		"mutation":   "    mutation_test.go:71: 5 documents, 7 mutations of stored files: 1 detected, 2 without effect; 0 lost, 0 duplicated, 11 receipts verified",
	} {
		c, _ := find(name)
		var got tally
		if m := c.pattern(1).FindStringSubmatch(line); m != nil {
			got.add(c.pattern(1).SubexpNames(), m)
		}
		if got.Cycles != 7 || got.Acknowledged != 5 || got.ReceiptsVerified != 11 {
			t.Errorf("%s: %+v of %q", name, got, line)
		}
	}
}

// TestWhatATestFindsAndSkips: what it lost and doubled is counted, and what it
// could not do here is named with the reason.
func TestWhatATestFindsAndSkips(t *testing.T) {
	c, _ := find("power-cut")
	var got tally
	told := got.read(strings.NewReader(`=== RUN   TestPowerCut/ext4
    powercut_test.go:71: 5 documents, 7 power cuts of ext4; 3 lost, 2 duplicated, 11 receipts verified
=== RUN   TestPowerCut/xfs
    powercut_test.go:30: mkfs.xfs is not installed
--- FAIL: TestPowerCut (3.00s)
    --- FAIL: TestPowerCut/ext4 (2.00s)
    --- SKIP: TestPowerCut/xfs (0.00s)
`), c.pattern(1))
	if told != 1 || got.Lost != 3 || got.Duplicated != 2 {
		t.Errorf("%+v", got)
	}
	if got.uncounted(told, c.pattern(1)); got.Lost != 3 {
		t.Errorf("what was counted is called unknown: %+v", got)
	}
	if got.uncounted(0, c.pattern(1)); got.Lost != unknown || got.Duplicated != unknown {
		t.Errorf("nothing was compared, and %+v", got)
	}
	if want := "TestPowerCut/xfs: mkfs.xfs is not installed"; len(got.Skipped) != 1 || got.Skipped[0] != want {
		t.Errorf("skipped %q, want %q", got.Skipped, want)
	}
}
