package node

import (
	"context"
	"errors"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

// signedReceipt is a receipt ready to be stored: from here on it is bytes.
type signedReceipt struct {
	id     sm.Digest
	cms    []byte
	detail []byte
	body   *exchange.Receipt
	first  *records.DeferredItem // it came before it could be judged
}

// nodeReceipt signs a transport stage as this node.
func (n *Node) nodeReceipt(d *certs.Directory, r *exchange.Receipt) (*signedReceipt, error) {
	signer, err := n.Signer()
	if err != nil {
		return nil, err
	}
	return n.signReceipt(d, signer, r)
}

func (n *Node) signReceipt(d *certs.Directory, signer cms.Signer, r *exchange.Receipt) (*signedReceipt, error) {
	r.Domain, r.Directory = d.Domain(), d.Version()
	r.Node, r.Time, r.Clock = n.c.ID, n.now(), n.c.Clock
	content, err := r.Marshal()
	if err != nil {
		return nil, err
	}
	signed, der, err := cms.Make(signer, content, n.c.Now())
	if err != nil {
		return nil, err
	}
	return &signedReceipt{id: signed.ID(), cms: der, body: r}, nil
}

// putReceipt stores a receipt's bytes and its leaf. It changes nothing when
// the receipt is there already; the answer says whether it was new.
func (n *Node) putReceipt(tx queue.Tx, hh sm.Digest, r *signedReceipt, event string) (bool, error) {
	next, err := n.ledger.Size(tx)
	if err != nil {
		return false, err
	}
	// One time for row and leaf: evidence is judged by the leaf's.
	row := &records.Receipt{CMS: r.cms, Detail: r.detail, Leaf: next, At: n.now()}
	at := row.At
	if r.first != nil { // the leaf of its first coming proves since when it is here
		row.Leaf, row.At = r.first.Leaf, r.first.At
	}
	if err := records.Receipts.Insert(tx, row, hh, r.id); errors.Is(err, queue.ErrExists) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	leaf, err := n.append(tx, &merkle.Leaf{Event: event, Envelope: hh.String(), Object: r.id, At: at})
	if err == nil && leaf != next {
		err = exchange.Fail(exchange.CodeTemporary, "the ledger grew under this transaction")
	}
	return true, err
}

// homeward queues a receipt towards the sending agency, over the link that its
// document came over as long as there is that link: on the way that a newer directory
// names nobody may have the document, and so nobody takes its receipt. When this node
// serves the sender, storing it was all there is to do.
func (n *Node) homeward(tx queue.Tx, d *certs.Directory, sender string, hh, receipt sm.Digest) error {
	env, err := records.Envelopes.Get(tx, hh)
	if err != nil {
		return err
	}
	link, err := n.wayHome(d, sender, env)
	if link == "" || err != nil {
		return err
	}
	return n.send(tx, link, rankReceipt, laneEntry{Kind: KindReceipt, Envelope: hh, Object: receipt})
}

// wayHome is the link towards a document's sender; empty when he is served here.
func (n *Node) wayHome(d *certs.Directory, sender string, env *records.Envelope) (string, error) {
	link, next, err := d.NextHop(n.c.ID, sender)
	switch {
	case err == nil && next == n.c.ID:
		return "", nil
	case env != nil && env.Link != "":
		l, ok := d.Link(env.Link)
		// Against a link of one way it would go nowhere. Another way helps if whoever
		// takes it has the document: the node that gave it, or the sender's own.
		if ok && !l.Carries(n.c.ID) && err == nil && (next == l.Neighbour(n.c.ID) || n.servedBy(d, sender, next)) {
			return link.ID, nil
		}
		if ok {
			return env.Link, nil
		}
	}
	if err != nil {
		return "", exchange.Fail(exchange.CodeNoRoute, "%s", sender)
	}
	return link.ID, nil
}

// storedReceipt is a receipt read back with what its signature says.
type storedReceipt struct {
	id     sm.Digest
	row    *records.Receipt
	signed *cms.Signed
	body   *exchange.Receipt
}

func openStored(row *records.Receipt) (*storedReceipt, error) {
	signed, err := cms.Parse(row.CMS, exchange.MaxReceiptCMS)
	if err != nil {
		return nil, err
	}
	body, err := exchange.ParseReceipt(signed.Content)
	if err != nil {
		return nil, err
	}
	return &storedReceipt{id: signed.ID(), row: row, signed: signed, body: body}, nil
}

// receiptsOf reads all receipts of an envelope. One that cannot be read stops
// the call: a state is never computed around a gap.
func (n *Node) receiptsOf(tx queue.Tx, hh sm.Digest) ([]*storedReceipt, error) {
	var out []*storedReceipt
	var bad error
	err := records.Receipts.Each(tx, 0, func(_ []byte, row *records.Receipt) bool {
		s, err := openStored(row)
		if err != nil {
			bad = err
			return false
		}
		out = append(out, s)
		return true
	}, hh)
	return out, errors.Join(err, bad)
}

// stageReceipt gives the stored bytes of an envelope's receipt of a stage.
func (n *Node) stageReceipt(ctx context.Context, hh sm.Digest, stage exchange.Stage) ([]byte, error) {
	var found []byte
	err := n.view(ctx, func(tx queue.Tx) error {
		list, err := n.receiptsOf(tx, hh)
		for _, s := range list {
			if s.body.Stage == stage {
				found = s.row.CMS
			}
		}
		return err
	})
	if err == nil && found == nil {
		err = exchange.Fail(exchange.CodeInternal, "the %s receipt of an accepted document is missing", stage)
	}
	return found, err
}

// ReceiptItem is how a receipt travels: the signed bytes, and the detail
// sealed to the sender when there is one.
type ReceiptItem struct {
	Type    string   `json:"type"`
	V       int      `json:"v"`
	Crit    []string `json:"crit,omitempty"`
	Receipt []byte   `json:"receipt"`
	Detail  []byte   `json:"detail,omitempty"`
	Extra   strictjson.Extra
}

const (
	receiptItemType = "yizhan-receipt-item"
	maxReceiptItem  = 128 << 10
	maxDetail       = 20 << 10
)

// Marshal gives the one encoding.
func (r *ReceiptItem) Marshal() ([]byte, error) {
	r.Type, r.V = receiptItemType, 1
	return strictjson.Marshal(r)
}

// parseReceiptItem reads the item and the receipt inside, and checks that the
// detail is the one the receipt was signed over.
func parseReceiptItem(b []byte) (*signedReceipt, *cms.Signed, error) {
	var item ReceiptItem
	if err := strictjson.Unmarshal(b, &item); err != nil {
		return nil, nil, err
	}
	if item.Type != receiptItemType || item.V != 1 {
		return nil, nil, exchange.Fail(exchange.CodeBadRequest, "receipt item: type %s version 1 is expected", receiptItemType)
	}
	signed, err := cms.Parse(item.Receipt, exchange.MaxReceiptCMS)
	if err != nil {
		return nil, nil, err
	}
	body, err := exchange.ParseReceipt(signed.Content)
	if err != nil {
		return nil, nil, err
	}
	detail := ""
	if len(item.Detail) > 0 {
		detail = sm.Sum(item.Detail).String()
	}
	if detail != body.Detail || len(item.Detail) > maxDetail {
		return nil, nil, exchange.Fail(exchange.CodeBadRequest, "receipt item: the detail is not the one signed over")
	}
	return &signedReceipt{id: signed.ID(), cms: item.Receipt, detail: item.Detail, body: body}, signed, nil
}
