package node

import (
	"fmt"
	"testing"

	"github.com/yizhan-gateway/yizhan/exchange/records"
)

// TestChunks: a receipt has room for a thousand recipients, and everybody is in one.
func TestChunks(t *testing.T) {
	var e ferriedEntry
	for i := range 2500 {
		e.names = append(e.names, fmt.Sprint(i))
	}
	got := e.chunks()
	if len(got) != 3 || len(got[0]) != 1000 || len(got[2]) != 500 || got[1][0] != "1000" {
		t.Errorf("%d chunks", len(got))
	}
}

// TestGaps of what came, up to a number and behind the last that is known.
func TestGaps(t *testing.T) {
	row := &records.FerryIn{UpTo: 3, Ranges: [][2]uint64{{5, 6}, {9, 9}}}
	for upTo, want := range map[uint64]string{3: "[]", 4: "[[4 4]]", 6: "[[4 4]]", 8: "[[4 4] [7 8]]", 9: "[[4 4] [7 8]]", 12: "[[4 4] [7 8] [10 12]]"} {
		if got := fmt.Sprint(gapsOf(row, upTo)); got != want {
			t.Errorf("up to %d: %s, want %s", upTo, got, want)
		}
	}
	if got := fmt.Sprint(Missing(row)); got != "[[4 4] [7 8]]" {
		t.Errorf("before anything is said: %s", got)
	}
	if row.Last = 11; fmt.Sprint(Missing(row)) != "[[4 4] [7 8] [10 11]]" {
		t.Errorf("%v", Missing(row))
	}
}
