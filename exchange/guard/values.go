package guard

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/config"
)

// The values of guard.toml read themselves, so that what is wrong with one is
// said with its line. Each takes the English word and the Chinese one.

type label struct{ exchange.Label }

func (l *label) UnmarshalText(b []byte) (err error) {
	if l.Label, err = exchange.ParseLabel(string(b)); err != nil || l.StateSecret() {
		return config.Refuse("this is no label that a link can carry", "public 公开, internal 内部 or work_secret 工作秘密")
	}
	return nil
}

type kind struct{ exchange.Kind }

func (k *kind) UnmarshalText(b []byte) (err error) {
	if k.Kind, err = exchange.ParseKind(string(b)); err != nil || len(b) == 0 {
		return config.Refuse("this is no kind of document", "official 公文, information 政务信息, notice 通知 or material 资料")
	}
	return nil
}

type urgency struct{ exchange.Urgency }

func (u *urgency) UnmarshalText(b []byte) (err error) {
	if u.Urgency, err = exchange.ParseUrgency(string(b)); err != nil || u.Urgency.Rank() == 0 {
		return config.Refuse("this is no urgency that hours can except", "urgent 加急 or very_urgent 特急, and what is above it")
	}
	return nil
}

type direction struct{ Direction }

func (d *direction) UnmarshalText(b []byte) error {
	if d.Direction = Direction(b); d.Direction != In && d.Direction != Out {
		return config.Refuse("this is no direction", `"in" for what comes to this node, "out" for what leaves it; leave it out for both`)
	}
	return nil
}

type verdict struct{ given, allow bool }

func (v *verdict) UnmarshalText(b []byte) error {
	switch string(b) {
	case "allow", "放行":
		*v = verdict{true, true}
	case "deny", "拒绝":
		*v = verdict{true, false}
	default:
		return config.Refuse("this is no verdict", "allow 放行 or deny 拒绝")
	}
	return nil
}

// Pattern stands for agencies by their codes: one by all of its code, or those
// whose code begins with something, or whose region (characters 3 to 8 of the
// code) does. The zero Pattern is any agency.
type Pattern struct {
	region bool
	whole  bool
	text   string
}

// Agency is the one agency that a pattern names; empty when it names several.
func (p Pattern) Agency() string {
	if !p.whole {
		return ""
	}
	return p.text
}

// String is the pattern as it is written.
func (p Pattern) String() string {
	switch {
	case p.whole:
		return p.text
	case p.region:
		return "region:" + p.text
	}
	return p.text + "*"
}

func (p Pattern) matches(code string) bool {
	switch {
	case p.whole:
		return code == p.text
	case p.region:
		return len(code) > 2 && strings.HasPrefix(code[2:], p.text)
	}
	return strings.HasPrefix(code, p.text)
}

type pattern struct{ Pattern }

var (
	regionForm = regexp.MustCompile(`^[0-9]{2,6}$`)
	prefixForm = regexp.MustCompile(`^[0-9A-HJ-NPQRTUWXY]{0,17}\*$`)
)

func (p *pattern) UnmarshalText(b []byte) error {
	s := string(b)
	if region, is := strings.CutPrefix(strings.Replace(s, "区划:", "region:", 1), "region:"); is && regionForm.MatchString(region) {
		p.Pattern = Pattern{region: true, text: region}
		return nil
	}
	if prefixForm.MatchString(s) {
		p.Pattern = Pattern{text: strings.TrimSuffix(s, "*")}
		return nil
	}
	if _, err := certs.ParseAgencyCode(s); err != nil {
		return config.Refuse("this names no agency", `a whole code of 18 characters, the beginning of codes and a star, "region:5201", or "*" for any`)
	}
	p.Pattern = Pattern{whole: true, text: s}
	return nil
}

type clock struct{ minutes int }

var clockForm = regexp.MustCompile(`^([01][0-9]|2[0-4]):([0-5][0-9])$`)

func (c *clock) UnmarshalText(b []byte) error {
	m := clockForm.FindSubmatch(b)
	if m != nil {
		h, _ := strconv.Atoi(string(m[1]))
		min, _ := strconv.Atoi(string(m[2]))
		c.minutes = h*60 + min
	}
	if m == nil || c.minutes > 24*60 {
		return config.Refuse("this is no time of day", `like "08:00", the latest is "24:00"`)
	}
	return nil
}

type offset struct {
	given bool
	zone  *time.Location
}

var offsetForm = regexp.MustCompile(`^([+-])(0[0-9]|1[0-4]):([0-5][0-9])$`)

func (o *offset) UnmarshalText(b []byte) error {
	m := offsetForm.FindSubmatch(b)
	if m == nil {
		return config.Refuse("this is no distance from UTC", `like "+08:00" for Beijing`)
	}
	h, _ := strconv.Atoi(string(m[2]))
	min, _ := strconv.Atoi(string(m[3]))
	seconds := h*3600 + min*60
	if m[1][0] == '-' {
		seconds = -seconds
	}
	*o = offset{true, time.FixedZone(string(b), seconds)}
	return nil
}

const everyDay Days = 1<<7 - 1

var dayNames = [7][]string{
	{"sun", "周日", "周天", "星期日", "星期天"}, {"mon", "周一", "星期一"}, {"tue", "周二", "星期二"}, {"wed", "周三", "星期三"},
	{"thu", "周四", "星期四"}, {"fri", "周五", "星期五"}, {"sat", "周六", "星期六"},
}

type days struct{ Days }

func (d *days) UnmarshalText(b []byte) error {
	bad := config.Refuse("these are no days of the week", `like "mon-fri", "mon,wed,sat" or "周一至周五"; leave it out for every day`)
	for _, part := range strings.FieldsFunc(string(b), func(r rune) bool { return strings.ContainsRune(",，、 ", r) }) {
		first, last, isRange := part, part, false
		for _, sign := range []string{"-", "–", "至", "到"} {
			if a, z, found := strings.Cut(part, sign); found {
				first, last, isRange = a, z, true
				break
			}
		}
		from, to := dayOf(first), dayOf(last)
		if from < 0 || to < 0 || isRange && from == to {
			return bad
		}
		for day := from; ; day = (day + 1) % 7 {
			if d.Days |= 1 << day; day == to {
				break
			}
		}
	}
	if d.Days == 0 {
		return bad
	}
	return nil
}

func dayOf(s string) int {
	return slices.IndexFunc(dayNames[:], func(names []string) bool { return slices.Contains(names, s) })
}
