package rest

import (
	"context"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// Several workers of one agency share its inbox by leases: what one has leased is
// not leased to another until it is signed for, released, or its time is over.
// Leases are in memory: they order work, and decide nothing about a document, so
// that a start which forgets them has two workers look at one document at worst.
const (
	maxLease  = 100
	maxLeased = 10000 // of one agency
)

type leases struct {
	mu sync.Mutex
	of map[string]map[string]lease // by agency and document
}

type lease struct {
	owner string // id of the API key
	under string // the Idempotency-Key of the request
	until time.Time
}

// LeaseRequest takes documents that wait for a signature.
type LeaseRequest struct {
	Limit   int `json:"limit,omitempty" minimum:"1" maximum:"100" default:"10" example:"10"`
	Seconds int `json:"seconds,omitempty" minimum:"1" maximum:"3600" default:"300" example:"300"`
}

// Leased is what was leased, and until when.
type Leased struct {
	Items []Received `json:"items"`
	Until time.Time  `json:"until"`
}

// ReleaseRequest gives leased documents back before their time.
type ReleaseRequest struct {
	Documents []string `json:"documents" minItems:"1" maxItems:"100" doc:"Document ids"`
}

// Released says how many were.
type Released struct {
	Released int `json:"released"`
}

func (l *leases) agency(code string, now time.Time) map[string]lease {
	if l.of == nil {
		l.of = map[string]map[string]lease{}
	}
	held := l.of[code]
	if held == nil {
		held = map[string]lease{}
		l.of[code] = held
	}
	for id, one := range held {
		if !now.Before(one.until) {
			delete(held, id)
		}
	}
	return held
}

// take gives the lease of a document, unless somebody has it. A request that is
// repeated under its key has what it had.
func (l *leases) take(code, document string, want lease, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := l.of[code]
	if one, ok := held[document]; ok && now.Before(one.until) {
		return one.owner == want.owner && one.under == want.under && want.under != ""
	}
	held[document] = want
	return true
}

func (l *leases) room(code string, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.agency(code, now)) >= maxLeased {
		return exchange.Fail(exchange.CodeTemporary, "%d documents are leased", maxLeased)
	}
	return nil
}

// repeats says whether a request has leased under its key before.
func (l *leases) repeats(code string, want lease) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, one := range l.of[code] {
		if want.under != "" && one.owner == want.owner && one.under == want.under {
			return true
		}
	}
	return false
}

func (l *leases) release(code, owner string, documents []string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range documents {
		if one, ok := l.of[code][id]; ok && one.owner == owner {
			delete(l.of[code], id)
			n++
		}
	}
	return n
}

func (s *Server) lease(ctx context.Context, in *struct{ Body LeaseRequest }) (*body[Leased], error) {
	agency, now := caller(ctx).Agency, s.c.Node.Now()
	if err := s.leased.room(agency, now); err != nil {
		return nil, s.problem(ctx, err)
	}
	want := lease{caller(ctx).ID, keyOf(ctx), now.Add(time.Duration(in.Body.Seconds) * time.Second)}
	again := s.leased.repeats(agency, want)
	out := &body[Leased]{Leased{Items: []Received{}, Until: want.until.UTC()}}
	for after := uint64(0); ; {
		items, next, err := s.c.Node.InboxBy(ctx, agency, after, 500, node.Filter{State: node.Waiting})
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		for i := range items {
			if len(out.Body.Items) == in.Body.Limit {
				return out, nil
			}
			if again && !s.leased.has(agency, items[i].ID, want) {
				continue
			}
			if s.leased.take(agency, items[i].ID, want, now) {
				out.Body.Items = append(out.Body.Items, received(&items[i]))
			}
		}
		if after = next; next == 0 {
			return out, nil
		}
	}
}

func (l *leases) has(code, document string, want lease) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.of[code][document]
	return one.owner == want.owner && one.under == want.under
}

func (s *Server) release(ctx context.Context, in *struct{ Body ReleaseRequest }) (*body[Released], error) {
	return &body[Released]{Released{s.leased.release(caller(ctx).Agency, caller(ctx).ID, in.Body.Documents)}}, nil
}
