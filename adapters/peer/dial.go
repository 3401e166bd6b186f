package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
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
	// maxConns are a poll, two pushes that overlap, and one that a repeated call
	// needs. All may stay idle: a push that finds none shakes hands anew.
	maxConns    = 4
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
	spare     atomic.Pointer[tls.Conn] // made by connect, for the first request
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
	c := &caller{p: p, l: l, neighbour: neighbour}
	c.client = &http.Client{
		Transport:     &http.Transport{DialTLSContext: c.dialTLS, MaxConnsPerHost: maxConns, MaxIdleConnsPerHost: maxConns, IdleConnTimeout: 90 * time.Second},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// dialTLS gives the connection that connect made, or makes one.
func (c *caller) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	if conn := c.spare.Swap(nil); conn != nil {
		return conn, nil
	}
	return c.handshake(ctx, network, address)
}

func (c *caller) handshake(ctx context.Context, network, address string) (*tls.Conn, error) {
	dialer := &net.Dialer{Timeout: dialTimeout}
	raw, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	config := c.p.clientTLS(c.neighbour)
	if config.ServerName, _, err = net.SplitHostPort(address); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	conn := tls.Client(&patient{raw, idleTimeout}, config)
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return conn, nil
}

// connect finds out whether the neighbour is there, before anything is made
// for it: no bundle, no signature, no look into the store. The connection is
// kept for the call that follows.
func (c *caller) connect(ctx context.Context) error {
	target, err := c.target()
	if err != nil {
		return err
	}
	u, err := url.Parse(target)
	if err != nil {
		return fmt.Errorf("%w: the URL of node %s in the directory: %w", errNoAnswer, c.neighbour, err)
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	conn, err := c.handshake(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return errors.Join(errNoAnswer, err)
	}
	c.spare.Store(conn)
	return nil
}

func (c *caller) close() {
	if conn := c.spare.Swap(nil); conn != nil {
		_ = conn.Close() // nothing was sent over it
	}
	c.client.CloseIdleConnections()
}

// target is the neighbour's URL in the directory.
func (c *caller) target() (string, error) {
	n, ok := c.p.c.Node.Directory().Node(c.neighbour)
	if !ok || n.URL == "" {
		return "", fmt.Errorf("%w: the directory has no URL for node %s", errNoAnswer, c.neighbour)
	}
	return strings.TrimSuffix(n.URL, "/"), nil
}

// call asks for what is there for us. In a call to a silent neighbour nothing
// waits there.
func (p *Peer) call(j job) {
	d, c := j.d, j.caller
	var err error
	if j.silent {
		c = p.newCaller(d.line, d.neighbour)
		if err = c.connect(j.ctx); err == nil {
			err = c.pollFor(j.ctx, 0)
		}
		if errors.Is(err, errNoAnswer) {
			c.close()
		}
		if err == nil {
			d.succeeded(poll)
		}
	}
	ended := j.ctx.Err() != nil
	open := p.schedule.called(j, c, err, time.Now())
	if err != nil && !ended {
		p.note(d, poll, err)
	}
	if open {
		p.open.Go(func() { p.keepPolling(j.ctx, d, c) })
	}
}

// keepPolling keeps a poll open at a neighbour that answers.
func (p *Peer) keepPolling(ctx context.Context, d *dialled, c *caller) {
	for ctx.Err() == nil {
		if err := c.pollFor(ctx, pollWait); err != nil {
			if p.schedule.pollEnded(ctx, d, err, time.Now()) {
				p.note(d, poll, err)
			}
			return
		}
		d.succeeded(poll)
	}
}

// pushNext brings one bundle of what waits here, if anything does.
func (p *Peer) pushNext(j job) {
	sent, err := false, error(nil)
	slow := time.AfterFunc(slowPush, func() { p.schedule.yield(j.d) })
	defer slow.Stop()
	if j.caller != nil {
		sent, err = j.caller.push(j.ctx)
	}
	ended := j.ctx.Err() != nil
	if sent && err == nil {
		j.d.succeeded(push)
	}
	p.schedule.pushed(j, sent, p.c.Node.Held(j.d.link), err, time.Now())
	if err != nil && !ended {
		p.note(j.d, push, err)
	}
}

// note tells the operator of a call that failed.
func (p *Peer) note(d *dialled, w what, err error) {
	p.c.Logger.Info("link attempt failed", "link", d.link, "what", w.String(), "error", err, "retry_in", time.Until(d.retryAt(w)).Round(time.Millisecond))
}

func (c *caller) poll(ctx context.Context) error { return c.pollFor(ctx, pollWait) }

func (c *caller) pollFor(ctx context.Context, wait time.Duration) error {
	o, err := c.l.session.Next(ctx, link.Poll)
	if err != nil {
		return err
	}
	res, err := c.post(ctx, poll, o, wait)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNoContent {
		return nil
	}
	got, err := c.l.session.Receive(ctx, res.Body)
	// The neighbour may have told which directory it has, which push now brings.
	c.p.schedule.grew(c.l.link, time.Now())
	if err == nil && got.Items == 0 {
		pause(ctx, time.Second) // asking again at once would only hear the same
	}
	return err
}

// pushesInARow is how many bundles one turn brings, when more wait.
const pushesInARow = 16

// push brings what waits. While the neighbour takes one bundle the next is made, and
// while it takes that one the answer to the first is settled: one is under way at a
// time.
func (c *caller) push(ctx context.Context) (sent bool, err error) {
	o, err := c.l.session.Next(ctx, link.Push)
	if o == nil || err != nil {
		return false, err
	}
	answer := c.bring(ctx, o)
	for n := 1; ; n++ {
		var next *link.Outgoing
		if n < pushesInARow {
			if next, err = c.l.session.Following(ctx, o); err != nil {
				next = nil // whatever it is, it is met again without a bundle under way
			}
		}
		a := <-answer
		if a.err != nil {
			c.drop(ctx, next)
			return true, a.err
		}
		if next, err = c.fresh(ctx, next, o); err != nil {
			a.res.Body.Close()
			return true, err
		}
		if next != nil {
			answer = c.bring(ctx, next)
		}
		if err := c.settle(ctx, a.res, o); err != nil {
			if next != nil {
				if b := <-answer; b.err == nil {
					b.res.Body.Close()
					c.drop(ctx, next)
				}
			}
			return true, err
		}
		if next == nil {
			return true, nil
		}
		o = next
	}
}

// answered is what became of a bundle that was brought.
type answered struct {
	res *http.Response
	err error
}

func (c *caller) bring(ctx context.Context, o *link.Outgoing) <-chan answered {
	answer := make(chan answered, 1)
	go func() {
		res, err := c.post(ctx, push, o, 0)
		answer <- answered{res, err}
	}()
	return answer
}

func (c *caller) drop(ctx context.Context, o *link.Outgoing) {
	if o != nil {
		c.l.session.Lost(ctx, o)
	}
}

// fresh gives the bundle that leaves next: the one that was made, unless something
// more urgent has come since.
func (c *caller) fresh(ctx context.Context, next, underWay *link.Outgoing) (*link.Outgoing, error) {
	if next == nil {
		return nil, nil
	}
	outdated, err := c.l.session.Outdated(ctx, next)
	if err != nil || outdated {
		c.drop(ctx, next)
		next = nil
	}
	if err == nil && outdated {
		next, err = c.l.session.Following(ctx, underWay)
	}
	return next, err
}

// settle applies the answer to a bundle.
func (c *caller) settle(ctx context.Context, res *http.Response, o *link.Outgoing) error {
	defer res.Body.Close()
	got, err := c.l.session.Receive(ctx, res.Body)
	if err == nil && got.Acks == 0 {
		err = errors.New("peer: the neighbour did not acknowledge the bundle")
	}
	if err != nil {
		c.l.session.Lost(ctx, o)
	}
	return err
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
	target, err := c.target()
	if err != nil {
		return nil, err
	}
	body, out := io.Pipe()
	go func() {
		_, err := o.WriteTo(out)
		out.CloseWithError(err)
	}()
	target += "/v1/link/" + c.l.link + "/" + w.String()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, body)
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
