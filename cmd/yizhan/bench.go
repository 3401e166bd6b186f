package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/control"
	"github.com/yizhan-gateway/yizhan/cmd/yizhan/bench"
)

func (a *app) benchCommand() *cobra.Command {
	var only []string
	c := a.measuring("bench", "Measure this machine: figure, bound and ratio in one run · 性能测量",
		func(ctx context.Context, o bench.Options) (*bench.Report, error) { return a.benchEngine(ctx, o, only) })
	c.Long = `Each figure stands beside its bound, measured in the same seconds: what the machine
could do if nothing but the needed primitives cost time. Two nodes run as processes
of their own. See docs/benchmarks.md.

Figures: ` + strings.Join(bench.Names, ", ")
	c.Flags().StringSliceVar(&only, "only", nil, "measure these figures alone, separated by commas")
	c.AddCommand(
		a.measuring("crypto", "Sealing, opening, keys in an HSM", bench.Crypto),
		a.measuring("ferry", "Packing documents into files, and taking them out · 摆渡", a.benchFerry),
	)
	return c
}

// measuring is a command that prints a report.
func (a *app) measuring(name, short string, measure func(context.Context, bench.Options) (*bench.Report, error)) *cobra.Command {
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
	c.Flags().Int64Var(&o.Bulk, "bulk", 0, "size of the large document, MiB")
	if name == "bench" {
		c.Flags().IntVar(&o.Waiting, "waiting", 0, "deliveries that wait in backlog and restart")
	}
	if name != "crypto" {
		c.Flags().IntVar(&o.Documents, "documents", 0, "small documents that are sent")
	}
	c.Flags().StringVar(&o.Dir, "dir", "", "where temporary files go (default: the system's)")
	return c
}

// benchEngine makes two nodes and measures them.
func (a *app) benchEngine(ctx context.Context, o bench.Options, only []string) (*bench.Report, error) {
	say := func(format string, args ...any) { fmt.Fprintf(a.err, format, args...) }
	s := &site{pair{app: a, dir: o.Dir, say: func(string, ...any) {}}}
	if err := s.prepare(); err != nil {
		return nil, err
	}
	for _, n := range []*pairNode{s.jia, s.yi} {
		defer n.end(syscall.SIGKILL) // what it has is removed
		if err := allowLarge(dataDir(n.data)); err != nil {
			return nil, err
		}
	}
	return bench.Engine(ctx, o, s, only, say)
}

// benchFerry makes two nodes on either side of a ferry and measures them.
func (a *app) benchFerry(ctx context.Context, o bench.Options) (*bench.Report, error) {
	say := func(format string, args ...any) { fmt.Fprintf(a.err, format, args...) }
	s := &ferrySite{site{pair{app: a, dir: o.Dir, say: func(string, ...any) {}}}, filepath.Join(o.Dir, "medium")}
	if err := os.Mkdir(s.medium, 0o700); err != nil {
		return nil, err
	}
	s.introduce()
	if err := s.begin(s.jia, s.yi); err != nil {
		return nil, err
	}
	if err := s.publish([]string{"link", "jia", "yi", "--kind", "ferry", "--ceiling", "work_secret"}); err != nil {
		return nil, err
	}
	for _, n := range s.nodes {
		defer n.end(syscall.SIGKILL) // what it has is removed
	}
	return bench.Ferry(ctx, o, s, say)
}

// ferrySite is a pair with a medium that is carried between its nodes.
type ferrySite struct {
	site
	medium string
}

// Export implements bench.FerrySite.
func (s *ferrySite) Export(ctx context.Context) (bench.Exported, error) {
	var out ferryExported
	err := s.order(ctx, s.jia, "/ferry/export", &out)
	return bench.Exported{Files: out.Files, Bytes: out.Bytes}, err
}

// Import implements bench.FerrySite.
func (s *ferrySite) Import(ctx context.Context) error {
	var in ferryImported
	err := s.order(ctx, s.yi, "/ferry/import", &in)
	if err == nil && (in.Files == 0 || in.Bundles.Faults > 0) {
		err = fmt.Errorf("the import took %+v", in)
	}
	return err
}

func (s *ferrySite) order(ctx context.Context, n *pairNode, path string, out any) error {
	return onRunning(ctx, dataDir(n.data), func(c *control.Client) error {
		return c.Call(ctx, http.MethodPost, path, ferryOrder{Link: "jia-yi", Medium: s.medium}, out, nil)
	})
}

// allowLarge lets a node take documents of 16 GiB.
func allowLarge(d dataDir) error {
	settings, err := d.settings()
	if err != nil {
		return err
	}
	settings.MaxUpload = 16 << 30
	return d.writeSettings(settings)
}

// site is a pair that is measured.
type site struct{ pair }

func (s *site) node(which bench.Which) (n, other *pairNode) {
	if which == bench.Sender {
		return s.jia, s.yi
	}
	return s.yi, s.jia
}

// Start implements bench.Site.
func (s *site) Start(ctx context.Context, which bench.Which) (*bench.Node, error) {
	n, other := s.node(which)
	if err := s.start(ctx, n); err != nil {
		return nil, err
	}
	return &bench.Node{URL: n.url, Key: n.key, Agency: string(n.agency), Neighbour: string(other.agency), PID: n.process.Process.Pid}, nil
}

// Kill implements bench.Site.
func (s *site) Kill(which bench.Which) error {
	n, _ := s.node(which)
	n.end(syscall.SIGKILL)
	return nil
}

// Live implements bench.Site.
func (s *site) Live(ctx context.Context, which bench.Which) (int64, error) {
	n, _ := s.node(which)
	return memoryOf(ctx, dataDir(n.data))
}

// Waiting implements bench.Site.
func (s *site) Waiting(ctx context.Context, which bench.Which) (uint64, error) {
	n, _ := s.node(which)
	c, err := control.Dial(ctx, filepath.Clean(n.data))
	if err != nil {
		return 0, err
	}
	b, err := remoteQueues{c}.backlog(ctx, wish{limit: 1})
	err = errors.Join(err, c.Close())
	total := b.Undone
	for _, l := range b.Links {
		total += l.Waiting
	}
	return total, err
}
