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

// directoryDiff is what differs between two directories, and what of the later
// one's list is not about its entries.
type directoryDiff struct {
	Domain     string        `json:"domain"`
	From       uint64        `json:"from"` // 0: nothing was published
	To         uint64        `json:"to"`
	LeftOut    uint64        `json:"left_out,omitempty"` // numbers of a next publication
	Changes    []entryChange `json:"changes"`
	Policy     policyView    `json:"policy"` // after it
	List       string        `json:"list"`   // SM3 of the list: what is approved and signed
	Issued     time.Time     `json:"issued"`
	NextUpdate time.Time     `json:"next_update"`
	Previous   string        `json:"previous,omitempty"` // of a next publication: SM3 of the list that is published
}

// entryChange says that one thing was added, removed or changed; one that was
// added or changed names its members. Undescribed says that its bytes differ by
// something that no member here says.
type entryChange struct {
	Kind               string         `json:"kind"`
	ID                 string         `json:"id"`
	Name               string         `json:"name,omitempty"`
	Change             string         `json:"change"`
	Members            []memberChange `json:"members,omitempty"`
	Undescribed        bool           `json:"undescribed,omitempty"`
	UndescribedMembers []string       `json:"undescribed_members,omitempty"` // names in the entry
}

type memberChange struct {
	Member string `json:"member"`
	From   any    `json:"from,omitempty"`
	To     any    `json:"to,omitempty"`
}

// diffOf compares two directories; before may be nil. What is described is
// compared first, and then the bytes: nothing that differs is left out.
func diffOf(before, after *certs.Directory, now time.Time) (*directoryDiff, error) {
	d := &directoryDiff{
		Domain: after.Domain(), To: after.Version(), Changes: []entryChange{},
		List: after.ID().String(), Issued: after.Issued(), NextUpdate: after.NextUpdate(),
	}
	old := new(directoryView)
	if before != nil {
		d.From, old = before.Version(), viewOf(before, now)
	}
	one := viewOf(after, now)
	d.Policy = one.Policy
	for _, kind := range []struct {
		name     string
		old, new any // lists of structs
		id       []string
	}{
		{"authority", []authorityView{old.authority()}, []authorityView{one.authority()}, nil},
		{"policy", []policyView{{Approvals: old.Policy.Approvals}}, []policyView{{Approvals: one.Policy.Approvals}}, nil},
		{"administrator", old.Administrators, one.Administrators, []string{"id"}},
		{"agency", old.Agencies, one.Agencies, []string{"code"}},
		{"node", old.Nodes, one.Nodes, []string{"id"}},
		{"link", old.Links, one.Links, []string{"id"}},
		{"route", old.Routes, one.Routes, []string{"from", "to"}},
		{"inspection", old.Inspections, one.Inspections, []string{"node", "link"}},
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
	return d, d.compareBytes(before, after)
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
		out[unused(out, strings.Join(parts, " – "))] = m
	}
	return out, nil
}

// unused gives a key that a map does not have yet: of two with one name none
// hides the other.
func unused[T any](m map[string]T, key string) string {
	name := key
	for n := 2; ; n++ {
		if _, taken := m[name]; !taken {
			return name
		}
		name = fmt.Sprintf("%s #%d", key, n)
	}
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
			c.Change, c.Members = "added", differing(nil, now[key])
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
	all := members{}
	maps.Copy(all, old)
	maps.Copy(all, now)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if fmt.Sprint(old[name]) != fmt.Sprint(now[name]) {
			out = append(out, memberChange{name, old[name], now[name]})
		}
	}
	return out
}
