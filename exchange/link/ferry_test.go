package link

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange/records"
)

// shed is a Keeper in memory.
type shed map[string][]byte

func (s shed) Put(name string, write func(io.Writer) error) error {
	var b bytes.Buffer
	err := write(&b)
	s[name] = b.Bytes()
	return err
}

func (s shed) Open(name string) (io.ReadCloser, error) {
	b, there := s[name]
	if !there {
		return nil, errors.New("nothing is kept under " + name)
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (s shed) Remove(name string) error {
	delete(s, name)
	return nil
}

func (s shed) Each(do func(name string, size int64) error) error {
	for name, b := range s {
		if err := do(name, int64(len(b))); err != nil {
			return err
		}
	}
	return nil
}

// bank is one side of a ferry, with the files that wait to be carried.
type bank struct {
	*host
	kept  shed
	ferry *Ferry
	out   [][]byte
	sent  int64
	limit Limits
}

func (w *world) bank(id string) *bank {
	b := &bank{host: w.host(id, "jia-yi", nil, nil), kept: shed{}, limit: Limits{FileBytes: 1 << 20, Files: 100}}
	b.board()
	return b
}

// board starts the process anew over the same disk.
func (b *bank) board() {
	b.w.t.Helper()
	b.restart()
	var err error
	b.ferry, err = NewFerry(b.w.ctx, b.node, b.link, b.kept)
	b.w.must(err)
}

func (b *bank) export() Exported { return b.exportAnyhow(false) }

func (b *bank) exportAnyhow(anyhow bool) Exported {
	b.w.t.Helper()
	got, err := b.ferry.Export(b.w.ctx, b.limit, anyhow, b.place)
	b.w.must(err)
	return got
}

// place puts a file among those that wait to be carried.
func (b *bank) place(_ string, write func(io.Writer) error) error {
	var file bytes.Buffer
	if err := write(&file); err != nil {
		return err
	}
	b.out = append(b.out, file.Bytes())
	b.sent += int64(file.Len())
	return nil
}

func (b *bank) load(file []byte) Imported {
	b.w.t.Helper()
	got, err := b.ferry.Import(b.w.ctx, bytes.NewReader(file), int64(len(file)))
	b.w.must(err)
	b.work()
	return got
}

// carrier takes the files of one side to the other, as badly as it does.
type carrier struct {
	rng                               *rand.Rand
	lose, double, truncate, mix, flip int // of a hundred
	late                              [][]byte
	stop                              func(file []byte) bool // what a scanner never lets through
}

func (c *carrier) chance(of int) bool { return c.rng.IntN(100) < of }

func (c *carrier) carry(from, to *bank) {
	files := append(c.late, from.out...)
	from.out, c.late = nil, nil
	if c.chance(c.mix) {
		c.rng.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	}
	for _, file := range files {
		switch {
		case c.stop != nil && c.stop(file), c.chance(c.lose):
			continue
		case c.chance(c.mix):
			c.late = append(c.late, file)
			continue
		case c.chance(c.truncate):
			file = file[:c.rng.IntN(len(file))]
		case c.chance(c.flip):
			file = slices.Clone(file)
			file[c.rng.IntN(len(file))] ^= 1 << c.rng.IntN(8)
		case c.chance(c.double):
			to.load(file)
		}
		to.load(file)
	}
}

// outstanding counts the bundles that a side waits for.
func (b *bank) outstanding() int {
	b.w.t.Helper()
	list, err := b.ferry.outstanding(b.w.ctx, func(*records.FerryBundle) bool { return true })
	b.w.must(err)
	return len(list)
}

// ferried carries back and forth until nothing is outstanding.
func (w *world) ferried(there, back *carrier, jia, yi *bank, rounds int) (took int) {
	w.t.Helper()
	for took = 1; took <= rounds; took++ {
		w.clock = w.clock.Add(time.Hour)
		jia.exportAnyhow(jia.outstanding() > 0)
		there.carry(jia, yi)
		yi.exportAnyhow(yi.outstanding() > 0)
		back.carry(yi, jia)
		if jia.outstanding()+yi.outstanding() == 0 && jia.backlogOf()+yi.backlogOf() == 0 {
			return took
		}
	}
	w.t.Fatalf("after %d rounds %d and %d bundles are outstanding", rounds, jia.outstanding(), yi.outstanding())
	return took
}

func (b *bank) backlogOf() uint64 { q := b.backlog(); return q.Waiting + q.Parked }

// TestABadCarrier: it loses a fifth of the files, doubles a tenth, cuts some, changes
// bits in some and mixes their order; everything arrives once and is proven, and not
// much more is carried than there is.
func TestABadCarrier(t *testing.T) {
	seeds := uint64(12)
	if raced {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t)
			jia, yi := w.bank("jia"), w.bank("yi")
			bad := func(n uint64) *carrier {
				return &carrier{rng: rand.New(rand.NewPCG(seed, n)), lose: 20, double: 10, truncate: 5, mix: 20, flip: 3}
			}
			there, back := bad(1), bad(2)
			jia.limit.FileBytes = 40_000
			var to, from []string
			for i := range 30 {
				size := 1 + there.rng.IntN(9000)
				if i%10 == 0 {
					size = 9 << 20 // two parts
				}
				to = append(to, w.submit(jia.host, "yi", size))
				if i%3 == 0 {
					from = append(from, w.submit(yi.host, "jia", size/10))
				}
			}
			for range 4 { // processes end as well
				jia.export()
				there.carry(jia, yi)
				jia.board()
				yi.board()
				yi.export()
				back.carry(yi, jia)
			}
			w.ferried(there, back, jia, yi, 60)
			yi.delivered(to...)
			jia.delivered(from...)
			if got := jia.stage(to[0]); got != "COLLECTED" && got != "DELIVERED" {
				t.Errorf("the sender has heard that it is %s", got)
			}
			if len(jia.kept)+len(yi.kept) > 0 {
				t.Errorf("%d and %d bundles are kept still", len(jia.kept), len(yi.kept))
			}
		})
	}
}

// TestNothingGoesAgainUnasked: without a way back everything leaves once; the same
// file is written as often as it is lost, byte for byte.
func TestNothingGoesAgainUnasked(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.bank("jia"), w.bank("yi")
	id := w.submit(jia.host, "yi", 5000)
	if got := jia.export(); got.Bundles != 1 || got.Files != 1 {
		t.Fatalf("%+v", got)
	}
	if got := jia.export(); got.Files != 0 {
		t.Fatalf("nothing is new, and %+v", got)
	}
	first := jia.out[0]
	jia.out = nil // lost
	yi.export()
	(&carrier{rng: rand.New(rand.NewPCG(1, 1))}).carry(yi, jia) // yi has heard of no round
	if got := jia.exportAnyhow(true); got.Files != 1 || got.Again != 0 {
		t.Fatalf("nobody knows that it is lost: %+v", got)
	}
	good := &carrier{rng: rand.New(rand.NewPCG(1, 1))}
	good.carry(jia, yi) // the note of the second round
	yi.export()
	good.carry(yi, jia)
	if got := jia.export(); got.Again != 1 {
		t.Fatalf("the round was seen without the bundle, and %+v", got)
	}
	second := jia.out[0]
	if !bytes.HasSuffix(second, first[len(first)-4000:]) {
		t.Error("it left again with other bytes")
	}
	w.ferried(good, good, jia, yi, 5)
	yi.delivered(id)
}

// TestAScannersFalseAlarm: what it stops it stops always, and nothing else waits for
// it.
func TestAScannersFalseAlarm(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.bank("jia"), w.bank("yi")
	var ids []string
	for range 16 {
		ids = append(ids, w.submit(jia.host, "yi", 3000))
	}
	good := &carrier{rng: rand.New(rand.NewPCG(1, 1))}
	bundle := []byte(nil)
	jia.limit.FileBytes = 60_000
	there := &carrier{rng: good.rng, stop: func(file []byte) bool {
		if bundle == nil { // a run of bytes inside the first file
			bundle = slices.Clone(file[len(file)-600 : len(file)-300])
		}
		return bytes.Contains(file, bundle)
	}}
	w.ferried(there, good, jia, yi, 40)
	yi.delivered(ids...)
}

// TestAnotherBundleFollowsADamagedOne: the rest of a file is taken.
func TestAnotherBundleFollowsADamagedOne(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.bank("jia"), w.bank("yi")
	first := w.submit(jia.host, "yi", 3_900_000)
	second := w.submit(jia.host, "yi", 3_900_000)
	jia.limit.FileBytes = 50 << 20
	if got := jia.export(); got.Files != 1 || got.Bundles != 2 {
		t.Fatalf("%+v", got)
	}
	file := jia.out[0]
	file[bytes.Index(file[100:], []byte(magic))+100+60] ^= 1 // in the clear header of the first bundle behind the note
	if got := yi.load(file); got.Bundles != 1 || got.Faults != 1 || got.Notes != 1 {
		t.Fatalf("%+v", got)
	}
	yi.delivered(second)
	jia.out = nil
	good := &carrier{rng: rand.New(rand.NewPCG(1, 1))}
	w.ferried(good, good, jia, yi, 5)
	yi.delivered(first, second)
}

// TestNotesThatLie: an ack from the future, of a bundle that never left, about other
// items; nothing is settled.
func TestNotesThatLie(t *testing.T) {
	for name, change := range map[string]func(*Passage){
		"from the future":       func(p *Passage) { p.UpTo = 99 },
		"a range in the future": func(p *Passage) { p.Ranges = []Range{{From: 1, To: 99}} },
		"about other items":     func(p *Passage) { p.UpTo, p.Lacks = 1, []Lack{{Seq: 1, Items: []AckItem{{Status: "refused"}}}} },
		"of another epoch":      func(p *Passage) { p.UpTo, p.Epoch = 1, "00000000000000000000000000000000" },
		"too many ranges":       func(p *Passage) { p.Ranges = make([]Range, 300) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			jia, yi := w.bank("jia"), w.bank("yi")
			w.submit(jia.host, "yi", 3000)
			jia.export()
			p := &Passage{Round: 1, From: 1, Heard: 1, Epoch: jia.ferry.s.epoch, Ranges: []Range{}, Lacks: []Lack{}}
			change(p)
			o := &Outgoing{s: yi.ferry.s, kind: Reply}
			head, items, err := yi.ferry.s.inner(w.ctx, o)
			w.must(err)
			head.Passage = p
			section, err := joinSection(head, items)
			w.must(err)
			w.must(o.finish(section))
			jia.load(yi.written(o))
			if jia.outstanding() != 1 || jia.backlogOf() != 1 {
				t.Errorf("%d outstanding, %d wait", jia.outstanding(), jia.backlogOf())
			}
		})
	}
}

// TestAFerryAfterADiskLoss: the restored side begins anew, and nothing is lost or
// doubled.
func TestAFerryAfterADiskLoss(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.bank("jia"), w.bank("yi")
	good := &carrier{rng: rand.New(rand.NewPCG(1, 1))}
	before := w.submit(jia.host, "yi", 3000)
	w.ferried(good, good, jia, yi, 5)
	backup := jia.store.clone()
	after := w.submit(jia.host, "yi", 3000)
	w.ferried(good, good, jia, yi, 5)
	waiting := w.submit(yi.host, "jia", 3000)
	jia.host = w.afterDiskLoss(jia.host, backup)
	jia.kept = shed{}
	jia.board()
	fresh := w.submit(jia.host, "yi", 3000)
	for range 4 {
		w.ferried(good, good, jia, yi, 9)
	}
	yi.delivered(before, after, fresh)
	jia.delivered(waiting)
	for _, id := range []string{before, after, fresh} {
		if got := jia.stage(id); got != "COLLECTED" && got != "DELIVERED" {
			t.Errorf("%s stands at %s", id, got)
		}
	}
}

// TestACommitThatIsNotAnswered: it took effect, and whoever asked does not know. The
// bundle leaves as what its row says, and nothing is acknowledged in its place.
func TestACommitThatIsNotAnswered(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.bank("jia"), w.bank("yi")
	first := w.submit(jia.host, "yi", 3000)
	load, err := jia.node.NextLoad(w.ctx, "jia-yi", nil, FillBytes, ferryItems)
	w.must(err)
	before := jia.ferry.s.last()
	ok, _, err := jia.ferry.pack(w.ctx, load)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	jia.ferry.s.mu.Lock()
	jia.ferry.s.seq = before // as far as it knows
	jia.ferry.s.mu.Unlock()
	second := w.submit(jia.host, "yi", 4000)
	good := &carrier{rng: rand.New(rand.NewPCG(1, 1))}
	w.ferried(good, good, jia, yi, 6)
	yi.delivered(first, second)
}

// TestAHeldFerry: nothing leaves, and what comes stays in its file.
func TestAHeldFerry(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.bank("jia"), w.bank("yi")
	w.submit(jia.host, "yi", 3000)
	w.must(jia.node.HoldLink(w.ctx, "jia-yi", nightShift))
	if got := jia.export(); got.Bundles != 0 {
		t.Fatalf("a held link: %+v", got)
	}
	w.must(jia.node.ReleaseLink(w.ctx, "jia-yi", nightShift))
	jia.export()
	w.must(yi.node.HoldLink(w.ctx, "jia-yi", nightShift))
	file := jia.out[len(jia.out)-1]
	if _, err := yi.ferry.Import(w.ctx, bytes.NewReader(file), int64(len(file))); !errors.Is(err, ErrHeld) {
		t.Fatalf("a held link took it: %v", err)
	}
}

// TestFerryRangesJoin in any order, without a gap that is not there.
func TestFerryArrivalsInAnyOrder(t *testing.T) {
	w := newWorld(t)
	_, yi := w.pair()
	rng := rand.New(rand.NewPCG(3, 4))
	order := rng.Perm(200)
	for _, i := range order {
		w.must(yi.node.FerryArrived(w.ctx, "jia-yi", "e", uint64(i+1), nil))
	}
	row, err := yi.node.FerryArrivals(w.ctx, "jia-yi")
	w.must(err)
	if row.UpTo != 200 || len(row.Ranges) > 0 {
		t.Errorf("up to %d and %v", row.UpTo, row.Ranges)
	}
	w.must(yi.node.FerryArrived(w.ctx, "jia-yi", "e", 300, nil))
	w.must(yi.node.FerryHeard(w.ctx, "jia-yi", "e", 7, 300))
	if row, err = yi.node.FerryArrivals(w.ctx, "jia-yi"); err != nil || row.UpTo != 300 || row.Round != 7 || len(row.Ranges) > 0 {
		t.Errorf("%+v, %v", row, err)
	}
}

// FuzzImport: whatever lies in a file, nothing is taken but what the neighbour signed,
// and the search for the next bundle ends.
func FuzzImport(f *testing.F) {
	w := newWorld(f)
	jia := w.bank("jia")
	w.submit(jia.host, "yi", 100)
	jia.limit.FileBytes = 1
	w.submit(jia.host, "yi", 2000)
	jia.export()
	var good [][]byte
	for _, file := range jia.out {
		good = append(good, file)
		f.Add(file)
		f.Add(file[:len(file)-1])
		f.Add(append([]byte("YZB1"), file...))
	}
	f.Add(bytes.Repeat([]byte(magic), 200))
	f.Fuzz(func(t *testing.T, b []byte) {
		mine := *w
		mine.t = t
		yi := mine.bank("yi")
		before := yi.store.facts()
		got, err := yi.ferry.Import(w.ctx, bytes.NewReader(b), int64(len(b)))
		if err != nil && !errors.Is(err, ErrNewer) {
			t.Fatal(err)
		}
		for _, file := range good {
			if at := bytes.Index(b, file[:min(len(file), 60)]); at >= 0 { // something that was signed is in it
				return
			}
		}
		if got.Bundles+got.Notes > 0 || !sameRows(before, yi.store.facts()) {
			t.Fatalf("%+v of nothing that was signed", got)
		}
	})
}

// TestTheRestOfAnotherDocument: one of which some parts are in a bundle is put at the end
// of its lane before the rest is; what comes next begins at its own beginning.
func TestTheRestOfAnotherDocument(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.bank("jia"), w.bank("yi")
	ids := []string{w.submit(jia.host, "yi", 9<<20), w.submit(jia.host, "yi", 9<<20), w.submit(jia.host, "yi", 100)}
	whole := jia.limit
	jia.limit = Limits{FileBytes: 1, Files: 1} // a bundle, and no more
	jia.export()
	yi.full = true
	w.carryAll(jia, yi)
	yi.full = false
	yi.exportAnyhow(true)
	w.carryAll(yi, jia)
	jia.limit = whole
	good := &carrier{rng: rand.New(rand.NewPCG(1, 1))}
	w.ferried(good, good, jia, yi, 9)
	yi.delivered(ids...)
}
