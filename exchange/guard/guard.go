// Package guard decides whether the header of an envelope may pass a link.
// It is pure: it sees the signed routing facts and the link's policy, never
// the document, and never acts. Policies are read from guard.toml by [Parse];
// docs/guard.md explains them to whoever writes one.
package guard

import (
	"slices"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// Policy is what one link, in one direction, or a node itself, lets pass.
type Policy struct {
	Ceiling  exchange.Label  // highest label that may pass; empty: public only
	MaxBytes int64           // of the sealed payload; 0: no bound
	Kinds    []exchange.Kind // none: all
	Rules    []Rule          // the first that matches decides; what none matches is refused; none: all pass
	Approval Approval
	Hours    []Hours // none: at all hours
	Exempt   exchange.Urgency
	Zone     *time.Location // of Hours; nil: UTC
}

// Rule says of some pairs of sender and recipient whether they may pass.
type Rule struct {
	Allow    bool
	From, To Pattern
	Kinds    []exchange.Kind // none: all
}

// Approval says which documents administrators have to approve, and how many
// of them. With no condition set it is all documents, else those that meet one.
type Approval struct {
	Administrators int
	Label          exchange.Label // from this one upwards
	Bytes          int64          // above this size
	Kinds          []exchange.Kind
}

// Facts are what a header shows of a document on its way to one recipient.
// Without a recipient rules about pairs are left out.
type Facts struct {
	Label             exchange.Label
	Kind              exchange.Kind
	Urgency           exchange.Urgency
	Created, Expires  time.Time
	Sender, Recipient string
	Size              int64
}

// FactsOf reads them from a header's routing.
func FactsOf(r *exchange.Routing, sender, recipient string, size int64) Facts {
	return Facts{r.Label, r.Kind, r.Urgency, r.Created.Time(), r.Expires.Time(), sender, recipient, size}
}

// Decision is what a policy says of a document. Refused is the reason, as a
// REJECTED receipt carries its code; Administrators is how many must approve it
// first; Until is when the hours of the link begin again, zero while they last.
type Decision struct {
	Refused        *exchange.Error
	Administrators int
	Until          time.Time
}

// Passes says that nothing stands in the way now.
func (d Decision) Passes() bool {
	return d.Refused == nil && d.Administrators == 0 && d.Until.IsZero()
}

// Decide refuses, in this order, state secrets, labels above the ceiling,
// expiries that are further away than the longest life, kinds, sizes and pairs;
// what it does not refuse may have to be approved, or to wait for its hours. A
// document whose time has passed may pass: whoever answers for it ends it.
func (p *Policy) Decide(f Facts, now time.Time) Decision {
	if err := p.refusal(f); err != nil {
		return Decision{Refused: err}
	}
	d := Decision{Administrators: p.Approval.Needed(f)}
	if open, next := p.Open(f.Urgency, now); !open {
		d.Until = next
	}
	return d
}

func (p *Policy) refusal(f Facts) *exchange.Error {
	if f.Label.StateSecret() {
		return exchange.Fail(exchange.CodeStateSecret, "label: %s", f.Label)
	}
	ceiling := p.Ceiling
	if ceiling == "" {
		ceiling = exchange.Public
	}
	if f.Label.Rank() > ceiling.Rank() {
		return exchange.Fail(exchange.CodeLabelCeiling, "label: %s is above the ceiling %s", f.Label, ceiling)
	}
	if !f.Expires.After(f.Created) || f.Expires.Sub(f.Created) > exchange.MaxLife {
		return exchange.Fail(exchange.CodeInvalidDocument, "expires: must be after created, at most 366 days")
	}
	if !among(p.Kinds, f.Kind) {
		return exchange.Fail(exchange.CodeGuardKind, "kind: %.40q", f.Kind)
	}
	if p.MaxBytes > 0 && f.Size > p.MaxBytes {
		return exchange.Fail(exchange.CodeGuardSize, "%d bytes, at most %d may pass", f.Size, p.MaxBytes)
	}
	if f.Recipient != "" && !p.pairs(f) {
		return exchange.Fail(exchange.CodeGuardPair, "%s to %s, kind %s", f.Sender, f.Recipient, f.Kind)
	}
	return nil
}

func (p *Policy) pairs(f Facts) bool {
	for i := range p.Rules {
		if r := &p.Rules[i]; r.From.matches(f.Sender) && r.To.matches(f.Recipient) && among(r.Kinds, f.Kind) {
			return r.Allow
		}
	}
	return len(p.Rules) == 0
}

func among(kinds []exchange.Kind, k exchange.Kind) bool {
	return len(kinds) == 0 || slices.Contains(kinds, k)
}

// Needed is how many administrators must approve a document.
func (a *Approval) Needed(f Facts) int {
	always := a.Label == "" && a.Bytes == 0 && len(a.Kinds) == 0
	if always || a.Label != "" && f.Label.Rank() >= a.Label.Rank() || a.Bytes > 0 && f.Size > a.Bytes || slices.Contains(a.Kinds, f.Kind) {
		return a.Administrators
	}
	return 0
}
