package node

import (
	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/queue"
)

// A node between sender and recipient says RELAYED of the recipients whose copies it
// passes on: it answers for them from then on. One receipt speaks of all in a step,
// which is the one signature that a relay makes for a document.

// sayRelayed signs it for what a step gathers. A document that was submitted here has
// its ACCEPTED instead.
func (n *Node) sayRelayed(d *certs.Directory, p *parcel, s *step) (err error) {
	if p.from == "" || len(s.links) == 0 {
		return nil
	}
	r := &exchange.Receipt{Stage: exchange.StageRelayed, Envelope: p.env.ID, Header: p.hh}
	for _, link := range s.links {
		for _, i := range s.byLink[link] {
			r.Recipients = append(r.Recipients, p.e.Header.Recipients[i].Agency)
		}
	}
	s.relayed, err = n.nodeReceipt(d, r)
	return err
}

// relayedIn stores it in the commit of its step, so a step that is repeated after a
// crash says it once.
func (n *Node) relayedIn(tx queue.Tx, d *certs.Directory, p *parcel, s *step) error {
	if s.relayed == nil {
		return nil
	}
	return n.sayHome(tx, d, p.env.Sender, s.relayed, eventRelayed)
}

// sayHome stores what this node says of a document that goes on, and sends it to the
// sender. Where no way leads home it stays here: nothing of the document waits for it.
func (n *Node) sayHome(tx queue.Tx, d *certs.Directory, sender string, r *signedReceipt, event string) error {
	if _, err := n.putReceipt(tx, r.body.Header, r, event); err != nil {
		return err
	}
	err := n.homeward(tx, d, sender, r.body.Header, r.id)
	if exchange.CodeOf(err) == exchange.CodeNoRoute {
		return nil
	}
	return err
}
