package evidence

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// The campaign: 10,000 changed headers and as many changed receipts, each made
// by somebody who has everything but the key that counts. None may be accepted.

// attempt is one object under attack: what reaches the judge, and when.
type attempt struct {
	kind string
	der  []byte
	at   time.Time
}

// original is a good object with what an attacker can take from it.
type original struct {
	der       []byte
	content   []byte
	cert      []byte
	signature []byte
	speaker   string // who signed, as in attacker.who
}

// attacker makes attempts.
type attacker struct {
	*rand.Rand
	t       testing.TB
	w       *world
	targets []*original // of the kind that is attacked
	others  []*original // signed objects of every other kind
	who     map[string]cms.Signer
	names   []string
	// own says whether the content is the word of this signer, which he may sign.
	own func(content []byte, name string) bool
}

func newAttacker(t testing.TB, w *world, seed uint64) *attacker {
	a := &attacker{Rand: rand.New(rand.NewPCG(seed, 10000)), t: t, w: w, who: map[string]cms.Signer{}}
	for _, id := range []string{"jia", "yi"} {
		a.who["node "+id], a.who["agency "+w.ours.agency[id]] = w.ours.byNode(id), w.ours.byAgency(id)
		a.who["stranger's node "+id], a.who["stranger "+id] = w.other.byNode(id), w.other.byAgency(id)
	}
	a.names = slices.Sorted(maps.Keys(a.who))
	return a
}

// take reads a good object.
func (a *attacker) take(der []byte) *original {
	a.t.Helper()
	s, err := cms.Parse(der, 1<<20)
	if err != nil {
		a.t.Fatal(err)
	}
	o := &original{der: der, content: s.Content, cert: s.Certificate, signature: signatureIn(der)}
	for name, signer := range a.who {
		if bytes.Equal(signer.Certificate(), s.Certificate) {
			o.speaker = name
		}
	}
	return o
}

// signatureIn is the last OCTET STRING, which ends the object.
func signatureIn(der []byte) []byte {
	for n := 70; n <= 72; n++ {
		if at := len(der) - n - 2; der[at] == 4 && int(der[at+1]) == n && der[at+2] == 0x30 {
			return der[len(der)-n:]
		}
	}
	return der[len(der)-69:]
}

// forged signs with whatever bytes it is given.
type forged struct{ cert, signature []byte }

func (f forged) Certificate() []byte         { return f.cert }
func (f forged) Sign([]byte) ([]byte, error) { return f.signature, nil }

// object encodes content well under a certificate and a signature.
func (a *attacker) object(by cms.Signer, content []byte, at time.Time) []byte {
	der, err := cms.Sign(by, content, at)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

func (a *attacker) any(list []*original) *original { return list[a.IntN(len(list))] }

// notSpeaker is anybody but the one whose word it would be.
func (a *attacker) notSpeaker(o *original) cms.Signer {
	for {
		if name := a.names[a.IntN(len(a.names))]; name != o.speaker {
			return a.who[name]
		}
	}
}

// byAnother signs what is not the signer's to say.
func (a *attacker) byAnother(o *original) []byte {
	for {
		name, content := a.names[a.IntN(len(a.names))], a.changed(o)
		if name != o.speaker && !a.own(content, name) {
			return a.object(a.who[name], content, start)
		}
	}
}

// bytes changes some bytes, somewhere; other is where to take from.
func (a *attacker) bytes(b, other []byte) []byte {
	b = bytes.Clone(b)
	at := a.IntN(len(b))
	end := at + a.IntN(len(b)-at) + 1
	switch a.IntN(8) {
	case 0, 1, 2:
		b[at] ^= 1 << a.IntN(8)
	case 3:
		b = b[:at]
	case 4:
		b = append(b[:at], b[end:]...)
	case 5:
		b = bytes.Join([][]byte{b[:at], {byte(a.Uint32())}, b[at:]}, nil)
	case 6:
		b = append(b[:at], other[min(at, len(other)):]...)
	default:
		copy(b[at:end], other[min(at, len(other)):])
	}
	return b
}

// member replaces the value of one member, or takes it from another object.
func (a *attacker) member(content, other []byte) []byte {
	s := string(content)
	quoted := strings.Split(s, `"`)
	i := 1 + 2*a.IntN(len(quoted)/2)
	from := strings.Split(string(other), `"`)
	quoted[i] = from[1+2*a.IntN(len(from)/2)]
	return []byte(strings.Join(quoted, `"`))
}

// changed is the content changed at JSON level, never the same.
func (a *attacker) changed(o *original) []byte {
	for {
		other := a.any(append(a.targets, a.others...)).content
		b := a.member(o.content, other)
		if a.IntN(2) == 0 {
			b = a.bytes(o.content, other)
		}
		if !bytes.Equal(b, o.content) {
			return b
		}
	}
}

// attacks are the ways; each gives an object that must be refused.
func (a *attacker) attacks() map[string]func(o *original) attempt {
	when := func() time.Time { return start.Add(time.Duration(a.IntN(7200)-3600) * time.Second) }
	made := func(der []byte) attempt { return attempt{der: der, at: start} }
	return map[string]func(o *original) attempt{
		"DER changed":            func(o *original) attempt { return made(a.bytes(o.der, a.any(a.targets).der)) },
		"JSON changed, old seal": func(o *original) attempt { return made(a.object(forged{o.cert, o.signature}, a.changed(o), start)) },
		"signed by another":      func(o *original) attempt { return made(a.object(a.notSpeaker(o), o.content, start)) },
		"changed, by another":    func(o *original) attempt { return made(a.byAnother(o)) },
		"certificate swapped": func(o *original) attempt {
			return made(a.object(forged{a.notSpeaker(o).Certificate(), o.signature}, o.content, start))
		},
		"right name, another key": func(o *original) attempt { return made(a.object(impostor{o.cert, a.notSpeaker(o)}, o.content, start)) },
		"signature transplanted": func(o *original) attempt {
			other := a.any(append(a.targets, a.others...))
			return made(a.object(forged{o.cert, other.signature}, a.changed(o), start))
		},
		"signature stripped": func(o *original) attempt { return made(a.object(forged{o.cert, a.noSignature()}, o.content, start)) },
		"signing time moved": func(o *original) attempt {
			at := when()
			for at.Truncate(time.Second).Equal(start) {
				at = when()
			}
			return made(a.object(forged{o.cert, o.signature}, o.content, at))
		},
		"another kind": func(*original) attempt { return made(a.any(a.others).der) },
		"another kind, rightly signed": func(o *original) attempt {
			return made(a.object(a.who[o.speaker], a.any(a.others).content, start))
		},
		"out of the certificate's time": func(o *original) attempt {
			years := []int{-20, -1, 6, 30}[a.IntN(4)]
			return attempt{der: o.der, at: start.AddDate(years, a.IntN(3), a.IntN(28))}
		},
		"RFC 5652 label": func(o *original) attempt {
			der, err := cms.Relabel(o.der)
			if err != nil {
				a.t.Fatal(err)
			}
			return made(der)
		},
	}
}

// impostor shows one certificate and signs with the key of another.
type impostor struct {
	cert []byte
	key  cms.Signer
}

func (i impostor) Certificate() []byte             { return i.cert }
func (i impostor) Sign(msg []byte) ([]byte, error) { return i.key.Sign(msg) }

// noSignature are signatures without a signature.
func (a *attacker) noSignature() []byte {
	n := []byte{0x02, 0x21, 0x00, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
		0x72, 0x03, 0xdf, 0x6b, 0x21, 0xc6, 0x05, 0x2b, 0x53, 0xbb, 0xf4, 0x09, 0x39, 0xd5, 0x41, 0x23}
	list := [][]byte{
		{}, {0x30, 0}, {0x30, 6, 2, 1, 0, 2, 1, 0}, {0x30, 6, 2, 1, 1, 2, 1, 1},
		append(append([]byte{0x30, byte(len(n) + 3)}, n...), 2, 1, 1), append([]byte{0x30, byte(2 * len(n))}, append(n, n...)...), {5, 0},
	}
	if i := a.IntN(len(list) + 1); i < len(list) {
		return list[i]
	}
	random := make([]byte, 70)
	for i := range random {
		random[i] = byte(a.Uint32())
	}
	return random
}

// run makes the attempts and has each judged; accept gives nil for what the
// program would believe.
func (a *attacker) run(what string, more map[string]func(o *original) attempt, accept func(x *attempt) error) {
	a.t.Helper()
	for i, o := range a.targets {
		if err := accept(&attempt{der: o.der, at: start}); err != nil {
			a.t.Fatalf("%s %d is refused unchanged: %v", what, i, err)
		}
	}
	attacks := a.attacks()
	maps.Copy(attacks, more)
	kinds := slices.Sorted(maps.Keys(attacks))
	accepted, tried := 0, map[string]int{}
	for i := 0; i < mutations; {
		o := a.any(a.targets)
		x := attacks[kinds[i%len(kinds)]](o)
		x.kind = kinds[i%len(kinds)]
		if x.at.Equal(start) && a.isGood(x.der) {
			continue
		}
		i++
		tried[x.kind]++
		if err := accept(&x); err == nil {
			accepted++
			a.t.Errorf("accepted: %s: %x", x.kind, x.der)
		}
	}
	var by []string
	for _, k := range kinds {
		by = append(by, fmt.Sprintf("%s %d", k, tried[k]))
	}
	a.t.Logf("%d changed %s, %d accepted (%s)", mutations, what, accepted, strings.Join(by, ", "))
}

// isGood says whether nothing was changed after all.
func (a *attacker) isGood(der []byte) bool {
	return slices.ContainsFunc(a.targets, func(o *original) bool { return bytes.Equal(o.der, der) })
}

// acceptHeader judges a header as a node does, and opens it.
func (w *world) acceptHeader(x *attempt) error {
	e, err := envelope.ParseHeader(x.der)
	if err != nil {
		return err
	}
	sender, ok := w.ours.directory.Agency(e.Header.Sender)
	if !ok || e.Header.Domain != w.ours.directory.Domain() {
		return fmt.Errorf("not a sender of this domain")
	}
	if err := exchange.ValidSigner(sender.Certificates, e.SignerCertificate(), x.at); err != nil {
		return err
	}
	if err := e.Verify(e.SignerCertificate()); err != nil {
		return err
	}
	// A header may be good by itself, an agency's own: with the stolen slot and
	// payload it must open for nobody.
	var last error
	for _, p := range []*paper{w.doc, w.second} {
		if last = w.opens(e, p); last == nil {
			return nil
		}
	}
	return last
}

func (w *world) opens(e *envelope.Envelope, p *paper) error {
	unwrap := func(b []byte) ([]byte, error) { return w.ours.keys["yi"].Unwrap(w.ours.encryption("yi").KeyID, b) }
	if err := e.VerifySlot(0, p.slots[0]); err != nil {
		return err
	}
	_, err := envelope.Open(context.Background(), e, unwrap, p.slots[0], ciphertext(p.stored))
	return err
}

func TestTenThousandChangedHeadersAreAllRefused(t *testing.T) {
	w := sharedWorld(t)
	a := newAttacker(t, w, 1)
	a.targets = []*original{a.take(w.doc.header), a.take(w.second.header)}
	a.others = append(a.others, a.take(w.file.Checkpoint), a.take(a.request()))
	for i := range w.file.Receipts {
		a.others = append(a.others, a.take(w.file.Receipts[i].CMS))
	}
	a.own = func(content []byte, name string) bool {
		_, code, _ := strings.Cut(name, " ")
		return bytes.Contains(content, []byte(`"sender":"`+code+`"`))
	}
	jia, yi := w.ours.agency["jia"], w.ours.agency["yi"]
	a.run("headers", map[string]func(o *original) attempt{
		// The thief names himself as sender, so that header and signature are
		// his and good; slot and payload are stolen.
		"stolen payload, signed by the thief": func(o *original) attempt {
			content := bytes.Replace(o.content, []byte(`"sender":"`+jia), []byte(`"sender":"`+yi), 1)
			content = bytes.Replace(content, []byte(`"agency":"`+jia+`","role":"self"`), []byte(`"agency":"`+yi+`","role":"self"`), 1)
			if a.IntN(2) == 0 {
				content = a.bytes(content, o.content)
			}
			return attempt{der: a.object(a.who["agency "+yi], content, start), at: start}
		},
		"another id, rightly signed": func(o *original) attempt {
			id := a.Uint64() % 1000000
			at := bytes.Index(o.content, []byte(`"id":"`)) + len(`"id":"`)
			content := bytes.Clone(o.content)
			copy(content[at+20:], fmt.Sprintf("%06d", id))
			return attempt{der: a.object(a.who[o.speaker], content, start), at: start}
		},
	}, w.acceptHeader)
}

// request is a RECALL by the sender, a kind of object that is no header.
func (a *attacker) request() []byte {
	e := a.w.doc.e
	content := fmt.Sprintf(`{"type":"yizhan-request","v":1,"domain":"test","kind":"RECALL","envelope":%q,"header":%q,"agency":%q,"time":"2026-11-23T08:00:00.000Z","clock":"test","directory":1}`,
		e.Header.ID, e.Hash, e.Header.Sender)
	return a.object(a.w.ours.byAgency("jia"), []byte(content), start)
}

// acceptReceipt judges a receipt about the first document.
func (w *world) acceptReceipt(x *attempt) error {
	signed, err := cms.Parse(x.der, exchange.MaxReceiptCMS)
	if err != nil {
		return err
	}
	body, err := exchange.ParseReceipt(signed.Content)
	if err != nil {
		return err
	}
	return exchange.Judge(w.ours.directory, w.doc.e, body, signed, x.at)
}

func TestTenThousandChangedReceiptsAreAllRefused(t *testing.T) {
	w := sharedWorld(t)
	a := newAttacker(t, w, 2)
	for i := range w.file.Receipts {
		a.targets = append(a.targets, a.take(w.file.Receipts[i].CMS))
	}
	a.others = append(a.others, a.take(w.doc.header), a.take(w.second.header), a.take(w.file.Checkpoint), a.take(a.request()))
	list := must[[]byte](t)(certs.SignedList(w.file.Directory))
	a.others = append(a.others, a.take(list))
	second := must[[]byte](t)(w.ours.says(w.second, exchange.StageAccepted, w.ours.byNode("jia"), nil))
	a.others = append(a.others, a.take(second))
	a.own = func(content []byte, name string) bool {
		_, id, _ := strings.Cut(name, " ")
		return bytes.Contains(content, []byte(`"node":"`+id+`"`)) || bytes.Contains(content, []byte(`"agency":"`+id+`"`))
	}
	a.who[""] = w.ours.byNode("jia") // who signed the list is none of ours
	a.run("receipts", map[string]func(o *original) attempt{
		// The right speaker, about something else.
		"another document, rightly signed": func(o *original) attempt {
			body := must[*exchange.Receipt](t)(exchange.ParseReceipt(o.content))
			switch a.IntN(4) {
			case 0:
				body.Header = sm.Sum(fmt.Append(nil, a.Uint64()))
			case 1:
				body.Envelope = w.second.e.Header.ID
			case 2:
				body.Domain = "test" + fmt.Sprint(a.IntN(1000))
			default:
				body.Recipients = []string{w.ours.agency["jia"]}
			}
			content := must[[]byte](t)(body.Marshal())
			return attempt{der: a.object(a.who[o.speaker], content, start), at: start}
		},
		// Somebody known to the domain says in his own name what only another may say.
		"stage of another": func(o *original) attempt {
			body := must[*exchange.Receipt](t)(exchange.ParseReceipt(o.content))
			body.Detail = sm.Sum(fmt.Append(nil, a.Uint64())).String()
			by := "node jia"
			switch body.Stage {
			case exchange.StageAccepted:
				body.Node, by = "yi", "node yi"
			case exchange.StageDelivered:
				body.Node = "jia"
			default:
				body.Agency, by = w.ours.agency["jia"], "agency "+w.ours.agency["jia"]
				if a.IntN(2) == 0 {
					body.Recipients = []string{body.Agency}
				}
			}
			return attempt{der: a.object(a.who[by], must[[]byte](t)(body.Marshal()), start), at: start}
		},
	}, w.acceptReceipt)
}
