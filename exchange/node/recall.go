package node

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// A recall follows its document. On every node, in this order:
//
//   - what surely never left the node, and is for nobody whom the request leaves
//     out, ends here with RECALLED, as it would expire (expire.go);
//   - for a recipient served here that has the document: RECALLED as long as it
//     was neither signed for nor returned, else RECALL_REFUSED;
//   - for one served here that does not have it: the dedup mark of the delivery
//     is set, without a receipt, and names the request. That is its tombstone: the
//     document, when it comes, finds the mark and ends with RECALLED;
//   - towards all others the request goes on.
//
// Each is a commit of its own and finds out by itself that it was done. The last
// one hands the request to its lanes and ends the work.

const reasonRecalled = "recalled" // on its way to its end

// carryOut does what a request asks for.
func (n *Node) carryOut(ctx context.Context, entry laneItem) error {
	var row *records.Request
	err := n.view(ctx, func(tx queue.Tx) (err error) {
		row, err = records.Requests.Get(tx, entry.Envelope, entry.Object)
		return err
	})
	if err != nil || row == nil {
		return errors.Join(err, absent(row == nil && err == nil, "request"))
	}
	r, err := openRequest(row)
	if err != nil {
		return err
	}
	if r.body.Wish == exchange.WishRecall {
		if err := n.recallWaiting(ctx, r); err != nil {
			return err
		}
	}
	d := n.Directory()
	var links []string
	for _, agency := range r.body.Recipients {
		link, next, err := d.NextHop(n.c.ID, agency)
		switch {
		case err != nil: // neither did the document get there: its end says so
		case next == n.c.ID:
			if err := n.answer(ctx, d, r, agency); err != nil {
				return err
			}
		case link.ID != row.Link:
			ended, err := n.isDelivered(ctx, r.body.Header, agency)
			switch {
			case err != nil:
				return err
			case !ended:
				links = addOnce(links, link.ID)
			case r.body.Wish == exchange.WishRecall: // it ended here
				if err := n.answer(ctx, d, r, agency); err != nil {
					return err
				}
			}
		}
	}
	return n.updateLane(ctx, laneWork, func(tx queue.Tx) error {
		if there, err := queue.Stands(tx, laneWork, entry.seq); !there || err != nil {
			return err // another worker was faster
		}
		for _, link := range links {
			if err := n.send(tx, link, rankReceipt, laneEntry{Kind: KindRequest, Envelope: entry.Envelope, Object: entry.Object}); err != nil {
				return err
			}
		}
		return queue.Dequeue(tx, laneWork, entry.seq)
	})
}

// recallWaiting ends what waits on this node and surely never left it.
func (n *Node) recallWaiting(ctx context.Context, r *storedRequest) error {
	env, err := n.envelopeRow(ctx, r.body.Header)
	if env == nil || err != nil {
		return err
	}
	e, err := n.loadHeader(ctx, r.body.Header, env)
	if err != nil {
		return err
	}
	if !r.body.About(e) { // the header came after the request
		return nil
	}
	picks, busy, err := n.unfinished(ctx, r.body.Header, reasonRecalled, func(out *records.Outbound) bool { return r.covers(e, out) })
	if busy && err == nil {
		err = errBusy
	}
	if err != nil {
		return err
	}
	return n.endAll(ctx, picks, ending{stage: exchange.StageRecalled, state: records.StateRecalled, after: []sm.Digest{r.id}})
}

// errBusy: the document is being distributed at the moment.
var errBusy = errors.New("node: busy with the document")

// covers says whether a request is about all that an Outbound is for.
func (r *storedRequest) covers(e *envelope.Envelope, out *records.Outbound) bool {
	return !slices.ContainsFunc(out.Recipients, func(i int) bool { return !slices.Contains(r.body.Recipients, e.Header.Recipients[i].Agency) })
}

// verdict is what is to be done for one recipient.
type verdict struct {
	stage  exchange.Stage // RECALLED, RECALL_REFUSED or none
	reason string
	mark   bool // set the tombstone
	row    *records.InboxRow
}

// judgeRecall decides: first in a View, to sign, then with locks in the
// transaction that acts on it. What is somebody else's document is not touched: the
// header may have come after the request was taken in.
func (n *Node) judgeRecall(tx queue.Tx, r *storedRequest, agency string, locks bool) (v verdict, err error) {
	hh := r.body.Header
	env, err := read(tx, records.Envelopes, locks, hh)
	if err != nil || env != nil && !r.of(env.Sender, env.ID) {
		return v, err
	}
	mark, err := read(tx, records.Delivered, locks, hh, agency)
	switch {
	case err != nil:
		return v, err
	case mark == nil:
		return n.judgeByPast(tx, r, agency, locks)
	case mark.Pending() || mark.Stage == exchange.StageRecalled:
		return v, nil
	case mark.Stage != exchange.StageDelivered:
		return n.refusal(tx, r, agency, mark.Stage, locks)
	}
	row, err := read(tx, records.Inbox, locks, agency, hh)
	switch {
	case err != nil || row == nil:
		return v, errors.Join(err, absent(row == nil && err == nil, "inbox row"))
	case row.Stage == exchange.StageRecalled:
		return v, nil
	case row.Stage.End():
		return n.refusal(tx, r, agency, row.Stage, locks)
	}
	return verdict{stage: exchange.StageRecalled, row: row}, nil
}

func read[T any](tx queue.Tx, t records.Table[T], locks bool, key ...any) (*T, error) {
	if locks {
		return t.Lock(tx, key...)
	}
	return t.Get(tx, key...)
}

// of says whether a request is by the sender of a document, about it.
func (r *storedRequest) of(sender, id string) bool {
	return r.body.Agency == sender && r.body.Envelope == id
}

// judgeByPast decides where nothing is known of the delivery: a tombstone; but in
// a store that was put back the agency may have acted, as its receipt says that
// came back before its document did.
func (n *Node) judgeByPast(tx queue.Tx, r *storedRequest, agency string, locks bool) (v verdict, err error) {
	if n.restored.row == nil {
		return verdict{mark: true}, nil
	}
	list, err := n.receiptsOf(tx, r.body.Header)
	if err != nil {
		return v, err
	}
	if acted := n.pastIn(list, agency).acted; acted != nil {
		return n.refusal(tx, r, agency, acted.body.Stage, locks)
	}
	return verdict{mark: true}, nil
}

// refusal is the answer for a delivery that ended at a stage, once. One that was
// given before the store was put back is among the receipts.
func (n *Node) refusal(tx queue.Tx, r *storedRequest, agency string, at exchange.Stage, locks bool) (v verdict, err error) {
	given, err := read(tx, records.Answers, locks, r.id, agency)
	if given != nil || err != nil {
		return v, err
	}
	if n.restored.row != nil {
		list, err := n.receiptsOf(tx, r.body.Header)
		if err != nil || slices.ContainsFunc(list, func(s *storedReceipt) bool {
			return s.body.Stage == exchange.StageRecallRefused && s.body.Concerns(agency) && slices.Contains(s.body.After, r.id)
		}) {
			return v, err
		}
	}
	return verdict{stage: exchange.StageRecallRefused, reason: strings.ToLower(string(at))}, nil
}

// answer does what a request asks for one recipient that is served here.
func (n *Node) answer(ctx context.Context, d *certs.Directory, r *storedRequest, agency string) error {
	if r.body.Wish == exchange.WishRemind {
		return n.remind(ctx, r, agency)
	}
	for {
		var v verdict
		err := n.view(ctx, func(tx queue.Tx) (err error) {
			v, err = n.judgeRecall(tx, r, agency, false)
			return err
		})
		if err != nil || v.stage == "" && !v.mark {
			return err
		}
		var receipt *signedReceipt
		if v.stage != "" {
			if receipt, err = n.nodeReceipt(d, &exchange.Receipt{
				Stage: v.stage, Envelope: r.body.Envelope, Header: r.body.Header, Recipients: []string{agency},
				Reason: v.reason, After: []sm.Digest{r.id},
			}); err != nil {
				return err
			}
		}
		if err = n.commitAnswer(ctx, d, r, agency, v, receipt); !errors.Is(err, errChanged) {
			return err
		}
	}
}

// commitAnswer is the commit point of what one recipient's node says to a recall.
func (n *Node) commitAnswer(ctx context.Context, d *certs.Directory, r *storedRequest, agency string, seen verdict, receipt *signedReceipt) error {
	hh := r.body.Header
	return n.update(ctx, func(tx queue.Tx) error {
		v, err := n.judgeRecall(tx, r, agency, true)
		if err != nil {
			return err
		}
		if v.stage != seen.stage || v.reason != seen.reason || v.mark != seen.mark {
			return errChanged
		}
		switch {
		case v.mark:
			err := records.Delivered.Insert(tx, &records.Dedup{Stage: exchange.StageRecalled, Request: r.id}, hh, agency)
			if errors.Is(err, queue.ErrExists) {
				return errChanged
			}
			return err
		case v.stage == exchange.StageRecalled:
			v.row.Stage, v.row.Acted = v.stage, receipt.id
			err = errors.Join(records.Inbox.Put(tx, v.row, agency, hh), waits(tx, agency, hh, v.row))
		default:
			err = records.Answers.Insert(tx, &receipt.id, r.id, agency)
		}
		if err != nil {
			return err
		}
		event := eventEnded
		if v.stage == exchange.StageRecallRefused {
			event = eventRefused
		}
		if _, err := n.putReceipt(tx, hh, receipt, event); err != nil {
			return err
		}
		return n.homeward(tx, d, r.body.Agency, hh, receipt.id)
	})
}

// remind shows an agency, once, that it is to deal with a document it has.
func (n *Node) remind(ctx context.Context, r *storedRequest, agency string) error {
	return n.update(ctx, func(tx queue.Tx) error {
		row, err := records.Inbox.Lock(tx, agency, r.body.Header)
		if row == nil || err != nil || row.Stage.End() || !r.of(row.Sender, row.ID) {
			return err
		}
		if err := records.Answers.Insert(tx, &r.id, r.id, agency); errors.Is(err, queue.ErrExists) {
			return nil
		} else if err != nil {
			return err
		}
		row.Reminder, row.Reminded = r.id, n.now()
		row.Reminders++
		return records.Inbox.Put(tx, row, agency, r.body.Header)
	})
}

// recallOf gives the request behind a mark that was set before the document
// came; nil when none is by the document's sender, so that nobody recalls what is
// somebody else's. The mark names the first that came, which may be anybody's.
func recallOf(tx queue.Tx, mark *records.Dedup, e *envelope.Envelope, agency string) (*storedRequest, error) {
	row, err := records.Requests.Get(tx, e.Hash, mark.Request)
	if err != nil || row == nil {
		return nil, errors.Join(err, absent(row == nil && err == nil, "request"))
	}
	if r, err := openRequest(row); err != nil || r.recalls(e, agency) {
		return r, err
	}
	all, err := requestsIn(tx, e.Hash)
	if i := slices.IndexFunc(all, func(r *storedRequest) bool { return r.recalls(e, agency) }); i >= 0 {
		return all[i], err
	}
	return nil, err
}

func (r *storedRequest) recalls(e *envelope.Envelope, agency string) bool {
	return r.body.Wish == exchange.WishRecall && r.body.About(e) && slices.Contains(r.body.Recipients, agency)
}

// markOf says whether a delivery took effect here, or was recalled before it
// came.
func (n *Node) markOf(ctx context.Context, e *envelope.Envelope, agency string) (done bool, recalled *storedRequest, err error) {
	err = n.view(ctx, func(tx queue.Tx) error {
		done, recalled = false, nil
		mark, err := records.Delivered.Get(tx, e.Hash, agency)
		if mark == nil || err != nil {
			return err
		}
		if done = !mark.Pending(); done {
			return nil
		}
		recalled, err = recallOf(tx, mark, e, agency)
		return err
	})
	return done, recalled, err
}

// claim sets the dedup mark of a delivery; queue.ErrExists when it took effect
// before. A tombstone gives way to the end it asks for, to any other end, and to
// a delivery that it has no say in.
func claim(tx queue.Tx, mark *records.Dedup, e *envelope.Envelope, agency string) error {
	err := records.Delivered.Insert(tx, mark, e.Hash, agency)
	if !errors.Is(err, queue.ErrExists) {
		return err
	}
	have, err := records.Delivered.Lock(tx, e.Hash, agency)
	if err != nil {
		return err
	}
	if have == nil || !have.Pending() {
		return queue.ErrExists
	}
	if mark.Stage == exchange.StageDelivered {
		if r, err := recallOf(tx, have, e, agency); r != nil || err != nil {
			return errors.Join(err, errChanged)
		}
	}
	return records.Delivered.Put(tx, mark, e.Hash, agency)
}
