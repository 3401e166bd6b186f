package main

import (
	"log/slog"

	"github.com/spf13/cobra"
)

func (a *app) ballastCommand() *cobra.Command {
	var data string
	c := &cobra.Command{
		Use: "ballast --data DIR", Short: "Put the ballast file back after the disk was full · 重建预留文件", Args: cobra.NoArgs,
		Long: `A node keeps a file that only holds room. When the disk is full it is given back, so
that receipts can still be written and the node can start. Once there is room again this
puts it back, beside a running node or without one.`,
		RunE: func(*cobra.Command, []string) error {
			if data == "" {
				return usage("--data DIR is needed")
			}
			return a.ballast(dataDir(data))
		},
	}
	c.Flags().StringVar(&data, "data", "", "the node's data directory")
	return c
}

func (a *app) ballast(d dataDir) error {
	s, err := d.settings()
	if err != nil {
		return err
	}
	w := d.watermark(s, slog.New(slog.DiscardHandler))
	var made bool
	err = d.changing(func() (err error) { made, err = w.makeBallast(); return err })
	if err != nil {
		return err
	}
	text := "the ballast of %d MiB is in place · 预留文件已就位（%[1]d MiB）\n"
	return a.print(map[string]any{"ballast": true, "made": made, "mib": w.marks.ballast >> 20}, text, w.marks.ballast>>20)
}

// openWatermark looks before the store is opened, which needs room of its own
// even on a full disk, and puts the ballast in place when there is none and
// much room.
func (g *gateway) openWatermark() {
	g.space = g.dir.watermark(g.settings, g.log)
	_ = g.space.room() // gives back the ballast of a full disk
	if _, err := g.space.makeBallast(); err != nil {
		g.log.Warn("there is no ballast; make room, then run yizhan ballast", "error", err)
	}
}
