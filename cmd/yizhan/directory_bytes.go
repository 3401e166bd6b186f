package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/yizhan-gateway/yizhan/certs"
)

// parts are what a list names by hash, by kind and name, and their order.
type parts struct {
	of    map[string]certs.Part
	order []string
}

func partsOf(d *certs.Directory) (*parts, error) {
	p := &parts{of: map[string]certs.Part{}}
	if d == nil {
		return p, nil
	}
	list, err := d.Parts()
	if err != nil {
		return nil, err
	}
	for _, one := range list {
		if one.Kind == "tsa" {
			one.Kind = "timestamp authority"
		}
		id := unused(p.of, one.Kind+"\n"+one.ID)
		_, one.ID, _ = strings.Cut(id, "\n")
		p.of[id] = one
		p.order = append(p.order, id)
	}
	return p, nil
}

// compareBytes adds what the members do not say: entries and other parts of
// the list whose bytes differ.
func (d *directoryDiff) compareBytes(before, after *certs.Directory) error {
	old, err := partsOf(before)
	if err != nil {
		return err
	}
	now, err := partsOf(after)
	if err != nil {
		return err
	}
	at := map[string]int{}
	for i, c := range d.Changes {
		at[c.Kind+"\n"+c.ID] = i
	}
	all := maps.Clone(old.of)
	maps.Copy(all, now.of)
	for _, key := range slices.Sorted(maps.Keys(all)) {
		o, had := old.of[key]
		n, has := now.of[key]
		if had && has && o.Hash == n.Hash {
			continue
		}
		i, listed := at[key]
		if !listed {
			i = len(d.Changes)
			d.Changes = append(d.Changes, entryChange{Kind: all[key].Kind, ID: all[key].ID})
		}
		c := &d.Changes[i]
		switch {
		case !has:
			c.Change = "removed"
		case !had && c.Change == "":
			c.Change = "added"
		case c.Change == "":
			c.Change, c.Undescribed = "changed", true
		}
		if has {
			c.UndescribedMembers = c.left(o, n)
			c.Undescribed = c.Undescribed || len(c.UndescribedMembers) > 0
		}
	}
	if !slices.Equal(common(old.order, now.of), common(now.order, old.of)) {
		d.Changes = append(d.Changes, entryChange{Kind: "list", Change: "changed", Undescribed: true, UndescribedMembers: []string{"entries"}})
	}
	return nil
}

// common gives those keys that the other side has, too, in their order.
func common(order []string, other map[string]certs.Part) []string {
	var out []string
	for _, key := range order {
		if _, ok := other[key]; ok {
			out = append(out, key)
		}
	}
	return out
}

// maxLeft is how many names are listed of what is not described.
const maxLeft = 20

// left names the members of an entry that differ and are not described by the
// change. Those that every entry of a kind known here has are the same in all
// of them.
func (c *entryChange) left(old, now certs.Part) (out []string) {
	all := maps.Clone(now.Members)
	maps.Copy(all, old.Members)
	_, known := kindsInChinese[c.Kind]
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if old.Members[name] == now.Members[name] || known && (name == "type" || name == "v" || name == "domain") || c.describes(name) {
			continue
		}
		out = append(out, name)
	}
	if len(out) > maxLeft {
		out = append(out[:maxLeft], "…")
	}
	return out
}

// describes says whether the change has a member for one of the entry. That a
// certificate's holder has it is said by the list of certificates; an entry that
// is about a certificate is named by it.
func (c *entryChange) describes(name string) bool {
	names := []string{name}
	switch name {
	case "certs":
		names = []string{"certificates"}
	case "cert":
		names = []string{"fingerprint", "certificate"}
	}
	return slices.ContainsFunc(c.Members, func(m memberChange) bool { return slices.Contains(names, m.Member) })
}
