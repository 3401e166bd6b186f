package peer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/gorilla/mux"

	"github.com/yizhan-gateway/yizhan/exchange/link"
)

// readTimeout bounds how long a neighbour may take to send a bundle.
const readTimeout = 5 * time.Minute

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
		if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTimeout)); err != nil {
			p.trouble(w, known.ID, err)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, link.MaxBundle)
		next(w, r, l)
	}
}

func (p *Peer) trouble(w http.ResponseWriter, id string, err error) {
	p.c.Logger.Warn("a bundle could not be handled", "link", id, "error", err)
	http.Error(w, "not possible at the moment; the bundle was not taken whole", http.StatusServiceUnavailable)
}

// receive takes the request's bundle; false when the answer is written.
func (p *Peer) receive(w http.ResponseWriter, r *http.Request, l *line) bool {
	_, err := l.session.Receive(r.Context(), r.Body)
	switch {
	case errors.Is(err, link.ErrFault):
		http.Error(w, fmt.Sprintf("link fault: %v", err), http.StatusBadRequest)
		return false
	case err != nil:
		p.trouble(w, l.link, err)
		return false
	}
	l.up()
	return true
}

func (p *Peer) servePush(w http.ResponseWriter, r *http.Request, l *line) {
	l.push.Lock()
	defer l.push.Unlock()
	if !p.receive(w, r, l) {
		return
	}
	o, err := l.session.Next(r.Context(), link.Reply)
	if err != nil {
		p.trouble(w, l.link, err)
		return
	}
	p.write(w, r, l, o)
}

// servePoll waits until something is there for the neighbour. A new poll ends
// an older one that still waits: its dialer has given it up.
func (p *Peer) servePoll(w http.ResponseWriter, r *http.Request, l *line) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	l.pollGuard.Lock()
	if l.cancelPoll != nil {
		l.cancelPoll()
	}
	l.cancelPoll = cancel
	l.pollGuard.Unlock()

	l.poll.Lock()
	defer l.poll.Unlock()
	if !p.receive(w, r, l) {
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
	for {
		changed := p.c.Node.Changed()
		o, err := l.session.Next(ctx, link.Answer)
		if o != nil || err != nil {
			return o, err
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-deadline.C:
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
		l.session.Lost(r.Context(), o)
		p.c.Logger.Info("a bundle could not be sent", "link", l.link, "error", err)
	}
}
