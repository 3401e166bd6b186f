package link

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// Received says what a bundle brought. Truncated: it ended early; what came
// before was taken all the same.
type Received struct {
	Items     int
	Acks      int
	Truncated bool
}

// Receive takes a bundle: it is checked as a whole, then its acks are applied
// and each item is handed to the node on its own, so that one bad item never
// blocks its neighbours. The outcomes go into the next Poll or Reply of this
// session, after everything they speak of is durable.
//
// ErrFault means that nothing was taken: the neighbour resends. ErrHeld means
// that no item was taken, since an operator holds the link here. Other errors
// are trouble of our own; what was taken until then is acknowledged.
func (s *Session) Receive(ctx context.Context, r io.Reader) (*Received, error) {
	b, err := s.open(ctx, r)
	if err != nil {
		return nil, err
	}
	outdated, err := s.takeHeads(ctx, b.inner)
	if err != nil {
		return nil, err
	}
	if outdated { // what it acknowledges may be lost
		b.inner.Acks = nil
	}
	got := &Received{Items: len(b.inner.Items)}
	for _, a := range b.inner.Acks {
		ok, err := s.settle(ctx, a)
		if err != nil {
			return got, err
		}
		if ok {
			got.Acks++
		}
	}
	if b.clear.Seq == 0 {
		return got, nil
	}
	if _, held := s.node.LinkHold(s.link); held {
		return got, ErrHeld
	}
	outcomes, err := s.takeItems(ctx, b)
	got.Truncated = err == nil && !whole(b.rest, b.total)
	s.acknowledge(b, outcomes)
	return got, errors.Join(err, s.node.CountArrived(ctx, s.link, outcomes))
}

// ErrHeld says that an operator holds the link on this side.
var ErrHeld = errors.New("link: held by the operator of this node")

// bundle is one that passed the checks of the whole.
type bundle struct {
	clear  *Clear
	header sm.Digest
	inner  *Inner
	small  []byte // bytes of the items that are not parts
	rest   io.Reader
	total  int64
}

func (s *Session) open(ctx context.Context, r io.Reader) (*bundle, error) {
	rest := &untilBroken{r: r}
	signed, err := readFrame(rest)
	if err != nil {
		return nil, err
	}
	b := &bundle{rest: rest}
	b.clear, b.header, err = s.openClear(signed)
	stranger := errors.Is(err, errStranger)
	if err != nil && !stranger {
		return nil, s.quarantined(ctx, signed, err)
	}
	err = s.openBody(b)
	if err == nil && stranger {
		err = s.introduce(ctx, signed, b)
	}
	if err == nil {
		err = s.checkNumber(b)
	}
	if err != nil {
		return nil, s.quarantined(ctx, signed, err)
	}
	b.total = int64(len(signed)) + 8 + b.clear.Sealed.Size + b.clear.Parts.Size + footerSize
	s.mu.Lock()
	s.theirs = b.clear.Directory
	s.mu.Unlock()
	return b, s.node.ShownDirectory(ctx, s.link, b.clear.Directory)
}

// openBody reads and opens what lies behind the clear header, but the parts.
func (s *Session) openBody(b *bundle) error {
	sealed := make([]byte, b.clear.Sealed.Size)
	if _, err := io.ReadFull(b.rest, sealed); err != nil || sm.Sum(sealed) != b.clear.Sealed.SM3 {
		return fault("the section is damaged")
	}
	secret, err := s.secretOf(b.clear)
	if err != nil {
		return err
	}
	section, err := openSection(secret, b.clear, sealed)
	if err != nil {
		return err
	}
	if b.inner, b.small, err = parseInner(section); err != nil {
		return err
	}
	if err := b.inner.checkParts(b.clear.Parts); err != nil {
		return err
	}
	return b.inner.checkKinds()
}

// quarantined shows a link fault to the operator and gives it back. A neighbour
// that is ahead of us is none.
func (s *Session) quarantined(ctx context.Context, sample []byte, err error) error {
	if !errors.Is(err, ErrFault) || errors.Is(err, ErrNewer) || errors.Is(err, errShown) {
		return err
	}
	return errors.Join(err, s.node.Quarantine(ctx, s.link, "bundle", err.Error(), sample))
}

// checkKinds refuses a bundle with an item that must be understood and is not.
func (in *Inner) checkKinds() error {
	for _, e := range in.Items {
		switch e.Kind {
		case node.KindHeader, node.KindConsignment, node.KindPart, node.KindReceipt, node.KindRequest, node.KindDirectory, node.KindOwnHeader:
		default:
			if e.Critical {
				return fault("a critical item of an unknown kind")
			}
		}
	}
	return nil
}

// checkNumber refuses other content under a number that was used before, and a
// process of the neighbour that goes on after another one has begun.
func (s *Session) checkNumber(b *bundle) error {
	if err := s.checkEpoch(b.clear.Epoch); err != nil {
		return err
	}
	if b.clear.Seq == 0 {
		if len(b.inner.Items) > 0 {
			return fault("items without a number")
		}
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.numbers {
		if n.epoch == b.clear.Epoch && n.seq == b.clear.Seq && n.header != b.header {
			return fault("number_reused: other content under number %d", n.seq)
		}
	}
	s.numbers = append(s.numbers, number{b.clear.Epoch, b.clear.Seq, b.header})
	s.numbers = s.numbers[max(0, len(s.numbers)-numbersKept):]
	return nil
}

// run is one process of the neighbour, by its epoch.
type run struct {
	epoch string
	late  int // bundles of it that were heard after a later one had begun
}

// checkEpoch remembers the newest processes of the neighbour. Of one that another
// has followed a few bundles may still be on their way; one that goes on for
// longer runs beside it, with the same identity, and the one that began later is
// believed. An epoch that is not known and names an earlier time passes: clocks
// are put back, and an old bundle must not end the process that goes on.
func (s *Session) checkEpoch(epoch string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.runs, func(r run) bool { return r.epoch == epoch })
	switch last := len(s.runs) - 1; {
	case i < 0 && (last < 0 || epoch > s.runs[last].epoch):
		s.runs = append(s.runs, run{epoch: epoch})
		s.runs = s.runs[max(0, len(s.runs)-runsKept):]
	case i >= 0 && i < last:
		if s.runs[i].late++; s.runs[i].late > stragglers {
			return fault("epoch_ended: another process of node %s has begun since; is a copy of its data directory running?", s.neighbour)
		}
	}
	return nil
}

// takeHeads notes what the neighbour says of itself, what it remembers of our
// ledger, and checks its own head. A contradiction is kept and shown by the node; documents go on,
// since holding them back would punish the wrong ones. outdated says that the
// bundle was made before its node was restored.
func (s *Session) takeHeads(ctx context.Context, in *Inner) (outdated bool, err error) {
	if len(in.Status) > 0 {
		if err := s.shown(ctx, "status", s.node.TakeStatus(ctx, s.link, in.Status)); err != nil {
			return false, err
		}
	}
	if in.Seen != nil {
		seen := node.Seen{Ledger: in.Seen.Ledger, Size: in.Seen.Size, Root: in.Seen.Root}
		if err := s.shown(ctx, "seen", s.node.Seen(ctx, s.link, seen)); err != nil {
			return false, err
		}
	}
	if in.Checkpoint == nil {
		return false, nil
	}
	head := node.Head{Checkpoint: in.Checkpoint.CMS, From: in.Checkpoint.From, Proof: in.Checkpoint.Proof, Notice: in.Restored}
	seen, err := s.node.Witness(ctx, s.link, head)
	if err != nil {
		return false, s.shown(ctx, "checkpoint", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = &SeenHead{Ledger: seen.Ledger, Size: seen.Size, Root: seen.Root}
	return seen.Outdated, nil
}

// shown puts a ledger contradiction before the operator; anything else is
// given back.
func (s *Session) shown(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	if node.IsStoreTrouble(err) {
		return err
	}
	return s.node.Quarantine(ctx, s.link, what, err.Error(), nil)
}

func (s *Session) acknowledge(b *bundle, outcomes []node.Outcome) {
	a := Ack{Epoch: b.clear.Epoch, Seq: b.clear.Seq, Header: b.header, Items: make([]AckItem, len(outcomes))}
	for i, o := range outcomes {
		a.Items[i] = AckItem{Status: o.Status, Reason: o.Reason}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acks = append(s.acks, a)
	s.acks = s.acks[max(0, len(s.acks)-MaxAcks):]
}

// untilBroken turns a connection that breaks into one that ends: what is
// missing is then damaged like any other missing byte.
type untilBroken struct{ r io.Reader }

func (u *untilBroken) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if err != nil {
		err = io.EOF
	}
	return n, err
}
