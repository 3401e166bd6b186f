package node

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// Most documents are small and arrive in one bundle: header, consignment and
// their only part. Taken one by one they cost three commits and their
// distribution another, each reading what was just written. IntakeWhole takes
// and distributes them in one. It does so only where all three are new, in order
// and beyond doubt; anything else it leaves to Intake, which says what is wrong
// with it.

// Whole is a document that came as one: the items of a header, of its
// consignment and of its only part, with their bytes.
type Whole struct {
	Header, Consignment, Part Item

	HeaderBytes, ConsignmentBytes, PartBytes []byte
}

// whole is a Whole that was understood.
type whole struct {
	*parcel
	d    *certs.Directory
	body records.Body // of the consignment
	ref  queue.Ref    // of the part
	step *step        // the whole distribution; nil when the work is to do it
}

// IntakeWhole takes a document in one commit. With taken false nothing was
// changed: its items are for Intake. A crash before the commit leaves a blob
// that nothing refers to, and the neighbour sends the document again.
func (n *Node) IntakeWhole(ctx context.Context, link string, w Whole) (taken bool, err error) {
	if _, err := n.neighbour(link); err != nil {
		return false, err
	}
	got, err := n.understand(ctx, link, &w)
	if got == nil || err != nil {
		return false, err
	}
	if err := n.storeWhole(ctx, &w, got); err != nil {
		return false, err
	}
	got.step = n.onlyStep(ctx, got.d, got.parcel)
	err = n.update(ctx, func(tx queue.Tx) error { return n.takeWhole(tx, w.Consignment.Digest, got) })
	switch {
	case err == nil:
		n.headers.put(got.e, int64(len(w.HeaderBytes)))
		return true, nil
	case errors.Is(err, errNothingNew), errors.Is(err, queue.ErrExists), errors.Is(err, errChanged): // something of it is here; nothing was written
		return false, errors.Join(n.c.Blobs.Delete(ctx, got.ref), n.dropBody(ctx, got.body), n.dropBody(ctx, got.env.Header))
	}
	return false, err
}

func (n *Node) storeWhole(ctx context.Context, w *Whole, got *whole) (err error) {
	if got.ref, err = n.c.Blobs.Put(ctx, bytes.NewReader(w.PartBytes), w.Part.Size); err != nil {
		return err
	}
	got.body, err = records.StoreBody(ctx, n.c.Blobs, w.ConsignmentBytes)
	return err
}

// understand gives a document that may be taken as it is; nil when that is for
// Intake to find out.
func (n *Node) understand(ctx context.Context, link string, w *Whole) (*whole, error) {
	if !intact(w.Header, w.HeaderBytes, envelope.MaxHeader) || !intact(w.Consignment, w.ConsignmentBytes, MaxConsignment) {
		return nil, nil
	}
	e, routing, ok := parseHeader(w.HeaderBytes, w.Header)
	if !ok || envelope.PartCount(e.Header.Payload.Size) != 1 {
		return nil, nil
	}
	if _, full := n.noRoom(); full {
		return nil, nil
	}
	if known, err := n.knownHeader(ctx, link, e.Hash); known.Status != "" || err != nil {
		return nil, err
	}
	if refused, err := n.refusedBefore(ctx, link, e.Hash); refused.Status != "" || err != nil {
		return nil, err
	}
	d := n.Directory()
	if e.Header.Directory > d.Version() {
		return nil, nil
	}
	if reason, err := n.verifyHeader(d, e, n.c.Now()); err != nil || reason != "" || n.inadmissible(d, link, e, routing) != "" {
		return nil, nil
	}
	item, err := ParseConsignment(w.ConsignmentBytes)
	if err != nil || item.Envelope != e.Hash || item.Verify(e) != nil || !onlyPart(w, e, item) {
		return nil, nil
	}
	env, err := n.newEnvelope(ctx, d, link, e, w.HeaderBytes, routing)
	if err != nil {
		return nil, err
	}
	env.Have, env.Complete = fullBits(1), true
	p := &parcel{hh: e.Hash, id: w.Consignment.Digest, env: env, e: e, routing: routing, item: item, from: link, payload: inMemory(w.PartBytes)}
	return &whole{parcel: p, d: d}, nil
}

func intact(it Item, b []byte, most int64) bool {
	return it.Size <= most && int64(len(b)) == it.Size && sm.Sum(b) == it.Digest
}

// onlyPart says whether the part is the one that header and consignment name.
func onlyPart(w *Whole, e *envelope.Envelope, item *ConsignmentItem) bool {
	hash := merkle.NewPayloadHash()
	_, err := io.Copy(hash, bytes.NewReader(w.PartBytes))
	return err == nil && w.Part.ID == partID(e.Hash, 0) && w.Part.Size == e.Header.Payload.Size && int64(len(w.PartBytes)) == w.Part.Size &&
		len(item.Parts) == 1 && w.Part.Digest == item.Parts[0] && hash.Sum() == w.Part.Digest
}

func (n *Node) takeWhole(tx queue.Tx, id sm.Digest, got *whole) error {
	hh := got.hh
	conflict, err := headerConflict(tx, got.e)
	if err != nil {
		return err
	}
	if conflict {
		return errNothingNew
	}
	if err := n.putEnvelope(tx, hh, got.env); err != nil {
		return err
	}
	if _, err := n.leaf(tx, eventTaken, hh, hh); err != nil {
		return err
	}
	if err := records.Digests.Insert(tx, records.JoinDigests(got.item.Parts), hh); err != nil {
		return err
	}
	if err := putPart(tx, hh, 0, got.ref); err != nil {
		return err
	}
	return n.begin(tx, got.d, got.parcel, &records.Consignment{Body: got.body, Link: got.from}, got.step)
}
