package node

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/guard"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

// The guard is asked at both ends of a link. What may not come in is refused with
// its header, before its payload comes, if that is so for all recipients whose way
// leads over this link; else each is refused for itself when the document is
// distributed, as are those that may not go out. In both cases REJECTED names those
// recipients and nobody else, and carries the reason.

// policy is what may pass a link in a direction.
func (n *Node) policy(l *certs.Link, way guard.Direction) guard.Policy {
	return n.c.Guard.For(l.ID, way, exchange.Label(l.Ceiling))
}

func factsOf(e *envelope.Envelope, r *exchange.Routing, recipient string) guard.Facts {
	return guard.FactsOf(r, e.Header.Sender, recipient, e.Header.Payload.Size)
}

// refusedIn is why a document may not come to a recipient over the link that it came
// over; nil when it may, or was submitted here.
func (n *Node) refusedIn(d *certs.Directory, from string, f guard.Facts) *exchange.Error {
	l, ok := d.Link(from)
	if !ok { // none, or one that has gone since: what came over it had passed
		return nil
	}
	p := n.policy(l, guard.In)
	return p.Decide(f, n.c.Now()).Refused
}

func (n *Node) refusedOut(l *certs.Link, f guard.Facts) *exchange.Error {
	p := n.policy(l, guard.Out)
	return p.Decide(f, n.c.Now()).Refused
}

// inadmissible names the reason why policy will not pass a header; empty when
// it passes for some recipient.
func (n *Node) inadmissible(d *certs.Directory, link string, e *envelope.Envelope, r *exchange.Routing) string {
	l, ok := d.Link(link)
	if !ok {
		return exchange.CodeNoRoute
	}
	p, now := n.policy(l, guard.In), n.c.Now()
	if refused := p.Decide(factsOf(e, r, ""), now).Refused; refused != nil {
		return refused.Code
	}
	if e.Header.Domain != d.Domain() {
		return "domain"
	}
	if len(p.Rules) == 0 {
		return ""
	}
	reason := ""
	for _, agency := range n.comingOver(d, l, e) {
		refused := p.Decide(factsOf(e, r, agency), now).Refused
		if refused == nil {
			return ""
		}
		reason = refused.Code
	}
	return reason
}

// comingOver are the recipients of a header whose way leads from the neighbour to
// this node, as far as the directory knows; all of them when it knows none.
func (n *Node) comingOver(d *certs.Directory, l *certs.Link, e *envelope.Envelope) []string {
	all := exchange.Recipients(e)
	some := slices.DeleteFunc(slices.Clone(all), func(agency string) bool {
		_, next, err := d.NextHop(l.Neighbour(n.c.ID), agency)
		return err != nil || next != n.c.ID
	})
	if len(some) == 0 {
		return all
	}
	return some
}

// refusedMark is the key of the mark that a header was refused: for all that it
// names, or for those that come over a link.
func refusedMark(link string) string { return "link:" + link }

// reasonDiffers: two nodes do not have the same directory, and so may not agree who
// comes over their link. Soon they will.
const reasonDiffers = "directory_differs"

// rejectHeader signs the refusal of a header that the sender did sign, for the
// recipients that come over the link, and sends it home. Nobody whom the neighbour
// sends this way may be left out of it: as long as it has another directory in force
// it keeps the header.
func (n *Node) rejectHeader(ctx context.Context, d *certs.Directory, link string, e *envelope.Envelope, b []byte, reason string) (Outcome, error) {
	who, key := [][]string{nil}, ""
	if l, ok := d.Link(link); ok {
		if some := n.comingOver(d, l, e); len(some) < len(exchange.Recipients(e)) {
			theirs, err := n.neighbourVersion(ctx, link)
			if err != nil || theirs != 0 && theirs != d.Version() {
				return Outcome{Damaged, reasonDiffers}, err
			}
			who, key = slices.Collect(slices.Chunk(some, exchange.MaxReceiptRecipients)), refusedMark(link)
		}
	}
	// Signed first: when that is not possible now, the header comes again and
	// nothing was noted.
	var receipts []*signedReceipt
	for _, some := range who {
		r, err := n.nodeReceipt(d, &exchange.Receipt{
			Stage: exchange.StageRejected, Envelope: e.Header.ID, Header: e.Hash, Reason: reason, Recipients: some,
		})
		if err != nil {
			return Outcome{}, err
		}
		receipts = append(receipts, r)
	}
	if err := n.Quarantine(ctx, "", "header "+e.Hash.String(), reason, b); err != nil {
		return Outcome{}, err
	}
	event := eventEnded
	if reason == reasonConflict {
		event = eventConflict
	}
	return Outcome{Refused, reason}, n.update(ctx, func(tx queue.Tx) error {
		// One refusal for each header and link: a resent header gets the stored bytes.
		mark := &records.Dedup{Stage: exchange.StageRejected, Receipt: receipts[0].id}
		err := records.Delivered.Insert(tx, mark, e.Hash, key)
		if errors.Is(err, queue.ErrExists) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, r := range receipts {
			if _, err := n.putReceipt(tx, e.Hash, r, event); err != nil {
				return err
			}
			if err := n.homeward(tx, d, e.Header.Sender, e.Hash, r.id); err != nil {
				return err
			}
		}
		return nil
	})
}

// refusedBefore says that a header was refused here, when it came over this link or
// for all: it stays so whatever has come into force since, for its sender holds a
// receipt that says so.
func (n *Node) refusedBefore(ctx context.Context, link string, hh sm.Digest) (out Outcome, err error) {
	err = n.view(ctx, func(tx queue.Tx) error {
		out = Outcome{}
		mark, err := records.Delivered.Get(tx, hh, "")
		if mark == nil && err == nil {
			mark, err = records.Delivered.Get(tx, hh, refusedMark(link))
		}
		if mark == nil || err != nil {
			return err
		}
		row, err := records.Receipts.Get(tx, hh, mark.Receipt)
		if err != nil || row == nil {
			return errors.Join(err, absent(row == nil, "receipt"))
		}
		stored, err := openStored(row)
		if err != nil {
			return err
		}
		out = Outcome{Refused, stored.body.Reason}
		return nil
	})
	return out, err
}

// unusableHeader answers for a header that cannot be read. One that is whole, and
// asks for something that is not known here, is refused: no copy would be better.
func (n *Node) unusableHeader(ctx context.Context, link string, it Item, b []byte) (Outcome, error) {
	e, err := envelope.ParseHeader(b)
	if !errors.Is(err, strictjson.ErrCritical) || e == nil || e.Hash.String() != it.ID {
		return n.damaged(ctx, link, it, "unparsable", b)
	}
	if out, err := n.refusedBefore(ctx, link, e.Hash); out.Status != "" || err != nil {
		return out, err
	}
	d := n.Directory()
	reason, err := n.verifyHeader(d, e, n.c.Now())
	if err != nil {
		return n.faulty(ctx, link, it, err, b)
	}
	if reason == "" {
		reason = exchange.CodeUnknownCritical
	}
	return n.rejectHeader(ctx, d, link, e, b, reason)
}

// openNeeded is how long a link must have been open until what waits for it is
// overdue: its neighbour has that long to take what waited for the hours.
const openNeeded = time.Hour

// lowestOpen is the lowest rank of a link's lanes that may leave now: outside its
// hours documents stay where they are, or those that are not urgent enough.
// Receipts and requests go at all hours.
func (n *Node) lowestOpen(link string) int {
	rank, _ := n.hoursOf(link)
	return rank
}

// hoursOf says until when the ranks below one wait.
func (n *Node) hoursOf(link string) (lowest int, until time.Time) {
	if n.c.Guard == nil {
		return 0, until
	}
	p, now := n.c.Guard.For(link, guard.Out, exchange.Public), n.c.Now()
	for rank, u := range []exchange.Urgency{exchange.Normal, exchange.Urgent, exchange.VeryUrgent} {
		open, next := p.Open(u, now)
		if open {
			return rank, until
		}
		until = next
	}
	return rankReceipt, until
}

// justOpened says whether the hours of a link have begun so lately that nothing can
// be overdue for it.
func (n *Node) justOpened(link string) bool {
	p, now := n.c.Guard.For(link, guard.Out, exchange.Public), n.c.Now()
	since := p.OpenSince(now)
	return !since.IsZero() && now.Sub(since) < min(openNeeded, n.c.DeadLetterAfter)
}

// unmarkedFiles gives files up to the first whose name has a mark of a state secret;
// nothing of that one is read.
func unmarkedFiles(files iter.Seq2[envelope.File, error]) iter.Seq2[envelope.File, error] {
	return func(yield func(envelope.File, error) bool) {
		no := 0
		for f, err := range files {
			if no++; err == nil && guard.Marked(f.Name) {
				yield(envelope.File{}, exchange.Fail(exchange.CodeClassificationMark, "the name of file %d", no))
				return
			}
			if !yield(f, err) {
				return
			}
		}
	}
}

// sealedPasses asks the guards of the first links again, now that it is known what a
// document weighs.
func (n *Node) sealedPasses(d *certs.Directory, plan *envelope.Plan, size int64) error {
	if n.c.Guard == nil {
		return nil
	}
	routing, err := exchange.ParseRouting(plan.Routing)
	if err != nil {
		return err
	}
	for _, r := range plan.Recipients {
		if r.Role != envelope.RoleRecipient {
			continue
		}
		if refused := n.passable(d, plan.Sender, r.Agency, routing, size).Refused; refused != nil {
			return refused
		}
	}
	return nil
}
