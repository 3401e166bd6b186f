// Package sim runs the real node and link code of several nodes in one
// goroutine, under a scheduler that draws every decision from a seed: which
// client submits, which node works, which bundle is lost, doubled, reordered,
// truncated or has bits flipped, where a node loses its power, when which node
// first hears of a new directory. Stores and disks lose what was not synced.
// The same seed gives the same run, byte for byte; a failing seed prints the
// one command that replays it.
//
// The directories bring renewed keys for both nodes and a revocation that takes
// effect at some moment of the run; the links carry them on.
//
// After the storm comes a quiet phase without faults in which everything must
// finish; then the promises are checked. Refusing everything does not pass.
package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"math/rand/v2"
	"path"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/link"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/internal/durable/crashfs"
	"github.com/yizhan-gateway/yizhan/queue"
	"github.com/yizhan-gateway/yizhan/queue/blob"
)

// world is one run.
type world struct {
	ctx       context.Context
	seed      uint64
	rng       *rand.Rand
	stream    *rand.ChaCha8 // what the nodes use as randomness
	clock     time.Time
	faults    *faults
	cast      *cast
	hosts     []*host
	wire      []*message
	pairs     []*pair
	docs      []*submission
	keys      int // given to submissions
	log       hash.Hash
	lines     []string // the newest of the trace, for a failing seed
	shown     map[string][]node.Head
	last      uint64 // the directory that every node ends with
	roomy     bool   // disks have room at the moment, whatever the hour
	given     map[wayOf]givenUp
	stats     Stats
	strike    *strike            // the one I/O that fails, in a run of that kind
	jumps     bool               // clocks jump
	postponed map[sm.Digest]bool // forged headers that wait for a directory
}

// Stats count what a run went through.
type Stats struct {
	Submitted, Crashes, Lost, Doubled, Mangled, Bundles, Attacks int

	Installed, Spread int // directories: by a person, by a link
	Strangers         int // bundles under a directory not known yet, without it
	Stolen            int // attacks with a revoked key
	Void              int // what a revoked key signed when it was too late
	Waiting           int // forged headers that nobody could judge when they came
	Holds, Held       int // of links, and bundles that they turned away
	Requeued          int // dead letters
	Receipts          int // verified in the end
	Full              int // times that a disk had no room
	Expired           int // deliveries, in the end
	Recalls, Recalled int // asked for, and deliveries in the end
	GivenUp, Unknown  int // dead letters: ended for good, and not since the neighbour may have them
	Jumps             int // of clocks
}

// host is one node with the disk that survives its crashes.
type host struct {
	w        *world
	id       string
	store    *store
	fs       *crashfs.FS
	blobs    *blob.Store
	node     *node.Node
	shelf    *certs.Shelf
	keys     *keyring
	operator map[string]holding // by link
	torn     bool               // the power went while the shelf was at work
	boots    int
	skew     time.Duration // how far its clock is off
}

// pair is the link between two hosts, seen from both sides. There is at most
// one push and one poll under way, as in the peer adapter.
type pair struct {
	link     string
	dialer   *host
	listener *host
	a, b     *link.Session // dialer's and listener's side; new at every boot
	push     *call
	poll     *call
	ready    *link.Outgoing // the push that follows, made while one is under way
}

// call is a request under way.
type call struct {
	out     *link.Outgoing
	expires time.Time
}

// message is a bundle on the wire.
type message struct {
	p     *pair
	c     *call
	poll  bool
	reply bool
	boots int // of the receiver when it was sent; a reboot drops connections
	data  []byte
}

func newWorld(c *cast, seed uint64) *world {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	w := &world{
		postponed: map[sm.Digest]bool{},
		ctx:       context.Background(), seed: seed, cast: c,
		rng: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)), stream: rand.NewChaCha8(key),
		log: sm.New(), shown: map[string][]node.Head{}, given: map[wayOf]givenUp{},
	}
	// In every other run the directory stays as it is: there nothing at all may
	// be void.
	if w.last = versionFirst; seed%2 == 0 {
		w.last = versionLast
	}
	w.clock = c.start.Add(time.Duration(w.rng.Int64N(int64(spread))))
	w.faults = &faults{world: w}
	for _, id := range c.nodes {
		h := &host{w: w, id: id, fs: crashfs.New(w.rng), operator: map[string]holding{}}
		h.store = newStore(h.now, w.faults)
		h.keys = &keyring{Store: c.keys[id].WithRandom(w.stream), h: h, late: w.rng.IntN(2) == 0}
		w.hosts = append(w.hosts, h)
		h.enrol()
	}
	for _, l := range w.hosts[0].shelf.Current().LinksOf(c.nodes[0]) {
		p := &pair{link: l.ID, dialer: w.host(l.Dialer)}
		p.listener = w.host(l.A)
		if l.A == l.Dialer {
			p.listener = w.host(l.B)
		}
		w.pairs = append(w.pairs, p)
	}
	for _, h := range w.hosts {
		h.boot()
	}
	w.faults.armed = true
	return w
}

// now is what the host's clock shows.
func (h *host) now() time.Time { return h.w.clock.Add(h.skew) }

func (w *world) host(id string) *host {
	for _, h := range w.hosts {
		if h.id == id {
			return h
		}
	}
	return nil
}

// note adds a line to the trace, which the run's hash covers.
func (w *world) note(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	fmt.Fprintln(w.log, line)
	if w.lines = append(w.lines, line); len(w.lines) > 60 {
		w.lines = w.lines[1:]
	}
}

// Hash identifies the run: equal seeds must give equal hashes.
func (w *world) Hash() string { return fmt.Sprintf("%x", w.log.Sum(nil)) }

// boot opens the node over its disk as a process start does.
func (h *host) boot() {
	h.boots++
	blobs, err := blob.OpenSized(h.fs, "/blobs", 16<<10)
	h.w.must(err, "open blobs of "+h.id)
	h.blobs = blobs
	h.moreRoom()
	h.reopenShelf()
	h.node, err = node.New(h.w.ctx, node.Config{
		ID: h.id, Store: h.store, Blobs: blobs, Keys: h.keys,
		Directory: h.shelf.Current, Directories: directories{h}, Now: h.now, Rand: h.w.stream, Clock: "sim",
		DeadLetterAfter: deadLetterAfter, Room: h.room,
	})
	h.w.must(err, "open node "+h.id)
	h.w.checkHolds(h)
	for _, p := range h.w.pairs {
		if p.dialer == h {
			p.a = h.session(p.link)
			p.push, p.poll, p.ready = nil, nil, nil
		}
		if p.listener == h {
			p.b = h.session(p.link)
		}
	}
}

// moreRoom gives every other run's hosts a second directory of blobs at their
// second start; which one has most room changes from then on.
func (h *host) moreRoom() {
	if h.fs.Room == nil {
		h.fs.Room = map[string]int64{}
	}
	h.fs.Room["/blobs"], h.fs.Room["/more"] = h.w.rng.Int64N(100), h.w.rng.Int64N(100)
	if h.w.seed%4 < 2 || h.boots < 2 {
		return
	}
	list, err := h.blobs.Roots()
	h.w.must(err, "roots of "+h.id)
	if len(list) == 1 {
		h.w.must(errors.Join(h.fs.MkdirAll("/more"), h.blobs.Add("/more")), "add a root to "+h.id)
	}
}

func (h *host) session(name string) *link.Session {
	s, err := link.NewSession(h.node, name)
	h.w.must(err, "session "+name)
	return s
}

// guarded runs fn as process h: when the power goes (a panic with crash{}),
// the disk loses what was not synced and the process starts again. It says
// whether fn ran to its end.
func (w *world) guarded(h *host, fn func()) (whole bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, cut := r.(crash); !cut {
				panic(r)
			}
			whole = false
			w.restart(h)
		}
	}()
	fn()
	return true
}

func (w *world) restart(h *host) {
	w.stats.Crashes++
	w.note("%s loses power", h.id)
	h.fs.Crash()
	armed := w.faults.armed
	w.faults.armed = false
	h.boot()
	if w.rng.IntN(2) == 0 {
		_, err := h.blobs.Sweep(w.ctx, func(ref queue.Ref) (bool, error) { return h.node.Referenced(w.ctx, ref) })
		w.must(err, "sweep of "+h.id)
		_, err = h.blobs.Compact(w.ctx)
		w.must(err, "copying out at "+h.id)
	}
	w.faults.armed = armed
}

// must stops the run on what may never fail.
func (w *world) must(err error, what string) {
	if err != nil {
		panic(failure{path.Join(what, err.Error())})
	}
}

// failure is a broken promise.
type failure struct{ what string }

func (w *world) fail(format string, args ...any) { panic(failure{fmt.Sprintf(format, args...)}) }

func (s *Stats) add(t Stats) {
	s.Submitted += t.Submitted
	s.Crashes += t.Crashes
	s.Lost += t.Lost
	s.Doubled += t.Doubled
	s.Mangled += t.Mangled
	s.Bundles += t.Bundles
	s.Attacks += t.Attacks
	s.Installed += t.Installed
	s.Spread += t.Spread
	s.Strangers += t.Strangers
	s.Stolen += t.Stolen
	s.Void += t.Void
	s.Waiting += t.Waiting
	s.Holds += t.Holds
	s.Held += t.Held
	s.Requeued += t.Requeued
	s.Receipts += t.Receipts
	s.Full += t.Full
	s.Expired += t.Expired
	s.Recalls += t.Recalls
	s.Recalled += t.Recalled
	s.GivenUp += t.GivenUp
	s.Unknown += t.Unknown
	s.Jumps += t.Jumps
}

// isInjected says whether an error is one this world injected.
func isInjected(err error) bool {
	return errors.Is(err, queue.ErrUnknown) || errors.Is(err, crashfs.ErrInjected())
}
