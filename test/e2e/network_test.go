package e2e

import (
	"context"
	"flag"
	mrand "math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var paused = flag.Int("paused", 60, "how many documents TestStoppedProcesses and TestPartedLink send each")

// withTrouble sends documents between two nodes while something goes wrong, and
// holds what came against I1 to I4.
func withTrouble(t *testing.T, c *cluster, trouble func(r *run, ctx context.Context)) *run {
	t.Helper()
	n := *paused
	for _, p := range c.nodes {
		if err := p.start(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience(n))
	defer cancel()
	r := newRun(t, ctx, c, n)
	r.trouble = func(ctx context.Context) { trouble(r, ctx) }
	r.storm()
	r.checkOnce()
	r.checkEvidence()
	r.checkLedgers()
	return r
}

// TestStoppedProcesses: nodes are stopped and go on (SIGSTOP, SIGCONT), as on a
// machine that swaps, or whose virtual one is moved: timeouts pass meanwhile, and
// answers come to questions that nobody asks any more.
func TestStoppedProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: starts real nodes; scripts/test runs it")
	}
	var stops atomic.Int64
	r := withTrouble(t, newCluster(t, "jia", "yi"), func(r *run, ctx context.Context) {
		for ctx.Err() == nil {
			p := []*proc{r.jia, r.yi}[mrand.IntN(2)]
			p.signal(syscall.SIGSTOP)
			time.Sleep(time.Duration(50+mrand.IntN(1500)) * time.Millisecond)
			p.signal(syscall.SIGCONT)
			stops.Add(1)
			time.Sleep(time.Duration(50+mrand.IntN(200)) * time.Millisecond)
		}
	})
	r.tell("%d stops", stops.Load())
}

func (p *proc) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(s) // it may have ended
	}
}

// TestPartedLink: the network between two nodes is parted, swallows everything,
// or is slow, in turn.
func TestPartedLink(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: starts real nodes; scripts/test runs it")
	}
	line := newBadLine(t, freeAddress(t))
	c := newClusterWith(t, func(id string) []string {
		if id != "yi" { // whom jia dials
			return nil
		}
		return []string{"--peer-url", "https://" + line.address, "--peer-listen", line.to}
	}, "jia", "yi")
	var changes atomic.Int64
	r := withTrouble(t, c, func(_ *run, ctx context.Context) {
		for ctx.Err() == nil {
			line.become([]condition{good, parted, swallowing, slow}[mrand.IntN(4)])
			changes.Add(1)
			time.Sleep(time.Duration(100+mrand.IntN(900)) * time.Millisecond)
		}
		line.become(good)
	})
	r.tell("%d changes of the line", changes.Load())
}

type condition int32

const (
	good       condition = iota
	parted               // connections are cut, and none comes
	swallowing           // bytes are taken and go nowhere
	slow                 // some kilobytes a second
)

// badLine passes connections on as its condition has it.
type badLine struct {
	address, to string
	state       atomic.Int32
	mu          sync.Mutex
	open        map[net.Conn]bool
}

func newBadLine(t *testing.T, to string) *badLine {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &badLine{address: l.Addr().String(), to: to, open: map[net.Conn]bool{}}
	t.Cleanup(func() {
		l.Close()
		b.cut()
	})
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			go b.pass(from)
		}
	}()
	return b
}

func (b *badLine) become(c condition) {
	b.state.Store(int32(c))
	if c == parted {
		b.cut()
	}
}

func (b *badLine) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.open {
		c.Close()
	}
	clear(b.open)
}

func (b *badLine) pass(from net.Conn) {
	to, err := net.Dial("tcp", b.to)
	if err != nil || condition(b.state.Load()) == parted {
		from.Close()
		return
	}
	b.mu.Lock()
	b.open[from], b.open[to] = true, true
	b.mu.Unlock()
	go b.copy(to, from)
	b.copy(from, to)
}

func (b *badLine) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		switch condition(b.state.Load()) {
		case parted:
			return
		case swallowing:
			n = 0
		case slow:
			time.Sleep(time.Duration(n/32) * time.Millisecond)
		}
		if _, e := to.Write(buf[:n]); e != nil || err != nil {
			return
		}
	}
}
