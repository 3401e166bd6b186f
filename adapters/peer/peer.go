// Package peer carries bundles between neighbouring nodes over HTTPS: TLS 1.3
// with both keys pinned by the directory. It owns the goroutines and sockets
// that package link does without.
//
// The dialer of a link keeps at most one push and one poll under way. A push
// brings its items and is replied to with their acks; a poll waits at the
// listener until something is there for the dialer, so that a node which can
// only dial out still receives within moments. While a neighbour does not
// answer, one poll per back-off asks for it and nothing else happens on the
// link, however much waits.
package peer

import (
	"context"
	"crypto/tls"
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
}

// Peer serves and dials this node's https links.
type Peer struct {
	c Config

	mu    sync.Mutex
	lines map[string]*line
}

// line is one link's state in this process.
type line struct {
	link    string
	session *link.Session

	push, poll sync.Mutex // the listener handles one of each at a time
	pollGuard  sync.Mutex
	cancelPoll context.CancelFunc

	mu      sync.Mutex
	status  Status
	upAgain chan struct{} // closed while the link is up
}

// Status is how a link stands, for the operator.
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
	return &Peer{c: c, lines: map[string]*line{}}
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
	l := &line{link: id, session: s, upAgain: make(chan struct{})}
	close(l.upAgain)
	l.status = Status{Link: id, Neighbour: s.Neighbour()}
	p.lines[id] = l
	return l, nil
}

// Status lists the links that were used since the start.
func (p *Peer) Status() []Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Status
	for _, l := range p.c.Node.Directory().LinksOf(p.c.Node.ID()) {
		if line := p.lines[l.ID]; line != nil {
			line.mu.Lock()
			out = append(out, line.status)
			line.mu.Unlock()
		}
	}
	return out
}

// Serve answers neighbours on a listener until the context ends.
func (p *Peer) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: p.Handler(), TLSConfig: p.serverTLS(),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog:    slog.NewLogLogger(p.c.Logger.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(grace)
	}()
	err := server.ServeTLS(l, "", "")
	if ctx.Err() != nil {
		return <-stopped
	}
	return err
}

// Run dials the links that this node dials until the context ends. Links that
// a new directory brings are picked up, those it drops are let go.
func (p *Peer) Run(ctx context.Context) {
	running := map[string]context.CancelFunc{}
	var wait sync.WaitGroup
	defer wait.Wait()
	for {
		wanted := p.dialed()
		for id, cancel := range running {
			if wanted[id] == nil {
				cancel()
				delete(running, id)
			}
		}
		for id, l := range wanted {
			if running[id] != nil {
				continue
			}
			line, err := p.line(id)
			if err != nil {
				p.c.Logger.Error("a link cannot be used", "link", id, "error", err)
				continue
			}
			sub, cancel := context.WithCancel(ctx)
			running[id] = cancel
			p.dial(sub, &wait, line, l.Neighbour(p.c.Node.ID()))
		}
		if !pause(ctx, time.Second) {
			return
		}
	}
}

func (p *Peer) dialed() map[string]*certs.Link {
	out := map[string]*certs.Link{}
	for _, l := range p.c.Node.Directory().LinksOf(p.c.Node.ID()) {
		if l.Kind == "https" && l.Dialer == p.c.Node.ID() {
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

func backoff(failures int) time.Duration {
	bound := maxPause
	if failures < 10 {
		bound = min(maxPause, firstPause<<failures)
	}
	return bound/10 + rand.N(bound-bound/10)
}

// down notes a failure and gives the pause before the next try.
func (l *line) down(err error) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	after := backoff(l.status.Failures)
	if l.status.Connected || l.status.Failures == 0 {
		l.upAgain = make(chan struct{})
	}
	l.status.Connected = false
	l.status.Failures++
	l.status.LastError = err.Error()
	l.status.RetryAt = time.Now().Add(after)
	return after
}

// up notes that the neighbour answered.
func (l *line) up() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.status.Failures > 0 {
		close(l.upAgain)
	}
	l.status.Connected, l.status.Failures = true, 0
	l.status.LastSuccess, l.status.LastError, l.status.RetryAt = time.Now(), "", time.Time{}
}

// waitUp blocks while the neighbour does not answer.
func (l *line) waitUp(ctx context.Context) bool {
	l.mu.Lock()
	up := l.upAgain
	l.mu.Unlock()
	select {
	case <-up:
		return true
	case <-ctx.Done():
		return false
	}
}

func (l *line) isDown() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status.Failures > 0
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
