package node

import (
	"bytes"
	"context"
	"errors"
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

// The events of ledger leaves (docs/spec/ledger-v1.md).
const (
	eventAccepted  = "accepted"
	eventTaken     = "taken"
	eventDelivered = "delivered"
	eventRelayed   = "relayed"
	eventReceipt   = "receipt"
	eventActed     = "acted"
	eventHanded    = "handed"
	eventEnded     = "ended"
	eventConflict  = "conflict"
	eventDeferred  = "deferred"
	eventDirectory = "directory"
	eventHeld      = "held"
	eventReleased  = "released"
	eventParked    = "parked"
	eventRequeued  = "requeued"
	eventRestored  = "restored"
	eventReplayed  = "replayed"
	eventGivenUp   = "given_up"
	eventAsked     = "asked"
	eventRefused   = "recall_refused"
	eventInspected = "inspected"
	eventGuarded   = "guarded"
	eventApproval  = "approval"
	eventLetPass   = "let_pass"
	eventFerried   = "ferried"
	eventConfirmed = "confirmed"
)

// leaf appends one state change to the ledger, in the transaction that makes
// it: there is no change without a leaf and no leaf without a change.
func (n *Node) leaf(tx queue.Tx, event string, hh, object sm.Digest) (uint64, error) {
	return n.append(tx, &merkle.Leaf{Event: event, Envelope: hh.String(), Object: object, At: n.now()})
}

func (n *Node) append(tx queue.Tx, l *merkle.Leaf) (uint64, error) {
	b, err := l.Marshal()
	if err != nil {
		return 0, err
	}
	return n.ledger.Append(tx, b)
}

// Head is a node's signed checkpoint with the proof that it extends the one
// of size From that the neighbour has acknowledged (no proof for From 0 or
// From equal to the size). A ledger without a leaf has no checkpoint.
// Notice goes along while the neighbour does not know the ledger of a node that
// was restored.
type Head struct {
	Checkpoint []byte
	From       uint64
	Proof      []sm.Digest
	Notice     []byte
}

// Seen is what a neighbour remembers of a ledger. Outdated is about the head it
// was answered to: that is of a ledger which the neighbour had before it was
// restored, so what came along says nothing of what its store holds by now.
type Seen struct {
	Ledger   string
	Size     uint64
	Root     sm.Digest
	Outdated bool
}

// headState is what need not survive a restart: a neighbour that is not told
// the size it knows simply answers with it, and the next bundle fits.
type headState struct {
	mu     sync.Mutex
	acked  map[string]uint64
	size   uint64
	signed []byte
	alarm  error
}

// Head gives the checkpoint for the next bundle on a link.
func (n *Node) Head(ctx context.Context, link string) (Head, error) {
	n.heads.mu.Lock()
	from := n.heads.acked[link]
	n.heads.mu.Unlock()
	var h Head
	var size uint64
	var root sm.Digest
	err := n.view(ctx, func(tx queue.Tx) (err error) {
		if size, err = n.ledger.Size(tx); err != nil || size == 0 {
			return err
		}
		if root, err = n.ledger.Root(tx, size); err != nil {
			return err
		}
		if h.From = min(from, size); h.From > 0 && h.From < size {
			h.Proof, err = n.ledger.Consistency(tx, h.From, size)
		}
		return err
	})
	if err != nil || size == 0 {
		return Head{}, err
	}
	if h.Checkpoint, err = n.checkpoint(size, root); err != nil {
		return Head{}, err
	}
	h.Notice, err = n.notice(ctx, link)
	return h, err
}

// checkpoint gives the signed head of a size; all who ask for the newest get
// the same bytes. It is signed outside the lock, which the links need while an
// HSM takes its time.
func (n *Node) checkpoint(size uint64, root sm.Digest) ([]byte, error) {
	if signed := n.heads.of(size); signed != nil {
		return signed, nil
	}
	cp := merkle.Checkpoint{Domain: n.Directory().Domain(), Ledger: n.ledgerID, Node: n.c.ID, Size: size, Root: root, Time: n.now()}
	b, err := cp.Marshal()
	if err != nil {
		return nil, err
	}
	signer, err := n.Signer()
	if err != nil {
		return nil, err
	}
	signed, err := cms.Sign(signer, b, n.c.Now())
	if err != nil {
		return nil, err
	}
	return n.heads.keep(size, signed), nil
}

// of gives the head of a size, if that is the one which was signed last.
func (h *headState) of(size uint64) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.size != size {
		return nil
	}
	return h.signed
}

// keep takes a head that was signed, and gives the one that counts: another
// caller may have been faster.
func (h *headState) keep(size uint64, signed []byte) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.size == size && h.signed != nil {
		return h.signed
	}
	if size > h.size {
		h.size, h.signed = size, signed
	}
	return signed
}

// Witness checks a neighbour's head against the one remembered and remembers
// it when it is proven to extend that one. The answer is what is remembered
// now, so that the neighbour proves from there next time. A head that
// contradicts the remembered one is kept beside it as a Fork and not adopted.
func (n *Node) Witness(ctx context.Context, link string, h Head) (Seen, error) {
	neighbour, err := n.neighbour(link)
	if err != nil {
		return Seen{}, err
	}
	cp, err := openCheckpoint(neighbour, h.Checkpoint)
	if err != nil {
		return Seen{}, &exchange.Error{Code: exchange.CodeSignatureInvalid, Detail: "checkpoint", Err: err}
	}
	var known *records.Head
	err = n.view(ctx, func(tx queue.Tx) (err error) {
		known, err = records.Heads.Get(tx, neighbour.ID)
		return err
	})
	if err != nil {
		return Seen{}, err
	}
	verdict := compareHeads(known, cp, h)
	var notice *RestoreNotice
	if verdict == headFirst || verdict == headNewLedger {
		if notice = n.openNotice(neighbour, link, cp, known, h.Notice); notice != nil {
			verdict = headRestored
		}
		if notice != nil && notice.late(known) {
			verdict = headOlder
		}
	}
	if verdict == headOlder || verdict == headUnconnected || verdict == headSame {
		return Seen{Ledger: known.Ledger, Size: known.Size, Root: known.Root, Outdated: cp.Ledger != known.Ledger}, nil
	}
	if verdict == headRestored {
		if err := n.beginReplay(ctx, link, neighbour.ID, known, notice); err != nil {
			return Seen{}, err
		}
	}
	return n.rememberHead(ctx, neighbour.ID, known, cp, notice, h.Checkpoint, verdict)
}

func openCheckpoint(node *certs.Node, signed []byte) (*merkle.Checkpoint, error) {
	s, err := cms.Parse(signed, exchange.MaxCheckpointCMS)
	if err != nil {
		return nil, err
	}
	if !node.Holds("sign", s.Certificate) {
		return nil, exchange.Fail(exchange.CodeSignatureInvalid, "checkpoint: not signed by node %s", node.ID)
	}
	if err := s.Verify(s.Certificate); err != nil {
		return nil, err
	}
	cp, err := merkle.ParseCheckpoint(s.Content)
	if err != nil {
		return nil, err
	}
	if cp.Node != node.ID {
		return nil, exchange.Fail(exchange.CodeSignatureInvalid, "checkpoint: speaks for another node than %s", node.ID)
	}
	return cp, nil
}

type headVerdict int

const (
	headFirst headVerdict = iota
	headExtends
	headSame
	headOlder       // a late bundle
	headUnconnected // the proof starts elsewhere: our answer asks for one
	headRestored    // another ledger, with a notice that it goes on from the known one
	headNewLedger   // without
	headFork
)

func compareHeads(known *records.Head, cp *merkle.Checkpoint, h Head) headVerdict {
	switch {
	case known == nil:
		return headFirst
	case slices.Contains(known.Before, cp.Ledger):
		return headOlder
	case cp.Ledger != known.Ledger:
		return headNewLedger
	case cp.Size < known.Size:
		return headOlder
	case cp.Size == known.Size && cp.Root == known.Root:
		return headSame
	case cp.Size == known.Size:
		return headFork
	case h.From != known.Size:
		return headUnconnected
	case merkle.VerifyConsistency(known.Size, cp.Size, h.Proof, known.Root, cp.Root) != nil:
		return headFork
	}
	return headExtends
}

// rememberHead commits the verdict. A crash before it forgets the head; the
// neighbour's next bundle brings a newer one.
func (n *Node) rememberHead(ctx context.Context, node string, known *records.Head, cp *merkle.Checkpoint, notice *RestoreNotice, signed []byte, v headVerdict) (Seen, error) {
	next := &records.Head{CMS: signed, Ledger: cp.Ledger, Size: cp.Size, Root: cp.Root}
	if known != nil {
		next.Before, next.Since = known.Before, known.Since
	}
	if notice != nil {
		next.Before, next.Since = notice.before(known), notice.Time
	}
	seen := Seen{Ledger: cp.Ledger, Size: cp.Size, Root: cp.Root}
	err := n.c.Store.Update(ctx, func(tx queue.Tx) error {
		now, err := records.Heads.Lock(tx, node)
		if err != nil {
			return err
		}
		if !sameHead(now, known) { // another bundle was faster: its head stands
			seen = Seen{Ledger: now.Ledger, Size: now.Size, Root: now.Root}
			return nil
		}
		switch v {
		case headFork, headNewLedger:
			seen = Seen{Ledger: known.Ledger, Size: known.Size, Root: known.Root}
			return keepFork(tx, node, &records.Fork{Known: known.CMS, Other: signed})
		}
		if now == nil {
			return records.Heads.Insert(tx, next, node)
		}
		return records.Heads.Put(tx, next, node)
	})
	switch {
	case err != nil:
		return Seen{}, err
	case v == headFork:
		return seen, exchange.Fail(exchange.CodeLedgerRolledBack, "node %s shows two histories of ledger %s; both heads are kept", node, cp.Ledger)
	case v == headNewLedger:
		return seen, exchange.Fail(exchange.CodeLedgerRolledBack, "node %s shows ledger %s without a word of what became of %s; both heads are kept", node, cp.Ledger, known.Ledger)
	}
	return seen, nil
}

// maxForks bounds what is kept of a node that contradicts itself again and
// again: the first ones prove it.
const maxForks = 64

func keepFork(tx queue.Tx, node string, f *records.Fork) error {
	kept := 0
	err := records.Forks.Each(tx, maxForks, func([]byte, *records.Fork) bool { kept++; return true }, node)
	if err != nil || kept == maxForks {
		return err
	}
	err = records.Forks.Insert(tx, f, node, sm.Sum(f.Other))
	if errors.Is(err, queue.ErrExists) {
		return nil
	}
	return err
}

func sameHead(a, b *records.Head) bool {
	return a == nil && b == nil || a != nil && b != nil && bytes.Equal(a.CMS, b.CMS)
}

// Seen takes note of what a neighbour remembers of our ledger. A neighbour
// that remembers more than we have, or another root, proves that our data
// directory was put back to an earlier state: Alarm says so from then on.
func (n *Node) Seen(ctx context.Context, link string, s Seen) error {
	if s.Ledger != n.ledgerID || s.Size == 0 {
		return nil
	}
	n.restored.heardOf(link)
	var size uint64
	var root sm.Digest
	err := n.view(ctx, func(tx queue.Tx) (err error) {
		if size, err = n.ledger.Size(tx); err != nil || s.Size > size {
			return err
		}
		root, err = n.ledger.Root(tx, s.Size)
		return err
	})
	if err != nil {
		return err
	}
	n.heads.mu.Lock()
	defer n.heads.mu.Unlock()
	if s.Size > size || root != s.Root {
		n.heads.alarm = exchange.Fail(exchange.CodeLedgerRolledBack, "link %s remembers %d leaves of this ledger, %d are here", link, s.Size, size)
		return n.heads.alarm
	}
	if n.heads.acked == nil {
		n.heads.acked = make(map[string]uint64)
	}
	n.heads.acked[link] = s.Size
	return nil
}

// Alarm is what makes this node unfit to serve, nil when there is nothing.
func (n *Node) Alarm() error {
	n.heads.mu.Lock()
	defer n.heads.mu.Unlock()
	return n.heads.alarm
}

// neighbour is the node at the other end of a link.
func (n *Node) neighbour(link string) (*certs.Node, error) {
	d := n.Directory()
	l, ok := d.Link(link)
	if !ok || l.A != n.c.ID && l.B != n.c.ID {
		return nil, exchange.Fail(exchange.CodeNoRoute, "link %q is not one of node %s", link, n.c.ID)
	}
	other := l.A
	if other == n.c.ID {
		other = l.B
	}
	node, ok := d.Node(other)
	if !ok {
		return nil, exchange.Fail(exchange.CodeNoRoute, "node %q of link %q is not in the directory", other, link)
	}
	return node, nil
}

// IsStoreTrouble says whether an error of Witness or Seen is about our own
// storage rather than about what the neighbour said.
func IsStoreTrouble(err error) bool {
	var said *exchange.Error
	return !errors.As(err, &said)
}
