// Package notify tells others what happened: the systems of agencies by webhooks.
//
// A failing receiver stops nothing but its own webhook: events are read from a
// durable sequence behind a cursor, so what was not delivered is still there, and
// no document waits for a call.
//
// One event: [Source] has it under a number; the worker of a hook reads it behind
// the hook's cursor, signs it with the hook's secret and posts it ([Outbound]); what
// the receiver answered goes into the hook's log, and what it did not take is kept
// to be tried again, from 5 seconds up to a day later. The cursor and what is kept
// are durable after each round: a crash repeats events under the same webhook-id,
// and loses none.
package notify

import (
	"context"
	"errors"
	"time"
)

// The types of events.
const (
	TypeReceived = "document.received" // it lies in the inbox
	TypeStage    = "document.stage"    // a receipt came for a sent document
	TypeRequest  = "document.request"  // the sender recalls or reminds
	TypeTest     = "webhook.test"      // asked for by the agency
)

// Types lists what a hook can be for.
var Types = []string{TypeReceived, TypeStage, TypeRequest}

// Event is something that happened to a document of an agency. It has neither title
// nor text: whoever may read these asks the node.
type Event struct {
	At       string    `json:"id"` // its position in the sequence
	Type     string    `json:"-"`
	Time     time.Time `json:"time"`
	Document string    `json:"document"`
	Stage    string    `json:"stage,omitempty"`    // of a receipt
	Request  string    `json:"request,omitempty"`  // RECALL or REMIND
	Agencies []string  `json:"agencies,omitempty"` // to a recipient the sender, to the sender the recipients
}

// Source is the durable sequence of an agency's events. Positions are its own; the
// empty one is before all.
type Source interface {
	// Events lists those behind a position, oldest first, at most limit, and the
	// position up to which there is nothing else: after itself when there is no more.
	Events(ctx context.Context, agency, after string, limit int) (list []Event, upto string, err error)
	// Event gives the one at a position; nil: there is none.
	Event(ctx context.Context, agency, at string) (*Event, error)
	// Newest is the position behind all events.
	Newest(ctx context.Context) (string, error)
	// Changed is closed when there may be more.
	Changed() <-chan struct{}
}

// Sealer encrypts a file's content for its place at rest.
type Sealer interface {
	SealRow(row, plain []byte) ([]byte, error)
	OpenRow(row, sealed []byte) ([]byte, error)
}

// The errors of a call.
var (
	// ErrForbidden: the address is internal and not allowed by the operator.
	ErrForbidden = errors.New("the address is internal, and not among those that the operator allows")
	// ErrURL: the address is not one that may be called.
	ErrURL = errors.New("an https address with a host and without a user name is expected")
	// ErrRedirect: the receiver sent the call elsewhere, which is not followed.
	ErrRedirect = errors.New("the receiver redirects; name the address where it ends")
	// ErrNoHook: there is no such webhook of the agency.
	ErrNoHook = errors.New("no such webhook")
	// ErrTooMany: the agency has as many webhooks as it may.
	ErrTooMany = errors.New("as many webhooks as an agency may have")
)
