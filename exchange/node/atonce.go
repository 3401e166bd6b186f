package node

import (
	"context"
	"slices"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/guard"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// Most documents have so few recipients that one step distributes them. Such a
// step is part of the commit that takes the document: no row of work, and nothing
// read back that was just written.

// onlyStep is the step that distributes a whole consignment; nil when one is not
// enough, or something stands in its way that the work has to wait for.
func (n *Node) onlyStep(ctx context.Context, d *certs.Directory, p *parcel) *step {
	s, err := n.directSome(ctx, d, p, 0)
	if err != nil || s.next < len(p.item.Slots) || slices.ContainsFunc(s.links, func(link string) bool { return n.approvalsFor(p, link) > 0 }) {
		return nil
	}
	if n.sayRelayed(d, p, s) != nil { // signed last: no signature is made in vain
		return nil
	}
	return s
}

// away is the whole distribution of a document whose recipients are all served by
// other nodes; nil when the work has more to do.
func (n *Node) away(d *certs.Directory, plan *envelope.Plan, routing *exchange.Routing, size int64) *step {
	if len(plan.Recipients) > fanStep {
		return nil
	}
	s := &step{byLink: map[string][]int{}}
	for i, r := range plan.Recipients {
		if r.Role != envelope.RoleRecipient {
			continue
		}
		link, next, err := d.NextHop(n.c.ID, r.Agency)
		if err != nil || next == n.c.ID || n.looksInto(d, "", r.Agency) || n.approvals(link.ID, guard.FactsOf(routing, plan.Sender, r.Agency, size)) > 0 {
			return nil
		}
		s.goes(link.ID, i)
	}
	return s
}

// begin writes a consignment with its whole distribution, or leaves that to the
// work when there is none.
func (n *Node) begin(tx queue.Tx, d *certs.Directory, p *parcel, con *records.Consignment, s *step) error {
	if s == nil {
		return n.putConsignment(tx, p.hh, p.id, con, true)
	}
	if err := putIncoming(tx, p.hh, p.id, con); err != nil {
		return err
	}
	if err := n.endIn(tx, d, p, s); err != nil {
		return err
	}
	if err := n.deliverIn(tx, d, p, s); err != nil {
		return err
	}
	if err := n.relayedIn(tx, d, p, s); err != nil {
		return err
	}
	return n.sendOn(tx, p, s)
}

// sendOn enters a consignment in the lanes of its next hops, when one step was
// its whole distribution.
func (n *Node) sendOn(tx queue.Tx, p *parcel, s *step) error {
	for _, link := range s.links {
		out := newOutbound(p.env, s.byLink[link])
		if err := n.enterLane(tx, p, link, out); err != nil {
			return err
		}
		if err := records.Outgoing.Insert(tx, out, p.hh, link, p.id); err != nil {
			return err
		}
	}
	return nil
}
