package e2e

import (
	"math"
	"net"
	"sync"
	"testing"
	"time"
)

// gate passes connections on to an address. It counts what goes there, lets no
// more of it pass in a second than rate, and holds the rest once limit is
// reached: then a test can do something at a known moment of a transfer.
type gate struct {
	t           *testing.T
	address, to string
	rate        int64 // bytes a second; 0: as they come

	mu            sync.Mutex
	changed       *sync.Cond
	passed, limit int64
	holding       bool
	cuts          int
	open          map[net.Conn]bool
}

const unlimited = math.MaxInt64

func newGate(t *testing.T, rate int64) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{t: t, address: l.Addr().String(), to: freeAddress(t), rate: rate, limit: unlimited, open: map[net.Conn]bool{}}
	g.changed = sync.NewCond(&g.mu)
	t.Cleanup(func() {
		l.Close()
		g.cut()
	})
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			go g.pass(from)
		}
	}()
	return g
}

// gated is a cluster of two nodes whose link passes a gate.
func gated(t *testing.T, rate int64) (*cluster, *gate) {
	t.Helper()
	g := newGate(t, rate)
	c := newClusterWith(t, func(id string) []string {
		if id != "yi" { // whom jia dials
			return nil
		}
		return []string{"--peer-url", "https://" + g.address, "--peer-listen", g.to}
	}, "jia", "yi")
	for _, p := range c.nodes {
		p.raiseUploads(t)
		if err := p.start(); err != nil {
			t.Fatal(err)
		}
	}
	return c, g
}

// upTo counts anew and holds what comes beyond limit.
func (g *gate) upTo(limit int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.passed, g.limit, g.holding = 0, limit, false
	g.changed.Broadcast()
}

// letGo holds nothing any more; the count goes on.
func (g *gate) letGo() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limit, g.holding = unlimited, false
	g.changed.Broadcast()
}

// awaitHeld waits until something is held.
func (g *gate) awaitHeld() {
	g.t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		g.mu.Lock()
		held := g.holding
		g.mu.Unlock()
		if held {
			return
		}
	}
	g.t.Fatal("the transfer did not get as far as the gate")
}

func (g *gate) count() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.passed
}

// cut ends all connections; what is held is lost.
func (g *gate) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cuts++
	for c := range g.open {
		c.Close()
	}
	clear(g.open)
	g.changed.Broadcast()
}

func (g *gate) pass(from net.Conn) {
	to, err := net.Dial("tcp", g.to)
	if err != nil {
		from.Close()
		return
	}
	g.mu.Lock()
	g.open[from], g.open[to] = true, true
	cuts := g.cuts
	g.mu.Unlock()
	go g.copy(from, to, func(int) bool { return true })
	g.copy(to, from, func(n int) bool { return g.admit(int64(n), cuts) })
}

// admit counts n bytes when they may pass; false when their connection is cut.
func (g *gate) admit(n int64, cuts int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.passed+n > g.limit && g.cuts == cuts {
		g.holding = true
		g.changed.Wait()
	}
	if g.cuts != cuts {
		return false
	}
	g.passed += n
	return true
}

func (g *gate) copy(to, from net.Conn, admit func(int) bool) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if !admit(n) {
			return
		}
		if g.rate > 0 {
			time.Sleep(time.Duration(int64(n) * int64(time.Second) / g.rate))
		}
		if _, e := to.Write(buf[:n]); e != nil || err != nil {
			return
		}
	}
}
