package main

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/control"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// failResult is what queue fail says.
type failResult struct {
	ID    string `json:"id"`
	Stage string `json:"stage"`
}

func (r remoteQueues) GiveUp(ctx context.Context, p node.Pick, who node.Who) error {
	return r.Call(ctx, http.MethodPost, "/queues/fail", retryOrder{p, who}, nil, nil)
}

// fail is the route; it goes on when nobody listens, in steps that stand.
func (g *gateway) fail(ctx context.Context, q *control.Request) (any, error) {
	var o retryOrder
	if err := q.Decode(&o); err != nil {
		return nil, err
	}
	return nil, g.node.GiveUp(ctx, o.Pick, o.Who)
}

func (a *app) queueFailCommand() *cobra.Command {
	f, reason, passFile := new(queueFlags), "", ""
	c := &cobra.Command{
		Use: "fail ID --data DIR --reason TEXT", Short: "Give up a dead letter for good, and tell the sender · 放弃投递", Args: cobra.ExactArgs(1),
		Long: `Signs FAILED for every recipient of one dead letter; the sender gets it as a receipt, and
the reason with it, sealed. It cannot be taken back. Refused (fate_unknown) unless the
neighbour certainly does not have the delivery: it never left this node, or the neighbour
refused it at once. What it may have is put back with yizhan queue retry. On a stopped
node this opens the keystore.`,
		RunE: func(c *cobra.Command, args []string) error {
			if reason == "" {
				return usage("--reason TEXT is needed: it is sent to the sender")
			}
			pick, err := node.PickOf(args[0])
			if err != nil {
				return err
			}
			keys := func(d dataDir) (nodeKeys, error) { return d.openKeys(passFile) }
			err = a.onQueues(c.Context(), f, keys, func(q queues) error {
				return q.GiveUp(c.Context(), pick, node.Who{By: f.by, Reason: reason})
			})
			if err != nil {
				return err
			}
			return a.print(failResult{pick.String(), "FAILED"}, "%s\n", both("%s is given up; FAILED is on its way to the sender", "%s 已放弃投递，“投递失败”回执已发往发文单位", pick))
		},
	}
	f.addBy(c)
	c.Flags().StringVar(&reason, "reason", "", "why, for the sender")
	c.Flags().StringVar(&passFile, "passphrase-file", "", "read the keystore's passphrase from this file")
	return c
}
