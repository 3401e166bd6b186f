package node

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

// GivenApproval is what an administrator signed, and whether it counts by the
// directory in force: he is named there, his certificate was valid when it came, and
// nobody with the same key has spoken before.
type GivenApproval struct {
	ID            sm.Digest       `json:"id"`
	Administrator string          `json:"administrator"`
	Name          string          `json:"name,omitempty"`
	Verdict       string          `json:"verdict"`
	Reason        string          `json:"reason,omitempty"`
	Time          strictjson.Time `json:"time"`
	At            strictjson.Time `json:"received"`
	Leaf          uint64          `json:"leaf"`
	Counts        bool            `json:"counts"`
}

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

// approvalsOf reads what administrators signed about a document and a link, in the
// order in which it came, and judges it by the directory in force.
func (n *Node) approvalsOf(ctx context.Context, hh sm.Digest, link string) ([]GivenApproval, error) {
	var rows []*records.Approval
	err := n.view(ctx, func(tx queue.Tx) error {
		rows = nil
		return records.Approvals.Each(tx, 0, func(_ []byte, row *records.Approval) bool {
			rows = append(rows, row)
			return true
		}, hh, link)
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(rows, func(a, b *records.Approval) int { return int(a.Leaf) - int(b.Leaf) })
	d, given := n.Directory(), []GivenApproval{}
	var spoken [][]byte
	for _, row := range rows {
		s, a, err := openApproval(row.CMS)
		if err != nil {
			return nil, err
		}
		g := GivenApproval{ID: s.ID(), Administrator: a.Administrator, Verdict: a.Verdict, Reason: a.Reason, Time: a.Time, At: row.At, Leaf: row.Leaf}
		key, err := keyOf(s.Certificate)
		if err != nil {
			return nil, err
		}
		if who := administrator(d, a.Administrator); who != nil {
			g.Name = who.Name
			g.Counts = a.Domain == d.Domain() && a.Node == n.c.ID && a.Link == link && a.Header == hh &&
				exchange.CheckSigner(who.Certificates, s.Certificate, s, row.At.Time()) == nil &&
				!slices.ContainsFunc(spoken, func(had []byte) bool { return bytes.Equal(had, key) })
		}
		if g.Counts {
			spoken = append(spoken, key)
		}
		given = append(given, g)
	}
	return given, nil
}

func openApproval(signed []byte) (*cms.Signed, *exchange.GuardApproval, error) {
	s, err := cms.Parse(signed, exchange.MaxGuardApprovalCMS)
	if err != nil {
		return nil, nil, &exchange.Error{Code: exchange.CodeGuardApproval, Detail: "it is no signed object", Err: err}
	}
	a, err := exchange.ParseGuardApproval(s.Content)
	return s, a, err
}

// keyOf gives the public key of a certificate, to tell holders apart.
func keyOf(der []byte) ([]byte, error) {
	cert, err := cms.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return cert.RawSubjectPublicKeyInfo, nil
}

func administrator(d *certs.Directory, id string) *certs.Administrator {
	list := d.Administrators()
	if i := slices.IndexFunc(list, func(a *certs.Administrator) bool { return a.ID == id }); i >= 0 {
		return list[i]
	}
	return nil
}

// Approve takes what an administrator signed about a document that waits for
// approval. What follows from it is done by the work. The same bytes again change
// nothing; another word of somebody who has spoken does not count, and is refused.
func (n *Node) Approve(ctx context.Context, signed []byte) error {
	s, a, err := openApproval(signed)
	if err != nil {
		return err
	}
	e, err := n.judgeApproval(ctx, s, a)
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
		row := &records.Approval{CMS: signed, Leaf: next, At: now}
		err = records.Approvals.Insert(tx, row, a.Header, a.Link, a.Administrator)
		if errors.Is(err, queue.ErrExists) { // it came at the same time
			return spokenBefore(a)
		}
		if err != nil {
			return err
		}
		if _, err := n.append(tx, &merkle.Leaf{Event: eventApproval, Envelope: a.Header.String(), Object: s.ID(), At: now}); err != nil {
			return err
		}
		_, err = enqueueEntry(tx, laneWork, laneEntry{Kind: kindGuarded, Envelope: a.Header, Object: s.ID()})
		return err
	})
}

func spokenBefore(a *exchange.GuardApproval) error {
	return exchange.Fail(exchange.CodeGuardApproval, "administrator %s, or somebody with the same key, has signed about this document before", a.Administrator)
}

// judgeApproval says whether an approval may be taken; the envelope is nil for one
// that was taken before.
func (n *Node) judgeApproval(ctx context.Context, s *cms.Signed, a *exchange.GuardApproval) (*envelope.Envelope, error) {
	d := n.Directory()
	if a.Domain != d.Domain() || a.Node != n.c.ID {
		return nil, exchange.Fail(exchange.CodeGuardApproval, "it is for node %.40q of domain %.40q, and this is node %q of %q", a.Node, a.Domain, n.c.ID, d.Domain())
	}
	who := administrator(d, a.Administrator)
	if who == nil {
		return nil, exchange.Fail(exchange.CodeGuardApproval, "%s is no administrator that the directory names", a.Administrator)
	}
	if err := exchange.CheckSigner(who.Certificates, s.Certificate, s, n.c.Now()); err != nil {
		return nil, &exchange.Error{Code: exchange.CodeGuardApproval, Detail: "the signature of " + a.Administrator + " cannot be relied on", Err: err}
	}
	given, err := n.approvalsOf(ctx, a.Header, a.Link)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(given, func(g GivenApproval) bool { return g.ID == s.ID() }) {
		return nil, nil
	}
	if err := n.firstWord(ctx, s, a); err != nil {
		return nil, err
	}
	return n.guardedEnvelope(ctx, a)
}

// firstWord refuses an administrator, or a key, that has spoken of the document.
func (n *Node) firstWord(ctx context.Context, s *cms.Signed, a *exchange.GuardApproval) error {
	key, err := keyOf(s.Certificate)
	if err != nil {
		return err
	}
	var rows [][]byte
	err = n.view(ctx, func(tx queue.Tx) error {
		rows = nil
		return records.Approvals.Each(tx, 0, func(_ []byte, row *records.Approval) bool {
			rows = append(rows, row.CMS)
			return true
		}, a.Header, a.Link)
	})
	for _, row := range rows {
		had, said, e := openApproval(row)
		if e != nil {
			return e
		}
		theirs, e := keyOf(had.Certificate)
		if e != nil {
			return e
		}
		if said.Administrator == a.Administrator || bytes.Equal(theirs, key) {
			return spokenBefore(a)
		}
	}
	return err
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
