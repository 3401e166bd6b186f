package node

import (
	"context"
	"maps"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

// A link that is held stands still on this side until it is released: nothing
// is given to its neighbour and nothing taken, whatever waits, also after a
// restart. The neighbour is told so when it brings something, and keeps it; it
// may still say what became of items that had left before, so that nothing
// stays unknown for the hold alone. Directories wait, too.
//
// Rows decide; the copy in memory is what links ask at every bundle.

// Hold is why a link is held, and since when.
type Hold = records.Hold

// Who says on whose behalf an operator's act is done, and why.
type Who struct {
	By     string `json:"by"`
	Reason string `json:"reason"`
}

const (
	maxBy     = 100
	maxReason = 500 // bytes
)

// check takes what a person can read back.
func (w Who) check(needReason bool) error {
	switch {
	case w.By == "" || len(w.By) > maxBy || !printable(w.By):
		return exchange.Fail(exchange.CodeBadRequest, "by: a name of at most %d bytes is expected", maxBy)
	case needReason && w.Reason == "":
		return exchange.Fail(exchange.CodeBadRequest, "reason: one is needed")
	case len(w.Reason) > maxReason || !printable(w.Reason):
		return exchange.Fail(exchange.CodeBadRequest, "reason: at most %d bytes of text in one line are possible", maxReason)
	}
	return nil
}

func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// act notes what an operator did, in the transaction that does it; hh is the
// envelope it is about, nil for none.
func (n *Node) act(tx queue.Tx, hh *sm.Digest, a *records.OperatorAct) (leaf uint64, err error) {
	a.At = n.now()
	b, err := strictjson.Marshal(a)
	if err != nil {
		return 0, err
	}
	entry := &merkle.Leaf{Event: a.What, Object: sm.Sum(b), At: a.At}
	if hh != nil {
		entry.Envelope = hh.String()
	}
	leaf, err = n.append(tx, entry)
	if err != nil {
		return 0, err
	}
	return leaf, records.Acts.Insert(tx, a, leaf)
}

// holds is the copy of the holds, and how often it changed.
type holds struct {
	reading sync.Mutex // so that an older view never replaces a newer one
	mu      sync.Mutex
	links   map[string]Hold
	changes uint64
}

// readHolds takes over what is in the store.
func (n *Node) readHolds(ctx context.Context) error {
	n.holds.reading.Lock()
	defer n.holds.reading.Unlock()
	links := map[string]Hold{}
	err := n.view(ctx, func(tx queue.Tx) error {
		clear(links)
		return records.Holds.Each(tx, 0, func(key []byte, h *Hold) bool {
			links[records.Holds.Name(key)] = *h
			return true
		})
	})
	if err != nil {
		return err
	}
	n.holds.mu.Lock()
	defer n.holds.mu.Unlock()
	if !maps.Equal(n.holds.links, links) {
		n.holds.changes++
	}
	n.holds.links = links
	return nil
}

// LinkHold says whether a link is held, and why.
func (n *Node) LinkHold(link string) (Hold, bool) {
	n.holds.mu.Lock()
	defer n.holds.mu.Unlock()
	h, known := n.holds.links[link]
	return h, known && h.Released == 0
}

// releasedAt is when a link was last released; the zero time if it never was.
func (n *Node) releasedAt(link string) time.Time {
	n.holds.mu.Lock()
	defer n.holds.mu.Unlock()
	if h := n.holds.links[link]; h.Released != 0 {
		return h.Released.Time()
	}
	return time.Time{}
}

// HoldChanges counts the changes of what is held.
func (n *Node) HoldChanges() uint64 {
	n.holds.mu.Lock()
	defer n.holds.mu.Unlock()
	return n.holds.changes
}

// HoldLink holds a link. One that is held already gets the new reason.
func (n *Node) HoldLink(ctx context.Context, link string, who Who) error {
	if err := who.check(true); err != nil {
		return err
	}
	if _, err := n.neighbour(link); err != nil {
		return exchange.Fail(exchange.CodeNotFound, "link %q is none of node %s", link, n.c.ID)
	}
	return n.changeHold(ctx, func(tx queue.Tx) error {
		a := &records.OperatorAct{What: eventHeld, Link: link, By: who.By, Reason: who.Reason}
		leaf, err := n.act(tx, nil, a)
		if err != nil {
			return err
		}
		h := &Hold{Leaf: leaf, By: who.By, Reason: who.Reason, At: a.At}
		had, err := records.Holds.Lock(tx, link)
		if err == nil && had == nil {
			return records.Holds.Insert(tx, h, link)
		}
		if err != nil {
			return err
		}
		return records.Holds.Put(tx, h, link)
	})
}

// ReleaseLink lets a held link go on.
func (n *Node) ReleaseLink(ctx context.Context, link string, who Who) error {
	if err := who.check(false); err != nil {
		return err
	}
	return n.changeHold(ctx, func(tx queue.Tx) error {
		had, err := records.Holds.Lock(tx, link)
		if err != nil {
			return err
		}
		if had == nil || had.Released != 0 {
			return exchange.Fail(exchange.CodeNotFound, "link %q is not held", link)
		}
		a := &records.OperatorAct{What: eventReleased, Link: link, By: who.By, Reason: who.Reason}
		if _, err := n.act(tx, nil, a); err != nil {
			return err
		}
		return records.Holds.Put(tx, &Hold{Released: a.At}, link)
	})
}

// changeHold commits a change, and then reads what is held now, also when
// nobody knows whether the commit happened. A crash between the two is a start.
func (n *Node) changeHold(ctx context.Context, change func(queue.Tx) error) error {
	err := n.c.Store.Update(ctx, change)
	if e := n.readHolds(context.WithoutCancel(ctx)); err == nil {
		err = e
	}
	n.Wake()
	return err
}
