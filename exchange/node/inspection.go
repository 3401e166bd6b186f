package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// Where the directory names this node an inspection point of a link, it looks
// into what passes that link: before it leaves over it, and before what came
// over it goes anywhere. The sender sealed the document for it too. Plaintext is
// in memory alone, some MiB of it, and goes to the Inspector and nowhere else.
//
// The look is part of the distribution: it is done by the work, outside of any
// transaction, and what it found is committed with the step that it lets pass or
// ends. A crash before that commit repeats the look and signs nothing twice.

// Inspector looks into one file of a document. An error decides nothing: the look
// is repeated after a pause, and the document waits.
type Inspector interface {
	Inspect(ctx context.Context, name, media string, content io.ReaderAt, size int64) (exchange.Verdict, error)
}

// found is what a look into a document came to.
type found struct {
	reason string // why it is to be rejected; empty when it may pass
	detail string // for the sender alone
	stored bool   // the verdict has a row
}

// errLook: the document is to be looked into, which is work of its own.
var errLook = errors.New("node: the document is to be looked into")

// looksInto says whether this node looks into what comes over a link, or goes on
// over the next one, to an agency.
func (n *Node) looksInto(d *certs.Directory, from, agency string) bool {
	if !d.Inspected() {
		return false
	}
	if d.Inspects(n.c.ID, from) {
		return true
	}
	link, next, err := d.NextHop(n.c.ID, agency)
	return err == nil && next != n.c.ID && d.Inspects(n.c.ID, link.ID)
}

// points are the slots of the inspection points between this node and the
// recipients, in the order in which documents come to them.
func (n *Node) points(d *certs.Directory, agencies []string, now time.Time) ([]envelope.Recipient, error) {
	var out []envelope.Recipient
	for _, agency := range agencies {
		for _, id := range d.InspectedBy(n.c.ID, agency) {
			if slices.ContainsFunc(out, func(r envelope.Recipient) bool { return r.Agency == id }) {
				continue
			}
			point, _ := d.Node(id)
			cert, err := point.Current("encrypt", now)
			if err != nil {
				return nil, certificateError(err)
			}
			out = append(out, envelope.Recipient{Agency: id, Role: envelope.RoleInspection, Certificate: cert.DER})
		}
	}
	return out, nil
}

// onwards are the slots of a consignment that its next hop needs: those of the
// recipients behind it, and of the inspection points on their way.
func (n *Node) onwards(ctx context.Context, c *ConsignmentItem, recipients []int) ([]int, error) {
	d := n.Directory()
	if !d.Inspected() {
		return recipients, nil
	}
	env, err := n.envelopeRow(ctx, c.Envelope)
	if err != nil || env == nil {
		return recipients, err
	}
	e, err := n.loadHeader(ctx, c.Envelope, env)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, i := range recipients {
		ids = append(ids, d.InspectedBy(n.c.ID, e.Header.Recipients[i].Agency)...)
	}
	all := slices.Clone(recipients)
	for _, s := range c.Slots {
		r := e.Header.Recipients[s.I]
		if r.Role == envelope.RoleInspection && r.Agency != n.c.ID && slices.Contains(ids, r.Agency) {
			all = append(all, s.I)
		}
	}
	return all, nil
}

// inspectFirst holds one recipient's copy until the document was looked into, if
// it is to be. ended says that the copy does not pass and its end was signed.
func (n *Node) inspectFirst(ctx context.Context, d *certs.Directory, p *parcel, slot SlotItem, before past, s *step) (ended bool, err error) {
	agency := p.e.Header.Recipients[slot.I].Agency
	if !n.looksInto(d, p.from, agency) || n.passable(d, p.env.Sender, agency, p.routing, p.e.Header.Payload.Size).Refused != nil {
		return false, nil // or refused for what its header says
	}
	known, attested, err := n.inspected(ctx, p, agency)
	if known != nil { // also one that came between this step and its commit
		p.found = known
	}
	switch {
	case err != nil:
		return false, err
	case attested, before.inspected != nil: // also by what was here before a restore
		return false, nil
	case p.fan == nil: // the work looks into it, not whoever takes it
		return false, errLook
	}
	if p.found == nil {
		if p.found, err = n.lookInto(ctx, p); err != nil {
			return false, err
		}
	}
	if p.found.reason != "" {
		return true, n.endInspected(d, p, s, slot.I)
	}
	s.inspected = append(s.inspected, agency)
	return false, nil
}

// inspected reads what an earlier step found, and whether INSPECTED was signed
// for a recipient.
func (n *Node) inspected(ctx context.Context, p *parcel, agency string) (known *found, attested bool, err error) {
	err = n.view(ctx, func(tx queue.Tx) error {
		known, attested = nil, false
		row, err := records.Inspections.Get(tx, p.hh, "")
		if row == nil || err != nil {
			return err
		}
		known = &found{reason: row.Reason, stored: true}
		mine, err := records.Inspections.Get(tx, p.hh, agency)
		attested = mine != nil
		return err
	})
	return known, attested, err
}

// lookInto opens the document with this node's slot and has every file looked
// into. An error decides nothing.
func (n *Node) lookInto(ctx context.Context, p *parcel) (*found, error) {
	i := slices.IndexFunc(p.e.Header.Recipients, func(r envelope.Slot) bool {
		return r.Role == envelope.RoleInspection && r.Agency == n.c.ID
	})
	if i < 0 || p.item.Slot(i) == nil {
		return &found{reason: exchange.CodeInspectionMissing}, nil
	}
	if n.c.Inspector == nil {
		return nil, &exchange.Error{Code: exchange.CodeTemporary, Temporary: true, Detail: "the directory names this node an inspection point, and it has no inspector"}
	}
	opened, err := n.openFrom(ctx, p.e, i, p.item.Slot(i), p.payload)
	if errors.Is(err, envelope.ErrOpen) {
		return &found{reason: reasonUnreadable}, nil
	}
	if err != nil {
		return nil, err
	}
	if inside := p.read(opened); inside.reason != "" {
		return &found{reason: inside.reason}, nil
	}
	for i := range opened.Manifest.Files {
		f, err := n.lookIntoFile(ctx, opened, i)
		if errors.Is(err, envelope.ErrOpen) { // is it the sender's fault, or our disk's?
			if err = n.stillStored(ctx, p.e, p.payload); err == nil {
				return &found{reason: reasonUnreadable}, nil
			}
		}
		if f != nil || err != nil {
			return f, err
		}
	}
	return new(found), nil
}

// lookIntoFile gives nil for a file that may pass. Its bytes are first compared
// with what the manifest says of them: what is looked into is what is delivered.
func (n *Node) lookIntoFile(ctx context.Context, o *envelope.Opened, i int) (*found, error) {
	whole, err := o.File(ctx, i)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, whole)
	if err := errors.Join(err, whole.Close()); err != nil {
		return nil, err
	}
	at, err := o.At(ctx, i)
	if err != nil {
		return nil, err
	}
	f := o.Manifest.Files[i]
	v, err := n.c.Inspector.Inspect(ctx, f.Name, f.Type, at, f.Size)
	if err != nil || v.Reason == "" {
		return nil, err
	}
	return &found{reason: v.Reason, detail: fmt.Sprintf("file %d: %s", i+1, v.Detail)}, nil
}

// endInspected signs that one recipient's copy may not pass. What was found in
// which file is sealed to the sender.
func (n *Node) endInspected(d *certs.Directory, p *parcel, s *step, recipient int) error {
	body := rejected(p.found.reason)
	detail, err := n.sealDetail(p.hh, p.e.Header.Sender, Action{Reason: p.found.detail})
	if exchange.CodeOf(err) == exchange.CodeTemporary {
		return err
	}
	if detail != nil { // a sender without a valid certificate gets the reason alone
		body.Detail = sm.Sum(detail).String()
	}
	if err := n.endHere(d, p, s, recipient, body); err != nil {
		return err
	}
	s.ended[len(s.ended)-1].receipt.detail = detail
	return nil
}

// attest signs INSPECTED for the recipients that a step lets pass; nil for none.
func (n *Node) attest(d *certs.Directory, p *parcel, s *step) (*signedReceipt, error) {
	if len(s.inspected) == 0 {
		return nil, nil
	}
	return n.nodeReceipt(d, &exchange.Receipt{
		Stage: exchange.StageInspected, Envelope: p.env.ID, Header: p.hh, Recipients: s.inspected,
	})
}

// inspectedIn commits what a step's look found: the verdict once for the document,
// the receipt once for each recipient. That a neighbour left this node's slot out says
// nothing of what comes over another link. Where another step was faster, the decision
// is made again on what that one found.
func (n *Node) inspectedIn(tx queue.Tx, d *certs.Directory, p *parcel, s *step, receipt *signedReceipt) error {
	if p.found == nil {
		return nil
	}
	if !p.found.stored && p.found.reason != exchange.CodeInspectionMissing { // which speaks of one consignment alone
		err := records.Inspections.Insert(tx, &records.Inspection{Reason: p.found.reason}, p.hh, "")
		if errors.Is(err, queue.ErrExists) {
			return errChanged
		}
		if err != nil {
			return err
		}
	}
	if receipt == nil {
		return nil
	}
	for _, agency := range s.inspected {
		err := records.Inspections.Insert(tx, &records.Inspection{Receipt: receipt.id}, p.hh, agency)
		if errors.Is(err, queue.ErrExists) {
			return errChanged
		}
		if err != nil {
			return err
		}
	}
	return n.sayHome(tx, d, p.env.Sender, receipt, eventInspected)
}
