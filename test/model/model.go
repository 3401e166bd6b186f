// Package model says what a node must do with what is given to it, as plainly as
// can be: in memory, without any I/O, without a key. A test draws commands, gives
// them to the real engine and to this one, and compares what can be seen of both
// after each of them.
//
// Where the engine is free, the model says what is allowed and takes over what it
// did: the draw of a pause, the moment of a walk over what is due, and what of a
// commit stayed whose outcome nobody was told.
package model

import (
	"fmt"
	"slices"
	"time"
)

// The bounds that the engine promises.
const (
	Ranks      = 4 // of lanes: documents by urgency, and above them requests
	Requests   = Ranks - 1
	FirstPause = 200 * time.Millisecond
	LastPause  = time.Minute
	WalkEvery  = time.Minute // over what is overdue, and over what has expired
	Starving   = 10          // bundles, in which each rank that waits has an item
)

// Place is where the delivery to the neighbour stands.
type Place string

// The places.
const (
	Nowhere Place = ""        // there is no delivery of this kind
	Undone  Place = "undone"  // to be distributed
	Queued  Place = "queued"  // in a lane
	Parked  Place = "parked"  // a dead letter
	Handed  Place = "handed"  // the neighbour has it
	Refused Place = "refused" // the neighbour's word, for good
	Ended   Place = "ended"   // here, with a receipt
)

// Spot is a place, with the stage that a delivery ended with.
type Spot struct {
	Place Place
	Stage string
}

// Fate is whether the neighbour may have something of a delivery.
type Fate int

// The fates.
const (
	Ours    Fate = iota // it certainly never left
	Perhaps             // nobody knows whether a mark was made, or an answer counts
	Unknown             // it left
)

// Known is what is known of one item that the neighbour is to take.
type Known int

// What is known.
const (
	Due   Known = iota
	Maybe       // it was taken, and whether that was noted is not known
	Done
)

// ItemsOf is how many items a document has: header, slots and one part.
const ItemsOf = 3

// Pause is how long an entry that met trouble is held back: surely until Least,
// surely no longer than until Most.
type Pause struct {
	Bound       time.Duration
	Least, Most time.Time
}

// Entry is what stands in a lane: a document, or a request about it.
type Entry struct {
	Seq   uint64
	Since time.Time
	Pause Pause
}

// Document is one submission with at most one recipient at the neighbour and one
// served by the node itself.
type Document struct {
	No      int // in the order of their acceptance
	ID      string
	Rank    int
	Local   bool
	Expires time.Time

	Remote Spot // now
	may    []Spot
	Entry  Entry // while it is queued or parked
	Items  [ItemsOf]Known
	Fate   Fate
	Offers int // bundles that surely left with it

	Inbox string // the stage of the local delivery; empty: not delivered

	Recall  Place // of the request: Undone, Queued, Handed
	Request Entry
	lost    bool // what became of the request is not known: it is queued, or handed

	Arrived [ItemsOf]bool // at the neighbour
}

// Engine is the model of a node with one link.
type Engine struct {
	Documents []*Document
	DeadAfter time.Duration
	Held      bool
	Released  time.Time
	InboxIs   []*Document // in the order of their delivery

	came   [Ranks]uint64     // the first numbers in their lanes that a comparison has seen
	last   [Ranks + 1]uint64 // numbers given in each lane; the last one is that of the dead letters
	mark   [Ranks]uint64     // up to which number things surely left
	maybe  [Ranks]uint64     // and perhaps
	passed [Ranks]int        // bundles without one of a rank that waited
	walked time.Time         // since when no walk was made; zero: the next work begins with one
}

// Accept takes a document in, of which the client was told.
func (m *Engine) Accept(d *Document, remote bool, now time.Time) {
	d.No = len(m.Documents)
	m.Documents = append(m.Documents, d)
	switch {
	case remote && !d.Local:
		m.enter(d, now)
	case remote:
		d.Remote = Spot{Place: Undone}
	}
}

func (m *Engine) enter(d *Document, now time.Time) {
	d.Remote = Spot{Place: Queued}
	d.Entry = Entry{Since: now}
}

// Work is what must have happened when the node has no more work to do. sure says
// that nothing went wrong meanwhile.
func (m *Engine) Work(now time.Time, sure bool) {
	walk := sure && (m.walked.IsZero() || !now.Before(m.walked.Add(WalkEvery)))
	for _, d := range m.Documents {
		m.distribute(d, now)
		m.FateOf(d)
		spots := m.walks(d, now, walk)
		if d.Recall == Undone {
			spots = d.recalled(spots)
		}
		d.may = spots
	}
	m.walked = now // at the latest; it may have been before
}

// distribute is the first work on a document that has a recipient here.
func (m *Engine) distribute(d *Document, now time.Time) {
	late := !now.Before(d.Expires)
	if d.Local && d.Inbox == "" {
		if d.Inbox = "EXPIRED"; !late {
			d.Inbox = "DELIVERED"
			m.InboxIs = append(m.InboxIs, d)
		}
	}
	if d.Remote.Place == Undone {
		if m.enter(d, now); late {
			d.Remote = Spot{Ended, "EXPIRED"}
		}
	}
}

// walks gives where a delivery may stand after the walks over what has expired and
// over what is overdue; with must they were surely made.
func (m *Engine) walks(d *Document, now time.Time, must bool) []Spot {
	stay := []Spot{d.Remote}
	if d.Remote.Place != Queued && d.Remote.Place != Parked {
		return stay
	}
	if !now.Before(d.Expires) && d.Fate != Unknown {
		end := Spot{Ended, "EXPIRED"}
		if must && d.Fate == Ours {
			return []Spot{end}
		}
		stay = append(stay, end)
	}
	limit := now.Add(-m.DeadAfter)
	if d.Remote.Place == Queued && !d.Entry.Since.After(limit) && !m.Held && !m.Released.After(limit) {
		if stay = append(stay, Spot{Place: Parked}); must {
			stay = stay[1:]
		}
	}
	return stay
}

// recalled carries a request out, after the walks.
func (d *Document) recalled(spots []Spot) (out []Spot) {
	if d.Inbox == "DELIVERED" {
		d.Inbox = "RECALLED"
	}
	for _, s := range spots {
		waits := s.Place == Queued || s.Place == Parked
		if waits && d.Fate != Unknown {
			out = append(out, Spot{Ended, "RECALLED"})
		}
		if !waits || d.Fate != Ours {
			out = append(out, s)
		}
	}
	return out
}

// FateOf is what a delivery's own history says, and the marks of its lane.
func (m *Engine) FateOf(d *Document) Fate {
	f := d.Fate
	if d.Remote.Place == Queued && d.Entry.Seq > 0 {
		if d.Entry.Seq <= m.maybe[d.Rank] {
			f = max(f, Perhaps)
		}
		if d.Entry.Seq <= m.mark[d.Rank] {
			f = Unknown
		}
	}
	d.Fate = f
	return f
}

// Restart forgets what is in memory alone.
func (m *Engine) Restart() {
	for _, d := range m.Documents {
		d.Entry.Pause, d.Request.Pause = Pause{}, Pause{}
	}
	m.passed = [Ranks]int{}
	m.walked = time.Time{}
}

// Seen is an entry that the engine shows.
type Seen struct {
	Seq     uint64
	ID      string // of the document
	Request bool
}

// Shown is what can be seen of the engine: lanes by rank and, last, the dead letters;
// what the local agency has, in order; where each delivery ended.
type Shown struct {
	Lanes  [Ranks + 1][]Seen
	Inbox  []string
	Stages map[string]map[bool]string // by document, and whether the recipient is local
}

// Compare takes over what the engine was free to do, and says what it was not.
func (m *Engine) Compare(s *Shown, now time.Time) error {
	fresh := m.last
	m.came = [Ranks]uint64{}
	for lane, seen := range s.Lanes {
		for i, e := range seen {
			if i > 0 && e.Seq <= seen[i-1].Seq {
				return fmt.Errorf("lane %d shows %d behind %d", lane, e.Seq, seen[i-1].Seq)
			}
			fresh[lane] = max(fresh[lane], e.Seq)
		}
	}
	for _, d := range m.Documents {
		if err := m.settle(d, s, now); err != nil {
			return fmt.Errorf("document %d (%s): %w", d.No, d.ID, err)
		}
	}
	if err := m.everythingIsSomebodys(s); err != nil {
		return err
	}
	m.last = fresh
	var want []string
	for _, d := range m.InboxIs {
		want = append(want, d.ID)
	}
	if !slices.Equal(want, s.Inbox) {
		return fmt.Errorf("the inbox has %v, want %v", s.Inbox, want)
	}
	return nil
}

// settle finds where a document's deliveries stand among what is allowed.
func (m *Engine) settle(d *Document, s *Shown, now time.Time) error {
	if d.may == nil {
		d.may = []Spot{d.Remote}
	}
	at, seq := m.find(s, d, false)
	stage := s.Stages[d.ID][false]
	fits := func(spot Spot) bool {
		switch spot.Place {
		case Queued, Parked:
			return at == spot.Place && stage == "ACCEPTED"
		case Ended:
			return at == Nowhere && stage == spot.Stage
		case Nowhere:
			return at == Nowhere && stage == ""
		}
		return at == Nowhere && stage == "ACCEPTED"
	}
	i := slices.IndexFunc(d.may, fits)
	if i < 0 {
		return fmt.Errorf("stands at %q with %q, allowed is %v", at, stage, d.may)
	}
	was := d.Remote
	d.Remote, d.may = d.may[i], nil
	if d.Remote.Place == Queued || d.Remote.Place == Parked {
		lane := d.Rank
		if d.Remote.Place == Parked {
			lane = Ranks
		}
		switch moved := was.Place != d.Remote.Place || d.Entry.Seq == 0; {
		case moved && seq <= m.last[lane]:
			return fmt.Errorf("enters lane %d under the number %d, which was given before (%d)", lane, seq, m.last[lane])
		case moved && d.Entry.Seq == 0 && seq <= m.came[d.Rank]:
			return fmt.Errorf("enters lane %d before what was accepted before it", lane)
		case moved:
			if d.Entry.Seq == 0 {
				m.came[d.Rank] = seq
			}
			if was.Place != d.Remote.Place {
				d.Entry = Entry{Since: now}
			}
			d.Entry.Seq = seq
		case seq != d.Entry.Seq:
			return fmt.Errorf("has the number %d in lane %d, had %d", seq, lane, d.Entry.Seq)
		}
	}
	if d.Remote.Place == Ended && d.Arrived == [ItemsOf]bool{true, true, true} {
		return fmt.Errorf("ended with %s, and the neighbour has it", d.Remote.Stage)
	}
	if got := s.Stages[d.ID][true]; d.Local && got != d.inboxStage() {
		return fmt.Errorf("the local recipient stands at %s, want %s", got, d.inboxStage())
	}
	return m.settleRequest(d, s)
}

func (d *Document) inboxStage() string {
	if d.Inbox == "" {
		return "ACCEPTED"
	}
	return d.Inbox
}

// settleRequest: a recall that was carried out goes after what did not end here.
func (m *Engine) settleRequest(d *Document, s *Shown) error {
	at, seq := m.find(s, d, true)
	if d.Recall == Undone {
		if d.Recall = Handed; d.Remote.Place != Ended && d.Remote.Place != Nowhere {
			d.Recall = Queued
			d.Request = Entry{Seq: seq}
			if seq <= m.last[Requests] {
				return fmt.Errorf("its recall enters under the number %d of %d", seq, m.last[Requests])
			}
		}
	}
	if d.lost && at == Nowhere {
		d.Recall = Handed
	}
	d.lost = false
	if (d.Recall == Queued) != (at == Queued) || at == Queued && seq != d.Request.Seq {
		return fmt.Errorf("its recall stands at %q (%d), want %q (%d)", at, seq, d.Recall, d.Request.Seq)
	}
	return nil
}

func (m *Engine) find(s *Shown, d *Document, request bool) (at Place, seq uint64) {
	for lane, list := range s.Lanes {
		for _, e := range list {
			if e.ID != d.ID || e.Request != request {
				continue
			}
			if lane == Ranks {
				return Parked, e.Seq
			}
			if want := d.Rank; lane != want && !request {
				return Place(fmt.Sprintf("lane %d", lane)), e.Seq
			}
			return Queued, e.Seq
		}
	}
	return Nowhere, 0
}

// everythingIsSomebodys: no entry is there twice, and none that nobody gave.
func (m *Engine) everythingIsSomebodys(s *Shown) error {
	type one struct {
		id      string
		request bool
	}
	known, seen := map[string]bool{}, map[one]bool{}
	for _, d := range m.Documents {
		known[d.ID] = true
	}
	for lane, list := range s.Lanes {
		for _, e := range list {
			key := one{e.ID, e.Request}
			if !known[e.ID] || seen[key] {
				return fmt.Errorf("lane %d holds %s, which nobody gave, or twice", lane, e.ID)
			}
			seen[key] = true
		}
	}
	return nil
}
