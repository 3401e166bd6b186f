package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
)

var kindsInChinese = map[string]string{
	"authority": "名录机构", "policy": "批准策略", "administrator": "管理员", "agency": "单位", "node": "节点", "link": "链路",
	"route": "路由", "inspection": "检查点", "issuer": "签发机构", "timestamp authority": "时间戳机构", "revocation": "吊销", "list": "名录清单",
}

// text is the difference for people.
func (d *directoryDiff) text(lang string) string {
	say := words(lang)
	var b strings.Builder
	fmt.Fprintf(&b, say("%s: from version %d to %d\n", "%s：第 %d 版至第 %d 版\n"), visible(d.Domain), d.From, d.To)
	fmt.Fprintf(&b, say("issued %s, next update by %s\n", "签发于 %s，应于 %s 前更新\n"), second(d.Issued), second(d.NextUpdate))
	if d.LeftOut > 0 {
		fmt.Fprintf(&b, say("! the version numbers %d to %d are left out\n", "! 跳过版本号 %d 至 %d\n"), d.To-d.LeftOut, d.To-1)
	}
	if len(d.Changes) == 0 {
		b.WriteString(say("nothing changes\n", "没有变化\n"))
	}
	for i := range d.Changes {
		d.Changes[i].text(&b, say)
	}
	if unmet := d.Policy.unmet(say); unmet != "" {
		fmt.Fprintf(&b, "! %s\n", unmet)
	}
	if d.Previous != "" {
		fmt.Fprintf(&b, say("SM3 of the list before it: %s\n", "上一版名录清单 SM3：%s\n"), d.Previous)
	}
	fmt.Fprintf(&b, say("SM3 of the list: %s\n", "名录清单 SM3：%s\n"), d.List)
	return b.String()
}

func (c *entryChange) text(b *strings.Builder, say func(en, zh string) string) {
	marks := map[string]string{"added": "+", "removed": "-", "changed": "~"}
	verbs := map[string]string{"added": say("is added", "新增"), "removed": say("is removed", "移除"), "changed": say("changes", "变更")}
	kind := say(c.Kind, kindsInChinese[c.Kind])
	if c.Kind == "unknown" {
		kind = say("entry of the unknown type", "未知类型条目")
	}
	fmt.Fprintln(b, strings.Join(filled([]string{marks[c.Change], kind, visible(c.ID), visible(c.Name), verbs[c.Change]}), " "))
	for _, m := range c.Members {
		switch {
		case m.Member == "certificates":
			certificateChanges(b, say, m)
		case c.Change == "added" && (m.Member == "id" || m.Member == "code" || m.Member == "name"):
			// the line above says it
		case c.Change == "added":
			fmt.Fprintf(b, "    %s: %s\n", m.Member, plain(m.To))
		default:
			fmt.Fprintf(b, "    %s: %s → %s\n", m.Member, plain(m.From), plain(m.To))
		}
	}
	if c.Undescribed {
		fmt.Fprintf(b, say("    ! changes in a way that is not described here (%s)\n", "    ! 存在此处未描述的变更（%s）\n"), or(visible(strings.Join(c.UndescribedMembers, ", ")), "-"))
	}
}

// plain writes a value on one line.
func plain(v any) string {
	switch v := v.(type) {
	case nil:
		return "-"
	case string:
		return visible(v)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return "?"
	}
	return visible(string(b))
}

// visible writes what a terminal would not show, or would act on, by its
// number: no text hides a line of what is approved.
func visible(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsGraphic(r) && r != unicode.ReplacementChar {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "\\u{%x}", r)
		}
	}
	return b.String()
}

func second(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// certificateChanges names certificates that come, go, or are revoked, by the
// SM3 of their DER and by their key.
func certificateChanges(b *strings.Builder, say func(en, zh string) string, m memberChange) {
	list := func(v any) map[string]members {
		out := map[string]members{}
		all, _ := v.([]any)
		for _, one := range all {
			if c, ok := one.(map[string]any); ok {
				out[unused(out, fmt.Sprintf("%s %s", c["use"], c["fingerprint"]))] = c
			}
		}
		return out
	}
	old, now := list(m.From), list(m.To)
	all := maps.Clone(old)
	maps.Copy(all, now)
	told := false
	for _, key := range slices.Sorted(maps.Keys(all)) {
		c, mark := all[key], "~"
		switch {
		case old[key] == nil:
			mark = "+"
		case now[key] == nil:
			mark = "-"
		case fmt.Sprint(old[key]) == fmt.Sprint(now[key]):
			continue
		}
		told = true
		fmt.Fprintf(b, say("    %s certificate to %s, serial %s, valid %s to %s\n", "    %s 证书 %s，序列号 %s，有效期 %s 至 %s\n"), mark, c["use"], c["serial"], plain(c["from"]), plain(c["until"]))
		fmt.Fprintf(b, "        SM3 %s\n", c["fingerprint"])
		fmt.Fprintf(b, say("        key %s\n", "        密钥 %s\n"), c["key_id"])
		if mark == "~" || c["revoked"] != nil {
			fmt.Fprintf(b, say("        revoked: %s → %s\n", "        吊销：%s → %s\n"), plain(old[key]["revoked"]), plain(now[key]["revoked"]))
		}
	}
	if !told {
		b.WriteString(say("    the order of the certificates changes\n", "    证书的顺序变更\n"))
	}
}
