package main

import (
	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// orderResult is what queue hold and release say.
type orderResult struct {
	Link string `json:"link"`
	Held bool   `json:"held"`
}

func (a *app) queueHoldCommand() *cobra.Command {
	f, reason := new(queueFlags), ""
	c := &cobra.Command{
		Use: "hold LINK --data DIR --reason TEXT", Short: "Let a link stand still until it is released · 暂停链路", Args: cobra.ExactArgs(1),
		Long: `Nothing is given to the neighbour and nothing taken from it, also after a restart, until
yizhan queue release. What waits, and what comes, goes on waiting at whoever has it.`,
		RunE: func(c *cobra.Command, args []string) error {
			if reason == "" {
				return usage("--reason TEXT is needed: it is shown to whoever finds the link held")
			}
			err := a.onQueues(c.Context(), f, withoutKeys, func(q queues) error {
				return q.HoldLink(c.Context(), args[0], node.Who{By: f.by, Reason: reason})
			})
			if err != nil {
				return err
			}
			return a.print(orderResult{args[0], true}, "%s\n", both("link %s is held; yizhan queue release %[1]s lets it go on", "链路 %s 已暂停；yizhan queue release %[1]s 可恢复", args[0]))
		},
	}
	f.addBy(c)
	c.Flags().StringVar(&reason, "reason", "", "why")
	return c
}

func (a *app) queueReleaseCommand() *cobra.Command {
	f, reason := new(queueFlags), ""
	c := &cobra.Command{
		Use: "release LINK --data DIR", Short: "Let a held link go on · 恢复链路", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			err := a.onQueues(c.Context(), f, withoutKeys, func(q queues) error {
				return q.ReleaseLink(c.Context(), args[0], node.Who{By: f.by, Reason: reason})
			})
			if err != nil {
				return err
			}
			return a.print(orderResult{args[0], false}, "%s\n", both("link %s goes on", "链路 %s 已恢复", args[0]))
		},
	}
	f.addBy(c)
	c.Flags().StringVar(&reason, "reason", "", "why")
	return c
}
