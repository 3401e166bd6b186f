package node

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

// What waits for a newer directory is known to be nobody's: a neighbour may
// have made it up. It therefore decides about nothing else here, and what one
// link may have waiting is bounded. Beyond a bound an item counts as damaged:
// the neighbour keeps it and sends it again.
const (
	MaxAhead               = 64       // versions that an item's directory may be ahead of ours
	MaxWaiting             = 10_000   // items of one link
	MaxWaitingBytes        = 64 << 30 // of one link: headers, payloads, consignments and receipts
	MaxWaitingConsignments = 16       // of one header
)

// The reasons why something that would wait is not taken now.
const (
	reasonAhead = "directory_ahead" // no directory of this domain is that far ahead
	reasonFull  = "waiting_full"    // too much of this link waits already
	reasonOther = "waiting_elsewhere"
)

var errWaitingFull = errors.New("node: too much waits for a newer directory")

// ahead says whether a version is further ahead than a directory can be that
// is merely on its way here.
func ahead(d *certs.Directory, version uint64) bool { return version > d.Version()+MaxAhead }

// deferHeader takes a header that only a newer directory can judge. Until
// then nothing in it is known to be the sender's: nobody is told of a refusal,
// its document id stays free, and a copy that comes over another link is left
// there, since this one may turn out to be forged. State secrets are not
// stored, whoever says so.
func (n *Node) deferHeader(ctx context.Context, d *certs.Directory, link string, e *envelope.Envelope, b []byte, r *exchange.Routing) (Outcome, error) {
	if r.Label.StateSecret() {
		return Outcome{Refused, exchange.CodeStateSecret}, nil
	}
	if ahead(d, e.Header.Directory) {
		return Outcome{Damaged, reasonAhead}, nil
	}
	env, err := n.newEnvelope(ctx, d, link, e, b, r)
	if err != nil {
		return Outcome{}, err
	}
	env.Deferred = true
	wait := &records.DeferredItem{
		Kind: KindHeader, Link: link, Directory: e.Header.Directory, Envelope: e.Hash, At: env.At,
		Bytes: int64(len(b)) + e.Header.Payload.Size,
	}
	out := Outcome{Postponed, ""}
	err = n.update(ctx, func(tx queue.Tx) error {
		out = Outcome{Postponed, ""}
		err := n.putEnvelope(tx, e.Hash, env)
		if errors.Is(err, queue.ErrExists) {
			out.Status = Duplicate
			return nil
		}
		if err != nil {
			return err
		}
		return n.putDeferred(tx, e.Hash, wait)
	})
	if errors.Is(err, errWaitingFull) {
		out, err = n.full(ctx, link)
		return out, errors.Join(err, n.dropBody(ctx, env.Header))
	}
	if err != nil { // the commit may stand: the blob stays
		return Outcome{}, err
	}
	if out.Status != Postponed {
		return out, n.dropBody(ctx, env.Header)
	}
	n.waiting.put(wait.Directory)
	return out, nil
}

// knownHeader says what becomes of a header of which a copy is here, or was: a
// copy over the same link changes nothing; one over another link waits there
// as long as it is not known which of the two the sender signed, or the other
// is being removed. The status is empty when the header is new.
func (n *Node) knownHeader(ctx context.Context, link string, hh sm.Digest) (out Outcome, err error) {
	err = n.view(ctx, func(tx queue.Tx) error {
		out = Outcome{}
		env, err := records.Envelopes.Get(tx, hh)
		if err != nil {
			return err
		}
		if env != nil && (!env.Deferred || env.Link == link) {
			out.Status = Duplicate
			return nil
		}
		waits, err := records.Deferred.Get(tx, KindHeader, hh)
		if env != nil || waits != nil {
			out = Outcome{Damaged, reasonOther}
		}
		return err
	})
	return out, err
}

// deferReceipt keeps a receipt that only a newer directory can judge, with the
// time at which it came: it is judged as of that time, however long the
// directory takes. A crash before the commit lets the neighbour send it again.
func (n *Node) deferReceipt(ctx context.Context, d *certs.Directory, link string, r *signedReceipt, b []byte) (Outcome, error) {
	wait := records.DeferredItem{Kind: KindReceipt, Link: link, Directory: r.body.Directory, Envelope: r.body.Header}
	return n.deferSmall(ctx, d, wait, r.id, b)
}

func (n *Node) deferSmall(ctx context.Context, d *certs.Directory, wait records.DeferredItem, id sm.Digest, b []byte) (Outcome, error) {
	if ahead(d, wait.Directory) {
		return Outcome{Damaged, reasonAhead}, nil
	}
	body, err := n.waitingBody(ctx, wait.Kind, b)
	if err != nil {
		return Outcome{}, err
	}
	wait.At, wait.Body, wait.Bytes = n.now(), body, int64(len(b))
	err = n.update(ctx, func(tx queue.Tx) error { return n.putDeferred(tx, id, &wait) })
	if errors.Is(err, errWaitingFull) {
		out, err := n.full(ctx, wait.Link)
		return out, errors.Join(err, n.dropBody(ctx, body))
	}
	if err != nil {
		return Outcome{}, err
	}
	n.waiting.put(wait.Directory)
	return Outcome{Postponed, ""}, nil
}

// waitingBody keeps the bytes of what waits. A request may be about a header that
// is not here: a blob of its own would belong to nobody, and a row has room for it.
func (n *Node) waitingBody(ctx context.Context, kind string, b []byte) (records.Body, error) {
	if kind == KindRequest {
		return records.Body{Inline: b, Size: int64(len(b))}, nil
	}
	return records.StoreBody(ctx, n.c.Blobs, b)
}

// asOf judges what waited as of the time at which it came. What was not valid yet
// by our clock, which may have been behind, is judged again as of now.
func (n *Node) asOf(came strictjson.Time, judge func(at time.Time) error) error {
	err := judge(came.Time())
	if exchange.IsTemporary(err) {
		err = judge(n.c.Now())
	}
	return err
}

// full answers for what finds no room to wait; the operator is shown it once
// for each start and link.
func (n *Node) full(ctx context.Context, link string) (Outcome, error) {
	out := Outcome{Damaged, reasonFull}
	n.shown.mu.Lock()
	again := n.shown.full[link]
	n.shown.full[link] = true
	n.shown.mu.Unlock()
	if again {
		return out, nil
	}
	return out, n.Quarantine(ctx, link, "link", reasonFull, nil)
}

// putDeferred notes an item that waits for a newer directory, and in the
// ledger that it was here by then.
func (n *Node) putDeferred(tx queue.Tx, id sm.Digest, item *records.DeferredItem) error {
	next, err := n.ledger.Size(tx)
	if err != nil {
		return err
	}
	item.Leaf = next
	err = records.Deferred.Insert(tx, item, item.Kind, id)
	if errors.Is(err, queue.ErrExists) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := reserve(tx, item.Link, 1, item.Bytes); err != nil {
		return err
	}
	if err := item.Body.Own(tx, item.Envelope); err != nil {
		return err
	}
	// The leaf has the time as of which the item is judged when it can be.
	_, err = n.append(tx, &merkle.Leaf{Event: eventDeferred, Envelope: item.Envelope.String(), Object: id, At: item.At})
	return err
}

// reserve counts what waits of a link; negative numbers give it back.
func reserve(tx queue.Tx, link string, items, size int64) error {
	w, err := records.WaitingRows.Lock(tx, link)
	if err != nil {
		return err
	}
	first := w == nil
	if first {
		w = new(records.Waiting)
	}
	w.Items, w.Bytes = max(0, w.Items+items), max(0, w.Bytes+size)
	if size > 0 && (w.Items > MaxWaiting || w.Bytes > MaxWaitingBytes) {
		return errWaitingFull
	}
	if first {
		return records.WaitingRows.Insert(tx, w, link)
	}
	return records.WaitingRows.Put(tx, w, link)
}

// reserveConsignment counts a consignment of a header that waits.
func reserveConsignment(tx queue.Tx, hh sm.Digest, size int64) error {
	count := 0
	err := records.Fans.Each(tx, MaxWaitingConsignments, func([]byte, *records.Fan) bool { count++; return true }, hh)
	if err != nil {
		return err
	}
	item, err := records.Deferred.Lock(tx, KindHeader, hh)
	if err != nil || item == nil {
		return err
	}
	if count >= MaxWaitingConsignments {
		return errWaitingFull
	}
	item.Bytes += size
	if err := reserve(tx, item.Link, 0, size); err != nil {
		return err
	}
	return records.Deferred.Put(tx, item, KindHeader, hh)
}

// resumeDeferred takes up items whose directory has come, in the order in
// which they came: of two documents under one id the first stands. One that
// cannot be judged now is held back for a while, so that nothing waits for it.
func (n *Node) resumeDeferred(ctx context.Context) (did bool, err error) {
	version := n.Directory().Version()
	if !n.waiting.due(version) {
		return false, nil
	}
	if !n.pauses.ready(pauseResume, 0, n.c.Now()) {
		return false, nil
	}
	items, err := n.dueItems(ctx, version)
	if err != nil {
		n.pauses.failed(pauseResume, 0, n.c.Now(), err)
		return false, err
	}
	n.pauses.succeeded(pauseResume)
	for _, item := range items[:min(len(items), resumeStep)] {
		e := n.resume(ctx, item.DeferredItem)
		if e != nil {
			n.pauses.failed(string(item.key), 0, n.c.Now(), e)
		} else {
			n.pauses.succeeded(string(item.key))
			e = n.endDeferred(ctx, item.Kind, lastDigest(item.key))
		}
		err = errors.Join(err, e)
	}
	return len(items) > 0, err
}

// pauseResume holds back a look at what waits that failed.
const pauseResume = "deferred items"

// resumeStep is how many items are taken up after one look at all that waits.
const resumeStep = 256

type dueItem struct {
	key []byte
	*records.DeferredItem
}

// dueItems gives what waits for no more than a version, and notes what the
// rest waits for.
func (n *Node) dueItems(ctx context.Context, version uint64) (due []dueItem, err error) {
	seen := n.waiting.look()
	next := uint64(math.MaxUint64)
	err = n.view(ctx, func(tx queue.Tx) error {
		due, next = nil, math.MaxUint64
		return records.Deferred.Each(tx, 0, func(k []byte, v *records.DeferredItem) bool {
			next = min(next, v.Directory)
			if v.Directory <= version && n.pauses.ready(string(k), 0, n.c.Now()) {
				due = append(due, dueItem{bytes.Clone(k), v})
			}
			return true
		})
	})
	if err == nil {
		n.waiting.found(seen, next)
	}
	slices.SortFunc(due, func(a, b dueItem) int { return cmp.Compare(a.Leaf, b.Leaf) })
	return due, err
}

// waitingState remembers which directory the first of the waiting items needs,
// so that as long as it is not here nobody looks at all of them.
type waitingState struct {
	mu      sync.Mutex
	changes uint64
	next    uint64 // 0: not known
}

func (w *waitingState) due(version uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.next <= version
}

func (w *waitingState) look() (changes uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changes
}

// found notes the result of a look, unless something came to wait since.
func (w *waitingState) found(changes, next uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if changes == w.changes {
		w.next = next
	}
}

// put notes that something has come to wait for a version.
func (w *waitingState) put(version uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changes++
	w.next = min(w.next, version)
}

// endDeferred is the last commit of an item that waited: after a crash before
// it the item is taken up again and changes nothing. A blob of its own goes after
// it; a crash in between leaves it to the sweep.
func (n *Node) endDeferred(ctx context.Context, kind string, id sm.Digest) error {
	var body records.Body // of the commit's own: after an error it may still be running
	err := n.update(ctx, func(tx queue.Tx) error {
		body = records.Body{}
		item, err := records.Deferred.Lock(tx, kind, id)
		if err != nil || item == nil {
			return err
		}
		if body = item.Body; body.Ref != "" {
			if err := records.BlobOwners.Delete(tx, string(body.Ref)); err != nil {
				return err
			}
		}
		if err := reserve(tx, item.Link, -1, -item.Bytes); err != nil {
			return err
		}
		return records.Deferred.Delete(tx, kind, id)
	})
	if err != nil {
		return err
	}
	return n.dropBody(ctx, body)
}

// resume judges an item that waited for a newer directory, as of the time at
// which it came. A crash anywhere in it lets it run again and change nothing.
func (n *Node) resume(ctx context.Context, item *records.DeferredItem) error {
	switch item.Kind {
	case KindHeader:
		return n.resumeHeader(ctx, item)
	case KindRequest:
		return n.resumeRequest(ctx, item)
	}
	return n.resumeReceipt(ctx, item)
}

func (n *Node) resumeReceipt(ctx context.Context, item *records.DeferredItem) error {
	b, err := item.Body.Load(ctx, n.c.Blobs)
	if err != nil {
		return err
	}
	receipt, signed, err := parseReceiptItem(b)
	if err != nil {
		return err
	}
	env, err := n.envelopeRow(ctx, receipt.body.Header)
	if err != nil {
		return err
	}
	if env == nil { // its document waited as well, and was not the sender's
		return n.Quarantine(ctx, item.Link, "receipt "+receipt.id.String(), reasonUnknown, b)
	}
	e, err := n.loadHeader(ctx, receipt.body.Header, env)
	if err != nil {
		return err
	}
	d := n.Directory()
	err = n.asOf(item.At, func(at time.Time) error { return exchange.Judge(d, e, receipt.body, signed, at) })
	if exchange.IsTemporary(err) {
		return err
	}
	if err != nil {
		return n.Quarantine(ctx, item.Link, "receipt "+receipt.id.String(), exchange.CodeOf(err), b)
	}
	receipt.first = item
	_, err = n.takeReceipt(ctx, d, env, receipt)
	return err
}

// resumeHeader judges a header that waited. One that is not the sender's, or
// that is refused, goes with all that came for it: a good copy of it comes
// again from whoever has one, since the neighbour is told that the header is
// missing.
func (n *Node) resumeHeader(ctx context.Context, item *records.DeferredItem) error {
	hh := item.Envelope
	env, err := n.envelopeRow(ctx, hh)
	if err == nil && env == nil { // a crash came between the steps of dropping it
		return n.dropEnvelope(ctx, hh)
	}
	if err != nil || !env.Deferred {
		return err
	}
	b, err := n.headerBytes(ctx, hh, env)
	if err != nil {
		return err
	}
	e, err := envelope.ParseHeader(b)
	if err != nil || e.Hash != hh {
		return errors.Join(err, absent(true, "header"))
	}
	routing, err := exchange.ParseRouting(e.Header.Routing)
	if err != nil {
		return err
	}
	d := n.Directory()
	var reason string
	err = n.asOf(item.At, func(at time.Time) (err error) {
		reason, err = n.verifyHeader(d, e, at)
		return err
	})
	if exchange.IsTemporary(err) {
		return err
	}
	if err != nil { // stays visible in the quarantine, never delivered
		if _, err := n.faulty(ctx, item.Link, Item{Kind: KindHeader, ID: hh.String()}, err, b); err != nil {
			return err
		}
		return n.dropEnvelope(ctx, hh)
	}
	if reason == "" {
		reason = n.inadmissible(d, item.Link, e, routing)
	}
	if reason == "" {
		conflict, err := n.admitHeader(ctx, d, e)
		if err != nil || !conflict {
			return err
		}
		reason = reasonConflict
	}
	out, err := n.rejectHeader(ctx, d, item.Link, e, b, reason)
	if err == nil && out.Status != Refused {
		err = exchange.Fail(exchange.CodeTemporary, "%s", out.Reason)
	}
	if err != nil {
		return err
	}
	return n.dropEnvelope(ctx, hh)
}

// admitHeader is the commit point of a header that had waited: from here on it
// is like one that was taken at once, or, when another document of its sender
// has its id, a conflict.
func (n *Node) admitHeader(ctx context.Context, d *certs.Directory, e *envelope.Envelope) (conflict bool, err error) {
	hh := e.Hash
	err = n.update(ctx, func(tx queue.Tx) error {
		conflict = false
		env, err := records.Envelopes.Lock(tx, hh)
		if err != nil || env == nil || !env.Deferred {
			return err
		}
		if conflict, err = headerConflict(tx, e); conflict || err != nil {
			return err
		}
		env.Deferred, env.Directory = false, d.Version()
		if err := records.Envelopes.Put(tx, env, hh); err != nil {
			return err
		}
		if env.Complete {
			if err := startWaiting(tx, hh); err != nil {
				return err
			}
		}
		_, err = n.leaf(tx, eventTaken, hh, hh)
		return err
	})
	return conflict, err
}

// dropEnvelope removes all that came of a document that waited and is not to
// be: first its record, so that nothing more is taken for it, then the rest in
// steps. After a crash in between, or with blobs left behind, the item that
// waits still stands: it is resumed and goes on here; until it ends, no copy
// of the header is taken ([Node.intakeHeader]).
func (n *Node) dropEnvelope(ctx context.Context, hh sm.Digest) error {
	err := n.dropping(ctx, func(tx queue.Tx) ([]droppedRow, error) {
		env, err := records.Envelopes.Lock(tx, hh)
		if err != nil || env == nil || !env.Deferred {
			return nil, err
		}
		return []droppedRow{{records.Envelopes.Key(hh), env.Header.Ref}, {records.Digests.Key(hh), ""}, {records.Headers.Key(hh), ""}}, nil
	})
	if err != nil {
		return err
	}
	for more := true; more && err == nil; {
		err = n.dropping(ctx, func(tx queue.Tx) ([]droppedRow, error) {
			rows, err := rowsUnder(tx, hh)
			more = len(rows) > 0
			return rows, err
		})
	}
	return err
}

// dropStep is how many rows of one kind go in one transaction.
const dropStep = 100

type droppedRow struct {
	key  []byte
	blob queue.Ref // empty: none
}

// dropping deletes the rows that choose gives, and then their blobs.
func (n *Node) dropping(ctx context.Context, choose func(queue.Tx) ([]droppedRow, error)) error {
	var rows []droppedRow
	err := n.update(ctx, func(tx queue.Tx) (err error) {
		if rows, err = choose(tx); err != nil {
			return err
		}
		for _, row := range rows {
			err = errors.Join(err, tx.Delete(row.key))
			if row.blob != "" {
				err = errors.Join(err, records.BlobOwners.Delete(tx, string(row.blob)))
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, row := range rows {
		if row.blob != "" {
			err = errors.Join(err, n.c.Blobs.Delete(ctx, row.blob))
		}
	}
	return err
}

// rowsUnder gives some of the consignments, fans and parts of a document.
func rowsUnder(tx queue.Tx, hh sm.Digest) (rows []droppedRow, err error) {
	add := func(key []byte, blob queue.Ref) bool {
		rows = append(rows, droppedRow{bytes.Clone(key), blob})
		return true
	}
	err = errors.Join(
		records.Incoming.Each(tx, dropStep, func(key []byte, c *records.Consignment) bool { return add(key, c.Body.Ref) }, hh),
		records.Fans.Each(tx, dropStep, func(key []byte, _ *records.Fan) bool { return add(key, "") }, hh),
		records.Parts.Each(tx, dropStep, func(key []byte, p *records.Part) bool { return add(key, p.Ref) }, hh),
	)
	return rows, err
}
