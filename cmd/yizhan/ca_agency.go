package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/certs"
)

// china is the time that dates without a time of day are in.
var china = time.FixedZone("UTC+8", 8*60*60)

// parseMoment reads a time like 2026-11-23T08:00:00Z, or a date, which begins
// at midnight in China. Empty is no time.
func parseMoment(flag, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, s, china); err == nil {
		return t, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, usage("--%s: a date like 2026-11-23 or a time like 2026-11-23T08:00:00+08:00 is expected", flag)
	}
	return t, nil
}

type agencyFlags struct {
	name, parent, branch, successor, from, until string
	aliases, groups                              []string
}

func (a *app) caAgency(passFile *string) *cobra.Command {
	f := new(agencyFlags)
	c := &cobra.Command{
		Use:   "agency DIR CODE",
		Short: "Say more of an agency: names, groups, place, time · 登记单位信息",
		Long: `Changes what the directory says of an agency with the next publication. Members
without a flag stay as they are; an empty value takes one away.

A document to an agency before --from or from --until on is refused at
submission, with the successor's code. --parent and --successor are codes of
agencies in the directory.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			change, err := f.change(c.Flags().Changed)
			if err != nil {
				return err
			}
			authority, err := openAuthority(args[0], *passFile)
			if err != nil {
				return err
			}
			if err := authority.ChangeAgency(args[1], change); err != nil {
				return err
			}
			return a.print(map[string]string{"agency": args[1]}, "agency %s is changed with the next publication\nnext: yizhan directory diff %s, then yizhan ca publish %s\n", args[1], args[0], args[0])
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.name, "name", "", "its name")
	fl.StringArrayVar(&f.aliases, "alias", nil, "another name, to be found by (repeatable)")
	fl.StringArrayVar(&f.groups, "group", nil, "a group it belongs to, e.g. 各县区政府 (repeatable)")
	fl.StringVar(&f.parent, "parent", "", "code of the agency above it")
	fl.StringVar(&f.branch, "branch", "", "party 党委, congress 人大, government 政府 or cppcc 政协")
	fl.StringVar(&f.from, "from", "", "when it begins: a date (in China) or a time")
	fl.StringVar(&f.until, "until", "", "when it ends")
	fl.StringVar(&f.successor, "successor", "", "code of the agency that takes its place")
	return c
}

// change is what the flags that were given say.
func (f *agencyFlags) change(given func(string) bool) (c certs.AgencyChange, err error) {
	if f.branch != "" {
		if f.branch, err = certs.ParseBranch(f.branch); err != nil {
			return c, usage("--branch: one of party 党委, congress 人大, government 政府, cppcc 政协 is expected")
		}
	}
	from, err := parseMoment("from", f.from)
	if err != nil {
		return c, err
	}
	until, err := parseMoment("until", f.until)
	if err != nil {
		return c, err
	}
	aliases, groups := filled(f.aliases), filled(f.groups)
	any := false
	any = give(&c.Name, &f.name, given("name")) || any
	any = give(&c.Parent, &f.parent, given("parent")) || any
	any = give(&c.Branch, &f.branch, given("branch")) || any
	any = give(&c.Successor, &f.successor, given("successor")) || any
	any = give(&c.Aliases, &aliases, given("alias")) || any
	any = give(&c.Groups, &groups, given("group")) || any
	any = give(&c.From, &from, given("from")) || any
	any = give(&c.Until, &until, given("until")) || any
	if !any {
		return c, usage("nothing to change: give at least one flag")
	}
	return c, nil
}

func give[T any](member **T, value *T, given bool) bool {
	if given {
		*member = value
	}
	return given
}

// filled leaves empty texts out: --alias "" takes all aliases away.
func filled(list []string) []string {
	var out []string
	for _, s := range list {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}
