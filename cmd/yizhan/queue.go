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

// queues is what the commands of yizhan queue ask of a node.
type queues interface {
	Queues(ctx context.Context, link string) (*node.Backlog, error)
	HoldLink(ctx context.Context, link string, who node.Who) error
	ReleaseLink(ctx context.Context, link string, who node.Who) error
}

// backlog is what queue ls shows: what waits, and how the links fare. A node
// that is not running knows nothing of the latter.
type backlog struct {
	Running bool `json:"running"`
	node.Backlog
	Status []peer.Status `json:"status"`
}

// remoteQueues asks a running node.
type remoteQueues struct{ *control.Client }

func (r remoteQueues) Queues(ctx context.Context, link string) (*node.Backlog, error) {
	b, err := r.backlog(ctx, link)
	return &b.Backlog, err
}

func (r remoteQueues) backlog(ctx context.Context, link string) (b backlog, err error) {
	err = r.Call(ctx, http.MethodGet, "/queues?link="+url.QueryEscape(link), nil, &b, nil)
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
	s.Handle("POST /queues/hold", obey(g.node.HoldLink))
	s.Handle("POST /queues/release", obey(g.node.ReleaseLink))
	s.Handle("GET /queues", func(ctx context.Context, q *control.Request) (any, error) {
		return backlogOf(ctx, g.node, q.Query.Get("link"), g.peer.Status())
	})
}

// backlogOf puts together what waits and how the links fare.
func backlogOf(ctx context.Context, n queues, link string, status []peer.Status) (b backlog, err error) {
	waits, err := n.Queues(ctx, link)
	if err != nil {
		return b, err
	}
	b = backlog{Running: status != nil, Backlog: *waits, Status: []peer.Status{}}
	for _, s := range status {
		if link == "" || s.Link == link {
			b.Status = append(b.Status, s)
		}
	}
	if link != "" && len(b.Links) == 0 {
		return b, exchange.Fail(exchange.CodeNotFound, "link %q: the directory names no such link of this node, and nothing waits for one", link)
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
Run it as the node's user or as root.`,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.queueListCommand(), a.queueHoldCommand(), a.queueReleaseCommand())
	return c
}
