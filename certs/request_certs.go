package certs

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// Imported are the certificates that an outside authority issued to an agency:
// the one to sign with, and perhaps the one to encrypt with.
type Imported struct {
	Sign, Encrypt []byte // DER; Encrypt may be empty
}

// Change says what a request about a node that is in the directory already
// asks for. What it does not name keeps its keys.
type Change struct {
	RenewNode  bool                // new keys for the node itself
	Renew      []string            // agencies that get new keys
	Imported   map[string]Imported // agencies with certificates of an outside authority, by code
	ImportNode *Imported           // the same for the node itself
}

// ChangeRequest makes the join request of a node that is in a directory
// already: it tells again who the node is, with new keys, or with certificates
// that others issued, where the change asks for them. The node goes on with
// what it has until the authority has published the change.
//
// For each holder with a new signing key the request is signed with the one
// that it is listed with, if that is valid and its key is here: so the authority
// knows it from a request by somebody else. Without that, because keys were lost
// for instance, the authority's operator has to say that keys are replaced.
//
// New keys are durable when it returns; those of a request that is never
// admitted stay unused.
func ChangeRequest(keys Keys, d *Directory, node string, change Change, now time.Time) ([]byte, error) {
	n, ok := d.Node(node)
	if !ok {
		return nil, fail(codeRequest, "node %.40q is not in the directory: it asks to join", node)
	}
	r := &Request{
		Type: requestType, V: 1, Domain: d.Domain(), Node: n.ID, Zone: n.Zone, URL: n.URL,
		TLSPin: fmt.Sprintf("%x", n.TLSPin), Time: strictjson.TimeOf(now),
	}
	var err error
	if r.Keys, r.Certs, err = holderKeys(keys, &n.Holder, change.RenewNode, change.ImportNode); err != nil {
		return nil, err
	}
	holders := []*Holder{&n.Holder}
	for _, code := range change.agencies() {
		a, ok := d.Agency(code)
		if !ok || a.Node != n.ID {
			return nil, fail(codeRequest, "agency %.40q is not one that node %s serves", code, n.ID)
		}
		one := agencyRequest{Code: a.Code, Name: a.Name, Aliases: a.Aliases}
		var brought *Imported
		if i, ok := change.Imported[code]; ok {
			brought = &i
		}
		if one.Keys, one.Certs, err = holderKeys(keys, &a.Holder, slices.Contains(change.Renew, code), brought); err != nil {
			return nil, err
		}
		r.Agencies = append(r.Agencies, one)
		holders = append(holders, &a.Holder)
	}
	if r.Agencies == nil {
		r.Agencies = []agencyRequest{}
	}
	if err := r.renew(keys, holders, now); err != nil {
		return nil, err
	}
	return r.prove(keys)
}

// agencies are those that the change names, each once, in the order of codes.
func (c *Change) agencies() []string {
	list := slices.Clone(c.Renew)
	for code := range c.Imported {
		list = append(list, code)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// holderKeys gives the public keys of a holder for a request: those of brought
// certificates, new ones, or those it has.
func holderKeys(keys Keys, h *Holder, renew bool, brought *Imported) (out dualKey, certs []certEntry, err error) {
	if renew {
		if out, err = newDual(keys); err != nil {
			return out, nil, err
		}
	}
	for _, half := range []struct {
		use string
		key *[]byte
	}{{UseSign, &out.Sign}, {UseEncrypt, &out.Encrypt}} {
		der := brought.of(half.use)
		switch {
		case len(der) > 0:
			certs = append(certs, certEntry{Use: half.use, Cert: der})
		case renew:
			continue
		default:
			c, err := h.newest(half.use)
			if err != nil {
				return out, nil, err
			}
			der = c.DER
		}
		c, err := Describe(der)
		if err != nil {
			return out, nil, err
		}
		pub, err := c.PublicKey()
		if err != nil {
			return out, nil, err
		}
		*half.key = sm.PublicKeyBytes(pub)
	}
	return out, certs, nil
}

func (i *Imported) of(use string) []byte {
	if i == nil {
		return nil
	}
	if use == UseSign {
		return i.Sign
	}
	return i.Encrypt
}

// newest gives the newest certificate of a use, valid or not: renewing what has
// expired is what a request is for.
func (h *Holder) newest(use string) (*Certificate, error) {
	for i := range h.Certificates {
		if h.Certificates[i].Use == use {
			return &h.Certificates[i], nil
		}
	}
	return nil, fail(codeUsage, "%s has no certificate to %s with", h.name, use)
}

// checkCerts checks that certificates that come with a request are for its
// keys. Who issued them is the authority's to judge, see Admit.
func (r *Request) checkCerts() error {
	if err := checkBrought("node "+r.Node, r.Keys, r.Certs); err != nil {
		return err
	}
	for _, a := range r.Agencies {
		if err := checkBrought("agency "+a.Code, a.Keys, a.Certs); err != nil {
			return err
		}
	}
	return nil
}

func checkBrought(name string, keys dualKey, list []certEntry) error {
	seen := map[string]bool{}
	for _, e := range list {
		c, err := Describe(e.Cert)
		if err != nil {
			return within(name, err)
		}
		pub, err := c.PublicKey()
		if err != nil {
			return within(name, err)
		}
		want := keys.Sign
		if e.Use == UseEncrypt {
			want = keys.Encrypt
		}
		if e.Use != UseSign && e.Use != UseEncrypt || seen[e.Use] {
			return fail(codeRequest, "%s: one certificate for each use, sign and encrypt, is possible", name)
		}
		if !bytes.Equal(sm.PublicKeyBytes(pub), want) {
			return fail(codeRequest, "%s: certificate %s is not for the key to %s with of this request", name, c.Serial, e.Use)
		}
		seen[e.Use] = true
	}
	return nil
}

func issuerFile(id sm.Digest) string { return "issuer-" + id.String() }

// AddIssuer notes, for the next publication, that certificates count that an
// outside CA (its certificate, DER) issues directly. crl and ocsp are where it
// speaks of their revocation; empty for nowhere. The same certificate again
// replaces the URLs.
func (a *Authority) AddIssuer(der []byte, crl, ocsp string) error {
	if bytes.Equal(der, a.cert.Raw) {
		return fail(codeRequest, "the authority itself need not be named")
	}
	e := issuerEntry{Type: issuerType, V: 1, Domain: a.domain, Cert: der, CRL: crl, OCSP: ocsp}
	if _, err := e.check(); err != nil {
		return asRequest(err)
	}
	return a.putEntry(issuerFile(sm.Sum(der)), &e)
}
