package node

import (
	"bytes"
	"context"
	"errors"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
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
	d := n.Directory()
	if receipt.body.Directory > d.Version() && len(b) < queue.MaxValue/2 {
		row := &records.DeferredItem{Link: link, Directory: receipt.body.Directory, Item: b}
		err := n.update(ctx, func(tx queue.Tx) error { return putDeferred(tx, KindReceipt, receipt.id, row) })
		return Outcome{Postponed, ""}, err
	}
	e, err := n.loadHeader(ctx, env)
	if err != nil {
		return Outcome{}, err
	}
	if exchange.Judge(d, e, receipt.body, signed, n.c.Now()) != nil {
		return n.damaged(ctx, link, it, exchange.CodeSignatureInvalid, b)
	}
	return n.takeReceipt(ctx, d, env, receipt)
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

func putDeferred(tx queue.Tx, kind string, id sm.Digest, item *records.DeferredItem) error {
	err := records.Deferred.Insert(tx, item, kind, id)
	if errors.Is(err, queue.ErrExists) {
		return nil
	}
	return err
}

// resume takes up an item that waited for a newer directory.
func (n *Node) resume(ctx context.Context, item *records.DeferredItem) error {
	if len(item.Item) == sm.Size {
		return n.resumeHeader(ctx, item)
	}
	receipt, signed, err := parseReceiptItem(item.Item)
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
	if exchange.Judge(d, e, receipt.body, signed, n.c.Now()) != nil {
		return n.Quarantine(ctx, item.Link, "receipt "+receipt.id.String(), exchange.CodeSignatureInvalid, item.Item)
	}
	_, err = n.takeReceipt(ctx, d, env, receipt)
	return err
}

func (n *Node) resumeHeader(ctx context.Context, item *records.DeferredItem) error {
	var hh sm.Digest
	copy(hh[:], item.Item)
	env, err := n.envelopeRow(ctx, hh)
	if err != nil || env == nil || !env.Deferred {
		return err
	}
	b, err := env.Header.Load(ctx, n.c.Blobs)
	if err != nil {
		return err
	}
	e, err := envelope.ParseHeader(b)
	if err != nil || !bytes.Equal(e.Hash[:], hh[:]) {
		return errors.Join(err, absent(true, "header"))
	}
	d := n.Directory()
	out, err := n.verifyHeader(ctx, d, item.Link, Item{Kind: KindHeader, ID: hh.String()}, e, b)
	if err != nil || out.Status != "" {
		return err // stays visible in the quarantine, never delivered
	}
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
