package certs

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// MaxDirectory bounds a directory file, bytes; 3,000 agencies take about 6 MB.
const MaxDirectory = 64 << 20

// Directory is a verified directory: immutable, indexed, safe for concurrent
// use.
type Directory struct {
	list      list
	raw       []byte
	authority []byte
	id        sm.Digest
	agencies  map[string]*Agency
	sorted    []*Agency
	nodes     map[string]*Node
	links     map[string]*Link
	routes    map[string]string // from node, 00, to node → next node
	order     []*Link
}

// Agency is a body that sends and receives.
type Agency struct {
	holder
	Code    string
	Name    string
	Aliases []string
	Node    string
}

// Node is one gateway. TLSPin is the SHA-256 of its TLS key's
// SubjectPublicKeyInfo.
type Node struct {
	holder
	ID     string
	Zone   string
	URL    string
	TLSPin [32]byte
}

// Link is a pair of neighbouring nodes. Ceiling is the highest label that may
// pass; certs does not interpret it.
type Link struct {
	ID      string
	A, B    string
	Dialer  string
	Kind    string
	Ceiling string
}

// LoadDirectory verifies a directory file under the authority's certificate
// (DER), trusted by other means, and indexes it. A version below atLeast is
// refused. Being past its next update is not an error: see Stale.
func LoadDirectory(file, authority []byte, atLeast uint64, _ time.Time) (*Directory, error) {
	f, err := parseFile(file)
	if err != nil {
		return nil, err
	}
	root, err := smx509.ParseCertificate(authority)
	if err != nil {
		return nil, &Error{Code: "directory_signature", Detail: "the authority's certificate cannot be read", Err: err}
	}
	d := &Directory{
		raw: file, authority: authority, agencies: map[string]*Agency{}, nodes: map[string]*Node{},
		links: map[string]*Link{}, routes: map[string]string{},
	}
	if err := d.openList(f.List, authority); err != nil {
		return nil, err
	}
	if d.list.Version < atLeast {
		return nil, fail("directory_rollback", "version %d is older than %d, which was in force here", d.list.Version, atLeast)
	}
	if err := d.index(f.Entries, root); err != nil {
		return nil, err
	}
	return d, d.check()
}

func (d *Directory) openList(signed, authority []byte) error {
	s, err := cms.Parse(signed, MaxDirectory)
	if err == nil {
		err = s.Verify(authority)
	}
	if err != nil {
		return &Error{Code: "directory_signature", Detail: "not signed by the trusted authority", Err: err}
	}
	if err := strictjson.Unmarshal(s.Content, &d.list); err != nil {
		return &Error{Code: "directory_content", Detail: "list", Err: err}
	}
	if d.list.Type != listType || d.list.V != 1 || d.list.Version == 0 {
		return fail("directory_content", "not a %s of version 1", listType)
	}
	d.id = s.ID()
	return nil
}

// index reads the entries, each of which must be the next one of the list.
func (d *Directory) index(entries []strictjson.Raw, root *smx509.Certificate) error {
	if len(entries) != len(d.list.Entries) {
		return fail("directory_content", "%d entries, the list names %d", len(entries), len(d.list.Entries))
	}
	for i, raw := range entries {
		if sm.Sum(raw) != d.list.Entries[i] {
			return fail("directory_content", "entry %d is not the one the list names", i)
		}
		if err := d.entry(raw, root); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
	}
	d.sorted = make([]*Agency, 0, len(d.agencies))
	for _, a := range d.agencies {
		d.sorted = append(d.sorted, a)
	}
	slices.SortFunc(d.sorted, func(a, b *Agency) int { return strings.Compare(a.Code, b.Code) })
	slices.SortFunc(d.order, func(a, b *Link) int { return strings.Compare(a.ID, b.ID) })
	return nil
}

// check looks at what entries say of one another.
func (d *Directory) check() error {
	for _, a := range d.sorted {
		if d.nodes[a.Node] == nil {
			return fail("directory_content", "agency %s is served by %q, which is no node", a.Code, a.Node)
		}
	}
	for _, l := range d.order {
		if d.nodes[l.A] == nil || d.nodes[l.B] == nil || l.A == l.B || l.Dialer != l.A && l.Dialer != l.B {
			return fail("directory_content", "link %s does not join two nodes of which one dials", l.ID)
		}
	}
	for key, next := range d.routes {
		from, to, _ := strings.Cut(key, "\x00")
		if d.nodes[from] == nil || d.nodes[to] == nil || d.nodes[next] == nil {
			return fail("directory_content", "a route names an unknown node")
		}
	}
	return nil
}

// Domain is the trust domain's name.
func (d *Directory) Domain() string { return d.list.Domain }

// Version rises with every publication.
func (d *Directory) Version() uint64 { return d.list.Version }

// Raw is the directory file.
func (d *Directory) Raw() []byte { return d.raw }

// Authority is the certificate (DER) the directory was verified with.
func (d *Directory) Authority() []byte { return d.authority }

// Issued is when the authority published this version.
func (d *Directory) Issued() time.Time { return d.list.Issued.Time() }

// NextUpdate is by when the authority promised the next version.
func (d *Directory) NextUpdate() time.Time { return d.list.NextUpdate.Time() }

// Stale says whether that time has passed.
func (d *Directory) Stale(now time.Time) bool { return now.After(d.NextUpdate()) }

// Fingerprint is the SM3 of the authority's certificate in groups of four,
// for people to compare over the phone.
func (d *Directory) Fingerprint() string { return Fingerprint(d.authority) }

// Fingerprint is the SM3 of a certificate (DER) in groups of four digits.
func Fingerprint(der []byte) string {
	text := sm.Sum(der).String()
	var groups []string
	for i := 0; i < len(text); i += 4 {
		groups = append(groups, text[i:i+4])
	}
	return strings.Join(groups, " ")
}

// Agency finds an agency by its code.
func (d *Directory) Agency(code string) (*Agency, bool) { a, ok := d.agencies[code]; return a, ok }

// Node finds a node by its id.
func (d *Directory) Node(id string) (*Node, bool) { n, ok := d.nodes[id]; return n, ok }

// Link finds a link by its id.
func (d *Directory) Link(id string) (*Link, bool) { l, ok := d.links[id]; return l, ok }

// Agencies lists all agencies by code; the slice must not be changed.
func (d *Directory) Agencies() []*Agency { return d.sorted }

// LinksOf lists a node's links by id.
func (d *Directory) LinksOf(node string) []*Link {
	var out []*Link
	for _, l := range d.order {
		if l.A == node || l.B == node {
			out = append(out, l)
		}
	}
	return out
}

// LinkBetween finds the link of two nodes.
func (d *Directory) LinkBetween(a, b string) (*Link, bool) {
	for _, l := range d.order {
		if l.A == a && l.B == b || l.A == b && l.B == a {
			return l, true
		}
	}
	return nil, false
}

// Neighbour is the node at the other end of a link.
func (l *Link) Neighbour(node string) string {
	if l.A == node {
		return l.B
	}
	return l.A
}

// NextHop says where something for an agency goes from a node: the node
// itself when it serves the agency, else over a direct link, else where a
// route entry says.
func (d *Directory) NextHop(from, agency string) (*Link, string, error) {
	a, ok := d.agencies[agency]
	if !ok {
		return nil, "", fail("no_route", "agency %s is not in the directory", agency)
	}
	if a.Node == from {
		return nil, from, nil
	}
	next := a.Node
	if _, direct := d.LinkBetween(from, next); !direct {
		if next, ok = d.routes[from+"\x00"+a.Node]; !ok {
			return nil, "", fail("no_route", "no link or route leads from node %s to node %s", from, a.Node)
		}
	}
	link, ok := d.LinkBetween(from, next)
	if !ok {
		return nil, "", fail("no_route", "a route leads from node %s to %s, but there is no link", from, next)
	}
	return link, next, nil
}

// Search finds agencies whose code begins with, or whose name or alias
// contains, the query; an empty query finds all. At most limit, by code.
func (d *Directory) Search(query string, limit int) []*Agency {
	query = strings.ToLower(strings.TrimSpace(query))
	var out []*Agency
	for _, a := range d.sorted {
		if len(out) == limit {
			break
		}
		if a.matches(query) {
			out = append(out, a)
		}
	}
	return out
}

func (a *Agency) matches(query string) bool {
	if strings.HasPrefix(strings.ToLower(a.Code), query) || strings.Contains(strings.ToLower(a.Name), query) {
		return true
	}
	return slices.ContainsFunc(a.Aliases, func(s string) bool { return strings.Contains(strings.ToLower(s), query) })
}
