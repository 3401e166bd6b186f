package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// fanStep is how many recipients one step handles. Each step is one commit;
// a crash repeats at most one step, and repeating changes nothing.
const fanStep = 100

// endStep is how many of them may be delivered or ended, each with a receipt, a
// leaf and, for a delivery, up to 32 KiB in the inbox: a transaction has bounds.
const endStep = 20

// workAtOnce is how many steps of work are taken up together: what one look at
// the lane gives.
const workAtOnce = laneWindow

// Work does a step of each kind: it takes up what waited for a newer directory, ends
// what is past its time, parks dead letters, gives a restored neighbour again what it
// lacks, and distributes and delivers, as Config.Together has it. did says whether
// there may be more. An error is about single entries or one kind of work, which is
// tried again later; the others go on.
func (n *Node) Work(ctx context.Context) (did bool, err error) {
	if did, err := n.noteDirectory(ctx); did || err != nil {
		return did, err
	}
	// Each may have much to do, or trouble: none waits for another.
	for _, step := range []func(context.Context) (bool, error){n.resumeDeferred, n.expire, n.park, n.giveAgain, n.lookAtGuarded, n.workOnEntries} {
		some, trouble := step(ctx)
		did, err = did || some, errors.Join(err, trouble)
		if ctx.Err() != nil {
			break
		}
	}
	return did, err
}

// workOnEntries does the next steps of what waits in the lane of the work.
func (n *Node) workOnEntries(ctx context.Context) (did bool, err error) {
	entries, err := n.nextWork(ctx)
	if len(entries) == 0 || err != nil {
		return false, err
	}
	if n.c.Together == nil {
		entries = entries[:1]
	}
	failed := make([]error, len(entries))
	n.Together(len(entries), func(i int) { failed[i] = n.workOn(ctx, entries[i]) })
	return true, errors.Join(failed...)
}

func (n *Node) workOn(ctx context.Context, entry laneItem) error {
	do := n.fan
	switch entry.Kind {
	case KindRequest:
		do = n.carryOut
	case kindGuarded:
		do = n.judgeGuarded
	}
	err := do(ctx, entry)
	if errors.Is(err, errBusy) { // no trouble: its turn comes behind the document's
		n.lanes.failed(laneWork, entry.seq, n.c.Now(), nil)
		return nil
	}
	if err != nil {
		n.lanes.failed(laneWork, entry.seq, n.c.Now(), err)
		n.ShowDamage(ctx, fmt.Sprintf("document %s (%s/%d)", entry.Envelope, laneWork, entry.seq), err)
		return err
	}
	n.lanes.succeeded(laneWork, entry.seq)
	return nil
}

// nextWork gives the entries that are ready: those held back before whose time
// has come, else what comes next.
func (n *Node) nextWork(ctx context.Context) ([]laneItem, error) {
	fronts, err := n.readFronts(ctx, laneWork)
	if err != nil {
		return nil, err
	}
	f := fronts[0]
	if len(f.held) > 0 {
		return f.held[:min(len(f.held), workAtOnce)], nil
	}
	for now := n.c.Now(); len(f.next) > 0; {
		var ready []laneItem
		for _, e := range f.next {
			if n.lanes.ready(laneWork, e.seq, now) {
				ready = append(ready, e)
			}
		}
		if len(ready) > 0 {
			return ready, nil
		}
		if n.lanes.resting(laneWork, now) {
			break
		}
		if f.next, err = n.readOn(ctx, &f); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// parcel is what a step of distribution works on.
type parcel struct {
	hh      sm.Digest
	id      sm.Digest // of the consignment
	env     *records.Envelope
	e       *envelope.Envelope
	routing *exchange.Routing
	item    *ConsignmentItem
	from    string // link it came over
	fan     *records.Fan
	work    uint64
	payload envelope.Source // its ciphertext
	inside  *inside         // what the payload holds, once one recipient's slot has opened it
	found   *found          // what a look into it came to
}

// inside is what a payload holds, the same for every recipient.
type inside struct {
	summary  *summary
	document *exchange.Document
	reason   string // why the document is to be rejected
}

func (n *Node) loadParcel(ctx context.Context, entry laneItem) (*parcel, error) {
	p := &parcel{hh: entry.Envelope, id: entry.Object, work: entry.seq, payload: source{n, entry.Envelope}}
	var con *records.Consignment
	err := n.view(ctx, func(tx queue.Tx) (err error) {
		if p.fan, err = records.Fans.Get(tx, p.hh, p.id); err != nil || p.fan == nil {
			return err
		}
		if con, err = records.Incoming.Get(tx, p.hh, p.id); err != nil {
			return err
		}
		p.env, err = records.Envelopes.Get(tx, p.hh)
		return err
	})
	if err != nil || p.fan == nil {
		return p, err
	}
	if con == nil || p.env == nil {
		return nil, exchange.Fail(exchange.CodeInternal, "work entry %d names an envelope that is not there", entry.seq)
	}
	p.from = con.Link
	if p.e, err = n.loadHeader(ctx, p.hh, p.env); err != nil {
		return nil, err
	}
	if p.routing, err = exchange.ParseRouting(p.e.Header.Routing); err != nil {
		return nil, err
	}
	b, err := con.Body.Load(ctx, n.c.Blobs)
	if err != nil {
		return nil, err
	}
	p.item, err = ParseConsignment(b)
	return p, err
}

// step is what one commit of a distribution changes.
type step struct {
	next      int
	byLink    map[string][]int
	links     []string // in the order met, so that two runs agree
	ended     []end
	delivered []delivery
	relayed   *signedReceipt
	inspected []string // agencies for which INSPECTED is signed
}

func (s *step) goes(link string, recipient int) {
	if s.byLink[link] == nil {
		s.links = append(s.links, link)
	}
	s.byLink[link] = append(s.byLink[link], recipient)
}

// end is how one recipient's delivery ends here.
type end struct {
	recipient int // its index in the header
	agency    string
	receipt   *signedReceipt
}

// fan handles the next recipients of one consignment: those served here are
// delivered, the others gathered by next hop; those that may not pass get a
// signed REJECTED, and all of them EXPIRED when it is too late.
func (n *Node) fan(ctx context.Context, entry laneItem) error {
	if entry.Kind == kindUnreadable { // never taken for one that is done
		return fmt.Errorf("%w: entry %d of lane %s", records.ErrUnreadable, entry.seq, laneWork)
	}
	p, err := n.loadParcel(ctx, entry)
	if err != nil {
		return err
	}
	if p.fan == nil { // done by another; only the entry is left
		return n.updateLane(ctx, laneWork, func(tx queue.Tx) error { return queue.Dequeue(tx, laneWork, entry.seq) })
	}
	d := n.Directory()
	for err = errChanged; errors.Is(err, errChanged); { // a recall came in between
		s, trouble := n.nextStep(ctx, d, p, p.fan.Next)
		if s.next == p.fan.Next && trouble != nil {
			return trouble
		}
		err = errors.Join(n.commitStep(ctx, d, p, s), trouble)
	}
	return err
}

// nextStep prepares the next step from a recipient on. With an error it goes up
// to the recipient that met trouble.
func (n *Node) nextStep(ctx context.Context, d *certs.Directory, p *parcel, from int) (*step, error) {
	s, trouble := n.directSome(ctx, d, p, from)
	if err := n.sayRelayed(d, p, s); err != nil {
		return &step{next: from}, err
	}
	return s, trouble
}

func (n *Node) directSome(ctx context.Context, d *certs.Directory, p *parcel, from int) (*step, error) {
	s := &step{next: min(from+fanStep, len(p.item.Slots)), byLink: map[string][]int{}}
	for i, slot := range p.item.Slots[from:s.next] {
		if p.e.Header.Recipients[slot.I].Role != envelope.RoleRecipient {
			continue
		}
		if err := n.direct(ctx, d, p, slot, s); err != nil {
			s.next = from + i
			return s, err
		}
		if len(s.ended)+len(s.delivered) == endStep {
			s.next = from + i + 1
			break
		}
	}
	return s, nil
}

// direct decides where one recipient's copy goes.
func (n *Node) direct(ctx context.Context, d *certs.Directory, p *parcel, slot SlotItem, s *step) error {
	agency := p.e.Header.Recipients[slot.I].Agency
	done, recalled, err := n.markOf(ctx, p.e, agency)
	if done || err != nil {
		return err
	}
	before, err := n.pastOf(ctx, p.hh, agency)
	if err != nil {
		return err
	}
	switch {
	case before.ended != nil: // and the sender has that receipt
		s.ended = append(s.ended, end{slot.I, agency, before.ended.again()})
		return nil
	case recalled != nil:
		return n.endHere(d, p, s, slot.I, &exchange.Receipt{Stage: exchange.StageRecalled, After: []sm.Digest{recalled.id}})
	case n.expired(p.routing):
		return n.endHere(d, p, s, slot.I, &exchange.Receipt{Stage: exchange.StageExpired})
	}
	if ended, err := n.inspectFirst(ctx, d, p, slot, before, s); ended || err != nil {
		return err
	}
	return n.onward(ctx, d, p, slot, s, before)
}

// onward delivers one recipient's copy or gathers it for its next hop.
func (n *Node) onward(ctx context.Context, d *certs.Directory, p *parcel, slot SlotItem, s *step, before past) error {
	agency := p.e.Header.Recipients[slot.I].Agency
	link, next, err := d.NextHop(n.c.ID, agency)
	switch {
	case err != nil:
		return n.endHere(d, p, s, slot.I, rejected(exchange.CodeNoRoute))
	case next != n.c.ID && link.ID == p.from:
		return n.endHere(d, p, s, slot.I, rejected("loop"))
	}
	f := factsOf(p.e, p.routing, agency)
	// What was delivered before this node was restored had passed by then.
	if refused := n.refusedIn(d, p.from, f); refused != nil && before.delivered == nil {
		return n.endHere(d, p, s, slot.I, rejected(refused.Code))
	}
	if next == n.c.ID {
		return n.deliver(ctx, d, p, slot, before, s)
	}
	if refused := n.refusedOut(link, f); refused != nil {
		return n.endHere(d, p, s, slot.I, rejected(refused.Code))
	}
	s.goes(link.ID, slot.I)
	return nil
}

// endHere signs how one recipient's delivery ends on this node.
func (n *Node) endHere(d *certs.Directory, p *parcel, s *step, recipient int, body *exchange.Receipt) error {
	agency := p.e.Header.Recipients[recipient].Agency
	body.Envelope, body.Header, body.Recipients = p.env.ID, p.hh, []string{agency}
	r, err := n.nodeReceipt(d, body)
	if err == nil {
		s.ended = append(s.ended, end{recipient, agency, r})
	}
	return err
}

func rejected(reason string) *exchange.Receipt {
	return &exchange.Receipt{Stage: exchange.StageRejected, Reason: reason}
}

// commitStep is the commit point of one step. A crash before it repeats the
// step: nothing of it was visible. The last step hands the gathered recipients
// to their lanes.
func (n *Node) commitStep(ctx context.Context, d *certs.Directory, p *parcel, s *step) error {
	attested, err := n.attest(d, p, s)
	if err != nil {
		return err
	}
	return n.updateLane(ctx, laneWork, func(tx queue.Tx) error {
		fan, err := records.Fans.Lock(tx, p.hh, p.id)
		if err != nil || fan == nil || fan.Next != p.fan.Next {
			return err // another worker did this step
		}
		if err := n.inspectedIn(tx, d, p, s, attested); err != nil {
			return err
		}
		if err := n.endIn(tx, d, p, s); err != nil {
			return err
		}
		if err := n.deliverIn(tx, d, p, s); err != nil {
			return err
		}
		if err := n.relayedIn(tx, d, p, s); err != nil {
			return err
		}
		for _, link := range s.links {
			if err := gather(tx, p, link, s.byLink[link]); err != nil {
				return err
			}
		}
		fan.Next = s.next
		if fan.Next < len(p.item.Slots) {
			return records.Fans.Put(tx, fan, p.hh, p.id)
		}
		return n.finishFan(tx, p, fan)
	})
}

func (n *Node) endIn(tx queue.Tx, d *certs.Directory, p *parcel, s *step) error {
	var carried map[int]bool
	if len(s.ended) > 0 {
		var err error
		if carried, err = carriedOn(tx, p.hh, p.id, true); err != nil {
			return err
		}
	}
	for _, e := range s.ended {
		r := e.receipt
		if carried[e.recipient] { // whoever has it answers for it
			continue
		}
		mark := &records.Dedup{Stage: r.body.Stage, Receipt: r.id}
		err := claim(tx, mark, p.e, e.agency)
		if errors.Is(err, queue.ErrExists) {
			continue
		}
		if err != nil {
			return err
		}
		if _, err := n.putReceipt(tx, p.hh, r, eventEnded); err != nil {
			return err
		}
		if err := n.homeward(tx, d, p.env.Sender, p.hh, r.id); err != nil {
			return err
		}
	}
	return nil
}

// gather adds recipients to the envelope's Outbound over one link.
func gather(tx queue.Tx, p *parcel, link string, recipients []int) error {
	out, err := records.Outgoing.Lock(tx, p.hh, link, p.id)
	if err != nil {
		return err
	}
	if out == nil {
		return records.Outgoing.Insert(tx, newOutbound(p.env, recipients), p.hh, link, p.id)
	}
	out.Recipients = append(out.Recipients, recipients...)
	return records.Outgoing.Put(tx, out, p.hh, link, p.id)
}

func newOutbound(env *records.Envelope, recipients []int) *records.Outbound {
	return &records.Outbound{Recipients: recipients, Parts: make([]byte, (env.Parts+7)/8), Count: env.Parts, State: records.StateQueued}
}

// finishFan enters the gathered Outbounds in their lanes, those of some links in a
// step, and ends the work.
func (n *Node) finishFan(tx queue.Tx, p *parcel, fan *records.Fan) error {
	links, more, err := gathered(tx, p)
	if err != nil {
		return err
	}
	if len(links) > endStep && slices.ContainsFunc(links, func(link string) bool { return n.approvalsFor(p, link) > 0 }) {
		links, more = links[:endStep], true // each has a leaf, too
	}
	for _, link := range links {
		out, err := records.Outgoing.Lock(tx, p.hh, link, p.id)
		if err != nil {
			return err
		}
		if err := n.enterLane(tx, p, link, out); err != nil {
			return err
		}
		if err := records.Outgoing.Put(tx, out, p.hh, link, p.id); err != nil {
			return err
		}
	}
	if more {
		return records.Fans.Put(tx, fan, p.hh, p.id)
	}
	if err := records.Fans.Delete(tx, p.hh, p.id); err != nil {
		return err
	}
	return queue.Dequeue(tx, laneWork, p.work)
}

// gathered are the links of Outbounds that are in no lane yet, as many as one step
// enters.
func gathered(tx queue.Tx, p *parcel) (links []string, more bool, err error) {
	prefix := len(records.Outgoing.Key(p.hh))
	err = records.Outgoing.Each(tx, 0, func(key []byte, out *records.Outbound) bool {
		if out.Seq > 0 || lastDigest(key) != p.id {
			return true
		}
		if more = len(links) == fanStep; !more {
			links = append(links, linkOf(key[prefix:]))
		}
		return !more
	}, p.hh)
	return links, more, err
}

// enterLane puts a document into the lane of a link, or to what has to be approved
// before.
func (n *Node) enterLane(tx queue.Tx, p *parcel, link string, out *records.Outbound) (err error) {
	e := laneEntry{Kind: KindHeader, Envelope: p.hh, Object: p.id, Since: n.now()}
	rank := rankOf(p.routing.Urgency)
	if n.approvalsFor(p, link) > 0 {
		out.Guarded = true
		if err := n.enterGuard(tx, link, rank, e, out); err != nil {
			return err
		}
		return noteExported(tx, link)
	}
	grows(tx, link)
	out.Lane = laneName(link, rank)
	if out.Seq, err = enqueueEntry(tx, out.Lane, e); err != nil {
		return err
	}
	return noteExported(tx, link)
}

func addOnce(list []string, s string) []string {
	for _, have := range list {
		if have == s {
			return list
		}
	}
	return append(list, s)
}

// putEnvelope writes a new envelope's record and when it ends, and claims its
// header's blob. The entry of one that was dropped meanwhile may still stand.
func (n *Node) putEnvelope(tx queue.Tx, hh sm.Digest, env *records.Envelope) error {
	row := *env
	row.Header.Inline = nil // its own row: this one is read and written often
	if err := records.Envelopes.Insert(tx, &row, hh); err != nil {
		return err
	}
	if env.Header.Ref == "" {
		if err := records.Headers.Put(tx, env.Header.Inline, hh); err != nil {
			return err
		}
	}
	if err := records.Expiries.Put(tx, &records.Expiry{At: env.Expires}, uint64(env.Expires), hh); err != nil {
		return err
	}
	return env.Header.Own(tx, hh)
}

// putConsignment writes a consignment and its fan; ready ones go to work now,
// the others when the last part has come.
func (n *Node) putConsignment(tx queue.Tx, hh, id sm.Digest, c *records.Consignment, ready bool) error {
	if err := putIncoming(tx, hh, id, c); err != nil {
		return err
	}
	fan := new(records.Fan)
	if ready {
		if err := startFan(tx, hh, id, fan); err != nil {
			return err
		}
	}
	return records.Fans.Insert(tx, fan, hh, id)
}

func putIncoming(tx queue.Tx, hh, id sm.Digest, c *records.Consignment) error {
	if err := records.Incoming.Insert(tx, c, hh, id); err != nil {
		return err
	}
	return c.Body.Own(tx, hh)
}

func startFan(tx queue.Tx, hh, id sm.Digest, fan *records.Fan) (err error) {
	fan.Work, err = enqueueEntry(tx, laneWork, laneEntry{Envelope: hh, Object: id})
	return err
}
