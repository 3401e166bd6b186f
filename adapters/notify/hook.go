package notify

import (
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// Limits of hooks.
const (
	MaxHooks = 10   // of one agency
	maxKept  = 1000 // events that one hook has waiting to be tried again
	maxLog   = 200  // deliveries that a hook remembers
	maxFile  = 4 << 20
)

// Hook is one webhook of an agency. Its file is sealed, as it holds secrets.
type Hook struct {
	ID        string    `json:"id"`
	Agency    string    `json:"agency"`
	URL       string    `json:"url"`
	Types     []string  `json:"types"` // of events; empty: all
	Algorithm string    `json:"algorithm"`
	Secrets   []string  `json:"secrets"` // the newest first
	Created   time.Time `json:"created"`
	// OldUntil is when the second secret ends.
	OldUntil time.Time `json:"old_until,omitzero"`
	// Disabled says why nothing is sent; empty: it is.
	Disabled string `json:"disabled,omitempty"`

	Cursor string     `json:"cursor"` // events up to here were sent or are kept
	Kept   []Kept     `json:"kept"`
	Log    []Delivery `json:"log"` // the oldest first

	Failures     int       `json:"failures"`               // in a row
	FailingSince time.Time `json:"failing_since,omitzero"` // the first of them
	Taken        time.Time `json:"taken,omitzero"`         // when the receiver last took one
	Pause        time.Time `json:"pause,omitzero"`         // nothing is sent before
}

// Kept is an event that the receiver did not take.
type Kept struct {
	Event    string    `json:"event"`
	Attempts int       `json:"attempts"`
	First    time.Time `json:"first"` // when it was tried first
	Next     time.Time `json:"next"`
}

// Delivery is one call.
type Delivery struct {
	Message  string    `json:"message"` // webhook-id, the same at every repetition
	Event    string    `json:"event,omitempty"`
	Type     string    `json:"type"`
	Document string    `json:"document,omitempty"`
	At       time.Time `json:"at"`
	Attempt  int       `json:"attempt"`
	Status   int       `json:"status,omitempty"` // HTTP; 0: there was no answer
	Problem  string    `json:"problem,omitempty"`
	GaveUp   bool      `json:"gave_up,omitempty"`
}

// DisabledGone is why a hook is disabled whose receiver answered 410.
const DisabledGone = "gone"

// pauseAfter is how many failures in a row make a hook rest, up to half an hour, and
// then try one event at a time. It goes on like that for as long as its receiver is
// away, and loses nothing meanwhile.
const pauseAfter = 3

// retries is how long the wait is before each further attempt, as Standard Webhooks
// proposes; each is drawn from half of it up to it, so that many hooks of one receiver
// do not come back at once.
var retries = []time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
	10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
}

func (h *Hook) wants(t string) bool { return len(h.Types) == 0 || slices.Contains(h.Types, t) }

// sending says whether the hook may call now, and otherwise from when on.
func (h *Hook) sending(now time.Time) (ok bool, from time.Time) {
	if h.Disabled != "" {
		return false, time.Time{}
	}
	return !now.Before(h.Pause), h.Pause
}

// due lists what is to be tried again, and when the next will be.
func (h *Hook) due(now time.Time, most int) (events []string, next time.Time) {
	for _, k := range h.Kept {
		switch {
		case k.Next.After(now) && (next.IsZero() || k.Next.Before(next)):
			next = k.Next
		case !k.Next.After(now) && len(events) < most:
			events = append(events, k.Event)
		}
	}
	return events, next
}

func (h *Hook) attempts(event string) int {
	for _, k := range h.Kept {
		if k.Event == event {
			return k.Attempts
		}
	}
	return 0
}

// note takes one call in. jitter is from 0 to 1.
func (h *Hook) note(d Delivery, a Answer, jitter float64) {
	first := d.At
	h.Kept = slices.DeleteFunc(h.Kept, func(k Kept) bool {
		if k.Event != d.Event {
			return false
		}
		first = k.First
		return true
	})
	switch {
	case a.Status >= 200 && a.Status < 300:
		h.Failures, h.FailingSince, h.Pause, h.Taken = 0, time.Time{}, time.Time{}, d.At
	case a.Status == http.StatusGone:
		h.Disabled = DisabledGone
		h.keep(&d, first, a, jitter)
	default:
		h.fail(&d, a, jitter)
		h.keep(&d, first, a, jitter)
	}
	h.Log = append(h.Log, d)
	if len(h.Log) > maxLog {
		h.Log = slices.Delete(h.Log, 0, len(h.Log)-maxLog)
	}
}

func (h *Hook) fail(d *Delivery, a Answer, jitter float64) {
	if h.Failures++; h.FailingSince.IsZero() {
		h.FailingSince = d.At
	}
	if h.Failures >= pauseAfter {
		h.Pause = d.At.Add(max(drawn(retries[min(h.Failures-pauseAfter, 2)], jitter), a.After))
	}
}

// keep puts an event among those to be tried again. It is given up when it was often
// enough and the receiver took others meanwhile: then it is the event, not the line.
func (h *Hook) keep(d *Delivery, first time.Time, a Answer, jitter float64) {
	if d.Event == "" {
		return // a test
	}
	if d.Attempt > len(retries) && h.Taken.After(first) {
		d.GaveUp = true
		return
	}
	wait := max(drawn(retries[min(d.Attempt, len(retries))-1], jitter), a.After)
	h.Kept = append(h.Kept, Kept{Event: d.Event, Attempts: d.Attempt, First: first, Next: d.At.Add(wait)})
}

func drawn(d time.Duration, jitter float64) time.Duration {
	return d/2 + time.Duration(jitter*float64(d/2))
}

// message is the webhook-id of an event for a hook.
func message(hook, event string) string { return "msg_" + hook + "_" + event }

func rowOf(id string) []byte { return []byte("webhook/" + id) }

func (b *Book) load(id string) (*Hook, error) {
	sealed, err := durable.ReadFile(durable.OS, b.file(id), maxFile)
	if err != nil {
		return nil, err
	}
	plain, err := b.c.Sealer.OpenRow(rowOf(id), sealed)
	if err != nil {
		return nil, err
	}
	var h Hook
	return &h, json.Unmarshal(plain, &h)
}

// save makes a hook durable. A crash before it repeats what was sent since the last
// time, under the same ids.
func (b *Book) save(h *Hook) error {
	plain, err := json.Marshal(h)
	if err != nil {
		return err
	}
	sealed, err := b.c.Sealer.SealRow(rowOf(h.ID), plain)
	if err != nil {
		return err
	}
	return durable.WriteFile(durable.OS, b.file(h.ID), sealed)
}
