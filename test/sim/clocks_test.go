package sim

import "testing"

// TestClockJumps holds the promises while the hosts' clocks jump ahead and back.
func TestClockJumps(t *testing.T) {
	n, sum := playAll(t, RunClocks, max(1, uint64(*seeds)/40))
	if n >= 20 && (sum.Jumps == 0 || sum.Submitted == 0 || sum.Crashes == 0) {
		t.Errorf("the clocks did not jump: %+v", sum)
	}
}
