package certs

import (
	"encoding/hex"
	"net/url"
	"regexp"
	"slices"
	"unicode"
	"unicode/utf8"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// The "type" members of the directory format. Entries of types unknown here
// are kept byte for byte.
const (
	fileType          = "yizhan-directory-file"
	listType          = "yizhan-directory"
	agencyType        = "yizhan-agency"
	nodeType          = "yizhan-node"
	linkType          = "yizhan-link"
	routeType         = "yizhan-route"
	issuerType        = "yizhan-issuer"
	revocationType    = "yizhan-revocation"
	tsaType           = "yizhan-tsa"
	inspectionType    = "yizhan-inspection"
	administratorType = "yizhan-administrator"
	policyType        = "yizhan-policy"
	requestType       = "yizhan-join-request"
)

// Bounds of what an entry may hold.
const (
	maxEntry        = 1 << 20 // bytes
	maxCertificates = 64
	maxAliases      = 64
	maxText         = 500 // characters of a name
)

// directoryFile is a directory as it lies on disk: the signed list and the
// entries it names, in its order.
type directoryFile struct {
	Type      string           `json:"type"`
	V         int              `json:"v"`
	Crit      []string         `json:"crit,omitempty"`
	List      []byte           `json:"list"`
	Approvals [][]byte         `json:"approvals,omitempty"` // signed by administrators
	Entries   []strictjson.Raw `json:"entries"`
	Extra     strictjson.Extra
}

func parseFile(b []byte) (*directoryFile, error) {
	if len(b) > MaxDirectory {
		return nil, fail(codeContent, "%d bytes, at most %d are possible", len(b), MaxDirectory)
	}
	var f directoryFile
	if err := strictjson.Unmarshal(b, &f); err != nil {
		return nil, &Error{Code: codeContent, Detail: "not a directory file", Err: err}
	}
	if f.Type != fileType || f.V != 1 {
		return nil, fail(codeContent, "not a %s of version 1", fileType)
	}
	return &f, nil
}

// list is what the authority signs: the SM3 of every entry, so that an update
// is the list and the entries that changed.
type list struct {
	Type       string          `json:"type"`
	V          int             `json:"v"`
	Crit       []string        `json:"crit,omitempty"`
	Domain     string          `json:"domain"`
	Version    uint64          `json:"version"`
	Previous   sm.Digest       `json:"previous"` // SM3 of the list before; zero for the first
	Issued     strictjson.Time `json:"issued"`
	NextUpdate strictjson.Time `json:"next_update"`
	Entries    []sm.Digest     `json:"entries"`
	Succession [][]byte        `json:"succession,omitempty"` // oldest first: CMS by a certificate of the authority over the next
	Extra      strictjson.Extra
}

type certEntry struct {
	Use   string `json:"use"`
	Cert  []byte `json:"cert"`
	Extra strictjson.Extra
}

type agencyEntry struct {
	Type      string          `json:"type"`
	V         int             `json:"v"`
	Crit      []string        `json:"crit,omitempty"`
	Domain    string          `json:"domain"`
	Code      string          `json:"code"`
	Name      string          `json:"name"`
	Aliases   []string        `json:"aliases,omitempty"`
	Parent    string          `json:"parent,omitempty"`
	Branch    string          `json:"branch,omitempty"`
	Groups    []string        `json:"groups,omitempty"`
	Node      string          `json:"node"`
	From      strictjson.Time `json:"from,omitempty"`
	Until     strictjson.Time `json:"until,omitempty"`
	Successor string          `json:"successor,omitempty"`
	Certs     []certEntry     `json:"certs"`
	Extra     strictjson.Extra
}

type nodeEntry struct {
	Type   string      `json:"type"`
	V      int         `json:"v"`
	Crit   []string    `json:"crit,omitempty"`
	Domain string      `json:"domain"`
	ID     string      `json:"id"`
	Zone   string      `json:"zone"`
	URL    string      `json:"url,omitempty"`
	TLSPin string      `json:"tls_pin"` // SHA-256 of the SubjectPublicKeyInfo, hex
	Certs  []certEntry `json:"certs"`
	Extra  strictjson.Extra
}

type linkEntry struct {
	Type    string   `json:"type"`
	V       int      `json:"v"`
	Crit    []string `json:"crit,omitempty"`
	Domain  string   `json:"domain"`
	ID      string   `json:"id"`
	A       string   `json:"a"`
	B       string   `json:"b"`
	Dialer  string   `json:"dialer"`
	Kind    string   `json:"kind"`
	Ceiling string   `json:"ceiling"`
	OneWay  string   `json:"oneway,omitempty"` // the node that sends; named in crit
	Extra   strictjson.Extra
}

type routeEntry struct {
	Type   string   `json:"type"`
	V      int      `json:"v"`
	Crit   []string `json:"crit,omitempty"`
	Domain string   `json:"domain"`
	From   string   `json:"from"`
	To     string   `json:"to"`
	Next   string   `json:"next"`
	Extra  strictjson.Extra
}

var (
	nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	linkForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)
)

// pass says when an entry is read: what certificates are judged by comes
// before the certificates.
type pass int

const (
	passRevocations pass = iota
	passIssuers
	passRest
)

func passOf(kind string) pass {
	switch kind {
	case revocationType:
		return passRevocations
	case issuerType:
		return passIssuers
	}
	return passRest
}

// entry reads one entry of a kind into the index; one of an unknown kind is
// kept in the file as it is.
func (d *Directory) entry(kind string, raw strictjson.Raw, c *chain) error {
	switch kind {
	case agencyType:
		return d.addAgency(raw, c)
	case nodeType:
		return d.addNode(raw, c)
	case linkType:
		return d.addLink(raw)
	case routeType:
		return d.addRoute(raw)
	case issuerType:
		return d.addIssuer(raw, c)
	case revocationType:
		return d.addRevocation(raw, c)
	case tsaType:
		return d.addTSA(raw)
	case inspectionType:
		return d.addInspection(raw)
	case administratorType:
		return d.addAdministrator(raw, c)
	case policyType:
		return d.addPolicy(raw)
	}
	return nil
}

// kindOf gives the type of an entry. One of an unknown type that says that
// some of it must be understood is refused.
func kindOf(raw strictjson.Raw) (kind string, err error) {
	if len(raw) > maxEntry {
		return "", fail(codeContent, "%d bytes, at most %d are possible", len(raw), maxEntry)
	}
	bad := fail(codeContent, "an entry begins with type, v and perhaps crit")
	members, err := strictjson.ObjectMembers(raw)
	if err != nil || len(members) < 2 || members[0].Name != "type" || members[1].Name != "v" {
		bad.Err = err
		return "", bad
	}
	var v int
	if strictjson.Unmarshal(members[0].Value, &kind) != nil || strictjson.Unmarshal(members[1].Value, &v) != nil {
		return "", bad
	}
	switch kind {
	case agencyType, nodeType, linkType, routeType,
		issuerType, revocationType, tsaType, inspectionType, administratorType, policyType:
		return kind, nil
	}
	for _, m := range members {
		if m.Name == "crit" {
			return "", fail(codeContent, "an entry of type %.40q must be understood and is not known here: upgrade this program", kind)
		}
	}
	return kind, nil
}

// common are the members that all known entries share.
func (d *Directory) common(raw strictjson.Raw, kind string, into any, v *int, domain *string) error {
	if err := strictjson.Unmarshal(raw, into); err != nil {
		return &Error{Code: codeContent, Detail: kind, Err: err}
	}
	if *v != 1 {
		return fail(codeContent, "%s of version %d is not known here: upgrade this program", kind, *v)
	}
	if *domain != d.list.Domain {
		return fail(codeContent, "%s of another domain", kind)
	}
	return nil
}

func (d *Directory) addAgency(raw strictjson.Raw, c *chain) error {
	var e agencyEntry
	if err := d.common(raw, agencyType, &e, &e.V, &e.Domain); err != nil {
		return err
	}
	if _, err := ParseAgencyCode(e.Code); err != nil {
		return err
	}
	name := "agency " + e.Code
	if err := e.check(); err != nil {
		return within(name, err)
	}
	if d.agencies[e.Code] != nil {
		return fail(codeContent, "%s is there twice", name)
	}
	certificates, err := d.certificates(name, e.Certs, c)
	if err != nil {
		return err
	}
	d.agencies[e.Code] = &Agency{
		Holder: Holder{certificates, name}, Code: e.Code, Name: e.Name, Aliases: e.Aliases, Node: e.Node,
		Parent: e.Parent, Branch: e.Branch, Groups: e.Groups, Successor: e.Successor,
		From: e.From, Until: e.Until,
	}
	return nil
}

func (e *agencyEntry) check() error {
	if e.Name == "" || !isText(e.Name) {
		return fail(codeContent, "a name has 1 to %d characters, none of them for control", maxText)
	}
	if len(e.Aliases) > maxAliases || len(e.Groups) > maxAliases {
		return fail(codeContent, "more than %d aliases or groups", maxAliases)
	}
	for _, s := range append(append([]string{e.Parent, e.Branch, e.Successor}, e.Aliases...), e.Groups...) {
		if !isText(s) {
			return fail(codeContent, "an alias, group, parent, branch or successor has at most %d characters, none of them for control", maxText)
		}
	}
	return e.checkPlace()
}

func isText(s string) bool {
	if utf8.RuneCountInString(s) > maxText {
		return false
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return false
		}
	}
	return true
}

func (d *Directory) addNode(raw strictjson.Raw, c *chain) error {
	var e nodeEntry
	if err := d.common(raw, nodeType, &e, &e.V, &e.Domain); err != nil {
		return err
	}
	pin, err := e.check()
	if err != nil {
		return err
	}
	name := "node " + e.ID
	if d.nodes[e.ID] != nil {
		return fail(codeContent, "%s is there twice", name)
	}
	// No TLS key has a pin of zeros: it stands for none.
	if other, taken := d.pins[pin]; taken && pin != [32]byte{} {
		return fail(codeContent, "%s has the TLS key of node %s", name, other)
	}
	certificates, err := d.certificates(name, e.Certs, c)
	if err != nil {
		return err
	}
	d.pins[pin] = e.ID
	d.nodes[e.ID] = &Node{Holder: Holder{certificates, name}, ID: e.ID, Zone: e.Zone, URL: e.URL, TLSPin: pin}
	return nil
}

// check looks at what a node says of itself and gives its TLS pin.
func (e *nodeEntry) check() (pin [32]byte, err error) {
	if !nameForm.MatchString(e.ID) {
		return pin, fail(codeContent, "a node's id is 1 to 32 of a-z, 0-9 and -, not beginning with -")
	}
	if !isText(e.Zone) {
		return pin, fail(codeContent, "node %s: a zone has at most %d characters, none of them for control", e.ID, maxText)
	}
	if e.URL != "" {
		u, err := url.Parse(e.URL)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return pin, fail(codeContent, "node %s: its URL is not like https://host:port/path", e.ID)
		}
	}
	b, err := hex.DecodeString(e.TLSPin)
	if err != nil || len(b) != len(pin) || hex.EncodeToString(b) != e.TLSPin {
		return pin, fail(codeContent, "node %s: tls_pin is not a SHA-256 in 64 lower-case hex digits", e.ID)
	}
	return [32]byte(b), nil
}

func (d *Directory) addLink(raw strictjson.Raw) error {
	var e linkEntry
	if err := d.common(raw, linkType, &e, &e.V, &e.Domain); err != nil {
		return err
	}
	if !linkForm.MatchString(e.ID) {
		return fail(codeContent, "a link's id is 1 to 64 of a-z, 0-9 and -, not beginning with -")
	}
	if d.links[e.ID] != nil {
		return fail(codeContent, "link %s is there twice", e.ID)
	}
	if e.Kind != "https" && e.Kind != "ferry" {
		return fail(codeContent, "link %s is of kind %.20q: there are https and ferry", e.ID, e.Kind)
	}
	l := &Link{ID: e.ID, A: e.A, B: e.B, Dialer: e.Dialer, Kind: e.Kind, Ceiling: e.Ceiling, OneWay: e.OneWay}
	// A program that does not know the member would wait for answers for ever: so
	// it must be critical.
	if (e.OneWay != "") != slices.Contains(e.Crit, "oneway") {
		return fail(codeContent, "link %s: oneway is there exactly if crit names it", e.ID)
	}
	if why := l.oneWayFault(); why != "" {
		return fail(codeContent, "link %s: %s", e.ID, why)
	}
	d.links[e.ID] = l
	return nil
}

func (d *Directory) addRoute(raw strictjson.Raw) error {
	var e routeEntry
	if err := d.common(raw, routeType, &e, &e.V, &e.Domain); err != nil {
		return err
	}
	key := pair{e.From, e.To}
	if _, twice := d.routes[key]; twice {
		return fail(codeContent, "the route from node %.40q to node %.40q is there twice", e.From, e.To)
	}
	d.routes[key] = e.Next
	return nil
}

// certificates reads the certificates of a holder and marks those that are
// revoked, by themselves or with their issuer.
func (d *Directory) certificates(name string, list []certEntry, c *chain) ([]Certificate, error) {
	out, err := c.read(list)
	if err != nil {
		return nil, within(name, err)
	}
	for i := range out {
		one := &out[i]
		if err := d.owns(name, one); err != nil {
			return nil, err
		}
		one.Revoked = d.ended[one.Issuer]
		if len(d.revoked) > 0 {
			one.Revoked = earliest(one.Revoked, d.revoked[sm.Sum(one.DER)])
		}
	}
	return out, nil
}

// owns notes whose a certificate's key is. A key belongs to one holder and one
// use: who signs with another's key would speak in its name.
func (d *Directory) owns(name string, c *Certificate) error {
	owner := name + ", " + c.Use
	if had, taken := d.owners[c.KeyID]; taken && had != owner {
		return fail(codeContent, "%s has the same key as %s", owner, had)
	}
	d.owners[c.KeyID] = owner
	return nil
}

// within puts the name of an object before the detail of an error.
func within(name string, err error) error {
	e, ok := err.(*Error)
	if !ok {
		return &Error{Code: codeContent, Detail: name, Err: err}
	}
	return &Error{Code: e.Code, Detail: name + ": " + e.Detail, Err: e.Err}
}
