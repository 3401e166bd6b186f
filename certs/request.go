package certs

import (
	"crypto/ecdsa"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// MaxRequest bounds a join request, bytes.
const MaxRequest = 1 << 20

// Keys make and use private keys.
type Keys interface {
	Generate() (*ecdsa.PublicKey, error)
	Sign(id sm.Digest, msg []byte) ([]byte, error)
}

// NodeSpec describes the node that asks to join. TLSPin is the SHA-256 of its
// TLS key's SubjectPublicKeyInfo.
type NodeSpec struct {
	ID, Zone, URL string
	TLSPin        [32]byte
}

// AgencySpec describes an agency the node serves.
type AgencySpec struct {
	Code    AgencyCode
	Name    string
	Aliases []string
}

// Request is what a node hands to the authority to be admitted: who it is,
// whom it serves, and two public keys for each, every key proving its
// possession by a signature over the SM3 of the request without proofs. One
// about holders that are listed already has signatures by keys that they are
// listed with, too, see [ChangeRequest].
type Request struct {
	Type     string          `json:"type"`
	V        int             `json:"v"`
	Crit     []string        `json:"crit,omitempty"`
	Domain   string          `json:"domain"`
	Node     string          `json:"node"`
	Zone     string          `json:"zone"`
	URL      string          `json:"url,omitempty"`
	TLSPin   string          `json:"tls_pin"`
	Keys     dualKey         `json:"keys"`
	Certs    []certEntry     `json:"certs,omitempty"`
	Agencies []agencyRequest `json:"agencies"`
	Time     strictjson.Time `json:"time"`
	Proofs   [][]byte        `json:"proofs,omitempty"`
	Renews   []renewal       `json:"renews,omitempty"`
	Extra    strictjson.Extra
}

type dualKey struct {
	Sign    []byte `json:"sign"`
	Encrypt []byte `json:"encrypt"`
}

type agencyRequest struct {
	Code    string   `json:"code"`
	Name    string   `json:"name"`
	Aliases []string `json:"aliases,omitempty"`
	Keys    dualKey  `json:"keys"`
	// Certs are for keys that an outside authority certified already.
	Certs []certEntry `json:"certs,omitempty"`
	Extra strictjson.Extra
}

// NewRequest makes fresh keys for a node and its agencies and the request for
// their certificates. What the authority would refuse is refused before a key
// is made.
func NewRequest(keys Keys, domain string, node NodeSpec, agencies []AgencySpec, now time.Time) ([]byte, error) {
	r := &Request{
		Type: requestType, V: 1, Domain: domain, Node: node.ID, Zone: node.Zone, URL: node.URL,
		TLSPin: hex.EncodeToString(node.TLSPin[:]), Time: strictjson.TimeOf(now),
	}
	for _, a := range agencies {
		r.Agencies = append(r.Agencies, agencyRequest{Code: string(a.Code), Name: a.Name, Aliases: a.Aliases})
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	var err error
	if r.Keys, err = newDual(keys); err != nil {
		return nil, err
	}
	for i := range r.Agencies {
		if r.Agencies[i].Keys, err = newDual(keys); err != nil {
			return nil, err
		}
	}
	return r.prove(keys)
}

// entries are what the request asks to have in the directory, without
// certificates.
func (r *Request) entries() (*nodeEntry, []*agencyEntry) {
	node := &nodeEntry{
		Type: nodeType, V: 1, Domain: r.Domain, ID: r.Node, Zone: r.Zone, URL: r.URL, TLSPin: r.TLSPin,
	}
	var agencies []*agencyEntry
	for _, a := range r.Agencies {
		agencies = append(agencies, &agencyEntry{
			Type: agencyType, V: 1, Domain: r.Domain, Code: a.Code, Name: a.Name, Aliases: a.Aliases, Node: r.Node,
		})
	}
	return node, agencies
}

// check refuses what could not stand in a directory.
func (r *Request) check() error {
	if err := checkDomain(r.Domain); err != nil {
		return err
	}
	node, agencies := r.entries()
	if _, err := node.check(); err != nil {
		return asRequest(err)
	}
	seen := map[string]bool{}
	for _, a := range agencies {
		if _, err := ParseAgencyCode(a.Code); err != nil {
			return err
		}
		if err := a.check(); err != nil {
			return asRequest(within("agency "+a.Code, err))
		}
		if seen[a.Code] {
			return fail(codeRequest, "agency %s is there twice", a.Code)
		}
		seen[a.Code] = true
	}
	return nil
}

func checkDomain(s string) error {
	if s == "" || len(s) > 128 || !isText(s) {
		return fail(codeRequest, "a domain's name has 1 to 128 bytes, none of them for control")
	}
	return nil
}

func asRequest(err error) error {
	if e, ok := err.(*Error); ok && e.Code == codeContent {
		return &Error{Code: codeRequest, Detail: e.Detail, Err: e.Err}
	}
	return err
}

func newDual(keys Keys) (dualKey, error) {
	sign, err := keys.Generate()
	if err != nil {
		return dualKey{}, err
	}
	encrypt, err := keys.Generate()
	if err != nil {
		return dualKey{}, err
	}
	return dualKey{sm.PublicKeyBytes(sign), sm.PublicKeyBytes(encrypt)}, nil
}

// publicKeys lists all keys in the order of their proofs.
func (r *Request) publicKeys() [][]byte {
	out := [][]byte{r.Keys.Sign, r.Keys.Encrypt}
	for _, a := range r.Agencies {
		out = append(out, a.Keys.Sign, a.Keys.Encrypt)
	}
	return out
}

// proven is what each key signs: the SM3 of the request without proofs, so
// that a request of thousands of keys is hashed once and not once for each.
func (r *Request) proven() ([]byte, error) {
	bare := *r
	bare.Proofs = nil
	b, err := strictjson.Marshal(&bare)
	if err != nil {
		return nil, err
	}
	sum := sm.Sum(b)
	return sum[:], nil
}

func (r *Request) prove(keys Keys) ([]byte, error) {
	msg, err := r.proven()
	if err != nil {
		return nil, err
	}
	for _, pub := range r.publicKeys() {
		proof, err := keys.Sign(sm.Sum(pub), msg)
		if err != nil {
			return nil, err
		}
		r.Proofs = append(r.Proofs, proof)
	}
	return strictjson.Marshal(r)
}

// ParseRequest reads a request and checks the proofs of possession.
func ParseRequest(b []byte) (*Request, error) {
	if len(b) > MaxRequest {
		return nil, fail(codeRequest, "%d bytes, at most %d are possible", len(b), MaxRequest)
	}
	var r Request
	if err := strictjson.Unmarshal(b, &r); err != nil {
		return nil, &Error{Code: codeRequest, Detail: "not a join request", Err: err}
	}
	if r.Type != requestType || r.V != 1 {
		return nil, fail(codeRequest, "not a %s of version 1", requestType)
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	if err := r.checkProofs(); err != nil {
		return nil, err
	}
	if err := r.checkCerts(); err != nil {
		return nil, err
	}
	if err := r.checkRenews(); err != nil {
		return nil, err
	}
	return &r, nil
}

func (r *Request) checkProofs() error {
	msg, err := r.proven()
	if err != nil {
		return err
	}
	list := r.publicKeys()
	if len(list) != len(r.Proofs) {
		return fail(codeRequest, "%d keys and %d proofs of possession", len(list), len(r.Proofs))
	}
	seen := map[sm.Digest]bool{}
	for i, raw := range list {
		pub, err := sm.ParsePublicKey(raw)
		if err != nil {
			return &Error{Code: codeRequest, Detail: fmt.Sprintf("key %d", i), Err: err}
		}
		if !sm.Verify(pub, msg, r.Proofs[i]) {
			return fail(codeRequest, "key %d does not prove its possession", i)
		}
		if id := sm.Sum(raw); seen[id] {
			return fail(codeRequest, "key %d is there twice: each holder and each use has its own", i)
		} else {
			seen[id] = true
		}
	}
	return nil
}
