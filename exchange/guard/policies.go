package guard

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/config"
)

// Policies are those of a node's links, as guard.toml has them. None is nil.
type Policies struct {
	Zone   *time.Location
	Tables []Table
}

// Table is what guard.toml says of one link.
type Table struct {
	Link      string
	Direction Direction
	Policy        // without a Ceiling where the directory's alone counts
	Line      int // where it stands
}

// Direction is which way documents go, as seen from the node whose policy it is.
type Direction string

// The directions.
const (
	Both Direction = ""
	In   Direction = "in"
	Out  Direction = "out"
)

// For gives the policy of a link in a direction, In or Out, under the ceiling
// that the directory names: a policy only lowers it. A link without a policy
// has that ceiling alone. Hours and approvals are about what leaves.
func (ps *Policies) For(link string, way Direction, ceiling exchange.Label) Policy {
	p := Policy{Ceiling: ceiling}
	if ps == nil {
		return p
	}
	for i := range ps.Tables {
		t := &ps.Tables[i]
		if t.Link != link || t.Direction != Both && t.Direction != way {
			continue
		}
		p = t.Policy
		if p.Ceiling == "" || p.Ceiling.Rank() > ceiling.Rank() {
			p.Ceiling = ceiling
		}
		if way == In {
			p.Hours, p.Approval = nil, Approval{}
		}
	}
	return p
}

// The bounds of a file. maxAdministrators keeps a policy within what can be met.
const (
	maxTables         = 4096
	maxRules          = 4096
	maxHours          = 64
	maxMiB            = 1 << 30
	maxAdministrators = 8
	defaultOffset     = 8 * time.Hour
)

// file is guard.toml.
type file struct {
	Offset offset      `toml:"utc_offset"`
	Links  []linkTable `toml:"link"`
}

type linkTable struct {
	Link      string         `toml:"link"`
	Direction direction      `toml:"direction"`
	Ceiling   label          `toml:"ceiling"`
	MaxMiB    int64          `toml:"max_mib"`
	Kinds     []kind         `toml:"kinds"`
	Hours     []hoursTable   `toml:"hours"`
	Exempt    urgency        `toml:"hours_exempt"`
	Approval  *approvalTable `toml:"approval"`
	Rules     []ruleTable    `toml:"rule"`
}

type hoursTable struct {
	Days days  `toml:"days"`
	From clock `toml:"from"`
	To   clock `toml:"to"`
}

type approvalTable struct {
	Administrators int    `toml:"administrators"`
	Label          label  `toml:"from_label"`
	MiB            int64  `toml:"above_mib"`
	Kinds          []kind `toml:"kinds"`
}

type ruleTable struct {
	Verdict verdict `toml:"verdict"`
	From    pattern `toml:"from"`
	To      pattern `toml:"to"`
	Kinds   []kind  `toml:"kinds"`
}

// Parse reads guard.toml; name stands for the file in errors. They are
// *config.Error, and name the line.
func Parse(name string, b []byte) (*Policies, error) {
	var f file
	if err := config.Parse(name, b, &f); err != nil {
		return nil, err
	}
	out := &Policies{Zone: time.FixedZone("+08:00", int(defaultOffset.Seconds()))}
	if f.Offset.given {
		out.Zone = f.Offset.zone
	}
	if len(f.Links) > maxTables {
		return nil, &config.Error{File: name, Problem: fmt.Sprintf("%d tables [[link]], at most %d are possible", len(f.Links), maxTables)}
	}
	for i := range f.Links {
		t, problem, hint := f.Links[i].table(out)
		if t.Line = tableLine(b, i); problem != "" {
			return nil, &config.Error{File: name, Line: t.Line, Column: 1, Problem: problem, Hint: hint}
		}
		out.Tables = append(out.Tables, t)
	}
	return out, nil
}

var (
	linkForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)
	linkHeader = regexp.MustCompile(`^\s*\[\[\s*link\s*\]\]`)
)

// tableLine is where the table [[link]] with a number begins.
func tableLine(b []byte, no int) int {
	for i, line := range bytes.Split(b, []byte("\n")) {
		if !linkHeader.Match(line) {
			continue
		}
		if no == 0 {
			return i + 1
		}
		no--
	}
	return 0
}

// table makes one of what the file says; problem is what does not fit together.
func (l *linkTable) table(so *Policies) (t Table, problem, hint string) {
	if problem, hint = l.check(so); problem != "" {
		return t, problem, hint
	}
	t = Table{Link: l.Link, Direction: l.Direction.Direction}
	t.Policy = Policy{Ceiling: l.Ceiling.Label, MaxBytes: l.MaxMiB << 20, Kinds: kindsOf(l.Kinds), Exempt: l.Exempt.Urgency, Zone: so.Zone}
	for _, h := range l.Hours {
		one := Hours{h.Days.Days, h.From.minutes, h.To.minutes}
		if one.Days == 0 {
			one.Days = everyDay
		}
		if one.From >= one.To {
			return t, "hours: from is not before to on the same day", "hours over midnight are two: up to 24:00, and from 00:00 on the next day"
		}
		t.Hours = append(t.Hours, one)
	}
	for _, r := range l.Rules {
		if !r.Verdict.given {
			return t, "a rule has no verdict", `write verdict = "allow" or verdict = "deny"`
		}
		t.Rules = append(t.Rules, Rule{r.Verdict.allow, r.From.Pattern, r.To.Pattern, kindsOf(r.Kinds)})
	}
	if a := l.Approval; a != nil {
		t.Approval = Approval{a.Administrators, a.Label.Label, a.MiB << 20, kindsOf(a.Kinds)}
	}
	return t, "", ""
}

func (l *linkTable) check(so *Policies) (problem, hint string) {
	same := slices.ContainsFunc(so.Tables, func(t Table) bool {
		return t.Link == l.Link && (t.Direction == Both || l.Direction.Direction == Both || t.Direction == l.Direction.Direction)
	})
	switch {
	case !linkForm.MatchString(l.Link):
		return "a table has no link, or none that a link can be called", `write link = "jia-yi", as the directory names it`
	case same:
		return "there are two tables for one link and direction", `put them together, or give one direction = "in" and the other direction = "out"`
	case l.MaxMiB < 0 || l.MaxMiB > maxMiB:
		return "max_mib is out of range", "a number of MiB from 1 on; leave it out for no bound"
	case len(l.Rules) > maxRules || len(l.Hours) > maxHours:
		return fmt.Sprintf("more than %d rules or %d hours", maxRules, maxHours), "use patterns for groups of agencies"
	case l.Direction.Direction == In && (len(l.Hours) > 0 || l.Approval != nil):
		return "hours and approval are about what leaves this node", `put them into the table with direction = "out"; the neighbour has its own for what it sends`
	case l.Exempt.Urgency != "" && len(l.Hours) == 0:
		return "hours_exempt stands without hours", "add hours, or remove it"
	}
	if a := l.Approval; a != nil && (a.Administrators < 1 || a.Administrators > maxAdministrators || a.MiB < 0 || a.MiB > maxMiB) {
		return fmt.Sprintf("approval: administrators must be 1 to %d, above_mib not negative", maxAdministrators), "write administrators = 2 for a second pair of eyes"
	}
	return "", ""
}

func kindsOf(list []kind) (out []exchange.Kind) {
	for _, k := range list {
		out = append(out, k.Kind)
	}
	return out
}
