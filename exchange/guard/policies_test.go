package guard

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/config"
)

// example is a file with everything in it.
const example = `utc_offset = "+08:00"

[[link]]
link = "jia-yi"
direction = "out"
ceiling = "内部"
max_mib = 50
kinds = ["公文", "notice"]
hours = [{ days = "周一至周五", from = "08:00", to = "12:00" }, { days = "mon-fri", from = "14:00", to = "18:00" }]
hours_exempt = "特急"

[link.approval]
administrators = 2
from_label = "internal"
above_mib = 20

[[link.rule]]
verdict = "deny"
to = "` + yi + `"
kinds = ["notice"]

[[link.rule]]
verdict = "allow"
from = "region:5200"
to = "12*"

[[link]]
link = "jia-yi"
direction = "in"
ceiling = "work_secret"
`

func TestParse(t *testing.T) {
	ps, err := Parse("guard.toml", []byte(example))
	if err != nil {
		t.Fatal(err)
	}
	out := ps.For("jia-yi", Out, exchange.WorkSecret)
	work := Days(0b0111110)
	want := Policy{
		Ceiling: exchange.Internal, MaxBytes: 50 << 20, Kinds: []exchange.Kind{exchange.Official, exchange.Notice}, Exempt: exchange.VeryUrgent,
		Hours:    []Hours{{work, 480, 720}, {work, 840, 1080}},
		Approval: Approval{Administrators: 2, Label: exchange.Internal, Bytes: 20 << 20},
		Rules: []Rule{
			{false, Pattern{}, Pattern{whole: true, text: yi}, []exchange.Kind{exchange.Notice}},
			{true, Pattern{region: true, text: "5200"}, Pattern{text: "12"}, nil},
		},
	}
	if out.Zone.String() != "+08:00" {
		t.Errorf("zone %s", out.Zone)
	}
	if out.Zone = nil; !reflect.DeepEqual(out, want) {
		t.Errorf("got  %+v\nwant %+v", out, want)
	}
	if ps.Tables[0].Line != 3 || ps.Tables[1].Line != 27 {
		t.Errorf("tables at lines %d and %d", ps.Tables[0].Line, ps.Tables[1].Line)
	}
	if back := ps.For("jia-yi", In, exchange.Internal); back.Ceiling != exchange.Internal || len(back.Rules)+len(back.Hours) > 0 {
		t.Errorf("the ceiling was raised, or the other direction's: %+v", back)
	}
	if other := ps.For("yi-bing", Out, exchange.Internal); !reflect.DeepEqual(other, Policy{Ceiling: exchange.Internal}) {
		t.Errorf("a link without a table: %+v", other)
	}
	var none *Policies
	if p := none.For("jia-yi", Out, exchange.Public); !reflect.DeepEqual(p, Policy{Ceiling: exchange.Public}) {
		t.Errorf("without a file: %+v", p)
	}
}

// TestOneTableForBothWays: hours and approvals are about what leaves.
func TestOneTableForBothWays(t *testing.T) {
	ps, err := Parse("guard.toml", []byte("[[link]]\nlink = \"a\"\nmax_mib = 1\nhours = [{from = \"08:00\", to = \"09:00\"}]\n[link.approval]\nadministrators = 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	in, out := ps.For("a", In, exchange.Public), ps.For("a", Out, exchange.Public)
	if in.MaxBytes != 1<<20 || len(in.Hours) > 0 || in.Approval.Administrators > 0 {
		t.Errorf("in: %+v", in)
	}
	if out.MaxBytes != 1<<20 || out.Hours[0].Days != everyDay || out.Approval.Administrators != 1 {
		t.Errorf("out: %+v", out)
	}
	if _, offset := now.In(out.Zone).Zone(); offset != 8*3600 {
		t.Errorf("the zone is %d seconds from UTC where none is named", offset)
	}
}

func TestParseRefuses(t *testing.T) {
	link := "[[link]]\nlink = \"a\"\n"
	for _, c := range []struct {
		name, file string
		line       int
		problem    string
	}{
		{"an unknown option", link + "ceilling = \"internal\"\n", 3, `did you mean "link.ceiling"?`},
		{"an unknown option in a rule", link + "[[link.rule]]\nverdict = \"allow\"\nzu = \"*\"\n", 5, "is not an option"},
		{"a state secret as ceiling", link + "ceiling = \"机密\"\n", 3, "no label that a link can carry"},
		{"a ceiling nobody knows", link + "\nceiling = \"sceret\"\n", 4, "no label"},
		{"a kind nobody knows", link + "kinds = [\"official\",\n \"letter\"]\n", 4, "no kind"},
		{"no verdict", link + "[[link.rule]]\nto = \"*\"\n", 1, "no verdict"},
		{"another verdict", link + "[[link.rule]]\nverdict = \"maybe\"\n", 4, "no verdict"},
		{"a code that is mistyped", link + "[[link.rule]]\nverdict = \"allow\"\nto = \"115200000000000001\"\n", 5, "names no agency"},
		{"a star in the middle", link + "[[link.rule]]\nverdict = \"allow\"\nto = \"11*00\"\n", 5, "names no agency"},
		{"a time of day", link + "hours = [{from = \"8:00\", to = \"18:00\"}]\n", 3, "no time of day"},
		{"after midnight", link + "hours = [{from = \"08:00\", to = \"24:01\"}]\n", 3, "no time of day"},
		{"over midnight", link + "hours = [{from = \"22:00\", to = \"06:00\"}]\n", 1, "from is not before to"},
		{"days", link + "hours = [{days = \"mon-fry\", from = \"08:00\", to = \"18:00\"}]\n", 3, "no days"},
		{"no days", link + "hours = [{days = \"\", from = \"08:00\", to = \"18:00\"}]\n", 3, "no days"},
		{"a zone by name", "utc_offset = \"Asia/Shanghai\"\n", 1, "no distance from UTC"},
		{"exempt without hours", link + "hours_exempt = \"urgent\"\n", 1, "without hours"},
		{"exempt normal", link + "hours_exempt = \"normal\"\n", 3, "no urgency"},
		{"a direction", link + "direction = \"both\"\n", 3, "no direction"},
		{"two tables", link + "\n" + link, 4, "two tables for one link"},
		{"two tables, one of them for both ways", link + "direction = \"in\"\n\n" + link, 5, "two tables for one link"},
		{"hours of what comes", link + "direction = \"in\"\nhours = [{from = \"08:00\", to = \"18:00\"}]\n", 1, "about what leaves"},
		{"approval of what comes", link + "direction = \"in\"\n[link.approval]\nadministrators = 2\n", 1, "about what leaves"},
		{"approval of nobody", link + "[link.approval]\nfrom_label = \"internal\"\n", 1, "administrators must be 1 to 8"},
		{"a negative size", link + "max_mib = -1\n", 1, "out of range"},
		{"no link", "\n[[link]]\nmax_mib = 1\n", 2, "no link"},
		{"a number for text", "[[link]]\nlink = 3\n", 2, "wrong kind"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("guard.toml", []byte(c.file))
			var e *config.Error
			if !errors.As(err, &e) || e.Line != c.line || !strings.Contains(e.Error(), c.problem) {
				t.Fatalf("%v", err)
			}
			if strings.Contains(err.Error(), "sceret") || strings.ContainsRune(err.Error(), 0) {
				t.Errorf("the value is shown: %v", err)
			}
		})
	}
}

func TestPatternsAreWrittenAsRead(t *testing.T) {
	for _, text := range []string{"*", "11*", "region:5201", yi} {
		var p pattern
		if err := p.UnmarshalText([]byte(text)); err != nil || p.String() != text {
			t.Errorf("%s became %s, %v", text, p, err)
		}
	}
	var p pattern
	if err := p.UnmarshalText([]byte("区划:52")); err != nil || p.String() != "region:52" {
		t.Errorf("%s, %v", p, err)
	}
}

// TestTheManualsExample is read, and says what the manual says that it does.
func TestTheManualsExample(t *testing.T) {
	manual, err := os.ReadFile("../../docs/guard.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(manual), "```toml\n")
	text, _, found := strings.Cut(text, "```")
	ps, err := Parse("docs/guard.md", []byte(text))
	if err != nil || !found {
		t.Fatalf("%v, found %v", err, found)
	}
	p := ps.For("jia-yi", Out, exchange.WorkSecret)
	d := p.Decide(facts(func(f *Facts) { f.Label = exchange.Internal }), now.Add(3*time.Hour))
	if d.Refused != nil || d.Administrators != 2 || d.Until.IsZero() || len(p.Rules) != 2 || len(ps.Tables) != 2 {
		t.Errorf("%+v", d)
	}
}

// FuzzParse: no file makes it panic, and what is read decides about anything.
func FuzzParse(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte("[[link]]\nlink = \"a\"\nhours = [{days = \"sun\", from = \"00:00\", to = \"24:00\"}]\n"))
	f.Add([]byte("utc_offset = \"-03:30\"\n[[link]]\nlink = \"a\"\n[[link.rule]]\nverdict = \"拒绝\"\nfrom = \"区划:52\"\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ps, err := Parse("guard.toml", b)
		if err != nil {
			var e *config.Error
			if !errors.As(err, &e) {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		for _, table := range ps.Tables {
			for _, way := range []Direction{In, Out} {
				p := ps.For(table.Link, way, exchange.Internal)
				if p.Ceiling.Rank() > exchange.Internal.Rank() {
					t.Fatal("the ceiling of the directory was raised")
				}
				for h := range 24 * 7 {
					at := now.Add(time.Duration(h) * time.Hour)
					open, next := p.Open(exchange.Normal, at)
					if !open && !next.After(at) {
						t.Fatalf("closed at %s until %s", at, next)
					}
					p.Decide(facts(nil), at)
				}
			}
		}
	})
}
