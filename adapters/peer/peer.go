// Package peer carries bundles between neighbouring nodes over HTTPS: TLS 1.3
// with both keys pinned by the directory. It owns the goroutines and sockets
// that package link does without.
//
// The dialer of a link keeps at most one push and one poll under way. A push
// brings its items and is replied to with their acks; a poll waits at the
// listener until something is there for the dialer, so that a node which can
// only dial out still receives within moments. While a neighbour does not
// answer, one call per back-off asks for it and nothing else happens on the
// link, however much waits. One schedule (see there) does this for all links.
package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/exchange/link"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// Config of a Peer. Certificate is the TLS key made by GenerateTLS.
type Config struct {
	Node        *node.Node
	Certificate tls.Certificate
	Logger      *slog.Logger
	// Jitter draws a duration below the one it is given; nil draws by chance.
	Jitter func(below time.Duration) time.Duration
}

// Peer serves and dials this node's https links.
type Peer struct {
	c Config

	schedule *schedule
	jobs     sync.WaitGroup
	open     sync.WaitGroup // polls

	mu    sync.Mutex
	lines map[string]*line
}

// line is one link's state in this process.
type line struct {
	link    string
	session *link.Session

	turns [2]turn // the listener handles one push and one poll at a time

	mu          sync.Mutex
	calls       [2]track // the dialer's pushes and polls
	connected   bool
	lastSuccess time.Time
}

// what is a push or a poll.
type what int

const (
	push what = iota
	poll
)

func (w what) String() string { return [2]string{"push", "poll"}[w] }

// track is how one kind of call fares: failures since its last success.
type track struct {
	failures int
	err      string
	retryAt  time.Time
}

// Status is how a link stands, for the operator. Connected says of a dialer
// that its last call succeeded, of a listener that its neighbour called within
// the time in which a living one must. LastError stays until the kind of call
// that met it succeeds.
type Status struct {
	Link        string    `json:"link"`
	Neighbour   string    `json:"neighbour"`
	Dialer      bool      `json:"dialer"`
	Connected   bool      `json:"connected"`
	LastSuccess time.Time `json:"last_success,omitzero"`
	LastError   string    `json:"last_error,omitempty"`
	Failures    int       `json:"failures"`
	RetryAt     time.Time `json:"retry_at,omitzero"`
}

// New makes a Peer; it does nothing before Serve or Run.
func New(c Config) *Peer {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Jitter == nil {
		c.Jitter = rand.N[time.Duration]
	}
	return &Peer{c: c, schedule: newSchedule(c.Jitter), lines: map[string]*line{}}
}

// line gives a link's state, beginning its session at first use.
func (p *Peer) line(id string) (*line, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.lines[id]; l != nil {
		return l, nil
	}
	s, err := link.NewSession(p.c.Node, id)
	if err != nil {
		return nil, err
	}
	l := &line{link: id, session: s}
	p.lines[id] = l
	return l, nil
}

// Status lists this node's https links, used or not.
func (p *Peer) Status() []Status {
	self := p.c.Node.ID()
	var out []Status
	for _, l := range p.c.Node.Directory().LinksOf(self) {
		if l.Kind != "https" {
			continue
		}
		s := Status{Link: l.ID, Neighbour: l.Neighbour(self), Dialer: l.Dialer == self}
		p.mu.Lock()
		line := p.lines[l.ID]
		p.mu.Unlock()
		if line != nil {
			line.fill(&s)
		}
		out = append(out, s)
	}
	return out
}

func (l *line) fill(s *Status) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Connected, s.LastSuccess = l.connected, l.lastSuccess
	if !s.Dialer {
		s.Connected = s.Connected && time.Since(l.lastSuccess) < 2*pollWait
	}
	for _, t := range l.calls {
		if t.failures > s.Failures {
			s.Failures, s.LastError, s.RetryAt = t.failures, t.err, t.retryAt
		}
	}
}

// serveGrace is how long bundles that are under way may take once a node stops.
const serveGrace = 5 * time.Second

// Serve answers neighbours on a listener until the context ends. Bundles that
// are under way then are taken and answered, within serveGrace; what waits for
// something to give is told that there is nothing.
func (p *Peer) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: p.Handler(), TLSConfig: p.serverTLS(),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(p.c.Logger.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context {
			return context.WithValue(context.WithoutCancel(ctx), endingKey{}, ctx.Done())
		},
	}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), serveGrace)
		defer cancel()
		err := server.Shutdown(grace)
		if err != nil { // the neighbour keeps what was not acknowledged
			err = errors.Join(err, server.Close())
		}
		stopped <- err
	}()
	err := server.ServeTLS(l, "", "")
	if ctx.Err() != nil {
		return <-stopped
	}
	return err
}

type endingKey struct{}

// ending is closed when the node stops; nil when nobody says so.
func ending(ctx context.Context) <-chan struct{} {
	done, _ := ctx.Value(endingKey{}).(<-chan struct{})
	return done
}

// Run dials the links that this node dials until the context ends. Links that
// a new directory brings are picked up, those it drops are let go.
func (p *Peer) Run(ctx context.Context) {
	defer p.open.Wait()
	defer p.jobs.Wait()
	var had followed
	for ctx.Err() == nil {
		changed := p.c.Node.Changed()
		had = p.follow(ctx, had)
		for _, link := range p.c.Node.Fresh() {
			p.schedule.grew(link, time.Now())
		}
		p.start()
		t := time.NewTimer(min(p.schedule.next(time.Now()), time.Second))
		select {
		case <-changed:
		case <-p.schedule.wake:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// start sets everything going that is due.
func (p *Peer) start() {
	for {
		j, due := p.schedule.take(time.Now())
		if !due {
			return
		}
		p.jobs.Go(func() {
			if j.what == push {
				p.pushNext(j)
			} else {
				p.call(j)
			}
		})
	}
}

// followed is what the links to dial were last taken from.
type followed struct{ directory, holds uint64 }

// follow takes up what the directory in force says, and which links are held,
// when that has changed.
func (p *Peer) follow(ctx context.Context, had followed) followed {
	now := followed{p.c.Node.Directory().Version(), p.c.Node.HoldChanges() + 1}
	if now == had {
		return had
	}
	wanted := p.dialed()
	for _, d := range p.schedule.all() {
		if l := wanted[d.link]; l == nil || l.Neighbour(p.c.Node.ID()) != d.neighbour {
			p.schedule.remove(d)
		} else {
			delete(wanted, d.link)
		}
	}
	var fresh []*dialled
	for id, l := range wanted {
		line, err := p.line(id)
		if err != nil {
			p.c.Logger.Error("a link cannot be used", "link", id, "error", err)
			now = followed{} // try again
			continue
		}
		fresh = append(fresh, &dialled{line: line, neighbour: l.Neighbour(p.c.Node.ID())})
	}
	p.schedule.add(ctx, fresh, time.Now())
	p.schedule.grewAll(time.Now())
	return now
}

// dialed are the links that this node is to dial now: not those it holds.

func (p *Peer) dialed() map[string]*certs.Link {
	out := map[string]*certs.Link{}
	for _, l := range p.c.Node.Directory().LinksOf(p.c.Node.ID()) {
		_, held := p.c.Node.LinkHold(l.ID)
		if l.Kind == "https" && l.Dialer == p.c.Node.ID() && !held {
			out[l.ID] = l
		}
	}
	return out
}

// The back-off: full jitter under a bound that doubles. The smallest pause is
// a tenth of the bound, so that chance never makes a tight loop.
const (
	firstPause = 100 * time.Millisecond
	maxPause   = 60 * time.Second
)

func backoff(failures int, draw func(time.Duration) time.Duration) time.Duration {
	bound := maxPause
	if failures < 10 {
		bound = min(maxPause, firstPause<<failures)
	}
	return bound/10 + draw(bound-bound/10)
}

// failed notes a failure and gives the pause before the next try. Each kind of
// call has its own count, so that one which always fails is not tried faster
// because the other succeeds.
func (l *line) failed(w what, err error, now time.Time, draw func(time.Duration) time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := &l.calls[w]
	after := backoff(t.failures, draw)
	t.failures++
	t.err, t.retryAt = err.Error(), now.Add(after)
	l.connected = false
	return after
}

func (l *line) retryAt(w what) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls[w].retryAt
}

// succeeded notes that a call did what it was for.
func (l *line) succeeded(w what) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls[w] = track{}
	l.connected, l.lastSuccess = true, time.Now()
}

// pause waits and says whether the context still lives.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
