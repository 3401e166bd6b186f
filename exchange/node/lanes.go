package node

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

// The lanes of a link, in the order they are emptied: first the headers that a
// restored neighbour is given back, without which it can take no receipt for what it
// had sent; then receipts, since someone waits for them and they are small; then
// documents by urgency.
const (
	rankReceipt = 3
	rankOwn     = 4
	topRank     = rankOwn
)

const laneWork = "work"

func laneName(link string, rank int) string { return fmt.Sprintf("out/%s/%d", link, rank) }

// laneEntry is what waits in a lane: a reference, never content.
type laneEntry struct {
	Kind     string
	Envelope sm.Digest
	Object   sm.Digest // consignment id, receipt id
	// Since is when the entry came into this lane, so that along a lane times
	// rise with the numbers. One that an earlier version wrote has none.
	Since strictjson.Time `json:",omitzero"`
	// Again marks what a replay gives again.
	Again bool `json:",omitempty"`
}

func rankOf(u exchange.Urgency) int { return u.Rank() }

// send is enqueue, but for what has no way: that is counted, and stays where its
// document is.
func (n *Node) send(tx queue.Tx, link string, rank int, e laneEntry) error {
	if n.Way(link) == WayIn {
		return n.noWayBack(tx, link)
	}
	return n.enqueue(tx, link, rank, e)
}

func (n *Node) enqueue(tx queue.Tx, link string, rank int, e laneEntry) error {
	grows(tx, link)
	e.Since = n.now()
	if _, err := enqueueEntry(tx, laneName(link, rank), e); err != nil {
		return err
	}
	return noteExported(tx, link)
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

// laneWindow is how many entries are read at once.
const laneWindow = 64

// kindUnreadable stands for an entry whose row is damaged: it is held back and
// shown, and the others pass it.
const kindUnreadable = "unreadable entry"

// readLane gives up to limit entries behind after.
func readLane(tx queue.Tx, lane string, after uint64, limit int) ([]laneItem, error) {
	var out []laneItem
	for e, err := range queue.Entries(tx, lane, after, limit) {
		if err != nil {
			return nil, err
		}
		item := laneItem{seq: e.Seq}
		if json.Unmarshal(e.Value, &item.laneEntry) != nil {
			item.laneEntry = laneEntry{Kind: kindUnreadable}
		}
		out = append(out, item)
	}
	return out, nil
}

// front is what stands first in a lane: entries that were held and are due
// again, then the first window of the others.
type front struct {
	lane  string
	held  []laneItem
	next  []laneItem
	after uint64 // where to read on
}

// readFronts looks at the fronts of lanes in one View. It scans behind each
// lane's cursor and reads what is held by its key, so that no tombstone is
// walked over twice.
func (n *Node) readFronts(ctx context.Context, lanes ...string) ([]front, error) {
	var out []front
	err := n.view(ctx, func(tx queue.Tx) error {
		out = out[:0]
		for _, lane := range lanes {
			f, err := n.readFront(tx, lane)
			if err != nil {
				return err
			}
			out = append(out, f)
		}
		return nil
	})
	return out, err
}

func (n *Node) readFront(tx queue.Tx, lane string) (front, error) {
	f := front{lane: lane}
	after, known := n.lanes.get(lane)
	if !known {
		saved, held, err := queue.Front(tx, lane)
		if err != nil {
			return f, err
		}
		after = n.lanes.start(lane, saved, held)
	}
	for _, seq := range n.lanes.due(lane, after, n.c.Now()) {
		list, err := readLane(tx, lane, seq-1, 1)
		if err != nil {
			return f, err
		}
		if len(list) == 0 || list[0].seq != seq {
			n.lanes.left(lane, seq)
			continue
		}
		f.held = append(f.held, list[0])
	}
	var err error
	if f.next, err = readLane(tx, lane, after, laneWindow); err != nil {
		return f, err
	}
	if len(f.next) > 0 {
		f.after = f.next[len(f.next)-1].seq
		n.lanes.seen(lane, f.next)
		return f, nil
	}
	f.after, err = queue.Last(tx, lane)
	if err == nil {
		n.lanes.emptied(lane, f.after)
	}
	return f, err
}

// readOn gives the next window of a lane; none when it is at its end.
func (n *Node) readOn(ctx context.Context, f *front) (next []laneItem, err error) {
	err = n.view(ctx, func(tx queue.Tx) (err error) {
		next, err = readLane(tx, f.lane, f.after, laneWindow)
		return err
	})
	if len(next) > 0 {
		f.after = next[len(next)-1].seq
	}
	return next, err
}

// updateLane is update for a change that takes entries out of a lane. Now and
// then it saves the lane's cursor with it, so that a start finds it again.
func (n *Node) updateLane(ctx context.Context, lane string, fn func(queue.Tx) error) error {
	after, held, due := n.lanes.unsaved(lane)
	err := n.update(ctx, func(tx queue.Tx) error {
		if err := fn(tx); err != nil || !due {
			return err
		}
		return queue.SetFront(tx, lane, after, held)
	})
	if err == nil && due {
		n.lanes.saved(lane, after)
	}
	return err
}

// saveEvery is how far a cursor moves before it is saved: what a start may
// have to walk over once, besides the entries of one bundle.
const saveEvery = 8

// maxHeld bounds the entries of one lane that are held back each for itself.
// When more of them meet trouble the rest of the lane waits as one.
const maxHeld = 1024

// laneCursors remember for each lane up to where nothing is alive but what is
// held. They hold back entries that met trouble, so that one of them does not
// turn a link into a loop, and keep what each rank of a link has coming.
//
// A cursor only passes an entry that is gone or held; a held one is let go of
// only when it is seen to be gone. Entries come with rising numbers, so
// nothing ever appears before the cursor.
type laneCursors struct {
	mu     sync.Mutex
	random io.Reader
	lanes  map[string]*laneState
	turns  map[string][topRank + 1]turn
}

type laneState struct {
	after uint64
	saved uint64
	held  map[uint64]retry
	rest  retry // of all that is not held, once that many are
}

func (c *laneCursors) init(random io.Reader) {
	c.random = random
	c.lanes = make(map[string]*laneState)
	c.turns = make(map[string][topRank + 1]turn)
}

func (c *laneCursors) lane(name string) *laneState {
	l := c.lanes[name]
	if l == nil {
		l = new(laneState)
		c.lanes[name] = l
	}
	return l
}

func (c *laneCursors) get(lane string) (after uint64, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lanes[lane]
	if l == nil {
		return 0, false
	}
	return l.after, true
}

// behind is the cursor with the held entries, lowest first.
func (c *laneCursors) behind(lane string) (after uint64, held []uint64, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lanes[lane]
	if l == nil {
		return 0, nil, false
	}
	return l.after, slices.Sorted(maps.Keys(l.held)), true
}

// paused counts the entries that are held back each for itself.
func (c *laneCursors) paused(lane string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lanes[lane]
	if l == nil {
		return 0
	}
	return len(l.held)
}

// start takes over what an earlier process saved. Everything held is tried
// at once.
func (c *laneCursors) start(lane string, after uint64, held []uint64) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.lanes[lane]; l != nil {
		return l.after
	}
	if after == 0 { // an idle lane costs nothing here
		return 0
	}
	l := c.lane(lane)
	l.after, l.saved = after, after
	for _, seq := range held {
		l.hold(seq, retry{})
	}
	return after
}

// due lists the held entries up to a number whose pause is over.
func (c *laneCursors) due(lane string, upTo uint64, now time.Time) []uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lanes[lane]
	if l == nil {
		return nil
	}
	var out []uint64
	for _, seq := range slices.Sorted(maps.Keys(l.held)) {
		if seq > upTo || len(out) == laneWindow {
			break
		}
		if l.held[seq].over(now) {
			out = append(out, seq)
		}
	}
	return out
}

// left forgets an entry that is gone.
func (c *laneCursors) left(lane string, seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.lanes[lane]; l != nil {
		delete(l.held, seq)
	}
}

// seen moves the cursor to the first of the entries behind it that is not held.
func (c *laneCursors) seen(lane string, entries []laneItem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lanes[lane]
	if l == nil {
		if entries[0].seq == 1 {
			return
		}
		l = c.lane(lane)
	}
	for _, e := range entries {
		l.pass(e.seq - 1)
		if _, held := l.held[e.seq]; !held {
			return
		}
		l.pass(e.seq)
	}
}

// emptied moves the cursor behind everything that ever was in the lane.
func (c *laneCursors) emptied(lane string, last uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if last > 0 {
		c.lane(lane).pass(last)
	}
}

func (l *laneState) pass(seq uint64) { l.after = max(l.after, seq) }

// unsaved is the cursor with what is alive before it, once it has moved far
// enough to be saved.
func (c *laneCursors) unsaved(lane string) (after uint64, held []uint64, due bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lanes[lane]
	if l == nil || l.after < l.saved+saveEvery {
		return 0, nil, false
	}
	for _, seq := range slices.Sorted(maps.Keys(l.held)) {
		if seq <= l.after {
			held = append(held, seq)
		}
	}
	return l.after, held, true
}

func (c *laneCursors) saved(lane string, after uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lane(lane)
	l.saved = max(l.saved, after)
}

// ready says whether an entry may be tried.
func (c *laneCursors) ready(lane string, seq uint64, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lanes[lane]
	if l == nil {
		return true
	}
	if r, held := l.held[seq]; held {
		return r.over(now)
	}
	return l.rest.over(now)
}

// Held says whether something for a link is held back, which becomes ready
// without a commit.
func (n *Node) Held(link string) bool {
	for rank := range topRank + 1 {
		if n.lanes.holds(laneName(link, rank)) {
			return true
		}
	}
	return n.pauses.has(directoryLane(link)) || n.pauses.has(spaceOf(link)) || n.lowestOpen(link) > 0
}

func (c *laneCursors) holds(lane string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lanes[lane]
	return l != nil && (len(l.held) > 0 || l.rest.bound > 0)
}

// resting says whether all of a lane that is not held waits.
func (c *laneCursors) resting(lane string, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lanes[lane]
	return l != nil && !l.rest.over(now)
}

// turnsOf is what each rank of a link has coming.
func (c *laneCursors) turnsOf(link string) [topRank + 1]turn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.turns[link]
}

func (c *laneCursors) setTurns(link string, turns [topRank + 1]turn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if turns == ([topRank + 1]turn{}) {
		delete(c.turns, link)
		return
	}
	c.turns[link] = turns
}

// failed holds an entry back for a pause that grows with every failure, and
// says whether it failed before.
func (c *laneCursors) failed(lane string, seq uint64, now time.Time, err error) (again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lane(lane)
	r, held := l.held[seq]
	if !held && len(l.held) >= maxHeld {
		again = l.rest.bound > 0
		l.rest = l.rest.next(now, err, c.random)
		return again
	}
	l.hold(seq, r.next(now, err, c.random))
	return r.bound > 0
}

func (l *laneState) hold(seq uint64, r retry) {
	if l.held == nil {
		l.held = make(map[uint64]retry)
	}
	l.held[seq] = r
}

// succeeded ends the pauses of an entry. One that the cursor has passed stays
// among the held until it is seen to be gone.
func (c *laneCursors) succeeded(lane string, seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lanes[lane]
	if l == nil {
		return
	}
	if _, held := l.held[seq]; !held {
		l.rest = retry{}
	} else if seq <= l.after {
		l.held[seq] = retry{}
	} else {
		delete(l.held, seq)
	}
}

// retry is a pause: until when, how long it was, and the bound that it was drawn
// under.
type retry struct {
	until  time.Time
	length time.Duration
	bound  time.Duration
}

func pauseOf(now time.Time, length, bound time.Duration) retry {
	return retry{now.Add(length), length, bound}
}

// over says whether the pause has ended. One of which more is left than it was
// long began under a clock that was put back since: nobody waits for the day that
// it had shown.
func (r retry) over(now time.Time) bool {
	left := r.until.Sub(now)
	return left <= 0 || left > r.length
}

// The bounds of a pause.
const (
	firstBound = 200 * time.Millisecond
	lastBound  = time.Minute
	// hsmBound is how long after an HSM is back its documents still wait, at
	// most: everything waits for one device, and asking it again costs nothing.
	hsmBound = 3 * time.Second
)

// next doubles the bound.
func (r retry) next(now time.Time, err error, random io.Reader) retry {
	bound := min(max(2*r.bound, firstBound), lastBound)
	if errors.Is(err, keystore.ErrUnavailable) {
		bound = min(bound, hsmBound)
	}
	return pauseOf(now, jitter(bound, random), bound)
}

// jitter draws a pause of between half its bound and all of it, so that what
// failed together does not come back together.
func jitter(bound time.Duration, random io.Reader) time.Duration {
	var b [8]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return bound // a node without randomness signs nothing either
	}
	half := bound / 2
	return bound - time.Duration(binary.BigEndian.Uint64(b[:])%uint64(half+1))
}

// pauses hold back what waits in no lane: directories for a link, by version,
// and deferred items. A name that succeeds is forgotten, and another version
// under a name is not held.
type pauses struct {
	mu     sync.Mutex
	random io.Reader
	names  map[string]heldVersion
}

type heldVersion struct {
	retry
	version uint64
}

// maxPauses bounds them; beyond it the one that ends first gives way.
const maxPauses = 16384

func (p *pauses) init(random io.Reader) {
	p.random = random
	p.names = make(map[string]heldVersion)
}

func (p *pauses) ready(name string, version uint64, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.names[name]
	return h.version != version || h.over(now)
}

// failed holds a name back for a pause that grows with every failure.
func (p *pauses) failed(name string, version uint64, now time.Time, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.names[name]
	if h.version != version {
		h = heldVersion{}
	}
	p.put(name, heldVersion{h.next(now, err, p.random), version})
}

// hold keeps a name back for a time, less a fifth of it at most.
func (p *pauses) hold(name string, version uint64, now time.Time, pause time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	drawn := pause - 2*(pause/5) + jitter(2*(pause/5), p.random)
	p.put(name, heldVersion{pauseOf(now, drawn, lastBound/2), version})
}

func (p *pauses) has(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, have := p.names[name]
	return have
}

func (p *pauses) succeeded(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.names, name)
}

func (p *pauses) put(name string, h heldVersion) {
	if _, have := p.names[name]; !have && len(p.names) >= maxPauses {
		first := ""
		for k, v := range p.names {
			if c := v.until.Compare(p.names[first].until); first == "" || c < 0 || c == 0 && k < first {
				first = k
			}
		}
		delete(p.names, first)
	}
	p.names[name] = h
}
