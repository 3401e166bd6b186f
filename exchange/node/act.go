package node

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// InboxItem is one received document as its agency sees it.
type InboxItem struct {
	Seq        uint64
	ID         string
	Header     sm.Digest
	Sender     string
	SenderName string
	Title      string
	Number     string
	Label      exchange.Label
	Urgency    exchange.Urgency
	Kind       exchange.Kind
	DueAt      string
	RelatesTo  string // another document
	Trace      string // W3C trace context of its submission
	Received   time.Time
	Stage      exchange.Stage
	Files      []FileSummary
	Reminders  int       // of the sender
	Reminded   time.Time // the last one
	Mark       string    // the word of a telegram's urgency
	Copies     *exchange.Span
	Print      int64 // how many the agency may print; 0: not stated
}

// Inbox lists an agency's received documents behind after, oldest first.
func (n *Node) Inbox(ctx context.Context, agency string, after uint64, limit int) ([]InboxItem, error) {
	rows, err := n.inboxRows(ctx, records.InboxOrder, agency, after, limit)
	if err != nil {
		return nil, err
	}
	out := make([]InboxItem, 0, len(rows))
	for _, r := range rows {
		item, err := n.inboxItem(r.hh, r.row)
		if err != nil {
			return nil, err
		}
		out = append(out, *item)
	}
	return out, nil
}

// InboxItem gives one received document.
func (n *Node) InboxItem(ctx context.Context, agency, document string) (*InboxItem, error) {
	hh, row, err := n.inboxRow(ctx, agency, document)
	if err != nil {
		return nil, err
	}
	return n.inboxItem(hh, row)
}

func (n *Node) inboxItem(hh sm.Digest, row *records.InboxRow) (*InboxItem, error) {
	s, err := n.openSummary(hh, row.Sealed)
	if err != nil {
		return nil, err
	}
	return n.itemOf(hh, row, s), nil
}

func (n *Node) itemOf(hh sm.Digest, row *records.InboxRow, s *summary) *InboxItem {
	return &InboxItem{
		Seq: row.Seq, ID: row.ID, Header: hh, Sender: row.Sender, SenderName: n.agencyName(row.Sender),
		Title: s.Title, Number: s.Number, Label: s.Label, Urgency: s.Urg, Kind: s.Kind, DueAt: s.Due, RelatesTo: s.Rel, Trace: s.Trace,
		Received: row.Received.Time(), Stage: row.Stage, Files: s.Files,
		Reminders: row.Reminders, Reminded: reminded(row),
		Mark: s.Mark, Copies: (&exchange.Addressee{CopyFrom: s.From, CopyTo: s.To}).Span(), Print: s.Print,
	}
}

func reminded(row *records.InboxRow) (at time.Time) {
	if row.Reminders > 0 {
		at = row.Reminded.Time()
	}
	return at
}

func (n *Node) agencyName(code string) string {
	if a, ok := n.Directory().Agency(code); ok {
		return a.Name
	}
	return ""
}

func (n *Node) inboxRow(ctx context.Context, agency, document string) (hh sm.Digest, row *records.InboxRow, err error) {
	err = n.view(ctx, func(tx queue.Tx) error {
		id, err := records.InboxByID.Get(tx, agency, document)
		if err != nil || id == nil {
			return err
		}
		hh = *id
		row, err = records.Inbox.Get(tx, agency, hh)
		return err
	})
	if err == nil && row == nil {
		err = exchange.Fail(exchange.CodeNotFound, "document %s is not in the inbox of %s", document, agency)
	}
	return hh, row, err
}

// Collect opens a received document for its agency. The first success signs
// COLLECTED; what is returned streams the files.
func (n *Node) Collect(ctx context.Context, agency, document string) (*envelope.Opened, error) {
	opened, err := n.Peek(ctx, agency, document)
	if err != nil {
		return nil, err
	}
	return opened, n.Collected(ctx, agency, document)
}

// Peek opens a received document for its agency and signs nothing: for whoever
// does not give out its files yet.
func (n *Node) Peek(ctx context.Context, agency, document string) (*envelope.Opened, error) {
	hh, row, err := n.inboxRow(ctx, agency, document)
	if err != nil {
		return nil, err
	}
	if row.Stage == exchange.StageRecalled {
		return nil, exchange.Fail(exchange.CodeRecalled, "document %s", document)
	}
	e, slot, err := n.received(ctx, hh, row)
	if err != nil {
		return nil, err
	}
	opened, err := n.open(ctx, e, row.Slot, slot)
	n.ShowDamage(ctx, "document "+hh.String(), err)
	if errors.Is(err, envelope.ErrOpen) {
		return nil, exchange.Fail(exchange.CodeUnreadable, "document %s", document)
	}
	return opened, err
}

// Collected signs COLLECTED of a received document, unless it is signed, or
// the agency has acted.
func (n *Node) Collected(ctx context.Context, agency, document string) error {
	hh, row, err := n.inboxRow(ctx, agency, document)
	if err != nil {
		return err
	}
	if row.Stage == exchange.StageRecalled { // since it was opened
		return exchange.Fail(exchange.CodeRecalled, "document %s", document)
	}
	if !row.Collected.IsZero() || row.Stage.End() {
		return nil
	}
	e, _, err := n.received(ctx, hh, row)
	if err != nil {
		return err
	}
	_, err = n.commitAct(ctx, agency, hh, e, Action{Stage: exchange.StageCollected}, closedTo(exchange.StageCollected), n.alreadyActed)
	return err
}

// ShowUnreadable puts a received document into the quarantine whose stored copy
// turned out to be damaged while it was given out.
func (n *Node) ShowUnreadable(ctx context.Context, agency, document string, err error) {
	if hh, _, found := n.inboxRow(ctx, agency, document); found == nil && (errors.Is(err, envelope.ErrOpen) || errors.Is(err, queue.ErrNoBlob)) {
		n.ShowDamage(ctx, "document "+hh.String(), errDamaged)
	}
}

// received loads header and slot of an inbox row.
func (n *Node) received(ctx context.Context, hh sm.Digest, row *records.InboxRow) (*envelope.Envelope, []byte, error) {
	var env *records.Envelope
	var con *records.Consignment
	err := n.view(ctx, func(tx queue.Tx) (err error) {
		if env, err = records.Envelopes.Get(tx, hh); err != nil {
			return err
		}
		con, err = records.Incoming.Get(tx, hh, row.Consignment)
		return err
	})
	if err != nil || env == nil || con == nil {
		return nil, nil, errors.Join(err, absent(env == nil || con == nil, "envelope"))
	}
	e, err := n.loadHeader(ctx, hh, env)
	if err != nil {
		return nil, nil, err
	}
	b, err := con.Body.Load(ctx, n.c.Blobs)
	if err != nil {
		return nil, nil, err
	}
	item, err := ParseConsignment(b)
	if err != nil {
		return nil, nil, err
	}
	return e, item.Slot(row.Slot), nil
}

// Action is what a person of the receiving agency did. Opinion, Number
// (收文号) and Reason are sealed to the sender and never stored in clear.
type Action struct {
	Stage   exchange.Stage
	Actor   exchange.Actor
	Opinion string
	Number  string
	Reason  string

	after []sm.Digest // the receipts that it builds on
}

// ActDetail is the sealed part of an agency's receipt.
type ActDetail struct {
	Opinion string `json:"opinion,omitempty"`
	Number  string `json:"number,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// Act signs for (SIGNED_FOR) or returns (RETURNED) a received document with
// the agency's key and gives the receipt in CMS. Repeating it gives the same
// bytes, whatever the repeated Action says besides the stage; after the other
// stage it is a conflict.
func (n *Node) Act(ctx context.Context, agency, document string, a Action) ([]byte, error) {
	if a.Stage != exchange.StageSignedFor && a.Stage != exchange.StageReturned {
		return nil, exchange.Fail(exchange.CodeBadRequest, "stage: SIGNED_FOR or RETURNED is expected")
	}
	if err := checkAction(a); err != nil {
		return nil, err
	}
	hh, row, err := n.inboxRow(ctx, agency, document)
	if err != nil {
		return nil, err
	}
	if done, err := n.alreadyActed(ctx, hh, row, a.Stage); done != nil || err != nil {
		return done, err
	}
	e, _, err := n.received(ctx, hh, row)
	if err != nil {
		return nil, err
	}
	return n.commitAct(ctx, agency, hh, e, a, closedTo(a.Stage), n.alreadyActed)
}

func checkAction(a Action) error {
	if a.Actor.Name == "" {
		return exchange.Fail(exchange.CodeBadRequest, "actor.name: the name of the person is expected")
	}
	if a.Stage == exchange.StageReturned && a.Reason == "" {
		return exchange.Fail(exchange.CodeBadRequest, "reason: why the document is returned is expected")
	}
	for name, text := range map[string]string{
		"actor.name": a.Actor.Name, "actor.role": a.Actor.Role,
		"opinion": a.Opinion, "number": a.Number, "reason": a.Reason,
	} {
		if err := exchange.CheckText(name, text, exchange.MaxText); err != nil {
			return exchange.Fail(exchange.CodeBadRequest, "%s", err.Detail)
		}
	}
	return nil
}

// alreadyActed gives the stored bytes when the inbox row already stands at
// this stage, and a conflict when it ended otherwise.
func (n *Node) alreadyActed(ctx context.Context, hh sm.Digest, row *records.InboxRow, stage exchange.Stage) ([]byte, error) {
	if stage == exchange.StageCollected && row.Stage == exchange.StageRecalled {
		return nil, exchange.Fail(exchange.CodeRecalled, "document %s", row.ID)
	}
	if stage == exchange.StageCollected && (!row.Collected.IsZero() || row.Stage.End()) {
		return []byte{}, nil
	}
	if row.Acted.IsZero() {
		return nil, nil
	}
	if row.Stage != stage && (stage != exchange.StageSignedFor || signedFor(row) != nil) {
		return nil, exchange.Fail(exchange.CodeConflict, "the document stands at %s", row.Stage)
	}
	return n.storedReceipt(ctx, hh, row.Acted)
}

func (n *Node) storedReceipt(ctx context.Context, hh, id sm.Digest) ([]byte, error) {
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

// closedTo says whether there is no place any more for an act of a stage.
func closedTo(stage exchange.Stage) func(*records.InboxRow) bool {
	return func(row *records.InboxRow) bool {
		return row.Stage.End() || stage == exchange.StageCollected && !row.Collected.IsZero()
	}
}

// commitAct signs, then decides again under the lock of the inbox row whether it was
// said. When another call was faster its bytes are the answer, which again gives, and
// ours are thrown away. A crash before its commit leaves nothing, and the agency
// repeats.
func (n *Node) commitAct(ctx context.Context, agency string, hh sm.Digest, e *envelope.Envelope, a Action,
	said func(*records.InboxRow) bool, again func(context.Context, sm.Digest, *records.InboxRow, exchange.Stage) ([]byte, error)) ([]byte, error) {
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
		if said(row) {
			lost = row
			return nil
		}
		row.Stage = higher(row.Stage, a.Stage)
		*receiptAt(row, a.Stage) = receipt.id
		if err := records.Inbox.Put(tx, row, agency, hh); err != nil {
			return err
		}
		if err := waits(tx, agency, hh, row); err != nil {
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
		return again(ctx, hh, lost, a.Stage)
	}
	return receipt.cms, nil
}

func (n *Node) agencyReceipt(agency string, hh sm.Digest, e *envelope.Envelope, a Action) (*signedReceipt, error) {
	signer, err := n.agencySigner(agency)
	if err != nil {
		return nil, err
	}
	r := &exchange.Receipt{
		Stage: a.Stage, Envelope: e.Header.ID, Header: hh, Recipients: []string{agency}, Agency: agency,
		After: a.after,
	}
	if a.Actor.Name != "" {
		r.Actor = &a.Actor
	}
	detail, err := n.sealDetail(hh, e.Header.Sender, a)
	if err != nil {
		return nil, err
	}
	if detail != nil {
		r.Detail = sm.Sum(detail).String()
	}
	signed, err := n.signReceipt(n.Directory(), signer, r)
	if err == nil {
		signed.detail = detail
	}
	return signed, err
}

func (n *Node) sealDetail(hh sm.Digest, sender string, a Action) ([]byte, error) {
	detail := ActDetail{Opinion: a.Opinion, Number: a.Number, Reason: a.Reason}
	if detail == (ActDetail{}) {
		return nil, nil
	}
	agency, ok := n.Directory().Agency(sender)
	if !ok {
		return nil, exchange.Fail(exchange.CodeUnknownRecipient, "%s", sender)
	}
	cert, err := agency.Current("encrypt", n.c.Now())
	if err != nil {
		return nil, certificateError(err)
	}
	b, err := json.Marshal(detail)
	if err != nil {
		return nil, err
	}
	return envelope.SealDetail(n.c.Rand, cert.DER, hh[:], b)
}

// openDetail opens a detail with the sender's key, when it is here. The error
// is trouble with the key: without it an opinion would look unwritten.
func (n *Node) openDetail(hh sm.Digest, sender string, sealed []byte) (*ActDetail, error) {
	agency, ok := n.Directory().Agency(sender)
	if !ok || len(sealed) == 0 {
		return nil, nil
	}
	var trouble error
	b, err := envelope.OpenDetail(func(b []byte) ([]byte, error) {
		plain, err := n.unwrapAny(agency.Certificates, b)
		if err != nil && !errors.Is(err, sm.ErrDecrypt) {
			trouble = err
		}
		return plain, err
	}, hh[:], sealed)
	if err != nil {
		return nil, trouble
	}
	detail := new(ActDetail)
	if json.Unmarshal(b, detail) != nil {
		return nil, nil
	}
	return detail, nil
}
