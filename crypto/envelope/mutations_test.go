package envelope

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// triple is what reaches a reader of an envelope.
type triple struct{ header, slot, payload []byte }

func (a *triple) same(b *triple) bool {
	return bytes.Equal(a.header, b.header) && bytes.Equal(a.slot, b.slot) && bytes.Equal(a.payload, b.payload)
}

// mutator changes good envelopes, all of them from the first agency to the
// second.
type mutator struct {
	*rand.Rand
	t         *testing.T
	agencies  []*agency
	pool      []*built
	signature [][]byte // of each header
}

func newMutator(t *testing.T) *mutator {
	m := &mutator{Rand: rand.New(rand.NewPCG(20261123, 10000)), t: t, agencies: agenciesOf(t)}
	for _, d := range validDrafts(m.agencies)[:4] {
		b := d.build(t)
		k := &keeps{agency: d.from}
		if _, err := cms.Sign(k, []byte(b.content), when); err != nil {
			t.Fatal(err)
		}
		m.pool, m.signature = append(m.pool, b), append(m.signature, k.signature)
	}
	return m
}

// pick prefers the small envelopes: the large one takes most of the time.
func (m *mutator) pick() int {
	if m.IntN(16) == 0 {
		return 3
	}
	return m.IntN(3)
}

func (m *mutator) whole(i int) *triple {
	return &triple{m.pool[i].header, m.pool[i].slots[0], m.pool[i].payload}
}

// bytes changes one byte string; other is the same of another envelope.
func (m *mutator) bytes(b, other []byte) []byte {
	b = bytes.Clone(b)
	at := m.IntN(len(b))
	end := at + m.IntN(len(b)-at) + 1
	switch m.IntN(9) {
	case 0, 1:
		b[at] ^= 1 << m.IntN(8)
	case 2:
		for range 2 + m.IntN(6) {
			b[m.IntN(len(b))] ^= byte(1 + m.IntN(255))
		}
	case 3:
		b = b[:at]
	case 4:
		b = append(b[:at], b[end:]...)
	case 5:
		b = bytes.Join([][]byte{b[:at], {byte(m.Uint32())}, b[at:]}, nil)
	case 6:
		b = bytes.Join([][]byte{b[:end], b[at:]}, nil)
	case 7:
		b = append(b[:at], other[m.IntN(len(other)):]...)
	default:
		copy(b[at:end], other[min(at, len(other)):])
	}
	return b
}

// onTheWay changes one or two of the three, or takes one from elsewhere.
func (m *mutator) onTheWay(i int) *triple {
	x, y := m.whole(i), m.whole(m.pick())
	for range 1 + m.IntN(2) {
		mine, other := &x.header, y.header
		switch m.IntN(3) {
		case 1:
			mine, other = &x.slot, y.slot
		case 2:
			mine, other = &x.payload, y.payload
		}
		if m.IntN(10) == 0 || len(*mine) == 0 {
			*mine = other
			continue
		}
		*mine = m.bytes(*mine, other)
	}
	return x
}

// underOldSignature changes the header's JSON and encodes it well.
func (m *mutator) underOldSignature(i int) *triple {
	x := m.whole(i)
	changed := m.bytes([]byte(m.pool[i].content), []byte(m.pool[m.pick()].content))
	x.header = m.signed(oldSignature{m.agencies[0], m.signature[i]}, changed)
	return x
}

// byAStranger gives the header, perhaps changed, under another's signature.
func (m *mutator) byAStranger(i int) *triple {
	x, content := m.whole(i), []byte(m.pool[i].content)
	if m.IntN(4) > 0 {
		content = m.bytes(content, []byte(m.pool[m.pick()].content))
	}
	x.header = m.signed(m.agencies[2], content)
	return x
}

// bySender changes payload or slot and has the sender sign just that.
func (m *mutator) bySender(i int) *triple {
	x, y, h := m.whole(i), m.whole(m.pick()), m.pool[i].h
	h.Recipients = append([]Slot{}, h.Recipients...)
	if m.IntN(2) == 0 {
		x.payload = m.bytes(x.payload, y.payload)
		h.Payload.Size, h.Payload.Root = int64(len(x.payload)), merkle.Root(leavesOf(x.payload))
	} else {
		x.slot = m.bytes(x.slot, y.slot)
		h.Recipients[0].Slot = sm.Sum(x.slot)
	}
	content, err := strictjson.Marshal(&h)
	if err != nil {
		m.t.Fatal(err)
	}
	x.header = m.signed(m.agencies[0], content)
	return x
}

func (m *mutator) signed(by cms.Signer, content []byte) []byte {
	der, err := cms.Sign(by, content, when)
	if err != nil {
		m.t.Fatal(err)
	}
	return der
}

// next gives a changed envelope, and of which one.
func (m *mutator) next() *triple {
	for {
		i := m.pick()
		kinds := []func(int) *triple{m.onTheWay, m.onTheWay, m.underOldSignature, m.byAStranger, m.bySender}
		x := kinds[m.IntN(len(kinds))](i)
		if !m.isGood(x) {
			return x
		}
	}
}

// isGood says whether nothing changed: the sender's signatures here are a
// function of what is signed.
func (m *mutator) isGood(x *triple) bool {
	for i := range m.pool {
		if x.same(m.whole(i)) {
			return true
		}
	}
	return false
}

func TestTenThousandChangedEnvelopesAreAllRefused(t *testing.T) {
	m := newMutator(t)
	f := &vectorFile{Agencies: m.agencies}
	steps := map[string]int{}
	judge := func(x *triple) (string, error) {
		step, _, err := f.judge(t.Context(), &vector{Header: x.header, Slots: [][]byte{x.slot}}, x.payload, reads{"yi", 0})
		return step, err
	}
	for i := range m.pool {
		if step, err := judge(m.whole(i)); err != nil {
			t.Fatalf("envelope %d is refused unchanged at step %s: %v", i, step, err)
		}
	}
	for i := range mutations {
		x := m.next()
		step, err := judge(x)
		if err == nil || step == "document" {
			t.Fatalf("change %d is accepted (%v): header %x slot %x", i, err, x.header, x.slot)
		}
		steps[step]++
	}
	for _, step := range []string{"header", "signature", "slot", "payload", "open"} {
		if steps[step] < mutations/100 {
			t.Errorf("only %d changes reach step %s", steps[step], step)
		}
	}
	t.Logf("%d changed envelopes, 0 accepted %v", mutations, steps)
}
