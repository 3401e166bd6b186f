package certs

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// Inspection names an inspection point: a node that looks into the documents
// which pass a link of its own, either way. An empty Link stands for all links
// of the node.
type Inspection struct{ Node, Link string }

type inspectionEntry struct {
	Type   string   `json:"type"`
	V      int      `json:"v"`
	Crit   []string `json:"crit,omitempty"`
	Domain string   `json:"domain"`
	Node   string   `json:"node"`
	Link   string   `json:"link,omitempty"`
	Extra  strictjson.Extra
}

func (d *Directory) addInspection(raw strictjson.Raw) error {
	var e inspectionEntry
	if err := d.common(raw, inspectionType, &e, &e.V, &e.Domain); err != nil {
		return err
	}
	one := Inspection{e.Node, e.Link}
	if d.inspections[one] {
		return fail(codeContent, "the inspection point %.40q of link %.70q is there twice", e.Node, e.Link)
	}
	d.inspections[one] = true
	return nil
}

// checkInspections: only an end of a link sees all that passes it, and so
// answers for it.
func (d *Directory) checkInspections() error {
	for one := range d.inspections {
		if d.nodes[one.Node] == nil {
			return fail(codeContent, "inspection point %.40q is no node of the directory", one.Node)
		}
		if one.Link == "" {
			continue
		}
		if l := d.links[one.Link]; l == nil || l.A != one.Node && l.B != one.Node {
			return fail(codeContent, "inspection point %s is no end of link %.70q", one.Node, one.Link)
		}
	}
	return nil
}

// Inspections lists all inspection points by node and link.
func (d *Directory) Inspections() []Inspection {
	return slices.SortedFunc(maps.Keys(d.inspections), func(a, b Inspection) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Link, b.Link))
	})
}

// Inspected says whether there is any inspection point.
func (d *Directory) Inspected() bool { return len(d.inspections) > 0 }

// Inspects says whether a node looks into what passes a link.
func (d *Directory) Inspects(node, link string) bool {
	if link == "" || !d.inspections[Inspection{node, ""}] && !d.inspections[Inspection{node, link}] {
		return false
	}
	l := d.links[link]
	return l != nil && (l.A == node || l.B == node)
}

// InspectedBy lists the nodes that look into a document on its way from a node
// to an agency, in the order in which it comes to them. Where no way leads it
// lists those up to there.
func (d *Directory) InspectedBy(from, agency string) []string {
	if len(d.inspections) == 0 {
		return nil
	}
	var out []string
	add := func(node, link string) {
		if d.Inspects(node, link) && !slices.Contains(out, node) {
			out = append(out, node)
		}
	}
	at := from
	for range d.nodes {
		link, next, err := d.NextHop(at, agency)
		if err != nil || next == at {
			break
		}
		add(at, link.ID)
		add(next, link.ID)
		at = next
	}
	return out
}

// AddInspection notes that a node is to look into what passes a link, or with
// an empty link any of its links.
func (a *Authority) AddInspection(one Inspection) error {
	if err := a.admitted(one.Node); err != nil {
		return err
	}
	if one.Link != "" {
		var l linkEntry
		if !linkForm.MatchString(one.Link) {
			return fail(codeRequest, "%.70q is no link's id", one.Link)
		}
		if err := a.entry(linkFile(one.Link), &l); err != nil {
			return err
		}
		if l.A != one.Node && l.B != one.Node {
			return fail(codeRequest, "node %s is no end of a link %s: an inspection point is", one.Node, one.Link)
		}
	}
	return a.putEntry(inspectionFile(one), &inspectionEntry{Type: inspectionType, V: 1, Domain: a.domain, Node: one.Node, Link: one.Link})
}

// RemoveInspection takes an inspection point out of the next publication.
func (a *Authority) RemoveInspection(one Inspection) error {
	if !nameForm.MatchString(one.Node) || one.Link != "" && !linkForm.MatchString(one.Link) {
		return fail(codeRequest, "%.40q is no inspection point", one.Node)
	}
	err := durable.OS.Remove(a.entryPath(inspectionFile(one)))
	if errors.Is(err, fs.ErrNotExist) {
		return fail(codeRequest, "node %s is no inspection point of that link", one.Node)
	}
	if err != nil {
		return err
	}
	return durable.OS.SyncDir(filepath.Join(a.dir, entriesDir))
}

// inspectionFile names an entry; no id has a _ in it.
func inspectionFile(one Inspection) string { return "inspection-" + one.Node + "_" + one.Link }
