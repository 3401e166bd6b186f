package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/guard"
)

// guardCheck is what guard check prints: what each link lets pass, by guard.toml and
// the directory's ceilings, and what of the file the directory does not know.
type guardCheck struct {
	File     string         `json:"file"`
	Present  bool           `json:"present"`
	Offset   string         `json:"utc_offset,omitempty"`
	Links    []guardedLink  `json:"links"`
	Warnings []guardWarning `json:"warnings"`
}

type guardedLink struct {
	Link      string      `json:"link"`
	Neighbour string      `json:"neighbour"`
	Direction string      `json:"direction"`
	Line      int         `json:"line,omitempty"` // of its table; absent: the ceiling of the directory alone
	Ceiling   string      `json:"ceiling"`
	MaxBytes  int64       `json:"max_bytes,omitempty"`
	Kinds     []string    `json:"kinds,omitempty"`
	Rules     []shownRule `json:"rules,omitempty"`
	Hours     []string    `json:"hours,omitempty"`
	Exempt    string      `json:"hours_exempt,omitempty"`
	Approvals int         `json:"approvals,omitempty"`
	When      []string    `json:"approvals_when,omitempty"` // absent: all documents

}

type shownRule struct {
	Verdict string   `json:"verdict"`
	From    string   `json:"from"`
	To      string   `json:"to"`
	Kinds   []string `json:"kinds,omitempty"`
}

type guardWarning struct {
	Line int    `json:"line"`
	What string `json:"what"`
}

func (a *app) guardCheckCommand() *cobra.Command {
	f := new(queueFlags)
	c := &cobra.Command{
		Use: "check --data DIR", Short: "Read guard.toml and say what each link lets pass · 检查放行策略", Args: cobra.NoArgs,
		Long: `Reads the file as a start would, without the node. A file that is wrong is refused with
its line; what the directory does not know is named, and the exit code is 9.`,
		RunE: func(_ *cobra.Command, _ []string) error {
			dir, err := f.dir()
			if err != nil {
				return err
			}
			settings, err := dir.settings()
			if err != nil {
				return err
			}
			policies, err := dir.guard()
			if err != nil {
				return err
			}
			d, err := dir.directory(a.now)
			if err != nil {
				return err
			}
			out := checkGuard(dir.path(guardFile), policies, d, settings.Node)
			if err := a.print(out, "%s", out.text()); err != nil || len(out.Warnings) == 0 {
				return err
			}
			return verdictError(exitWarnings)
		},
	}
	f.add(c)
	return c
}

func checkGuard(file string, policies *guard.Policies, d *certs.Directory, node string) *guardCheck {
	out := &guardCheck{File: file, Present: policies != nil, Links: []guardedLink{}, Warnings: []guardWarning{}}
	if policies != nil {
		out.Offset = policies.Zone.String()
	}
	for _, l := range d.LinksOf(node) {
		for _, way := range []guard.Direction{guard.In, guard.Out} {
			p := policies.For(l.ID, way, exchange.Label(l.Ceiling))
			shown := shownLink(l.ID, l.Neighbour(node), way, p)
			if policies != nil {
				for _, t := range policies.Tables {
					if t.Link == l.ID && (t.Direction == guard.Both || t.Direction == way) {
						shown.Line = t.Line
					}
				}
			}
			out.Links = append(out.Links, shown)
		}
	}
	if policies != nil {
		for i := range policies.Tables {
			out.Warnings = append(out.Warnings, unknownIn(&policies.Tables[i], d, node)...)
		}
	}
	return out
}

// unknownIn names what a table speaks of that the directory does not know.
func unknownIn(t *guard.Table, d *certs.Directory, node string) (list []guardWarning) {
	warn := func(en, zh string, args ...any) {
		list = append(list, guardWarning{t.Line, both(en, zh, args...)})
	}
	l, ok := d.Link(t.Link)
	if !ok || l.A != node && l.B != node {
		warn("link %s is none of this node in the directory: its table does nothing", "名录中本节点没有链路 %s：该策略不起作用", t.Link)
	} else if t.Ceiling != "" && t.Ceiling.Rank() > exchange.Label(l.Ceiling).Rank() {
		warn("link %s: the directory's ceiling %s is lower, and counts", "链路 %s：名录规定的密级上限 %s 更低，以名录为准", t.Link, l.Ceiling)
	}
	for _, r := range t.Rules {
		for _, p := range []guard.Pattern{r.From, r.To} {
			if code := p.Agency(); code != "" {
				if _, known := d.Agency(code); !known {
					warn("link %s: agency %s is not in the directory", "链路 %s：单位 %s 不在名录中", t.Link, code)
				}
			}
		}
	}
	if able := len(d.Administrators()); t.Approval.Administrators > able {
		warn("link %s: %d approvals are asked for, and the directory names %d administrators: what needs them waits until it expires",
			"链路 %s：要求 %d 人批准，而名录仅有 %d 名管理员：相关公文将等待至逾期", t.Link, t.Approval.Administrators, able)
	}
	return list
}

func shownLink(link, neighbour string, way guard.Direction, p guard.Policy) guardedLink {
	out := guardedLink{
		Link: link, Neighbour: neighbour, Direction: string(way), Ceiling: string(p.Ceiling), MaxBytes: p.MaxBytes,
		Kinds: kindNames(p.Kinds), Exempt: string(p.Exempt), Approvals: p.Approval.Administrators,
	}
	if len(p.Hours) == 0 {
		out.Exempt = ""
	}
	for _, r := range p.Rules {
		verdict := "deny"
		if r.Allow {
			verdict = "allow"
		}
		out.Rules = append(out.Rules, shownRule{verdict, r.From.String(), r.To.String(), kindNames(r.Kinds)})
	}
	for _, h := range p.Hours {
		out.Hours = append(out.Hours, fmt.Sprintf("%s %02d:%02d-%02d:%02d", daysText(h.Days), h.From/60, h.From%60, h.To/60, h.To%60))
	}
	if a := p.Approval; a.Administrators > 0 {
		if a.Label != "" {
			out.When = append(out.When, "label >= "+string(a.Label))
		}
		if a.Bytes > 0 {
			out.When = append(out.When, fmt.Sprintf("size > %d MiB", a.Bytes>>20))
		}
		for _, k := range a.Kinds {
			out.When = append(out.When, "kind = "+string(k))
		}
	}
	return out
}

func kindNames(kinds []exchange.Kind) (out []string) {
	for _, k := range kinds {
		out = append(out, string(k))
	}
	return out
}

func daysText(d guard.Days) string {
	var out []string
	for _, day := range []time.Weekday{time.Monday, time.Tuesday, time.Wednesday, time.Thursday, time.Friday, time.Saturday, time.Sunday} {
		if d.Has(day) {
			out = append(out, strings.ToLower(day.String()[:3]))
		}
	}
	return strings.Join(out, ",")
}

func (g *guardCheck) text() string {
	var b strings.Builder
	if !g.Present {
		b.WriteString(both("there is no %s: the directory's ceilings alone decide", "没有 %s：仅以名录规定的密级上限为准", g.File) + "\n")
	}
	for i := range g.Links {
		g.Links[i].write(&b, g.Offset)
	}
	for _, w := range g.Warnings {
		fmt.Fprintf(&b, "%s:%d: %s\n", g.File, w.Line, w.What)
	}
	return b.String()
}

func (l *guardedLink) write(b *strings.Builder, offset string) {
	way, arrow := both("out", "发出"), "→"
	if l.Direction == string(guard.In) {
		way, arrow = both("in", "接收"), "←"
	}
	fmt.Fprintf(b, "%s %s %s (%s)\n", l.Link, arrow, l.Neighbour, way)
	say := func(en, zh string, args ...any) { fmt.Fprintf(b, "  %s\n", both(en, zh, args...)) }
	say("labels up to %[1]s", "密级不超过%[2]s", l.Ceiling, exchange.Label(l.Ceiling).Chinese())
	if l.MaxBytes > 0 {
		say("at most %d MiB", "不超过 %d MiB", l.MaxBytes>>20)
	}
	if len(l.Kinds) > 0 {
		say("only the kinds %s", "仅限类别 %s", strings.Join(l.Kinds, " "))
	}
	for i, r := range l.Rules {
		en, zh := "allow", "放行"
		if r.Verdict == "deny" {
			en, zh = "deny", "拒绝"
		}
		of := ""
		if len(r.Kinds) > 0 {
			of = " " + strings.Join(r.Kinds, " ")
		}
		fmt.Fprintf(b, "  %d. %s · %s %s → %s%s\n", i+1, en, zh, r.From, r.To, of)
	}
	if len(l.Rules) > 0 {
		say("what no rule matches is refused", "没有规则匹配的一律拒绝")
	}
	for _, h := range l.Hours {
		say("documents at %s (UTC%s)", "公文放行时段 %s（UTC%s）", h, offset)
	}
	if l.Exempt != "" {
		say("at any time from %[1]s upwards", "%[2]s及以上不受时段限制", l.Exempt, exchange.Urgency(l.Exempt).Chinese())
	}
	if l.Approvals > 0 {
		when := both("all documents", "所有公文")
		if len(l.When) > 0 {
			when = strings.Join(l.When, " | ")
		}
		say("%[1]d administrators approve: %[2]s", "须 %[1]d 名管理员批准：%[2]s", l.Approvals, when)
	}
}

// checkGuard reads guard.toml as a start would.
func (d *doctor) checkGuard() {
	file := d.dir.path(guardFile)
	policies, err := d.dir.guard()
	switch {
	case err != nil:
		d.fail("guard", both("%v: the node will not start", "放行策略有误，节点将无法启动：%v", err), both("correct the line; yizhan guard check reads it again", "请更正该行；可用 yizhan guard check 复查"))
	case policies == nil:
		d.ok("guard", both("no guard.toml: the directory's ceilings alone decide", "没有 guard.toml：仅以名录规定的密级上限为准"))
	default:
		if w := checkGuard(file, policies, d.directory, d.settings.Node).Warnings; len(w) > 0 {
			d.warn("guard", both("%s:%d and %d more: %s", "%s:%d 等 %d 处：%s", file, w[0].Line, len(w)-1, w[0].What), both("look at what yizhan guard check shows", "请核对 yizhan guard check 的输出"))
			return
		}
		d.ok("guard", both("guard.toml has policies for %d links", "guard.toml 含 %d 项链路策略", len(policies.Tables)))
	}
}
