// Package guard decides whether the header of an envelope may pass a link.
// It is pure: it sees the signed routing facts and the link's policy, never
// the document, and never acts.
package guard

import (
	"github.com/yizhan-gateway/yizhan/exchange"
)

// Policy is what one link, or a node itself, lets pass.
type Policy struct {
	Ceiling exchange.Label // highest label that may pass; empty: public only
}

// Check refuses state secrets, labels above the policy's ceiling, and expiries
// that are further away than the longest life. The error's code is the reason
// that a REJECTED receipt carries. A document whose time has passed may pass:
// whoever answers for it ends it.
func Check(p Policy, r *exchange.Routing) error {
	if r.Label.StateSecret() {
		return exchange.Fail(exchange.CodeStateSecret, "label: %s", r.Label)
	}
	ceiling := p.Ceiling
	if ceiling == "" {
		ceiling = exchange.Public
	}
	if r.Label.Rank() > ceiling.Rank() {
		return exchange.Fail(exchange.CodeLabelCeiling, "label: %s is above the ceiling %s", r.Label, ceiling)
	}
	created, expires := r.Created.Time(), r.Expires.Time()
	if !expires.After(created) || expires.Sub(created) > exchange.MaxLife {
		return exchange.Fail(exchange.CodeInvalidDocument, "expires: must be after created, at most 366 days")
	}
	return nil
}
