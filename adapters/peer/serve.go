package peer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/mux"

	"github.com/yizhan-gateway/yizhan/exchange/link"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// slowest bounds how long a neighbour may take to send a bundle, and how long
// to take one in.
const slowest = 5 * time.Minute

// turn lets one request at a time have a side of a link. A dialer has no two
// of a kind under way, so a second one means that it has given up the first,
// whose connection may be dead without our knowing: the first is cut off and
// its bundle ends where it is.
type turn struct {
	busy sync.Mutex

	mu  sync.Mutex
	end func() // cuts off who has it; nil when nobody has
}

// take waits for the turn. The context ends when a later request wants it.
func (t *turn) take(w http.ResponseWriter, r *http.Request) (ctx context.Context, release func()) {
	ctx, cancel := context.WithCancel(r.Context())
	conn := http.NewResponseController(w)
	end := func() {
		cancel()
		now := time.Now()
		_ = conn.SetReadDeadline(now) // a connection without deadlines is not cut
		_ = conn.SetWriteDeadline(now)
	}
	t.mu.Lock()
	if t.end != nil {
		t.end()
	}
	t.mu.Unlock()
	t.busy.Lock()
	t.mu.Lock()
	t.end = end
	t.mu.Unlock()
	return ctx, func() {
		t.mu.Lock()
		t.end = nil
		t.mu.Unlock()
		cancel()
		t.busy.Unlock()
	}
}

// Handler answers POST /v1/link/{link}/push and /poll. It must be served with
// TLS that asks for the client's key, as Serve does: a request without the
// neighbour's pinned key is refused.
func (p *Peer) Handler() http.Handler {
	r := mux.NewRouter().SkipClean(true)
	r.HandleFunc("/v1/link/{link}/push", p.neighbourOnly(p.servePush)).Methods(http.MethodPost)
	r.HandleFunc("/v1/link/{link}/poll", p.neighbourOnly(p.servePoll)).Methods(http.MethodPost)
	return r
}

type lineHandler func(w http.ResponseWriter, r *http.Request, l *line)

// neighbourOnly finds the link and checks that its neighbour is calling.
func (p *Peer) neighbourOnly(next lineHandler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		// Also for what is refused: the server reads a body before it answers. A
		// writer without a connection, in a test, has no deadlines.
		_ = deadlines(w)
		d := p.c.Node.Directory()
		known, ok := d.Link(mux.Vars(r)["link"])
		if !ok || known.A != p.c.Node.ID() && known.B != p.c.Node.ID() {
			http.Error(w, "this node has no such link", http.StatusNotFound)
			return
		}
		n, ok := d.Node(known.Neighbour(p.c.Node.ID()))
		if !ok || !shows(r.TLS, n) {
			http.Error(w, "the TLS key is not the one pinned for this link's neighbour", http.StatusForbidden)
			return
		}
		if known.Dialer == p.c.Node.ID() || known.Kind != "https" {
			http.Error(w, "this node dials on this link, or it is no https link", http.StatusConflict)
			return
		}
		l, err := p.line(known.ID)
		if err != nil {
			p.trouble(w, known.ID, err)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, link.MaxBundle)
		next(w, r, l)
	}
}

// deadlines bound both directions of the connection from now on.
func deadlines(w http.ResponseWriter) error {
	conn, until := http.NewResponseController(w), time.Now().Add(slowest)
	return errors.Join(conn.SetReadDeadline(until), conn.SetWriteDeadline(until))
}

func (p *Peer) trouble(w http.ResponseWriter, id string, err error) {
	p.c.Logger.Warn("a bundle could not be handled", "link", id, "error", err)
	http.Error(w, "not possible at the moment; the bundle was not taken whole", http.StatusServiceUnavailable)
}

// receive takes the request's bundle; false when the answer is written.
func (p *Peer) receive(w http.ResponseWriter, r *http.Request, l *line, kind what) bool {
	err := deadlines(w)
	if err == nil {
		_, err = l.session.Receive(r.Context(), r.Body)
	}
	switch {
	case errors.Is(err, link.ErrNewer):
		p.notice(w, r, l)
		return false
	case errors.Is(err, link.ErrHeld):
		http.Error(w, "the operator of this node holds the link; keep what you have", http.StatusServiceUnavailable)
		return false
	case errors.Is(err, link.ErrFault):
		http.Error(w, fmt.Sprintf("link fault: %v", err), http.StatusBadRequest)
		return false
	case err != nil:
		p.trouble(w, l.link, err)
		return false
	}
	l.succeeded(kind)
	return true
}

// notice answers a neighbour whose directory is newer than ours: from it the
// neighbour learns which one we have, and brings what is missing.
func (p *Peer) notice(w http.ResponseWriter, r *http.Request, l *line) {
	o, err := l.session.Next(r.Context(), link.Notice)
	if err != nil {
		p.trouble(w, l.link, err)
		return
	}
	p.write(w, r, l, o)
}

func (p *Peer) servePush(w http.ResponseWriter, r *http.Request, l *line) {
	_, release := l.turns[push].take(w, r)
	defer release()
	if !p.receive(w, r, l, push) {
		return
	}
	o, err := l.session.Next(r.Context(), link.Reply)
	if err != nil {
		p.trouble(w, l.link, err)
		return
	}
	p.write(w, r, l, o)
}

// servePoll waits until something is there for the neighbour.
func (p *Peer) servePoll(w http.ResponseWriter, r *http.Request, l *line) {
	ctx, release := l.turns[poll].take(w, r)
	defer release()
	if !p.receive(w, r, l, poll) {
		return
	}
	o, err := p.answer(ctx, l, waitOf(r))
	switch {
	case err != nil && ctx.Err() == nil:
		p.trouble(w, l.link, err)
	case o == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		p.write(w, r, l, o)
	}
}

func waitOf(r *http.Request) time.Duration {
	n, err := strconv.Atoi(r.Header.Get(waitHeader))
	if err != nil || n < 0 {
		return 0
	}
	return min(time.Duration(n)*time.Second, pollWait)
}

func (p *Peer) answer(ctx context.Context, l *line, wait time.Duration) (*link.Outgoing, error) {
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	tick := time.NewTicker(time.Second) // items held back become ready without a commit
	defer tick.Stop()
	var seen node.Growth
	for first := true; ; first = false {
		changed := p.c.Node.Changed()
		// Many polls wait here, and most commits are about none of them.
		if growth := p.c.Node.Growth(l.link); first || growth != seen || p.c.Node.Held(l.link) {
			seen = growth
			o, err := l.session.Next(ctx, link.Answer)
			if o != nil || err != nil {
				return o, err
			}
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-deadline.C:
			return nil, nil
		case <-ending(ctx):
			return nil, nil
		case <-ctx.Done():
			return nil, nil
		}
	}
}

func (p *Peer) write(w http.ResponseWriter, r *http.Request, l *line, o *link.Outgoing) {
	w.Header().Set("Content-Type", bundleMedia)
	w.Header().Set("Content-Length", strconv.FormatInt(o.Size(), 10))
	if _, err := o.WriteTo(w); err != nil {
		l.session.Lost(context.WithoutCancel(r.Context()), o)
		p.c.Logger.Info("a bundle could not be sent", "link", l.link, "error", err)
	}
}
