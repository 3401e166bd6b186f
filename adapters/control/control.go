// Package control is the operator's door to a running node: HTTP with JSON over
// a Unix socket in the data directory, for the commands of this program that
// ask a node for something or tell it to do something.
//
// Only the user that the node runs as, and root, get an answer: the socket has
// mode 0600 and the kernel says whose process is at the other end. Requests are
// bounded in size, number and time. There is at most one socket in a data
// directory, since only who holds the serve lock may [Listen]; one that a dead
// process left behind is replaced.
//
// A route is a method and a path, like "GET /queues", with a [Handler]. What it
// returns is sent as one JSON object. A handler that reports progress makes the
// answer a stream of lines instead: any number of {"progress":…} and one
// {"result":…} or {"problem":…} at the end; an answer without such an end was
// cut off. A problem is the stable code, its detail, and whether trying again
// can help: see [exchange.Error].
package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// The bounds. A handler of [Server.Handle] has handlerTime; one of
// [Server.HandleLong] may take as long as its caller waits, but each of its
// lines must be read within lineTime.
const (
	maxRequest  = 1 << 20
	maxAtOnce   = 16
	readTime    = 10 * time.Second
	handlerTime = time.Minute
	lineTime    = 30 * time.Second
)

// Handler answers a request.
type Handler func(ctx context.Context, q *Request) (result any, err error)

// Request is what a handler is asked.
type Request struct {
	Query url.Values

	body []byte
	out  *lines
}

// Decode reads the request's body, one JSON object with known members only.
func (q *Request) Decode(into any) error {
	d := json.NewDecoder(bytes.NewReader(q.body))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil && d.More() {
		err = errors.New("more than one value")
	}
	if err != nil {
		return &exchange.Error{Code: exchange.CodeBadRequest, Detail: "the request's body", Err: err}
	}
	return nil
}

// Progress tells the caller how far the work has come.
func (q *Request) Progress(v any) { q.out.send(line{Progress: v}) }

// line is one line of a streamed answer.
type line struct {
	Progress any      `json:"progress,omitempty"`
	Result   any      `json:"result,omitempty"`
	Problem  *problem `json:"problem,omitempty"`
}

// problem is an error as it travels.
type problem struct {
	Code      string `json:"code"`
	Detail    string `json:"detail,omitempty"`
	Temporary bool   `json:"temporary,omitempty"`
}

// problemOf keeps the whole text: who asks here may read the node's log.
func problemOf(err error) *problem {
	known := exchange.Known(err)
	if known == nil {
		return &problem{Code: exchange.CodeInternal, Detail: err.Error()}
	}
	p := &problem{Code: known.Code, Detail: known.Detail, Temporary: known.Temporary}
	if known.Err != nil {
		p.Detail = joined(p.Detail, known.Err.Error())
	}
	return p
}

func joined(a, b string) string {
	if a == "" {
		return b
	}
	return a + ": " + b
}

// err is the reverse of problemOf.
func (p *problem) err() error {
	if p.Code == exchange.CodeInternal {
		return errors.New(p.Detail)
	}
	return &exchange.Error{Code: p.Code, Detail: p.Detail, Temporary: p.Temporary}
}

// Server answers on a control socket. Routes are added before it serves.
type Server struct {
	log  *slog.Logger
	mux  *http.ServeMux
	room chan struct{}
	read time.Duration
}

// New makes a server without a route.
func New(log *slog.Logger) *Server {
	return &Server{log: log, mux: http.NewServeMux(), room: make(chan struct{}, maxAtOnce), read: readTime}
}

// Handle adds a route that is done within moments.
func (s *Server) Handle(route string, h Handler) { s.handle(route, h, handlerTime) }

// HandleLong adds a route for long work. Its context ends when the caller goes.
func (s *Server) HandleLong(route string, h Handler) { s.handle(route, h, 0) }

func (s *Server) handle(route string, h Handler, limit time.Duration) {
	s.mux.HandleFunc(route, func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if limit > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, limit)
			defer cancel()
		}
		out := &lines{w: w, conn: http.NewResponseController(w)}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
		if err != nil {
			out.end(nil, &exchange.Error{Code: exchange.CodeBadRequest, Detail: "the request's body", Err: err})
			return
		}
		result, err := h(ctx, &Request{Query: r.URL.Query(), body: body, out: out})
		out.end(result, err)
	})
}

// ServeHTTP implements http.Handler: who asks is checked before anything.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if allowed, _ := r.Context().Value(allowedKey{}).(bool); !allowed {
		answer(w, http.StatusForbidden, &problem{Code: exchange.CodeForbidden, Detail: "only the node's own user and root may ask here"})
		return
	}
	select {
	case s.room <- struct{}{}:
		defer func() { <-s.room }()
	default:
		answer(w, http.StatusServiceUnavailable, &problem{Code: exchange.CodeTemporary, Detail: "too many commands at once", Temporary: true})
		return
	}
	if h, route := s.mux.Handler(r); route != "" {
		h.ServeHTTP(w, r)
		return
	}
	answer(w, http.StatusNotFound, &problem{Code: exchange.CodeNotFound, Detail: "the running node does not know " + r.Method + " " + r.URL.Path + "; it may be of an older version"})
}

func answer(w http.ResponseWriter, status int, p *problem) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(line{Problem: p}) // the caller is gone if this fails
}

// lines writes an answer. The first progress makes it a stream.
type lines struct {
	w      http.ResponseWriter
	conn   *http.ResponseController
	mu     sync.Mutex
	stream bool
	ended  bool
}

func (l *lines) send(v line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	if !l.stream {
		l.stream = true
		l.w.Header().Set("Content-Type", "application/x-ndjson")
	}
	l.write(v)
}

// write gives one line. That nobody reads it ends the request's context.
func (l *lines) write(v line) {
	_ = l.conn.SetWriteDeadline(time.Now().Add(lineTime))
	_ = json.NewEncoder(l.w).Encode(v)
	_ = l.conn.Flush()
}

func (l *lines) end(result any, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	v := line{Result: result}
	if v.Result == nil {
		v.Result = struct{}{}
	}
	if err != nil {
		v = line{Problem: problemOf(err)}
	}
	if !l.stream {
		l.w.Header().Set("Content-Type", "application/json")
		if err != nil {
			l.w.WriteHeader(statusOf(v.Problem))
		}
	}
	l.write(v)
}

// statusOf is for people with curl; the client reads the code.
func statusOf(p *problem) int {
	switch {
	case p.Temporary:
		return http.StatusServiceUnavailable
	case p.Code == exchange.CodeNotFound:
		return http.StatusNotFound
	case p.Code == exchange.CodeBadRequest:
		return http.StatusBadRequest
	case p.Code == exchange.CodeInternal:
		return http.StatusInternalServerError
	}
	return http.StatusConflict
}

type allowedKey struct{}

// Serve answers on a listener of [Listen] until the context ends, and then
// cuts off what is still under way: a command can be repeated.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: s, ReadHeaderTimeout: s.read, ReadTimeout: s.read, IdleTimeout: s.read, MaxHeaderBytes: 16 << 10,
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, allowedKey{}, allowed(c))
		},
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	err := server.Serve(l)
	if ctx.Err() != nil {
		return nil
	}
	return err
}
