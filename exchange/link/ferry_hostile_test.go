package link

import (
	"bytes"
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// TestHostileFerryFiles: whatever somebody does to a file, what is good in it is taken
// at once, nothing else is, and what is missing comes again by itself.
func TestHostileFerryFiles(t *testing.T) {
	join := func(files ...[]byte) []byte { return bytes.Join(files, nil) }
	second := func(b []byte) int { return bytes.Index(b[1:], []byte(magic)) + 1 } // behind the note
	damaged := func(file []byte, at int, change func([]byte)) []byte {
		b := slices.Clone(file)
		change(b[at:])
		return b
	}
	for name, c := range map[string]struct {
		change func(w *world, f [][]byte) []byte
		good   []int // the documents that arrive with it
		faults bool
	}{
		"as it is":  {func(_ *world, f [][]byte) []byte { return join(f...) }, []int{0, 1, 2}, false},
		"reordered": {func(_ *world, f [][]byte) []byte { return join(f[2], f[0], f[1]) }, []int{0, 1, 2}, false},
		"replayed":  {func(_ *world, f [][]byte) []byte { return join(f[0], f[0], f[1], f[2], f[0]) }, []int{0, 1, 2}, false},
		"padded":    {func(_ *world, f [][]byte) []byte { return join(join(f...), make([]byte, 512)) }, []int{0, 1, 2}, true},
		"padded in between": {func(_ *world, f [][]byte) []byte {
			return join(f[0], make([]byte, 100_000), f[1], bytes.Repeat([]byte("YZB"), 1000), f[2])
		}, []int{0, 1, 2}, true},
		"truncated": {func(_ *world, f [][]byte) []byte { return join(f[0], f[1], f[2][:len(f[2])-100]) }, []int{0, 1}, true},
		"a poison in the middle": {func(_ *world, f [][]byte) []byte {
			return join(f[0], damaged(f[1], len(f[1])-200, func(b []byte) { b[0] ^= 1 }), f[2])
		}, []int{0, 2}, true},
		"downgraded": {func(_ *world, f [][]byte) []byte {
			return join(f[0], damaged(f[1], second(f[1]), func(b []byte) { b[3] = '0' }), f[2])
		}, []int{0, 2}, true},
		"an endless header": {func(_ *world, f [][]byte) []byte {
			return join(f[0], damaged(f[1], second(f[1]), func(b []byte) { binary.BigEndian.PutUint32(b[4:], 1<<32-1) }), f[2])
		}, []int{0, 2}, true},
		"signed by another": {func(w *world, f [][]byte) []byte {
			at := second(f[1])
			return join(f[0], f[1][:at], w.resigned(f[1][at:], w.signs("bing")), f[2])
		}, []int{0, 2}, true},
		"of nobody": {func(_ *world, f [][]byte) []byte { return bytes.Repeat([]byte("YZB1 not a bundle"), 1000) }, nil, true},
		"empty":     {func(_ *world, f [][]byte) []byte { return nil }, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			jia, yi := w.bank("jia"), w.bank("yi")
			var ids []string
			for range 3 {
				ids = append(ids, w.submit(jia.host, "yi", 2000))
				jia.export()
			}
			file := c.change(w, jia.out)
			got := yi.load(file)
			if got.Faults > maxResyncing+1 || c.faults != (got.Faults > 0 || got.Truncated) || got.Bundles < len(c.good) {
				t.Errorf("%+v", got)
			}
			for i, id := range ids {
				items, err := yi.node.Inbox(w.ctx, w.cast.agencies["yi"], 0, 10)
				w.must(err)
				here := false
				for _, item := range items {
					here = here || item.ID == id
				}
				if here != slices.Contains(c.good, i) {
					t.Errorf("document %d is here: %v", i, here)
				}
			}
			jia.out = nil
			good := &carrier{rng: rand.New(rand.NewPCG(1, 1))}
			w.ferried(good, good, jia, yi, 8)
			yi.delivered(ids...)
			before := yi.store.facts()
			if yi.load(file); len(yi.store.facts()) < len(before) {
				t.Error("the file took something away when it came again")
			}
			yi.delivered(ids...)
		})
	}
}

// TestOurOwnFileComesBack, as from a medium with both ways on it: nothing of it is
// taken.
func TestOurOwnFileComesBack(t *testing.T) {
	w := newWorld(t)
	jia, _ := w.bank("jia"), w.bank("yi")
	w.submit(jia.host, "yi", 2000)
	jia.export()
	if got := jia.load(jia.out[0]); got.Bundles+got.Notes != 0 || got.Faults == 0 || jia.outstanding() != 1 {
		t.Errorf("%+v, %d outstanding", got, jia.outstanding())
	}
}

// TestAHundredThousandItems that a neighbour claims are refused at the count, for what
// the bytes that carry the claim cost; what comes behind is taken.
func TestAHundredThousandItems(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.bank("jia"), w.bank("yi")
	id := w.submit(jia.host, "yi", 2000)
	jia.export()
	o := &Outgoing{s: jia.ferry.s, kind: Push, inside: true}
	head, _, err := jia.ferry.s.inner(w.ctx, o)
	w.must(err)
	head.Items = make([]ManifestEntry, 100_000)
	for i := range head.Items {
		head.Items[i] = ManifestEntry{Kind: "x", Digest: sm.Sum(nil)}
	}
	section, err := joinSection(head, nil)
	w.must(err)
	o.seq = 99
	if err := o.finish(section); err != nil {
		t.Fatalf("a section of %d bytes cannot be sent: %v", len(section), err)
	}
	file := append(jia.written(o), jia.out[0]...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got := yi.load(file)
	runtime.ReadMemStats(&after)
	if got.Faults == 0 || got.Bundles != 1 {
		t.Errorf("%+v", got)
	}
	if made := after.TotalAlloc - before.TotalAlloc; made > 24*uint64(len(section)) {
		t.Errorf("%d MiB for a section of %d MiB", made>>20, len(section)>>20)
	}
	yi.delivered(id)
}

// TestKeptBytesOfNobody are removed when a ferry is opened: of a commit that failed, of
// an older epoch, of a bundle that is settled; those of a row stay.
func TestKeptBytesOfNobody(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.bank("jia"), w.bank("yi")
	id := w.submit(jia.host, "yi", 2000)
	jia.export()
	if len(jia.kept) != 1 {
		t.Fatalf("%d are kept", len(jia.kept))
	}
	own := slices.Collect(maps.Keys(jia.kept))[0]
	epoch := jia.ferry.s.epoch
	for _, name := range []string{
		own[:len(own)-1] + "!", // the number of a row, another bundle
		epoch + "-0000000000000063-0011223344556677",
		"00000000000000000000000000000000" + own[len(epoch):],
	} {
		jia.kept[name] = []byte("x")
	}
	jia.kept["something else"] = []byte("x")
	st, err := jia.ferry.Status(w.ctx)
	w.must(err)
	if st.Kept != 5 || st.KeptBytes <= st.Bytes {
		t.Errorf("%+v", st)
	}
	jia.board()
	if _, there := jia.kept[own]; !there || len(jia.kept) != 2 {
		t.Errorf("%d are kept, the bundle's: %v", len(jia.kept), there)
	}
	delete(jia.kept, "something else")
	good := &carrier{rng: rand.New(rand.NewPCG(1, 1))}
	w.ferried(good, good, jia, yi, 5)
	yi.delivered(id)
	if len(jia.kept) != 0 {
		t.Errorf("%d are kept at the end", len(jia.kept))
	}
}

// TestWhatAFileIsAbout: the documents of its bundles, each once, and which rounds
// nobody waits for.
func TestWhatAFileIsAbout(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.bank("jia"), w.bank("yi")
	first, second := w.submit(jia.host, "yi", 9<<20), w.submit(jia.host, "yi", 2000)
	got := jia.export()
	named := map[string]int{}
	for _, filed := range got.Filed {
		for _, b := range filed.Bundles {
			for _, id := range b.Documents {
				named[id]++
			}
		}
	}
	if len(got.Filed) != got.Files || named[first] < 2 || named[second] != 1 || len(named) != 2 {
		t.Errorf("%d files, %v", len(got.Filed), named)
	}
	if round, own := jia.ferry.FileRound(jia.ferry.fileName(got.Round, 3)); !own || round != got.Round {
		t.Errorf("round %d, %v", round, own)
	}
	for _, name := range []string{"", "yz", yi.ferry.fileName(1, 0), "notes.txt", jia.ferry.mark() + "-x-1", jia.ferry.mark() + "-1"} {
		if _, own := jia.ferry.FileRound(name); own {
			t.Errorf("%q is taken for our own", name)
		}
	}
	jia.exportAnyhow(true)
	spent, err := jia.ferry.Spent(w.ctx)
	w.must(err)
	if spent(1) {
		t.Error("somebody waits for the first round")
	}
	good := &carrier{rng: rand.New(rand.NewPCG(1, 1))}
	w.ferried(good, good, jia, yi, 5)
	if spent, err = jia.ferry.Spent(w.ctx); err != nil || !spent(1) {
		t.Errorf("nobody waits for the first round any more: %v", err)
	}
	st, err := jia.ferry.Status(w.ctx)
	w.must(err)
	if spent(st.Round) {
		t.Error("the last note is spent")
	}
}
