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
// possession by a signature over the request without proofs.
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
	Agencies []agencyRequest `json:"agencies"`
	Time     strictjson.Time `json:"time"`
	Proofs   [][]byte        `json:"proofs,omitempty"`
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
	Extra   strictjson.Extra
}

// NewRequest makes fresh keys for a node and its agencies and the request for
// their certificates.
func NewRequest(keys Keys, domain string, node NodeSpec, agencies []AgencySpec, now time.Time) ([]byte, error) {
	r := &Request{
		Type: requestType, V: 1, Domain: domain, Node: node.ID, Zone: node.Zone, URL: node.URL,
		TLSPin: hex.EncodeToString(node.TLSPin[:]), Time: strictjson.TimeOf(now),
	}
	var err error
	if r.Keys, err = newDual(keys); err != nil {
		return nil, err
	}
	for _, a := range agencies {
		entry := agencyRequest{Code: string(a.Code), Name: a.Name, Aliases: a.Aliases}
		if entry.Keys, err = newDual(keys); err != nil {
			return nil, err
		}
		r.Agencies = append(r.Agencies, entry)
	}
	return r.prove(keys)
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

// proven is what each key signs.
func (r *Request) proven() ([]byte, error) {
	bare := *r
	bare.Proofs = nil
	return strictjson.Marshal(&bare)
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
		return nil, fail("request_content", "%d bytes, at most %d are possible", len(b), MaxRequest)
	}
	var r Request
	if err := strictjson.Unmarshal(b, &r); err != nil {
		return nil, &Error{Code: "request_content", Detail: "not a join request", Err: err}
	}
	if r.Type != requestType || r.V != 1 {
		return nil, fail("request_content", "not a %s of version 1", requestType)
	}
	if !nameForm.MatchString(r.Node) {
		return nil, fail("request_content", "a node's name is 1 to 32 of a-z, 0-9 and -, not beginning with -")
	}
	for _, a := range r.Agencies {
		if _, err := ParseAgencyCode(a.Code); err != nil {
			return nil, err
		}
	}
	return &r, r.checkProofs()
}

func (r *Request) checkProofs() error {
	msg, err := r.proven()
	if err != nil {
		return err
	}
	list := r.publicKeys()
	if len(list) != len(r.Proofs) {
		return fail("request_content", "%d keys and %d proofs of possession", len(list), len(r.Proofs))
	}
	for i, raw := range list {
		pub, err := sm.ParsePublicKey(raw)
		if err != nil {
			return &Error{Code: "request_content", Detail: fmt.Sprintf("key %d", i), Err: err}
		}
		if !sm.Verify(pub, msg, r.Proofs[i]) {
			return fail("request_content", "key %d does not prove its possession", i)
		}
	}
	return nil
}
