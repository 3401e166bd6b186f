package link

import (
	"bytes"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

// These tests let a node of an imagined next version talk to this one: its bundles
// have members and item kinds that nobody here knows.

var later = strictjson.Extra{{Name: "zz_later", Value: strictjson.Raw(`{"a":[1,true]}`)}}

// hologram is an item of a kind that the next version has.
var hologram = []byte("an item of the next version")

// apart takes a bundle of a session apart: what it says, and its parts.
func (s *Session) apart(w *world, bundle []byte) (c *Clear, section, parts []byte) {
	w.t.Helper()
	r := bytes.NewReader(bundle)
	signed, err := readFrame(r)
	w.must(err)
	o, err := cms.Parse(signed, MaxClearHeader)
	w.must(err)
	c, err = parseClear(o.Content)
	w.must(err)
	sealed := make([]byte, c.Sealed.Size)
	_, err = io.ReadFull(r, sealed)
	w.must(err)
	section, err = openSection(s.key.secret, c, sealed)
	w.must(err)
	rest, err := io.ReadAll(r)
	w.must(err)
	return c, section, rest[:len(rest)-footerSize]
}

// together makes a bundle of it again, sealed and signed anew.
func (s *Session) together(w *world, c *Clear, section, parts []byte) (out []byte, header sm.Digest) {
	w.t.Helper()
	sealed, err := sealSection(s.key.secret, c, section)
	w.must(err)
	c.Sealed.Size, c.Sealed.SM3 = int64(len(sealed)), sm.Sum(sealed)
	signer, err := s.node.Signer()
	w.must(err)
	header, out, err = signClear(signer, c)
	w.must(err)
	out = append(append(out, sealed...), parts...)
	return append(out, footer(int64(len(out)+footerSize))...), header
}

// nextVersion rewrites a bundle of a session as the next version would have made it, with
// change applied to what it says. A bundle with items gets a hologram behind them.
func (s *Session) nextVersion(w *world, bundle []byte, change func(*Clear, *Inner)) (out []byte, header sm.Digest) {
	w.t.Helper()
	c, section, parts := s.apart(w, bundle)
	in, small, err := parseInner(section)
	w.must(err)
	c.Extra, c.Sealed.Extra, c.Parts.Extra, in.Extra = later, later, later, later
	for i := range in.Items {
		in.Items[i].Extra = later
	}
	for i := range in.Acks {
		in.Acks[i].Extra = later
	}
	if in.Passage != nil {
		in.Passage.Extra = later
	}
	small = bytes.Clone(small)
	if c.Seq > 0 {
		in.Items = append(in.Items, ManifestEntry{Kind: "hologram", ID: "h", Size: int64(len(hologram)), Digest: sm.Sum(hologram), Extra: later})
		small = append(small, hologram...)
	}
	if change != nil {
		change(c, in)
	}
	section, err = joinSection(in, small)
	w.must(err)
	return s.together(w, c, section, parts)
}

// speaksLater makes the session remember its last bundle as the next version's.
func (s *Session) speaksLater(header sm.Digest) {
	last := &s.underway[len(s.underway)-1]
	last.header = header
	last.outs = append(last.outs, node.Out{Item: node.Item{Kind: "hologram", ID: "h"}})
}

// TestTheNextVersionOverASession: what version 1 knows is delivered, both ways; what
// it does not know is passed over or refused alone, and not asked for again.
func TestTheNextVersionOverASession(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	ids := []string{w.submit(jia, "yi", 300), w.submit(jia, "yi", 9<<20)}
	sent := w.submit(yi, "jia", 300)
	for range 6 {
		w.clock = w.clock.Add(10 * time.Second)
		if o, b := jia.next(Push); o != nil {
			b, header := jia.nextVersion(w, b, nil)
			jia.speaksLater(header)
			yi.receive(b)
			said := yi.outcomes()
			if last := len(said) - 1; said[last] != node.Refused || slices.ContainsFunc(said[:last], func(s string) bool { return s != node.Taken && s != node.Duplicate }) {
				t.Fatalf("outcomes %v", said)
			}
			_, reply := yi.next(Reply)
			if got := jia.receive(reply); got.Acks != 1 {
				t.Fatal("the next version does not hear the answer of version 1")
			}
		}
		yi.work()
		_, poll := jia.next(Poll)
		poll, _ = jia.nextVersion(w, poll, nil)
		yi.receive(poll)
		if answer, b := yi.next(Answer); answer != nil {
			jia.receive(b)
		}
		jia.work()
	}
	if q := jia.backlog(); q.Waiting+q.Parked > 0 {
		t.Fatalf("%d wait still", q.Waiting)
	}
	if q := yi.quarantined(); len(q) > 0 {
		t.Fatalf("what is only unknown is shown as damage: %v", q)
	}
	yi.delivered(ids...)
	jia.delivered(sent)
}

// mustBeUnderstood are the ways in which the next version says that an older reader
// must not go on.
var mustBeUnderstood = map[string]struct {
	change func(*Clear, *Inner)
	reason string
}{
	"another version":           {func(c *Clear, _ *Inner) { c.V = 2 }, "version 1"},
	"a crucial member":          {func(c *Clear, _ *Inner) { c.Crit = []string{"zz_later"} }, "zz_later"},
	"another version inside":    {nil, "version 1"},
	"a crucial member inside":   {func(_ *Clear, in *Inner) { in.Crit = []string{"zz_later"} }, "zz_later"},
	"an item of a crucial kind": {func(_ *Clear, in *Inner) { in.Items[len(in.Items)-1].Critical = true }, "critical item"},
}

// TestWhatMustBeUnderstoodIsRefusedWhole: nothing of the bundle is taken, it is
// shown, and the same things arrive when they are said in version 1.
func TestWhatMustBeUnderstoodIsRefusedWhole(t *testing.T) {
	for name, c := range mustBeUnderstood {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			jia, yi := w.pair()
			id := w.submit(jia, "yi", 300)
			o, b := jia.next(Push)
			if c.change == nil {
				b = jia.insideVersion2(w, b)
			} else {
				b, _ = jia.nextVersion(w, b, c.change)
			}
			yi.refused(b, c.reason)
			if len(yi.quarantined()) != 1 {
				t.Errorf("shown: %v", yi.quarantined())
			}
			jia.Lost(w.ctx, o)
			w.exchange(jia, yi)
			yi.delivered(id)
		})
	}
}

// insideVersion2 is a bundle whose section is of another version: joinSection writes
// none but 1, so the digit is changed in its bytes.
func (s *Session) insideVersion2(w *world, bundle []byte) []byte {
	w.t.Helper()
	c, section, parts := s.apart(w, bundle)
	section = bytes.Replace(section, []byte(`"yizhan-bundle-inner","v":1`), []byte(`"yizhan-bundle-inner","v":2`), 1)
	b, _ := s.together(w, c, section, parts)
	return b
}

// TestTheNextVersionOverAFerry: a file of the next version, its note and its bundles,
// delivers what version 1 knows; a bundle that must be understood stays outstanding at
// its sender and stops nothing behind it.
func TestTheNextVersionOverAFerry(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.bank("jia"), w.bank("yi")
	s := jia.ferry.s
	first := w.submit(jia.host, "yi", 3000)
	jia.export()
	w.must(jia.store.Update(w.ctx, jia.addsHologram(1)))
	yi.load(w.rewritten(s, jia.out[0], func(*Clear, *Inner) {}))
	if got := yi.books(); got.Accepted != 3 || got.Refused != 1 || len(got.Gaps) > 0 {
		t.Fatalf("%+v %v", got, yi.quarantined())
	}
	yi.exportAnyhow(true)
	w.must(yi.store.Update(w.ctx, yi.addsHologram(1)))
	jia.out = nil
	note := yi.out[0]
	jia.load(w.rewritten(yi.ferry.s, note, nil))
	if jia.outstanding() != 0 || jia.backlogOf() != 0 {
		t.Fatalf("%d outstanding, %d wait: version 1 has it", jia.outstanding(), jia.backlogOf())
	}
	yi.out = nil

	second := w.submit(jia.host, "yi", 3000)
	jia.export()
	w.must(jia.store.Update(w.ctx, jia.addsHologram(2)))
	crucial := func(c *Clear, in *Inner) {
		if c.Seq > 0 {
			in.Items[len(in.Items)-1].Critical = true
		}
	}
	third := w.submit(jia.host, "yi", 3000)
	jia.export()
	files := jia.out
	jia.out = nil
	if got := yi.load(w.rewritten(s, files[0], crucial)); got.Notes != 1 || got.Bundles != 0 || got.Faults != 1 {
		t.Fatalf("%+v %v", got, yi.quarantined())
	}
	if got := yi.load(files[1]); got.Bundles != 1 {
		t.Fatalf("%+v %v", got, yi.quarantined())
	}
	if s := yi.books(); len(s.Gaps) != 1 {
		t.Fatalf("%+v", s.Gaps)
	}
	// Its sender hears what is missing, and says it again in version 1.
	good := &carrier{rng: rand.New(rand.NewPCG(1, 1))}
	w.ferried(good, good, jia, yi, 6)
	yi.delivered(first, second, third)
}

// addsHologram enters the hologram in the row of a bundle, as the next version would:
// one item more, which stands in no lane.
func (b *bank) addsHologram(seq uint64) func(queue.Tx) error {
	return func(tx queue.Tx) error {
		row, err := records.FerryBundles.Lock(tx, b.link, seq)
		if err != nil {
			return err
		}
		row.Entries = append(row.Entries, records.FerryEntry{Rank: -1, Items: 1})
		return records.FerryBundles.Put(tx, row, b.link, seq)
	}
}

// rewritten is a file of which every bundle is the next version's.
func (w *world) rewritten(s *Session, file []byte, change func(*Clear, *Inner)) (out []byte) {
	w.t.Helper()
	for len(file) > 0 {
		end := bytes.Index(file[1:], []byte(magic))
		one := file
		if end >= 0 {
			one = file[:end+1]
		}
		b, _ := s.nextVersion(w, one, change)
		out, file = append(out, b...), file[len(one):]
	}
	return out
}
