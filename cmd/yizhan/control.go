package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/yizhan-gateway/yizhan/adapters/control"
	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/queue/badgerstore"
	"github.com/yizhan-gateway/yizhan/queue/blob"
)

// Operators' commands work on a running node through its control socket, and
// on a stopped one by opening its store under the serve lock. A command says
// what it needs of a node in an interface of its own, which two things have:
// the node itself, and a client of the socket. Its routes stand beside it:
//
//	type queues interface { Queues(ctx, link) (*node.Backlog, error); … }
//	func (g *gateway) queueRoutes(s *control.Server)   // answers with *node.Node
//	type remoteQueues struct{ *control.Client }        // asks those routes
//	a.withNode(…, func(c *control.Client) error {…}, func(s *stoppedNode) error {…})

// controlRoutes are what a running node answers to operators' commands.
func (g *gateway) controlRoutes() *control.Server {
	s := control.New(g.log)
	g.queueRoutes(s)
	g.memoryRoutes(s)
	g.backupRoutes(s)
	g.checkRoutes(s)
	g.rootRoutes(s)
	g.ferryRoutes(s)
	g.guardRoutes(s)
	g.linkRoutes(s)
	return s
}

// startPatience is how long a command waits for a node that is starting or
// stopping: it holds the lock and does not answer.
const startPatience = 10 * time.Second

// withNode lets a command work on a node: through its socket while it runs,
// else by opening it. Of two moments in which neither is possible, while a
// node starts or stops, it waits out the short ones.
func (a *app) withNode(ctx context.Context, d dataDir, keys opener, running func(*control.Client) error, stopped func(*stoppedNode) error) error {
	for end := time.Now().Add(startPatience); ; {
		c, err := control.Dial(ctx, string(d))
		if err == nil {
			return errors.Join(running(c), c.Close())
		}
		if !errors.Is(err, control.ErrNotRunning) {
			return err
		}
		s, err := a.openStopped(ctx, d, keys)
		if err == nil {
			return errors.Join(stopped(s), s.close())
		}
		if !isBusy(err) || !time.Now().Before(end) {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// isBusy says that another process holds the serve lock.
func isBusy(err error) bool {
	return exchange.CodeOf(err) == exchange.CodeSetupConflict && exchange.IsTemporary(err)
}

// stoppedNode is a node that is opened beside no process: store, blobs and use
// cases, and nothing that serves.
type stoppedNode struct {
	dir     dataDir
	store   *badgerstore.Store
	blobs   *blob.Store
	node    *node.Node
	keys    nodeKeys
	release func() error
}

// nodeKeys are a node's keys while a command has them open.
type nodeKeys interface {
	node.Keys
	io.Closer
}

// opener gives the keys of a stopped node.
type opener func(dataDir) (nodeKeys, error)

// withoutKeys needs no passphrase: for what only looks or moves.
func withoutKeys(dataDir) (nodeKeys, error) { return noKeys{}, nil }

// openStopped opens a node that is not running. The caller closes it.
func (a *app) openStopped(ctx context.Context, d dataDir, keys opener) (s *stoppedNode, err error) {
	settings, err := d.settings()
	if err != nil {
		return nil, err
	}
	s = &stoppedNode{dir: d}
	if err := d.checkOwner(); err != nil {
		return nil, err
	}
	if s.release, err = d.hold(serveLock, 0, "the node in %s is starting or stopping"); err != nil {
		return nil, err
	}
	if s.keys, err = keys(d); err != nil {
		return nil, errors.Join(err, s.release())
	}
	log := slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if s.store, err = d.openStore(log); err != nil {
		return nil, errors.Join(err, s.keys.Close(), s.release())
	}
	if err := s.openNode(ctx, settings, a.now); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *stoppedNode) openNode(ctx context.Context, c *settings, now nowFunc) error {
	directory, err := s.dir.directory(now)
	if err != nil {
		return err
	}
	policies, err := s.dir.guard()
	if err != nil {
		return err
	}
	if s.blobs, err = s.dir.openBlobs(); err != nil {
		return err
	}
	s.node, err = node.New(ctx, node.Config{
		ID: c.Node, Store: s.store, Blobs: s.blobs, Keys: s.keys, Now: now,
		Directory: func() *certs.Directory { return directory }, DeadLetterAfter: time.Duration(c.DeadLetterAfter), Guard: policies,
	})
	return err
}

func (s *stoppedNode) close() error {
	return errors.Join(s.store.Close(), s.keys.Close(), s.release())
}

// noKeys is a keystore that was not opened.
type noKeys struct{}

var errNoKeys = errors.New("the keystore was not opened for this command")

func (noKeys) Has(sm.Digest) bool                       { return false }
func (noKeys) IDs() []sm.Digest                         { return nil }
func (noKeys) Sign(sm.Digest, []byte) ([]byte, error)   { return nil, errNoKeys }
func (noKeys) Unwrap(sm.Digest, []byte) ([]byte, error) { return nil, errNoKeys }
func (noKeys) SealRow(_, _ []byte) ([]byte, error)      { return nil, errNoKeys }
func (noKeys) OpenRow(_, _ []byte) ([]byte, error)      { return nil, errNoKeys }
func (noKeys) MAC(...[]byte) sm.Digest                  { return sm.Digest{} }
func (noKeys) Close() error                             { return nil }
