package certs

import (
	"encoding/hex"
	"fmt"
	"regexp"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// The "type" members of the directory format.
const (
	fileType    = "yizhan-directory-file"
	listType    = "yizhan-directory"
	agencyType  = "yizhan-agency"
	nodeType    = "yizhan-node"
	linkType    = "yizhan-link"
	routeType   = "yizhan-route"
	requestType = "yizhan-join-request"
)

// directoryFile is a directory as it lies on disk: the signed list and the
// entries it names, in its order.
type directoryFile struct {
	Type    string           `json:"type"`
	V       int              `json:"v"`
	Crit    []string         `json:"crit,omitempty"`
	List    []byte           `json:"list"`
	Entries []strictjson.Raw `json:"entries"`
	Extra   strictjson.Extra
}

func parseFile(b []byte) (*directoryFile, error) {
	if len(b) > MaxDirectory {
		return nil, fail("directory_content", "%d bytes, at most %d are possible", len(b), MaxDirectory)
	}
	var f directoryFile
	if err := strictjson.Unmarshal(b, &f); err != nil {
		return nil, &Error{Code: "directory_content", Detail: "not a directory file", Err: err}
	}
	if f.Type != fileType || f.V != 1 {
		return nil, fail("directory_content", "not a %s of version 1", fileType)
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
	Succession []byte          `json:"succession,omitempty"` // CMS by the old authority key over the new certificate
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

// anyEntry tells the kind of an entry; kinds unknown here are kept in the file
// and ignored, unless they say that they must be understood.
type anyEntry struct {
	Type  string   `json:"type"`
	V     int      `json:"v"`
	Crit  []string `json:"crit,omitempty"`
	Extra strictjson.Extra
}

var (
	nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	linkForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)
)

func (d *Directory) entry(raw strictjson.Raw, root *smx509.Certificate) error {
	kind, err := kindOf(raw)
	if err != nil {
		return err
	}
	switch kind {
	case agencyType:
		return d.addAgency(raw, root)
	case nodeType:
		return d.addNode(raw, root)
	case linkType:
		return d.addLink(raw)
	case routeType:
		return d.addRoute(raw)
	}
	var e anyEntry
	if err := decode(raw, kind, &e); err != nil {
		return err
	}
	if len(e.Crit) > 0 {
		return fail("directory_content", "an entry that must be understood is not known here")
	}
	return nil
}

func kindOf(raw strictjson.Raw) (string, error) {
	members, err := strictjson.ObjectMembers(raw)
	if err != nil || len(members) < 2 || members[0].Name != "type" || len(members[0].Value) < 2 {
		return "", &Error{Code: "directory_content", Detail: "an entry without type", Err: err}
	}
	v := members[0].Value
	return string(v[1 : len(v)-1]), nil
}

func decode(raw strictjson.Raw, kind string, into any) error {
	if err := strictjson.Unmarshal(raw, into); err != nil {
		return &Error{Code: "directory_content", Detail: kind, Err: err}
	}
	return nil
}

func (d *Directory) addAgency(raw strictjson.Raw, root *smx509.Certificate) error {
	var e agencyEntry
	if err := decode(raw, agencyType, &e); err != nil {
		return err
	}
	if _, err := ParseAgencyCode(e.Code); err != nil {
		return err
	}
	if e.V != 1 || e.Domain != d.list.Domain || e.Name == "" || d.agencies[e.Code] != nil {
		return fail("directory_content", "agency %s: version, domain or name, or it is there twice", e.Code)
	}
	certificates, err := readCerts(e.Certs, root)
	if err != nil {
		return fmt.Errorf("agency %s: %w", e.Code, err)
	}
	d.agencies[e.Code] = &Agency{
		holder: holder{"agency " + e.Code, certificates}, Code: e.Code, Name: e.Name, Aliases: e.Aliases, Node: e.Node,
	}
	return nil
}

func (d *Directory) addNode(raw strictjson.Raw, root *smx509.Certificate) error {
	var e nodeEntry
	if err := decode(raw, nodeType, &e); err != nil {
		return err
	}
	pin, err := hex.DecodeString(e.TLSPin)
	if err != nil || len(pin) != 32 || hex.EncodeToString(pin) != e.TLSPin {
		return fail("directory_content", "node %.40q: tls_pin is not a SHA-256 in hex", e.ID)
	}
	if e.V != 1 || e.Domain != d.list.Domain || !nameForm.MatchString(e.ID) || d.nodes[e.ID] != nil {
		return fail("directory_content", "node %.40q: version, domain or id, or it is there twice", e.ID)
	}
	certificates, err := readCerts(e.Certs, root)
	if err != nil {
		return fmt.Errorf("node %s: %w", e.ID, err)
	}
	d.nodes[e.ID] = &Node{
		holder: holder{"node " + e.ID, certificates}, ID: e.ID, Zone: e.Zone, URL: e.URL, TLSPin: [32]byte(pin),
	}
	return nil
}

func (d *Directory) addLink(raw strictjson.Raw) error {
	var e linkEntry
	if err := decode(raw, linkType, &e); err != nil {
		return err
	}
	if e.V != 1 || e.Domain != d.list.Domain || !linkForm.MatchString(e.ID) || d.links[e.ID] != nil || e.Kind != "https" && e.Kind != "ferry" {
		return fail("directory_content", "link %.70q: version, domain, id or kind, or it is there twice", e.ID)
	}
	l := &Link{ID: e.ID, A: e.A, B: e.B, Dialer: e.Dialer, Kind: e.Kind, Ceiling: e.Ceiling}
	d.links[e.ID] = l
	d.order = append(d.order, l)
	return nil
}

func (d *Directory) addRoute(raw strictjson.Raw) error {
	var e routeEntry
	if err := decode(raw, routeType, &e); err != nil {
		return err
	}
	key := e.From + "\x00" + e.To
	if _, twice := d.routes[key]; e.V != 1 || e.Domain != d.list.Domain || twice {
		return fail("directory_content", "route from %.40q to %.40q: version or domain, or it is there twice", e.From, e.To)
	}
	d.routes[key] = e.Next
	return nil
}

// readCerts verifies the certificates of an entry, newest first.
func readCerts(list []certEntry, root *smx509.Certificate) ([]Certificate, error) {
	if len(list) > 64 {
		return nil, fail("directory_content", "more than 64 certificates")
	}
	var out []Certificate
	for _, e := range list {
		c, err := parseCertificate(e.Use, e.Cert, root)
		if err != nil {
			return nil, err
		}
		out = append(out, *c)
	}
	return out, nil
}
