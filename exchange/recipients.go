package exchange

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

const (
	maxCandidates = 5
	// maxSought is for how many unknown names the directory is searched for similar
	// ones; each search looks at all of it.
	maxSought  = 5
	maxNameLen = 500 // characters of a recipient's name, as in the directory
)

// likeCode is what can only be meant as a code: letters and digits, some of each or
// digits alone.
var likeCode = regexp.MustCompile(`^[0-9A-Za-z]{0,40}[0-9][0-9A-Za-z]{0,40}$`)

// finding is the search for all recipients of a form.
type finding struct {
	d      *certs.Directory
	now    time.Time
	sender string
	faults *Faults
	r      *Resolved
	named  map[string]bool // agencies named by themselves
	taken  map[string]bool
	sought int
}

// found is one recipient of the form that the directory knows.
type found struct {
	field    string
	named    Named
	by       string
	agencies []*certs.Agency
}

// find looks up the recipients, main ones first. An agency that is named by itself
// has that place, whatever groups it is in; of several groups the first counts.
func (r *Resolved) find(d *certs.Directory, f *Form, now time.Time, faults *Faults) {
	s := &finding{d: d, now: now, sender: r.Document.Sender, faults: faults, r: r, named: map[string]bool{}, taken: map[string]bool{}}
	if len(f.To) == 0 {
		faults.Add("to", CodeInvalidDocument, "at least one recipient is expected", "至少填写一个主送机关")
	}
	if tooMany(faults, len(f.To)+len(f.Cc)); faults.about("to") {
		return
	}
	to, cc := s.lookUp("to", f.To), s.lookUp("cc", f.Cc)
	r.Document.To = s.take(to)
	r.Document.Cc = s.take(cc)
	tooMany(faults, len(r.Document.To)+len(r.Document.Cc))
	if len(r.Document.To) == 0 && !faults.within("to[") {
		faults.Add("to", CodeInvalidDocument, "at least one recipient is expected; the group that is named has no member but the sender",
			"至少需要一个主送机关；所列分组除发文单位外没有成员")
	}
}

func (s *finding) lookUp(name string, list []Named) (out []found) {
	for i, one := range list {
		field := fmt.Sprintf("%s[%d]", name, i)
		agencies, by := s.resolve(field, one)
		if by == "" {
			continue
		}
		if by != certs.ByGroup {
			code := agencies[0].Code
			if s.named[code] {
				s.faults.append(twiceFault(field, code))
				continue
			}
			s.named[code] = true
		} else if one.CopyFrom != 0 || one.CopyTo != 0 {
			s.faults.Add(field+".copies", CodeInvalidDocument, "a group has no range of copies: name its members", "分组不能指定份号范围，请逐一填写单位")
		}
		out = append(out, found{field, one, by, agencies})
	}
	return out
}

// resolve gives the one agency that is meant, or the members of a group.
func (s *finding) resolve(field string, one Named) ([]*certs.Agency, string) {
	text := strings.TrimSpace(one.Text)
	if isBlank(text) || len([]rune(text)) > maxNameLen {
		s.faults.Add(field, CodeUnknownRecipient, "a code, name, alias or group of 1 to %d characters is expected", "请填写单位代码、名称、简称或分组（1 至 %d 个字符）", maxNameLen)
		return nil, ""
	}
	agencies, by := s.d.Resolve(text)
	switch {
	case by == "":
		s.unknown(field, text)
		return nil, ""
	case by == certs.ByGroup:
		return s.members(field, agencies), by
	}
	if present := s.present(agencies); len(present) > 0 {
		agencies = present
	}
	if len(agencies) > 1 {
		s.faults.Add(field, CodeAmbiguousRecipient, "several agencies are called so: %s. Name one by its code", "有多个单位使用该名称：%s。请改用单位代码", inWords(agencies))
		return nil, ""
	}
	if en, zh := gone(agencies[0], s.now); en != "" {
		s.faults.Add(field, CodeAgencyNotActive, "%[1]s", "%[2]s", en, zh)
		return nil, ""
	}
	return agencies, by
}

func (s *finding) present(agencies []*certs.Agency) []*certs.Agency {
	return slices.DeleteFunc(slices.Clone(agencies), func(a *certs.Agency) bool {
		ok, _ := a.ExistsAt(s.now)
		return !ok
	})
}

// members are those of a group that exist now, without the sender. Who is left out
// because it does not exist is said.
func (s *finding) members(field string, group []*certs.Agency) []*certs.Agency {
	present := s.present(group)
	if left := len(group) - len(present); left > 0 {
		absent := slices.DeleteFunc(slices.Clone(group), func(a *certs.Agency) bool { return slices.Contains(present, a) })
		s.r.Warnings.Add(field, CodeAgencyNotActive, "%d members of the group do not exist at this time and are left out: %s",
			"分组中有 %d 个单位尚未成立或已撤销，未列入：%s", left, inWords(absent))
	}
	return slices.DeleteFunc(present, func(a *certs.Agency) bool { return a.Code == s.sender })
}

func (s *finding) take(list []found) (out []Addressee) {
	for _, one := range list {
		for _, a := range one.agencies {
			if group := one.by == certs.ByGroup; s.taken[a.Code] || group && s.named[a.Code] {
				continue
			}
			s.taken[a.Code] = true
			to := Addressee{Agency: a.Code, CopyFrom: one.named.CopyFrom, CopyTo: one.named.CopyTo, Print: one.named.Print}
			reached := Reached{Addressee: to, Field: one.field, By: one.by}
			if one.by == certs.ByGroup {
				reached.Group = strings.TrimSpace(one.named.Text)
			}
			out, s.r.Recipients = append(out, to), append(s.r.Recipients, reached)
		}
	}
	return out
}

// unknown says what could be meant.
func (s *finding) unknown(field, text string) {
	if code := strings.ToUpper(text); likeCode.MatchString(text) {
		if _, err := certs.ParseAgencyCode(code); err != nil {
			s.faults.append(codeFault(field, code, err))
			return
		}
		s.faults.Add(field, CodeUnknownRecipient, "%s", "名录中没有单位 %s", code)
		return
	}
	var like []*certs.Agency
	if s.sought < maxSought {
		s.sought++
		like = similar(s.d, text)
	}
	if len(like) == 0 {
		s.faults.Add(field, CodeUnknownRecipient, "no agency has this code, name or alias, and no group is called so", "名录中没有该代码、名称、简称或分组")
		return
	}
	s.faults.Add(field, CodeUnknownRecipient, "no agency has this name or alias, and no group is called so; similar ones are %s",
		"名录中没有该名称、简称或分组；相近的有：%s", inWords(like))
}

// inWords lists agencies for a person, the first few of them.
func inWords(agencies []*certs.Agency) string {
	var all []string
	for _, a := range agencies[:min(len(agencies), maxCandidates)] {
		all = append(all, fmt.Sprintf("%s (%s)", a.Name, a.Code))
	}
	if more := len(agencies) - maxCandidates; more > 0 {
		all = append(all, fmt.Sprintf("… +%d", more))
	}
	return strings.Join(all, ", ")
}

// gone says in both languages why an agency does not exist; empty when it does.
func gone(a *certs.Agency, now time.Time) (en, zh string) {
	ok, why := a.ExistsAt(now)
	if ok {
		return "", ""
	}
	switch day := func(t strictjson.Time) string { return t.Time().In(chinaTime).Format(time.DateOnly) }; {
	case a.From != 0 && strictjson.TimeOf(now) < a.From:
		zh = fmt.Sprintf("单位 %s 自 %s 起成立", a.Code, day(a.From))
	case a.Successor != "":
		zh = fmt.Sprintf("单位 %s 已于 %s 撤销，承继单位为 %s", a.Code, day(a.Until), a.Successor)
	default:
		zh = fmt.Sprintf("单位 %s 已于 %s 撤销，没有承继单位", a.Code, day(a.Until))
	}
	return why, zh
}

// similar finds agencies whose name or alias has at least half of a text's pairs of
// neighbouring characters, the most similar first.
func similar(d *certs.Directory, text string) []*certs.Agency {
	pairs := map[[2]rune]bool{}
	eachPair(text, func(pair [2]rune) { pairs[pair] = true })
	type scored struct {
		a     *certs.Agency
		score int
	}
	var all []scored
	for _, a := range d.Agencies() {
		best := shared(pairs, a.Name)
		for _, alias := range a.Aliases {
			best = max(best, shared(pairs, alias))
		}
		if best > 0 && 2*best >= len(pairs) {
			all = append(all, scored{a, best})
		}
	}
	slices.SortStableFunc(all, func(x, y scored) int { return cmp.Compare(y.score, x.score) })
	var out []*certs.Agency
	for _, one := range all[:min(len(all), maxCandidates)] {
		out = append(out, one.a)
	}
	return out
}

func shared(pairs map[[2]rune]bool, name string) (n int) {
	eachPair(name, func(pair [2]rune) {
		if pairs[pair] {
			n++
		}
	})
	return n
}

// eachPair gives the pairs of neighbouring characters of a text, folded.
func eachPair(text string, each func([2]rune)) {
	last := rune(-1)
	for _, r := range text {
		if r = fold(r); r < 0 {
			continue
		}
		if last >= 0 {
			each([2]rune{last, r})
		}
		last = r
	}
}
