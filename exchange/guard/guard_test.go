package guard

import (
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
)

const (
	jia = "1152000000000000T6"
	yi  = "1231000000000000TH"
)

var now = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC) // a Monday, 16:00 in Beijing

func facts(change func(*Facts)) Facts {
	f := Facts{
		Label: exchange.Public, Kind: exchange.Official, Urgency: exchange.Normal,
		Created: now.Add(-time.Hour), Expires: now.Add(time.Hour), Sender: jia, Recipient: yi, Size: 1 << 20,
	}
	if change != nil {
		change(&f)
	}
	return f
}

func TestRefusals(t *testing.T) {
	secret := func(l exchange.Label) func(*Facts) { return func(f *Facts) { f.Label = l } }
	until := func(at time.Time) func(*Facts) { return func(f *Facts) { f.Expires = at } }
	below := Policy{Ceiling: exchange.WorkSecret}
	for _, c := range []struct {
		name   string
		policy Policy
		change func(*Facts)
		want   string
	}{
		{"public over a link without ceiling", Policy{}, nil, ""},
		{"internal over a link without ceiling", Policy{}, secret(exchange.Internal), exchange.CodeLabelCeiling},
		{"at the ceiling", Policy{Ceiling: exchange.Internal}, secret(exchange.Internal), ""},
		{"above the ceiling", Policy{Ceiling: exchange.Internal}, secret(exchange.WorkSecret), exchange.CodeLabelCeiling},
		{"秘密 whatever the ceiling says", Policy{Ceiling: exchange.TopSecret}, secret(exchange.Secret), exchange.CodeStateSecret},
		{"an unknown label", below, secret("odd"), exchange.CodeStateSecret},
		{"past its time, which is not for a guard to judge", below, until(now.Add(-time.Minute)), ""},
		{"ended before it began", below, until(now.Add(-time.Hour)), exchange.CodeInvalidDocument},
		{"longest life", below, until(now.Add(exchange.MaxLife - time.Hour)), ""},
		{"beyond the longest life", below, until(now.Add(exchange.MaxLife)), exchange.CodeInvalidDocument},
		{"a kind that may pass", Policy{Kinds: []exchange.Kind{exchange.Notice, exchange.Official}}, nil, ""},
		{"a kind that may not", Policy{Kinds: []exchange.Kind{exchange.Notice}}, nil, exchange.CodeGuardKind},
		{"as large as may be", Policy{MaxBytes: 1 << 20}, nil, ""},
		{"larger", Policy{MaxBytes: 1<<20 - 1}, nil, exchange.CodeGuardSize},
		{"the label goes before all others", Policy{MaxBytes: 1, Kinds: []exchange.Kind{exchange.Notice}}, secret(exchange.TopSecret), exchange.CodeStateSecret},
		{"without a recipient no pair is judged", Policy{Rules: []Rule{{Allow: false}}}, func(f *Facts) { f.Recipient = "" }, ""},
	} {
		t.Run(c.name, func(t *testing.T) { same(t, c.policy.Decide(facts(c.change), now), c.want) })
	}
}

func same(t *testing.T, d Decision, want string) {
	t.Helper()
	got := ""
	if d.Refused != nil {
		got = d.Refused.Code
	}
	if got != want || d.Passes() != (want == "") {
		t.Fatalf("%q (%+v), want %q", got, d, want)
	}
}

// TestPairs: the first rule that matches decides; what none matches is refused.
func TestPairs(t *testing.T) {
	one, any := Pattern{whole: true, text: yi}, Pattern{}
	region, begins := Pattern{region: true, text: "5200"}, Pattern{text: "11"}
	for _, c := range []struct {
		name  string
		rules []Rule
		want  string
	}{
		{"no rule: all pass", nil, ""},
		{"allowed", []Rule{{Allow: true, To: one}}, ""},
		{"the first decides: allow", []Rule{{Allow: true, To: one}, {To: any}}, ""},
		{"the first decides: deny", []Rule{{To: one}, {Allow: true, To: any}}, exchange.CodeGuardPair},
		{"none matches", []Rule{{Allow: true, To: Pattern{whole: true, text: jia}}}, exchange.CodeGuardPair},
		{"only denials", []Rule{{To: Pattern{whole: true, text: jia}}}, exchange.CodeGuardPair},
		{"by region", []Rule{{Allow: true, From: region, To: any}}, ""},
		{"the region of the other", []Rule{{Allow: true, From: any, To: region}}, exchange.CodeGuardPair},
		{"by the beginning", []Rule{{Allow: true, From: begins}}, ""},
		{"of another kind", []Rule{{Allow: true, Kinds: []exchange.Kind{exchange.Notice}}}, exchange.CodeGuardPair},
		{"of its kind", []Rule{{Allow: true, Kinds: []exchange.Kind{exchange.Notice, exchange.Official}}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := Policy{Rules: c.rules}
			same(t, p.Decide(facts(nil), now), c.want)
		})
	}
}

func TestWhoHasToApprove(t *testing.T) {
	for _, c := range []struct {
		name     string
		approval Approval
		want     int
	}{
		{"nobody", Approval{}, 0},
		{"all documents", Approval{Administrators: 2}, 2},
		{"at the label", Approval{Administrators: 2, Label: exchange.Public}, 2},
		{"below the label", Approval{Administrators: 2, Label: exchange.Internal}, 0},
		{"above the size", Approval{Administrators: 3, Bytes: 1<<20 - 1}, 3},
		{"not above the size", Approval{Administrators: 3, Bytes: 1 << 20}, 0},
		{"the kind", Approval{Administrators: 2, Kinds: []exchange.Kind{exchange.Official}}, 2},
		{"another kind", Approval{Administrators: 2, Kinds: []exchange.Kind{exchange.Notice}}, 0},
		{"one of the conditions is enough", Approval{Administrators: 2, Label: exchange.WorkSecret, Bytes: 1}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := Policy{Approval: c.approval}
			if d := p.Decide(facts(nil), now); d.Administrators != c.want || d.Refused != nil || d.Passes() != (c.want == 0) {
				t.Fatalf("%+v, want %d administrators", d, c.want)
			}
		})
	}
}

func TestHours(t *testing.T) {
	beijing := time.FixedZone("+08:00", 8*3600)
	at := func(s string) time.Time {
		v, err := time.ParseInLocation("2006-01-02 15:04", s, beijing)
		if err != nil {
			t.Fatal(err)
		}
		return v.UTC()
	}
	work := Days(1<<time.Monday | 1<<time.Tuesday | 1<<time.Wednesday | 1<<time.Thursday | 1<<time.Friday)
	office := Policy{Zone: beijing, Exempt: exchange.VeryUrgent, Hours: []Hours{{work, 8 * 60, 12 * 60}, {work, 14 * 60, 18 * 60}}}
	night := Policy{Zone: beijing, Hours: []Hours{{everyDay, 22 * 60, 1440}, {everyDay, 0, 6 * 60}}}
	sunday := Policy{Zone: beijing, Hours: []Hours{{1 << time.Sunday, 9 * 60, 10 * 60}}}
	for _, c := range []struct {
		name    string
		policy  *Policy
		urgency exchange.Urgency
		at      string
		until   string // empty: open
	}{
		{"the first minute", &office, exchange.Normal, "2026-11-23 08:00", ""},
		{"the minute before", &office, exchange.Normal, "2026-11-23 07:59", "2026-11-23 08:00"},
		{"the last minute", &office, exchange.Normal, "2026-11-23 11:59", ""},
		{"at noon", &office, exchange.Normal, "2026-11-23 12:00", "2026-11-23 14:00"},
		{"urgent is not enough", &office, exchange.Urgent, "2026-11-23 12:00", "2026-11-23 14:00"},
		{"very urgent passes", &office, exchange.VeryUrgent, "2026-11-23 12:00", ""},
		{"on Friday evening", &office, exchange.Normal, "2026-11-27 18:00", "2026-11-30 08:00"},
		{"on Sunday", &office, exchange.Normal, "2026-11-29 10:00", "2026-11-30 08:00"},
		{"before midnight", &night, exchange.Normal, "2026-11-23 23:59", ""},
		{"at midnight", &night, exchange.Normal, "2026-11-24 00:00", ""},
		{"in the morning", &night, exchange.Normal, "2026-11-24 06:00", "2026-11-24 22:00"},
		{"a week ahead", &sunday, exchange.Normal, "2026-11-29 10:00", "2026-12-06 09:00"},
		{"no hours", &Policy{}, exchange.Normal, "2026-11-29 10:00", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			open, next := c.policy.Open(c.urgency, at(c.at))
			if open != (c.until == "") || !open && !next.Equal(at(c.until)) {
				t.Fatalf("open %t, next %s", open, next.In(beijing))
			}
			d := c.policy.Decide(facts(func(f *Facts) { f.Urgency = c.urgency }), at(c.at))
			if d.Passes() != open || !d.Until.Equal(next) {
				t.Fatalf("decided %+v", d)
			}
		})
	}
	if since := office.OpenSince(at("2026-11-23 15:30")); !since.Equal(at("2026-11-23 14:00")) {
		t.Errorf("open since %s", since.In(beijing))
	}
	if since := office.OpenSince(at("2026-11-23 13:30")); !since.IsZero() {
		t.Errorf("at noon open since %s", since)
	}
}
