package node

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// Filter picks documents of a list; what is empty picks all. What it looks at is
// sealed, so it is found by opening rows: one call opens at most maxExamined and
// says where the next goes on.
type Filter struct {
	State   string // of what was sent: a State; of what was received: a Stage, or Waiting
	Kind    exchange.Kind
	Urgency exchange.Urgency
	Sender  string    // of what was received
	From    time.Time // created, or received, not before
	To      time.Time // and before
	Number  string    // part of it
}

// Waiting is what an agency has neither signed for nor returned: 待签收.
const Waiting = "waiting"

const (
	maxExamined = 1000
	listStep    = 100
)

func (f *Filter) fits(s *summary, at time.Time) bool {
	return (f.Kind == "" || s.Kind == f.Kind) && (f.Urgency == "" || s.Urg == f.Urgency) &&
		(f.Number == "" || strings.Contains(s.Number, f.Number)) &&
		(f.From.IsZero() || !at.Before(f.From)) && (f.To.IsZero() || at.Before(f.To))
}

// stages are those that a filter of the inbox asks for; nil are all.
func (f *Filter) stages() ([]exchange.Stage, error) {
	switch stage := exchange.Stage(f.State); {
	case f.State == "" || f.State == Waiting:
		return nil, nil
	case stage.Known():
		return []exchange.Stage{stage}, nil
	}
	return nil, exchange.Fail(exchange.CodeBadRequest, "state: a stage or waiting is expected")
}

// waits keeps the list of what waits for its agency beside the inbox.
func waits(tx queue.Tx, agency string, hh sm.Digest, row *records.InboxRow) error {
	if row.Stage.End() {
		return records.InboxWaiting.Delete(tx, agency, row.Seq)
	}
	return records.InboxWaiting.Put(tx, &hh, agency, row.Seq)
}

// listedRow is an inbox row with its header.
type listedRow struct {
	hh  sm.Digest
	row *records.InboxRow
}

// inboxRows reads rows of an inbox, or of what waits in it, behind a place.
func (n *Node) inboxRows(ctx context.Context, of records.Table[sm.Digest], agency string, after uint64, limit int) (rows []listedRow, err error) {
	err = n.view(ctx, func(tx queue.Tx) error {
		rows = nil
		var hashes []sm.Digest
		err := of.EachBehind(tx, limit, func(_ []byte, hh *sm.Digest) bool {
			hashes = append(hashes, *hh)
			return true
		}, []any{agency}, after)
		for _, hh := range hashes {
			row, e := records.Inbox.Get(tx, agency, hh)
			if e != nil || row == nil {
				return errors.Join(err, e, absent(row == nil, "inbox row"))
			}
			rows = append(rows, listedRow{hh, row})
		}
		return err
	})
	return rows, err
}

// InboxBy lists received documents behind after, oldest first, that a filter picks.
// next is where to go on; 0 when all that is there was looked at.
func (n *Node) InboxBy(ctx context.Context, agency string, after uint64, limit int, f Filter) (items []InboxItem, next uint64, err error) {
	stages, err := f.stages()
	if err != nil {
		return nil, 0, err
	}
	of := records.InboxOrder
	if f.State == Waiting {
		of = records.InboxWaiting
	}
	step := listStep
	if f == (Filter{}) {
		step = min(limit, listStep)
	}
	for examined := 0; ; {
		rows, err := n.inboxRows(ctx, of, agency, after, step)
		if err != nil {
			return nil, 0, err
		}
		for i, r := range rows {
			after = r.row.Seq
			if (stages == nil || slices.Contains(stages, r.row.Stage)) && (f.Sender == "" || r.row.Sender == f.Sender) {
				item, fits, err := n.fittingItem(r, &f)
				if err != nil {
					return nil, 0, err
				}
				if fits {
					items = append(items, *item)
				}
			}
			if examined++; len(items) == limit || examined == maxExamined {
				if i+1 == len(rows) && len(rows) < step {
					after = 0
				}
				return items, after, nil
			}
		}
		if len(rows) < step {
			return items, 0, nil
		}
	}
}

func (n *Node) fittingItem(r listedRow, f *Filter) (*InboxItem, bool, error) {
	s, err := n.openSummary(r.hh, r.row.Sealed)
	if err != nil {
		return nil, false, err
	}
	if !f.fits(s, r.row.Received.Time()) {
		return nil, false, nil
	}
	return n.itemOf(r.hh, r.row, s), true, nil
}

// SentBy lists what an agency sent, newest first, behind the document after, that a
// filter picks. next is the document to go on behind; empty when all was looked at.
func (n *Node) SentBy(ctx context.Context, agency, after string, limit int, f Filter) (lines []Summary, next string, err error) {
	if f.State != "" && !slices.Contains(exchange.States(), exchange.State(f.State)) {
		return nil, "", exchange.Fail(exchange.CodeBadRequest, "state: one of the states of a document is expected")
	}
	step := listStep
	if f == (Filter{}) { // then no row is read for nothing
		step = min(limit, listStep)
	}
	for examined := 0; ; {
		all, err := n.Sent(ctx, agency, after, step)
		if err != nil {
			return nil, "", err
		}
		for i, l := range all {
			after = l.ID
			at := l.Created.Time()
			if !f.From.IsZero() && at.Before(f.From) { // all behind it are older
				return lines, "", nil
			}
			if (f.State == "" || string(l.State) == f.State) && f.fits(&summary{Kind: l.Kind, Urg: l.Urgency, Number: l.Number}, at) {
				lines = append(lines, l)
			}
			if examined++; len(lines) == limit || examined == maxExamined {
				if i+1 == len(all) && len(all) < step {
					after = ""
				}
				return lines, after, nil
			}
		}
		if len(all) < step {
			return lines, "", nil
		}
	}
}

// InboxCount says what waits in an inbox. Of what is beyond maxCounted only that
// there is more is said.
type InboxCount struct {
	Waiting int
	Urgency map[exchange.Urgency]int
	Overdue int // its time for signing has passed (超期未签收)
	More    bool
}

const maxCounted = 10000

// CountInbox counts what an agency has neither signed for nor returned.
func (n *Node) CountInbox(ctx context.Context, agency string) (*InboxCount, error) {
	c := &InboxCount{Urgency: map[exchange.Urgency]int{}}
	now := n.c.Now()
	for after := uint64(0); ; {
		rows, err := n.inboxRows(ctx, records.InboxWaiting, agency, after, listStep)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			if c.Waiting == maxCounted {
				c.More = true
				return c, nil
			}
			s, err := n.openSummary(r.hh, r.row.Sealed)
			if err != nil {
				return nil, err
			}
			after = r.row.Seq
			c.Waiting++
			c.Urgency[s.Urg]++
			if overdue(s.Due, now) {
				c.Overdue++
			}
		}
		if len(rows) < listStep {
			return c, nil
		}
	}
}

// overdue says whether a date, which lasts until its day has ended in China, is
// over.
func overdue(due string, now time.Time) bool {
	day, err := time.ParseInLocation(time.DateOnly, due, china)
	return err == nil && !now.Before(day.AddDate(0, 0, 1))
}

var china = time.FixedZone("UTC+8", 8*60*60)
