package bench

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

// TestCrypto runs everything at a size that proves nothing but that it runs:
// each figure is there once, with its passes or with why it was not measured.
func TestCrypto(t *testing.T) {
	o := Options{Dir: t.TempDir(), Bulk: 2}
	report, err := o.crypto(t.Context(), cryptoSizes{slice: time.Millisecond, rounds: 1}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"seal_bulk", "seal_bulk_memory", "open_bulk", "open_bulk_memory", "seal_10k", "open_10k",
		"seal_10k_1000_recipients", "hsm_wrapped_sign", "hsm_wrapped_unwrap",
	}
	if len(report.Results) != len(want) {
		t.Fatalf("%d results, want %d", len(report.Results), len(want))
	}
	for i, r := range report.Results {
		if r.Name != want[i] || r.Unit == "" || r.BoundIs == "" {
			t.Errorf("%+v, want %s", r, want[i])
		}
		if strings.HasPrefix(r.BoundIs, "not measured") {
			if r.Value != 0 || r.Ratio != 0 || !strings.HasPrefix(r.Name, "hsm_") {
				t.Errorf("%+v", r)
			}
			t.Logf("%s: %s", r.Name, r.BoundIs)
			continue
		}
		if r.Value <= 0 && r.Unit != "MiB" || r.Ratio <= 0 || math.IsInf(r.Ratio, 0) || math.IsNaN(r.Ratio) {
			t.Errorf("%+v", r)
		}
	}
	b, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	var back struct{ Results []map[string]any }
	if err := json.Unmarshal(b, &back); err != nil || len(back.Results[0]) != 6 {
		t.Errorf("%v: %s", err, b)
	}
}

// TestStopped: a run of minutes ends when its user does.
func TestStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Crypto(ctx, Options{Dir: t.TempDir(), Bulk: 1024}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestBound: the time of all passes, at their speeds.
func TestBound(t *testing.T) {
	most, is := bound([]pass{{"a", 10, "x"}, {"b", 1, ""}, {"a", 10, "y"}}, map[string]float64{"a": 100, "b": 2})
	if math.Abs(most-1/0.7) > 1e-9 || !strings.Contains(is, "10 × a of x at 100/s + 1 × b at 2/s + 10 × a of y") {
		t.Errorf("%v, %s", most, is)
	}
}
