package node

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// Resending sends a document once more, as a new one that relates to the earlier:
// to recipients of the earlier (重发), without any named to all whose delivery
// ended without a signature; or, with Others, to ones that the earlier does not
// name (补发). Files and metadata are those that were sent.
type Resending struct {
	Document       string
	IdempotencyKey string
	Recipients     []string
	Others         bool
	Expires        time.Time
	Trace          string
}

// SendAgain hands a document in again. Its answer and its promises are those of
// Submit.
func (n *Node) SendAgain(ctx context.Context, agency string, a Resending) (*Accepted, error) {
	earlier, err := n.load(ctx, agency, a.Document)
	if err != nil {
		return nil, err
	}
	if !earlier.sender {
		return nil, exchange.Fail(exchange.CodeNotFound, "document %s is not among those that %s sent", a.Document, agency)
	}
	names, err := n.onceMore(ctx, agency, earlier, a)
	if err != nil {
		return nil, err
	}
	opened, err := n.openOwn(ctx, earlier)
	if err != nil {
		return nil, err
	}
	doc, err := exchange.ParseDocument(opened.Manifest.Document)
	if err != nil {
		return nil, err
	}
	readdress(doc, names)
	return n.Submit(ctx, Submission{
		Agency: agency, IdempotencyKey: a.IdempotencyKey, Document: *doc, Expires: a.Expires, RelatesTo: a.Document,
		Trace: a.Trace, Files: filesOf(ctx, opened),
	})
}

// onceMore gives the recipients.
func (n *Node) onceMore(ctx context.Context, agency string, earlier *dossier, a Resending) ([]string, error) {
	all := exchange.Recipients(earlier.e)
	for _, code := range a.Recipients {
		if named := slices.Contains(all, code); named == a.Others {
			return nil, exchange.Fail(exchange.CodeInvalidDocument, "recipients: %s is%s a recipient of document %s", code, map[bool]string{false: " not"}[named], a.Document)
		}
	}
	switch {
	case len(a.Recipients) > 0:
		return a.Recipients, nil
	case a.Others:
		return nil, exchange.Fail(exchange.CodeInvalidDocument, "recipients: at least one is expected")
	}
	// A repeat means those of the first time, whatever has ended since.
	if names, err := n.namedUnder(ctx, agency, a.IdempotencyKey); names != nil || err != nil {
		return names, err
	}
	_, states := exchange.Fold(all, n.verified(earlier))
	var names []string
	for _, s := range states {
		if s.Stage.End() && s.Stage.Rank() < exchange.StageSignedFor.Rank() {
			names = append(names, s.Agency)
		}
	}
	if len(names) == 0 {
		return nil, exchange.Fail(exchange.CodeConflict, "no delivery of document %s has ended without a signature", a.Document)
	}
	return names, nil
}

// verified are the receipts of a document that say what they may say.
func (n *Node) verified(d *dossier) (good []*exchange.Receipt) {
	for _, s := range d.receipts {
		if exchange.Judge(n.Directory(), d.e, s.body, s.signed, s.row.At.Time()) == nil {
			good = append(good, s.body)
		}
	}
	return good
}

// namedUnder are the recipients of what was accepted under an idempotency key.
func (n *Node) namedUnder(ctx context.Context, agency, key string) ([]string, error) {
	if key == "" {
		return nil, nil
	}
	var env *records.Envelope
	var hh sm.Digest
	err := n.view(ctx, func(tx queue.Tx) error {
		used, err := records.Idempotency.Get(tx, agency, n.idempotencyIndex(key))
		if used == nil || err != nil {
			return err
		}
		hh = used.Header
		env, err = records.Envelopes.Get(tx, hh)
		return err
	})
	if env == nil || err != nil {
		return nil, err
	}
	e, err := n.loadHeader(ctx, hh, env)
	if err != nil {
		return nil, err
	}
	return exchange.Recipients(e), nil
}

// openOwn opens what an agency sent with the slot that is its own. After a
// restore the files may be with the recipients alone.
func (n *Node) openOwn(ctx context.Context, d *dossier) (*envelope.Opened, error) {
	gone := exchange.Fail(exchange.CodeNotFound, "the files of document %s are not on this node any more", d.env.ID)
	if !d.env.Complete {
		return nil, gone
	}
	var con *records.Consignment
	err := n.view(ctx, func(tx queue.Tx) error {
		con = nil
		return records.Incoming.Each(tx, 0, func(_ []byte, c *records.Consignment) bool {
			if c.Link == "" {
				con = c
			}
			return con == nil
		}, d.hh)
	})
	if err != nil {
		return nil, err
	}
	self := slices.IndexFunc(d.e.Header.Recipients, func(r envelope.Slot) bool { return r.Role == envelope.RoleSelf })
	if con == nil || self < 0 {
		return nil, gone
	}
	b, err := con.Body.Load(ctx, n.c.Blobs)
	if err != nil {
		return nil, err
	}
	item, err := ParseConsignment(b)
	if err != nil {
		return nil, err
	}
	return n.open(ctx, d.e, self, item.Slot(self))
}

// readdress names other recipients, each in the place that it had.
func readdress(doc *exchange.Document, names []string) {
	keep := func(list []exchange.Addressee) (out []exchange.Addressee) {
		for _, a := range list {
			if slices.Contains(names, a.Agency) {
				out = append(out, a)
				names = slices.DeleteFunc(slices.Clone(names), func(code string) bool { return code == a.Agency })
			}
		}
		return out
	}
	doc.To, doc.Cc = keep(doc.To), keep(doc.Cc)
	for _, code := range names {
		doc.To = append(doc.To, exchange.Addressee{Agency: code})
	}
	if len(doc.To) == 0 {
		doc.To, doc.Cc = doc.Cc, nil
	}
}

// filesOf reads the files of an opened document as a submission's.
func filesOf(ctx context.Context, o *envelope.Opened) iter.Seq2[envelope.File, error] {
	return func(yield func(envelope.File, error) bool) {
		for i, f := range o.Manifest.Files {
			r, err := o.File(ctx, i)
			if err != nil {
				yield(envelope.File{}, err)
				return
			}
			more := yield(envelope.File{Role: f.Role, Name: f.Name, Type: f.Type, Content: r}, nil)
			if r.Close() != nil || !more {
				return
			}
		}
	}
}
