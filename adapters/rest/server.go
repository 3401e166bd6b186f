// Package rest is the HTTP interface for agency systems: submit, inbox,
// collect, sign for, return, status, trace, receipts, evidence and directory
// search under /v1, JSON resources through Huma with an OpenAPI description at
// /openapi.json, streams by hand.
//
// An agency authenticates with a scoped API key and sees its own documents
// only. Every error is a Problem with a stable code.
package rest

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humamux"
	"github.com/gorilla/mux"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/queue/staging"
)

// Limits of requests.
const (
	DefaultMaxUpload = 32 << 20 // bytes of a multipart submission
	maxJSON          = 64 << 10
	maxWait          = 25 * time.Second
)

// Config of a Server. Ready says whether the node serves; nil is always. Once
// Ending is closed nobody waits any more for what is not there yet; nil is never.
// Quota is that of each agency. Silence is how long an upload may bring no byte;
// 0 is half a minute. Slowest is how many bytes a second it must bring in the long
// run, and Grace for how long it may fall behind that; 0 is 4 KiB and a minute.
type Config struct {
	Node      *node.Node
	Keys      *KeyRing
	Logger    *slog.Logger
	MaxUpload int64
	Ready     func() error
	Ending    <-chan struct{}
	Quota     Quota
	Silence   time.Duration
	Webhooks  Webhooks       // nil: there are none
	Staging   *staging.Store // of resumable uploads; nil: there are none
	Slowest   int64
	Grace     time.Duration
}

// Server answers agency systems.
type Server struct {
	c         Config
	quotas    quotas
	budget    *budget // of uploads
	downloads *budget
	open      openStreams
	leased    leases
	router    *mux.Router
	api       huma.API
}

// New builds the server.
func New(c Config) *Server {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.MaxUpload <= 0 {
		c.MaxUpload = DefaultMaxUpload
	}
	if c.Silence <= 0 {
		c.Silence = uploadSilence
	}
	if c.Slowest <= 0 {
		c.Slowest = uploadSlowest
	}
	if c.Grace <= 0 {
		c.Grace = uploadGrace
	}
	if c.Ready == nil {
		c.Ready = func() error { return nil }
	}
	s := &Server{
		c: c, quotas: quotas{q: c.Quota, used: map[string]*usage{}}, router: mux.NewRouter().SkipClean(true),
		budget: newBudget("uploads", budgetBytes, uploadMost), downloads: newBudget("downloads", downloadBytes, downloadMost),
	}
	s.router.NotFoundHandler = http.HandlerFunc(s.notFound)
	s.router.MethodNotAllowedHandler = http.HandlerFunc(s.wrongMethod)
	s.resources()
	s.streams()
	if err := s.uploads(); err != nil {
		panic(err) // the configuration of the protocol is constant
	}
	s.service()
	s.complete()
	return s
}

// Handler wraps the router: headers and limits also hold for 404 and 405,
// which the router's own middleware would not see.
func (s *Server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.patience(w, r)
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'")
		if strings.Contains(r.URL.Path, "//") {
			s.notFound(w, r)
			return
		}
		defer s.caught(w, r)
		s.router.ServeHTTP(w, r)
	})
}

// answerTime bounds how long a caller may take to read what is no file, long polls
// included.
const answerTime = 2 * time.Minute

// patience bounds how long a connection waits for its caller, whoever that is and
// whatever is answered: before it answers, the server itself reads a body that no
// handler wanted. What takes longer moves its own deadlines: an upload with each
// read, a file with each write.
func (s *Server) patience(w http.ResponseWriter, r *http.Request) {
	conn, now := http.NewResponseController(w), time.Now()
	// A writer without a connection, in a test, has no deadlines.
	if r.ContentLength != 0 {
		_ = conn.SetReadDeadline(now.Add(s.c.Silence))
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		_ = conn.SetWriteDeadline(now.Add(answerTime))
	} else {
		_ = conn.SetWriteDeadline(time.Time{}) // their answers are short
	}
}

// caught turns a panic into a problem; http.ErrAbortHandler is how a stream
// that fails late is cut off.
func (s *Server) caught(w http.ResponseWriter, r *http.Request) {
	switch p := recover(); p {
	case nil:
	case http.ErrAbortHandler:
		panic(p)
	default:
		s.c.Logger.Error("request panicked", "method", r.Method, "path", r.URL.Path, "panic", p)
		writeProblem(w, newProblem(http.StatusInternalServerError, exchange.CodeInternal, "", language(r)))
	}
}

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	writeProblem(w, newProblem(http.StatusNotFound, exchange.CodeNotFound, "no such path", language(r)))
}

func (s *Server) wrongMethod(w http.ResponseWriter, r *http.Request) {
	writeProblem(w, newProblem(http.StatusMethodNotAllowed, exchange.CodeBadRequest, "this method is not for this path", language(r)))
}

// service registers what says how the node is.
func (s *Server) service() {
	ok := func(op *huma.Operation) { op.Responses["200"] = content("ok", "text/plain") }
	s.stream(http.MethodGet, "/livez", about{id: "live", tag: tagService, en: "The process answers", zh: "进程存活", open: true}, s.live, ok)
	s.stream(http.MethodGet, "/readyz", about{
		id: "ready", tag: tagService, en: "The node serves", zh: "节点就绪", open: true, codes: []string{exchange.CodeLedgerRolledBack},
	}, s.ready, func(op *huma.Operation) {
		ok(op)
		op.Responses["503"] = problemResponse(http.StatusServiceUnavailable, []string{exchange.CodeTemporary, exchange.CodeLedgerRolledBack})
	})
	this := func(op *huma.Operation) {
		op.Responses["200"] = content("This description · 本接口说明", openapiMedia)
	}
	s.stream(http.MethodGet, "/openapi.json", about{id: "openapi", tag: tagService, en: "This description, OpenAPI 3.1", zh: "接口说明", open: true},
		s.openapi(func() ([]byte, error) { return json.Marshal(s.OpenAPI()) }), this)
	s.stream(http.MethodGet, "/openapi-3.0.json", about{id: "openapi30", tag: tagService, en: "This description, OpenAPI 3.0", zh: "接口说明（3.0）", open: true},
		s.openapi(func() ([]byte, error) { return s.OpenAPI().Downgrade() }), this)
	s.stream(http.MethodGet, "/docs", about{id: "docs", tag: tagService, en: "This description as a page", zh: "接口说明页面", open: true}, s.docs(), func(op *huma.Operation) {
		op.Responses["200"] = content("A page that needs nothing else · 单文件页面", "text/html")
	})
}

func (s *Server) live(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n"))
}

func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	err := s.c.Ready()
	if err == nil {
		err = s.c.Node.Alarm()
	}
	if err != nil {
		p := problemOf(err, language(r))
		p.Status = http.StatusServiceUnavailable
		writeProblem(w, p)
		return
	}
	s.live(w, r)
}

type callerKey struct{}

// caller is the key a request came with.
func caller(ctx context.Context) *Key { return ctx.Value(callerKey{}).(*Key) }

// authenticate finds the key of a request and checks its scope.
func (s *Server) authenticate(r *http.Request, scopes ...string) (*Key, error) {
	secret, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || len(secret) > 256 {
		return nil, exchange.Fail(exchange.CodeUnauthenticated, "no Authorization: Bearer header")
	}
	key, err := s.c.Keys.find(strings.TrimSpace(secret), s.c.Node.Now())
	if err != nil {
		return nil, err
	}
	if len(scopes) > 0 && !slices.ContainsFunc(scopes, func(scope string) bool { return slices.Contains(key.Scopes, scope) }) {
		return nil, exchange.Fail(exchange.CodeForbidden, "the key has not the scope %s", strings.Join(scopes, " or "))
	}
	return key, nil
}

// guarded is a stream handler for callers with one of the scopes.
func (s *Server) guarded(fn func(w http.ResponseWriter, r *http.Request) error, scopes ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		key, err := s.authenticate(r, scopes...)
		if err == nil {
			err = fn(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, key)))
		}
		if err != nil {
			s.writeError(w, r, err)
		}
	}
}

// resources sets Huma up over the same router.
func (s *Server) resources() {
	// Huma makes the errors of its own validation through these variables.
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		return badInput(status, msg, errs, "en")
	}
	huma.NewErrorWithContext = func(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
		return badInput(status, msg, errs, preferred(ctx.Header("Accept-Language")))
	}
	huma.DefaultArrayNullable = false
	s.api = humamux.New(s.router, s.openapiConfig())
	s.api.UseMiddleware(s.humaAuth)
	s.register()
}

// badInput is what does not fit the description. It names the member and never
// repeats its value, which may be text of a document.
func badInput(status int, msg string, errs []error, lang string) *Problem {
	code := exchange.CodeBadRequest
	if status == http.StatusRequestEntityTooLarge {
		code = exchange.CodeTooLarge
	}
	for _, err := range errs {
		var detail *huma.ErrorDetail
		switch {
		case errors.As(err, &detail):
			msg += "; " + strings.TrimSpace(detail.Location+" "+detail.Message)
		case err != nil:
			msg += "; " + err.Error()
		}
	}
	return newProblem(status, code, msg, lang)
}

// humaAuth authenticates an operation; its Security names the scopes.
func (s *Server) humaAuth(ctx huma.Context, next func(huma.Context)) {
	r, w := humamux.Unwrap(ctx)
	var scopes []string
	for _, need := range ctx.Operation().Security {
		scopes = append(scopes, need["key"]...)
	}
	key, err := s.authenticate(r, scopes...)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	next(huma.WithValue(huma.WithValue(ctx, callerKey{}, key), languageKey{}, language(r)))
}

type languageKey struct{}

// problem is how operations fail.
func (s *Server) problem(ctx context.Context, err error) error {
	lang, _ := ctx.Value(languageKey{}).(string)
	p := problemOf(err, lang)
	if p.logged() {
		s.c.Logger.Error("request failed", "error", err)
	}
	return p
}

// OpenAPI gives the description of the JSON resources.
func (s *Server) OpenAPI() *huma.OpenAPI { return s.api.OpenAPI() }
