package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// A request travels in the lane of the receipts, so it may overtake its
// document. Taking it in is one commit: the signed bytes, a leaf, an entry in
// the lane of the work. Carrying it out is work (recall.go), which repeats after
// a crash and changes nothing the second time.

// Asking is what a person of the sending agency asks for. Recipients are those
// it is about; none: all.
type Asking struct {
	Wish       exchange.Wish
	Recipients []string
	Actor      exchange.Actor

	// IdempotencyKey, if any, makes a repeat of a reminder the same reminder.
	IdempotencyKey string
}

// Asked is a request as it was signed.
type Asked struct {
	ID         sm.Digest
	Recipients []string
	CMS        []byte
}

// maxAlike bounds the recalls and the reminders about one document, each for
// itself, that its own node makes; another one takes in both. As long as the header
// is not here nobody can say whether the document is the agency's: of what it asks
// for maxUnknown is taken, and the rest stays with the neighbour until it is.
const (
	maxAlike   = 200
	maxUnknown = 16
)

// Ask signs requests with the agency's key about a document that it sent, one
// for each thousand recipients, and has them carried. To recall the same again
// gives the same requests.
func (n *Node) Ask(ctx context.Context, agency, document string, a Asking) (all []Asked, err error) {
	e, err := n.sentHeader(ctx, agency, document)
	if err != nil {
		return nil, err
	}
	names, err := a.check(e)
	if err != nil {
		return nil, err
	}
	earlier, err := n.requestsOf(ctx, e.Hash)
	if err != nil {
		return nil, err
	}
	made := 0
	for _, r := range earlier {
		if r.body.Wish == a.Wish && r.body.Agency == agency {
			made++
		}
	}
	for part := range slices.Chunk(names, exchange.MaxRequestRecipients) {
		one, err := n.askedUnder(ctx, agency, a.IdempotencyKey, e.Hash, len(all))
		if err != nil {
			return nil, err
		}
		if one == nil {
			one = sameRequest(earlier, a.Wish, part)
		}
		if one == nil {
			if made++; made > maxAlike {
				return nil, exchange.Fail(exchange.CodeConflict, "document %s: %d requests of this kind were made already", document, maxAlike)
			}
			if one, err = n.ask(ctx, e, a, part, len(all)); err != nil {
				return nil, err
			}
		}
		all = append(all, *one)
	}
	return all, nil
}

// check gives the recipients that a request is about.
func (a *Asking) check(e *envelope.Envelope) ([]string, error) {
	if !a.Wish.Known() {
		return nil, exchange.Fail(exchange.CodeBadRequest, "kind: RECALL or REMIND is expected")
	}
	if a.Actor.Name == "" {
		return nil, exchange.Fail(exchange.CodeBadRequest, "actor.name: the name of the person is expected")
	}
	for name, text := range map[string]string{"actor.name": a.Actor.Name, "actor.role": a.Actor.Role} {
		if err := exchange.CheckText(name, text, exchange.MaxText); err != nil {
			return nil, exchange.Fail(exchange.CodeBadRequest, "%s", err.Detail)
		}
	}
	all := exchange.Recipients(e)
	if len(a.Recipients) == 0 {
		return all, nil
	}
	names := slices.Compact(slices.Sorted(slices.Values(a.Recipients)))
	for _, code := range names {
		if !slices.Contains(all, code) {
			return nil, exchange.Fail(exchange.CodeUnknownRecipient, "%s is no recipient of the document", code)
		}
	}
	return names, nil
}

// SentSize is the size of the sealed payload of a document that an agency sent.
func (n *Node) SentSize(ctx context.Context, agency, document string) (int64, error) {
	e, err := n.sentHeader(ctx, agency, document)
	if err != nil {
		return 0, err
	}
	return e.Header.Payload.Size, nil
}

// sentHeader is the header of a document that an agency sent.
func (n *Node) sentHeader(ctx context.Context, agency, document string) (*envelope.Envelope, error) {
	var env *records.Envelope
	var hh sm.Digest
	err := n.view(ctx, func(tx queue.Tx) error {
		sent, err := records.Documents.Get(tx, agency, document)
		if err != nil {
			return err
		}
		if sent == nil {
			return exchange.Fail(exchange.CodeNotFound, "document %s is not among those that %s sent", document, agency)
		}
		hh = sent.Header
		env, err = records.Envelopes.Get(tx, hh)
		return errors.Join(err, absent(env == nil && err == nil, "envelope"))
	})
	if err != nil {
		return nil, err
	}
	return n.loadHeader(ctx, hh, env)
}

// storedRequest is a request read back.
type storedRequest struct {
	id   sm.Digest
	row  *records.Request
	body *exchange.Request
}

func openRequest(row *records.Request) (*storedRequest, error) {
	signed, err := cms.Parse(row.CMS, exchange.MaxRequestCMS)
	if err != nil {
		return nil, err
	}
	body, err := exchange.ParseRequest(signed.Content)
	return &storedRequest{id: signed.ID(), row: row, body: body}, err
}

func (n *Node) requestsOf(ctx context.Context, hh sm.Digest) (list []*storedRequest, err error) {
	err = n.view(ctx, func(tx queue.Tx) error {
		list, err = requestsIn(tx, hh)
		return err
	})
	return list, err
}

func requestsIn(tx queue.Tx, hh sm.Digest) (list []*storedRequest, err error) {
	var bad error
	err = records.Requests.Each(tx, 0, func(_ []byte, row *records.Request) bool {
		r, err := openRequest(row)
		if err != nil {
			bad = fmt.Errorf("%w: a request: %w", records.ErrUnreadable, err)
			return false
		}
		list = append(list, r)
		return true
	}, hh)
	return list, errors.Join(err, bad)
}

// sameRequest finds a recall of the same recipients; every reminder is a new one.
func sameRequest(list []*storedRequest, wish exchange.Wish, names []string) *Asked {
	for _, r := range list {
		if wish == exchange.WishRecall && r.body.Wish == wish && slices.Equal(r.body.Recipients, names) {
			return &Asked{r.id, names, r.row.CMS}
		}
	}
	return nil
}

// ask is the commit point of a request at the sender's node: for part i of the
// recipients.
func (n *Node) ask(ctx context.Context, e *envelope.Envelope, a Asking, names []string, i int) (*Asked, error) {
	signer, err := n.agencySigner(e.Header.Sender)
	if err != nil {
		return nil, err
	}
	d := n.Directory()
	r := &exchange.Request{
		Domain: d.Domain(), Wish: a.Wish, Envelope: e.Header.ID, Header: e.Hash, Recipients: names, Agency: e.Header.Sender,
		Actor: &a.Actor, Time: n.now(), Clock: n.c.Clock, Directory: d.Version(),
	}
	content, err := r.Marshal()
	if err != nil {
		return nil, exchange.Fail(exchange.CodeBadRequest, "actor: not valid UTF-8 text")
	}
	signed, err := cms.Sign(signer, content, n.c.Now())
	if err != nil {
		return nil, err
	}
	id := sm.Sum(content)
	var under func(queue.Tx) error
	if a.IdempotencyKey != "" {
		under = func(tx queue.Tx) error {
			return records.AskedUnder.Put(tx, &id, e.Header.Sender, n.idempotencyIndex(a.IdempotencyKey), uint64(i))
		}
	}
	_, err = n.takeRequest(ctx, id, r, &records.Request{CMS: signed, At: n.now()}, under)
	return &Asked{id, names, signed}, err
}

// takeRequest is the commit point of a request on every node. A crash before it
// lets the neighbour, or the person, ask again. also, if not nil, is committed with it.
func (n *Node) takeRequest(ctx context.Context, id sm.Digest, r *exchange.Request, row *records.Request, also func(queue.Tx) error) (Outcome, error) {
	out := Outcome{Taken, ""} // of the commit's own: after an error it may still be running
	row.Agency = r.Agency
	err := n.update(ctx, func(tx queue.Tx) error {
		out = Outcome{Taken, ""}
		if row.Link != "" {
			if err := requestFits(tx, r); err != nil {
				return err
			}
		}
		err := records.Requests.Insert(tx, row, r.Header, id)
		if errors.Is(err, queue.ErrExists) {
			out.Status = Duplicate
			return nil
		}
		if err != nil {
			return err
		}
		if also != nil {
			if err := also(tx); err != nil {
				return err
			}
		}
		if _, err := n.leaf(tx, eventAsked, r.Header, id); err != nil {
			return err
		}
		_, err = enqueueEntry(tx, laneWork, laneEntry{Kind: KindRequest, Envelope: r.Header, Object: id})
		return err
	})
	if err != nil {
		return Outcome{}, err
	}
	return out, nil
}

const (
	reasonNotSender   = "not_the_sender"
	reasonTooManyAsks = "too_many_requests"
)

// errTooManyAsks: the header is here, and its sender has asked often enough.
var errTooManyAsks = errors.New("node: too many requests about one document")

// requestFits bounds what one agency may ask for about one document.
func requestFits(tx queue.Tx, r *exchange.Request) error {
	count := 0
	err := records.Requests.Each(tx, 0, func(_ []byte, row *records.Request) bool {
		if row.Agency == r.Agency {
			count++
		}
		return true
	}, r.Header)
	if err != nil || count < maxUnknown {
		return err
	}
	env, err := records.Envelopes.Get(tx, r.Header)
	switch {
	case err != nil:
		return err
	case env == nil || env.Deferred:
		return errWaitingFull
	case count >= 2*maxAlike:
		return errTooManyAsks
	}
	return nil
}

// intakeRequest takes a request on its way to the recipients.
func (n *Node) intakeRequest(ctx context.Context, link string, it Item, b []byte) (Outcome, error) {
	signed, err := cms.Parse(b, exchange.MaxRequestCMS)
	if err != nil || signed.ID().String() != it.ID {
		return n.damaged(ctx, link, it, "unparsable", b)
	}
	r, err := exchange.ParseRequest(signed.Content)
	if err != nil {
		return n.damaged(ctx, link, it, "unparsable", b)
	}
	if known, err := n.requestKnown(ctx, r.Header, signed.ID()); known.Status != "" || err != nil {
		return known, err
	}
	d := n.Directory()
	if r.Directory > d.Version() {
		return n.deferSmall(ctx, d, records.DeferredItem{Kind: KindRequest, Link: link, Directory: r.Directory, Envelope: r.Header}, signed.ID(), b)
	}
	err = exchange.JudgeRequest(d, r, signed, n.c.Now())
	if exchange.SignerFault(err) {
		code := exchange.CodeOf(err)
		return Outcome{Refused, code}, n.Quarantine(ctx, link, it.Kind+" "+it.ID, code, b)
	}
	if err != nil {
		return n.damaged(ctx, link, it, exchange.CodeOf(err), b)
	}
	env, err := n.envelopeRow(ctx, r.Header)
	if err != nil {
		return Outcome{}, err
	}
	if out, full := n.noRoom(); full && env == nil { // what asks for what is not here is new work
		return out, nil
	}
	if ours, err := n.aboutItsOwn(ctx, r); !ours || err != nil {
		return Outcome{Refused, reasonNotSender}, errors.Join(err, n.Quarantine(ctx, link, it.Kind+" "+it.ID, reasonNotSender, b))
	}
	out, err := n.takeRequest(ctx, signed.ID(), r, &records.Request{CMS: b, Link: link, At: n.now()}, nil)
	switch {
	case errors.Is(err, errWaitingFull):
		return n.full(ctx, link)
	case errors.Is(err, errTooManyAsks):
		return Outcome{Refused, reasonTooManyAsks}, n.Quarantine(ctx, link, it.Kind+" "+it.ID, reasonTooManyAsks, nil)
	}
	return out, err
}

// aboutItsOwn says whether a request is by the sender of its document, as far as
// the header is here.
func (n *Node) aboutItsOwn(ctx context.Context, r *exchange.Request) (bool, error) {
	env, err := n.envelopeRow(ctx, r.Header)
	if env == nil || env.Deferred || err != nil {
		return true, err
	}
	e, err := n.loadHeader(ctx, r.Header, env)
	return err == nil && r.About(e), err
}

func (n *Node) requestKnown(ctx context.Context, hh, id sm.Digest) (out Outcome, err error) {
	err = n.view(ctx, func(tx queue.Tx) error {
		out = Outcome{}
		stored, err := records.Requests.Get(tx, hh, id)
		if stored != nil || err != nil {
			out.Status = Duplicate
			return err
		}
		waiting, err := records.Deferred.Get(tx, KindRequest, id)
		if waiting != nil {
			out.Status = Postponed
		}
		return err
	})
	return out, err
}

// resumeRequest judges a request that waited for a newer directory.
func (n *Node) resumeRequest(ctx context.Context, item *records.DeferredItem) error {
	b, err := item.Body.Load(ctx, n.c.Blobs)
	if err != nil {
		return err
	}
	signed, err := cms.Parse(b, exchange.MaxRequestCMS)
	if err != nil {
		return err
	}
	r, err := exchange.ParseRequest(signed.Content)
	if err != nil {
		return err
	}
	what := KindRequest + " " + signed.ID().String()
	err = n.asOf(item.At, func(at time.Time) error { return exchange.JudgeRequest(n.Directory(), r, signed, at) })
	if exchange.IsTemporary(err) {
		return err
	}
	if err != nil {
		return n.Quarantine(ctx, item.Link, what, exchange.CodeOf(err), b)
	}
	if ours, err := n.aboutItsOwn(ctx, r); !ours || err != nil {
		return errors.Join(err, n.Quarantine(ctx, item.Link, what, reasonNotSender, b))
	}
	_, err = n.takeRequest(ctx, signed.ID(), r, &records.Request{CMS: b, Link: item.Link, At: item.At}, nil)
	if errors.Is(err, errWaitingFull) || errors.Is(err, errTooManyAsks) { // nobody holds it any more who could give it again
		return n.Quarantine(ctx, item.Link, what, reasonTooManyAsks, b)
	}
	return err
}

// requestItem is a request as it goes to the neighbour.
func (n *Node) requestItem(ctx context.Context, o Out) ([]Out, error) {
	var row *records.Request
	err := n.view(ctx, func(tx queue.Tx) (err error) {
		row, err = records.Requests.Get(tx, o.entry.Envelope, o.entry.Object)
		return err
	})
	if err != nil {
		return nil, rowTrouble(err)
	}
	if row == nil {
		return nil, unreadable{fmt.Errorf("node: lane %s entry %d names a request that is not there", o.lane, o.seq)}
	}
	return []Out{smallItem(o, KindRequest, o.entry.Object.String(), row.CMS)}, nil
}
