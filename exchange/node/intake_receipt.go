package node

import (
	"bytes"
	"context"
	"errors"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// intakeReceipt takes a receipt on its way to the sender. It is verified
// here, stored as the bytes that came, and passed on when the sender is
// served elsewhere.
func (n *Node) intakeReceipt(ctx context.Context, link string, it Item, b []byte) (Outcome, error) {
	receipt, signed, err := parseReceiptItem(b)
	if err != nil || receipt.id.String() != it.ID {
		return n.damaged(ctx, link, it, "unparsable", b)
	}
	env, err := n.envelopeRow(ctx, receipt.body.Header)
	if err != nil {
		return Outcome{}, err
	}
	if env == nil || env.ID != receipt.body.Envelope {
		err := n.Quarantine(ctx, link, it.Kind+" "+it.ID, "unknown_document", b)
		return Outcome{Refused, "unknown_document"}, err
	}
	// What is here already was judged when it first came, and stands.
	if known, err := n.receiptKnown(ctx, receipt); known.Status != "" || err != nil {
		return known, err
	}
	d := n.Directory()
	if receipt.body.Directory > d.Version() {
		return n.deferReceipt(ctx, link, receipt, b)
	}
	e, err := n.loadHeader(ctx, env)
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

// receiptKnown says what became of a receipt that came before; an empty status
// when it is new.
func (n *Node) receiptKnown(ctx context.Context, r *signedReceipt) (out Outcome, err error) {
	err = n.view(ctx, func(tx queue.Tx) error {
		out = Outcome{}
		stored, err := records.Receipts.Get(tx, r.body.Header, r.id)
		if stored != nil || err != nil {
			out.Status = Duplicate
			return err
		}
		waiting, err := records.Deferred.Get(tx, KindReceipt, r.id)
		if waiting != nil {
			out.Status = Postponed
		}
		return err
	})
	return out, err
}

// deferReceipt keeps a receipt that only a newer directory can judge, with the
// time at which it came: it is judged as of that time, however long the
// directory takes. A crash before the commit lets the neighbour send it again.
func (n *Node) deferReceipt(ctx context.Context, link string, r *signedReceipt, b []byte) (Outcome, error) {
	body, err := records.StoreBody(ctx, n.c.Blobs, b)
	if err != nil {
		return Outcome{}, err
	}
	wait := &records.DeferredItem{
		Kind: KindReceipt, Link: link, Directory: r.body.Directory, Envelope: r.body.Header, At: n.now(), Body: body,
	}
	err = n.update(ctx, func(tx queue.Tx) error { return n.putDeferred(tx, r.id, wait) })
	return Outcome{Postponed, ""}, err
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
		return n.homeward(tx, d, env.Sender, receipt.body.Header, receipt.id)
	})
	return out, err
}

// putDeferred notes an item that waits for a newer directory, and in the
// ledger that it was here by then.
func (n *Node) putDeferred(tx queue.Tx, id sm.Digest, item *records.DeferredItem) error {
	next, err := n.ledger.Size(tx)
	if err != nil {
		return err
	}
	item.Leaf = next
	err = records.Deferred.Insert(tx, item, item.Kind, id)
	if errors.Is(err, queue.ErrExists) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := item.Body.Own(tx, item.Envelope); err != nil {
		return err
	}
	// The leaf has the time as of which the item is judged when it can be.
	_, err = n.append(tx, &merkle.Leaf{Event: eventDeferred, Envelope: item.Envelope.String(), Object: id, At: item.At})
	return err
}

// resumeDeferred takes up one item whose directory has come. One that cannot
// be judged now is held back for a while, so that nothing waits for it.
func (n *Node) resumeDeferred(ctx context.Context) (bool, error) {
	version, now := n.Directory().Version(), n.c.Now()
	var key []byte
	var item *records.DeferredItem
	err := n.view(ctx, func(tx queue.Tx) error {
		key, item = nil, nil
		return records.Deferred.Each(tx, 0, func(k []byte, v *records.DeferredItem) bool {
			if v.Directory <= version && n.lanes.ready(string(k), 0, now) {
				key, item = bytes.Clone(k), v
			}
			return item == nil
		})
	})
	if item == nil || err != nil {
		return false, err
	}
	err = n.resume(ctx, item)
	n.lanes.pause(string(key), 0, now, err != nil)
	if err != nil {
		return true, err
	}
	return true, n.update(ctx, func(tx queue.Tx) error { return tx.Delete(key) })
}

// resume judges an item that waited for a newer directory, as of the time at
// which it came. A crash anywhere in it lets it run again and change nothing.
func (n *Node) resume(ctx context.Context, item *records.DeferredItem) error {
	if item.Kind == KindHeader {
		return n.resumeHeader(ctx, item)
	}
	b, err := item.Body.Load(ctx, n.c.Blobs)
	if err != nil {
		return err
	}
	receipt, signed, err := parseReceiptItem(b)
	if err != nil {
		return err
	}
	env, err := n.envelopeRow(ctx, receipt.body.Header)
	if err != nil || env == nil {
		return errors.Join(err, absent(env == nil, "envelope"))
	}
	e, err := n.loadHeader(ctx, env)
	if err != nil {
		return err
	}
	d := n.Directory()
	if err := exchange.Judge(d, e, receipt.body, signed, item.At.Time()); err != nil {
		return n.Quarantine(ctx, item.Link, "receipt "+receipt.id.String(), exchange.CodeOf(err), b)
	}
	receipt.first = item
	_, err = n.takeReceipt(ctx, d, env, receipt)
	return err
}

func (n *Node) resumeHeader(ctx context.Context, item *records.DeferredItem) error {
	hh := item.Envelope
	env, err := n.envelopeRow(ctx, hh)
	if err != nil || env == nil || !env.Deferred {
		return err
	}
	b, err := env.Header.Load(ctx, n.c.Blobs)
	if err != nil {
		return err
	}
	e, err := envelope.ParseHeader(b)
	if err != nil || e.Hash != hh {
		return errors.Join(err, absent(true, "header"))
	}
	routing, err := exchange.ParseRouting(e.Header.Routing)
	if err != nil {
		return err
	}
	d := n.Directory()
	reason, err := n.verifyHeader(d, e, item.At.Time())
	if err != nil { // stays visible in the quarantine, never delivered
		_, err = n.faulty(ctx, item.Link, Item{Kind: KindHeader, ID: hh.String()}, err, b)
		return err
	}
	if reason == "" {
		reason = n.inadmissible(d, item.Link, e, routing, item.At.Time())
	}
	if reason != "" {
		_, err := n.rejectHeader(ctx, d, e, b, reason)
		return err
	}
	return n.admitHeader(ctx, d, hh)
}

// admitHeader is the commit point of a header that had waited: from here on it
// is like one that was taken at once.
func (n *Node) admitHeader(ctx context.Context, d *certs.Directory, hh sm.Digest) error {
	return n.update(ctx, func(tx queue.Tx) error {
		env, err := records.Envelopes.Lock(tx, hh)
		if err != nil || env == nil || !env.Deferred {
			return err
		}
		env.Deferred, env.Directory = false, d.Version()
		if err := records.Envelopes.Put(tx, env, hh); err != nil {
			return err
		}
		if env.Complete {
			if err := startWaiting(tx, hh); err != nil {
				return err
			}
		}
		_, err = n.leaf(tx, eventTaken, hh, hh)
		return err
	})
}
