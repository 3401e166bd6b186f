package guard

import (
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

func TestCheck(t *testing.T) {
	now := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name    string
		ceiling exchange.Label
		label   exchange.Label
		expires time.Time
		want    string
	}{
		{"public over a link without ceiling", "", exchange.Public, now.Add(time.Hour), ""},
		{"internal over a link without ceiling", "", exchange.Internal, now.Add(time.Hour), exchange.CodeLabelCeiling},
		{"at the ceiling", exchange.Internal, exchange.Internal, now.Add(time.Hour), ""},
		{"above the ceiling", exchange.Internal, exchange.WorkSecret, now.Add(time.Hour), exchange.CodeLabelCeiling},
		{"秘密 whatever the ceiling says", exchange.TopSecret, exchange.Secret, now.Add(time.Hour), exchange.CodeStateSecret},
		{"an unknown label", exchange.WorkSecret, "odd", now.Add(time.Hour), exchange.CodeStateSecret},
		{"past its time, which is not for a guard to judge", exchange.WorkSecret, exchange.Public, now, ""},
		{"longest life", exchange.WorkSecret, exchange.Public, now.Add(exchange.MaxLife - time.Hour), ""},
		{"beyond the longest life", exchange.WorkSecret, exchange.Public, now.Add(exchange.MaxLife), exchange.CodeInvalidDocument},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &exchange.Routing{
				Label: c.label, Created: strictjson.TimeOf(now.Add(-time.Hour)), Expires: strictjson.TimeOf(c.expires),
			}
			err := Check(Policy{Ceiling: c.ceiling}, r)
			switch {
			case c.want == "" && err != nil:
				t.Fatal(err)
			case c.want != "" && (err == nil || exchange.CodeOf(err) != c.want):
				t.Fatalf("got %v, want %s", err, c.want)
			}
		})
	}
}
