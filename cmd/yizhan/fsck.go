package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/control"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// checkProgress is a line of progress.
type checkProgress struct {
	Rows  int64 `json:"rows"`
	Bytes int64 `json:"bytes_read"`
	Found int64 `json:"found"`
}

func progressOf(r *node.CheckReport) checkProgress {
	p := checkProgress{Bytes: r.Bytes, Found: r.Found}
	for _, n := range r.Checked {
		p.Rows += n
	}
	return p
}

func (g *gateway) checkRoutes(s *control.Server) {
	s.HandleLong("POST /check", func(ctx context.Context, q *control.Request) (any, error) {
		data, err := strconv.ParseBool(q.Query.Get("read_data"))
		if err != nil {
			return nil, exchange.Fail(exchange.CodeBadRequest, "read_data: true or false is expected")
		}
		return g.node.Check(ctx, node.CheckOptions{ReadData: data, Step: func(r *node.CheckReport) error {
			q.Progress(progressOf(r))
			return ctx.Err()
		}})
	})
}

func (a *app) fsckCommand() *cobra.Command {
	f, data := new(queueFlags), false
	c := &cobra.Command{
		Use: "fsck --data DIR [--read-data]", Short: "Compare everything that a node has stored · 检查数据", Args: cobra.NoArgs,
		Long: `Holds each record, blob, receipt and leaf of the ledger against the others that it speaks
of, and changes nothing. A running node is checked while it works. With --read-data every
byte of every document is read and compared with what was signed. Exit code 1 when
something is damaged.`,
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := f.dir()
			if err != nil {
				return err
			}
			report, err := a.check(c.Context(), dir, data)
			if err != nil {
				return err
			}
			if err := a.print(report, "%s", checkText(report)); err != nil {
				return err
			}
			if !report.OK {
				return verdictError(exitError)
			}
			return nil
		},
	}
	f.add(c)
	c.Flags().BoolVar(&data, "read-data", false, "read every document as well")
	return c
}

func (a *app) check(ctx context.Context, d dataDir, data bool) (report *node.CheckReport, err error) {
	show := a.showCheck()
	err = a.withNode(ctx, d, withoutKeys,
		func(c *control.Client) error {
			query := url.Values{"read_data": {strconv.FormatBool(data)}}
			return c.Call(ctx, http.MethodPost, "/check?"+query.Encode(), nil, &report, func(b json.RawMessage) {
				var p checkProgress
				if json.Unmarshal(b, &p) == nil {
					show(p)
				}
			})
		},
		func(s *stoppedNode) (err error) {
			report, err = s.node.Check(ctx, node.CheckOptions{ReadData: data, Still: true, Step: func(r *node.CheckReport) error {
				show(progressOf(r))
				return ctx.Err()
			}})
			return err
		})
	return report, err
}

// showCheck shows progress now and then.
func (a *app) showCheck() func(checkProgress) {
	last := time.Now()
	return func(p checkProgress) {
		if time.Since(last) < time.Second {
			return
		}
		last = time.Now()
		fmt.Fprintf(a.err, "%d 行 rows, %.1f MiB, 问题 found %d\n", p.Rows, float64(p.Bytes)/(1<<20), p.Found)
	}
}

func checkText(r *node.CheckReport) string {
	var b strings.Builder
	for _, table := range slices.Sorted(maps.Keys(r.Checked)) {
		fmt.Fprintf(&b, "%-8s %10d\n", table, r.Checked[table])
	}
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "%s %s: %s\n", p.Table, p.Key, p.What)
	}
	if r.OK {
		fmt.Fprintln(&b, "完好 everything fits")
		return b.String()
	}
	fmt.Fprintf(&b, `发现 %d 处损坏。请保留数据目录并核对磁盘；从备份恢复（yizhan backup restore），相邻节点将补交此后的公文。
%d found. Keep the data directory and look at its disk; restore from a copy (yizhan backup restore),
and the neighbours give again what came since.
`, r.Found, r.Found)
	return b.String()
}

// scrubFirst and scrubEvery say when a running node is compared by itself, data
// included, and scrubPause how long it rests between two steps, so that
// documents hardly notice.
const (
	scrubFirst = time.Hour
	scrubEvery = 7 * 24 * time.Hour
	scrubPause = 20 * time.Millisecond
)

// scrub compares everything once a week and shows what does not fit.
func (g *gateway) scrub(ctx context.Context) {
	for wait := scrubFirst; ; wait = scrubEvery {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		if err := g.scrubOnce(ctx); err != nil && ctx.Err() == nil {
			g.log.Error("comparing what is stored failed", "error", err)
		}
	}
}

func (g *gateway) scrubOnce(ctx context.Context) error {
	report, err := g.node.Check(ctx, node.CheckOptions{ReadData: true, Step: func(*node.CheckReport) error {
		select {
		case <-time.After(scrubPause):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}})
	if err != nil {
		return err
	}
	for _, p := range report.Problems[:min(len(report.Problems), 20)] {
		if err := g.node.Quarantine(ctx, "", p.Table+" "+p.Key, "fsck: "+p.What, nil); err != nil {
			return err
		}
	}
	if !report.OK {
		g.log.Error("what is stored is damaged; run yizhan fsck and restore from a copy", "found", report.Found)
	}
	return nil
}
