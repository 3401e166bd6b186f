package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/ferry"
	"github.com/yizhan-gateway/yizhan/exchange"
)

func (a *app) ferryProbeCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "probe", Short: "Find out what a gate lets pass · 探测网闸", Args: cobra.NoArgs,
		Long: `send writes files of graded sizes, kinds and names into the directory from which a gate
takes files; receive, on the other side, says which of them came out and how, and what
[[ferry]] should say. Neither needs a node. sheet prints what the gate's administrator has to
know of a link.`,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.probeSendCommand(), a.probeReceiveCommand(), a.probeSheetCommand())
	return c
}

type probeSent struct {
	Run   string            `json:"run"`
	Files []ferry.ProbeFile `json:"files"`
	Bytes int64             `json:"bytes"`
}

func (a *app) probeSendCommand() *cobra.Command {
	dir, sizes := "", ""
	c := &cobra.Command{
		Use: "send --dir DIR [--sizes LIST]", Short: "Write graded files for a gate · 写入探测文件", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := parseSizes(sizes)
			if dir == "" {
				return usage("--dir DIR is needed")
			}
			if err != nil {
				return usage("--sizes: sizes such as 64KiB,1MiB,50MiB are expected, each from 1KiB to 2000MiB (%w)", err)
			}
			run := make([]byte, 4)
			_, _ = rand.Read(run) // never fails
			p := &ferry.Probe{Run: hex.EncodeToString(run), Sizes: list, Made: a.now().UTC().Truncate(time.Millisecond)}
			files, err := p.Send(c.Context(), dir)
			if err != nil {
				return err
			}
			out := probeSent{Run: p.Run, Files: files}
			for _, f := range files {
				out.Bytes += f.Size
			}
			return a.print(out, "%s\n", both("run %s: %d files with %d MiB; run yizhan ferry probe receive on the other side", "探测 %s：%d 个文件，共 %d MiB；请在对侧运行 yizhan ferry probe receive",
				out.Run, len(files), out.Bytes>>20))
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "from where the gate takes files")
	c.Flags().StringVar(&sizes, "sizes", "1KiB,64KiB,1MiB,18MiB,50MiB", "of the files")
	return c
}

// parseSizes reads sizes in bytes, KiB or MiB.
func parseSizes(text string) (list []int64, err error) {
	for _, word := range strings.Split(text, ",") {
		shift := 0
		word = strings.TrimSpace(word)
		for unit, by := range map[string]int{"KiB": 10, "MiB": 20} {
			if rest, cut := strings.CutSuffix(word, unit); cut {
				word, shift = rest, by
			}
		}
		n, err := strconv.ParseInt(word, 10, 32)
		if err != nil {
			return nil, err
		}
		if n <<= shift; n < ferry.MinProbe || n > ferry.MaxProbe {
			return nil, fmt.Errorf("%d bytes", n)
		}
		list = append(list, n)
	}
	return list, nil
}

func (a *app) probeReceiveCommand() *cobra.Command {
	dir, wait := "", time.Duration(0)
	c := &cobra.Command{
		Use: "receive --dir DIR [--wait TIME]", Short: "See what came out of a gate · 检查探测结果", Args: cobra.NoArgs,
		Long: `Exit code 9 when a file did not come as it was.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if dir == "" {
				return usage("--dir DIR is needed")
			}
			r, err := watchProbe(c.Context(), dir, wait, a.now)
			if err != nil {
				return err
			}
			if err := a.print(r, "%s", probeText(r)); err != nil {
				return err
			}
			if r.Fates[ferry.ProbeIdentical]+r.Fates[ferry.ProbeRenamed] < len(r.Files) {
				return verdictError(exitWarnings)
			}
			return nil
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "where the gate puts files")
	c.Flags().DurationVar(&wait, "wait", 0, "how long to wait for all of them")
	return c
}

// watchProbe looks until all came, or the time is over.
func watchProbe(ctx context.Context, dir string, wait time.Duration, now nowFunc) (*ferry.ProbeReport, error) {
	var w ferry.ProbeWatch
	for end := now().Add(wait); ; {
		r, err := w.Look(dir, now())
		if err == nil && r.Fates[ferry.ProbeIdentical]+r.Fates[ferry.ProbeRenamed] == len(r.Files) || !now().Before(end) {
			return r, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

var probeFates = map[string]string{
	ferry.ProbeIdentical: "原样送达", ferry.ProbeRenamed: "已改名", ferry.ProbeChanged: "内容被改",
	ferry.ProbeTruncated: "被截断", ferry.ProbeMissing: "未送达",
}

func probeText(r *ferry.ProbeReport) string {
	var b strings.Builder
	for _, f := range r.Files {
		name := f.File
		if f.As != "" {
			name += " -> " + f.As
		}
		fmt.Fprintf(&b, "%-9s %s  %-4s %10d B  %-4s %-3s %6.1f s  %s\n", f.Fate, probeFates[f.Fate], f.Tries, f.Size, f.Wrap, f.Extension, f.Seconds, name)
	}
	fmt.Fprintf(&b, "\n%s\n", both("run %s: %d of %d files passed, the largest of %d bytes; %.0f bytes/s; %d files of something else", "探测 %s：%d/%d 个文件通过，最大 %d 字节，%.0f 字节/秒；其他文件 %d 个",
		r.Run, r.Fates[ferry.ProbeIdentical]+r.Fates[ferry.ProbeRenamed], len(r.Files), r.Largest, r.Rate, r.Foreign))
	for _, advice := range r.Advice {
		fmt.Fprintf(&b, "- %s\n", advice)
	}
	if r.TOML != "" {
		fmt.Fprintf(&b, "\n%s\n%s", both("for [[ferry]] in config.toml of the side that sends:", "发送侧 config.toml 的 [[ferry]] 建议："), r.TOML)
	}
	return b.String()
}

// gateSheet is what the gate's administrator has to know of one link. Rates are the
// most that this side writes.
type gateSheet struct {
	Link       string  `json:"link"`
	Node       string  `json:"node"`
	Neighbour  string  `json:"neighbour"`
	Out        string  `json:"out"`
	In         string  `json:"in"`
	Pattern    string  `json:"pattern"`
	Extension  string  `json:"extension"`
	Wrap       string  `json:"wrap"`
	Type       string  `json:"type"`
	MaxBytes   int64   `json:"max_bytes"`
	EverySec   float64 `json:"every_seconds"`
	AtOnce     int     `json:"files_at_once"`
	FilesHour  int64   `json:"files_per_hour"`
	BytesOnce  int64   `json:"bytes_at_once"`
	BytesDay   int64   `json:"bytes_per_day"` // of the node's own agencies, by their quota; 0: not bounded
	WhenSilent int     `json:"files_per_day_when_silent"`
}

var wrapTypes = map[string]string{
	ferry.WrapNone: both("binary, begins with YZB1; encrypted, cannot be compressed", "二进制，以 YZB1 开头；已加密，不可压缩"),
	ferry.WrapZip:  both("zip, one entry, stored; what is in it is encrypted", "zip，单个条目，不压缩；内容已加密"),
	ferry.WrapXML:  both("XML, UTF-8, base64 in elements <data>", "XML，UTF-8，<data> 元素内为 base64"),
	ferry.WrapText: both("ASCII text, lines of 76 characters of base64", "ASCII 文本，每行 76 个 base64 字符"),
}

func (a *app) probeSheetCommand() *cobra.Command {
	f := new(ferryFlags)
	c := &cobra.Command{
		Use: "sheet --link LINK --data DIR", Short: "Print what the gate's administrator has to know · 网闸配置单", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if f.data == "" || f.link == "" {
				return usage("--data DIR and --link LINK are needed")
			}
			s, err := dataDir(f.data).gateSheet(f.link, a.now)
			if err != nil {
				return err
			}
			return a.print(s, "%s", s.text())
		},
	}
	f.add(c)
	return c
}

// gateSheet reads configuration and directory; the node need not run.
func (d dataDir) gateSheet(name string, now nowFunc) (*gateSheet, error) {
	s, err := d.settings()
	if err != nil {
		return nil, err
	}
	dir, err := d.directory(now)
	if err != nil {
		return nil, err
	}
	l, ok := dir.Link(name)
	if !ok || l.A != s.Node && l.B != s.Node || l.Kind != "ferry" {
		return nil, exchange.Fail(exchange.CodeNotFound, "link %q: the directory names no such link of kind ferry at this node", name)
	}
	f := s.ferry(name)
	spool := or(f.Spool, d.ferryDir(name, "spool"))
	limits, wrap, ext := f.limits(), or(f.Wrap, ferry.WrapNone), or(f.Extension, "yzb")
	g := &gateSheet{
		Link: name, Node: s.Node, Neighbour: other(l, s.Node), Out: or(f.Out, spool+"/out"), In: or(f.In, spool+"/in"),
		Pattern: "yz[0-9a-f]{6}-[0-9]{6,}-[0-9]{2,}." + ext, Extension: ext, Wrap: wrap, Type: wrapTypes[wrap],
		MaxBytes: max(limits.FileBytes, int64(ferry.LeastFile)), EverySec: f.every().Seconds(), AtOnce: limits.Files, BytesOnce: limits.FileBytes * int64(limits.Files), WhenSilent: 24,
	}
	g.FilesHour = int64(float64(limits.Files) * 3600 / g.EverySec)
	for _, agency := range dir.Agencies() {
		if agency.Node == s.Node {
			g.BytesDay += s.Quota.perDay()
		}
	}
	return g, nil
}

// perDay is how many bytes an agency can hand in; 0 when nothing bounds it.
func (s *quotaSettings) perDay() int64 {
	window := time.Duration(s.Window)
	if window <= 0 {
		window = time.Hour
	}
	return int64(float64(s.MiB<<20) * float64(24*time.Hour) / float64(window))
}

func (g *gateSheet) text() string {
	var b strings.Builder
	line := func(en, zh string, value any) { fmt.Fprintf(&b, "  %-26s %-14s %v\n", en, zh, value) }
	fmt.Fprintf(&b, "%s\n\n", both("Sheet for the gate's administrator", "网闸配置单"))
	line("link", "链路", g.Link)
	line("from", "本侧节点", g.Node)
	line("to", "对侧节点", g.Neighbour)
	line("the gate takes from", "网闸取文件目录", g.Out)
	line("the gate puts into", "网闸放文件目录", g.In)
	line("file names", "文件名", g.Pattern)
	line("type", "类型", g.Type)
	line("largest file", "最大文件", fmt.Sprintf("%d B (%d MiB)", g.MaxBytes, g.MaxBytes>>20))
	line("looked at every", "处理间隔", time.Duration(g.EverySec*float64(time.Second)))
	line("files at once, at most", "单次最多文件数", g.AtOnce)
	line("files an hour, at most", "每小时最多文件数", g.FilesHour)
	line("bytes at once, at most", "单次最多字节数", g.BytesOnce)
	line("files a day when silent", "空闲时每日文件数", g.WhenSilent)
	if g.BytesDay > 0 {
		line("bytes a day, by [quota]", "每日字节数（按配额）", g.BytesDay)
	} else {
		line("bytes a day", "每日字节数", both("not bounded: no mib in [quota]", "未设上限：[quota] 未配置 mib"))
	}
	fmt.Fprintf(&b, "\n%s\n%s\n%s\n", both("Files appear whole under their names; names beginning with a dot or ending in .part are not to be taken.", "文件以正式文件名出现时即已完整；以“.”开头或以 .part 结尾的文件请勿摆渡。"),
		both("The gate may delete what it took, rename files, bring them twice or in any order. It must not change their bytes.", "网闸可删除已取走的文件，可改名、重复或乱序送达，但不得更改文件内容。"),
		both("Documents are sealed: what looks into files finds no text. Files are never executed.", "公文已加密签名，内容检查不会得到明文；文件不会被执行。"))
	fmt.Fprintf(&b, "\n%s\n", both("gate's administrator: ____________________   date: ____________", "网闸管理员：____________________   日期：____________"))
	return b.String()
}
