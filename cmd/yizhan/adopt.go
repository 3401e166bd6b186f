package main

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// keyPatience is how long a directory's coming into force is waited for while
// an HSM loads keys; then it goes on without whoever brought it.
const keyPatience = 2 * time.Second

// adopt lets the node judge by the shelf's directory from now on. What a
// neighbour brought and what a person installed may come at once: whichever is
// newer stays. One that names keys of this node which the keystore does not
// have yet waits for them, and is looked at again by watchDirectory.
func (g *gateway) adopt() {
	for {
		base, d := g.inForce(), g.shelf.Current()
		if base == d {
			return
		}
		if !g.keysFor(d, base) {
			g.showWaiting(d)
			return
		}
		g.replace(base, d)
	}
}

func (g *gateway) inForce() *certs.Directory {
	g.adopting.Lock()
	defer g.adopting.Unlock()
	return g.base
}

// replace puts a directory in force in place of the one that was looked at; if
// that one is no longer in force, somebody else was faster.
func (g *gateway) replace(base, d *certs.Directory) {
	g.adopting.Lock()
	defer g.adopting.Unlock()
	if g.base != base {
		return
	}
	g.putInForce(d)
	g.waiting = nil
	if g.node != nil {
		g.node.Wake()
	}
	g.log.Info("a new directory is in force", "version", d.Version())
}

func (g *gateway) showWaiting(d *certs.Directory) {
	g.adopting.Lock()
	defer g.adopting.Unlock()
	if g.waiting != d {
		g.waiting = d
		g.log.Warn("a new directory names keys of this node and waits until the HSM gives them; the one in force stays", "version", d.Version())
	}
}

// keysFor finds the keys that a renewal made beside this process, before a
// directory names them: a document for a key that is here and not yet known
// would be taken for one that is elsewhere. False while the HSM does not give
// keys that are new with this directory. One that names none of them waits for
// nothing: it may bring revocations, which must not depend on a device.
func (g *gateway) keysFor(d, base *certs.Directory) bool {
	missing := slices.DeleteFunc(g.ownKeys(d), g.keys.Has)
	if len(missing) == 0 {
		return true
	}
	known := g.ownKeys(base)
	if !slices.ContainsFunc(missing, func(id sm.Digest) bool { return !slices.Contains(known, id) }) {
		g.loading.begin(g.keys.Reload)
		return true
	}
	err := g.loading.run(g.keys.Reload, keyPatience)
	if errors.Is(err, keystore.ErrUnavailable) {
		return false
	}
	if err != nil {
		g.log.Error("a key of the keystore cannot be read; those known before go on", "error", err)
	}
	return true
}

// ownKeys lists the keys of the node and of the agencies that it serves.
func (g *gateway) ownKeys(d *certs.Directory) (list []sm.Digest) {
	note := func(certificates []certs.Certificate) {
		for _, c := range certificates {
			list = append(list, c.KeyID)
		}
	}
	if self, ok := d.Node(g.settings.Node); ok {
		note(self.Certificates)
	}
	for _, a := range d.Agencies() {
		if a.Node == g.settings.Node {
			note(a.Certificates)
		}
	}
	return list
}

// keyLoad has a keystore look for new keys, one look at a time and beside
// everything else: an HSM may take long, or never answer.
type keyLoad struct {
	mu  sync.Mutex
	now *look
}

// look is one look under way, or over when done is closed.
type look struct {
	done chan struct{}
	err  error
}

// begin starts a look, or joins the one under way, which may have begun before
// the key was there.
func (l *keyLoad) begin(reload func() error) (_ *look, joined bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now != nil {
		return l.now, true
	}
	one := &look{done: make(chan struct{})}
	l.now = one
	go func() {
		one.err = reload()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.now = nil
		close(one.done)
	}()
	return one, false
}

// run waits for a look of its own. One that is not over in time is
// ErrUnavailable, and goes on.
func (l *keyLoad) run(reload func() error, patience time.Duration) error {
	enough := time.NewTimer(patience)
	defer enough.Stop()
	for {
		one, joined := l.begin(reload)
		select {
		case <-enough.C:
			return keystore.ErrUnavailable
		case <-one.done:
		}
		if !joined {
			return one.err
		}
	}
}
