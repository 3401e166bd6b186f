package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/control"
	"github.com/yizhan-gateway/yizhan/adapters/ferry"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/link"
)

// ferrySettings is a table [[ferry]] of config.toml: how one link of kind ferry is
// served. A link without one is served by hand, with yizhan ferry.
type ferrySettings struct {
	Link      string   `toml:"link" comment:"the link in the directory"`
	Spool     string   `toml:"spool,omitempty" comment:"a directory with out, in, ack, quarantine and done, which a gate or a person serves; empty: the node's own"`
	Out       string   `toml:"out,omitempty" comment:"a directory of the gate for files that leave, in place of the spool's out"`
	In        string   `toml:"in,omitempty" comment:"a directory of the gate for files that come, in place of the spool's in"`
	Ack       string   `toml:"ack,omitempty" comment:"one more directory of the gate for files that come, in place of the spool's ack"`
	Partial   string   `toml:"partial,omitempty" comment:"where files for out are written, on its file system; empty: in out, under hidden names"`
	Extension string   `toml:"extension,omitempty" comment:"of file names; empty: yzb"`
	Wrap      string   `toml:"wrap,omitempty" comment:"for gates that look into files: none, zip, xml or text; empty: none"`
	Every     duration `toml:"every,omitempty" comment:"how often it is looked at; empty: 10s"`
	FileMiB   int64    `toml:"file_mib,omitempty" comment:"MiB of one file; 0: 50"`
	Files     int      `toml:"files,omitempty" comment:"files of one export; 0: 100"`
}

const (
	ferryEvery   = 10 * time.Second
	ferryFileMiB = 50
	ferryFiles   = 100
	maxFerryMiB  = 4000 // what either side looks at, and what an archive can have
)

// check refuses what no spool could be opened with, with the line to change.
func (f *ferrySettings) check(file string) error {
	bad := func(format string, args ...any) error {
		return exchange.Fail(exchange.CodeBadRequest, "%s: [[ferry]] %s: %s", file, f.Link, fmt.Sprintf(format, args...))
	}
	for key, dir := range map[string]string{"spool": f.Spool, "out": f.Out, "in": f.In, "ack": f.Ack, "partial": f.Partial} {
		if dir != "" && !filepath.IsAbs(dir) {
			return bad("%s is %q; name a directory from the root on, such as /srv/gate/tx", key, dir)
		}
	}
	switch {
	case f.FileMiB < 0 || f.FileMiB > maxFerryMiB || f.Files < 0:
		return bad("file_mib is at most %d, and neither it nor files is below 0", maxFerryMiB)
	case f.Wrap != "" && !slices.Contains(ferry.Wrappings(), f.Wrap):
		return bad("wrap is %q; there are %s", f.Wrap, strings.Join(ferry.Wrappings(), ", "))
	}
	return nil
}

func (f *ferrySettings) limits() link.Limits {
	l := link.Limits{FileBytes: f.FileMiB << 20, Files: f.Files}
	if l.FileBytes <= 0 {
		l.FileBytes = ferryFileMiB << 20
	}
	if l.Files <= 0 {
		l.Files = ferryFiles
	}
	return l
}

func (f *ferrySettings) every() time.Duration {
	if f.Every <= 0 {
		return ferryEvery
	}
	return time.Duration(f.Every)
}

// ferries are the spools of a running node, opened when they are first needed.
type ferries struct {
	mu   sync.Mutex
	open map[string]*openFerry
}

type openFerry struct {
	*ferry.Spool
	kept *ferry.Kept
}

func (f *ferries) close() (err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, one := range f.open {
		err = errors.Join(err, one.Close(), one.kept.Close())
	}
	f.open = nil
	return err
}

// ferryDir is where a node keeps what belongs to a link of kind ferry.
func (d dataDir) ferryDir(link, what string) string {
	return d.path(filepath.Join("ferry", link, what))
}

// ferry gives the spool of a link; an error says why there is none.
func (g *gateway) ferry(ctx context.Context, name string) (*ferry.Spool, error) {
	l, ok := g.node.Directory().Link(name)
	if !ok || l.A != g.node.ID() && l.B != g.node.ID() || l.Kind != "ferry" {
		return nil, exchange.Fail(exchange.CodeNotFound, "link %q: the directory names no such link of kind ferry at this node", name)
	}
	g.ferries.mu.Lock()
	defer g.ferries.mu.Unlock()
	if one := g.ferries.open[name]; one != nil {
		return one.Spool, nil
	}
	settings := g.settings.ferry(name)
	kept, err := ferry.OpenKept(g.dir.ferryDir(name, "kept"))
	if err != nil {
		return nil, err
	}
	f, err := link.NewFerry(ctx, g.node, name, kept)
	if err != nil {
		return nil, errors.Join(err, kept.Close())
	}
	spool, err := ferry.Open(ferry.Config{
		Ferry: f, Dir: or(settings.Spool, g.dir.ferryDir(name, "spool")), Own: settings.Spool == "",
		Out: settings.Out, In: settings.In, Ack: settings.Ack, Partial: settings.Partial, Extension: settings.Extension, Wrap: settings.Wrap,
		Work: g.dir.ferryDir(name, "work"), Lists: g.dir.ferryDir(name, ferryLists), From: g.node.ID(), To: other(l, g.node.ID()),
		Limits: settings.limits(), Logger: g.log, Now: time.Now,
	})
	if err != nil {
		return nil, errors.Join(err, kept.Close())
	}
	if g.ferries.open == nil {
		g.ferries.open = map[string]*openFerry{}
	}
	g.ferries.open[name] = &openFerry{spool, kept}
	return spool, nil
}

func (s *settings) ferry(name string) *ferrySettings {
	i := slices.IndexFunc(s.Ferry, func(f ferrySettings) bool { return f.Link == name })
	if i < 0 {
		return &ferrySettings{Link: name}
	}
	return &s.Ferry[i]
}

// watchFerry serves one spool until ctx ends. A link that is not in the directory yet
// is waited for.
func (g *gateway) watchFerry(ctx context.Context, f *ferrySettings) {
	for said := ""; ctx.Err() == nil; {
		spool, err := g.ferry(ctx, f.Link)
		if err == nil {
			spool.Watch(ctx, f.every())
			return
		}
		if why := err.Error(); why != said {
			said = why
			g.log.Error("a ferry cannot be served yet", "link", f.Link, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(f.every()):
		}
	}
}

// ferryOrder is what the commands of yizhan ferry ask of a running node. Medium is a
// directory; without one the link's spool is meant.
type ferryOrder struct {
	Link   string `json:"link"`
	Medium string `json:"medium,omitempty"`

	Again    string   `json:"again,omitempty"` // FROM-TO or all
	Code     string   `json:"code,omitempty"`
	Operator string   `json:"operator,omitempty"`
	Signed   [][]byte `json:"signed,omitempty"`
}

type ferryExported struct {
	Link string `json:"link"`
	link.Exported
	Manifest *ferry.Manifest `json:"manifest,omitempty"` // of a medium
}

type ferryImported struct {
	Link string `json:"link"`
	ferry.Report
}

type ferryStatus struct {
	Ferries []link.FerryStatus `json:"ferries"`
}

func (g *gateway) ferryRoutes(s *control.Server) {
	ordered := func(do func(ctx context.Context, spool *ferry.Spool, o ferryOrder) (any, error)) control.Handler {
		return func(ctx context.Context, q *control.Request) (any, error) {
			var o ferryOrder
			if err := q.Decode(&o); err != nil {
				return nil, err
			}
			spool, err := g.ferry(ctx, o.Link)
			if err != nil {
				return nil, err
			}
			return do(ctx, spool, o)
		}
	}
	s.HandleLong("POST /ferry/export", ordered(func(ctx context.Context, spool *ferry.Spool, o ferryOrder) (any, error) {
		if o.Medium == "" {
			got, err := spool.Export(ctx, true)
			return ferryExported{o.Link, got, nil}, err
		}
		got, list, err := spool.ExportTo(ctx, o.Medium)
		return ferryExported{o.Link, got, list}, err
	}))
	s.HandleLong("POST /ferry/import", ordered(func(ctx context.Context, spool *ferry.Spool, o ferryOrder) (any, error) {
		if o.Medium == "" {
			got, err := spool.Import(ctx)
			return ferryImported{o.Link, got}, err
		}
		got, err := spool.ImportFrom(ctx, o.Medium)
		return ferryImported{o.Link, got}, err
	}))
	g.ferryCodeRoutes(s, ordered)
	s.Handle("GET /ferry", func(ctx context.Context, q *control.Request) (any, error) {
		return g.ferryStatus(ctx, q.Query.Get("link"))
	})
}

func (g *gateway) ferryStatus(ctx context.Context, only string) (ferryStatus, error) {
	out := ferryStatus{Ferries: []link.FerryStatus{}}
	for _, l := range g.node.Directory().LinksOf(g.node.ID()) {
		if l.Kind != "ferry" || only != "" && l.ID != only {
			continue
		}
		spool, err := g.ferry(ctx, l.ID)
		if err != nil {
			return out, err
		}
		st, err := spool.Status(ctx)
		if err != nil {
			return out, err
		}
		out.Ferries = append(out.Ferries, st)
	}
	if only != "" && len(out.Ferries) == 0 {
		return out, exchange.Fail(exchange.CodeNotFound, "link %q: the directory names no such link of kind ferry at this node", only)
	}
	return out, nil
}

func (a *app) ferryCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "ferry", Short: "Carry bundles in files over a gate or on media · 摆渡", Args: cobra.NoArgs,
		Long: `For links of kind ferry. A link with a table [[ferry]] in config.toml is served by the node
itself; export and import do one step now, or serve a medium that a person carries. The node
must run.`,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.withAgain(a.ferryExportCommand()), a.ferryImportCommand(), a.ferryStatusCommand(), a.ferryCodeCommand(), a.ferryConfirmCommand(), a.ferryManifestCommand(), a.ferryProbeCommand())
	return c
}

type ferryFlags struct{ data, link string }

func (f *ferryFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.data, "data", "", "the node's data directory")
	c.Flags().StringVar(&f.link, "link", "", "the link")
}

// asked sends an order to the running node.
func (f *ferryFlags) asked(ctx context.Context, path, medium string, out any) error {
	if f.data == "" || f.link == "" {
		return usage("--data DIR and --link LINK are needed")
	}
	if medium != "" {
		var err error
		if medium, err = filepath.Abs(medium); err != nil {
			return err
		}
	}
	return onRunning(ctx, dataDir(f.data), func(c *control.Client) error {
		return c.Call(ctx, http.MethodPost, path, ferryOrder{Link: f.link, Medium: medium}, out, nil)
	})
}

// onRunning asks a node that must run.
func onRunning(ctx context.Context, d dataDir, do func(*control.Client) error) error {
	c, err := control.Dial(ctx, string(d))
	if errors.Is(err, control.ErrNotRunning) {
		return &exchange.Error{Code: exchange.CodeTemporary, Temporary: true, Detail: "the node in " + string(d) + " does not run; start it with yizhan serve"}
	}
	if err != nil {
		return err
	}
	return errors.Join(do(c), c.Close())
}

func (a *app) ferryExportCommand() *cobra.Command {
	f, to := new(ferryFlags), ""
	c := &cobra.Command{
		Use: "export --link LINK --data DIR [--to DIR]", Short: "Write what waits into files · 导出", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var out ferryExported
			if err := f.asked(c.Context(), "/ferry/export", to, &out); err != nil {
				return err
			}
			list := ""
			if out.Manifest != nil {
				list = "\n" + out.Manifest.Text()
			}
			return a.print(out, "%s\n%s", both("round %d: %d files with %d bundles, %d of them again, %d bytes", "第 %d 轮：%d 个文件，%d 个驿包（其中重传 %d 个），%d 字节",
				out.Round, out.Files, out.Bundles, out.Again, out.Bytes), list)
		},
	}
	f.add(c)
	c.Flags().StringVar(&to, "to", "", "a medium's directory, in place of the spool's out/")
	return c
}

func (a *app) ferryImportCommand() *cobra.Command {
	f, from := new(ferryFlags), ""
	c := &cobra.Command{
		Use: "import --link LINK --data DIR [--from DIR]", Short: "Take the files that came · 导入", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var out ferryImported
			if err := f.asked(c.Context(), "/ferry/import", from, &out); err != nil {
				return err
			}
			lists := ""
			if out.Lists != nil {
				lists = both("manifests: %d, %d unreadable; missing files %v, changed files %v", "交接单 %d 份，%d 份无法读取；缺失文件 %v，已变文件 %v",
					out.Lists.Lists, out.Lists.Unreadable, out.Lists.Missing, out.Lists.Changed) + "\n"
			}
			return a.print(out, "%s\n%s", both("%d files taken, %d not whole yet, %d quarantined; %d bundles with %d items, %d of ours acknowledged", "接收 %d 个文件，%d 个尚不完整，%d 个已隔离；%d 个驿包、%d 个条目，对方确认 %d 个驿包",
				out.Files, out.Waiting, out.Quarantined, out.Bundles.Bundles, out.Bundles.Items, out.Bundles.Settled), lists)
		},
	}
	f.add(c)
	c.Flags().StringVar(&from, "from", "", "a medium's directory, in place of the spool's in/; its files stay there")
	return c
}

func (a *app) ferryStatusCommand() *cobra.Command {
	f := new(ferryFlags)
	c := &cobra.Command{
		Use: "status --data DIR [--link LINK]", Short: "See what is on its way and what is missing · 状态", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if f.data == "" {
				return usage("--data DIR is needed")
			}
			var out ferryStatus
			err := onRunning(c.Context(), dataDir(f.data), func(client *control.Client) error {
				return client.Call(c.Context(), http.MethodGet, "/ferry?link="+url.QueryEscape(f.link), nil, &out, nil)
			})
			if err != nil {
				return err
			}
			var text strings.Builder
			for _, s := range out.Ferries {
				fmt.Fprintf(&text, "%s\n", both("%s: %d bundles on their way (%d bytes, %d kept on this disk), %d of them lost; of the neighbour all up to %d, %d gaps", "%s：在途驿包 %d 个（%d 字节，本机留存 %d 字节），其中丢失 %d 个；对方驿包已收至第 %d 个，缺口 %d 处",
					s.Link, s.Outstanding, s.Bytes, s.KeptBytes, s.Lost, s.UpTo, len(s.Gaps)))
				text.WriteString(oneWayText(s.OneWay))
			}
			return a.print(out, "%s", text.String())
		},
	}
	f.add(c)
	return c
}
