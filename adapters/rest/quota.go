package rest

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// Quota bounds what one agency may hand in within a window, so that one system
// that runs wild does not take the node from the others. 0 is no bound. What is
// used up is kept in memory: a restart begins a new window.
type Quota struct {
	Documents int
	Bytes     int64 // of requests, as they are sent
	Window    time.Duration
}

// quotas is what agencies have used. There is an entry for each agency that
// sent something since the start; they come from the node's own key file.
type quotas struct {
	q    Quota
	mu   sync.Mutex
	used map[string]*usage
}

type usage struct {
	began     time.Time
	documents int
	bytes     int64
}

// overQuota says when the window ends.
type overQuota struct {
	err   *exchange.Error
	after time.Duration
}

func (o *overQuota) Error() string { return o.err.Error() }
func (o *overQuota) Unwrap() error { return o.err }

// grant is one submission under way: what was reserved for it, to be given back
// as far as it was not used.
type grant struct {
	all      *quotas
	of       *usage
	reserved atomic.Int64
	read     atomic.Int64
}

// begin reserves a document and its announced bytes for an agency.
func (s *quotas) begin(agency string, announced int64, now time.Time) (*grant, error) {
	if s.q.Window <= 0 {
		return &grant{}, nil
	}
	announced = max(0, announced)
	if s.q.Bytes > 0 && announced > s.q.Bytes {
		return nil, exchange.Fail(exchange.CodeTooLarge, "%d bytes, an agency may hand in %d in %s", announced, s.q.Bytes, s.q.Window)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.used[agency]
	if u == nil || now.Sub(u.began) >= s.q.Window || now.Before(u.began) {
		u = &usage{began: now}
		s.used[agency] = u
	}
	over := s.q.Documents > 0 && u.documents >= s.q.Documents
	if over || s.q.Bytes > 0 && (u.bytes >= s.q.Bytes || u.bytes+announced > s.q.Bytes) {
		after := s.q.Window - now.Sub(u.began)
		return nil, &overQuota{exchange.Fail(exchange.CodeQuota, "the window of %s ends in %s", s.q.Window, after.Round(time.Second)), after}
	}
	u.documents++
	u.bytes += announced
	g := &grant{all: s, of: u}
	g.reserved.Store(announced)
	return g, nil
}

// charge counts bytes as they come. What was announced is reserved; an upload that
// announced nothing ends where its agency has no more.
func (g *grant) charge(n int64) *overQuota {
	read := g.read.Add(n)
	if g.all == nil || read <= g.reserved.Load() {
		return nil
	}
	g.all.mu.Lock()
	defer g.all.mu.Unlock()
	more := read - g.reserved.Load()
	g.reserved.Add(more)
	g.of.bytes += more
	if q := g.all.q; q.Bytes > 0 && g.of.bytes > q.Bytes {
		return &overQuota{exchange.Fail(exchange.CodeQuota, "more than %d bytes in %s", q.Bytes, q.Window), q.Window}
	}
	return nil
}

// end settles a submission: the bytes that came count, the document only when
// it is a new one.
func (g *grant) end(counts bool) {
	if g.all == nil {
		return
	}
	g.all.mu.Lock()
	defer g.all.mu.Unlock()
	g.of.bytes += g.read.Load() - g.reserved.Load()
	if !counts {
		g.of.documents--
	}
}

// incoming is the body of a submission: what is read of it counts, and it is given
// up when nothing comes for a while, or too little for long.
type incoming struct {
	io.ReadCloser
	g        *grant
	deadline func(time.Time) error
	silence  time.Duration
	pace     pace
	silent   atomic.Bool
	slow     atomic.Bool
	over     atomic.Pointer[overQuota]
}

// pace is the patience with one upload: time that it may keep this side waiting. Each
// byte earns some, up to what there was in the beginning; only waiting for bytes uses
// it up, not what is done with them here.
type pace struct {
	slowest int64 // bytes a second
	grace   time.Duration
	left    time.Duration
}

func (p *pace) read(n int, waited time.Duration) {
	p.left = min(p.left-waited+time.Duration(n)*time.Second/time.Duration(p.slowest), p.grace)
}

// Read moves the deadline. It stays for what the server itself reads of a body that
// is given up; at the body's end the server takes it away.
func (u *incoming) Read(p []byte) (int, error) {
	began, wait := time.Now(), min(u.silence, u.pace.left)
	if err := u.deadline(began.Add(wait)); err != nil {
		return 0, err
	}
	n, err := u.ReadCloser.Read(p)
	u.pace.read(n, time.Since(began))
	if over := u.g.charge(int64(n)); over != nil {
		u.over.Store(over)
		return n, over
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		u.silent.Store(wait == u.silence)
		u.slow.Store(wait < u.silence)
	}
	return n, err
}

// accept is a submission within the quota of its agency and the memory that
// uploads may hold.
func (s *Server) accept(w http.ResponseWriter, r *http.Request) error {
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media == "application/json" && s.c.Staging != nil {
		return s.submitUploaded(w, r)
	}
	g, err := s.quotas.begin(caller(r.Context()).Agency, r.ContentLength, s.c.Node.Now())
	if err != nil {
		return err
	}
	release, err := s.budget.take(r.Context(), caller(r.Context()).Agency, weight(r.ContentLength), budgetWait)
	if err != nil {
		g.end(false)
		return err
	}
	defer release()
	in := &incoming{
		ReadCloser: r.Body, g: g, deadline: http.NewResponseController(w).SetReadDeadline, silence: s.c.Silence,
		pace: pace{slowest: s.c.Slowest, grace: s.c.Grace, left: s.c.Grace},
	}
	r.Body = in
	replayed, err := s.submit(w, r)
	g.end(err == nil && !replayed)
	if over := in.over.Load(); err != nil && over != nil {
		return over
	}
	if err != nil && in.silent.Load() { // whatever became of it on the way
		return exchange.Fail(exchange.CodeTemporary, "nothing came for %s", s.c.Silence)
	}
	if err != nil && in.slow.Load() {
		return exchange.Fail(exchange.CodeTooSlow, "less than %d bytes a second came for %s", s.c.Slowest, s.c.Grace)
	}
	return err
}
