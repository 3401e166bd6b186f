package sim

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// attack does what a dishonest neighbour or sender might. What it must not
// achieve is checked on the spot or by the promises at the end.
func (w *world) attack() {
	if !w.faults.armed || len(w.docs) == 0 {
		return
	}
	d := w.docs[w.rng.IntN(len(w.docs))]
	to := w.hosts[1-indexOf(w.hosts, d.host)]
	if d.id == "" {
		return
	}
	w.roomy = true // a full node turns away everything, whatever it is
	defer func() { w.roomy = false }()
	switch w.rng.IntN(8) {
	case 0:
		w.guarded(to, func() { w.secondHeader(d, to) })
	case 1:
		w.guarded(to, func() { w.otherSlots(d, to) })
	case 2:
		w.guarded(to, func() { w.forgedHeader(d, to) })
	case 3:
		w.guarded(to, func() { w.stolenPayload(d, to) })
	case 4:
		w.guarded(to, func() { w.stolenKey(d.host, to) })
	case 5:
		w.guarded(d.host, func() { w.stolenVoice(d) })
	default:
		w.guarded(to, func() { w.wrongDirectory(to) })
	}
}

func (w *world) link() string { return w.pairs[0].link }

// intake hands an item to a node as its neighbour would.
func (w *world) intake(to *host, it node.Item, body []byte) (node.Outcome, bool) {
	it.Size = int64(len(body))
	if it.Kind != node.KindPart {
		it.Digest = sm.Sum(body)
	}
	out, err := to.node.Intake(w.ctx, w.link(), it, bytes.NewReader(body))
	w.tolerate(err, "intake")
	w.stats.Attacks++
	w.note("attack on %s: %s is %s %s", to.id, it.Kind, out.Status, out.Reason)
	return out, err == nil
}

// signer signs with the newest of an agency's certificates that its node
// knows, whether or not it may use it any more.
func (w *world) signer(h *host, agency string) (cms.Signer, *certs.Agency) {
	a, ok := h.shelf.Current().Agency(agency)
	if !ok {
		w.fail("agency %s is not in the directory", agency)
	}
	for i := range a.Certificates {
		if a.Certificates[i].Use == certs.UseSign {
			return certs.Signer(w.cast.keys[h.id].WithRandom(w.stream), &a.Certificates[i]), a
		}
	}
	w.fail("agency %s has no certificate to sign with", agency)
	return nil, nil
}

// mayBeRefused says whether a host refuses what is signed with a certificate
// now, because it is revoked.
func (w *world) mayBeRefused(to *host, der []byte) bool {
	return w.cast.revoked[sm.Sum(der)] && !w.clock.Before(w.cast.effective) && to.version() >= versionRevoked
}

// secondHeader: a sender signs another document under an id it has used. Once
// the first is in an inbox the second must be refused as a conflict, not taken
// and not passed off as a duplicate.
func (w *world) secondHeader(d *submission, to *host) {
	recipient := ""
	for _, r := range d.recipients {
		if w.hostOf(r) == to && w.inboxCount(r, d.id) > 0 {
			recipient = r
		}
	}
	if recipient == "" {
		return
	}
	signer, sender := w.signer(d.host, d.sender)
	receiver, _ := d.host.shelf.Current().Agency(recipient)
	plan := envelope.Plan{
		Domain: w.cast.directory.Domain(), ID: d.id, Sender: d.sender, Directory: d.host.version(),
		Routing: w.routing(), Document: strictjson.Raw(`{"title":"another"}`), Files: oneFile([]byte("another body")),
	}
	sealed := w.seal(plan, receiver, sender, signer, w.clock)
	if w.mayBeRefused(to, signer.Certificate()) {
		return
	}
	out, ok := w.intake(to, node.Item{Kind: node.KindHeader, ID: sealed.Hash.String()}, sealed.Header)
	if ok && plan.Directory > to.version() && out.Status == node.Postponed {
		return // whose it is will be found out then, and the id is taken
	}
	if ok && (out.Status != node.Refused || out.Reason != exchange.CodeConflict) {
		w.fail("I2: a second header under id %s was %s %s, not refused as a conflict", d.id, out.Status, out.Reason)
	}
}

// seal makes an envelope whose payload goes nowhere.
func (w *world) seal(plan envelope.Plan, receiver, sender *certs.Agency, signer cms.Signer, at time.Time) *envelope.Sealed {
	for _, r := range []struct {
		agency *certs.Agency
		role   envelope.Role
	}{{receiver, envelope.RoleRecipient}, {sender, envelope.RoleSelf}} {
		cert, err := r.agency.Current(certs.UseEncrypt, w.clock)
		w.must(err, "certificate")
		plan.Recipients = append(plan.Recipients, envelope.Recipient{Agency: r.agency.Code, Role: r.role, Certificate: cert.DER})
	}
	discard := func(_ context.Context, _ int, r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }
	sealed, err := envelope.Seal(w.ctx, plan, signer, at, w.stream, discard)
	w.must(err, "seal")
	return sealed
}

func (w *world) routing() strictjson.Raw {
	raw, err := strictjson.Marshal(&exchange.Routing{
		Label: exchange.Internal, Urgency: exchange.Normal, Kind: exchange.Official,
		Created: strictjson.TimeOf(w.clock), Expires: strictjson.TimeOf(w.clock.Add(exchange.DefaultLife)),
	})
	w.must(err, "routing")
	return raw
}

func oneFile(content []byte) iter.Seq2[envelope.File, error] {
	return func(yield func(envelope.File, error) bool) {
		yield(envelope.File{Role: envelope.RoleBody, Name: "body.ofd", Type: "application/ofd", Content: bytes.NewReader(content)}, nil)
	}
}

// stolen is what travels of a document, as a neighbour sees it.
type stolen struct {
	header *envelope.Envelope
	cms    []byte
	slots  *node.ConsignmentItem
	parts  [][]byte
}

// steal reads what waits on the sender's node for the link.
func (w *world) steal(d *submission) *stolen {
	s := new(stolen)
	quiet := w.faults.armed
	w.faults.armed = false
	defer func() { w.faults.armed = quiet }()
	outs, err := d.host.node.Outgoing(w.ctx, w.link(), 1<<20, 100)
	w.must(err, "outgoing")
	for _, o := range outs {
		r, err := o.Open(w.ctx)
		w.must(err, "open")
		b, err := io.ReadAll(r)
		w.must(err, "read")
		switch o.Kind {
		case node.KindHeader:
			if s.header != nil {
				return s // only the first document in the lane
			}
			s.cms = b
			s.header, err = envelope.ParseHeader(b)
		case node.KindConsignment, node.KindPart:
			if s.header == nil || !strings.HasPrefix(o.ID, s.header.Hash.String()) {
				continue
			}
			if o.Kind == node.KindPart {
				s.parts = append(s.parts, b)
			} else {
				s.slots, err = node.ParseConsignment(b)
			}
		}
		w.must(err, "parse")
	}
	return s
}

// otherSlots: a neighbour puts a slot of its own in the place of one the
// sender signed for.
func (w *world) otherSlots(d *submission, to *host) {
	s := w.steal(d)
	if s.header == nil || s.slots == nil {
		return
	}
	if _, ok := w.intake(to, node.Item{Kind: node.KindHeader, ID: s.header.Hash.String()}, s.cms); !ok {
		return
	}
	cert := w.encryptionCert(s.header.Header.Recipients[s.slots.Slots[0].I].Agency)
	slot, err := envelope.SealDetail(w.stream, cert, nil, []byte("not the file key"))
	w.must(err, "slot")
	s.slots.Slots[0].Slot = slot[:min(len(slot), 200)]
	b, err := s.slots.Marshal()
	w.must(err, "marshal")
	out, ok := w.intake(to, node.Item{Kind: node.KindConsignment, ID: s.header.Hash.String() + "/" + sm.Sum(b).String()}, b)
	if ok && out.Status != node.Damaged {
		w.fail("I6: a slot the sender did not sign for was %s", out.Status)
	}
}

func (w *world) encryptionCert(agency string) []byte {
	a, ok := w.cast.directory.Agency(agency)
	if !ok {
		w.fail("agency %s is not in the directory", agency)
	}
	cert, err := a.Current(certs.UseEncrypt, w.clock)
	w.must(err, "certificate")
	return cert.DER
}

// stolenPayload: another agency signs a header of its own around slots and
// payload it stole. Nothing of it may reach an inbox; checkNothingElse would
// find it there.
func (w *world) stolenPayload(d *submission, to *host) {
	s := w.steal(d)
	if s.header == nil || s.slots == nil || len(s.parts) != len(s.slots.Parts) {
		return
	}
	thief := w.cast.agencies[d.host.id][0]
	if thief == s.header.Header.Sender {
		thief = w.cast.agencies[d.host.id][1]
	}
	h := s.header.Header
	h.Sender, h.ID = thief, otherID(h.ID)
	h.Recipients = append([]envelope.Slot{}, h.Recipients...)
	h.Recipients[len(h.Recipients)-1].Agency = thief
	for _, r := range h.Recipients[:len(h.Recipients)-1] {
		if r.Agency == thief {
			return
		}
	}
	content, err := strictjson.Marshal(&h)
	w.must(err, "header")
	signer, _ := w.signer(d.host, thief)
	signed, err := cms.Sign(signer, content, w.clock)
	w.must(err, "sign")
	hh := sm.Sum(content)
	s.slots.Envelope = hh
	slots, err := s.slots.Marshal()
	w.must(err, "slots")
	digests := s.slots.Parts
	w.intake(to, node.Item{Kind: node.KindHeader, ID: hh.String()}, signed)
	w.intake(to, node.Item{Kind: node.KindConsignment, ID: hh.String() + "/" + sm.Sum(slots).String()}, slots)
	for i, b := range s.parts {
		w.intake(to, node.Item{Kind: node.KindPart, ID: fmt.Sprintf("%s/%d", hh, i), Digest: digests[i]}, b)
	}
}

// forger shows a certificate whose key it does not have.
type forger struct {
	cms.Signer
	certificate []byte
}

func (f forger) Certificate() []byte { return f.certificate }

// forgedHeader: a neighbour changes whom a header names and shows the sender's
// certificate with a signature of its own. It is a link fault, never taken.
// Under a directory that is not here yet nobody can tell, so that it is also
// tried under the id of the document itself, which must arrive all the same.
func (w *world) forgedHeader(d *submission, to *host) {
	s := w.steal(d)
	if s.header == nil {
		return
	}
	h := s.header.Header
	if w.rng.IntN(2) == 0 {
		h.ID = otherID(h.ID)
	} else {
		h.Directory = to.version() + uint64(w.rng.IntN(3))
	}
	h.Recipients = append([]envelope.Slot{}, h.Recipients[len(h.Recipients)-2:]...)
	content, err := strictjson.Marshal(&h)
	w.must(err, "header")
	if sm.Sum(content) == s.header.Hash {
		return // the neighbour would only spoil what it carries itself
	}
	other, _ := w.signer(d.host, w.cast.agencies[d.host.id][w.rng.IntN(2)])
	if bytes.Equal(other.Certificate(), s.header.SignerCertificate()) {
		return
	}
	signed, err := cms.Sign(forger{other, s.header.SignerCertificate()}, content, w.clock)
	w.must(err, "forge")
	out, ok := w.intake(to, node.Item{Kind: node.KindHeader, ID: sm.Sum(content).String()}, signed)
	hh := sm.Sum(content)
	waits := h.Directory > to.version() && (out.Status == node.Postponed || out.Status == node.Duplicate)
	if waits {
		w.postponed[hh] = true
	}
	// Its directory may have come, and the work not have got to it.
	waits = waits || out.Status == node.Duplicate && w.postponed[hh]
	if ok && out.Status != node.Damaged && !waits {
		w.fail("I2: a forged header was %s %s", out.Status, out.Reason)
	}
	if ok && waits {
		w.stats.Waiting++
	}
}

// otherID changes the random end of an id.
func otherID(id string) string {
	b := []byte(id)
	if b[25] == 'A' {
		b[25] = 'B'
	} else {
		b[25] = 'A'
	}
	return string(b)
}
