package main

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/control"
	"github.com/yizhan-gateway/yizhan/adapters/peer"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// queues is what the commands of yizhan queue tell a node.
type queues interface {
	HoldLink(ctx context.Context, link string, who node.Who) error
	ReleaseLink(ctx context.Context, link string, who node.Who) error
	Requeue(ctx context.Context, p node.Pick, who node.Who, progress func(int)) (int, error)
	GiveUp(ctx context.Context, p node.Pick, who node.Who) error
}

// backlog is what queue ls shows: what waits, and how the links fare. A node
// that is not running knows nothing of the latter.
type backlog struct {
	Running bool `json:"running"`
	node.Backlog
	Status []peer.Status    `json:"status"`
	Items  []node.QueueItem `json:"items"`
}

// wish is what of a backlog is to be shown.
type wish struct {
	link  string
	items bool // single entries that wait, besides dead letters
	limit int
}

func (w wish) query() string {
	v := url.Values{"link": {w.link}, "items": {strconv.FormatBool(w.items)}, "limit": {strconv.Itoa(w.limit)}}
	return v.Encode()
}

func wishOf(q url.Values) (w wish, err error) {
	w.link = q.Get("link")
	w.items, err = strconv.ParseBool(q.Get("items"))
	if err == nil {
		w.limit, err = strconv.Atoi(q.Get("limit"))
	}
	if err != nil || w.limit < 1 {
		return w, exchange.Fail(exchange.CodeBadRequest, "items must be true or false, limit a positive number")
	}
	return w, nil
}

// remoteQueues asks a running node.
type remoteQueues struct{ *control.Client }

func (r remoteQueues) backlog(ctx context.Context, w wish) (b backlog, err error) {
	err = r.Call(ctx, http.MethodGet, "/queues?"+w.query(), nil, &b, nil)
	return b, err
}

// order is an operator's order about a link.
type order struct {
	Link string `json:"link"`
	node.Who
}

func (r remoteQueues) HoldLink(ctx context.Context, link string, who node.Who) error {
	return r.Call(ctx, http.MethodPost, "/queues/hold", order{link, who}, nil, nil)
}

func (r remoteQueues) ReleaseLink(ctx context.Context, link string, who node.Who) error {
	return r.Call(ctx, http.MethodPost, "/queues/release", order{link, who}, nil, nil)
}

// obey makes a route of an order.
func obey(do func(context.Context, string, node.Who) error) control.Handler {
	return func(ctx context.Context, q *control.Request) (any, error) {
		var o order
		if err := q.Decode(&o); err != nil {
			return nil, err
		}
		return nil, do(ctx, o.Link, o.Who)
	}
}

func (g *gateway) queueRoutes(s *control.Server) {
	s.Handle("GET /quarantine", func(ctx context.Context, q *control.Request) (any, error) {
		w, err := wishOf(q.Query)
		if err != nil {
			return nil, err
		}
		return quarantineOf(ctx, g.node, w)
	})
	s.HandleLong("POST /queues/retry", g.retry)
	s.HandleLong("POST /queues/fail", g.fail)
	s.Handle("POST /queues/hold", obey(g.node.HoldLink))
	s.Handle("POST /queues/release", obey(g.node.ReleaseLink))
	s.Handle("GET /queues", func(ctx context.Context, q *control.Request) (any, error) {
		w, err := wishOf(q.Query)
		if err != nil {
			return nil, err
		}
		return backlogOf(ctx, g.node, w, append([]peer.Status{}, g.peer.Status()...)) // it runs, whatever links it has
	})
}

// backlogOf puts together what waits and how the links fare.
func backlogOf(ctx context.Context, n *node.Node, w wish, status []peer.Status) (b backlog, err error) {
	waits, err := n.Queues(ctx, w.link)
	if err != nil {
		return b, err
	}
	b = backlog{Running: status != nil, Backlog: *waits, Status: []peer.Status{}}
	if b.Items, err = n.QueueItems(ctx, w.link, w.items, w.limit); err != nil {
		return b, err
	}
	for _, s := range status {
		if w.link == "" || s.Link == w.link {
			b.Status = append(b.Status, s)
		}
	}
	if w.link != "" && len(b.Links) == 0 {
		return b, exchange.Fail(exchange.CodeNotFound, "link %q: the directory names no such link of this node, and nothing waits for one", w.link)
	}
	return b, nil
}

// queueFlags are what all commands of yizhan queue have.
type queueFlags struct{ data, by string }

func (f *queueFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.data, "data", "", "the node's data directory")
}

// addBy is for commands that change something.
func (f *queueFlags) addBy(c *cobra.Command) {
	f.add(c)
	c.Flags().StringVar(&f.by, "by", operatorName(), "who does it, for the ledger")
}

// operatorName is who sits in front of the command, as far as the system knows.
func operatorName() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "uid " + strconv.Itoa(os.Getuid())
}

// onQueues does something with the queues of a node, running or not.
func (a *app) onQueues(ctx context.Context, f *queueFlags, keys opener, do func(queues) error) error {
	dir, err := f.dir()
	if err != nil {
		return err
	}
	return a.withNode(ctx, dir, keys,
		func(running *control.Client) error { return do(remoteQueues{running}) },
		func(stopped *stoppedNode) error { return do(stopped.node) })
}

func (f *queueFlags) dir() (dataDir, error) {
	if f.data == "" {
		return "", usage("--data DIR is needed")
	}
	return dataDir(f.data), nil
}

func (a *app) queueCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "queue", Short: "See what waits for each link, and act on it · 队列", Args: cobra.NoArgs,
		Long: `Works on a running node through its control socket, and on a stopped one by opening it.
Run it as the node's user; root may while the node runs.`,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.queueListCommand(), a.queueHoldCommand(), a.queueReleaseCommand(), a.queueRetryCommand(), a.queueFailCommand())
	return c
}
