package exchange

import (
	"crypto/subtle"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
)

// MaxReceiptCMS and MaxCheckpointCMS bound the signed forms, bytes.
const (
	MaxReceiptCMS    = MaxReceipt + 8<<10
	MaxCheckpointCMS = 4 << 10
)

// Judge says whether whoever signed a receipt may say what it says of this
// envelope: an agency for itself, a node for what happened on it. at is when
// another node than the signer's first received the signature; it, and not
// what the signer claims, decides whether the certificate was valid.
func Judge(d *certs.Directory, e *envelope.Envelope, r *Receipt, s *cms.Signed, at time.Time) error {
	if r.Header != e.Hash || r.Envelope != e.Header.ID || r.Domain != d.Domain() {
		return Fail(CodeSignatureInvalid, "the receipt speaks of another document")
	}
	for _, code := range r.Recipients {
		if !isRecipient(e, code) {
			return Fail(CodeSignatureInvalid, "the receipt names %s, whom the header does not", code)
		}
	}
	if r.Stage == StageExpired && early(e, r) {
		return Fail(CodeSignatureInvalid, "the receipt says EXPIRED before the time that the header names")
	}
	list, err := speaker(d, e, r)
	if err != nil {
		return err
	}
	return CheckSigner(list, s.Certificate, s, at)
}

// early says whether a receipt was made before its document ends.
func early(e *envelope.Envelope, r *Receipt) bool {
	routing, err := ParseRouting(e.Header.Routing)
	return err != nil || r.Time < routing.Expires
}

// Signature is a signed object whose signature can be asked for: whether it
// is by the certificate shown at all, and whether that one may sign.
type Signature interface {
	Holds() bool
	Verify(certificate []byte) error
}

// CheckSigner says whether an object is signed with a certificate (DER) of the
// list that could sign at a time. A signature that does not hold, or by a
// certificate that is not listed, is signature_invalid: damage or forgery. One
// that holds and may not be relied on is a [SignerFault].
func CheckSigner(list []certs.Certificate, der []byte, s Signature, at time.Time) error {
	c := listed(list, der)
	if c == nil {
		return Fail(CodeSignatureInvalid, "the signer's certificate is not in the directory")
	}
	if !s.Holds() {
		return Fail(CodeSignatureInvalid, "the signature does not hold")
	}
	if err := MaySign(c, at); err != nil {
		return err
	}
	if err := s.Verify(c.DER); err != nil {
		return &Error{Code: CodeSignatureInvalid, Err: err}
	}
	return nil
}

// speaker gives the certificates of whoever may say what the receipt says.
func speaker(d *certs.Directory, e *envelope.Envelope, r *Receipt) ([]certs.Certificate, error) {
	if r.Stage == StageConfirmed {
		return operator(d, r)
	}
	if !r.Stage.ByAgency() {
		node, ok := d.Node(r.Node)
		if !ok || !serves(d, e, r) {
			return nil, Fail(CodeSignatureInvalid, "node %s may not say %s here", r.Node, r.Stage)
		}
		return node.Certificates, nil
	}
	agency, ok := d.Agency(r.Agency)
	if !ok || !ownVoice(e, r) {
		return nil, Fail(CodeSignatureInvalid, "agency %s may not say %s here", r.Agency, r.Stage)
	}
	return agency.Certificates, nil
}

// operator gives the certificates of the person who says CONFIRMED: the
// administrator of the directory that the receipt names. No node says it, for no
// node has seen that the document arrived.
func operator(d *certs.Directory, r *Receipt) ([]certs.Certificate, error) {
	if _, ok := d.Node(r.Node); ok && r.Actor != nil && len(r.Recipients) > 0 {
		for _, a := range d.Administrators() {
			if a.ID == r.Actor.Name {
				return a.Certificates, nil
			}
		}
	}
	return nil, Fail(CodeSignatureInvalid, "%s is said by an administrator of the directory, of recipients that it names", r.Stage)
}

// Recipients lists the receiving agencies a header names.
func Recipients(e *envelope.Envelope) []string {
	var out []string
	for _, r := range e.Header.Recipients {
		if r.Role == envelope.RoleRecipient {
			out = append(out, r.Agency)
		}
	}
	return out
}

func isRecipient(e *envelope.Envelope, agency string) bool {
	for _, r := range e.Header.Recipients {
		if r.Agency == agency && r.Role == envelope.RoleRecipient {
			return true
		}
	}
	return false
}

// ownVoice: a receiving agency speaks for itself alone; the sender may void.
func ownVoice(e *envelope.Envelope, r *Receipt) bool {
	if r.Stage == StageVoided {
		return r.Agency == e.Header.Sender
	}
	return len(r.Recipients) == 1 && r.Recipients[0] == r.Agency
}

// serves: ACCEPTED comes from the sender's node, DELIVERED from the node of
// each recipient named.
func serves(d *certs.Directory, e *envelope.Envelope, r *Receipt) bool {
	var agencies []string
	switch r.Stage {
	case StageAccepted:
		agencies = []string{e.Header.Sender}
	case StageDelivered:
		if agencies = r.Recipients; len(agencies) == 0 {
			return false
		}
	}
	for _, code := range agencies {
		a, ok := d.Agency(code)
		if !ok || a.Node != r.Node {
			return false
		}
	}
	return true
}

// ValidSigner says whether der is a signing certificate of the list that is
// valid, and not revoked, at a time.
func ValidSigner(list []certs.Certificate, der []byte, at time.Time) error {
	c := listed(list, der)
	if c == nil {
		return Fail(CodeSignatureInvalid, "the signer's certificate is not in the directory")
	}
	return MaySign(c, at)
}

func listed(list []certs.Certificate, der []byte) *certs.Certificate {
	for i := range list {
		if subtle.ConstantTimeCompare(list[i].DER, der) == 1 {
			return &list[i]
		}
	}
	return nil
}

// MaySign says whether a certificate is one to sign with and valid at a time.
// One that is not valid yet is Temporary: some clock is a little behind.
func MaySign(c *certs.Certificate, at time.Time) error {
	if c.Use != certs.UseSign {
		return Fail(CodeCertificateUsage, "signed with an encryption certificate")
	}
	return ValidAt(c, at)
}

// ValidAt says whether a certificate of any use is valid, and not revoked, at a
// time.
func ValidAt(c *certs.Certificate, at time.Time) error {
	switch {
	case at.Before(c.NotBefore) || at.After(c.NotAfter):
		err := Fail(CodeCertificateExpired, "valid %s to %s", c.NotBefore.Format(time.DateOnly), c.NotAfter.Format(time.DateOnly))
		err.Temporary = at.Before(c.NotBefore)
		return err
	case c.RevokedAt(at):
		return Fail(CodeCertificateRevoked, "revoked since %s (%s)", c.Revoked.Effective.UTC().Format(time.RFC3339), c.Revoked.Reason)
	}
	return nil
}

// SignerFault says whether an error of [CheckSigner] or [Judge] is about a
// signature that holds, under a certificate the directory lists for whoever
// speaks, which has ended, was revoked or is not for signing. Sending such an
// object again helps nobody: it is refused for good, and never damage.
func SignerFault(err error) bool {
	switch CodeOf(err) {
	case CodeCertificateExpired, CodeCertificateRevoked, CodeCertificateUsage:
		return !IsTemporary(err)
	}
	return false
}
