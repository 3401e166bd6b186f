package node

import (
	"bytes"
	"context"
	"errors"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

// GuardItem is one document that waits for approval, as its header shows it.
type GuardItem struct {
	ID         string           `json:"id"`
	Link       string           `json:"link"`
	Neighbour  string           `json:"neighbour,omitempty"`
	Document   string           `json:"document"`
	Header     sm.Digest        `json:"header"`
	Sender     string           `json:"sender"`
	Recipients []string         `json:"recipients"` // over this link; the first of them
	Count      int              `json:"recipient_count"`
	Label      exchange.Label   `json:"label"`
	Kind       exchange.Kind    `json:"kind"`
	Urgency    exchange.Urgency `json:"urgency"`
	Size       int64            `json:"size"`
	Created    strictjson.Time  `json:"created"`
	Expires    strictjson.Time  `json:"expires"`
	Since      strictjson.Time  `json:"since"`
	Needed     int              `json:"approvals_needed"`
	Given      []GivenApproval  `json:"approvals"`
	Damaged    bool             `json:"damaged,omitempty"` // something of it cannot be read here
}

// GuardItems lists what waits for approval, for a link or for all (""), at most
// limit of it.
func (n *Node) GuardItems(ctx context.Context, link string, limit int) ([]GuardItem, error) {
	list := []GuardItem{}
	lanes, err := n.guardLanes(ctx, link)
	if err != nil {
		return nil, err
	}
	for _, lane := range lanes {
		var entries []laneItem
		_, err := n.readFronts(ctx, lane) // moves the cursor over what has gone
		if err == nil {
			err = n.view(ctx, func(tx queue.Tx) (err error) {
				entries, err = n.standing(tx, lane, min(limit, MaxQueueItems)-len(list))
				return err
			})
		}
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			item, err := n.guardItem(ctx, lane, e)
			if errors.Is(err, errGone) {
				continue
			}
			if IsAboutOneItem(err) && ctx.Err() == nil { // shown, and hides nothing beside it
				n.ShowDamage(ctx, placeName(lane, e.seq), err)
				link, _, _ := waitsIn(lane)
				item, err = &GuardItem{ID: guardID(lane, e.seq), Link: link, Header: e.Envelope, Since: e.Since, Recipients: []string{}, Given: []GivenApproval{}, Damaged: true}, nil
			}
			if err != nil {
				return nil, err
			}
			list = append(list, *item)
		}
		if len(list) >= min(limit, MaxQueueItems) {
			break
		}
	}
	return list, nil
}

// GuardItem gives one of them by its id.
func (n *Node) GuardItem(ctx context.Context, id string) (*GuardItem, error) {
	at, err := placeOfGuardID(id)
	if err != nil {
		return nil, err
	}
	e, err := n.entryAt(ctx, at.lane, at.seq)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, notGuarded(id)
	}
	item, err := n.guardItem(ctx, at.lane, *e)
	if errors.Is(err, errGone) {
		err = notGuarded(id)
	}
	return item, err
}

func (n *Node) guardItem(ctx context.Context, lane string, at laneItem) (*GuardItem, error) {
	if at.Kind == kindUnreadable {
		return nil, records.ErrUnreadable
	}
	link, _, _ := waitsIn(lane)
	var env *records.Envelope
	var out *records.Outbound
	err := n.view(ctx, func(tx queue.Tx) (err error) {
		if env, err = records.Envelopes.Get(tx, at.Envelope); err != nil {
			return err
		}
		out, err = records.Outgoing.Get(tx, at.Envelope, link, at.Object)
		return err
	})
	if err != nil {
		return nil, err
	}
	if env == nil || out == nil || out.State != records.StateGuarded || out.Seq != at.seq {
		return nil, errGone
	}
	e, err := n.loadHeader(ctx, at.Envelope, env)
	if err != nil {
		return nil, err
	}
	r, err := exchange.ParseRouting(e.Header.Routing)
	if err != nil {
		return nil, err
	}
	item := &GuardItem{
		ID: guardID(lane, at.seq), Link: link, Document: env.ID, Header: at.Envelope, Sender: env.Sender, Count: len(out.Recipients),
		Label: r.Label, Kind: r.Kind, Urgency: r.Urgency, Size: e.Header.Payload.Size,
		Created: r.Created, Expires: r.Expires, Since: at.Since, Needed: n.approvals(link, factsOf(e, r, "")), Recipients: []string{},
	}
	if l, ok := n.Directory().Link(link); ok {
		item.Neighbour = l.Neighbour(n.c.ID)
	}
	for _, i := range out.Recipients[:min(len(out.Recipients), maxShown)] {
		item.Recipients = append(item.Recipients, e.Header.Recipients[i].Agency)
	}
	item.Given, err = n.approvalsOf(ctx, at.Envelope, link)
	return item, err
}

// Approve takes what an administrator signed about a document that waits for
// approval. What follows from it is done by the work. The same bytes again change
// nothing; another word of somebody who has spoken does not count, and is refused. What
// does not count any more, or cannot be read, makes room for a new word of its
// administrator; the ledger keeps its leaf.
func (n *Node) Approve(ctx context.Context, signed []byte) error {
	s, a, err := openApproval(signed)
	if err != nil {
		return err
	}
	e, stale, err := n.judgeApproval(ctx, s, a)
	if e == nil || err != nil {
		return err
	}
	now := n.now()
	return n.update(ctx, func(tx queue.Tx) error {
		waits, err := n.stillGuarded(tx, e, a.Link)
		if err != nil {
			return err
		}
		if !waits {
			return notGuarded(a.Header.String() + " over " + a.Link)
		}
		next, err := n.ledger.Size(tx)
		if err != nil {
			return err
		}
		if err := putApproval(tx, a, &records.Approval{CMS: signed, Leaf: next, At: now}, stale); err != nil {
			return err
		}
		if _, err := n.append(tx, &merkle.Leaf{Event: eventApproval, Envelope: a.Header.String(), Object: s.ID(), At: now}); err != nil {
			return err
		}
		_, err = enqueueEntry(tx, laneWork, laneEntry{Kind: kindGuarded, Envelope: a.Header, Object: s.ID()})
		return err
	})
}

// putApproval stores a word, in place of one that does not count; stale is the leaf of
// that, 0 for none.
func putApproval(tx queue.Tx, a *exchange.GuardApproval, row *records.Approval, stale uint64) error {
	had, err := records.Approvals.Lock(tx, a.Header, a.Link, a.Administrator)
	switch {
	case errors.Is(err, records.ErrUnreadable):
		return records.Approvals.Put(tx, row, a.Header, a.Link, a.Administrator)
	case err != nil:
		return err
	case had != nil && had.Leaf == stale && stale > 0:
		return records.Approvals.Put(tx, row, a.Header, a.Link, a.Administrator)
	}
	err = records.Approvals.Insert(tx, row, a.Header, a.Link, a.Administrator)
	if errors.Is(err, queue.ErrExists) { // it came at the same time
		return spokenBefore(a)
	}
	return err
}

func spokenBefore(a *exchange.GuardApproval) error {
	return exchange.Fail(exchange.CodeGuardApproval, "administrator %s, or somebody with the same key, has signed about this document before", a.Administrator)
}

// judgeApproval says whether an approval may be taken, and in which leaf an earlier one
// of the same administrator is that does not count; the envelope is nil for one that
// was taken before.
func (n *Node) judgeApproval(ctx context.Context, s *cms.Signed, a *exchange.GuardApproval) (e *envelope.Envelope, stale uint64, err error) {
	d := n.Directory()
	if a.Domain != d.Domain() || a.Node != n.c.ID {
		return nil, 0, exchange.Fail(exchange.CodeGuardApproval, "it is for node %.40q of domain %.40q, and this is node %q of %q", a.Node, a.Domain, n.c.ID, d.Domain())
	}
	who := administrator(d, a.Administrator)
	if who == nil {
		return nil, 0, exchange.Fail(exchange.CodeGuardApproval, "%s is no administrator that the directory names", a.Administrator)
	}
	if err := exchange.CheckSigner(who.Certificates, s.Certificate, s, n.c.Now()); err != nil {
		return nil, 0, &exchange.Error{Code: exchange.CodeGuardApproval, Detail: "the signature of " + a.Administrator + " cannot be relied on", Err: err}
	}
	key, err := keyOf(s.Certificate)
	if err != nil {
		return nil, 0, err
	}
	given, err := n.approvalsOf(ctx, a.Header, a.Link)
	if err != nil {
		return nil, 0, err
	}
	for _, g := range given {
		switch {
		case g.Counts && g.ID == s.ID():
			return nil, 0, nil
		case g.Counts && (g.Administrator == a.Administrator || bytes.Equal(g.key, key)):
			return nil, 0, spokenBefore(a)
		case g.Administrator == a.Administrator:
			stale = g.Leaf
		}
	}
	e, err = n.guardedEnvelope(ctx, a)
	return e, stale, err
}

// guardedEnvelope is the document that an approval is about. To refuse one that may
// have left before this node was restored would give it two ends.
func (n *Node) guardedEnvelope(ctx context.Context, a *exchange.GuardApproval) (*envelope.Envelope, error) {
	env, err := n.envelopeRow(ctx, a.Header)
	if err != nil {
		return nil, err
	}
	if env == nil {
		return nil, notGuarded(a.Header.String() + " over " + a.Link)
	}
	if a.Verdict == exchange.VerdictRefuse {
		ours, err := n.certainlyOurs(ctx, a.Header)
		if err != nil {
			return nil, err
		}
		if !ours {
			return nil, exchange.Fail(exchange.CodeFateUnknown, "%s may have passed before this node was restored", env.ID)
		}
	}
	return n.loadHeader(ctx, a.Header, env)
}

// stillGuarded says whether the document waits for approval over a link.
func (n *Node) stillGuarded(tx queue.Tx, e *envelope.Envelope, link string) (bool, error) {
	list, err := guardedOf(tx, e.Hash)
	for _, g := range list {
		if g.link != link {
			continue
		}
		out, err := records.Outgoing.Lock(tx, e.Hash, link, g.id)
		if err != nil {
			return false, err
		}
		if out != nil && out.State == records.StateGuarded {
			return true, nil
		}
	}
	return false, err
}
