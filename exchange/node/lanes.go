package node

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/queue"
)

// The lanes of a link, in the order they are emptied: receipts first, since
// someone waits for them and they are small, then documents by urgency.
const (
	rankReceipt = 3
	topRank     = rankReceipt
)

const laneWork = "work"

func laneName(link string, rank int) string { return fmt.Sprintf("out/%s/%d", link, rank) }

// laneEntry is what waits in a lane: a reference, never content.
type laneEntry struct {
	Kind     string
	Envelope sm.Digest
	Object   sm.Digest // consignment id, receipt id
}

func rankOf(u exchange.Urgency) int { return u.Rank() }

func (n *Node) enqueue(tx queue.Tx, link string, rank int, e laneEntry) error {
	_, err := enqueueEntry(tx, laneName(link, rank), e)
	return err
}

func enqueueEntry(tx queue.Tx, lane string, e laneEntry) (uint64, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return 0, err
	}
	return queue.Enqueue(tx, lane, b)
}

type laneItem struct {
	seq uint64
	laneEntry
}

// readLane gives up to limit entries behind after.
func readLane(tx queue.Tx, lane string, after uint64, limit int) ([]laneItem, error) {
	var out []laneItem
	for e, err := range queue.Entries(tx, lane, after, limit) {
		if err != nil {
			return nil, err
		}
		item := laneItem{seq: e.Seq}
		if err := json.Unmarshal(e.Value, &item.laneEntry); err != nil {
			return nil, fmt.Errorf("node: unreadable entry %d in lane %s: %w", e.Seq, lane, err)
		}
		out = append(out, item)
	}
	return out, nil
}

// laneCursors remember where the first entry of each lane was last seen, so
// that no scan walks over the tombstones of what was done. They start at the
// front after a restart and may only be set to an entry seen as the first.
//
// They also hold back entries that the neighbour found damaged, so that one
// such item does not turn the link into a loop.
type laneCursors struct {
	mu    sync.Mutex
	after map[string]uint64
	held  map[laneSeq]retry
}

type laneSeq struct {
	lane string
	seq  uint64
}

func (c *laneCursors) init() {
	c.after = make(map[string]uint64)
	c.held = make(map[laneSeq]retry)
}

func (c *laneCursors) ready(lane string, seq uint64, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !now.Before(c.held[laneSeq{lane, seq}].until)
}

// pause notes whether the last sending of an entry met damage.
func (c *laneCursors) pause(lane string, seq uint64, now time.Time, damaged bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := laneSeq{lane, seq}
	if !damaged {
		delete(c.held, k)
		return
	}
	c.held[k] = c.held[k].next(now)
}

// hold keeps an entry back until a time.
func (c *laneCursors) hold(lane string, seq uint64, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held[laneSeq{lane, seq}] = retry{until: until, after: time.Minute}
}

func (c *laneCursors) get(lane string) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.after[lane]
}

// first notes that seq is the first live entry of the lane. Entries come with
// rising numbers only, so nothing ever appears before it again.
func (c *laneCursors) first(lane string, seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.after[lane] = max(c.after[lane], seq-1)
}
