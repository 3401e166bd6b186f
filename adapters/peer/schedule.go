package peer

import (
	"container/heap"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

// schedule decides when each dialled link is called and when somebody looks
// whether there is something to push. It keeps both moments in heaps, owns no
// goroutine and reads no clock, so that a test may run ten thousand links
// through an hour.
//
// A neighbour is silent until a call finds it. While it is silent its link is
// in the heap of calls alone: one call per back-off, no push, no look into the
// store. One that answers keeps a poll open and is in no heap but for a look
// now and then.
type schedule struct {
	draw func(below time.Duration) time.Duration

	mu      sync.Mutex
	ctx     context.Context // of everything that is done
	links   map[string]*dialled
	due     [2]dueHeap // by what
	running [2]int
	slow    int
	wake    chan struct{}
}

// atOnce bounds what goes on together, by what; polls that stay open at a
// neighbour are apart, and so are pushes that have taken longer than slowPush, of
// which there may be slowAtOnce: neighbours that stand still hold up no others.
var atOnce = [2]int{push: 32, poll: 64}

const (
	slowPush   = 10 * time.Second
	slowAtOnce = 256
)

const (
	// A hint says when there is something new to push. What was held back
	// becomes ready without one, and a hint may be lost.
	lookHeld = time.Second
	lookIdle = time.Minute
	// perLink is over how long many links are spread that begin, or get a new
	// directory, at one moment: this for each of them, spreadMost in all.
	perLink    = 2 * time.Millisecond
	spreadMost = 10 * time.Second
)

// dialled is a link that this node dials.
type dialled struct {
	*line
	neighbour string

	timers  [2]timer
	ends    [2]context.CancelFunc // of what is under way
	caller  *caller               // while the neighbour answers
	hold    time.Time             // no push before
	silent  bool
	pushing bool
	slow    bool // the push has given its place to others
	again   bool // there is more since the push began
}

// end ends what is under way.
func (d *dialled) end(w what) {
	if d.ends[w] != nil {
		d.ends[w]()
		d.ends[w] = nil
	}
}

// timer is a link's place in a heap.
type timer struct {
	at    int64 // Unix nanoseconds
	place int   // from 1; 0 is in no heap
}

// job is one thing to do now.
type job struct {
	d      *dialled
	what   what
	ctx    context.Context
	silent bool // the call is to find out whether anybody is there
	caller *caller
}

func newSchedule(draw func(time.Duration) time.Duration) *schedule {
	s := &schedule{draw: draw, links: map[string]*dialled{}, wake: make(chan struct{}, 1)}
	s.due[poll].what = poll
	return s
}

func (s *schedule) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *schedule) set(d *dialled, w what, at time.Time) {
	d.timers[w].at = at.UnixNano()
	if place := d.timers[w].place; place > 0 {
		heap.Fix(&s.due[w], place-1)
	} else {
		heap.Push(&s.due[w], d)
	}
	s.kick()
}

func (s *schedule) unset(d *dialled, w what) {
	if place := d.timers[w].place; place > 0 {
		heap.Remove(&s.due[w], place-1)
	}
}

// spread draws a moment for one of many that begin together.
func (s *schedule) spread(many int) time.Duration {
	return s.draw(max(1, min(time.Duration(many)*perLink, spreadMost)))
}

// add begins with links.
func (s *schedule) add(ctx context.Context, list []*dialled, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ctx = ctx
	for _, d := range list {
		d.silent = true
		s.links[d.link] = d
		s.set(d, poll, now.Add(s.spread(len(list))))
	}
}

// remove lets a link go, with whatever is under way on it.
func (s *schedule) remove(d *dialled) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.end(poll)
	d.end(push)
	delete(s.links, d.link)
	s.unset(d, poll)
	s.unset(d, push)
}

func (s *schedule) all() []*dialled {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.links))
}

// take gives the next thing that is due, when there is room to do it.
func (s *schedule) take(now time.Time) (job, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range []what{poll, push} {
		h := &s.due[w]
		if s.running[w] >= atOnce[w] || len(h.list) == 0 || h.list[0].timers[w].at > now.UnixNano() {
			continue
		}
		d := heap.Pop(h).(*dialled)
		s.running[w]++
		if w == push {
			d.pushing, d.again = true, false
		}
		j := job{d: d, what: w, silent: d.silent, caller: d.caller}
		j.ctx, d.ends[w] = context.WithCancel(s.ctx)
		return j, true
	}
	return job{}, false
}

// next says for how long nothing can be done.
func (s *schedule) next(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait := time.Minute
	for w := range s.due {
		if h := &s.due[w]; len(h.list) > 0 && s.running[w] < atOnce[w] {
			wait = min(wait, time.Duration(h.list[0].timers[w].at-now.UnixNano()))
		}
	}
	return max(wait, 0)
}

// look makes somebody see whether there is something to push.
func (s *schedule) look(d *dialled, at time.Time) {
	if d.hold.After(at) {
		at = d.hold
	}
	switch t := d.timers[push]; {
	case d.silent || s.links[d.link] != d: // the call that finds it looks
	case d.pushing:
		d.again = true
	case t.place == 0 || t.at > at.UnixNano():
		s.set(d, push, at)
	}
}

// grew says that there may be something to push over a link.
func (s *schedule) grew(link string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.links[link]; d != nil {
		s.look(d, now)
	}
}

// grewAll says so of every link: for a new directory.
func (s *schedule) grewAll(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.links {
		s.look(d, now.Add(s.spread(len(s.links))))
	}
}

// called notes how a call went. After one that went well a poll is to be kept
// open, until the job's context ends or a poll fails.
func (s *schedule) called(j job, c *caller, err error, now time.Time) (open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := j.d
	s.running[poll]--
	s.kick()
	if s.links[d.link] != d {
		return false
	}
	if err != nil && errors.Is(err, errNoAnswer) {
		d.end(poll)
		s.lost(d, poll, err, now)
		return false
	}
	if d.silent && !j.silent { // a push met silence meanwhile, and the next call is planned
		return false
	}
	d.silent, d.caller = false, c
	s.unset(d, poll)
	s.look(d, now)
	if err != nil {
		d.end(poll)
		s.lost(d, poll, err, now)
	}
	return err == nil
}

// pollEnded notes that an open poll failed; false when it was ended here.
func (s *schedule) pollEnded(ctx context.Context, d *dialled, err error, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil || s.links[d.link] != d {
		return false
	}
	d.end(poll)
	s.lost(d, poll, err, now)
	return true
}

// yield lets others take the place of a push that takes long.
func (s *schedule) yield(d *dialled) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.pushing && !d.slow && s.slow < slowAtOnce {
		d.slow = true
		s.slow++
		s.running[push]--
		s.kick()
	}
}

// pushed notes how a push went; held says that something is held back.
func (s *schedule) pushed(j job, sent, held bool, err error, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := j.d
	if d.slow {
		s.slow--
	} else {
		s.running[push]--
	}
	d.pushing, d.slow = false, false
	s.kick()
	if s.links[d.link] != d {
		return
	}
	d.end(push)
	if err != nil {
		s.lost(d, push, err, now)
		return
	}
	d.hold = time.Time{}
	after := lookIdle
	switch {
	case sent || d.again:
		after = 0
	case held:
		after = lookHeld
	}
	s.look(d, now.Add(after/2+s.draw(after/2+1)))
}

// lost plans what comes after a failure. Without an answer the whole link is
// silent, whichever call met it: the poll ends, pushes wait for the next call.
func (s *schedule) lost(d *dialled, w what, err error, now time.Time) {
	after := d.failed(w, err, now, s.draw)
	if w == push {
		d.hold = now.Add(after)
	}
	if !errors.Is(err, errNoAnswer) {
		if w == poll {
			s.set(d, poll, now.Add(after))
		} else {
			s.look(d, now)
		}
		return
	}
	if !d.silent {
		d.end(poll)
		d.end(push)
	}
	if !d.silent || w == poll {
		s.set(d, poll, now.Add(after))
	}
	d.silent = true
	s.unset(d, push)
	if d.caller != nil {
		d.caller.client.CloseIdleConnections()
		d.caller = nil
	}
}

// dueHeap holds links by their moment for a push or a call.
type dueHeap struct {
	what what
	list []*dialled
}

func (h *dueHeap) Len() int { return len(h.list) }
func (h *dueHeap) Less(i, j int) bool {
	return h.list[i].timers[h.what].at < h.list[j].timers[h.what].at
}

func (h *dueHeap) Swap(i, j int) {
	h.list[i], h.list[j] = h.list[j], h.list[i]
	h.list[i].timers[h.what].place = i + 1
	h.list[j].timers[h.what].place = j + 1
}

func (h *dueHeap) Push(x any) {
	d := x.(*dialled)
	h.list = append(h.list, d)
	d.timers[h.what].place = len(h.list)
}

func (h *dueHeap) Pop() any {
	last := len(h.list) - 1
	d := h.list[last]
	h.list[last] = nil
	h.list = h.list[:last]
	d.timers[h.what].place = 0
	return d
}
