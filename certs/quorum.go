package certs

import (
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// Quorum is whether administrators could approve a next version at a time.
type Quorum struct {
	Needed int      // by the policy
	Able   []string // who has a certificate that is valid and not revoked
	Unable []string
}

// Missing is how many administrators more it would take.
func (q *Quorum) Missing() int { return max(0, q.Needed-len(q.Able)) }

func (q *Quorum) count(id string, h *Holder, at time.Time) {
	if _, err := h.Current(UseSign, at); err == nil {
		q.Able = append(q.Able, id)
	} else {
		q.Unable = append(q.Unable, id)
	}
}

// Quorum counts the administrators of a directory by its policy.
func (d *Directory) Quorum(at time.Time) *Quorum {
	q := &Quorum{Needed: d.Policy().Approvals}
	for _, a := range d.administrators {
		q.count(a.ID, &a.Holder, at)
	}
	return q
}

// SetPolicy notes, for the next publication, how many administrators must
// approve every later one, and gives who of the entries could. A policy that
// they could not meet is refused: no version would be published any more.
func (a *Authority) SetPolicy(approvals int, now time.Time) (*Quorum, error) {
	if approvals < 0 || approvals > maxIssuers {
		return nil, fail(codeRequest, "a policy asks for 0 to %d approvals", maxIssuers)
	}
	q, err := a.quorum(approvals, now)
	if err != nil {
		return nil, err
	}
	if q.Missing() > 0 {
		return nil, fail(codeRequest, "a policy of %d approvals cannot be met: %d of %d administrators have a certificate that is valid and not revoked (not: %s), %d more are needed: make or renew administrators with yizhan directory administrator first",
			approvals, len(q.Able), len(q.Able)+len(q.Unable), strings.Join(q.Unable, ", "), q.Missing())
	}
	return q, a.putEntry("policy", &policyEntry{Type: policyType, V: 1, Domain: a.domain, Approvals: approvals})
}

// quorum counts the administrators in the entries, as a reader of the next
// directory will.
func (a *Authority) quorum(needed int, now time.Time) (*Quorum, error) {
	raw, err := a.entries()
	if err != nil {
		return nil, err
	}
	book, err := a.book()
	if err != nil {
		return nil, err
	}
	q := &Quorum{Needed: needed}
	for _, b := range raw {
		if kind, err := kindOf(b); err != nil || kind != administratorType {
			continue
		}
		var e administratorEntry
		if err := strictjson.Unmarshal(b, &e); err != nil {
			return nil, &Error{Code: codeContent, Detail: administratorType, Err: err}
		}
		held, err := book.read(e.Certs)
		if err != nil {
			return nil, within("administrator "+e.ID, err)
		}
		q.count(e.ID, &Holder{Certificates: held}, now)
	}
	return q, nil
}
