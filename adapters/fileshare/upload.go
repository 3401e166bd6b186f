package fileshare

import (
	"bytes"
	"context"
	"errors"
	"hash"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// upload gives the files of an item to the node. What is sent is what was hashed: a
// file that is not ends the request before its end, so that nothing of it counts.
type upload struct {
	share   *share
	changed atomic.Bool
}

func (u *upload) files(it *item) []File {
	var out []File
	for _, f := range it.files {
		out = append(out, File{Role: f.role, Name: f.name, Size: f.size, Open: func() (io.ReadCloser, error) { return u.open(f) }})
	}
	return out
}

func (u *upload) open(f piece) (io.ReadCloser, error) {
	if f.small != nil {
		return io.NopCloser(bytes.NewReader(f.small)), nil
	}
	in, info, err := u.share.open(f.at)
	if err == nil && info.Size() != f.size {
		in.Close()
		err = errChanged
	}
	if err != nil {
		u.changed.Store(true)
		return nil, err
	}
	return &checked{File: in, u: u, left: f.size, want: f.sum, h: sm.New()}, nil
}

// checked reads a file that was hashed before, and holds its last byte back until all
// of it is known to be the same.
type checked struct {
	*os.File
	u    *upload
	left int64
	want digest
	h    hash.Hash
}

func (c *checked) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.File.Read(p)
	c.h.Write(p[:n])
	c.left -= int64(n)
	if c.left > 0 && err == nil {
		return n, nil
	}
	if c.left == 0 && digest(c.h.Sum(nil)) == c.want {
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = errChanged
	}
	c.u.changed.Store(true)
	return 0, err
}

// gate lets nobody ask a node that has just said that it is busy, and ends a run when
// that lasts.
type gate struct {
	patience time.Duration
	now      func() time.Time
	sleep    func(context.Context, time.Duration) error

	mu     sync.Mutex
	since  time.Time // of the first refusal in a row
	row    int
	closed time.Time // until when
}

// The pauses between attempts, unless the node names one.
const (
	firstPause   = 500 * time.Millisecond
	longestPause = time.Minute
)

// try asks until it is answered, or patience ends: then the error is a *Busy.
func (g *gate) try(ctx context.Context, ask func() error) error {
	for {
		if err := g.wait(ctx); err != nil {
			return err
		}
		err := ask()
		var busy *Busy
		if !errors.As(err, &busy) {
			g.open()
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if g.close(busy.After) {
			return err
		}
	}
}

func (g *gate) wait(ctx context.Context) error {
	for {
		g.mu.Lock()
		d := g.closed.Sub(g.now())
		g.mu.Unlock()
		if d <= 0 {
			return ctx.Err()
		}
		if err := g.sleep(ctx, d); err != nil {
			return err
		}
	}
}

// open forgets what was; a run begins with it.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.row, g.closed = 0, time.Time{}
}

// close says whether that has lasted too long.
func (g *gate) close(after time.Duration) (over bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	if g.row == 0 {
		g.since = now
	}
	if now.Before(g.closed) { // others found out at the same time
		return false
	}
	g.row++
	pause := min(firstPause<<min(g.row-1, 10), longestPause)
	g.closed = now.Add(after + pause/2 + rand.N(pause/2+1))
	return g.closed.Sub(g.since) > g.patience
}
