package main

import (
	"context"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/control"
	"github.com/yizhan-gateway/yizhan/adapters/peer"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// queues is what the commands of yizhan queue ask of a node.
type queues interface {
	Queues(ctx context.Context, link string) (*node.Backlog, error)
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

func (g *gateway) queueRoutes(s *control.Server) {
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
type queueFlags struct{ data string }

func (f *queueFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.data, "data", "", "the node's data directory")
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
	c.AddCommand(a.queueListCommand())
	return c
}
