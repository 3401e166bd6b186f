package certs

import (
	"bytes"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// admittedDir is where the authority notes, for each node, the request that it
// admitted last.
const admittedDir = "admitted"

const (
	admittedType = "yizhan-admitted"
	maxAdmitted  = 4 << 10 // bytes
	maxAhead     = 24 * time.Hour
)

// admittedNote is that note. It stays when the node is taken out of the
// entries: what was admitted once is not admitted again as something new.
type admittedNote struct {
	Type    string          `json:"type"`
	V       int             `json:"v"`
	Domain  string          `json:"domain"`
	Node    string          `json:"node"`
	Time    strictjson.Time `json:"time"`    // of the request
	Request sm.Digest       `json:"request"` // its SM3, without proofs
	Extra   strictjson.Extra
}

// What an admission does to a holder.
const (
	HolderNew       = "new"       // it was not listed
	HolderRenews    = "renews"    // a key that it is listed with signed the request
	HolderReplaces  = "replaces"  // nothing proves that the request is the holder's
	HolderUnchanged = "unchanged" // its entry stays as it is
)

// HolderChange is what an admission does to one holder.
type HolderChange struct {
	Holder   string    // "node ID" or "agency CODE"
	Action   string    // one of new, renews, replaces, unchanged
	ProvenBy sm.Digest // the listed key that proves a renewal; else zero
	Changes  []string  // members of the entry that are other than before
	Keys     []KeyChange
}

// KeyChange is one use of a holder: what it was listed with last, nil for
// nothing, and what the request leads to.
type KeyChange struct {
	Use      string
	Had, Has *Certificate
}

// Admission is about to change the entries of nodes and agencies as their
// requests ask. Nothing is written before Commit.
type Admission struct {
	// Replace lets a request that nothing proves take the place of a listed
	// holder: an operator made sure of whom it comes from.
	Replace bool
	// Holders is what the requests that were added change, in their order.
	Holders []HolderChange

	*edit
	now   time.Time
	book  *book
	notes map[string]*admittedNote

	refused error // by Add
	checked int   // of Holders
}

// Admission begins one. Certificates that are issued begin at now.
func (a *Authority) Admission(now time.Time) (*Admission, error) {
	b, err := a.book()
	if err != nil {
		return nil, err
	}
	e, err := a.edit()
	if err != nil {
		return nil, err
	}
	return &Admission{edit: e, now: now, book: b, notes: map[string]*admittedNote{}}, nil
}

// Admit issues certificates for a node and its agencies and notes their entries
// for the next publication, if the request is about new holders, or signed by
// the listed ones. See [Admission] for what it does to each of them.
func (a *Authority) Admit(r *Request, now time.Time) error {
	m, err := a.Admission(now)
	if err != nil {
		return err
	}
	if err := m.Add(r); err != nil {
		return err
	}
	return m.Commit()
}

// Add issues certificates for the keys of a request that have none, and keeps
// them and the entries for Commit. A node or an agency that is listed already is
// changed only if one of its listed keys, valid and not revoked, signed the
// request: anybody can name it. What is listed stays listed, because what was
// signed with it must verify with the newest directory, too. A request that is
// older than the last one of its node is refused, and so is an agency that
// another node serves. An admission with a request that was refused is not
// committed.
func (m *Admission) Add(r *Request) error {
	err := m.add(r)
	if m.refused == nil {
		m.refused = err
	}
	return err
}

func (m *Admission) add(r *Request) error {
	if r.Domain != m.a.domain {
		return fail(codeRequest, "the request is for domain %.128q, this is the authority of %.128q", r.Domain, m.a.domain)
	}
	note, err := m.note(r)
	if err != nil {
		return err
	}
	node, agencies := r.entries()
	if err := m.addNode(r, node); err != nil {
		return err
	}
	for i, g := range agencies {
		if err := m.addAgency(r, &r.Agencies[i], g); err != nil {
			return err
		}
	}
	m.notes[r.Node] = note
	return nil
}

// note judges the time of a request and gives what will be noted of it. One
// that lies far ahead would keep the node's next requests out.
func (m *Admission) note(r *Request) (*admittedNote, error) {
	if r.Time.Time().After(m.now.Add(maxAhead)) {
		return nil, fail(codeRequest, "the request of node %s was made at %s, which is still to come: check the clock of the node, and have the request made again", r.Node, moment(r.Time))
	}
	msg, err := r.renewing()
	if err != nil {
		return nil, err
	}
	last, err := m.a.lastAdmitted(r.Node)
	if had := m.notes[r.Node]; had != nil {
		last = had
	}
	if err != nil {
		return nil, err
	}
	if last != nil && r.Time < last.Time {
		return nil, fail(codeRequest, "the request of node %s was made at %s, and one of %s was admitted already: somebody brought an old one again, or the clock of the node is behind: check that, and have the request made anew", r.Node, moment(r.Time), moment(last.Time))
	}
	return &admittedNote{Type: admittedType, V: 1, Domain: m.a.domain, Node: r.Node, Time: r.Time, Request: sm.Sum(msg)}, nil
}

// lastAdmitted reads what was noted of a node; nil for nothing.
func (a *Authority) lastAdmitted(node string) (*admittedNote, error) {
	b, err := durable.ReadFile(durable.OS, filepath.Join(a.dir, admittedDir, node+".json"), maxAdmitted)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var n admittedNote
	if err := strictjson.Unmarshal(b, &n); err != nil || n.Type != admittedType || n.V != 1 || n.Node != node {
		return nil, &Error{Code: codeContent, Detail: filepath.Join(admittedDir, node+".json") + " is not what was noted of this node: restore it", Err: err}
	}
	return &n, nil
}

func (m *Admission) addNode(r *Request, node *nodeEntry) error {
	var had nodeEntry
	if _, err := m.find(nodeFile(node.ID), &had); err != nil {
		return err
	}
	change := HolderChange{Holder: "node " + node.ID}
	if had.ID != "" {
		change.changes([]detail{{"zone", had.Zone == node.Zone}, {"url", had.URL == node.URL}, {"tls_pin", had.TLSPin == node.TLSPin}})
	}
	var err error
	if node.Certs, err = m.dual(node.ID, had.Certs, r.Keys, r.Certs); err != nil {
		return err
	}
	if err := m.judge(r, &change, had.ID != "", had.Certs, node.Certs, r.Keys); err != nil {
		return err
	}
	return m.put(nodeFile(node.ID), node)
}

// addAgency changes the entry of an agency as the request asks for it; what a
// request cannot say (parent, groups, …), or does not (aliases), stays as it
// was. One that was taken out of the entries, and is published still, may move
// to another node.
func (m *Admission) addAgency(r *Request, asked *agencyRequest, g *agencyEntry) error {
	file := agencyFile(g.Code)
	had := *g
	inEntries, err := m.find(file, &had)
	if err != nil {
		return err
	}
	if had.Node != g.Node && inEntries {
		return fail(codeRequest, "agency %s is served by node %s already: if it moves, take it out first, with yizhan ca remove --agency %s", g.Code, had.Node, g.Code)
	}
	next, listed := had, len(had.Certs) > 0
	next.Name, next.Node = g.Name, g.Node
	if len(g.Aliases) > 0 {
		next.Aliases = g.Aliases
	}
	change := HolderChange{Holder: "agency " + g.Code}
	change.changes([]detail{{"name", had.Name == next.Name}, {"aliases", slices.Equal(had.Aliases, next.Aliases)}, {"node", had.Node == next.Node}})
	if next.Certs, err = m.dual(g.Code, had.Certs, asked.Keys, asked.Certs); err != nil {
		return err
	}
	if err := m.judge(r, &change, listed, had.Certs, next.Certs, asked.Keys); err != nil {
		return err
	}
	return m.put(file, &next)
}

// detail is a member of an entry, and whether it stays.
type detail struct {
	name  string
	stays bool
}

func (c *HolderChange) changes(list []detail) {
	for _, m := range list {
		if !m.stays {
			c.Changes = append(c.Changes, m.name)
		}
	}
}

// judge decides whether a request may change a holder, and notes the change.
func (m *Admission) judge(r *Request, c *HolderChange, listed bool, had, has []certEntry, keys dualKey) error {
	before, err := m.book.read(had)
	if err != nil {
		return within(c.Holder, err)
	}
	after, err := m.book.read(has)
	if err != nil {
		return within(c.Holder, err)
	}
	for use, key := range map[string][]byte{UseSign: keys.Sign, UseEncrypt: keys.Encrypt} {
		c.Keys = append(c.Keys, KeyChange{use, newestOf(before, use, nil), newestOf(after, use, key)})
	}
	slices.SortFunc(c.Keys, func(x, y KeyChange) int { return bytes.Compare([]byte(y.Use), []byte(x.Use)) })
	switch {
	case !listed:
		c.Action = HolderNew
	case len(c.Changes) == 0 && len(before) == len(after):
		c.Action = HolderUnchanged
	default:
		c.ProvenBy, err = r.provenBy(c.Holder, before, m.now)
		c.Action = HolderRenews
		if err != nil && m.Replace {
			c.Action, err = HolderReplaces, nil
		}
	}
	m.Holders = append(m.Holders, *c)
	return err
}

// newestOf gives the newest certificate of a use, of a key if one is given.
func newestOf(list []Certificate, use string, key []byte) *Certificate {
	for i := range list {
		if list[i].Use == use && (key == nil || list[i].KeyID == sm.Sum(key)) {
			return &list[i]
		}
	}
	return nil
}

// dual gives a holder's certificates: those it had, and new ones for keys that
// have none yet.
func (m *Admission) dual(name string, had []certEntry, keys dualKey, brought []certEntry) ([]certEntry, error) {
	had, err := m.book.withBrought(name, had, brought)
	if err != nil {
		return nil, err
	}
	var fresh []certEntry
	for _, half := range []struct {
		use   string
		key   []byte
		usage smx509.KeyUsage
	}{{UseSign, keys.Sign, signUsage}, {UseEncrypt, keys.Encrypt, encryptUsage}} {
		pub, err := sm.ParsePublicKey(half.key)
		if err != nil {
			return nil, err
		}
		if err := m.book.unstolen(name, half.use, sm.KeyID(pub)); err != nil {
			return nil, err
		}
		if m.book.standing(had, half.use, sm.KeyID(pub), m.now) != nil {
			continue
		}
		der, err := m.a.certify(name, pub, half.usage, m.now)
		if err != nil {
			return nil, err
		}
		fresh = append(fresh, certEntry{Use: half.use, Cert: der})
	}
	all := append(fresh, had...)
	return all, roomFor(name, len(all))
}

// roomFor refuses more certificates of a holder than a directory may list.
// None is dropped for that: documents of years ago are verified and opened with
// them.
func roomFor(name string, n int) error {
	if n <= maxCertificates {
		return nil
	}
	return fail(codeRequest, "%s would be listed with %d certificates, and %d are possible: none is dropped, because what was signed with the old ones must verify; it goes on with a key that it has, or the authority takes out what was never used, with yizhan ca remove --serial", name, n, maxCertificates)
}

// Check judges the next version as it would be with all that was added, as a
// node judges it, but for the approvals. So no request leaves the authority with
// a draft that nobody would take.
func (m *Admission) Check() error {
	if m.refused != nil {
		return m.refused
	}
	if _, err := m.judgeDraft(m.now); err != nil {
		var e *Error
		if errors.As(err, &e) && e.Code == codeContent {
			return &Error{Code: codeRequest, Detail: "not admitted, and nothing was changed", Err: err}
		}
		return err
	}
	m.checked = len(m.Holders)
	return nil
}

// Commit notes the requests and makes the entries durable, each a file of its
// own, if Check passes. After a crash the same requests are admitted again, and what was done is
// not done twice; an older one is refused from the first file on.
func (m *Admission) Commit() error {
	if m.refused != nil || m.checked != len(m.Holders) {
		if err := m.Check(); err != nil {
			return err
		}
	}
	dir := filepath.Join(m.a.dir, admittedDir)
	if err := durable.OS.MkdirAll(dir); err != nil {
		return err
	}
	for node, note := range m.notes {
		b, err := strictjson.Marshal(note)
		if err != nil {
			return err
		}
		if err := durable.WriteFile(durable.OS, filepath.Join(dir, node+".json"), b); err != nil {
			return err
		}
	}
	return m.write()
}
