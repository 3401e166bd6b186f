package rest

import (
	"io"
	"net/http"
	"sync"
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
	all   *quotas
	of    *usage
	bytes int64
	read  int64
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
	return &grant{all: s, of: u, bytes: announced}, nil
}

// end settles a submission: the bytes that came count, the document only when
// it is a new one.
func (g *grant) end(counts bool) {
	if g.all == nil {
		return
	}
	g.all.mu.Lock()
	defer g.all.mu.Unlock()
	g.of.bytes += g.read - g.bytes
	if !counts {
		g.of.documents--
	}
}

// body counts what is read of a request. A submission reads it on one goroutine
// and has ended before end is called.
func (g *grant) body(r io.ReadCloser) io.ReadCloser { return &counted{r, g} }

type counted struct {
	io.ReadCloser
	g *grant
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.g.read += int64(n)
	return n, err
}

// accept is a submission within the quota of its agency.
func (s *Server) accept(w http.ResponseWriter, r *http.Request) error {
	g, err := s.quotas.begin(caller(r.Context()).Agency, r.ContentLength, s.c.Node.Now())
	if err != nil {
		return err
	}
	r.Body = g.body(r.Body)
	replayed, err := s.submit(w, r)
	g.end(err == nil && !replayed)
	return err
}
