package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/cmd/yizhan/bench"
)

func (a *app) benchCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "bench", Short: "Measure this machine: figure, bound and ratio in one run · 性能测量",
		Long: `Each figure stands beside its bound, measured in the same seconds: what the machine
could do if nothing but the needed primitives cost time. See docs/benchmarks.md.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return usage("what to measure? bench crypto") },
	}
	c.AddCommand(a.benchOf("crypto", "Sealing, opening, keys in an HSM", bench.Crypto))
	return c
}

func (a *app) benchOf(name, short string, measure func(context.Context, bench.Options) (*bench.Report, error)) *cobra.Command {
	var o bench.Options
	c := &cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if o.Dir, err = os.MkdirTemp(o.Dir, "yizhan-bench-"); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, os.RemoveAll(o.Dir)) }()
			report, err := measure(c.Context(), o)
			if err != nil {
				return err
			}
			if a.json {
				return a.print(report, "")
			}
			return report.Table(a.out)
		},
	}
	c.Flags().BoolVar(&o.Quick, "quick", false, "smaller sizes: done within 45 s")
	c.Flags().Int64Var(&o.Bulk, "bulk", 0, "size of the large document, MiB (default 1024, with --quick 256)")
	c.Flags().StringVar(&o.Dir, "dir", "", "where temporary files go (default: the system's)")
	return c
}
