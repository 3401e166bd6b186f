package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// The kinds of items a node takes in.
const (
	KindHeader      = "header"
	KindConsignment = "consignment"
	KindPart        = "part"
	KindReceipt     = "receipt"
	KindRequest     = "request"
	KindOwnHeader   = "own-header" // given back to a restored node
)

// Item is one thing carried over a link, as the bundle's manifest names it.
// ID is the header hash (header, consignment: followed by "/" and its own
// SM3; part: followed by "/" and its index), the receipt id or the directory's
// version. Digest is the
// SM3 of the bytes, of a part the subtree digest of its 1 MiB leaves.
type Item struct {
	Kind   string
	ID     string
	Size   int64
	Digest sm.Digest
}

// Outcome is what became of an item at the receiver.
type Outcome struct {
	Status string
	Reason string
}

// The statuses of an Outcome. Taken and deferred items are durable at the
// receiver; a duplicate was before. Refused is final for this item on this
// link. Damaged is a link fault: the neighbour holds a good copy and sends it
// again.
const (
	Taken     = "taken"
	Duplicate = "duplicate"
	Refused   = "refused"
	Postponed = "deferred"
	Damaged   = "damaged"
)

// Intake takes one item from a neighbour. When it returns without error the
// outcome is durable and may be acknowledged. An error is trouble of our own:
// nothing is acknowledged and the neighbour will send the item again.
func (n *Node) Intake(ctx context.Context, link string, it Item, body io.Reader) (Outcome, error) {
	if _, err := n.neighbour(link); err != nil {
		return Outcome{}, err
	}
	if it.Kind == KindPart {
		return n.intakePart(ctx, link, it, body)
	}
	limits := map[string]int64{KindHeader: envelope.MaxHeader, KindConsignment: MaxConsignment, KindReceipt: maxReceiptItem, KindDirectory: MaxDelta, KindOwnHeader: envelope.MaxHeader, KindRequest: exchange.MaxRequestCMS}
	limit, known := limits[it.Kind]
	if !known {
		return Outcome{Refused, "unknown_kind"}, nil
	}
	if it.Size < 0 || it.Size > limit {
		return Outcome{Refused, exchange.CodeTooLarge}, nil
	}
	b := make([]byte, it.Size)
	if _, err := io.ReadFull(body, b); err != nil || sm.Sum(b) != it.Digest {
		return n.damaged(ctx, link, it, "digest", nil)
	}
	switch it.Kind {
	case KindHeader:
		return n.intakeHeader(ctx, link, it, b)
	case KindConsignment:
		return n.intakeConsignment(ctx, link, it, b)
	case KindDirectory:
		return n.intakeDirectory(ctx, link, it, b)
	case KindOwnHeader:
		return n.intakeOwnHeader(ctx, link, it, b)
	case KindRequest:
		return n.intakeRequest(ctx, link, it, b)
	}
	return n.intakeReceipt(ctx, link, it, b)
}

// damaged keeps what arrived for the operator and asks for it again.
func (n *Node) damaged(ctx context.Context, link string, it Item, reason string, sample []byte) (Outcome, error) {
	err := n.Quarantine(ctx, link, it.Kind+" "+it.ID, reason, sample)
	return Outcome{Damaged, reason}, err
}

func (n *Node) intakeHeader(ctx context.Context, link string, it Item, b []byte) (Outcome, error) {
	e, routing, ok := parseHeader(b, it)
	if !ok {
		return n.unusableHeader(ctx, link, it, b)
	}
	if out, err := n.knownHeader(ctx, link, e.Hash); out.Status != "" || err != nil {
		return out, err
	}
	if out, err := n.refusedBefore(ctx, link, e.Hash); out.Status != "" || err != nil {
		return out, err
	}
	if out, full := n.noRoom(); full {
		return out, nil
	}
	d := n.Directory()
	if e.Header.Directory > d.Version() {
		return n.deferHeader(ctx, d, link, e, b, routing)
	}
	reason, err := n.verifyHeader(d, e, n.c.Now())
	if err != nil {
		return n.faulty(ctx, link, it, err, b)
	}
	if reason == "" {
		reason = n.inadmissible(d, link, e, routing)
	}
	if reason != "" {
		return n.rejectHeader(ctx, d, link, e, b, reason)
	}
	return n.takeHeader(ctx, d, link, e, b, routing)
}

func parseHeader(b []byte, it Item) (*envelope.Envelope, *exchange.Routing, bool) {
	e, err := envelope.ParseHeader(b)
	if err != nil || e.Hash.String() != it.ID {
		return nil, nil, false
	}
	routing, err := exchange.ParseRouting(e.Header.Routing)
	return e, routing, err == nil
}

func (n *Node) envelopeRow(ctx context.Context, hh sm.Digest) (env *records.Envelope, err error) {
	err = n.view(ctx, func(tx queue.Tx) error {
		env, err = records.Envelopes.Get(tx, hh)
		return err
	})
	return env, err
}

// errUnknownSender: the directory that a header was made with is here, and
// does not name its sender.
var errUnknownSender = exchange.Fail(exchange.CodeSignatureInvalid, "unknown_sender")

// verifyHeader checks the signature with what the directory says. at is when
// the header first came here: it, and not the header, decides whether the
// certificate was valid. reason is set when the sender is to be told why its
// header is refused; err is a fault of the link, since nobody sends receipts
// to whoever a forged header names.
func (n *Node) verifyHeader(d *certs.Directory, e *envelope.Envelope, at time.Time) (reason string, err error) {
	sender, ok := d.Agency(e.Header.Sender)
	if !ok {
		return "", errUnknownSender
	}
	if e.Header.Domain != d.Domain() {
		return "", exchange.Fail(exchange.CodeSignatureInvalid, "another domain")
	}
	err = exchange.CheckSigner(sender.Certificates, e.SignerCertificate(), e, at)
	if exchange.SignerFault(err) {
		return exchange.CodeOf(err), nil
	}
	return "", err
}

// faulty answers for a header that does not verify.
func (n *Node) faulty(ctx context.Context, link string, it Item, fault error, b []byte) (Outcome, error) {
	if errors.Is(fault, errUnknownSender) {
		err := n.Quarantine(ctx, link, it.Kind+" "+it.ID, errUnknownSender.Detail, b)
		return Outcome{Refused, errUnknownSender.Detail}, err
	}
	return n.damaged(ctx, link, it, exchange.CodeOf(fault), b)
}

// newEnvelope is the record of a header that came over a link; its bytes are
// durable before the record is.
func (n *Node) newEnvelope(ctx context.Context, d *certs.Directory, link string, e *envelope.Envelope, b []byte, r *exchange.Routing) (*records.Envelope, error) {
	body, err := records.StoreBody(ctx, n.c.Blobs, b)
	parts := envelope.PartCount(e.Header.Payload.Size)
	return &records.Envelope{
		ID: e.Header.ID, Sender: e.Header.Sender, Size: e.Header.Payload.Size, Parts: parts,
		Have: make([]byte, (parts+7)/8), Header: body, Link: link, Directory: d.Version(), At: n.now(), Expires: r.Expires,
	}, err
}

// takeHeader is the commit point of a header. The first header under a
// (sender, id) stands; a second one with another hash is a conflict, signed
// and shown.
func (n *Node) takeHeader(ctx context.Context, d *certs.Directory, link string, e *envelope.Envelope, b []byte, r *exchange.Routing) (Outcome, error) {
	env, err := n.newEnvelope(ctx, d, link, e, b, r)
	if err != nil {
		return Outcome{}, err
	}
	out, conflict := Outcome{Taken, ""}, false
	err = n.update(ctx, func(tx queue.Tx) error {
		out, conflict = Outcome{Taken, ""}, false
		if conflict, err = headerConflict(tx, e); conflict || err != nil {
			return err
		}
		err := n.putEnvelope(tx, e.Hash, env)
		if errors.Is(err, queue.ErrExists) {
			out = Outcome{Duplicate, ""}
			return nil
		}
		if err != nil {
			return err
		}
		_, err = n.leaf(tx, eventTaken, e.Hash, e.Hash)
		return err
	})
	if err != nil {
		return Outcome{}, err
	}
	if conflict || out.Status != Taken {
		err = n.dropBody(ctx, env.Header)
	} else {
		n.headers.put(e, int64(len(b)))
	}
	if conflict && err == nil {
		return n.rejectHeader(ctx, d, link, e, b, reasonConflict)
	}
	return out, err
}

// dropBody deletes the blob of a body that no row refers to; left behind, it
// would lie there until the sweep of the next start.
func (n *Node) dropBody(ctx context.Context, body records.Body) error {
	if body.Ref == "" {
		return nil
	}
	return n.c.Blobs.Delete(ctx, body.Ref)
}

func headerConflict(tx queue.Tx, e *envelope.Envelope) (bool, error) {
	err := records.FirstHeader.Insert(tx, &e.Hash, e.Header.Sender, e.Header.ID)
	if !errors.Is(err, queue.ErrExists) {
		return false, err
	}
	first, err := records.FirstHeader.Get(tx, e.Header.Sender, e.Header.ID)
	if err != nil {
		return false, err
	}
	return *first != e.Hash, nil
}

// intakeConsignment takes the slots and part digests. They are checked
// against the header, which therefore must have come first.
func (n *Node) intakeConsignment(ctx context.Context, link string, it Item, b []byte) (Outcome, error) {
	item, err := ParseConsignment(b)
	if err != nil {
		return n.damaged(ctx, link, it, "unparsable", b)
	}
	if out, full := n.noRoom(); full { // said before that its header is missing, for the same reason
		return out, nil
	}
	env, err := n.envelopeRow(ctx, item.Envelope)
	if err != nil {
		return Outcome{}, err
	}
	if env == nil {
		return Outcome{Damaged, reasonHeaderMissing}, nil
	}
	e, err := n.loadHeader(ctx, item.Envelope, env)
	if err != nil {
		return Outcome{}, err
	}
	if item.Verify(e) != nil {
		return n.damaged(ctx, link, it, "contradicts_header", b)
	}
	body, err := records.StoreBody(ctx, n.c.Blobs, b)
	if err != nil {
		return Outcome{}, err
	}
	return n.commitConsignment(ctx, link, it, e.Hash, item, body)
}

// commitConsignment is the commit point of a consignment, whose bytes are durable by
// then. A crash before it leaves an unreferenced blob; the neighbour sends again.
func (n *Node) commitConsignment(ctx context.Context, link string, it Item, hh sm.Digest, item *ConsignmentItem, body records.Body) (Outcome, error) {
	var out Outcome
	var back bool
	err := n.update(ctx, func(tx queue.Tx) (err error) {
		out, back, err = n.takeConsignment(tx, link, it, hh, item, body)
		return err
	})
	switch {
	case err == nil && out.Status == Taken && !back:
		return out, nil
	case err == nil:
		return out, n.dropBody(ctx, body)
	case errors.Is(err, errNothingNew):
		return Outcome{Duplicate, ""}, n.dropBody(ctx, body)
	case errors.Is(err, errLoop):
		return Outcome{Refused, reasonLoop}, n.dropBody(ctx, body)
	case errors.Is(err, errHandingOn):
		return Outcome{Damaged, reasonWaits}, n.dropBody(ctx, body)
	case errors.Is(err, errWaitingFull):
		out, err := n.full(ctx, link)
		return out, errors.Join(err, n.dropBody(ctx, body))
	default: // it may still be running: neither out nor the body's blob is ours
		return Outcome{}, err
	}
}

// takeConsignment writes a consignment, or takes once more one that came back: then the
// body that is here stays.
func (n *Node) takeConsignment(tx queue.Tx, link string, it Item, hh sm.Digest, item *ConsignmentItem, body records.Body) (out Outcome, back bool, err error) {
	env, err := records.Envelopes.Lock(tx, hh)
	if err != nil {
		return out, false, err
	}
	if env == nil { // it waited, and was dropped meanwhile
		return Outcome{Damaged, reasonHeaderMissing}, false, nil
	}
	if env.Deferred {
		if err := reserveConsignment(tx, hh, it.Size); err != nil {
			return out, false, err
		}
	}
	if err := consignmentFits(tx, hh, it.Digest, link); err != nil {
		return out, false, err
	}
	err = records.Digests.Insert(tx, records.JoinDigests(item.Parts), hh)
	if err != nil && !errors.Is(err, queue.ErrExists) {
		return out, false, err
	}
	con := &records.Consignment{Body: body, Link: link}
	err = n.putConsignment(tx, hh, it.Digest, con, env.Complete && !env.Deferred)
	if errors.Is(err, queue.ErrExists) {
		back, err = n.comesBack(tx, hh, it.Digest, link, item)
		if !back && err == nil {
			err = errNothingNew
		}
		return Outcome{Taken, ""}, back, err
	}
	if err == nil {
		err = n.setOutAgain(tx, hh, it.Digest, con, item)
	}
	return Outcome{Taken, ""}, false, err
}

// maxConsignments bounds the consignments of one document that came over one link,
// and over all of them. They are not signed: a neighbour could make any number of
// them out of one, and the last part sets all of them to work in one transaction.
const (
	maxConsignmentsOfLink = MaxWaitingConsignments
	maxConsignments       = 64
)

func consignmentFits(tx queue.Tx, hh, id sm.Digest, link string) error {
	all, ofLink, known := 0, 0, false
	err := records.Incoming.Each(tx, maxConsignments, func(key []byte, c *records.Consignment) bool {
		known = known || lastDigest(key) == id
		if all++; c.Link == link {
			ofLink++
		}
		return true
	}, hh)
	if err == nil && !known && (all >= maxConsignments || ofLink >= maxConsignmentsOfLink) {
		err = errWaitingFull
	}
	return err
}

// errNothingNew undoes what a transaction has counted for a duplicate.
var errNothingNew = errors.New("node: duplicate")

func absent(is bool, what string) error {
	if is {
		return fmt.Errorf("node: %s is gone", what)
	}
	return nil
}

// intakePart takes one part of a payload: written durably while it is hashed,
// then noted. The last one sets the waiting consignments to work.
func (n *Node) intakePart(ctx context.Context, link string, it Item, body io.Reader) (Outcome, error) {
	hh, i, err := parsePartID(it.ID)
	if err != nil {
		return Outcome{Refused, "bad_id"}, nil
	}
	want, have, err := n.expectPart(ctx, hh, i, it)
	if out, full := n.noRoom(); full && err == nil && !have {
		return out, nil
	}
	if err != nil || want == "" {
		return Outcome{Damaged, reasonHeaderMissing}, err
	}
	if want != partExpected {
		return n.damaged(ctx, link, it, want, nil)
	}
	if have {
		return Outcome{Duplicate, ""}, nil
	}
	hash := merkle.NewPayloadHash()
	lr := &io.LimitedReader{R: body, N: it.Size}
	ref, err := n.c.Blobs.Put(ctx, io.TeeReader(lr, hash), it.Size)
	if err != nil {
		return Outcome{}, err
	}
	if lr.N != 0 || hash.Sum() != it.Digest {
		if err := n.c.Blobs.Delete(ctx, ref); err != nil {
			return Outcome{}, err
		}
		return n.damaged(ctx, link, it, "digest", nil)
	}
	return n.takePart(ctx, hh, i, ref)
}

// reasonHeaderMissing tells the neighbour to begin with the header again.
const reasonHeaderMissing = "header_missing"

const partExpected = "expected"

// expectPart says whether a part with this size and digest is due: "" when
// header or consignment have not come yet.
func (n *Node) expectPart(ctx context.Context, hh sm.Digest, i int, it Item) (verdict string, have bool, err error) {
	err = n.view(ctx, func(tx queue.Tx) error {
		env, err := records.Envelopes.Get(tx, hh)
		if env == nil || err != nil {
			return err
		}
		digests, err := records.Digests.Get(tx, hh)
		switch {
		case digests == nil || err != nil:
		case i >= env.Parts || it.Size != envelope.PartLength(env.Size, i) || digests.At(i) != it.Digest:
			verdict = "contradicts_header"
		default:
			verdict, have = partExpected, hasBit(env.Have, i)
		}
		return err
	})
	return verdict, have, err
}

// takePart is the commit point of a part, whose bytes are durable by now. A
// crash before it leaves an unreferenced blob; the neighbour sends again.
func (n *Node) takePart(ctx context.Context, hh sm.Digest, i int, ref queue.Ref) (Outcome, error) {
	out := Outcome{Taken, ""}
	err := n.update(ctx, func(tx queue.Tx) error {
		out = Outcome{Taken, ""}
		env, err := records.Envelopes.Lock(tx, hh)
		if err != nil {
			return err
		}
		if env == nil { // it waited, and was dropped meanwhile
			out = Outcome{Damaged, reasonHeaderMissing}
			return nil
		}
		if hasBit(env.Have, i) {
			out = Outcome{Duplicate, ""}
			return nil
		}
		if err := putPart(tx, hh, i, ref); err != nil {
			return err
		}
		setBit(env.Have, i)
		if env.Complete = allBits(env.Have, env.Parts); env.Complete && !env.Deferred {
			if err := startWaiting(tx, hh); err != nil {
				return err
			}
		}
		return records.Envelopes.Put(tx, env, hh)
	})
	if err != nil { // it may still be running: out is not ours
		return Outcome{}, err
	}
	if out.Status != Taken {
		// Nothing refers to this second copy; left behind it would be swept.
		err = n.c.Blobs.Delete(ctx, ref)
	}
	return out, err
}

// startWaiting sets the consignments of an envelope to work that waited for
// its parts or its directory.
func startWaiting(tx queue.Tx, hh sm.Digest) error {
	var ids []sm.Digest
	err := records.Fans.Each(tx, 0, func(key []byte, f *records.Fan) bool {
		if f.Work == 0 {
			ids = append(ids, lastDigest(key))
		}
		return true
	}, hh)
	for _, id := range ids {
		fan, e := records.Fans.Lock(tx, hh, id)
		if e != nil || fan == nil {
			return errors.Join(err, e)
		}
		if e := startFan(tx, hh, id, fan); e != nil {
			return e
		}
		if e := records.Fans.Put(tx, fan, hh, id); e != nil {
			return e
		}
	}
	return err
}

// lastDigest reads the digest that ends a row's key.
func lastDigest(key []byte) (d sm.Digest) {
	copy(d[:], key[len(key)-sm.Size:])
	return d
}

func parsePartID(id string) (hh sm.Digest, i int, err error) {
	head, tail, ok := bytes.Cut([]byte(id), []byte("/"))
	if !ok || len(tail) > 6 {
		return hh, 0, exchange.Fail(exchange.CodeBadRequest, "part id")
	}
	for _, c := range tail {
		if c < '0' || c > '9' {
			return hh, 0, exchange.Fail(exchange.CodeBadRequest, "part id")
		}
		i = 10*i + int(c-'0')
	}
	hh, err = sm.ParseDigest(string(head))
	if err == nil && partID(hh, i) != id {
		err = exchange.Fail(exchange.CodeBadRequest, "part id")
	}
	return hh, i, err
}

func partID(hh sm.Digest, i int) string { return fmt.Sprintf("%s/%d", hh, i) }
