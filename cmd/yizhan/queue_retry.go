package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/control"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// retryOrder names what is to be requeued.
type retryOrder struct {
	node.Pick
	node.Who
}

// retryResult is what queue retry says; its progress has the same form.
type retryResult struct {
	Requeued int `json:"requeued"`
}

func (r remoteQueues) Requeue(ctx context.Context, p node.Pick, who node.Who, progress func(int)) (int, error) {
	var done retryResult
	err := r.Call(ctx, http.MethodPost, "/queues/retry", retryOrder{p, who}, &done, func(line json.RawMessage) {
		var so retryResult
		if progress != nil && json.Unmarshal(line, &so) == nil {
			progress(so.Requeued)
		}
	})
	return done.Requeued, err
}

// retry is the route; it goes on when nobody listens, in steps that stand.
func (g *gateway) retry(ctx context.Context, q *control.Request) (any, error) {
	var o retryOrder
	if err := q.Decode(&o); err != nil {
		return nil, err
	}
	n, err := g.node.Requeue(ctx, o.Pick, o.Who, func(n int) { q.Progress(retryResult{n}) })
	return retryResult{n}, err
}

func (a *app) queueRetryCommand() *cobra.Command {
	f, link, all := new(queueFlags), "", false
	c := &cobra.Command{
		Use: "retry [ID | --link LINK | --all] --data DIR", Short: "Put dead letters back into their lanes · 重新投递", Args: cobra.MaximumNArgs(1),
		Long: `A dead letter is a delivery that its neighbour did not take in time, or refused in a way
that trying again does not mend. yizhan queue ls shows them with their ids. They go to
the end of their lanes, and their time begins anew.`,
		RunE: func(c *cobra.Command, args []string) error {
			pick, err := picked(args, link, all)
			if err != nil {
				return err
			}
			var n int
			err = a.onQueues(c.Context(), f, withoutKeys, func(q queues) (err error) {
				n, err = q.Requeue(c.Context(), pick, node.Who{By: f.by}, func(n int) { a.step(both("%d requeued", "已重新排队 %d 件", n)) })
				return err
			})
			if err != nil {
				return err
			}
			return a.print(retryResult{n}, "%s\n", both("%d dead letters are in their lanes again", "%d 件已重新进入队列", n))
		},
	}
	f.addBy(c)
	c.Flags().StringVar(&link, "link", "", "all of this link")
	c.Flags().BoolVar(&all, "all", false, "all of this node")
	return c
}

// picked reads which dead letters are meant: exactly one way to say so.
func picked(args []string, link string, all bool) (node.Pick, error) {
	switch {
	case len(args) == 1 && link == "" && !all:
		return node.PickOf(args[0])
	case len(args) == 0 && link != "" && !all:
		return node.Pick{Link: link}, nil
	case len(args) == 0 && link == "" && all:
		return node.Pick{}, nil
	}
	return node.Pick{}, usage("name one dead letter by its ID, or --link LINK, or --all")
}

// step tells a person how far long work has come; programs get the result.
func (a *app) step(text string) {
	if !a.json {
		fmt.Fprintf(a.err, "\r%s ", text)
	}
}
