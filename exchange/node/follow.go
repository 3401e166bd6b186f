package node

import (
	"context"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
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
	said := func(row *records.InboxRow) bool { return signedFor(row) != nil || !receiptAt(row, a.Stage).IsZero() }
	return n.commitAct(ctx, agency, hh, e, a, said, n.followed)
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
	return n.storedReceipt(ctx, hh, id)
}
