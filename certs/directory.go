package certs

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// MaxDirectory bounds a directory file, bytes; 3,000 agencies take about 6 MB.
const MaxDirectory = 64 << 20

// Directory is a verified directory: immutable, indexed, safe for concurrent
// use. What its methods give must not be changed.
type Directory struct {
	list      list
	raw       []byte
	authority []byte
	id        sm.Digest
	agencies  map[string]*Agency
	sorted    []*Agency // by code
	nodes     map[string]*Node
	links     map[string]*Link
	order     []*Link // by id
	between   map[pair]*Link
	routes    map[pair]string // (from node, to node or anywhere) → next node
	owners    map[sm.Digest]string
	pins      map[[32]byte]string

	issuers        []*Issuer
	revoked        map[sm.Digest]*Revocation // by the SM3 of the certificate
	ended          map[IssuerID]*Revocation  // what a revoked issuer issued
	tsas           []*TSA
	administrators []*Administrator
	inspections    map[Inspection]bool
	policy         *Policy
	approvals      []*given

	words func() map[string]map[string][]*Agency // see wording; made when it is first needed

	drafted []strictjson.Raw // the entries of a draft, which has no file yet
}

// pair is two nodes.
type pair struct{ from, to string }

// Agency is a body that sends and receives. Parent and Successor are codes of
// other agencies of the directory; Branch is one of four, see [BranchName].
// From and Until bound the time in which it exists, zero for no bound, see
// [Agency.ExistsAt].
type Agency struct {
	Holder
	Code      string
	Name      string
	Aliases   []string
	Node      string
	Parent    string
	Branch    string
	Groups    []string
	Successor string
	From      strictjson.Time
	Until     strictjson.Time
}

// Node is one gateway. TLSPin is the SHA-256 of its TLS key's
// SubjectPublicKeyInfo; all zero for a node without one.
type Node struct {
	Holder
	ID     string
	Zone   string
	URL    string
	TLSPin [32]byte
}

// Link is a pair of neighbouring nodes. Ceiling is the highest label that may
// pass; certs does not interpret it. OneWay is the node that sends, on a link over
// which nothing can come back; empty: both do.
type Link struct {
	ID      string
	A, B    string
	Dialer  string
	Kind    string
	Ceiling string
	OneWay  string
}

// Carries says whether something can leave from a node over the link.
func (l *Link) Carries(from string) bool { return l.OneWay == "" || l.OneWay == from }

// oneWayFault says why a link cannot have one way only as it says; empty when it
// can.
func (l *Link) oneWayFault() string {
	switch {
	case l.OneWay == "":
		return ""
	case l.OneWay != l.A && l.OneWay != l.B:
		return "who sends over a link of one way is one of its two nodes"
	case l.Kind != "ferry":
		return "over https there is always a way back; a link of one way is of kind ferry"
	}
	return ""
}

// LoadDirectory verifies a directory file under a certificate (DER) of the
// authority, trusted by other means, and indexes it. A list that an heir of
// that certificate signed is followed, see [Directory.Authority]. A version
// below atLeast is refused with ErrRollback, and one that its own policy does
// not permit with ErrApproval. Being past its next update is not an error here,
// see Stale, and neither is an expired certificate, see [Holder.Current]: what
// verified once verifies for ever.
func LoadDirectory(file, authority []byte, atLeast uint64, _ time.Time) (*Directory, error) {
	f, err := parseFile(file)
	if err != nil {
		return nil, err
	}
	d, err := openList(f.List, authority)
	if err != nil {
		return nil, err
	}
	c, err := newChain(d.authority)
	if err != nil {
		return nil, err
	}
	d.raw = bytes.Clone(file)
	if d.list.Version < atLeast {
		return nil, fail(codeRollback, "version %d is older than version %d, which was in force here: get the newest from the authority", d.list.Version, atLeast)
	}
	if err := d.matches(f.Entries); err != nil {
		return nil, err
	}
	if err := d.index(f.Entries, c); err != nil {
		return nil, err
	}
	if err := d.readApprovals(f.Approvals); err != nil {
		return nil, err
	}
	if err := d.approved(d, nil); err != nil {
		return nil, err
	}
	return d, nil
}

func newDirectory() *Directory {
	d := &Directory{
		agencies: map[string]*Agency{}, nodes: map[string]*Node{}, links: map[string]*Link{},
		between: map[pair]*Link{}, routes: map[pair]string{},
		owners: map[sm.Digest]string{}, pins: map[[32]byte]string{},
		revoked: map[sm.Digest]*Revocation{}, ended: map[IssuerID]*Revocation{}, inspections: map[Inspection]bool{},
	}
	d.words = sync.OnceValue(d.wording)
	return d
}

// openList reads a signed list under a trusted certificate of the authority,
// or under the heir to which the list's succession leads from it. Where the
// signer is not the trusted one, the succession is read before the signature
// is verified; nothing else of the list is used until then.
func openList(signed, authority []byte) (*Directory, error) {
	if _, err := readCA(authority, "the authority's certificate"); err != nil {
		return nil, err
	}
	stranger := func(err error) error {
		return &Error{Code: codeSignature, Detail: "the list is not signed by the trusted authority", Err: err}
	}
	s, err := cms.Parse(signed, MaxDirectory)
	if err != nil {
		return nil, stranger(err)
	}
	d := newDirectory()
	same := bytes.Equal(s.Certificate, authority)
	if same {
		err = s.Verify(authority)
	}
	if err != nil {
		return nil, stranger(err)
	}
	if err := strictjson.Unmarshal(s.Content, &d.list); err != nil {
		if !same {
			return nil, stranger(nil)
		}
		return nil, &Error{Code: codeContent, Detail: "list", Err: err}
	}
	if err := follow(d.list.Succession, authority, s.Certificate); err != nil {
		return nil, err
	}
	if !same {
		err = s.Verify(s.Certificate)
	}
	if err != nil {
		return nil, stranger(err)
	}
	if d.list.Type != listType || d.list.V != 1 || d.list.Version == 0 {
		return nil, fail(codeContent, "not a %s of version 1", listType)
	}
	d.authority, d.id = bytes.Clone(s.Certificate), s.ID()
	return d, nil
}

// matches checks that the entries are those of the list: each there, each
// once, in its order.
func (d *Directory) matches(entries []strictjson.Raw) error {
	if len(entries) > maxEntries {
		return fail(codeContent, "%d entries, at most %d are possible", len(entries), maxEntries)
	}
	if len(entries) != len(d.list.Entries) {
		return fail(codeContent, "%d entries, the list names %d", len(entries), len(d.list.Entries))
	}
	seen := map[sm.Digest]bool{}
	for i, raw := range entries {
		id := sm.Sum(raw)
		if id != d.list.Entries[i] {
			return fail(codeContent, "entry %d is not the one the list names", i)
		}
		if seen[id] {
			return fail(codeContent, "entry %d is there twice", i)
		}
		seen[id] = true
	}
	return nil
}

// index reads the entries and checks what they say of one another.
func (d *Directory) index(entries []strictjson.Raw, c *chain) error {
	if err := d.readEntries(entries, c); err != nil {
		return err
	}
	if err := d.checkPolicy(); err != nil {
		return err
	}
	d.sorted = slices.SortedFunc(maps.Values(d.agencies), func(a, b *Agency) int { return strings.Compare(a.Code, b.Code) })
	d.order = slices.SortedFunc(maps.Values(d.links), func(a, b *Link) int { return strings.Compare(a.ID, b.ID) })
	for _, a := range d.sorted {
		if d.nodes[a.Node] == nil {
			return fail(codeContent, "agency %s is served by %.40q, which is no node of the directory", a.Code, a.Node)
		}
	}
	if err := d.checkPlaces(); err != nil {
		return err
	}
	if err := d.joinLinks(); err != nil {
		return err
	}
	if err := d.checkInspections(); err != nil {
		return err
	}
	return d.checkRoutes()
}

// readEntries reads revocations first, then issuers, then all others, each in
// the order of the list.
func (d *Directory) readEntries(entries []strictjson.Raw, c *chain) error {
	kinds := make([]string, len(entries))
	for i, raw := range entries {
		var err error
		if kinds[i], err = kindOf(raw); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
	}
	for now := passRevocations; now <= passRest; now++ {
		for i, raw := range entries {
			if passOf(kinds[i]) != now {
				continue
			}
			if err := d.entry(kinds[i], raw, c); err != nil {
				return fmt.Errorf("entry %d: %w", i, err)
			}
		}
	}
	return nil
}

func (d *Directory) joinLinks() error {
	for _, l := range d.order {
		if d.nodes[l.A] == nil || d.nodes[l.B] == nil {
			return fail(codeContent, "link %s joins %.40q and %.40q, and not both are nodes of the directory", l.ID, l.A, l.B)
		}
		if l.A == l.B || l.Dialer != l.A && l.Dialer != l.B {
			return fail(codeContent, "link %s does not join two nodes of which one dials", l.ID)
		}
		for _, p := range []pair{{l.A, l.B}, {l.B, l.A}} {
			if d.between[p] == nil && l.Carries(p.from) {
				d.between[p] = l
			}
		}
	}
	return nil
}

// anywhere as the target of a route stands for all nodes to which neither a
// link nor another route leads.
const anywhere = "*"

// checkRoutes refuses routes over what is not there, and such that lead in a
// circle: a document would be relayed until it expires. A circle has a route
// to its target in it, or consists of default routes alone.
func (d *Directory) checkRoutes() error {
	for key, next := range d.routes {
		if d.nodes[key.from] == nil || d.nodes[key.to] == nil && key.to != anywhere || key.from == key.to {
			return fail(codeContent, "the route from %.40q to %.40q does not join two nodes of the directory", key.from, key.to)
		}
		if d.between[pair{key.from, next}] == nil {
			return fail(codeContent, "the route from node %s to node %s goes over %.40q, to which no link leads", key.from, key.to, next)
		}
		at := key.from
		for range d.nodes {
			if at = d.step(at, key.to); at == "" || at == key.to {
				break
			}
		}
		if at != "" && at != key.to {
			return fail(codeContent, "the route from node %s to node %s leads in a circle", key.from, key.to)
		}
	}
	return nil
}

// step is the node after one on the way to another; empty when none leads on.
func (d *Directory) step(from, to string) string {
	if d.between[pair{from, to}] != nil {
		return to
	}
	if next, ok := d.routes[pair{from, to}]; ok {
		return next
	}
	return d.routes[pair{from, anywhere}]
}

// Domain is the trust domain's name.
func (d *Directory) Domain() string { return d.list.Domain }

// ID names this version: the SM3 of its signed list.
func (d *Directory) ID() sm.Digest { return d.id }

// Version rises with every publication.
func (d *Directory) Version() uint64 { return d.list.Version }

// Raw is the directory file.
func (d *Directory) Raw() []byte { return d.raw }

// Authority is the certificate (DER) that signed the directory: the trusted
// one, or the heir to which the succession leads from it.
func (d *Directory) Authority() []byte { return d.authority }

// Approvals lists who approved this version, by what they signed; whether they
// are its administrators is another matter.
func (d *Directory) Approvals() []string {
	var out []string
	for _, g := range d.approvals {
		out = append(out, g.Administrator)
	}
	return out
}

// Issued is when the authority published this version.
func (d *Directory) Issued() time.Time { return d.list.Issued.Time() }

// NextUpdate is by when the authority promised the next version.
func (d *Directory) NextUpdate() time.Time { return d.list.NextUpdate.Time() }

// Stale says whether that time has passed. A stale directory is shown, and
// used: agencies go on exchanging documents while the authority is away.
func (d *Directory) Stale(now time.Time) bool { return now.After(d.NextUpdate()) }

// Fresh gives an error of class ErrStale, to be shown, if the directory is
// stale.
func (d *Directory) Fresh(now time.Time) error {
	if !d.Stale(now) {
		return nil
	}
	return fail(codeStale, "version %d should have been replaced by %s: get the newest from the authority", d.Version(), day(d.NextUpdate()))
}

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

// Agencies lists all agencies by code.
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

// LinkBetween finds the link over which something passes from one node to
// another; of several, the first by id.
func (d *Directory) LinkBetween(a, b string) (*Link, bool) {
	l, ok := d.between[pair{a, b}]
	return l, ok
}

// Neighbour is the node at the other end of a link.
func (l *Link) Neighbour(node string) string {
	if l.A == node {
		return l.B
	}
	return l.A
}

// NextHop says where something for an agency goes from a node: the node
// itself, with no link, when it serves the agency; else over a direct link;
// else where a route entry says; else ErrNoRoute.
func (d *Directory) NextHop(from, agency string) (*Link, string, error) {
	a, ok := d.agencies[agency]
	if !ok {
		return nil, "", fail(codeNoRoute, "agency %.40q is not in the directory", agency)
	}
	if a.Node == from {
		return nil, from, nil
	}
	next := d.step(from, a.Node)
	link, ok := d.LinkBetween(from, next)
	if !ok {
		return nil, "", fail(codeNoRoute, "no link or route leads from node %s to node %s: the authority adds one", from, a.Node)
	}
	return link, next, nil
}

// Search finds agencies whose code, name or one of whose aliases contains the
// query; an empty query finds all. At most limit, by code; a negative limit is
// none.
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
	has := func(s string) bool { return strings.Contains(strings.ToLower(s), query) }
	return has(a.Code) || has(a.Name) || slices.ContainsFunc(a.Aliases, has)
}
