// Package client is a client of the REST interface of a Yizhan node, for agency
// systems in Go. It needs the standard library alone.
//
//	c, err := client.New(client.Config{Server: "https://node.example.gov.cn", Key: key})
//	sent, err := c.Submit(ctx, &client.Document{Title: "…", To: client.To("市财政局"), Label: "内部"},
//		client.FileAt("正文.ofd"), client.FileAt("名单.xlsx"))
//
// Every call may be repeated: what writes carries an Idempotency-Key, the same at
// each try, so that nothing happens twice. What may succeed later (429, 503, 507,
// a network that breaks) is tried again, with pauses that grow and are drawn at
// random, until the context ends or Config.Tries are used up. What a node refuses
// comes back as a [*Problem] with a stable code.
//
// A Client is safe for concurrent use.
package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Bounds of what is tried and read.
const (
	DefaultTries = 8
	DefaultStall = time.Minute
	firstPause   = 200 * time.Millisecond
	longestPause = 10 * time.Second
	longestWait  = 2 * time.Minute // that a node may ask for
	answerTime   = 2 * time.Minute // of a call without files
	maxAnswer    = 64 << 20        // bytes of JSON: a trace with 4,000 recipients is a few MB
	maxProblem   = 1 << 20
)

// Config says where the node is and who asks. Server and Key are needed.
type Config struct {
	Server string // https://host[:port][/path]
	Key    string // the API key of an agency; it appears in no error

	TLS       *tls.Config       // roots, pins, client certificate; nil: the system's roots
	Transport http.RoundTripper // instead of one that TLS is used in
	PlainHTTP bool              // permits http:// to other machines: the key and all documents can be read on the way

	Tries    int           // of each call; 0: DefaultTries, 1: no repetition
	Stall    time.Duration // without a byte until a file is given up and tried again; 0: DefaultStall
	Language string        // of Problem.Title and Fix: zh, or en when empty
}

// Client asks one node as one agency.
type Client struct {
	c    Config
	base string
	http *http.Client
}

// New checks the configuration and asks nothing yet.
func New(c Config) (*Client, error) {
	u, err := url.Parse(c.Server)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("client: Server is not like https://host:port")
	}
	if u.Scheme == "http" && !c.PlainHTTP && !loopback(u.Hostname()) {
		return nil, errors.New("client: over http the key could be read on the way: use https, or set PlainHTTP")
	}
	if c.Key == "" || strings.ContainsFunc(c.Key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("client: Key is not an API key")
	}
	if c.Tries <= 0 {
		c.Tries = DefaultTries
	}
	if c.Stall <= 0 {
		c.Stall = DefaultStall
	}
	if c.Transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.TLSClientConfig, t.ExpectContinueTimeout, t.MaxIdleConnsPerHost = c.TLS, time.Second, 16
		c.Transport = t
	}
	return &Client{c: c, base: strings.TrimSuffix(c.Server, "/"), http: &http.Client{
		Transport: c.Transport,
		// A redirect would carry the key elsewhere; no node sends one.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// call is one request that can be made again.
type call struct {
	method, path string
	query        url.Values
	header       http.Header
	body         func() (io.ReadCloser, int64, error) // its length, -1 for unknown; nil: none
	long         bool                                 // watched for stalls instead of bounded in time
	timeout      time.Duration                        // of one try; 0: answerTime
	answered     func(http.Header)                    // hears the head of a success; may be nil
}

// do makes a call until it succeeds, is refused for good, or is not to be tried any
// more. The response is one of success, and its body is to be closed.
func (c *Client) do(ctx context.Context, q *call) (*http.Response, error) {
	if q.header == nil {
		q.header = http.Header{}
	}
	if q.method == http.MethodPost && q.header.Get("Idempotency-Key") == "" {
		q.header.Set("Idempotency-Key", NewKey())
	}
	for try := 1; ; try++ {
		res, err := c.once(ctx, q)
		if err == nil || ctx.Err() != nil || try >= c.c.Tries || !again(err) {
			return res, err
		}
		wait := pause(try)
		if p := (*Problem)(nil); errors.As(err, &p) {
			wait = max(wait, p.RetryAfter)
		}
		if wait > longestWait {
			return nil, err
		}
		if sleep(ctx, wait) != nil {
			return nil, err // says more than that the time was up
		}
	}
}

// pause is drawn between half of what doubles with each try and all of it, so that
// those that failed together do not come back together.
func pause(try int) time.Duration {
	most := longestPause
	if try < 16 {
		most = min(firstPause<<(try-1), longestPause)
	}
	return most/2 + mathrand.N(most/2+1)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// once is one try.
func (c *Client) once(ctx context.Context, q *call) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := watch(cancel, c.patience(q))
	res, err := c.send(ctx, q, w)
	if err != nil {
		w.end()
		cancel(nil)
		if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
			err = fmt.Errorf("%w: %w", err, cause)
		}
		return nil, err
	}
	res.Body = &watched{ReadCloser: res.Body, w: w, cancel: cancel, each: q.long}
	if res.StatusCode < 200 || res.StatusCode >= 300 {
		defer res.Body.Close()
		return nil, problemOf(res)
	}
	return res, nil
}

func (c *Client) patience(q *call) time.Duration {
	if q.long {
		return c.c.Stall
	}
	if q.timeout > 0 {
		return q.timeout
	}
	return answerTime
}

func (c *Client) send(ctx context.Context, q *call, w *watchdog) (*http.Response, error) {
	target := c.base + q.path
	if len(q.query) > 0 {
		target += "?" + q.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, q.method, target, nil)
	if err != nil {
		return nil, err
	}
	if q.body != nil {
		body, size, err := q.body()
		if err != nil {
			return nil, &localError{err}
		}
		req.Body, req.ContentLength = body, size
		if q.long {
			req.Body = &watched{ReadCloser: body, w: w, each: true}
		}
	}
	for name, values := range q.header {
		req.Header[name] = values
	}
	req.Header.Set("Authorization", "Bearer "+c.c.Key)
	req.Header.Set("Accept", "application/json")
	if c.c.Language != "" {
		req.Header.Set("Accept-Language", c.c.Language)
	}
	return c.http.Do(req)
}

// localError is trouble on this side, which no repetition mends.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// again says whether a call that failed may succeed when it is made again.
func again(err error) bool {
	if local := (*localError)(nil); errors.As(err, &local) {
		return false
	}
	var p *Problem
	if !errors.As(err, &p) {
		var bad *tls.CertificateVerificationError
		return !errors.As(err, &bad) && (errors.Is(err, errStalled) || !errors.Is(err, context.Canceled))
	}
	switch p.Status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusInsufficientStorage:
		return true
	}
	// An earlier try, whose answer was lost, is still under way.
	return p.Code == "idempotency_in_use"
}

// json asks with a value (nil: none) and reads the answer into another.
func (c *Client) json(ctx context.Context, q *call, in, out any) error {
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		q.body = func() (io.ReadCloser, int64, error) { return io.NopCloser(bytes.NewReader(b)), int64(len(b)), nil }
		q.header = setting(q.header, "Content-Type", "application/json")
	}
	for try := 1; ; try++ {
		res, err := c.do(ctx, q)
		if err != nil {
			return err
		}
		if q.answered != nil {
			q.answered(res.Header)
		}
		b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
		err = errors.Join(err, res.Body.Close())
		switch {
		case len(b) > maxAnswer:
			return fmt.Errorf("client: the node's answer is larger than %d bytes", maxAnswer)
		case err == nil:
			if err = json.Unmarshal(b, out); err == nil {
				return nil
			}
			return fmt.Errorf("client: the node's answer is not understood: %w", err)
		case try >= c.c.Tries || ctx.Err() != nil:
			return err
		}
		if sleep(ctx, pause(try)) != nil {
			return err
		}
	}
}

func setting(h http.Header, name, value string) http.Header {
	if h == nil {
		h = http.Header{}
	}
	h.Set(name, value)
	return h
}

// NewKey gives a new Idempotency-Key. Who stores it with the document before it is
// submitted can submit it again after a crash of its own, and it is sent once.
func NewKey() string { return "go-" + rand.Text() }

// Option changes one call.
type Option func(*call)

// WithKey sets the Idempotency-Key of a call instead of a new one.
func WithKey(key string) Option {
	return func(q *call) { q.header = setting(q.header, "Idempotency-Key", key) }
}

// WithTrace hands on a W3C trace context (traceparent), which travels with the
// document.
func WithTrace(parent string) Option {
	return func(q *call) { q.header = setting(q.header, "Traceparent", parent) }
}

func (q *call) with(options []Option) *call {
	for _, o := range options {
		o(q)
	}
	return q
}

func number(n int) string { return strconv.Itoa(n) }
