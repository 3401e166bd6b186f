package exchange

import (
	"strings"
	"time"
)

// What people write in the fields of a document, read as what it means. The
// words of the wire are in label.go.

// ReadLabel reads 密级 as people write it: in English or Chinese, in brackets, with
// spaces, stars and a term (机密★10年), simplified or traditional. A mark of a state
// secret is recognised however it is written, so that it is refused as one. Term is
// what stands behind the star.
func ReadLabel(text string) (l Label, term string, ok bool) {
	s := strings.ToLower(Folded(text))
	s = strings.TrimPrefix(strings.TrimPrefix(s, "密级"), ":")
	s = strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	if l, term, ok := stateSecret(s); ok {
		return l, term, true
	}
	s = strings.ReplaceAll(s, "-", "_")
	for _, n := range labels {
		if s == string(n.word) || s == n.chinese || s == strings.ReplaceAll(string(n.word), "_", "") {
			return n.word, "", true
		}
	}
	return "", "", false
}

// stateSecret finds the word of a state secret in a folded label.
func stateSecret(s string) (l Label, term string, ok bool) {
	for _, one := range []struct {
		word  string
		label Label
	}{{"绝密", TopSecret}, {"机密", Confidential}, {"秘密", Secret}} {
		before, behind, found := strings.Cut(s, one.word)
		if !found || one.label == Secret && (strings.HasSuffix(before, "工作") || strings.HasSuffix(before, "商业")) {
			continue
		}
		behind = strings.Trim(strings.TrimPrefix(behind, "级"), "★[]:")
		return one.label, behind, true
	}
	return "", "", false
}

// ReadUrgency reads 紧急程度 as people write it, the four grades of telegrams (平急,
// 加急, 特急, 特提) among them. There are three lanes: 特提 and 特急 share the first,
// 平急 has the last, so that no grade overtakes a higher one. Mark is the word that
// stands on the document when the lane's own does not say it.
func ReadUrgency(text string) (u Urgency, mark string, ok bool) {
	s := strings.ToLower(Folded(text))
	s = strings.TrimPrefix(strings.TrimPrefix(s, "紧急程度"), ":")
	s = strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"), "-", "_")
	switch s {
	case "", "无", "一般", "普通":
		return Normal, "", true
	case "平急":
		return Normal, s, true
	case "急件":
		return Urgent, s, true
	case "特提":
		return VeryUrgent, s, true
	case "veryurgent":
		return VeryUrgent, "", true
	}
	if i := lookup(urgencies, s); i >= 0 {
		return urgencies[i].word, "", true
	}
	return "", "", false
}

// ReadKind reads what a document is for; empty is Official.
func ReadKind(text string) (Kind, bool) {
	k, err := ParseKind(strings.ToLower(Folded(text)))
	return k, err == nil
}

// ReadDate reads a date as people write it, 2026-11-23, 2026年11月23日, 2026/11/23 or
// 2026.11.23, in digits of any width, and gives it as 2026-11-23.
func ReadDate(text string) (string, bool) {
	s := strings.NewReplacer("年", "-", "月", "-", "日", "", "/", "-", ".", "-").Replace(Folded(text))
	t, err := time.Parse("2006-1-2", s)
	if err != nil || t.Year() < firstYear || t.Year() > lastYear {
		return "", false
	}
	return t.Format(time.DateOnly), true
}

// readDue reads a date as ReadDate does, or a time of RFC 3339, which stays as it is.
func readDue(text string) (due string, ends time.Time, ok bool) {
	if t, err := time.Parse(time.RFC3339, text); err == nil && t.Year() >= firstYear && t.Year() <= lastYear {
		return text, t, true
	}
	day, ok := ReadDate(text)
	if !ok {
		return "", time.Time{}, false
	}
	t, err := time.ParseInLocation(time.DateOnly, day, chinaTime)
	return day, t.AddDate(0, 0, 1), err == nil
}

// chinaTime is that of every date without a time zone.
var chinaTime = time.FixedZone("CST", 8*60*60)

// The 15 文种 of the rules of 2012 for party and government documents, and those of
// the rules before, which archives are full of.
var (
	docTypes = []string{
		"决议", "决定", "命令", "令", "命令（令）", "公报", "公告", "通告", "意见", "通知", "通报",
		"报告", "请示", "批复", "议案", "函", "纪要",
	}
	formerDocTypes = []string{"指示", "条例", "规定", "会议纪要"}
)

// docTypeIn finds a 文种 in a list however it is bracketed and spaced.
func docTypeIn(list []string, text string) (string, bool) {
	s := Folded(text)
	for _, one := range list {
		if Folded(one) == s {
			return one, true
		}
	}
	return "", false
}
