package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/control"
	"github.com/yizhan-gateway/yizhan/adapters/notify"
	"github.com/yizhan-gateway/yizhan/adapters/peer"
	"github.com/yizhan-gateway/yizhan/adapters/rest"
	"github.com/yizhan-gateway/yizhan/adapters/trust"
	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/guard"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/queue"
	"github.com/yizhan-gateway/yizhan/queue/badgerstore"
	"github.com/yizhan-gateway/yizhan/queue/blob"
	"github.com/yizhan-gateway/yizhan/queue/staging"
)

type serveFlags struct {
	data, passFile, rest, peer string
	verbose                    bool
	echo                       []string
}

func (a *app) serveCommand() *cobra.Command {
	f := new(serveFlags)
	c := &cobra.Command{
		Use: "serve --data DIR", Short: "Run a node · 运行节点", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if f.data == "" {
				return usage("--data DIR is needed")
			}
			return a.serve(c.Context(), f)
		},
	}
	c.Flags().StringVar(&f.data, "data", "", "the node's data directory")
	c.Flags().StringVar(&f.passFile, "passphrase-file", "", "file with the keystore's passphrase (or set "+passphraseEnv+")")
	c.Flags().StringVar(&f.rest, "rest-listen", "", "overrides rest_listen")
	c.Flags().StringVar(&f.peer, "peer-listen", "", "overrides peer_listen")
	c.Flags().StringSliceVar(&f.echo, "echo", nil, "TEST MODE 测试模式: agencies that sign for, return, delay or ignore by themselves, as the title says (docs/api/echo.md)")
	c.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "log more")
	return c
}

// gateway is a running node with everything it stands on.
type gateway struct {
	dir         dataDir
	settings    *settings
	policies    *guard.Policies // nil: the directory's ceilings alone
	log         *slog.Logger
	keys        *keystore.Store
	shelf       *certs.Shelf
	directory   atomic.Pointer[certs.Directory] // in force: the shelf's, with the lists of its issuers
	loading     keyLoad
	adopting    sync.Mutex       // one directory at a time; guards what follows
	base        *certs.Directory // what directory was made of
	crls        []*certs.CRL
	waiting     *certs.Directory // the one that waits for its keys, once it was shown
	revocations *trust.Watcher
	stamper     *trust.Stamper
	store       *badgerstore.Store
	blobs       *blob.Store
	space       *watermark
	boss        *supervisor
	release     func() error // of the lock that a serving node holds
	door        net.Listener // for operators' commands
	node        *node.Node
	ferries     ferries
	peer        *peer.Peer
	rest        *rest.Server
	webhooks    *notify.Book
	staging     *staging.Store
	echo        *echo       // agencies that answer by themselves
	restTLS     *tls.Config // nil: plain HTTP
}

// ready is the line that serve prints when it answers.
type ready struct {
	Ready   bool   `json:"ready"`
	Node    string `json:"node"`
	REST    string `json:"rest"`
	Peer    string `json:"peer"`
	Version uint64 `json:"directory_version"`
}

func (a *app) serve(ctx context.Context, f *serveFlags) error {
	level := slog.LevelInfo
	if f.verbose {
		level = slog.LevelDebug
	}
	settings, err := dataDir(f.data).settings()
	if err != nil {
		return err
	}
	log, end := settings.Log.open(a.err, level)
	defer end()
	g, err := openGateway(ctx, f, log)
	if err != nil {
		return err
	}
	if g.echo, err = g.openEcho(f.echo); err != nil {
		return errors.Join(err, g.close())
	}
	doors, err := g.listen(f)
	if err != nil {
		return errors.Join(err, g.close())
	}
	boss, err := findSupervisor()
	if err != nil {
		g.log.Warn("whoever started this process cannot be told how it is", "error", err)
		boss = &supervisor{}
	}
	g.boss = boss
	line := ready{true, g.settings.Node, addressOf(g.settings.RestTLS.scheme(), doors.rest), addressOf("https", doors.peer), g.node.Directory().Version()}
	if err := a.print(line, "node %s serves agencies on %s and neighbours on %s\n", line.Node, or(line.REST, "-"), or(line.Peer, "-")); err != nil {
		return err
	}
	g.tell("READY=1")
	err = g.run(ctx, doors)
	return errors.Join(err, g.boss.close())
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// openGateway opens everything in the order that leaves least behind when one
// thing is wrong, and serves nothing before all checks pass.
func openGateway(ctx context.Context, f *serveFlags, log *slog.Logger) (*gateway, error) {
	g := &gateway{dir: dataDir(f.data), log: log}
	var err error
	if g.settings, err = g.dir.settings(); err != nil {
		return nil, err
	}
	if g.policies, err = g.dir.guard(); err != nil {
		return nil, err
	}
	if err = g.dir.checkOwner(); err != nil {
		return nil, err
	}
	if err = g.dir.checkFileSystem(fileSystemOf); err != nil {
		return nil, err
	}
	if g.release, err = g.dir.hold(serveLock, servePatience, "another process serves %s"); err != nil {
		return nil, err
	}
	if err = g.holdIdentity(); err != nil {
		return nil, errors.Join(err, g.release())
	}
	if g.keys, err = g.dir.openKeys(f.passFile); err != nil {
		return nil, errors.Join(err, g.release())
	}
	if err := g.openRest(ctx); err != nil {
		return nil, errors.Join(err, g.keys.Close(), g.release())
	}
	if g.door, err = control.Listen(f.data); err != nil {
		return nil, errors.Join(err, g.store.Close(), g.keys.Close(), g.release())
	}
	return g, nil
}

// holdIdentity adds what makes this process the node to what is let go at its
// end.
func (g *gateway) holdIdentity() error {
	key, err := os.ReadFile(g.dir.path(tlsKeyFile))
	if err != nil {
		return err
	}
	leave, err := holdIdentity(key, g.settings.Node, servePatience)
	if err != nil {
		return err
	}
	unlock := g.release
	g.release = func() error { return errors.Join(leave(), unlock()) }
	return nil
}

// openRest opens all but the keys, which must pass their self-test first.
func (g *gateway) openRest(ctx context.Context) error {
	if err := g.keys.SelfTest(); err != nil {
		return err
	}
	if err := g.dir.changing(g.openShelf); err != nil {
		return err
	}
	cert, err := tls.LoadX509KeyPair(g.dir.path(tlsCertFile), g.dir.path(tlsKeyFile))
	if err != nil {
		return err
	}
	if g.restTLS, err = g.settings.RestTLS.open(); err != nil {
		return err
	}
	ring, err := rest.OpenKeyRing(g.dir.path(apiKeysFile))
	if err != nil {
		return err
	}
	g.openWatermark()
	if g.store, err = g.dir.openStore(g.log); err != nil {
		return err
	}
	if err := g.openNode(ctx); err != nil {
		return errors.Join(err, g.store.Close())
	}
	g.peer = peer.New(peer.Config{Node: g.node, Certificate: cert, Logger: g.log})
	if err := g.openStamper(); err != nil {
		return errors.Join(err, g.store.Close())
	}
	if err := g.openWebhooks(); err != nil {
		return errors.Join(err, g.store.Close())
	}
	if g.staging, err = g.openUploads(); err != nil {
		return errors.Join(err, g.store.Close())
	}
	g.rest = rest.New(rest.Config{
		Node: g.node, Keys: ring, Logger: g.log, MaxUpload: g.settings.MaxUpload, Ending: ctx.Done(), Quota: g.settings.Quota.quota(),
		Rate:     g.settings.Quota.rate(),
		Webhooks: webhooks{g.webhooks}, Staging: g.staging,
	})
	return nil
}

func (g *gateway) openNode(ctx context.Context) (err error) {
	if g.blobs, err = g.dir.openBlobs(); err != nil {
		return err
	}
	inspector, err := g.settings.Inspect.inspector()
	if err != nil {
		return err
	}
	g.node, err = node.New(ctx, node.Config{
		ID: g.settings.Node, Store: g.store, Blobs: g.blobs, Keys: g.keys, Rand: g.keys.Random(), Directory: g.directory.Load, Directories: distribution{g},
		CRLs: g.crlFiles, Together: together, Room: g.space.room, DeadLetterAfter: time.Duration(g.settings.DeadLetterAfter), Guard: g.policies,
		Inspector: inspector, About: g.about,
	})
	if err != nil {
		return err
	}
	if _, err := g.node.Signer(); err != nil {
		return fmt.Errorf("the directory does not fit this node: %w", err)
	}
	return nil
}

// atOnce is how many documents of one bundle, or steps of work, are under way
// at the same time: enough to fill a commit, few enough for their memory.
const atOnce = 64

// together calls do(0) to do(n-1) side by side.
func together(n int, do func(i int)) {
	var next atomic.Int64
	var wait sync.WaitGroup
	for range min(n, atOnce) {
		wait.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				do(int(i))
			}
		})
	}
	wait.Wait()
}

// run serves until the context ends, then lets requests finish and closes.
func (g *gateway) run(ctx context.Context, doors *doors) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wait sync.WaitGroup
	failed := make(chan error, 3)
	wait.Go(func() { g.work(ctx) })
	wait.Go(func() { g.peer.Run(ctx) })
	wait.Go(func() { g.watchDirectory(ctx) })
	wait.Go(func() { g.revocations.Run(ctx) })
	wait.Go(func() { g.stamper.Run(ctx) })
	wait.Go(func() { g.webhooks.Run(ctx) })
	wait.Go(func() { g.echo.run(ctx) })
	wait.Go(func() { g.sweepUploads(ctx) })
	wait.Go(func() { g.warnOfExpiry(ctx) })
	wait.Go(func() { g.sweep(ctx) })
	wait.Go(func() { g.scrub(ctx) })
	for i := range g.settings.Ferry {
		wait.Go(func() { g.watchFerry(ctx, &g.settings.Ferry[i]) })
	}
	wait.Go(func() { g.space.watch(ctx) })
	wait.Go(func() { g.boss.keepAlive(ctx, g.commits, g.silent) })
	if doors.peer != nil {
		wait.Go(func() {
			if err := g.peer.Serve(ctx, doors.peer); err != nil && ctx.Err() == nil {
				failed <- err
			}
		})
	}
	wait.Go(func() {
		if err := g.controlRoutes().Serve(ctx, g.door); err != nil {
			failed <- err
		}
	})
	if doors.metrics != nil {
		wait.Go(func() { g.serveMetrics(ctx, doors.metrics) })
	}
	server := &http.Server{
		TLSConfig: g.restTLS, Handler: g.rest.Handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
		ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
	if doors.rest != nil {
		wait.Go(func() {
			if err := serveREST(server, doors.rest); !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		})
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	g.tell("STOPPING=1")
	g.log.Info("stopping: no new request is taken, those under way finish", "within", drainTime.String())
	g.drain(server)
	cancel()
	wait.Wait()
	return errors.Join(err, g.close())
}

// drainTime bounds how long requests that are under way may take at the end.
// systemd is given more.
const drainTime = 10 * time.Second

// drain lets the requests of agencies finish. Those that only wait end by
// themselves. What takes longer is cut off: an upload that was not answered is
// repeated with its key, so nothing is lost by it and the end is orderly.
func (g *gateway) drain(server *http.Server) {
	grace, stop := context.WithTimeout(context.Background(), drainTime)
	defer stop()
	if err := server.Shutdown(grace); err != nil {
		g.log.Warn("requests that did not finish in time were cut off", "error", err)
		_ = server.Close() // it only says the same of its connections
	}
}

// close lets the store, the HSM and the directory go, when nothing works with
// them any more. The socket goes before the lock: the next process makes one.
func (g *gateway) close() error {
	return errors.Join(g.door.Close(), g.ferries.close(), g.store.Close(), g.keys.Close(), g.release())
}

// work distributes and delivers as long as there is something to do, then
// waits for the next commit. Entries that failed become ready without one,
// hence the tick.
func (g *gateway) work(ctx context.Context) {
	for ctx.Err() == nil {
		changed := g.node.Changed()
		did, err := g.node.Work(ctx)
		if err != nil && ctx.Err() == nil {
			g.log.Error("a step of work failed and will be tried again", "error", err)
		}
		if did && err == nil {
			continue
		}
		select {
		case <-changed:
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// openShelf takes the installed directory into force.
func (g *gateway) openShelf() (err error) {
	if g.shelf, err = g.dir.shelf(time.Now); err != nil {
		return err
	}
	if g.shelf.Current() == nil {
		return g.dir.noDirectory()
	}
	if why := g.shelf.Restored(); why != nil {
		g.log.Error("the directory file could not be used and was replaced by its copy", "error", why)
	}
	g.base = g.shelf.Current()
	return g.openRevocations()
}

// watchDirectory takes into force what "yizhan init --directory" installs
// while the node is running.
func (g *gateway) watchDirectory(ctx context.Context) {
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(2 * time.Second):
		}
		info, err := os.Stat(g.dir.path(directoryFile))
		if err == nil && !info.ModTime().Equal(last) {
			err := g.dir.changing(func() error { _, err := g.shelf.Reload(); return err })
			if !exchange.IsTemporary(err) { // else it is looked at again
				last = info.ModTime()
			}
			if err != nil {
				g.log.Error("the installed directory is refused; the one in force stays", "error", err)
			}
		}
		g.adopt() // also what waited for the keys
	}
}

// distribution lets the node's links carry directories: what a neighbour has
// less is given to it, what it gives is judged and taken into force.
type distribution struct{ g *gateway }

func (x distribution) Delta(from uint64) ([]byte, error) { return x.g.shelf.Delta(from) }

func (x distribution) Take(update []byte) error {
	err := x.g.dir.changing(func() error { _, err := x.g.shelf.Take(update); return err })
	if err == nil {
		x.g.adopt()
	}
	return err
}

// compactEvery is how often segments in which little lives are looked for: a
// look is at a table in memory.
const compactEvery = 10 * time.Minute

func (g *gateway) sweep(ctx context.Context) {
	n, err := g.blobs.Sweep(ctx, func(ref queue.Ref) (bool, error) { return g.node.Referenced(ctx, ref) })
	if err != nil && ctx.Err() == nil {
		g.log.Error("sweeping blobs failed", "error", err)
	}
	if n > 0 {
		g.log.Info("removed blobs that nothing refers to", "count", n)
	}
	for tick := time.NewTicker(compactEvery); ; {
		if n, err = g.blobs.Compact(ctx); err != nil && ctx.Err() == nil {
			g.log.Error("giving back room of segments failed; it is tried again", "error", err)
		}
		if n > 0 {
			g.log.Info("gave back room of segments that held little", "count", n)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return
		}
	}
}
