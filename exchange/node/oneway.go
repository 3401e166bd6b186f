package node

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

// Over a link of one way nobody ever answers. What left may be at the neighbour, and
// stays unknown until a person over there reads a code to the operator here, which
// only whoever opened all bundles up to a number can know:
//
//   - what is in a bundle stays in its lane, so that nothing else sends or ends it;
//   - when the last of a document has left, this node signs FERRIED, and no more;
//   - a right code lets the operator sign CONFIRMED, and settles the bundles;
//   - what nobody confirmed within Unconfirmed leaves its lane all the same, without
//     a word: it stands at FERRIED.
//
// Bundles leave in the order of their numbers, so one number says how far all of
// this is ([records.FerryOut]).

// Unconfirmed is how long after a bundle left its bytes are kept for a code.
const Unconfirmed = 30 * 24 * time.Hour

// ReasonNoWayBack is the reason of a FERRIED over a link of one way.
const ReasonNoWayBack = exchange.ReasonNoWayBack

// Way is in which directions something passes over a link, as seen from a node.
type Way int

// The ways. A link that the directory does not name has both: nothing is lost by it.
const (
	WayBoth Way = iota
	WayOut
	WayIn
)

// String names it; empty for both.
func (w Way) String() string { return [...]string{"", "out", "in"}[w] }

// Way says it of a link of this node.
func (n *Node) Way(link string) Way {
	l, ok := n.Directory().Link(link)
	switch {
	case !ok || l.OneWay == "":
		return WayBoth
	case l.Carries(n.c.ID):
		return WayOut
	}
	return WayIn
}

// noWayBack counts what has no way: it stays where its document is.
func (n *Node) noWayBack(tx queue.Tx, link string) error {
	row, err := records.NoWaysBack.Lock(tx, link)
	if err != nil {
		return err
	}
	if row == nil {
		return records.NoWaysBack.Insert(tx, &records.NoWayBack{Kept: 1, At: n.now()}, link)
	}
	row.Kept, row.At = row.Kept+1, n.now()
	return records.NoWaysBack.Put(tx, row, link)
}

// NoWayBack says how much was kept since it had no way over a link.
func (n *Node) NoWayBack(ctx context.Context, link string) (kept uint64, err error) {
	err = n.view(ctx, func(tx queue.Tx) error {
		row, err := records.NoWaysBack.Get(tx, link)
		if kept = 0; row != nil {
			kept = row.Kept
		}
		return err
	})
	return kept, err
}

// servedBy says whether a node serves an agency.
func (n *Node) servedBy(d *certs.Directory, agency, node string) bool {
	a, ok := d.Agency(agency)
	return ok && a.Node == node
}

// addDirectoryUnasked puts the directory in front when no bundle has this version
// yet. The neighbour cannot say what it has, so every entry goes along.
func (n *Node) addDirectoryUnasked(ctx context.Context, link string, b *batch, sent uint64) error {
	ours := n.Directory().Version()
	o := Out{lane: directoryLane(link), seq: ours}
	if n.c.Directories == nil || sent >= ours || !n.pauses.ready(o.lane, o.seq, n.c.Now()) {
		return nil
	}
	delta, err := n.c.Directories.Delta(0)
	if err != nil {
		return err
	}
	if delta == nil || len(delta) > MaxDelta {
		n.pauses.hold(o.lane, o.seq, n.c.Now(), refusedPause)
		return n.showApart(ctx, link, apart{sent, ours}, len(delta))
	}
	b.first = append(b.first, smallItem(o, KindDirectory, strconv.FormatUint(ours, 10), delta))
	b.room -= int64(len(delta))
	b.items--
	return nil
}

func directoryIn(entries []records.FerryEntry) (version uint64) {
	for _, e := range entries {
		if e.Rank < 0 {
			version = max(version, e.Seq)
		}
	}
	return version
}

// Linkage is what a bundle adds to the chain of secrets: what stood before it, its
// secret, and what stands behind it.
type Linkage struct{ Prev, Secret, Next []byte }

func chainRow(link string, seq uint64) []byte { return queue.Key("ferry chain", link, seq) }

// sealLinkage seals it under the storage key: whoever reads the disk makes no code.
func (n *Node) sealLinkage(link string, seq uint64, l *Linkage) (row, chain []byte, err error) {
	if row, err = n.c.Keys.SealRow(chainRow(link, seq), slices.Concat(l.Prev, l.Secret)); err == nil {
		chain, err = n.c.Keys.SealRow(chainRow(link, 0), l.Next)
	}
	return row, chain, err
}

// Chained gives the chain as it stands behind the last bundle of a row; nil at the
// beginning.
func (n *Node) Chained(link string, sealed []byte) ([]byte, error) {
	if len(sealed) == 0 {
		return nil, nil
	}
	return n.c.Keys.OpenRow(chainRow(link, 0), sealed)
}

// Linkage opens that of a bundle; it says nothing of what stands behind it.
func (n *Node) Linkage(link string, b NumberedBundle) (*Linkage, error) {
	plain, err := n.c.Keys.OpenRow(chainRow(link, b.Seq), b.Row.Chain)
	if err != nil {
		return nil, err
	}
	if len(plain) != 2*sm.Size {
		return nil, records.ErrUnreadable
	}
	return &Linkage{Prev: plain[:sm.Size], Secret: plain[sm.Size:]}, nil
}

// ferriedEntry is one consignment whose last part is in a bundle.
type ferriedEntry struct {
	lane  string
	entry laneItem
	out   *records.Outbound
	env   *records.Envelope
	names []string // its recipients
}

// completed are the consignments whose last part a bundle carries. One of which
// something stored cannot be read is shown and left out: nothing is said of it, and it
// stops neither the link nor the codes for what is beside it.
func (n *Node) completed(ctx context.Context, link string, b NumberedBundle) (list []ferriedEntry, err error) {
	for _, e := range b.Row.Entries {
		if e.Rank < 0 || e.To == 0 {
			continue
		}
		one, err := n.completes(ctx, link, e)
		if IsAboutOneItem(err) && ctx.Err() == nil {
			n.ShowDamage(ctx, placeName(laneName(link, e.Rank), e.Seq), err)
			continue
		}
		if err != nil {
			return nil, err
		}
		if one != nil {
			list = append(list, *one)
		}
	}
	return list, nil
}

// completes is the consignment whose last part is in an entry of a bundle; nil when it
// is in a later one, or was confirmed before a crash, or given up for unconfirmed.
func (n *Node) completes(ctx context.Context, link string, e records.FerryEntry) (*ferriedEntry, error) {
	one := ferriedEntry{lane: laneName(link, e.Rank)}
	item, err := n.entryAt(ctx, one.lane, e.Seq)
	if item == nil || err != nil {
		return nil, err
	}
	if item.Kind == kindUnreadable {
		return nil, records.ErrUnreadable
	}
	one.entry = *item
	err = n.view(ctx, func(tx queue.Tx) (err error) {
		if one.out, err = records.Outgoing.Get(tx, item.Envelope, link, item.Object); err == nil {
			one.env, err = records.Envelopes.Get(tx, item.Envelope)
		}
		return err
	})
	if err != nil || one.out == nil || one.env == nil || e.To < one.env.Parts {
		return nil, err
	}
	header, err := n.loadHeader(ctx, item.Envelope, one.env)
	if err != nil {
		return nil, err
	}
	for _, i := range one.out.Recipients {
		one.names = append(one.names, header.Header.Recipients[i].Agency)
	}
	return &one, nil
}

// chunks are the recipients for one receipt each.
func (e *ferriedEntry) chunks() [][]string {
	return slices.Collect(slices.Chunk(e.names, exchange.MaxReceiptRecipients))
}

// Ferried signs FERRIED for what a bundle brings to its end, and then notes that all
// up to it is said. The bundle has left; a crash in between lets it be said by the
// next process, and nothing twice, for each consignment says it of itself.
func (n *Node) Ferried(ctx context.Context, link string, b NumberedBundle) error {
	list, err := n.completed(ctx, link, b)
	if err != nil {
		return err
	}
	failed := make([]error, len(list))
	n.Together(len(list), func(i int) { failed[i] = n.ferriedOne(ctx, link, &list[i]) })
	if err := errors.Join(failed...); err != nil {
		return err
	}
	return n.update(ctx, func(tx queue.Tx) error {
		st, err := records.FerryOuts.Lock(tx, link)
		if st == nil || err != nil || st.Said >= b.Seq {
			return err
		}
		st.Said = b.Seq
		return records.FerryOuts.Put(tx, st, link)
	})
}

func (n *Node) ferriedOne(ctx context.Context, link string, e *ferriedEntry) error {
	if len(e.out.Ferried) > 0 {
		return nil
	}
	d := n.Directory()
	var signed []*signedReceipt
	for _, names := range e.chunks() {
		r, err := n.nodeReceipt(d, &exchange.Receipt{
			Stage: exchange.StageFerried, Envelope: e.env.ID, Header: e.entry.Envelope, Recipients: names, Reason: ReasonNoWayBack,
		})
		if err != nil {
			return err
		}
		signed = append(signed, r)
	}
	return n.update(ctx, func(tx queue.Tx) error {
		out, err := records.Outgoing.Lock(tx, e.entry.Envelope, link, e.entry.Object)
		if out == nil || err != nil || len(out.Ferried) > 0 {
			return err
		}
		for _, r := range signed {
			if err := n.sayHome(tx, d, e.env.Sender, r, eventFerried); err != nil {
				return err
			}
			out.Ferried = append(out.Ferried, r.id)
		}
		return records.Outgoing.Put(tx, out, e.entry.Envelope, link, e.entry.Object)
	})
}

// Statement is a CONFIRMED receipt that waits for the operator's signature.
type Statement struct {
	Content []byte

	entry ferriedEntry
	chunk int
	body  *exchange.Receipt
}

// statementBytes bounds what an operator is asked to sign at once.
const statementBytes = 256 << 10

// Statements are those of one bundle that are not signed yet, at most so many and so
// long, for an administrator of the directory.
func (n *Node) Statements(ctx context.Context, link string, b NumberedBundle, operator string, most int) (list []Statement, err error) {
	all, err := n.completed(ctx, link, b)
	if err != nil {
		return nil, err
	}
	d, size := n.Directory(), 0
	for _, e := range all {
		for i, names := range e.chunks() {
			if i >= len(e.out.Ferried) || i < len(e.out.Confirmed) && !e.out.Confirmed[i].IsZero() {
				continue
			}
			r := &exchange.Receipt{
				Domain: d.Domain(), Stage: exchange.StageConfirmed, Envelope: e.env.ID, Header: e.entry.Envelope, Recipients: names,
				Node: n.c.ID, Actor: &exchange.Actor{Role: "operator", Name: operator}, Time: n.now(), Clock: n.c.Clock,
				Directory: d.Version(), Reason: ReasonNoWayBack, After: []sm.Digest{e.out.Ferried[i]},
			}
			content, err := r.Marshal()
			if err != nil {
				return nil, err
			}
			if size += len(content); len(list) == most || len(list) > 0 && size > statementBytes {
				return list, nil
			}
			list = append(list, Statement{content, e, i, r})
		}
	}
	return list, nil
}

// Confirm stores a statement that the operator signed. It is judged as every receipt
// is, now: the certificate must be the operator's in the directory.
func (n *Node) Confirm(ctx context.Context, link string, s *Statement, signed []byte) error {
	parsed, err := cms.Parse(signed, exchange.MaxReceiptCMS)
	if err != nil || !slices.Equal(parsed.Content, s.Content) {
		return exchange.Fail(exchange.CodeSignatureInvalid, "the signature is over something else than was asked for")
	}
	header, err := n.loadHeader(ctx, s.entry.entry.Envelope, s.entry.env)
	if err != nil {
		return err
	}
	d := n.Directory()
	if err := exchange.Judge(d, header, s.body, parsed, n.c.Now()); err != nil {
		return err
	}
	receipt := &signedReceipt{id: parsed.ID(), cms: signed, body: s.body}
	e := s.entry.entry
	return n.update(ctx, func(tx queue.Tx) error {
		out, err := records.Outgoing.Lock(tx, e.Envelope, link, e.Object)
		if out == nil || err != nil || s.chunk >= len(out.Ferried) {
			return err
		}
		if len(out.Confirmed) < len(out.Ferried) {
			out.Confirmed = append(out.Confirmed, make([]sm.Digest, len(out.Ferried)-len(out.Confirmed))...)
		}
		if !out.Confirmed[s.chunk].IsZero() { // another operator was faster
			return nil
		}
		out.Confirmed[s.chunk] = receipt.id
		if err := n.sayHome(tx, d, s.entry.env.Sender, receipt, eventConfirmed); err != nil {
			return err
		}
		return records.Outgoing.Put(tx, out, e.Envelope, link, e.Object)
	})
}

// Settled ends a bundle that was confirmed: the neighbour answers for what is in it. A
// code speaks of all bundles up to its number: of what began in one that has lapsed
// meanwhile the neighbour has the beginning as well.
func (n *Node) Settled(ctx context.Context, link string, b NumberedBundle) error {
	b.Row.Entries = slices.Clone(b.Row.Entries)
	for i := range b.Row.Entries {
		if e := &b.Row.Entries[i]; e.To > 0 {
			e.Header, e.Slots, e.From, e.Items = true, true, 0, e.To+2
		}
	}
	return n.settleLoad(ctx, link, b, nil, func(st *records.FerryOut) { st.Confirmed++ })
}

// MayLapse says whether nobody will confirm a bundle any more: its time is over, and
// nothing of what it carries has yet to leave.
func (n *Node) MayLapse(st *records.FerryOut, b NumberedBundle) bool {
	if b.Seq > st.Said || b.Row.LeftAt == 0 || n.c.Now().Sub(b.Row.LeftAt.Time()) < Unconfirmed {
		return false
	}
	return !slices.ContainsFunc(b.Row.Entries, func(e records.FerryEntry) bool { return e.Rank >= 0 && e.Seq > st.After[e.Rank] })
}

// Lapse takes what nobody confirmed out of its lanes. No receipt says so: it may have
// arrived. A crash in between lets it be done again.
func (n *Node) Lapse(ctx context.Context, link string, b NumberedBundle) error {
	for entries := b.Row.Entries; ; {
		step := entries[:min(len(entries), fanStep)]
		entries = entries[len(step):]
		err := n.update(ctx, func(tx queue.Tx) error {
			for _, e := range step {
				if err := n.lapseEntry(tx, link, e); err != nil {
					return err
				}
			}
			if len(entries) > 0 {
				return nil
			}
			return forgetBundle(tx, link, b.Seq, func(st *records.FerryOut) { st.Ended++ })
		})
		if err != nil || len(entries) == 0 {
			return err
		}
	}
}

func (n *Node) lapseEntry(tx queue.Tx, link string, e records.FerryEntry) error {
	if e.Rank < 0 {
		return nil
	}
	lane := laneName(link, e.Rank)
	list, err := readLane(tx, lane, e.Seq-1, 1)
	if err != nil || len(list) == 0 || list[0].seq != e.Seq {
		return err
	}
	entry := list[0].laneEntry
	if entry.Kind != KindHeader {
		return leave(tx, link, lane, e.Seq, ended)
	}
	out, err := records.Outgoing.Lock(tx, entry.Envelope, link, entry.Object)
	if errors.Is(err, records.ErrUnreadable) { // its time is over, whatever the row says
		return leave(tx, link, lane, e.Seq, ended)
	}
	if err != nil || out == nil || out.State != records.StateQueued || out.Lane != lane || out.Seq != e.Seq {
		return err
	}
	if e.To < out.Count { // its last part is in a later bundle, which it lapses with
		return nil
	}
	out.State = records.StateUnconfirmed
	if err := n.endOutbound(tx, link, entry, out); err != nil {
		return err
	}
	return records.Outgoing.Put(tx, out, entry.Envelope, link, entry.Object)
}

// The pause after wrong codes: from the sixth in a row on, doubling.
const (
	freeGuesses = 5
	firstGuess  = time.Minute
	lastGuess   = time.Hour
)

// GuessPause says until when no code is looked at; zero when one may be. A pause of
// which more is left than it was long began under a clock that was put back.
func (n *Node) GuessPause(st *records.FerryOut) time.Time {
	left := st.Until.Time().Sub(n.c.Now())
	if st.Until == 0 || left <= 0 || left > time.Duration(st.Pause)*time.Millisecond {
		return time.Time{}
	}
	return st.Until.Time()
}

// Guessed counts a code: a right one ends the count. It is durable before anybody
// hears whether the code was right.
func (n *Node) Guessed(ctx context.Context, link string, right bool) error {
	return n.update(ctx, func(tx queue.Tx) error {
		st, err := records.FerryOuts.Lock(tx, link)
		if st == nil || err != nil || right && st.Wrong == 0 {
			return err
		}
		st.Wrong, st.Pause, st.Until = st.Wrong+1, 0, 0
		if right {
			st.Wrong = 0
		}
		if over := st.Wrong - freeGuesses; over >= 0 {
			pause := min(firstGuess<<min(over, 10), lastGuess)
			st.Pause, st.Until = pause.Milliseconds(), strictjson.TimeOf(n.c.Now().Add(pause))
		}
		return records.FerryOuts.Put(tx, st, link)
	})
}
