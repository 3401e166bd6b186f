package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// Every change of state has a leaf, so the ledger is the stream of what happened:
// its order is that of the commits, and a place in it is durable. What a leaf
// means for whom is read once for all who follow.

// Happened is a change that an agency may see: a receipt or a request about a
// document that it sent or received. Leaf is its place.
type Happened struct {
	Leaf     uint64
	Document string
	Arrived  bool // the document is in the agency's inbox now
	Stage    exchange.Stage
	Wish     exchange.Wish
	Object   sm.Digest // receipt or request
	At       time.Time
}

// fact is what a leaf says, and of whom.
type fact struct {
	Happened
	hh         sm.Digest
	sender     string
	recipients []string // empty: all
}

// facts are those of the newest leaves that were asked for; nil is a leaf that is
// about no document.
type facts struct {
	mu sync.Mutex
	of map[uint64]*fact
}

const (
	maxFacts      = 4096
	happenedBatch = 200
)

// LedgerSize is how many leaves the node's ledger has.
func (n *Node) LedgerSize(ctx context.Context) (size uint64, err error) {
	err = n.view(ctx, func(tx queue.Tx) error {
		size, err = n.ledger.Size(tx)
		return err
	})
	return size, err
}

// HappenedSince gives what an agency may see from a leaf on, of a bounded number of
// leaves; next is where to go on, which is from itself when nothing is there.
func (n *Node) HappenedSince(ctx context.Context, agency string, from uint64) (list []Happened, next uint64, err error) {
	err = n.view(ctx, func(tx queue.Tx) error {
		list, next = nil, from
		size, err := n.ledger.Size(tx)
		if err != nil {
			return err
		}
		for ; next < min(size, from+happenedBatch); next++ {
			f, err := n.factOf(tx, next)
			if err != nil {
				return err
			}
			if f == nil {
				continue
			}
			h, ok, err := f.seenBy(tx, agency)
			if err != nil {
				return err
			}
			if ok {
				list = append(list, h)
			}
		}
		return nil
	})
	return list, next, err
}

func (n *Node) factOf(tx queue.Tx, i uint64) (*fact, error) {
	n.facts.mu.Lock()
	f, known := n.facts.of[i]
	n.facts.mu.Unlock()
	if known {
		return f, nil
	}
	f, err := n.readFact(tx, i)
	if err != nil {
		return nil, err
	}
	n.facts.mu.Lock()
	defer n.facts.mu.Unlock()
	if len(n.facts.of) >= maxFacts || n.facts.of == nil {
		n.facts.of = map[uint64]*fact{}
	}
	n.facts.of[i] = f
	return f, nil
}

func (n *Node) readFact(tx queue.Tx, i uint64) (*fact, error) {
	b, err := n.ledger.Leaf(tx, i)
	if err != nil {
		return nil, err
	}
	leaf, err := merkle.ParseLeaf(b)
	if err != nil {
		return nil, err
	}
	hh, err := sm.ParseDigest(leaf.Envelope)
	if err != nil || hh.IsZero() { // about no document
		return nil, nil
	}
	f := &fact{Happened: Happened{Leaf: i, Object: leaf.Object, At: leaf.At.Time()}, hh: hh}
	row, err := records.Receipts.Get(tx, hh, leaf.Object)
	if err != nil {
		return nil, err
	}
	if row != nil {
		s, err := openStored(row)
		if err != nil {
			return nil, err
		}
		f.Stage, f.recipients, f.Document = s.body.Stage, s.body.Recipients, s.body.Envelope
		f.Arrived = f.Stage == exchange.StageDelivered && leaf.Event == eventDelivered
	} else if !f.isRequest(tx) {
		return nil, nil
	}
	env, err := records.Envelopes.Get(tx, hh)
	if env == nil || err != nil {
		return nil, err
	}
	f.sender = env.Sender
	return f, nil
}

// isRequest says whether the leaf is of a request by a document's sender. One that
// cannot be read is said so by whoever acts on it.
func (f *fact) isRequest(tx queue.Tx) bool {
	row, err := records.Requests.Get(tx, f.hh, f.Object)
	if err != nil || row == nil {
		return false
	}
	r, err := openRequest(row)
	if err != nil {
		return false
	}
	f.Wish, f.recipients, f.Document = r.body.Wish, r.body.Recipients, r.body.Envelope
	return true
}

// seenBy says whether a fact is for an agency: the sender sees all, a recipient what
// is about itself once the document is in its inbox.
func (f *fact) seenBy(tx queue.Tx, agency string) (Happened, bool, error) {
	h := f.Happened
	about := slices.Contains(f.recipients, agency) || len(f.recipients) == 0 && f.Stage.Rank() >= exchange.StageDelivered.Rank()
	h.Arrived = h.Arrived && about
	if f.sender == agency {
		return h, true, nil
	}
	if !about {
		return h, false, nil
	}
	row, err := records.Inbox.Get(tx, agency, f.hh)
	return h, row != nil, err
}
