package certs

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// Removal is about to take a node or an agency out of the entries, or to put
// back what is published of it. Nothing is written before Commit.
type Removal struct {
	// Taken, Back and Published name what is taken out of the entries, what
	// comes back as it is published, and what of Taken is published, and so ends
	// for everybody with the next version: "node ID", "agency CODE", "link ID",
	// "route FROM to TO", "inspection point NODE of link ID".
	Taken, Back, Published []string

	*edit
}

// Removal begins to take out an agency, or a node with the agencies that it
// serves, its links, and the routes from it, to it and over it. What is not
// there leaves Taken empty.
func (a *Authority) Removal(holder string) (*Removal, error) {
	r, list, err := a.removal()
	if err != nil {
		return nil, err
	}
	for _, one := range list {
		if !one.belongs(holder) {
			continue
		}
		r.set(one.file, nil)
		r.Taken = append(r.Taken, one.name)
		if r.published[one.file] != nil {
			r.Published = append(r.Published, one.name)
		}
	}
	return r, nil
}

// CertificateRemoval begins to take one certificate out of the entry of a node
// or an agency, by its serial number in hex: one that was never used makes room,
// see [Admission.Add]. The last one for its use stays. What is not there leaves
// Taken empty.
func (a *Authority) CertificateRemoval(serial string) (*Removal, error) {
	e, err := a.edit()
	if err != nil {
		return nil, err
	}
	r := &Removal{edit: e}
	list, err := a.Certificates()
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(l Listed) bool { return l.Serial != serial })
	if len(list) == 0 {
		return r, nil
	}
	kind, id, _ := strings.Cut(list[0].Holder, " ")
	if len(list) > 1 || kind != "node" && kind != "agency" {
		return nil, fail(codeRequest, "certificate %s is not the only one of that number, or not one of a node or an agency", serial)
	}
	return r, r.dropCertificate(kind, id, &list[0])
}

func (r *Removal) dropCertificate(kind, id string, c *Listed) error {
	var agency agencyEntry
	var node nodeEntry
	file, entry, list := agencyFile(id), any(&agency), &agency.Certs
	if kind == "node" {
		file, entry, list = nodeFile(id), &node, &node.Certs
	}
	if _, err := r.find(file, entry); err != nil {
		return err
	}
	*list = slices.DeleteFunc(*list, func(e certEntry) bool { return e.Use == c.Use && bytes.Equal(e.Cert, c.DER) })
	if !slices.ContainsFunc(*list, func(e certEntry) bool { return e.Use == c.Use }) {
		return fail(codeRequest, "certificate %s is the only one with which %s may %s", c.Serial, c.Holder, c.Use)
	}
	name := "certificate " + c.Serial + " of " + c.Holder
	r.Taken = append(r.Taken, name)
	if strings.Contains(string(r.published[file]), base64.StdEncoding.EncodeToString(c.DER)) {
		r.Published = append(r.Published, name)
	}
	return r.put(file, entry)
}

// Restoration begins to put back what is published of an agency, or of a node
// and all that belongs to it: it undoes an admission, a removal or another
// change that is not published yet. Links and routes that were added since
// stay.
func (a *Authority) Restoration(holder string) (*Removal, error) {
	r, list, err := a.removal()
	if err != nil {
		return nil, err
	}
	known := false
	for file, raw := range r.published {
		one, err := describe(raw)
		if err != nil {
			return nil, err
		}
		known = known || one.name == holder
		if !one.belongs(holder) {
			continue
		}
		if i := slices.IndexFunc(list, func(had described) bool { return had.file == file }); i < 0 || !slices.Equal(list[i].raw, raw) {
			r.set(file, raw)
			r.Back = append(r.Back, one.name)
		}
	}
	if !known {
		return nil, fail(codeRequest, "%s is not published: there is nothing to put back", holder)
	}
	for _, one := range list {
		if one.belongs(holder) && one.code != "" && r.published[one.file] == nil {
			r.set(one.file, nil)
			r.Taken = append(r.Taken, one.name)
		}
	}
	slices.Sort(r.order)
	slices.Sort(r.Back)
	return r, nil
}

// removal reads what may belong to a holder: the routes, the links, the
// agencies and then the nodes, so that after a crash the same command finds
// what is left.
func (a *Authority) removal() (*Removal, []described, error) {
	e, err := a.edit()
	if err != nil {
		return nil, nil, err
	}
	raw, err := a.entries()
	if err != nil {
		return nil, nil, err
	}
	var list []described
	for _, b := range raw {
		one, err := describe(b)
		if err != nil {
			return nil, nil, err
		}
		if one.name != "" {
			list = append(list, one)
		}
	}
	for i := range list { // an inspection point goes with its link
		for _, l := range list {
			if list[i].link != "" && l.file == linkFile(list[i].link) {
				list[i].nodes = append(list[i].nodes, l.nodes...)
			}
		}
	}
	slices.SortStableFunc(list, func(x, y described) int { return x.rank - y.rank })
	return &Removal{edit: e}, list, nil
}

// described is an entry of a node or an agency, or one that joins nodes.
type described struct {
	file, name string
	code       string // of an agency
	link       string // of an inspection point
	nodes      []string
	rank       int
	raw        strictjson.Raw
}

func (d *described) belongs(holder string) bool {
	return d.name == holder || slices.ContainsFunc(d.nodes, func(id string) bool { return "node "+id == holder })
}

func describe(raw strictjson.Raw) (d described, err error) {
	kind, err := kindOf(raw)
	if err != nil {
		return d, err
	}
	d.raw = raw
	switch kind {
	case routeType:
		var e routeEntry
		err = strictjson.Unmarshal(raw, &e)
		d.file, d.name, d.nodes = routeFile(e.From, e.To), "route "+e.From+" to "+e.To, []string{e.From, e.To, e.Next}
	case inspectionType:
		var e inspectionEntry
		err = strictjson.Unmarshal(raw, &e)
		one := Inspection{e.Node, e.Link}
		d.file, d.name, d.nodes, d.link = inspectionFile(one), "inspection point "+e.Node, []string{e.Node}, e.Link
		if e.Link != "" {
			d.name += " of link " + e.Link
		}
	case linkType:
		var e linkEntry
		err = strictjson.Unmarshal(raw, &e)
		d.file, d.name, d.nodes, d.rank = linkFile(e.ID), "link "+e.ID, []string{e.A, e.B}, 1
	case agencyType:
		var e agencyEntry
		err = strictjson.Unmarshal(raw, &e)
		d.file, d.name, d.code, d.nodes, d.rank = agencyFile(e.Code), "agency "+e.Code, e.Code, []string{e.Node}, 2
	case nodeType:
		var e nodeEntry
		err = strictjson.Unmarshal(raw, &e)
		d.file, d.name, d.rank = nodeFile(e.ID), "node "+e.ID, 3
	}
	return d, err
}

// Check judges the next version as it would be. One that could not be published
// before may stay so: to take out what is wrong in it is what this is for.
func (r *Removal) Check(now time.Time) error {
	if whole, err := r.judgeDraft(now); err != nil && whole {
		return &Error{Code: codeRequest, Detail: "nothing was changed", Err: err}
	}
	return nil
}

// Commit checks, and makes the change durable. After a crash the same command
// does the rest. What was noted of a node's last request stays.
func (r *Removal) Commit(now time.Time) error {
	if err := r.Check(now); err != nil {
		return err
	}
	return r.write()
}
