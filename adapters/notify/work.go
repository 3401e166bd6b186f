package notify

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Bounds of a round of one hook.
const (
	roundEvents   = 64
	roundAtOnce   = 4
	roundPatience = 10 * time.Second // after an error of ours
	forever       = time.Hour        // between two looks when nothing is to do
	// settle is how long a hook lets changes gather: most are about other agencies.
	settle = 50 * time.Millisecond
)

// outcome is one call and what came of it.
type outcome struct {
	d Delivery
	a Answer
}

// Run works until ctx ends, then waits for the calls under way.
func (b *Book) Run(ctx context.Context) {
	var workers sync.WaitGroup
	b.mu.Lock()
	b.start = func(id string) {
		poke := b.poke[id]
		workers.Go(func() { b.work(ctx, id, poke) })
	}
	for id := range b.hooks {
		b.start(id)
	}
	b.mu.Unlock()
	<-ctx.Done()
	b.mu.Lock()
	b.start = nil
	b.mu.Unlock()
	workers.Wait()
}

func (b *Book) work(ctx context.Context, id string, poke <-chan struct{}) {
	for ctx.Err() == nil {
		changed := b.c.Source.Changed()
		wait, err := b.round(ctx, id)
		if errors.Is(err, ErrNoHook) {
			return
		}
		if err != nil && ctx.Err() == nil {
			b.c.Logger.Warn("a webhook's round failed and is repeated", "webhook", id, "error", err)
			wait = roundPatience
		}
		if wait == 0 {
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case _, ok := <-poke:
			if !ok {
				return
			}
		case <-changed:
			pause(ctx, settle)
		case <-timer.C:
		}
		timer.Stop()
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// round sends what is due, and says how long nothing else will be; 0: there is more.
func (b *Book) round(ctx context.Context, id string) (time.Duration, error) {
	h := b.snapshot(id)
	if h == nil {
		return 0, ErrNoHook
	}
	now := b.c.Now()
	if ok, from := h.sending(now); !ok {
		if h.Disabled != "" {
			return forever, nil
		}
		return from.Sub(now), nil
	}
	events, upto, next, err := b.collect(ctx, h, now)
	if err != nil {
		return 0, err
	}
	if len(events) == 0 && upto == h.Cursor {
		if next.IsZero() {
			return forever, nil
		}
		return max(next.Sub(now), time.Millisecond), nil
	}
	if len(events) == 0 {
		b.pass(id, upto)
		return 0, nil
	}
	all := b.calls(ctx, h, events)
	if ctx.Err() != nil { // we hung up; the receiver is not to blame
		return 0, ctx.Err()
	}
	return 0, b.take(id, upto, all)
}

// collect gives the events of a round: what is to be tried again before what is new.
// A hook that fails is tried with one. upto is the cursor when they are done.
func (b *Book) collect(ctx context.Context, h *Hook, now time.Time) (events []Event, upto string, next time.Time, err error) {
	most := roundEvents
	if h.Failures >= pauseAfter {
		most = 1
	}
	upto = h.Cursor
	again, next := h.due(now, most)
	for _, at := range again {
		e, err := b.c.Source.Event(ctx, h.Agency, at)
		if err != nil {
			return nil, "", next, err
		}
		if e == nil {
			e = &Event{At: at} // see call
		}
		events = append(events, *e)
	}
	if len(events) >= most || len(h.Kept)+most > maxKept {
		return events, upto, next, nil
	}
	fresh, upto, err := b.c.Source.Events(ctx, h.Agency, h.Cursor, most-len(events))
	if err != nil {
		return nil, "", next, err
	}
	for _, e := range fresh {
		if h.wants(e.Type) {
			events = append(events, e)
		}
	}
	return events, upto, next, nil
}

// calls makes the calls of a round, some at once.
func (b *Book) calls(ctx context.Context, h *Hook, events []Event) []outcome {
	out := make([]outcome, len(events))
	places := make(chan struct{}, roundAtOnce)
	var all sync.WaitGroup
	for i := range events {
		places <- struct{}{}
		all.Go(func() {
			out[i] = b.call(ctx, h, &events[i])
			<-places
		})
	}
	all.Wait()
	return out
}

// payload is the body of a call, in the form of Standard Webhooks.
type payload struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	Data      Event     `json:"data"`
}

func (b *Book) call(ctx context.Context, h *Hook, e *Event) outcome {
	now := b.c.Now().UTC()
	o := outcome{d: Delivery{
		Message: message(h.ID, e.At), Event: e.At, Type: e.Type, Document: e.Document, At: now, Attempt: h.attempts(e.At) + 1,
	}}
	if e.Type == "" {
		o.a.Status, o.d.Problem = http.StatusNoContent, "the event is no longer there"
		return o
	}
	body, err := json.Marshal(payload{e.Type, e.Time, *e})
	if err == nil {
		var header http.Header
		if header, err = headers(h, o.d.Message, now, body); err == nil {
			o.a, err = b.c.Outbound.Post(ctx, h.URL, header, body)
		}
	}
	o.d.Status = o.a.Status
	if err != nil {
		o.d.Problem = err.Error()
	}
	return o
}

// snapshot is the hook as a round sees it, with its valid secrets only.
func (b *Book) snapshot(id string) *Hook {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.hooks[id]
	if h == nil {
		return nil
	}
	c := *h
	c.Kept = slices.Clone(h.Kept)
	if len(c.Secrets) > 1 && b.c.Now().After(c.OldUntil) {
		c.Secrets = c.Secrets[:1]
	}
	return &c
}

// pass moves a cursor over what is not for the hook. That is found again after a
// crash, so it need not be durable.
func (b *Book) pass(id, upto string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if h := b.hooks[id]; h != nil {
		h.Cursor = upto
	}
}

// take enters what came of a round. The hook may have been changed or removed since.
func (b *Book) take(id, upto string, all []outcome) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.hooks[id]
	if h == nil {
		return ErrNoHook
	}
	for _, o := range all {
		h.note(o.d, o.a, rand.Float64())
	}
	if upto != "" {
		h.Cursor = upto
	}
	return b.save(h)
}
