package sim

import (
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// Some documents live shorter than the storm. They may end with EXPIRED; what
// did so is in no inbox.

// tooLate says whether a submission may not be accepted any more.
func (s *submission) tooLate(now time.Time) bool {
	return !s.expires.IsZero() && !now.Before(s.expires)
}

// lapsed says whether a delivery may stand at EXPIRED, and does.
func (d *submission) lapsed(r *exchange.RecipientState) bool {
	return !d.expires.IsZero() && r.Stage == exchange.StageExpired
}

// checkLapsed: what ended so has not arrived (I1).
func (w *world) checkLapsed(d *submission, r *exchange.RecipientState) {
	if w.inboxCount(r.Agency, d.id) > 0 {
		w.fail("I1: %s has expired for %s, and has arrived", d.id, r.Agency)
	}
	w.stats.Expired++
}
