package node

import (
	"context"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

const reasonUnknown = "unknown_document"

// intakeReceipt takes a receipt on its way to the sender. It is verified
// here, stored as the bytes that came, and passed on when the sender is
// served elsewhere.
func (n *Node) intakeReceipt(ctx context.Context, link string, it Item, b []byte) (Outcome, error) {
	receipt, signed, err := parseReceiptItem(b)
	if err != nil || receipt.id.String() != it.ID {
		return n.damaged(ctx, link, it, "unparsable", b)
	}
	env, known, err := n.receiptRows(ctx, receipt)
	if err != nil {
		return Outcome{}, err
	}
	if env == nil {
		if out, err := n.ownReceipt(ctx, receipt, signed); out.Status != "" || err != nil {
			return out, err
		}
	}
	if env == nil || env.ID != receipt.body.Envelope {
		err := n.Quarantine(ctx, link, it.Kind+" "+it.ID, reasonUnknown, b)
		return Outcome{Refused, reasonUnknown}, err
	}
	// What is here already was judged when it first came, and stands.
	if known.Status != "" {
		return known, nil
	}
	d := n.Directory()
	if receipt.body.Directory > d.Version() {
		return n.deferReceipt(ctx, d, link, receipt, b)
	}
	e, err := n.loadHeader(ctx, receipt.body.Header, env)
	if err != nil {
		return Outcome{}, err
	}
	err = exchange.Judge(d, e, receipt.body, signed, n.c.Now())
	if exchange.SignerFault(err) {
		code := exchange.CodeOf(err)
		return Outcome{Refused, code}, n.Quarantine(ctx, link, it.Kind+" "+it.ID, code, b)
	}
	if err != nil {
		return n.damaged(ctx, link, it, exchange.CodeOf(err), b)
	}
	return n.takeReceipt(ctx, d, env, receipt)
}

// receiptRows gives the document of a receipt, nil when it is not here, and what
// became of the receipt if it came before; an empty status when it is new.
func (n *Node) receiptRows(ctx context.Context, r *signedReceipt) (env *records.Envelope, known Outcome, err error) {
	err = n.view(ctx, func(tx queue.Tx) error {
		known = Outcome{}
		if env, err = records.Envelopes.Get(tx, r.body.Header); err != nil {
			return err
		}
		stored, err := records.Receipts.Get(tx, r.body.Header, r.id)
		if stored != nil || err != nil {
			known.Status = Duplicate
			return err
		}
		waiting, err := records.Deferred.Get(tx, KindReceipt, r.id)
		if waiting != nil {
			known.Status = Postponed
		}
		return err
	})
	return env, known, err
}

// takeReceipt is the commit point of a receipt: bytes, leaf and the way on
// stand together. A crash before it lets the neighbour send it again.
func (n *Node) takeReceipt(ctx context.Context, d *certs.Directory, env *records.Envelope, receipt *signedReceipt) (Outcome, error) {
	out := Outcome{Taken, ""}
	err := n.update(ctx, func(tx queue.Tx) error {
		out = Outcome{Taken, ""}
		fresh, err := n.putReceipt(tx, receipt.body.Header, receipt, eventReceipt)
		if err != nil {
			return err
		}
		if !fresh {
			out.Status = Duplicate
			return nil
		}
		if err := n.ownActComesBack(tx, receipt); err != nil {
			return err
		}
		return n.homeward(tx, d, env.Sender, receipt.body.Header, receipt.id)
	})
	if err != nil { // it may still be running: out is not ours
		return Outcome{}, err
	}
	return out, nil
}
