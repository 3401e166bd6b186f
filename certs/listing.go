package certs

import (
	"maps"
	"slices"
	"strings"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
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
