package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange/link"
)

// The waits of a dialer. A poll is answered within pollWait even when nothing
// is there. A connection on which no byte moves for idleTimeout is dead; it
// must be longer than pollWait and than a neighbour takes to store a bundle.
const (
	dialTimeout = 5 * time.Second
	pollWait    = 25 * time.Second
	idleTimeout = 2 * time.Minute
	waitHeader  = "Yizhan-Wait"
	bundleMedia = "application/vnd.yizhan.bundle"
)

// errNoAnswer marks a call to which no answer came.
var errNoAnswer = errors.New("peer: no answer")

// caller does the requests of one link.
type caller struct {
	p         *Peer
	l         *line
	neighbour string
	client    *http.Client
}

// patient is a connection that is given up when no byte moves on it for a
// while, in whichever state its neighbour stopped.
type patient struct {
	net.Conn
	idle time.Duration
}

func (p *patient) Read(b []byte) (int, error) {
	if err := p.SetReadDeadline(time.Now().Add(p.idle)); err != nil {
		return 0, err
	}
	return p.Conn.Read(b)
}

// Write moves the deadline of both directions: while a long bundle leaves,
// nothing is to be read.
func (p *patient) Write(b []byte) (int, error) {
	if err := p.SetDeadline(time.Now().Add(p.idle)); err != nil {
		return 0, err
	}
	return p.Conn.Write(b)
}

// newCaller makes the client of one link. It uses no proxy, whatever the
// environment says, and follows no redirect.
func (p *Peer) newCaller(l *line, neighbour string) *caller {
	dialer := &net.Dialer{Timeout: dialTimeout}
	return &caller{p: p, l: l, neighbour: neighbour, client: &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: p.clientTLS(neighbour),
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := dialer.DialContext(ctx, network, address)
				if err != nil {
					return nil, err
				}
				return &patient{conn, idleTimeout}, nil
			},
			TLSHandshakeTimeout: dialTimeout, MaxConnsPerHost: 4, IdleConnTimeout: 90 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (p *Peer) dial(ctx context.Context, wait *sync.WaitGroup, l *line, neighbour string) {
	c := p.newCaller(l, neighbour)
	wait.Go(func() { c.pollLoop(ctx); c.client.CloseIdleConnections() })
	wait.Go(func() { c.pushLoop(ctx) })
}

// pollLoop asks for what is there for us, and is the one that finds out
// whether a silent neighbour is back.
func (c *caller) pollLoop(ctx context.Context) {
	for ctx.Err() == nil {
		err := c.poll(ctx)
		if ctx.Err() != nil {
			return
		}
		c.l.heard(!errors.Is(err, errNoAnswer))
		if !c.done(ctx, poll, err) {
			return
		}
	}
}

// pushLoop brings what waits here, as long as the neighbour answers.
func (c *caller) pushLoop(ctx context.Context) {
	for c.l.waitHeard(ctx) {
		changed := c.p.c.Node.Changed()
		sent, err := c.push(ctx)
		if sent || err != nil {
			if !c.done(ctx, push, err) {
				return
			}
			continue
		}
		// Items that were held back become ready without a commit: look
		// again after a while even when nothing changes.
		select {
		case <-changed:
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// done notes how a call went, and waits after one that failed; false when the
// context ended.
func (c *caller) done(ctx context.Context, w what, err error) bool {
	if err == nil {
		c.l.succeeded(w)
		return true
	}
	if ctx.Err() != nil {
		return false
	}
	after := c.l.failed(w, err)
	c.p.c.Logger.Info("link attempt failed", "link", c.l.link, "what", w.String(), "error", err, "retry_in", after.Round(time.Millisecond))
	return pause(ctx, after)
}

func (c *caller) poll(ctx context.Context) error {
	o, err := c.l.session.Next(ctx, link.Poll)
	if err != nil {
		return err
	}
	wait := pollWait
	if c.l.isSilent() {
		wait = 0
	}
	res, err := c.post(ctx, poll, o, wait)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNoContent {
		return nil
	}
	c.l.heard(true)
	got, err := c.l.session.Receive(ctx, res.Body)
	if err == nil && got.Items == 0 {
		// The neighbour told which directory it has, which push now brings it;
		// asking again at once would only hear the same.
		pause(ctx, time.Second)
	}
	return err
}

func (c *caller) push(ctx context.Context) (sent bool, err error) {
	o, err := c.l.session.Next(ctx, link.Push)
	if o == nil || err != nil {
		return false, err
	}
	res, err := c.post(ctx, push, o, 0)
	if err != nil {
		return true, err
	}
	defer res.Body.Close()
	got, err := c.l.session.Receive(ctx, res.Body)
	if err != nil {
		c.l.session.Lost(ctx, o)
		return true, err
	}
	if got.Acks == 0 {
		c.l.session.Lost(ctx, o)
		return true, errors.New("peer: the neighbour did not acknowledge the bundle")
	}
	return true, nil
}

// post sends a bundle. Whatever goes wrong, the bundle counts as lost: its
// items are still in their lanes.
func (c *caller) post(ctx context.Context, w what, o *link.Outgoing, wait time.Duration) (*http.Response, error) {
	res, err := c.request(ctx, w, o, wait)
	if err == nil && (res.StatusCode == http.StatusOK || res.StatusCode == http.StatusNoContent) {
		return res, nil
	}
	c.l.session.Lost(ctx, o)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, 512)) // only for the message
	return nil, fmt.Errorf("peer: %s answered %s: %s", c.neighbour, res.Status, strings.TrimSpace(string(text)))
}

func (c *caller) request(ctx context.Context, w what, o *link.Outgoing, wait time.Duration) (*http.Response, error) {
	n, ok := c.p.c.Node.Directory().Node(c.neighbour)
	if !ok || n.URL == "" {
		return nil, fmt.Errorf("peer: the directory has no URL for node %s", c.neighbour)
	}
	body, out := io.Pipe()
	go func() {
		_, err := o.WriteTo(out)
		out.CloseWithError(err)
	}()
	url := strings.TrimSuffix(n.URL, "/") + "/v1/link/" + c.l.link + "/" + w.String()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, body)
	if err != nil {
		return nil, errors.Join(err, body.Close())
	}
	req.ContentLength = o.Size()
	req.Header.Set("Content-Type", bundleMedia)
	if wait > 0 {
		req.Header.Set(waitHeader, fmt.Sprint(int(wait.Seconds())))
	}
	res, err := c.client.Do(req)
	if err != nil {
		return nil, errors.Join(errNoAnswer, err, body.Close())
	}
	return res, nil
}
