package node

import (
	"context"
	"errors"

	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// What an agency says of a document that it has signed for: ADOPTED (采用) and
// COMPLETED (办结), each once, in any order.

// Follow signs one of them and gives the receipt in CMS. Repeating it gives the
// same bytes, whatever the repeated Action says besides the stage.
func (n *Node) Follow(ctx context.Context, agency, document string, a Action) ([]byte, error) {
	if a.Stage != exchange.StageAdopted && a.Stage != exchange.StageCompleted {
		return nil, exchange.Fail(exchange.CodeBadRequest, "stage: ADOPTED or COMPLETED is expected")
	}
	if err := checkAction(a); err != nil {
		return nil, err
	}
	hh, row, err := n.inboxRow(ctx, agency, document)
	if err != nil {
		return nil, err
	}
	if done, err := n.followed(ctx, hh, row, a.Stage); done != nil || err != nil {
		return done, err
	}
	e, _, err := n.received(ctx, hh, row)
	if err != nil {
		return nil, err
	}
	a.after = []sm.Digest{row.Acted}
	return n.commitFollow(ctx, agency, hh, e, a)
}

// signedFor refuses what may be said only of a document that is signed for.
func signedFor(row *records.InboxRow) error {
	switch {
	case row.Stage == exchange.StageRecalled:
		return exchange.Fail(exchange.CodeRecalled, "document %s", row.ID)
	case row.Stage.Rank() < exchange.StageSignedFor.Rank():
		return exchange.Fail(exchange.CodeNotSignedFor, "the document stands at %s", row.Stage)
	}
	return nil
}

// receiptAt is where an inbox row names the receipt of a stage.
func receiptAt(row *records.InboxRow, stage exchange.Stage) *sm.Digest {
	switch stage {
	case exchange.StageCollected:
		return &row.Collected
	case exchange.StageAdopted:
		return &row.Adopted
	case exchange.StageCompleted:
		return &row.Completed
	}
	return &row.Acted
}

// followed gives the stored bytes when it was said already.
func (n *Node) followed(ctx context.Context, hh sm.Digest, row *records.InboxRow, stage exchange.Stage) ([]byte, error) {
	if err := signedFor(row); err != nil {
		return nil, err
	}
	id := *receiptAt(row, stage)
	if id.IsZero() {
		return nil, nil
	}
	var stored *records.Receipt
	err := n.view(ctx, func(tx queue.Tx) (err error) {
		stored, err = records.Receipts.Get(tx, hh, id)
		return err
	})
	if err != nil || stored == nil {
		return nil, errors.Join(err, absent(stored == nil, "receipt"))
	}
	return stored.CMS, nil
}

// commitFollow decides again under the lock of the inbox row. A crash before its
// commit leaves nothing, and the agency repeats; when another call was faster its
// bytes are the answer.
func (n *Node) commitFollow(ctx context.Context, agency string, hh sm.Digest, e *envelope.Envelope, a Action) ([]byte, error) {
	d := n.Directory()
	receipt, err := n.agencyReceipt(agency, hh, e, a)
	if err != nil {
		return nil, err
	}
	var lost *records.InboxRow
	err = n.update(ctx, func(tx queue.Tx) error {
		lost = nil
		row, err := records.Inbox.Lock(tx, agency, hh)
		if err != nil || row == nil {
			return errors.Join(err, absent(row == nil, "inbox row"))
		}
		said := receiptAt(row, a.Stage)
		if signedFor(row) != nil || !said.IsZero() {
			lost = row
			return nil
		}
		*said, row.Stage = receipt.id, higher(row.Stage, a.Stage)
		if err := records.Inbox.Put(tx, row, agency, hh); err != nil {
			return err
		}
		if _, err := n.putReceipt(tx, hh, receipt, eventActed); err != nil {
			return err
		}
		return n.homeward(tx, d, e.Header.Sender, hh, receipt.id)
	})
	if err != nil {
		return nil, err
	}
	if lost != nil {
		return n.followed(ctx, hh, lost, a.Stage)
	}
	return receipt.cms, nil
}
