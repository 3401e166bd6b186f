package certs

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// Route says that what is for agencies of node To goes from node From to its
// neighbour Next.
type Route struct{ From, To, Next string }

// Nodes lists all nodes by id.
func (d *Directory) Nodes() []*Node {
	return slices.SortedFunc(maps.Values(d.nodes), func(a, b *Node) int { return strings.Compare(a.ID, b.ID) })
}

// Links lists all links by id.
func (d *Directory) Links() []*Link { return d.order }

// Routes lists all routes by where they begin and lead to.
func (d *Directory) Routes() []Route {
	var out []Route
	for key, next := range d.routes {
		out = append(out, Route{key.from, key.to, next})
	}
	slices.SortFunc(out, func(a, b Route) int {
		if n := strings.Compare(a.From, b.From); n != 0 {
			return n
		}
		return strings.Compare(a.To, b.To)
	})
	return out
}

// Successions is how often the authority's key was replaced.
func (d *Directory) Successions() int { return len(d.list.Succession) }

// Follows says whether who has a version in force would take this one.
func (d *Directory) Follows(before *Directory) error { return d.follows(before, nil) }

// Former gives the certificates (DER) that the authority had before the one that
// signed this directory, oldest first.
func (d *Directory) Former() [][]byte {
	var out [][]byte
	for _, der := range d.list.Succession {
		if _, old, err := readSuccession(der); err == nil {
			out = append(out, old)
		}
	}
	return out
}

// SignerOf gives the certificate (DER) that a directory file says it is signed
// with. It is for a person to compare its fingerprint, and nothing else: that
// it signed, and that it may be trusted, is for [LoadDirectory] and for that
// person.
func SignerOf(file []byte) ([]byte, error) {
	list, err := SignedList(file)
	if err != nil {
		return nil, err
	}
	s, err := cms.Parse(list, MaxDirectory)
	if err != nil {
		return nil, &Error{Code: codeSignature, Detail: "the list is not signed", Err: err}
	}
	return s.Certificate, nil
}

// Part is one thing that a list names by its hash: an entry, or what the list
// says besides its entries. Two directories that have a part of the same hash
// say the same of it, whatever this program understands of it.
type Part struct {
	Kind    string // a known entry's type without "yizhan-"; else "unknown", "list" or "authority"
	ID      string // what names it among its kind, see [Directory.Parts]
	Hash    sm.Digest
	Members map[string]sm.Digest // of an entry: the SM3 of each member's value
}

// Parts lists what the directory's list covers beside what is asked of the
// directory itself: members of the list that are not known here, if there are
// any, the authority's succession, and every entry. An entry is named by its code,
// id, or its two nodes ("from – to"), a certificate's by the [Fingerprint], a
// revocation by the hex of what it revokes; one of a type that is not known here
// is of kind "unknown", and named by its type and hash.
func (d *Directory) Parts() ([]Part, error) {
	var out []Part
	if len(d.list.Crit)+len(d.list.Extra) > 0 {
		b, err := strictjson.Marshal(&list{Crit: d.list.Crit, Extra: d.list.Extra})
		if err != nil {
			return nil, err
		}
		out = append(out, Part{Kind: "list", Hash: sm.Sum(b)})
	}
	if len(d.list.Succession) > 0 {
		b, err := strictjson.Marshal(&list{Succession: d.list.Succession})
		if err != nil {
			return nil, err
		}
		out = append(out, Part{Kind: "authority", Hash: sm.Sum(b)})
	}
	raw := d.drafted
	if raw == nil && len(d.raw) > 0 {
		f, err := parseFile(d.raw)
		if err != nil {
			return nil, err
		}
		raw = f.Entries
	}
	for _, b := range raw {
		p, err := partOf(b)
		if err != nil {
			return nil, err
		}
		out = append(out, *p)
	}
	return out, nil
}

// partOf describes one entry. What its list of certificates holds beside their
// use and DER is a member of its own.
func partOf(raw strictjson.Raw) (*Part, error) {
	kind, err := kindOf(raw)
	if err != nil {
		return nil, err
	}
	p := &Part{Hash: sm.Sum(raw), Members: map[string]sm.Digest{}}
	members, err := strictjson.ObjectMembers(raw)
	if err != nil {
		return nil, err
	}
	for _, m := range members {
		p.Members[m.Name] = sm.Sum(m.Value)
	}
	var list []certEntry
	if p.Kind, p.ID, list, err = identify(kind, raw); err != nil {
		return nil, err
	}
	for _, c := range list {
		if len(c.Extra) == 0 {
			continue
		}
		extra, err := strictjson.Marshal(&certEntry{Extra: c.Extra})
		if err != nil {
			return nil, err
		}
		p.Members["certs "+sm.Sum(c.Cert).String()] = sm.Sum(extra)
	}
	return p, nil
}

// identify gives the kind of an entry, what names it there, and its
// certificates.
func identify(of string, raw strictjson.Raw) (kind, id string, list []certEntry, err error) {
	kind = strings.TrimPrefix(of, "yizhan-")
	switch of {
	case agencyType:
		var e agencyEntry
		err = strictjson.Unmarshal(raw, &e)
		return kind, e.Code, e.Certs, err
	case nodeType:
		var e nodeEntry
		err = strictjson.Unmarshal(raw, &e)
		return kind, e.ID, e.Certs, err
	case administratorType:
		var e administratorEntry
		err = strictjson.Unmarshal(raw, &e)
		return kind, e.ID, e.Certs, err
	case linkType:
		var e linkEntry
		err = strictjson.Unmarshal(raw, &e)
		return kind, e.ID, nil, err
	case routeType:
		var e routeEntry
		err = strictjson.Unmarshal(raw, &e)
		return kind, e.From + " – " + e.To, nil, err
	case issuerType:
		var e issuerEntry
		err = strictjson.Unmarshal(raw, &e)
		return kind, Fingerprint(e.Cert), nil, err
	case tsaType:
		var e tsaEntry
		err = strictjson.Unmarshal(raw, &e)
		return kind, Fingerprint(e.Cert), nil, err
	case revocationType:
		var e revocationEntry
		err = strictjson.Unmarshal(raw, &e)
		return kind, e.Cert.String(), nil, err
	case inspectionType:
		var e inspectionEntry
		err = strictjson.Unmarshal(raw, &e)
		return kind, e.Node + " – " + cmp.Or(e.Link, "*"), nil, err
	case policyType:
		return kind, "", nil, nil
	}
	return "unknown", fmt.Sprintf("%.40q %s", of, sm.Sum(raw)), nil, nil
}
