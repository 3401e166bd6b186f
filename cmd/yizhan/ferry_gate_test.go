package main

import (
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// TestFerrySettings that no spool could be opened with are refused with the line to
// change.
func TestFerrySettings(t *testing.T) {
	for want, f := range map[string]ferrySettings{
		"":              {Link: "jia-yi", Spool: "/srv/ferry", Out: "/srv/tx", In: "/srv/rx", Ack: "/srv/rx2", Partial: "/srv/tmp", Extension: "xml", Wrap: "xml", FileMiB: 20, Files: 5},
		"out is":        {Out: "tx"},
		"ack is":        {Ack: "../rx"},
		"file_mib is":   {FileMiB: maxFerryMiB + 1},
		"nor files":     {Files: -1},
		`wrap is "rar"`: {Wrap: "rar"},
	} {
		err := f.check("config.toml")
		switch {
		case want == "" && err != nil:
			t.Errorf("%+v: %v", f, err)
		case want != "" && (exchange.CodeOf(err) != exchange.CodeBadRequest || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v", want, err)
		}
	}
}

// TestBytesOfADay follow from the quota.
func TestBytesOfADay(t *testing.T) {
	for q, want := range map[quotaSettings]int64{{}: 0, {MiB: 2}: 48 << 20, {MiB: 2, Window: duration(48 * 3600e9)}: 1 << 20} {
		if got := q.perDay(); got != want {
			t.Errorf("%+v: %d, not %d", q, got, want)
		}
	}
}
