package certs

import (
	"bytes"
	"slices"
	"strings"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// Administrator is a person who approves publications.
type Administrator struct {
	Holder
	ID   string
	Name string
}

// Policy says how many distinct administrators must approve a publication.
type Policy struct {
	Approvals int
}

type administratorEntry struct {
	Type   string      `json:"type"`
	V      int         `json:"v"`
	Crit   []string    `json:"crit,omitempty"`
	Domain string      `json:"domain"`
	ID     string      `json:"id"`
	Name   string      `json:"name"`
	Certs  []certEntry `json:"certs"`
	Extra  strictjson.Extra
}

type policyEntry struct {
	Type      string   `json:"type"`
	V         int      `json:"v"`
	Crit      []string `json:"crit,omitempty"`
	Domain    string   `json:"domain"`
	Approvals int      `json:"approvals"`
	Extra     strictjson.Extra
}

func (d *Directory) addAdministrator(raw strictjson.Raw, c *chain) error {
	var e administratorEntry
	if err := d.common(raw, administratorType, &e, &e.V, &e.Domain); err != nil {
		return err
	}
	if err := e.check(); err != nil {
		return err
	}
	if len(d.administrators) >= maxIssuers {
		return fail(codeContent, "more than %d administrators", maxIssuers)
	}
	name := "administrator " + e.ID
	for _, had := range d.administrators {
		if had.ID == e.ID {
			return fail(codeContent, "%s is there twice", name)
		}
	}
	certificates, err := d.certificates(name, e.Certs, c)
	if err != nil {
		return err
	}
	for _, one := range certificates {
		if one.Use != UseSign {
			return fail(codeContent, "%s has a certificate to encrypt with: an administrator only signs", name)
		}
	}
	d.administrators = append(d.administrators, &Administrator{Holder{certificates, name}, e.ID, e.Name})
	return nil
}

func (e *administratorEntry) check() error {
	if !nameForm.MatchString(e.ID) {
		return fail(codeContent, "an administrator's id is 1 to 32 of a-z, 0-9 and -, not beginning with -")
	}
	if e.Name == "" || !isText(e.Name) {
		return fail(codeContent, "administrator %s: a name has 1 to %d characters, none of them for control", e.ID, maxText)
	}
	return nil
}

func (d *Directory) addPolicy(raw strictjson.Raw) error {
	var e policyEntry
	if err := d.common(raw, policyType, &e, &e.V, &e.Domain); err != nil {
		return err
	}
	if d.policy != nil {
		return fail(codeContent, "there are two policies: one counts")
	}
	if e.Approvals < 0 || e.Approvals > maxIssuers {
		return fail(codeContent, "a policy asks for 0 to %d approvals", maxIssuers)
	}
	d.policy = &Policy{Approvals: e.Approvals}
	return nil
}

// checkPolicy refuses a policy that nobody could meet: the next version would
// never be published.
func (d *Directory) checkPolicy() error {
	if n := d.Policy().Approvals; n > len(d.administrators) {
		return fail(codeContent, "the policy asks for %d approvals, and there are %d administrators", n, len(d.administrators))
	}
	return nil
}

// Administrators lists who may approve publications, in the order of the
// directory.
func (d *Directory) Administrators() []*Administrator { return d.administrators }

// Policy gives the policy; without one no approvals are needed.
func (d *Directory) Policy() Policy {
	if d.policy == nil {
		return Policy{}
	}
	return *d.policy
}

// approvalType is the "type" of what an administrator signs to approve a
// publication.
const approvalType = "yizhan-approval"

// approval is signed by an administrator: this list, and no other, may be
// published.
type approval struct {
	Type          string          `json:"type"`
	V             int             `json:"v"`
	Crit          []string        `json:"crit,omitempty"`
	Domain        string          `json:"domain"`
	Version       uint64          `json:"version"`
	List          sm.Digest       `json:"list"` // SM3 of the list's JSON
	Administrator string          `json:"administrator"`
	Time          strictjson.Time `json:"time"`
	Extra         strictjson.Extra
}

// given is an approval that verified under the certificate it carries; whose
// that is, and whether it counts, is asked of a directory.
type given struct {
	approval
	cert []byte
	raw  []byte // the signed object, where it is to be passed on
}

// readApproval reads one signed approval.
func readApproval(der []byte) (*given, error) {
	s, err := cms.Parse(der, maxSmallCMS)
	if err == nil {
		err = s.Verify(s.Certificate)
	}
	if err != nil {
		return nil, &Error{Code: codeApproval, Detail: "an approval is not signed", Err: err}
	}
	g := &given{cert: s.Certificate}
	if err := strictjson.Unmarshal(s.Content, &g.approval); err != nil {
		return nil, &Error{Code: codeApproval, Detail: "an approval cannot be read", Err: err}
	}
	if g.Type != approvalType || g.V != 1 || !nameForm.MatchString(g.Administrator) {
		return nil, fail(codeApproval, "not a %s of version 1", approvalType)
	}
	return g, nil
}

// readApprovals reads the approvals of a directory: each for this very list,
// each administrator's once.
func (d *Directory) readApprovals(list [][]byte) error {
	if len(list) > maxIssuers {
		return fail(codeApproval, "more than %d approvals", maxIssuers)
	}
	for _, der := range list {
		g, err := readApproval(der)
		if err != nil {
			return err
		}
		if g.Domain != d.list.Domain || g.Version != d.list.Version || g.List != d.id {
			return fail(codeApproval, "the approval of %s is for another list", g.Administrator)
		}
		for _, had := range d.approvals {
			if had.Administrator == g.Administrator {
				return fail(codeApproval, "%s approves twice", g.Administrator)
			}
		}
		d.approvals = append(d.approvals, g)
	}
	return nil
}

// approvedBy lists the administrators of a directory, this one or the one
// before it, whose approvals this one carries. A certificate is judged at the
// time at which this one was issued, by both directories and the revocation
// lists that are known: who is revoked in the new one, by himself or with his
// issuer, does not approve it.
func (d *Directory) approvedBy(judge *Directory, known *lists) (approved, missing []string) {
	at := d.Issued()
	ended := d.endings(known, append(judge.authorities(), d.authorities()...))
	for _, a := range judge.administrators {
		ok := slices.ContainsFunc(d.approvals, func(g *given) bool {
			if g.Administrator != a.ID {
				return false
			}
			i := slices.IndexFunc(a.Certificates, func(c Certificate) bool { return bytes.Equal(c.DER, g.cert) })
			if i < 0 {
				return false
			}
			c := a.Certificates[i]
			c.Revoked = earliest(c.Revoked, d.revoked[sm.Sum(c.DER)], ended[c.Issuer], known.find(&c))
			return !at.Before(c.NotBefore) && !at.After(c.NotAfter) && !c.RevokedAt(at)
		})
		if ok {
			approved = append(approved, a.ID)
		} else {
			missing = append(missing, a.ID)
		}
	}
	return approved, missing
}

// approved checks that enough administrators of a directory approve this one
// by that directory's policy.
func (d *Directory) approved(judge *Directory, known []*CRL) error {
	need := judge.Policy().Approvals
	approved, missing := d.approvedBy(judge, listsOf(known))
	if len(approved) >= need {
		return nil
	}
	return fail(codeApproval, "version %d needs the approvals of %d administrators by the policy of version %d and has %d (%s); missing are %d of: %s",
		d.Version(), need, judge.Version(), len(approved), strings.Join(approved, ", "), need-len(approved), strings.Join(missing, ", "))
}
