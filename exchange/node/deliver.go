package node

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// The reasons of a REJECTED that delivery itself can find.
const (
	reasonUnreadable    = exchange.CodeUnreadable
	reasonContradiction = "contradiction"
	reasonConflict      = exchange.CodeConflict
)

// summary is what the inbox and the sent list show. It holds content and is
// stored sealed under the storage key.
type summary struct {
	Title  string
	Number string
	Label  exchange.Label
	Urg    exchange.Urgency
	Kind   exchange.Kind
	Due    string
	Rel    string `json:",omitempty"` // the document it relates to
	Mark   string `json:",omitempty"` // of a telegram's urgency

	// Of a recipient's copy: the copies meant for it, and how many it may print.
	From, To, Print int64 `json:",omitempty"`

	Files []FileSummary
}

// FileSummary describes one file of a document.
type FileSummary struct {
	Index int       `json:"index"`
	Role  string    `json:"role"`
	Name  string    `json:"name"`
	Type  string    `json:"type"`
	Size  int64     `json:"size"`
	SM3   sm.Digest `json:"sm3"`
}

func summaryOf(d *exchange.Document, m *envelope.Manifest) *summary {
	s := &summary{Title: d.Title, Label: d.Label, Urg: d.Urgency, Kind: d.Kind, Due: d.DueAt, Mark: d.UrgencyMark}
	if d.Number != nil {
		s.Number = d.Number.Display
	}
	for i, f := range m.Files {
		s.Files = append(s.Files, FileSummary{Index: i, Role: f.Role, Name: f.Name, Type: f.Type, Size: f.Size, SM3: f.SM3})
	}
	return s
}

// maxSummary keeps a sealed summary well inside a row: longer lists of files
// are cut in the summary and complete in the manifest.
const maxSummary = 32 << 10

func (n *Node) sealSummary(hh sm.Digest, s *summary) ([]byte, error) {
	b, err := json.Marshal(s)
	for err == nil && len(b) > maxSummary {
		s.Files = s.Files[:len(s.Files)/2]
		b, err = json.Marshal(s)
	}
	if err != nil {
		return nil, err
	}
	return n.c.Keys.SealRow(hh[:], b)
}

func (n *Node) openSummary(hh sm.Digest, sealed []byte) (*summary, error) {
	s := new(summary)
	if len(sealed) == 0 {
		return s, nil
	}
	b, err := n.c.Keys.OpenRow(hh[:], sealed)
	if err != nil {
		return nil, err
	}
	return s, json.Unmarshal(b, s)
}

// delivery is what a commit changes for one recipient served here.
type delivery struct {
	agency  string
	row     *records.InboxRow
	receipt *signedReceipt
}

// deliver prepares one recipient's copy for its inbox. What the signature
// of DELIVERED says is checked before it is made: the document opens with the
// agency's key and says inside what its header says outside. Without the key
// DELIVERED says "sealed".
func (n *Node) deliver(ctx context.Context, d *certs.Directory, p *parcel, slot SlotItem, before past, s *step) error {
	to := p.e.Header.Recipients[slot.I]
	sum, form, reason, err := n.inspect(ctx, p, slot)
	if err != nil {
		return err
	}
	r := &exchange.Receipt{
		Stage: exchange.StageDelivered, Envelope: p.env.ID, Header: p.hh,
		Recipients: []string{to.Agency}, Form: form,
	}
	if reason != "" {
		r.Stage, r.Form, r.Reason = exchange.StageRejected, "", reason
	}
	receipt := before.delivered.again()
	if receipt == nil || reason != "" {
		if receipt, err = n.nodeReceipt(d, r); err != nil {
			return err
		}
	}
	sealed, err := n.sealSummary(p.hh, sum)
	if err != nil {
		return err
	}
	row := &records.InboxRow{
		ID: p.env.ID, Sender: p.env.Sender, Slot: slot.I, Consignment: p.id,
		Received: n.now(), Stage: r.Stage, Delivered: receipt.id, Sealed: sealed,
	}
	before.apply(row)
	s.delivered = append(s.delivered, delivery{to.Agency, row, receipt})
	return nil
}

func (n *Node) isDelivered(ctx context.Context, hh sm.Digest, agency string) (done bool, err error) {
	err = n.view(ctx, func(tx queue.Tx) error {
		mark, err := records.Delivered.Get(tx, hh, agency)
		done = mark != nil && !mark.Pending()
		return err
	})
	return done, err
}

// inspect opens the copy of one recipient. reason is set when the document is
// to be rejected; err when we cannot tell now.
func (n *Node) inspect(ctx context.Context, p *parcel, slot SlotItem) (s *summary, form, reason string, err error) {
	facts := &summary{Label: p.routing.Label, Urg: p.routing.Urgency, Kind: p.routing.Kind, Rel: p.routing.RelatesTo}
	if taken, err := n.idTaken(ctx, p, p.e.Header.Recipients[slot.I].Agency); taken || err != nil {
		return facts, "", reasonConflict, err
	}
	if _, here := n.encryptionKey(p.e.Header.Recipients[slot.I]); !here {
		return facts, exchange.FormSealed, "", nil
	}
	err = n.look(ctx, p, slot)
	switch {
	case errors.Is(err, envelope.ErrOpen):
		return facts, "", reasonUnreadable, nil
	case err != nil:
		return nil, "", "", err
	case p.inside.reason != "":
		return facts, "", p.inside.reason, nil
	}
	return p.inside.of(p.e.Header.Recipients[slot.I].Agency), exchange.FormOpened, "", nil
}

// of is the summary of one recipient's copy.
func (i *inside) of(agency string) *summary {
	s := *i.summary
	for _, list := range [][]exchange.Addressee{i.document.To, i.document.Cc} {
		for _, a := range list {
			if a.Agency == agency {
				s.From, s.To, s.Print = a.CopyFrom, a.CopyTo, a.Print
			}
		}
	}
	return &s
}

// look opens the payload with a recipient's slot; for all but the first
// recipient of a parcel only the slot is left to be judged.
func (n *Node) look(ctx context.Context, p *parcel, slot SlotItem) error {
	if p.inside != nil {
		return n.unlocks(p.e, slot.I, slot.Slot)
	}
	opened, err := n.openFrom(ctx, p.e, slot.I, slot.Slot, p.payload)
	if err != nil {
		return err
	}
	p.inside = p.read(opened)
	return nil
}

// read compares what the payload says with what the header says.
func (p *parcel) read(opened *envelope.Opened) *inside {
	doc, err := exchange.ParseDocument(opened.Manifest.Document)
	switch {
	case err != nil:
		return &inside{reason: exchange.CodeInvalidDocument}
	case doc.Contradiction(p.e.Header.Sender, exchange.Recipients(p.e), p.routing) != "":
		return &inside{reason: reasonContradiction}
	}
	sum := summaryOf(doc, opened.Manifest)
	sum.Rel = p.routing.RelatesTo
	return &inside{summary: sum, document: doc}
}

// idTaken says whether the agency has another document under this id: of
// another sender, since one sender's second header was refused on arrival.
func (n *Node) idTaken(ctx context.Context, p *parcel, agency string) (taken bool, err error) {
	err = n.view(ctx, func(tx queue.Tx) error {
		hh, err := records.InboxByID.Get(tx, agency, p.env.ID)
		taken = hh != nil && *hh != p.hh
		return err
	})
	return taken, err
}

// deliverIn delivers: the dedup row decides, in the same transaction as inbox,
// receipt, ledger leaf and the way home. A crash before its commit leaves
// nothing; after it, repeating finds the dedup row.
func (n *Node) deliverIn(tx queue.Tx, d *certs.Directory, p *parcel, s *step) error {
	for i := range s.delivered {
		if err := n.deliverOne(tx, d, p, &s.delivered[i]); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) deliverOne(tx queue.Tx, d *certs.Directory, p *parcel, one *delivery) error {
	mark := &records.Dedup{Stage: one.receipt.body.Stage, Receipt: one.receipt.id}
	err := claim(tx, mark, p.e, one.agency)
	if errors.Is(err, queue.ErrExists) { // it took effect before
		return nil
	}
	if err != nil {
		return err
	}
	event := eventEnded
	if mark.Stage == exchange.StageDelivered {
		event = eventDelivered
		if err := n.putInbox(tx, p.hh, one.agency, one.row); err != nil {
			return err
		}
	}
	if _, err := n.putReceipt(tx, p.hh, one.receipt, event); err != nil {
		return err
	}
	return n.homeward(tx, d, p.env.Sender, p.hh, one.receipt.id)
}

func (n *Node) putInbox(tx queue.Tx, hh sm.Digest, agency string, row *records.InboxRow) error {
	counter, err := records.InboxCounter.Lock(tx, agency)
	if err != nil {
		return err
	}
	next := uint64(1)
	if counter == nil {
		err = records.InboxCounter.Insert(tx, &next, agency)
	} else {
		next = *counter + 1
		err = records.InboxCounter.Put(tx, &next, agency)
	}
	if err != nil {
		return err
	}
	row.Seq = next
	comes(tx, agency)
	if err := records.InboxOrder.Insert(tx, &hh, agency, next); err != nil {
		return err
	}
	if err := records.InboxByID.Insert(tx, &hh, agency, row.ID); err != nil {
		return err
	}
	if err := waits(tx, agency, hh, row); err != nil {
		return err
	}
	return records.Inbox.Insert(tx, row, agency, hh)
}
