package guard

import (
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// Hours are a time of day on some days of the week, from a minute up to another
// of the same day, which may be its last (1440).
type Hours struct {
	Days     Days
	From, To int // minutes after midnight
}

// Days is a set of days of the week.
type Days uint8

// Has says whether a day is in the set.
func (d Days) Has(day time.Weekday) bool { return d&(1<<day) != 0 }

// Open says whether documents of an urgency pass at a time, and if not, when
// they will next.
func (p *Policy) Open(u exchange.Urgency, now time.Time) (open bool, next time.Time) {
	if len(p.Hours) == 0 || p.Exempt != "" && u.Rank() >= p.Exempt.Rank() {
		return true, time.Time{}
	}
	local := now.In(p.zone())
	for ahead := range 8 { // a week, and the rest of today's day in a week
		day := midnight(local, ahead)
		for _, h := range p.Hours {
			if !h.Days.Has(day.Weekday()) {
				continue
			}
			from, to := minute(day, h.From), minute(day, h.To)
			switch {
			case !now.Before(to):
			case !now.Before(from):
				return true, time.Time{}
			case next.IsZero() || from.Before(next):
				next = from
			}
		}
	}
	return false, next
}

// OpenSince is when the hours that last now began; zero when there are none, or
// none lasts.
func (p *Policy) OpenSince(now time.Time) (since time.Time) {
	day := midnight(now.In(p.zone()), 0)
	for _, h := range p.Hours {
		from, to := minute(day, h.From), minute(day, h.To)
		if h.Days.Has(day.Weekday()) && !now.Before(from) && now.Before(to) && (since.IsZero() || from.Before(since)) {
			since = from
		}
	}
	return since
}

func (p *Policy) zone() *time.Location {
	if p.Zone == nil {
		return time.UTC
	}
	return p.Zone
}

func midnight(local time.Time, ahead int) time.Time {
	return time.Date(local.Year(), local.Month(), local.Day()+ahead, 0, 0, 0, 0, local.Location())
}

func minute(day time.Time, m int) time.Time {
	return time.Date(day.Year(), day.Month(), day.Day(), 0, m, 0, 0, day.Location())
}
