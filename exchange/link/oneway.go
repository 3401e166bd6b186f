package link

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// Without a way back (docs/spec/bundle-v1.md): bundles leave once, in the order of
// their numbers, and nothing is known of them until a code is read to the operator.
// What is durable is in node's oneway.go; here is what becomes of bundles and codes.

// outward is what our chain of secrets belongs to.
func (f *Ferry) outward() course {
	return course{f.s.node.Directory().Domain(), f.s.link, f.s.node.ID(), f.s.neighbour, f.s.epoch}
}

// inward is the neighbour's, of an epoch.
func (f *Ferry) inward(epoch string) course {
	return course{f.s.node.Directory().Domain(), f.s.link, f.s.neighbour, f.s.node.ID(), epoch}
}

func (f *Ferry) way() node.Way { return f.s.node.Way(f.s.link) }

// OneWay says whether nothing comes back over the link.
func (f *Ferry) OneWay() bool { return f.way() != node.WayBoth }

// enchain gives the next bundle a secret, and what it makes of the chain.
func (f *Ferry) enchain(in *Inner, st *records.FerryOut) (*node.Linkage, error) {
	l := &node.Linkage{Secret: make([]byte, secretSize)}
	if _, err := io.ReadFull(f.s.node.Rand(), l.Secret); err != nil {
		return nil, err
	}
	in.Secret = l.Secret
	prev, err := f.s.node.Chained(f.s.link, st.Chain)
	if err != nil {
		return nil, err
	}
	if prev == nil {
		prev = make([]byte, secretSize) // kept as such: it is before the first
	}
	l.Prev, l.Next = prev, f.chainAfter(prev, st.Seq+1, l.Secret)
	return l, nil
}

// chainAfter is the chain behind our bundle n.
func (f *Ferry) chainAfter(prev []byte, n uint64, secret []byte) []byte {
	if n == 1 {
		prev = nil
	}
	return f.outward().next(prev, n, secret)
}

// dueOneWay packs what waits and gives what has not left yet. Before that it says
// FERRIED of what left when the last process ended, and lets go of what nobody
// confirmed in time.
func (f *Ferry) dueOneWay(ctx context.Context, room, file int64) ([]node.NumberedBundle, error) {
	if err := f.sayFerried(ctx); err != nil {
		return nil, err
	}
	if err := f.lapse(ctx); err != nil {
		return nil, err
	}
	due, err := f.unsaid(ctx)
	if err != nil {
		return nil, err
	}
	for _, b := range due {
		room -= b.Row.Size
	}
	if err := f.packAll(ctx, room, file); err != nil {
		return nil, err
	}
	return f.unsaid(ctx)
}

// unsaid are the bundles that have not left, oldest first.
func (f *Ferry) unsaid(ctx context.Context) ([]node.NumberedBundle, error) {
	st, err := f.state(ctx)
	if err != nil {
		return nil, err
	}
	return f.outstandingBehind(ctx, st.Said, func(b *records.FerryBundle) bool { return b.Left == 0 })
}

// sayFerried has FERRIED signed for all that left and of which it is not said: one
// bundle after the other, so that the last number says how far it is.
func (f *Ferry) sayFerried(ctx context.Context) error {
	st, err := f.state(ctx)
	if err != nil {
		return err
	}
	for after := st.Said; ; {
		list, err := f.s.node.FerryBundles(ctx, f.s.link, after, 1)
		if err != nil || len(list) == 0 || list[0].Row.Left == 0 {
			return err
		}
		if err := f.s.node.Ferried(ctx, f.s.link, list[0]); err != nil {
			return err
		}
		after = list[0].Seq
	}
}

// lapse lets go of bundles, oldest first. The row goes before the bytes: a crash in
// between leaves a file that nothing refers to.
func (f *Ferry) lapse(ctx context.Context) error {
	for {
		list, err := f.s.node.FerryBundles(ctx, f.s.link, 0, 1)
		if err != nil || len(list) == 0 {
			return err
		}
		st, err := f.state(ctx)
		if err != nil || !f.s.node.MayLapse(st, list[0]) {
			return err
		}
		if err := f.s.node.Lapse(ctx, f.s.link, list[0]); err != nil {
			return err
		}
		if err := f.keep.Remove(f.name(list[0].Seq, list[0].Row.Header)); err != nil {
			return err
		}
	}
}

// announcement is the note of a link of one way: nobody waits for an answer, and the
// receiver learns which bundles there are. From is the lowest that is kept, Base the
// chain before it.
func (f *Ferry) announcement(ctx context.Context, round, from, last uint64) (*Passage, error) {
	p := &Passage{Round: round, From: from, Last: last, Ranges: []Range{}, Lacks: []Lack{}}
	if from == 1 {
		return p, nil
	}
	list, err := f.s.node.FerryBundles(ctx, f.s.link, from-1, 1)
	if err != nil {
		return nil, err
	}
	if len(list) > 0 {
		l, err := f.s.node.Linkage(f.s.link, list[0])
		if err != nil {
			return nil, err
		}
		p.Base = l.Prev
		return p, nil
	}
	st, err := f.state(ctx)
	if err != nil {
		return nil, err
	}
	p.Base, err = f.s.node.Chained(f.s.link, st.Chain)
	return p, err
}

// heard takes such a note. What can never come is shown to the operator before it
// counts as over: a crash in between shows it twice.
func (f *Ferry) heard(ctx context.Context, epoch string, p *Passage) error {
	var lost [][2]uint64
	if len(p.Base) == secretSize {
		var err error
		if lost, err = f.s.node.FerryLetGo(ctx, f.s.link, epoch, p.From); err != nil {
			return err
		}
	}
	for _, r := range lost {
		reason := fmt.Sprintf("bundles %d to %d never came, and the other side does not keep them any more", r[0], r[1])
		if err := f.s.node.Quarantine(ctx, f.s.link, "bundle", reason, nil); err != nil {
			return err
		}
	}
	return f.s.node.FerryAnnounced(ctx, f.s.link, epoch, p.Round, p.From, p.Last, p.Base)
}

// Receives refuses an import by hand where nothing can have come.
func (f *Ferry) Receives() error {
	if f.way() == node.WayOut {
		return exchange.Fail(exchange.CodeOneWay, "link %s has one way, and nothing comes to this node over it", f.s.link)
	}
	return nil
}

func errNotFrom(link string) error {
	return exchange.Fail(exchange.CodeOneWay, "link %s has one way, and this node is not the one that sends", link)
}

func errNotTo(link string) error {
	return exchange.Fail(exchange.CodeOneWay, "link %s is none over which this node only receives", link)
}

// ExportAgain lets bundles leave once more, byte for byte: of those that left and were
// not confirmed the numbers from to to, or all of them when both are 0. FERRIED is not
// signed again.
func (f *Ferry) ExportAgain(ctx context.Context, limits Limits, from, to uint64, place func(name string, write func(io.Writer) error) error) (got Exported, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.way() != node.WayOut {
		return got, errNotFrom(f.s.link)
	}
	st, err := f.state(ctx)
	if err != nil {
		return got, err
	}
	list, err := f.outstanding(ctx, func(b *records.FerryBundle) bool { return b.Left > 0 })
	if err != nil {
		return got, err
	}
	list = slices.DeleteFunc(list, func(b node.NumberedBundle) bool { return b.Seq > st.Said || to > 0 && (b.Seq < from || b.Seq > to) })
	if to > 0 && (from > to || uint64(len(list)) != to-from+1) {
		return got, exchange.Fail(exchange.CodeOneWay, "bundles %d-%d: not all of them left and wait for a code; yizhan ferry status says which do", from, to)
	}
	return f.write(ctx, limits, list, place)
}

// CodeReport is what the receiving side reads to the other.
type CodeReport struct {
	Link    string          `json:"link"`
	Code    string          `json:"code,omitempty"` // none as long as bundle 1 is missing
	UpTo    uint64          `json:"up_to"`
	At      strictjson.Time `json:"at"`
	Last    uint64          `json:"last"`    // the last bundle of the other side, as far as it said
	Missing []Range         `json:"missing"` // what it is asked to let leave again
	Refused []uint64        `json:"refused"` // bundles of which something was refused here for good
}

// Code makes the code for all bundles that came without a gap.
func (f *Ferry) Code(ctx context.Context) (*CodeReport, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.way() != node.WayIn {
		return nil, errNotTo(f.s.link)
	}
	row, chain, err := f.advance(ctx)
	if err != nil {
		return nil, err
	}
	r := &CodeReport{Link: f.s.link, UpTo: row.ChainTo, At: strictjson.TimeOf(f.s.node.Now()), Last: row.Last, Missing: missingFrom(row), Refused: []uint64{}}
	for _, gap := range r.Missing {
		r.Last = max(r.Last, gap.To)
	}
	for _, l := range row.Lacks {
		r.Refused = append(r.Refused, l.Seq)
	}
	if chain != nil && row.ChainTo > 0 {
		r.Code = f.inward(row.Epoch).code(chain, row.ChainTo).String()
	}
	r.Last = max(r.Last, row.ChainTo)
	return r, nil
}

func (f *Ferry) advance(ctx context.Context) (*records.FerryIn, []byte, error) {
	return f.s.node.AdvanceChain(ctx, f.s.link, func(epoch string, prev []byte, n uint64, secret []byte) []byte {
		return f.inward(epoch).next(prev, n, secret)
	})
}

// Confirmation is how far a code has brought the sending side. Statements are
// receipts for the operator to sign; when there are none, all is done.
type Confirmation struct {
	Link       string   `json:"link"`
	UpTo       uint64   `json:"up_to"`
	Known      bool     `json:"known,omitempty"` // nothing up to there waited any more
	Bundles    int      `json:"bundles"`         // settled by this call
	Receipts   int      `json:"receipts"`        // taken by this call
	Statements [][]byte `json:"statements"`
}

// statementsAtOnce bounds what an operator signs in one go: signed and written in
// base64 it fits a request to the node.
const statementsAtOnce = 200

// Confirm checks a code, takes what the operator signed of the statements that an
// earlier call gave, and gives the next ones. Each CONFIRMED is durable and on its way
// home before its bundle is settled, and the oldest bundle goes first: a crash lets
// the same code go on where it stopped.
func (f *Ferry) Confirm(ctx context.Context, text, operator string, signed [][]byte) (*Confirmation, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.way() != node.WayOut {
		return nil, errNotFrom(f.s.link)
	}
	if err := mayConfirm(f.s.node.Directory(), operator, f.s.node.Now()); err != nil {
		return nil, err
	}
	c, err := ParseCode(text)
	if err != nil {
		return nil, err
	}
	got := &Confirmation{Link: f.s.link, UpTo: c.N, Statements: [][]byte{}}
	if got.Known, err = f.checkCode(ctx, c); got.Known || err != nil {
		return got, err
	}
	for _, one := range signed {
		if err := f.takeSigned(ctx, one, got); err != nil {
			return nil, err
		}
	}
	return got, f.confirmUpTo(ctx, c.N, operator, got)
}

// mayConfirm: the directory names who answers for CONFIRMED by name.
func mayConfirm(d *certs.Directory, operator string, now time.Time) error {
	for _, a := range d.Administrators() {
		if a.ID != operator {
			continue
		}
		if _, err := a.Current(certs.UseSign, now); err != nil {
			return &exchange.Error{Code: exchange.CodeFerryOperator, Detail: "administrator " + operator + " has no certificate that is valid now", Err: err}
		}
		return nil
	}
	return exchange.Fail(exchange.CodeFerryOperator, "the directory in force here names no administrator %.40q", operator)
}

// checkCode says whether a code is right; known that it is of a prefix of which
// nothing waits.
func (f *Ferry) checkCode(ctx context.Context, c Code) (known bool, err error) {
	st, err := f.state(ctx)
	if err != nil {
		return false, err
	}
	if until := f.s.node.GuessPause(st); !until.IsZero() {
		return false, &exchange.Error{Code: exchange.CodeFerryCodePause, Temporary: true, Detail: fmt.Sprintf("%d wrong codes in a row; the next one is looked at from %s on", st.Wrong, until.UTC().Format(time.RFC3339))}
	}
	list, err := f.s.node.FerryBundles(ctx, f.s.link, 0, 1)
	switch own := f.outward(); {
	case err != nil:
		return false, err
	case c.mark != own.mark():
		return false, exchange.Fail(exchange.CodeFerryCode, "the code is of another link, or from before this node was restored; ask for the one of link %s as it is now", f.s.link)
	case c.N > st.Said:
		return false, exchange.Fail(exchange.CodeFerryCode, "the code is for bundles up to %d, and the last that left is %d", c.N, st.Said)
	case len(list) == 0 || list[0].Seq > c.N:
		return true, nil
	}
	b, ok, err := f.row(ctx, c.N)
	if err != nil || !ok {
		return !ok, err
	}
	l, err := f.s.node.Linkage(f.s.link, b)
	if err != nil {
		return false, err
	}
	right := c.same(f.outward().code(f.chainAfter(l.Prev, c.N, l.Secret), c.N))
	if err := f.s.node.Guessed(ctx, f.s.link, right); err != nil {
		return false, err
	}
	if !right {
		return false, exchange.Fail(exchange.CodeFerryCode, "the code is not the one for bundles up to %d of link %s; it was counted (%d in a row)", c.N, f.s.link, st.Wrong+1)
	}
	return false, nil
}

func (f *Ferry) takeSigned(ctx context.Context, signed []byte, got *Confirmation) error {
	parsed, err := cms.Parse(signed, exchange.MaxReceiptCMS)
	if err != nil {
		return err
	}
	s, ok := f.issued[parsed.ID()]
	if !ok { // of a process before, or a directory before: it is asked for anew
		return nil
	}
	if err := f.s.node.Confirm(ctx, f.s.link, &s, signed); err != nil {
		return err
	}
	delete(f.issued, parsed.ID())
	got.Receipts++
	return nil
}

// confirmUpTo settles the bundles of which nothing is left to sign, and gives the
// statements of the first one of which something is.
func (f *Ferry) confirmUpTo(ctx context.Context, n uint64, operator string, got *Confirmation) error {
	for {
		list, err := f.s.node.FerryBundles(ctx, f.s.link, 0, 1)
		if err != nil || len(list) == 0 || list[0].Seq > n {
			f.issued = nil
			return err
		}
		b := list[0]
		todo, err := f.s.node.Statements(ctx, f.s.link, b, operator, statementsAtOnce)
		if err != nil {
			return err
		}
		if len(todo) > 0 {
			f.issued = map[sm.Digest]node.Statement{}
			for _, s := range todo {
				f.issued[sm.Sum(s.Content)] = s
				got.Statements = append(got.Statements, s.Content)
			}
			return nil
		}
		if err := f.s.node.Settled(ctx, f.s.link, b); err != nil {
			return err
		}
		if err := f.keep.Remove(f.name(b.Seq, b.Row.Header)); err != nil {
			return err
		}
		got.Bundles++
	}
}

// OneWayStatus is what a link of one way adds to its status.
type OneWayStatus struct {
	Way       string          `json:"way"`         // out, in
	Exported  uint64          `json:"exported"`    // bundles that left: confirmed, ended and outstanding ones
	Confirmed uint64          `json:"confirmed"`   // by codes
	Ended     uint64          `json:"ended"`       // not confirmed in time
	Wrong     int             `json:"wrong_codes"` // in a row
	Until     strictjson.Time `json:"no_code_before,omitzero"`
	Last      uint64          `json:"last"`               // bundle that was made, or of which the neighbour said so
	Missing   []Range         `json:"missing"`            // of those
	Kept      uint64          `json:"kept_without_a_way"` // receipts that have no way to their sender
}

func (f *Ferry) oneWayStatus(ctx context.Context, own *records.FerryOut, in *records.FerryIn) (*OneWayStatus, error) {
	st := &OneWayStatus{Missing: []Range{}}
	switch f.way() {
	case node.WayBoth:
		return nil, nil
	case node.WayOut:
		st.Way, st.Exported, st.Confirmed, st.Ended, st.Last = "out", own.Said, own.Confirmed, own.Ended, own.Seq
		st.Wrong = own.Wrong
		if !f.s.node.GuessPause(own).IsZero() {
			st.Until = own.Until
		}
		return st, nil
	}
	st.Way, st.Last = "in", max(in.Last, in.UpTo)
	st.Missing = missingFrom(in)
	for _, gap := range st.Missing {
		st.Last = max(st.Last, gap.To)
	}
	var err error
	st.Kept, err = f.s.node.NoWayBack(ctx, f.s.link)
	return st, err
}
