package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// What a restored neighbour lacks stands in our ledger behind the leaf that its
// restored store knew of: what it had taken from us, what we had taken from it.
// A replay walks those leaves twice. First everything that the neighbour had
// signed, and the headers of what was submitted there, go into the lane of the
// receipts; when they have left it, what had been handed over goes back into
// its lanes. So the neighbour knows what it had done before it does anything.

// replayStep is how many leaves one commit of a replay handles, and replayMost behind
// how many deliveries given again it ends: a leaf may stand for several.
const (
	replayStep = 50
	replayMost = 20
)

// replays are the links with a replay under way; rows decide.
type replays struct {
	mu    sync.Mutex
	links []string
}

func (n *Node) readReplays(ctx context.Context) error {
	var links []string
	err := n.view(ctx, func(tx queue.Tx) error {
		links = nil
		return records.Replays.Each(tx, 0, func(key []byte, _ *records.Replay) bool {
			links = append(links, records.Replays.Name(key))
			return true
		})
	})
	n.replays.mu.Lock()
	defer n.replays.mu.Unlock()
	n.replays.links = links
	return err
}

// openNotice gives a notice that is signed by the neighbour, speaks of this
// link, and joins the ledger it shows to the one that is known; else nil.
func (n *Node) openNotice(neighbour *certs.Node, link string, cp *merkle.Checkpoint, known *records.Head, signed []byte) *RestoreNotice {
	if len(signed) == 0 {
		return nil
	}
	s, err := cms.Parse(signed, MaxRestoreNotice)
	if err != nil || !neighbour.Holds("sign", s.Certificate) || s.Verify(s.Certificate) != nil {
		return nil
	}
	r, err := ParseRestoreNotice(s.Content)
	if err != nil || r.Domain != n.Directory().Domain() || r.Node != neighbour.ID || r.Link != link || r.Ledger != cp.Ledger {
		return nil
	}
	joins := func(o LedgerEnd) bool {
		if o.Ledger == known.Ledger {
			return o.Size != known.Size || o.Root == known.Root
		}
		return slices.Contains(known.Before, o.Ledger) // restored from the same backup twice
	}
	if known != nil && !slices.ContainsFunc(r.Old, joins) {
		return nil
	}
	return r
}

// late says whether a notice is older than the one by which the known ledger was
// adopted: a bundle from before a second restore.
func (r *RestoreNotice) late(known *records.Head) bool { return known != nil && r.Time <= known.Since }

// before names the ledgers that a restored one goes on from: what the notice
// says, and what is known here besides.
func (r *RestoreNotice) before(known *records.Head) (list []string) {
	add := func(ledger string) {
		if ledger != r.Ledger && !slices.Contains(list, ledger) && len(list) < 2*maxOldLedgers {
			list = append(list, ledger)
		}
	}
	if known != nil {
		add(known.Ledger)
	}
	for _, o := range r.Old {
		add(o.Ledger)
	}
	if known != nil {
		for _, ledger := range known.Before {
			add(ledger)
		}
	}
	return list
}

// beginReplay makes the work durable, before the new ledger is adopted: after a
// crash in between the notice comes again.
func (n *Node) beginReplay(ctx context.Context, link, node string, known *records.Head, r *RestoreNotice) error {
	err := n.c.Store.Update(ctx, func(tx queue.Tx) error {
		now, err := records.Heads.Lock(tx, node)
		if err != nil {
			return err
		}
		if !sameHead(now, known) { // another bundle was faster
			return nil
		}
		from, err := n.replayFrom(tx, r.Have)
		if err != nil {
			return err
		}
		job := &records.Replay{Node: node, Ledger: r.Ledger, From: from, Next: from, Own: true}
		if job.End, err = n.ledger.Size(tx); err != nil {
			return err
		}
		old, err := records.Replays.Lock(tx, link)
		if err != nil {
			return err
		}
		if old == nil {
			return records.Replays.Insert(tx, job, link)
		}
		job.From = min(from, old.From) // restored once more before all had come
		job.Next = job.From
		return records.Replays.Put(tx, job, link)
	})
	if err != nil {
		return err
	}
	return n.readReplays(ctx)
}

// replayFrom is the first leaf that the neighbour may lack. Under each id that
// this ledger ever had its leaves are the same up to where the id ended.
func (n *Node) replayFrom(tx queue.Tx, have *LedgerEnd) (uint64, error) {
	if have == nil {
		return 0, nil
	}
	size, err := n.ledger.Size(tx)
	if err != nil {
		return 0, err
	}
	if have.Ledger == n.ledgerID {
		return min(have.Size, size), nil
	}
	row, err := records.RestoredRow.Get(tx)
	if err != nil || row == nil {
		return 0, err
	}
	for _, o := range row.Old {
		if o.Ledger == have.Ledger {
			return min(have.Size, o.Size, size), nil
		}
	}
	return 0, nil
}

// giveAgain does the next step of each replay.
func (n *Node) giveAgain(ctx context.Context) (did bool, err error) {
	n.replays.mu.Lock()
	links := slices.Clone(n.replays.links)
	n.replays.mu.Unlock()
	for _, link := range links {
		pause := "replay/" + link
		if !n.pauses.ready(pause, 0, n.c.Now()) {
			continue
		}
		some, trouble := n.replayLink(ctx, link)
		if trouble != nil {
			n.pauses.failed(pause, 0, n.c.Now(), trouble)
		} else {
			n.pauses.succeeded(pause)
		}
		did, err = did || some, errors.Join(err, trouble)
	}
	return did, err
}

// replayLink is the commit point of a step: what it enters in the lanes and how
// far it got stand together, so a crash repeats nothing and skips nothing.
func (n *Node) replayLink(ctx context.Context, link string) (did bool, err error) {
	var some, ended bool // of the commit's own: after an error it may still be running
	var unread []string
	err = n.update(ctx, func(tx queue.Tx) error {
		some, ended, unread = false, false, nil
		job, err := records.Replays.Lock(tx, link)
		if job == nil || err != nil {
			ended = job == nil
			return err
		}
		if !job.Own && job.Next == job.From {
			if left, err := n.receiptsLeft(tx, link, job.After); !left || err != nil {
				return err
			}
		}
		some = true
		if unread, err = n.replaySome(tx, link, job); err != nil {
			return err
		}
		if job.Next < job.End {
			return records.Replays.Put(tx, job, link)
		}
		if ended = !job.Own; ended {
			return records.Replays.Delete(tx, link)
		}
		// What was settled meanwhile by an ack from before the loss is in as well.
		if job.End, err = n.ledger.Size(tx); err != nil {
			return err
		}
		job.Own, job.Next = false, job.From
		if job.After, err = queue.Last(tx, laneName(link, rankReceipt)); err != nil {
			return err
		}
		return records.Replays.Put(tx, job, link)
	})
	if err != nil {
		return false, err
	}
	for _, what := range unread { // the neighbour is not given this again
		n.ShowDamage(ctx, what, records.ErrUnreadable)
	}
	if ended {
		err = n.readReplays(ctx)
	}
	return some, err
}

// receiptsLeft says whether nothing up to an entry waits in the lane of the
// receipts any more, but what the neighbour could not take yet.
func (n *Node) receiptsLeft(tx queue.Tx, link string, upTo uint64) (bool, error) {
	lane := laneName(link, rankReceipt)
	_, held, _ := n.lanes.behind(lane)
	first, err := n.standing(tx, lane, len(held)+1)
	for _, e := range first {
		if e.seq <= upTo && !slices.Contains(held, e.seq) {
			return false, err
		}
	}
	return true, err
}

// replaySome gives again what some leaves speak of, and names what cannot be read,
// which stops nothing else.
func (n *Node) replaySome(tx queue.Tx, link string, job *records.Replay) (unread []string, err error) {
	given := 0
	for to := min(job.Next+replayStep, job.End); job.Next < to && given < replayMost; job.Next++ {
		more, err := n.replayLeaf(tx, link, job)
		given += more
		if errors.Is(err, records.ErrUnreadable) {
			unread, err = append(unread, fmt.Sprintf("leaf %d (replay over %s)", job.Next, link)), nil
		}
		if err != nil {
			return nil, err
		}
	}
	return unread, nil
}

// replayLeaf gives again what one leaf speaks of, and says how much that was.
func (n *Node) replayLeaf(tx queue.Tx, link string, job *records.Replay) (given int, err error) {
	b, err := n.ledger.Leaf(tx, job.Next)
	if err != nil {
		return 0, err
	}
	leaf, err := merkle.ParseLeaf(b)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", records.ErrUnreadable, err)
	}
	hh, err := sm.ParseDigest(leaf.Envelope)
	if err != nil { // not about an envelope
		return 0, nil
	}
	switch {
	case job.Own && leaf.Event == eventTaken:
		return 1, n.replayOwnHeader(tx, link, job, hh)
	case job.Own && leaf.Event == eventReceipt:
		return 1, n.replayReceipt(tx, link, job, hh, leaf.Object, func(r *exchange.Receipt, _ *records.Envelope) bool { return n.madeAt(job.Node, r) })
	case job.Own || leaf.Event != eventHanded:
		return 0, nil
	case leaf.Object == hh:
		return n.replayHanded(tx, link, job, hh)
	}
	return 1, n.replayReceipt(tx, link, job, hh, leaf.Object, func(_ *exchange.Receipt, env *records.Envelope) bool { return n.homeOver(link, env) })
}

// replayOwnHeader gives the header of what was submitted at the neighbour back.
func (n *Node) replayOwnHeader(tx queue.Tx, link string, job *records.Replay, hh sm.Digest) error {
	env, err := records.Envelopes.Get(tx, hh)
	if env == nil || err != nil || env.Link != link {
		return err
	}
	sender, known := n.Directory().Agency(env.Sender)
	if !known || sender.Node != job.Node {
		return nil
	}
	return n.giveOnce(tx, link, rankOwn, laneEntry{Kind: KindOwnHeader, Envelope: hh, Object: hh}, job)
}

// giveOnce gives again what an earlier replay has not left waiting, and not for each of
// the leaves that one receipt has when it was handed over, lost and given again: the
// last of them counts, which every walk meets that has to give it. So neither a
// neighbour that is restored many times nor one that says so, and takes nothing, fills
// the lanes.
func (n *Node) giveOnce(tx queue.Tx, link string, rank int, e laneEntry, job *records.Replay) error {
	before, err := records.GivenAgain.Lock(tx, link, e.Envelope, e.Object)
	if err != nil {
		return err
	}
	if before != nil {
		there, err := queue.Stands(tx, laneName(link, rank), before.Seq)
		if there || err != nil || !job.Own && before.Leaf > job.Next {
			return err
		}
	}
	if n.Way(link) == WayIn {
		return n.noWayBack(tx, link)
	}
	e.Again, e.Since = true, n.now()
	grows(tx, link)
	seq, err := enqueueEntry(tx, laneName(link, rank), e)
	if err != nil {
		return err
	}
	if err := noteExported(tx, link); err != nil {
		return err
	}
	return noteGiven(tx, link, e.Envelope, e.Object, before, seq)
}

// noteGiven notes where something stands that is given again; before is what was noted
// of it, nil for nothing.
func noteGiven(tx queue.Tx, link string, hh, id sm.Digest, before *records.GivenOnceMore, seq uint64) error {
	if before == nil {
		return records.GivenAgain.Insert(tx, &records.GivenOnceMore{Seq: seq}, link, hh, id)
	}
	before.Seq = seq
	return records.GivenAgain.Put(tx, before, link, hh, id)
}

// handedAgain notes the leaf of what was given again and came.
func handedAgain(tx queue.Tx, link string, e laneEntry, leaf uint64) error {
	row, err := records.GivenAgain.Lock(tx, link, e.Envelope, e.Object)
	if err != nil || row == nil {
		return err
	}
	row.Leaf = leaf
	return records.GivenAgain.Put(tx, row, link, e.Envelope, e.Object)
}

// replayReceipt gives a receipt again that is of a kind: those made at the
// neighbour in the first walk, those that went home over it in the second.
func (n *Node) replayReceipt(tx queue.Tx, link string, job *records.Replay, hh, id sm.Digest, is func(r *exchange.Receipt, env *records.Envelope) bool) error {
	row, err := records.Receipts.Get(tx, hh, id)
	if err != nil {
		return err
	}
	if row == nil {
		return n.replayRequest(tx, link, job, hh, id)
	}
	env, err := records.Envelopes.Get(tx, hh)
	if env == nil || err != nil {
		return err
	}
	stored, err := openStored(row)
	if err != nil || !is(stored.body, env) {
		return err
	}
	return n.giveOnce(tx, link, rankReceipt, laneEntry{Kind: KindReceipt, Envelope: hh, Object: id}, job)
}

// replayRequest gives a request again that had been handed over.
func (n *Node) replayRequest(tx queue.Tx, link string, job *records.Replay, hh, id sm.Digest) error {
	row, err := records.Requests.Get(tx, hh, id)
	if row == nil || err != nil || row.Link == link {
		return err
	}
	return n.giveOnce(tx, link, rankReceipt, laneEntry{Kind: KindRequest, Envelope: hh, Object: id}, job)
}

// homeOver says whether the way home to a sender begins with a link.
func (n *Node) homeOver(link string, env *records.Envelope) bool {
	home, err := n.wayHome(n.Directory(), env.Sender, env)
	return err == nil && home == link
}

// madeAt says whether a node, or an agency that it serves, signed a receipt.
func (n *Node) madeAt(node string, r *exchange.Receipt) bool {
	if !r.Stage.ByAgency() {
		return r.Node == node
	}
	a, ok := n.Directory().Agency(r.Agency)
	return ok && a.Node == node
}

// replayHanded puts what was handed over back into its lane, from the header on.
func (n *Node) replayHanded(tx queue.Tx, link string, job *records.Replay, hh sm.Digest) (given int, err error) {
	var ids []sm.Digest
	prefix := len(records.Outgoing.Key(hh, link))
	err = records.Outgoing.Each(tx, 0, func(key []byte, out *records.Outbound) bool {
		if out.State == records.StateHanded {
			ids = append(ids, sm.Digest(key[prefix:]))
		}
		return true
	}, hh, link)
	for _, id := range ids {
		err = errors.Join(err, n.replayOutbound(tx, link, job, hh, id))
	}
	return len(ids), err
}

func (n *Node) replayOutbound(tx queue.Tx, link string, job *records.Replay, hh, id sm.Digest) error {
	out, err := records.Outgoing.Lock(tx, hh, link, id)
	if err != nil || out == nil || out.State != records.StateHanded {
		return err
	}
	before, err := records.GivenAgain.Lock(tx, link, hh, id)
	if err != nil || before != nil && before.Leaf > job.Next {
		return err
	}
	_, rank, ok := laneOf(out.Lane)
	if !ok { // it was a dead letter when the neighbour's ack came
		rank = 0
	}
	grows(tx, link)
	out.Header, out.Slots = false, false
	clear(out.Parts)
	out.Lane, out.State = laneName(link, rank), records.StateQueued
	out.Left, out.Declined = true, false // the neighbour had it, and may have it from elsewhere
	entry := laneEntry{Kind: KindHeader, Envelope: hh, Object: id, Since: n.now(), Again: true}
	if out.Seq, err = enqueueEntry(tx, out.Lane, entry); err != nil {
		return err
	}
	if err := noteGiven(tx, link, hh, id, before, out.Seq); err != nil {
		return err
	}
	if err := noteExported(tx, link); err != nil {
		return err
	}
	if _, err := n.leaf(tx, eventReplayed, hh, hh); err != nil {
		return err
	}
	return records.Outgoing.Put(tx, out, hh, link, id)
}
