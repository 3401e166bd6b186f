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
		if !strings.Contains(code.String(), "func "+strings.Trim(args[2], "^$")+"(t *testing.T)") {
			t.Errorf("%s: %s has no %s", c.name, args[0], args[2])
		}
	}
}

// TestWhatATestSaysIsSummed: lines as the tests print them.
func TestWhatATestSaysIsSummed(t *testing.T) {
	for name, line := range map[string]string{
		"simulation": "    sim_test.go:91: ran 7 seeds: {Submitted:5 Crashes:3 Receipts:11}",
		"kill":       "    kill_test.go:71: 5 documents, 7 kills, 9 heads compared, 11 receipts verified",
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
