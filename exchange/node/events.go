package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// What an agency is told of its documents is read from the ledger: each change of
// state is a leaf there anyway, in its order and for good, so telling costs no
// commit, and whoever was away goes on where they were.

// The kinds of a Happening.
const (
	HappenedReceived = "received" // the document lies in the agency's inbox
	HappenedStage    = "stage"    // a receipt about a document that the agency sent or received
	HappenedRequest  = "request"  // the sender recalls the document, or reminds of it
)

// Happening is one thing that happened to a document, as an agency is told it: no
// title and no text. Agencies are those that it is about, none where that is all: to a
// sender recipients, to a recipient the sender.
type Happening struct {
	At       Position
	Kind     string
	Document string
	Stage    exchange.Stage // of a receipt
	Wish     exchange.Wish  // of a request
	Object   sm.Digest      // the receipt or the request
	Agencies []string
	Time     time.Time
}

// Position is a place in a node's ledger; the zero one is before all. The ledger of a
// node that was restored is another one from where the copy ended.
type Position struct {
	Ledger string
	Seq    uint64 // 2·leaf+1 what a recipient is told, 2·leaf+2 what the sender is
}

// String is the position as a client keeps it.
func (p Position) String() string { return p.Ledger + "-" + strconv.FormatUint(p.Seq, 10) }

// ParsePosition reads what String wrote; empty is before all.
func ParsePosition(s string) (Position, error) {
	if s == "" {
		return Position{}, nil
	}
	ledger, seq, ok := strings.Cut(s, "-")
	n, err := strconv.ParseUint(seq, 10, 64)
	if !ok || err != nil || len(ledger) > 26 {
		return Position{}, exchange.Fail(exchange.CodeBadRequest, "%.60q is no position; use one that the node gave, or none", s)
	}
	return Position{ledger, n}, nil
}

// leavesAtOnce bounds the leaves that one call looks at.
const leavesAtOnce = 1000

// Happenings lists what happened to an agency's documents behind a position, oldest
// first, at most limit, and the position up to which there is nothing else. When that
// is not further than after, there is no more at the moment.
func (n *Node) Happenings(ctx context.Context, agency string, after Position, limit int) (list []Happening, upto Position, err error) {
	upto = n.onThisLedger(after)
	from := upto.Seq / 2
	leaves, err := n.events.leaves(ctx, n, from)
	if err != nil {
		return nil, upto, err
	}
	for i, told := range leaves {
		for _, t := range told {
			seq := 2*(from+uint64(i)) + t.turn
			if t.agency != agency || seq <= upto.Seq {
				continue
			}
			if len(list) == limit {
				return list, upto, nil
			}
			h := t.what
			h.At = Position{n.ledgerID, seq}
			list, upto = append(list, h), h.At
		}
		upto.Seq = max(upto.Seq, 2*(from+uint64(i)+1))
	}
	return list, upto, nil
}

// Newest is the position behind all that happened so far.
func (n *Node) Newest(ctx context.Context) (Position, error) {
	var size uint64
	err := n.view(ctx, func(tx queue.Tx) (err error) {
		size, err = n.ledger.Size(tx)
		return err
	})
	return Position{n.ledgerID, 2 * size}, err
}

// onThisLedger moves a position of a ledger that this node had before it was restored
// to where the present one left it. What came after that happens again.
func (n *Node) onThisLedger(p Position) Position {
	if p.Ledger == n.ledgerID {
		return p
	}
	seq := uint64(0)
	if n.restored.row != nil {
		for _, old := range n.restored.row.Old {
			if old.Ledger == p.Ledger {
				seq = min(p.Seq, 2*old.Size)
			}
		}
	}
	return Position{n.ledgerID, seq}
}

// toldOne is a Happening for one agency; turn is 1 or 2, see Position.
type toldOne struct {
	agency string
	turn   uint64
	what   Happening
}

// memory keeps what the newest leaves tell, for all who follow them at once.
type memory struct {
	mu    sync.Mutex
	first uint64
	told  [][]toldOne
}

// remembered is how many leaves a memory holds.
const remembered = 8 * leavesAtOnce

// leaves gives what each leaf from an index on tells, as far as one call looks.
func (m *memory) leaves(ctx context.Context, n *Node, from uint64) ([][]toldOne, error) {
	if have := m.have(from); len(have) > 0 {
		return have, nil
	}
	var out [][]toldOne
	err := n.view(ctx, func(tx queue.Tx) error {
		out = nil
		size, err := n.ledger.Size(tx)
		if err != nil {
			return err
		}
		for i := from; i < size && len(out) < leavesAtOnce; i++ {
			told, err := n.tell(tx, i)
			if err != nil {
				return fmt.Errorf("leaf %d: %w", i, err)
			}
			out = append(out, told)
		}
		return nil
	})
	if err == nil {
		m.keep(from, out)
	}
	return out, err
}

func (m *memory) have(from uint64) [][]toldOne {
	m.mu.Lock()
	defer m.mu.Unlock()
	if from < m.first || from >= m.first+uint64(len(m.told)) {
		return nil
	}
	have := m.told[from-m.first:]
	return have[:min(len(have), leavesAtOnce)]
}

// keep takes in leaves that follow those it has, or are newer; whoever reads the past
// does not push out what all others read.
func (m *memory) keep(from uint64, told [][]toldOne) {
	m.mu.Lock()
	defer m.mu.Unlock()
	end := m.first + uint64(len(m.told))
	switch {
	case from+uint64(len(told)) <= end:
		return
	case from <= end && from >= m.first:
		m.told = append(m.told, told[end-from:]...)
	default:
		m.first, m.told = from, told
	}
	if over := len(m.told) - remembered; over > 0 {
		m.first, m.told = m.first+uint64(over), slices.Clone(m.told[over:])
	}
}

// tell says what one leaf tells to the agencies of this node. What cannot be read is
// shown by the check of the store, and tells nothing.
func (n *Node) tell(tx queue.Tx, i uint64) ([]toldOne, error) {
	b, err := n.ledger.Leaf(tx, i)
	if err != nil {
		return nil, err
	}
	leaf, err := merkle.ParseLeaf(b)
	if err != nil || leaf.Envelope == "" {
		return nil, nil
	}
	hh, err := sm.ParseDigest(leaf.Envelope)
	if err != nil {
		return nil, nil
	}
	told, err := n.tellOf(tx, leaf, hh)
	if errors.Is(err, records.ErrUnreadable) {
		return nil, nil
	}
	return told, err
}

// notOfReceipts are the events that name a receipt which an earlier leaf told of, or
// one that is not judged yet.
var notOfReceipts = []string{eventHanded, eventDeferred, eventReplayed}

func (n *Node) tellOf(tx queue.Tx, leaf *merkle.Leaf, hh sm.Digest) ([]toldOne, error) {
	env, err := records.Envelopes.Get(tx, hh)
	if err != nil || env == nil {
		return nil, err
	}
	if leaf.Event == eventAsked {
		row, err := records.Requests.Get(tx, hh, leaf.Object)
		if err != nil || row == nil {
			return nil, err
		}
		return tellRequest(tx, env, hh, leaf, row)
	}
	if slices.Contains(notOfReceipts, leaf.Event) {
		return nil, nil
	}
	row, err := records.Receipts.Get(tx, hh, leaf.Object)
	if err != nil || row == nil {
		return nil, err
	}
	return tellReceipt(tx, env, hh, leaf, row)
}

func tellRequest(tx queue.Tx, env *records.Envelope, hh sm.Digest, leaf *merkle.Leaf, row *records.Request) ([]toldOne, error) {
	r, err := openRequest(row)
	if err != nil {
		return nil, nil
	}
	what := Happening{Kind: HappenedRequest, Document: env.ID, Wish: r.body.Wish, Object: leaf.Object, Time: leaf.At.Time()}
	return tellBoth(tx, env, hh, r.body.Recipients, what)
}

func tellReceipt(tx queue.Tx, env *records.Envelope, hh sm.Digest, leaf *merkle.Leaf, row *records.Receipt) ([]toldOne, error) {
	s, err := openStored(row)
	if err != nil {
		return nil, nil
	}
	r := s.body
	what := Happening{Kind: HappenedStage, Document: env.ID, Stage: r.Stage, Object: leaf.Object, Time: leaf.At.Time()}
	about := r.Recipients
	if r.Agency != "" && !slices.Contains(about, r.Agency) {
		about = append(slices.Clone(about), r.Agency)
	}
	return tellBoth(tx, env, hh, about, what)
}

// tellBoth tells those who have the document in their inbox here and whom it is about,
// and the sender if it is served here.
func tellBoth(tx queue.Tx, env *records.Envelope, hh sm.Digest, about []string, what Happening) ([]toldOne, error) {
	to := what
	to.Agencies = []string{env.Sender}
	if what.Stage == exchange.StageDelivered {
		to.Kind = HappenedReceived
	}
	told, err := tellRecipients(tx, hh, about, to)
	if err != nil {
		return nil, err
	}
	sent, err := records.Documents.Get(tx, env.Sender, env.ID)
	if err != nil || sent == nil || sent.Header != hh {
		return told, err
	}
	what.Agencies = about
	return append(told, toldOne{env.Sender, 2, what}), nil
}

// tellRecipients tells those who have the document in their inbox here.
func tellRecipients(tx queue.Tx, hh sm.Digest, agencies []string, what Happening) ([]toldOne, error) {
	var told []toldOne
	for _, agency := range agencies {
		row, err := records.Inbox.Get(tx, agency, hh)
		if err != nil {
			return nil, err
		}
		if row != nil {
			told = append(told, toldOne{agency, 1, what})
		}
	}
	return told, nil
}
