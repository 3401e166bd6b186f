package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/fileshare"
	"github.com/yizhan-gateway/yizhan/adapters/fileshare/pull"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/queue"
)

func (a *app) importCommand() *cobra.Command {
	profile := new(string)
	c := &cobra.Command{
		Use: "import", Short: "Take in documents that lie on a file share · 共享目录导入", Args: cobra.NoArgs,
		Long: `Documents on a share, with a list beside them or by the rules of the profile, go to the
node as if its agency had sent them. Each goes once, however often the import is run or
interrupted. See docs/import.md, and docs/import.zh-CN.md for those who fill the share.`,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.PersistentFlags().StringVar(profile, "profile", "import.toml", "the import's profile")
	c.AddCommand(a.importInitCommand(profile), a.importScanCommand(profile), a.importRunCommand(profile),
		a.importStatusCommand(profile), a.importRetryCommand(profile), a.importReportCommand(profile))
	return c
}

// imports is an import that is open, with what it tells.
type imports struct {
	*fileshare.Import
	p         *importProfile
	store     queue.Store
	said      io.Writer
	sights    *pull.Puller // of a source that is watched
	bar       *progressBar
	attention []fileshare.Entry
	leftOff   int
}

// mostAttention bounds the entries that are kept for the end of a run; the report has
// all.
const mostAttention = 1000

// An import lets little garbage gather: its ledger holds tables of tens of megabytes, and
// as much again would lie around. importGC is in hundredths of what is held; from
// importMemory bytes on all is collected at once.
const (
	importGC     = 25
	importMemory = 128 << 20
)

// withImport opens what the profile says.
func (a *app) withImport(profile string, do func(*imports) error) (err error) {
	defer debug.SetGCPercent(debug.SetGCPercent(importGC))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(importMemory))
	p, err := loadProfile(profile)
	if err != nil {
		return err
	}
	node, err := p.node()
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	store, err := p.ledger(log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	i := &imports{p: p, bar: a.newProgressBar(), store: store, said: a.err}
	c := p.config(log, a.now)
	c.Progress = i.hear
	if i.Import, err = fileshare.Open(c, store, node); err != nil {
		return err
	}
	return do(i)
}

// hear keeps what somebody should look at.
func (i *imports) hear(e fileshare.Entry, s fileshare.Summary) {
	i.bar.show(s)
	switch e.Outcome {
	case fileshare.Submitted, fileshare.Done, fileshare.Ready:
		return
	}
	if len(i.attention) == mostAttention {
		i.leftOff++
		return
	}
	i.attention = append(i.attention, e)
}

// importResult is what scan and run print.
type importResult struct {
	fileshare.Summary
	Attention []fileshare.Entry `json:"attention"`
	LeftOff   int               `json:"left_off,omitempty"`
}

func (a *app) importScanCommand(profile *string) *cobra.Command {
	return &cobra.Command{
		Use: "scan", Short: "Say what a run would do, and change nothing · 试扫描", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withImport(*profile, func(i *imports) error { return a.importOnce(c.Context(), i, i.Scan) })
		},
	}
}

func (a *app) importRunCommand(profile *string) *cobra.Command {
	dry, watch := false, false
	c := &cobra.Command{
		Use: "run", Short: "Submit what is there · 执行导入", Args: cobra.NoArgs,
		Long: `Submits all documents that are whole, once each. Exit codes: 0 all is submitted, 9 somebody
has to look at something (yizhan import status), 7 something waits (run it again), 4 the
share is not there.`,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withImport(*profile, func(i *imports) error {
				switch {
				case dry:
					return a.importOnce(c.Context(), i, i.Scan)
				case watch:
					return a.importWatch(c.Context(), i)
				}
				if err := i.fetchOnce(c.Context(), a.now); err != nil {
					return a.importVerdict(fileshare.Summary{}, err)
				}
				return a.importOnce(c.Context(), i, i.Run)
			})
		},
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "as scan")
	c.Flags().BoolVar(&watch, "watch", false, "go on until interrupted")
	return c
}

func (a *app) importOnce(ctx context.Context, i *imports, run func(context.Context) (fileshare.Summary, error)) error {
	s, err := run(ctx)
	i.bar.end()
	out := importResult{Summary: s, Attention: i.attention, LeftOff: i.leftOff}
	if out.Attention == nil {
		out.Attention = []fileshare.Entry{}
	}
	if s != (fileshare.Summary{}) || err == nil {
		if err := a.print(out, "%s", importText(&out)); err != nil {
			return err
		}
	}
	return a.importVerdict(s, err)
}

// importVerdict is the exit code of a run.
func (a *app) importVerdict(s fileshare.Summary, err error) error {
	var busy *fileshare.Busy
	switch {
	case gone(err):
		a.shareGone(err)
		return verdictError(exitNotFound)
	case errors.Is(err, context.Canceled):
		return exchange.Fail(exchange.CodeTemporary, "it was interrupted; the next run goes on")
	case errors.As(err, &busy) && exchange.Known(err) == nil:
		return exchange.Fail(exchange.CodeTemporary, "%v", err)
	case err != nil:
		return err
	case s.Waiting > 0:
		return verdictError(exitTemporary)
	case s.Quarantined+s.Undecided+s.Held+s.Unmatched > 0:
		return verdictError(exitWarnings)
	}
	return nil
}

func gone(err error) bool {
	return errors.Is(err, fileshare.ErrShareGone) || errors.Is(err, pull.ErrGone)
}

// shareGone is an alarm, and not an empty share.
func (a *app) shareGone(err error) {
	const zh, en = "共享目录不可用：没有提交任何内容。请检查挂载，以及标志文件是否存在。", "The share is not there: nothing was concluded from that. Look at the mount, and for its sentinel."
	switch {
	case a.json:
		_ = json.NewEncoder(a.err).Encode(map[string]any{"error": map[string]any{"code": "share_missing", "detail": err.Error(), "exit": exitNotFound, "title_zh": zh, "title_en": en}})
	case a.language() == "zh":
		fmt.Fprintf(a.err, "yizhan: 报警: %s (%v)\n", zh, err)
	default:
		fmt.Fprintf(a.err, "yizhan: alarm: %s (%v)\n", en, err)
	}
}

const importEvery = 30 * time.Second

// importWatch goes on. Trouble with share or node is said, and tried again.
func (a *app) importWatch(ctx context.Context, i *imports) error {
	every := time.Duration(i.p.Every)
	if every <= 0 {
		every = importEvery
	}
	for {
		i.attention, i.leftOff = nil, 0
		err := i.fetch(ctx, a.now)
		if err == nil {
			err = i.Look(ctx)
		}
		var s fileshare.Summary
		if err == nil {
			s, err = i.Pass(ctx)
		}
		i.bar.end()
		if err := a.watched(i, s, err); err != nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return nil
		}
	}
}

// watched tells what a pass did. What is wrong with the settings ends the watch.
func (a *app) watched(i *imports, s fileshare.Summary, err error) error {
	var busy *fileshare.Busy
	switch {
	case errors.Is(err, context.Canceled):
		return nil
	case gone(err):
		a.shareGone(err)
		return nil
	case errors.As(err, &busy):
		fmt.Fprintf(a.err, "yizhan: %v\n", err)
	case err != nil:
		return err
	}
	if s.Submitted+s.Quarantined+s.Duplicates == 0 {
		return nil
	}
	return a.print(importResult{Summary: s, Attention: i.attention, LeftOff: i.leftOff}, "%s", importText(&importResult{Summary: s}))
}

func importText(r *importResult) string {
	var b strings.Builder
	for _, e := range r.Attention {
		fmt.Fprintf(&b, "%s  %s\n    %s\n", e.OutcomeZH, e.Place(), strings.Trim(e.Cause+"："+e.Detail, "："))
		if e.Remedy != "" {
			fmt.Fprintf(&b, "    处理：%s\n", e.Remedy)
		}
	}
	if r.LeftOff > 0 {
		fmt.Fprintf(&b, "另有 %d 项，见 yizhan import report\n", r.LeftOff)
	}
	s := r.Summary
	for _, one := range []struct {
		n    int
		what string
	}{
		{s.Ready, "可提交 ready"}, {s.Submitted, "已提交 submitted"}, {s.Done, "此前已提交 done before"}, {s.Duplicates, "重复 duplicates"},
		{s.Quarantined, "隔离 quarantined"}, {s.Held, "整批暂缓 held"}, {s.Undecided, "待核实 undecided"}, {s.Waiting, "等待 waiting"}, {s.Unmatched, "未匹配文件 unmatched files"},
	} {
		if one.n > 0 {
			fmt.Fprintf(&b, "%d %s\n", one.n, one.what)
		}
	}
	if b.Len() == 0 {
		return "没有可导入的公文 nothing to import\n"
	}
	return b.String()
}

func (a *app) importStatusCommand(profile *string) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "What somebody has to look at · 待处理事项", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withImport(*profile, func(i *imports) error {
				s, err := i.Status(c.Context(), i.hear)
				if err != nil {
					return err
				}
				out := importResult{Summary: s, Attention: i.attention, LeftOff: i.leftOff}
				if out.Attention == nil {
					out.Attention = []fileshare.Entry{}
				}
				if err := a.print(out, "%s", importText(&out)); err != nil {
					return err
				}
				return a.importVerdict(s, nil)
			})
		},
	}
}

func (a *app) importRetryCommand(profile *string) *cobra.Command {
	return &cobra.Command{
		Use: "retry [FILE|LIST…]", Short: "Let the next run judge again what is quarantined or undecided · 重新处理", Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withImport(*profile, func(i *imports) error {
				n, err := i.Retry(c.Context(), args)
				if errors.Is(err, fileshare.ErrShareGone) {
					return a.importVerdict(fileshare.Summary{}, err)
				}
				if err != nil {
					return err
				}
				if n == 0 && len(args) > 0 {
					return exchange.Fail(exchange.CodeNotFound, "nothing of that name is quarantined or undecided")
				}
				return a.print(map[string]int{"again": n}, "%d\n", n)
			})
		},
	}
}

func (a *app) importReportCommand(profile *string) *cobra.Command {
	path := ""
	c := &cobra.Command{
		Use: "report", Short: "Write what became of every document, as CSV that Excel opens · 导入结果表", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withImport(*profile, func(i *imports) error {
				if path == "" {
					return a.importReport(c.Context(), i, a.out)
				}
				f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
				if err != nil {
					return err
				}
				return errors.Join(a.importReport(c.Context(), i, f), f.Sync(), f.Close())
			})
		},
	}
	c.Flags().StringVarP(&path, "output", "o", "", "the file (default: standard output)")
	return c
}

// importReport writes CSV, or one JSON array with --json.
func (a *app) importReport(ctx context.Context, i *imports, w io.Writer) error {
	if a.json {
		return i.ReportJSON(ctx, w)
	}
	return i.ReportCSV(ctx, w)
}
