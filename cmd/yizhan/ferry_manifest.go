package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/ferry"
	"github.com/yizhan-gateway/yizhan/certs"
)

// ferryLists is where a node keeps which files it wrote.
const ferryLists = "lists"

func other(l *certs.Link, id string) string {
	if l.A == id {
		return l.B
	}
	return l.A
}

func (a *app) ferryManifestCommand() *cobra.Command {
	f, round := new(ferryFlags), uint64(0)
	c := &cobra.Command{
		Use: "manifest --link LINK --data DIR [--round N]", Short: "See which files held which documents · 交接单", Args: cobra.NoArgs,
		Long: `The list of the files of one round, as it is written onto a medium: names, sizes, digests,
and the ids of the documents in them. The newest 1000 are kept. The node need not run.`,
		RunE: func(*cobra.Command, []string) error {
			if f.data == "" || f.link == "" || strings.ContainsAny(f.link, "/\\.") {
				return usage("--data DIR and --link LINK are needed")
			}
			m, err := ferry.ReadManifest(dataDir(f.data).ferryDir(f.link, ferryLists), round)
			if err != nil {
				return err
			}
			return a.print(m, "%s", m.Text())
		},
	}
	f.add(c)
	c.Flags().Uint64Var(&round, "round", 0, "the round; 0: the last")
	return c
}
