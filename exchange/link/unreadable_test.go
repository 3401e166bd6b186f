package link

import (
	"bytes"
	"context"
	"io"
	"slices"
	"testing"

	"github.com/oklog/ulid/v2"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// sealedBy is an envelope from jia's agency to yi's, made by hand, so that the
// sender can be at fault in every way.
type sealedBy struct {
	w       *world
	header  envelope.Header
	slots   [][]byte
	payload []byte
}

func (w *world) sealBy() *sealedBy {
	w.t.Helper()
	from, to := w.agency("jia"), w.agency("yi")
	doc := exchange.Document{
		Sender: from.Code, To: []exchange.Addressee{{Agency: to.Code}},
		Label: exchange.Internal, Kind: exchange.Official, Urgency: exchange.Normal, Title: "关于测试的通知",
	}
	document, err := doc.Marshal()
	w.must(err)
	routing, err := strictjson.Marshal(&exchange.Routing{
		Label: doc.Label, Urgency: doc.Urgency, Kind: doc.Kind,
		Created: strictjson.TimeOf(w.clock), Expires: strictjson.TimeOf(w.clock.Add(exchange.DefaultLife)),
	})
	w.must(err)
	s := &sealedBy{w: w}
	var stored bytes.Buffer
	sealed, err := envelope.Seal(w.ctx, envelope.Plan{
		Domain: "test", ID: ulid.MustNew(ulid.Timestamp(w.clock), w.rand).String(), Sender: doc.Sender, Directory: w.cast.directory.Version(),
		Recipients: []envelope.Recipient{
			{Agency: to.Code, Role: envelope.RoleRecipient, Certificate: w.encryption(to).DER},
			{Agency: from.Code, Role: envelope.RoleSelf, Certificate: w.encryption(from).DER},
		},
		Routing: routing, Document: document,
		Files: func(yield func(envelope.File, error) bool) {
			yield(envelope.File{Role: envelope.RoleBody, Name: "正文.ofd", Type: "application/ofd", Content: bytes.NewReader(make([]byte, 3000))}, nil)
		},
	}, w.signs("jia"), w.clock, w.rand, func(_ context.Context, _ int, r io.Reader) error { _, err := io.Copy(&stored, r); return err })
	w.must(err)
	e, err := envelope.ParseHeader(sealed.Header)
	w.must(err)
	s.header, s.slots, s.payload = e.Header, sealed.Slots, stored.Bytes()
	s.header.Recipients = slices.Clone(s.header.Recipients)
	return s
}

func (w *world) agency(id string) *certs.Agency {
	a, _ := w.cast.directory.Agency(w.cast.agencies[id])
	return a
}

func (w *world) encryption(a *certs.Agency) *certs.Certificate {
	c, err := a.Current(certs.UseEncrypt, w.clock)
	w.must(err)
	return c
}

func (w *world) signs(id string) cms.Signer {
	c, err := w.agency(id).Current(certs.UseSign, w.clock)
	w.must(err)
	return certs.Signer(w.cast.keys[id].WithRandom(w.rand), c)
}

// items are the envelope as the sender signed it, faults included: slots and
// tree are those of the header.
func (s *sealedBy) items() (hash sm.Digest, items []forged) {
	s.w.t.Helper()
	s.header.Recipients[0].Slot = sm.Sum(s.slots[0])
	tree := merkle.NewPayloadHash()
	_, _ = tree.Write(s.payload)
	s.header.Payload.Size, s.header.Payload.Root = int64(len(s.payload)), tree.Sum()
	content, err := strictjson.Marshal(&s.header)
	s.w.must(err)
	header, err := cms.Sign(s.w.signs("jia"), content, s.w.clock)
	s.w.must(err)
	hash = sm.Sum(content)
	con := node.ConsignmentItem{Envelope: hash, Parts: []sm.Digest{tree.Sum()}, Slots: []node.SlotItem{{I: 0, Slot: s.slots[0]}}}
	b, err := con.Marshal()
	s.w.must(err)
	return hash, []forged{
		{node.Item{Kind: node.KindHeader, ID: hash.String(), Digest: sm.Sum(header)}, header},
		{node.Item{Kind: node.KindConsignment, ID: hash.String() + "/" + sm.Sum(b).String(), Digest: sm.Sum(b)}, b},
		{node.Item{Kind: node.KindPart, ID: hash.String() + "/0", Digest: tree.Sum()}, s.payload},
	}
}

// wrapped is a slot for a certificate over some file key.
func (s *sealedBy) wrapped(id string, key []byte) []byte {
	pub, err := s.w.encryption(s.w.agency(id)).PublicKey()
	s.w.must(err)
	slot, err := sm.Encrypt(s.w.rand, pub, key)
	s.w.must(err)
	return slot
}

// TestEveryFailureToOpenIsTheSameOutward: whatever is wrong with slot, key,
// commitment, ciphertext or manifest, the recipient's node answers with one
// and the same REJECTED, and its agency is told of no document.
func TestEveryFailureToOpenIsTheSameOutward(t *testing.T) {
	faults := map[string]func(s *sealedBy){
		"slot for another key":           func(s *sealedBy) { s.slots[0] = s.wrapped("bing", make([]byte, 32)) },
		"the sender's own slot":          func(s *sealedBy) { s.slots[0] = s.slots[1] },
		"slot with another file key":     func(s *sealedBy) { s.slots[0] = s.wrapped("yi", make([]byte, 32)) },
		"slot with a short file key":     func(s *sealedBy) { s.slots[0] = s.wrapped("yi", make([]byte, 31)) },
		"slot with C3 changed":           func(s *sealedBy) { s.slots[0][len(s.slots[0])-40] ^= 1 },
		"slot with C2 changed":           func(s *sealedBy) { s.slots[0][len(s.slots[0])-1] ^= 1 },
		"slot cut":                       func(s *sealedBy) { s.slots[0] = s.slots[0][:len(s.slots[0])-1] },
		"slot that is no ciphertext":     func(s *sealedBy) { s.slots[0] = []byte("slot") },
		"commitment of another key":      func(s *sealedBy) { s.header.Commitment[0] ^= 1 },
		"salt changed":                   func(s *sealedBy) { s.header.Salt[0] ^= 1 },
		"id changed":                     func(s *sealedBy) { s.header.ID = ulid.MustNew(ulid.Timestamp(s.w.clock), s.w.rand).String() },
		"first byte of payload changed":  func(s *sealedBy) { s.payload[0] ^= 1 },
		"tag of payload changed":         func(s *sealedBy) { s.payload[len(s.payload)-1] ^= 0x80 },
		"payload cut":                    func(s *sealedBy) { s.payload = s.payload[:len(s.payload)-1] },
		"payload lengthened":             func(s *sealedBy) { s.payload = append(s.payload, 0) },
		"place of the manifest changed":  func(s *sealedBy) { s.header.Payload.Manifest-- },
		"field commitment of other data": func(s *sealedBy) { s.header.Fields[0] ^= 1 },
	}
	answers := map[string]string{}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			jia, yi := w.pair()
			s := w.sealBy()
			fault(s)
			hash, items := s.items()
			yi.receive(jia.forge(nil, items...))
			if got := yi.outcomes(); !slices.Equal(got, []string{node.Taken, node.Taken, node.Taken}) {
				t.Fatalf("the items are %v: the fault shows before a key is used", got)
			}
			yi.work()
			yi.delivered()
			answers[name] = outward(t, w, yi, hash)
		})
	}
	var first string
	for _, answer := range answers {
		first = answer
	}
	for name, answer := range answers {
		if answer != first {
			t.Errorf("%s is answered with %s, another fault with %s", name, answer, first)
		}
	}
	if len(answers) != len(faults) {
		t.Errorf("%d answers to %d faults", len(answers), len(faults))
	}
	t.Logf("%d ways not to open, one answer: %s", len(faults), first)
}

// outward is all that leaves the recipient's node about the document, without
// what names it or the time.
func outward(t *testing.T, w *world, yi *host, hash sm.Digest) string {
	t.Helper()
	o, _ := yi.next(Answer)
	if o == nil || len(o.outs) != 1 || o.outs[0].Kind != node.KindReceipt {
		t.Fatalf("yi has something else to say than one receipt: %+v", o)
	}
	r, err := o.outs[0].Open(w.ctx)
	w.must(err)
	b, err := io.ReadAll(r)
	w.must(err)
	var item node.ReceiptItem
	w.must(strictjson.Unmarshal(b, &item))
	signed, err := cms.Parse(item.Receipt, exchange.MaxReceiptCMS)
	w.must(err)
	receipt, err := exchange.ParseReceipt(signed.Content)
	w.must(err)
	if receipt.Header != hash || receipt.Stage != exchange.StageRejected || receipt.Reason != exchange.CodeUnreadable || len(item.Detail) > 0 {
		t.Fatalf("answered with %+v", receipt)
	}
	_, err = yi.node.Collect(w.ctx, w.cast.agencies["yi"], receipt.Envelope)
	if exchange.CodeOf(err) != exchange.CodeNotFound {
		t.Errorf("the agency is told: %v", err)
	}
	receipt.Header, receipt.Envelope, receipt.Time = sm.Digest{}, "", 0
	again, err := receipt.Marshal()
	w.must(err)
	return string(again)
}
