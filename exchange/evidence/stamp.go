package evidence

import (
	"errors"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/crypto/timestamp"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// VerifyStamp checks a timestamp token over a signed checkpoint (the SM3 of
// its CMS) against the timestamp authorities of a directory and gives the time
// it proves: then, at the latest, the checkpoint was signed.
func VerifyStamp(d *certs.Directory, checkpoint, token []byte) (time.Time, error) {
	t, err := timestamp.Parse(token)
	if err != nil {
		return time.Time{}, refused(err)
	}
	if t.Imprint != sm.Sum(checkpoint) {
		return time.Time{}, exchange.Fail(exchange.CodeSignatureInvalid, "the timestamp is of something else")
	}
	list := d.TSAs()
	if len(list) == 0 {
		return time.Time{}, exchange.Fail(exchange.CodeSignatureInvalid, "the directory names no timestamp authority: the domain's authority adds one")
	}
	for _, tsa := range list {
		if err = t.Verify(tsa.Certificate.DER); errors.Is(err, timestamp.ErrSigner) {
			continue // perhaps of another one
		}
		if c := &tsa.Certificate; err == nil && !c.MayStamp(t.Time) {
			why := "later tokens do not count"
			if c.Revoked.Compromised {
				why = "its key may be in other hands, and no token of it counts, whatever its time"
			}
			return time.Time{}, exchange.Fail(exchange.CodeCertificateRevoked, "the timestamp authority's certificate is revoked since %s (%s): %s",
				c.Revoked.Effective.UTC().Format(time.RFC3339), c.Revoked.Reason, why)
		}
		break
	}
	if err != nil {
		return time.Time{}, refused(err)
	}
	return t.Time, nil
}

func refused(err error) error {
	return &exchange.Error{Code: exchange.CodeSignatureInvalid, Detail: "timestamp", Err: err}
}

// StampSkew is how much later than the token's time a receipt may be said to
// have been received, although the token covers it: clocks differ.
const StampSkew = 5 * time.Minute

// stamp verifies the token over the checkpoint, when there is one. The zero
// time means that there is none that holds.
func (v *verifier) stamp() (at time.Time) {
	if len(v.f.Timestamp) == 0 {
		v.r.TimePending = len(v.d.TSAs()) > 0
		return at
	}
	at, err := VerifyStamp(v.d, v.f.Checkpoint, v.f.Timestamp)
	if err != nil {
		v.r.problem("timestamp: %v", err)
		return time.Time{}
	}
	if text, err := strictjson.TimeOf(at).MarshalText(); err == nil {
		v.r.Timestamp = string(text)
	}
	for i := range v.f.Receipts {
		if v.f.Receipts[i].Seen.Time().After(at.Add(StampSkew)) {
			v.r.problem("timestamp: receipt %d is said to have been received after the time that the token proves", i)
		}
	}
	return at
}

// checkpointSigner judges the node's certificate at the time that the token
// proves; without one there is only the checkpoint's own word.
func (v *verifier) checkpointSigner(signed *cms.Signed, cp *merkle.Checkpoint, stamped time.Time) error {
	node, ok := v.d.Node(cp.Node)
	if !ok || !node.Holds("sign", signed.Certificate) {
		return exchange.Fail(exchange.CodeSignatureInvalid, "not signed by node %s", cp.Node)
	}
	at := stamped
	if at.IsZero() {
		at = cp.Time.Time()
	}
	return exchange.ValidSigner(node.Certificates, signed.Certificate, at)
}

// headerTime is when the header's signature counts as made: the earliest time
// that a verified receipt of another node than the sender's own names; when no
// other node says anything, that of ACCEPTED. The zero time means that nothing
// here says when.
func (v *verifier) headerTime(good []*exchange.Receipt) time.Time {
	home := ""
	if a, ok := v.d.Agency(v.e.Header.Sender); ok {
		home = a.Node
	}
	var others, accepted time.Time
	for _, r := range good {
		at := r.Time.Time()
		switch {
		case r.Stage == exchange.StageAccepted:
			accepted = at
		case r.Node != home && (others.IsZero() || at.Before(others)):
			others = at
		}
	}
	if others.IsZero() {
		return accepted
	}
	return others
}

// headerSigner judges the sender's certificate at that time.
func (v *verifier) headerSigner(good []*exchange.Receipt) {
	at := v.headerTime(good)
	if at.IsZero() || !v.headerSigned {
		return // without a receipt that verifies the file proves nothing anyway
	}
	sender, _ := v.d.Agency(v.e.Header.Sender)
	if err := exchange.ValidSigner(sender.Certificates, v.e.SignerCertificate(), at); err != nil {
		v.r.problem("header: %v", err)
	}
}
