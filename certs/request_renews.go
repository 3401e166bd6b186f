package certs

import (
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// renewal is what a holder that is listed says of a request about it: the
// signature of a key with which it is listed.
type renewal struct {
	Holder    string    `json:"holder"` // "node ID" or "agency CODE"
	Key       sm.Digest `json:"key"`    // SM3 of the listed public key
	Signature []byte    `json:"signature"`
	Extra     strictjson.Extra
}

// renewsContext begins what a renewal signs: a signature that proves a key's
// possession is never one of these.
const renewsContext = "yizhan/v1/renews"

const maxSignature = 128 // bytes of an SM2 signature in DER

// renewing is what a listed key signs: the SM3 of the request without proofs
// and renewals, after their context.
func (r *Request) renewing() ([]byte, error) {
	bare := *r
	bare.Proofs, bare.Renews = nil, nil
	b, err := strictjson.Marshal(&bare)
	if err != nil {
		return nil, err
	}
	sum := sm.Sum(b)
	return append([]byte(renewsContext), sum[:]...), nil
}

// signingKeys are the new public keys to sign with, by holder.
func (r *Request) signingKeys() map[string][]byte {
	out := map[string][]byte{"node " + r.Node: r.Keys.Sign}
	for _, a := range r.Agencies {
		out["agency "+a.Code] = a.Keys.Sign
	}
	return out
}

// RequestKey is a public key that a request asks to have listed.
type RequestKey struct {
	Holder string // "node ID" or "agency CODE"
	Use    string
	Key    sm.Digest
}

// RequestKeys lists them, for people to compare with what the authority sees.
func (r *Request) RequestKeys() []RequestKey {
	out := []RequestKey{{"node " + r.Node, UseSign, sm.Sum(r.Keys.Sign)}, {"node " + r.Node, UseEncrypt, sm.Sum(r.Keys.Encrypt)}}
	for _, a := range r.Agencies {
		out = append(out, RequestKey{"agency " + a.Code, UseSign, sm.Sum(a.Keys.Sign)}, RequestKey{"agency " + a.Code, UseEncrypt, sm.Sum(a.Keys.Encrypt)})
	}
	return out
}

// renew signs with the newest listed key of each holder that counts and is
// here. Who keeps its signing key needs none: that key proves its possession.
func (r *Request) renew(keys Keys, holders []*Holder, now time.Time) error {
	msg, err := r.renewing()
	if err != nil {
		return err
	}
	want := r.signingKeys()
	for _, h := range holders {
		c := h.voucher(keys, now)
		if c == nil || c.KeyID == sm.Sum(want[h.name]) {
			continue
		}
		signature, err := keys.Sign(c.KeyID, msg)
		if err != nil {
			return err
		}
		r.Renews = append(r.Renews, renewal{Holder: h.name, Key: c.KeyID, Signature: signature})
	}
	return nil
}

// voucher gives the newest signing certificate that speaks for the holder at a
// time and whose key is here; nil if there is none.
func (h *Holder) voucher(keys Keys, now time.Time) *Certificate {
	here, ok := keys.(interface{ Has(sm.Digest) bool })
	for i := range h.Certificates {
		if c := &h.Certificates[i]; c.vouches(now) && (!ok || here.Has(c.KeyID)) {
			return c
		}
	}
	return nil
}

// vouches says whether the certificate's key may speak for its holder to the
// authority: it signs, is valid, and was not revoked. A key that is known to be
// in other hands does not vouch, from whenever its revocation counts.
func (c *Certificate) vouches(now time.Time) bool {
	if c.Use != UseSign || now.Before(c.NotBefore) || now.After(c.NotAfter) {
		return false
	}
	return c.Revoked == nil || !c.RevokedAt(now) && c.Revoked.Reason != ReasonKeyCompromise
}

// checkRenews refuses what no authority could take for a proof. Whether it is
// one is for the authority, which knows the keys, see [Admission.Add].
func (r *Request) checkRenews() error {
	holders := r.signingKeys()
	if len(r.Renews) > len(holders) {
		return fail(codeRequest, "%d renewals for %d holders", len(r.Renews), len(holders))
	}
	for i, one := range r.Renews {
		if holders[one.Holder] == nil {
			return fail(codeRequest, "renewal %d is for a holder that the request does not name, or that has one already", i)
		}
		delete(holders, one.Holder)
		if one.Key.IsZero() || len(one.Signature) == 0 || len(one.Signature) > maxSignature {
			return fail(codeRequest, "renewal %d lacks a key or a signature", i)
		}
	}
	return nil
}

// provenBy gives the key that proves that a request comes from a holder: one of
// those it is listed with, which it keeps or which signed the request.
func (r *Request) provenBy(holder string, listed []Certificate, now time.Time) (sm.Digest, error) {
	msg, err := r.renewing()
	if err != nil {
		return sm.Digest{}, err
	}
	keeps := sm.Sum(r.signingKeys()[holder])
	for i := range listed {
		c := &listed[i]
		if !c.vouches(now) {
			continue
		}
		if c.KeyID == keeps {
			return c.KeyID, nil
		}
		for _, one := range r.Renews {
			if one.Holder != holder || one.Key != c.KeyID {
				continue
			}
			pub, err := c.PublicKey()
			if err != nil {
				return sm.Digest{}, err
			}
			if !sm.Verify(pub, msg, one.Signature) {
				return sm.Digest{}, fail(codeUnproven, "%s: the signature of the key that it is listed with does not verify: somebody changed the request, or made it up", holder)
			}
			return c.KeyID, nil
		}
	}
	return sm.Digest{}, fail(codeUnproven, "%s is listed already, and no valid key that it is listed with signed this request", holder)
}

// Unproven names the holders that a directory lists and for whom none of their
// keys signed the request: an authority admits it only when its operator says
// that keys are replaced.
func (r *Request) Unproven(d *Directory, now time.Time) []string {
	var holders []*Holder
	if n, ok := d.Node(r.Node); ok {
		holders = append(holders, &n.Holder)
	}
	for _, asked := range r.Agencies {
		if a, ok := d.Agency(asked.Code); ok {
			holders = append(holders, &a.Holder)
		}
	}
	var out []string
	for _, h := range holders {
		if _, err := r.provenBy(h.name, h.Certificates, now); err != nil {
			out = append(out, h.name)
		}
	}
	return out
}
