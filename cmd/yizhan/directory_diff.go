package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
)

// directoryDiff is what differs between two directories.
type directoryDiff struct {
	Domain  string        `json:"domain"`
	From    uint64        `json:"from"` // 0: nothing was published
	To      uint64        `json:"to"`
	Changes []entryChange `json:"changes"`
}

// entryChange says that one thing was added, removed or changed; a changed one
// names its members.
type entryChange struct {
	Kind    string         `json:"kind"`
	ID      string         `json:"id"`
	Name    string         `json:"name,omitempty"`
	Change  string         `json:"change"`
	Members []memberChange `json:"members,omitempty"`
}

type memberChange struct {
	Member string `json:"member"`
	From   any    `json:"from,omitempty"`
	To     any    `json:"to,omitempty"`
}

// diffOf compares two directories; before may be nil.
func diffOf(before, after *certs.Directory, now time.Time) (*directoryDiff, error) {
	d := &directoryDiff{Domain: after.Domain(), To: after.Version(), Changes: []entryChange{}}
	old := new(directoryView)
	if before != nil {
		d.From, old = before.Version(), viewOf(before, now)
	}
	one := viewOf(after, now)
	for _, kind := range []struct {
		name     string
		old, new any // lists of structs
		id       []string
	}{
		{"authority", []authorityView{{old.Fingerprint, old.Successions}}, []authorityView{{one.Fingerprint, one.Successions}}, nil},
		{"policy", []policyView{old.Policy}, []policyView{one.Policy}, nil},
		{"administrator", old.Administrators, one.Administrators, []string{"id"}},
		{"agency", old.Agencies, one.Agencies, []string{"code"}},
		{"node", old.Nodes, one.Nodes, []string{"id"}},
		{"link", old.Links, one.Links, []string{"id"}},
		{"route", old.Routes, one.Routes, []string{"from", "to"}},
		{"issuer", old.Issuers, one.Issuers, []string{"fingerprint"}},
		{"timestamp authority", old.TSAs, one.TSAs, []string{"fingerprint"}},
		{"revocation", old.Revocations, one.Revocations, []string{"certificate"}},
	} {
		changes, err := compare(kind.name, kind.old, kind.new, kind.id)
		if err != nil {
			return nil, err
		}
		d.Changes = append(d.Changes, changes...)
	}
	return d, nil
}

type authorityView struct {
	Fingerprint string `json:"fingerprint"`
	Successions int    `json:"successions"`
}

type members map[string]any

// byID reads a list of structs as the program prints it, by what names each.
func byID(list any, id []string) (map[string]members, error) {
	b, err := json.Marshal(list)
	if err != nil {
		return nil, err
	}
	var all []members
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, err
	}
	out := map[string]members{}
	for _, m := range all {
		var parts []string
		for _, name := range id {
			parts = append(parts, fmt.Sprint(m[name]))
		}
		out[strings.Join(parts, " – ")] = m
	}
	return out, nil
}

func compare(kind string, before, after any, id []string) (out []entryChange, err error) {
	old, err := byID(before, id)
	if err != nil {
		return nil, err
	}
	now, err := byID(after, id)
	if err != nil {
		return nil, err
	}
	all := maps.Clone(old)
	maps.Copy(all, now)
	for _, key := range slices.Sorted(maps.Keys(all)) {
		name, _ := all[key]["name"].(string)
		c := entryChange{Kind: kind, ID: key, Name: name, Change: "changed"}
		switch {
		case old[key] == nil:
			c.Change = "added"
		case now[key] == nil:
			c.Change = "removed"
		default:
			if c.Members = differing(old[key], now[key]); c.Members == nil {
				continue
			}
		}
		out = append(out, c)
	}
	return out, nil
}

func differing(old, now members) (out []memberChange) {
	all := maps.Clone(old)
	maps.Copy(all, now)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if fmt.Sprint(old[name]) != fmt.Sprint(now[name]) {
			out = append(out, memberChange{name, old[name], now[name]})
		}
	}
	return out
}

var kindsInChinese = map[string]string{
	"authority": "名录机构", "policy": "批准策略", "administrator": "管理员", "agency": "单位", "node": "节点", "link": "链路",
	"route": "路由", "issuer": "签发机构", "timestamp authority": "时间戳机构", "revocation": "吊销",
}

// text is the difference for people.
func (d *directoryDiff) text(lang string) string {
	say := words(lang)
	var b strings.Builder
	fmt.Fprintf(&b, say("%s: from version %d to %d\n", "%s：第 %d 版至第 %d 版\n"), d.Domain, d.From, d.To)
	if len(d.Changes) == 0 {
		b.WriteString(say("nothing changes\n", "没有变化\n"))
	}
	marks := map[string]string{"added": "+", "removed": "-", "changed": "~"}
	verbs := map[string]string{"added": say("is added", "新增"), "removed": say("is removed", "移除"), "changed": say("changes", "变更")}
	for _, c := range d.Changes {
		fmt.Fprintln(&b, strings.Join(filled([]string{marks[c.Change], say(c.Kind, kindsInChinese[c.Kind]), c.ID, c.Name, verbs[c.Change]}), " "))
		for _, m := range c.Members {
			if m.Member == "certificates" {
				certificateChanges(&b, say, m)
				continue
			}
			fmt.Fprintf(&b, "    %s: %s → %s\n", m.Member, plain(m.From), plain(m.To))
		}
	}
	return b.String()
}

func plain(v any) string {
	switch v := v.(type) {
	case nil:
		return "-"
	case string:
		return v
	}
	b, err := json.Marshal(v)
	if err != nil {
		return "?"
	}
	return string(b)
}

// certificateChanges names certificates that come, go, or are revoked.
func certificateChanges(b *strings.Builder, say func(en, zh string) string, m memberChange) {
	list := func(v any) map[string]members {
		out := map[string]members{}
		all, _ := v.([]any)
		for _, one := range all {
			if c, ok := one.(map[string]any); ok {
				out[fmt.Sprintf("%s %s", c["use"], c["serial"])] = c
			}
		}
		return out
	}
	old, now := list(m.From), list(m.To)
	all := maps.Clone(old)
	maps.Copy(all, now)
	for _, key := range slices.Sorted(maps.Keys(all)) {
		switch {
		case old[key] == nil:
			fmt.Fprintf(b, say("    + certificate to %s\n", "    + 证书 %s\n"), key)
		case now[key] == nil:
			fmt.Fprintf(b, say("    - certificate to %s\n", "    - 证书 %s\n"), key)
		case fmt.Sprint(old[key]) != fmt.Sprint(now[key]):
			fmt.Fprintf(b, say("    ~ certificate to %s: revoked %s → %s\n", "    ~ 证书 %s：吊销 %s → %s\n"), key, plain(old[key]["revoked"]), plain(now[key]["revoked"]))
		}
	}
}
