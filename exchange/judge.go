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
	list, err := speaker(d, e, r)
	if err != nil {
		return err
	}
	if err := ValidSigner(list, s.Certificate, at); err != nil {
		return err
	}
	if err := s.Verify(s.Certificate); err != nil {
		return &Error{Code: CodeSignatureInvalid, Err: err}
	}
	return nil
}

// speaker gives the certificates of whoever may say what the receipt says.
func speaker(d *certs.Directory, e *envelope.Envelope, r *Receipt) ([]certs.Certificate, error) {
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
// valid at a time.
func ValidSigner(list []certs.Certificate, der []byte, at time.Time) error {
	for _, c := range list {
		if subtle.ConstantTimeCompare(c.DER, der) != 1 {
			continue
		}
		switch {
		case c.Use != "sign":
			return Fail(CodeCertificateUsage, "signed with an encryption certificate")
		case at.Before(c.NotBefore) || at.After(c.NotAfter):
			return Fail(CodeCertificateExpired, "valid %s to %s", c.NotBefore.Format(time.DateOnly), c.NotAfter.Format(time.DateOnly))
		}
		return nil
	}
	return Fail(CodeSignatureInvalid, "the signer's certificate is not in the directory")
}
