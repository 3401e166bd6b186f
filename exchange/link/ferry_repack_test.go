package link

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// lost has everything of one side leave and not arrive, until the other side's note
// says so.
func (w *world) lost(from, to *bank) Exported {
	w.t.Helper()
	w.clock = w.clock.Add(time.Hour)
	got := from.exportAnyhow(true)
	for _, file := range from.out {
		to.load(onlyTheNote(file))
	}
	from.exportAnyhow(true) // a later round, of which the other side hears
	for _, file := range from.out {
		to.load(onlyTheNote(file))
	}
	from.out = nil
	to.exportAnyhow(true)
	w.carryAll(to, from)
	return got
}

// TestThreeTimesStopped: what was stopped twice leaves once more as it was; after the
// third time it leaves in two bundles.
func TestThreeTimesStopped(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.bank("jia"), w.bank("yi")
	ids := []string{w.submit(jia.host, "yi", 300), w.submit(jia.host, "yi", 500)}
	for times := range 3 {
		if got := w.lost(jia, yi); got.Bundles != 1 || got.Again != min(times, 1) {
			t.Fatalf("the time after %d: %+v", times, got)
		}
	}
	if got := w.lost(jia, yi); got.Bundles != 2 || got.Again != 0 {
		t.Fatalf("after three times: %+v", got)
	}
	good := &carrier{rng: rand.New(rand.NewPCG(1, 1))}
	w.ferried(good, good, jia, yi, 9)
	yi.delivered(ids...)
}

// TestPackedAnewWithoutWhatCannotBeRead: a document that cannot be read any more when its
// bundle is taken apart is not taken for one that arrived.
func TestPackedAnewWithoutWhatCannotBeRead(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.bank("jia"), w.bank("yi")
	bad, good := w.submit(jia.host, "yi", 300), w.submit(jia.host, "yi", 500)
	w.lost(jia, yi)
	w.lost(jia, yi)
	hh, err := sm.ParseDigest(jia.headerOf(bad))
	w.must(err)
	w.must(jia.store.Update(w.ctx, func(tx queue.Tx) error { return tx.Delete(records.Headers.Key(hh)) }))
	jia.board()
	w.lost(jia, yi)
	for range 4 {
		w.clock = w.clock.Add(time.Hour)
		for _, way := range [][2]*bank{{jia, yi}, {yi, jia}} {
			way[0].exportAnyhow(true)
			w.carryAll(way[0], way[1])
		}
	}
	yi.delivered(good)
	if jia.backlogOf() != 1 || jia.outstanding() != 0 {
		t.Errorf("%d wait and %d bundles are outstanding", jia.backlogOf(), jia.outstanding())
	}
	if q := jia.quarantined(); len(q) != 1 || !strings.Contains(q[0], "stored copy unreadable") {
		t.Errorf("shown: %v", q)
	}
}

// TestKeptBytesThatAreGone: a disk that lost the bytes of a bundle, or some of them,
// stops no export; what was in it is packed anew, and it is shown.
func TestKeptBytesThatAreGone(t *testing.T) {
	harm := map[string]func(kept shed, name string){
		"missing": func(kept shed, name string) { delete(kept, name) },
		"short":   func(kept shed, name string) { kept[name] = kept[name][:len(kept[name])/2] },
	}
	for name, damage := range harm {
		for when, left := range map[string]bool{"lost on its way": true, "never left": false} {
			t.Run(name+", "+when, func(t *testing.T) {
				w := newWorld(t)
				jia, yi := w.bank("jia"), w.bank("yi")
				ids := []string{w.submit(jia.host, "yi", 300), w.submit(jia.host, "yi", 9<<20), w.submit(jia.host, "yi", 500)}
				if w.must(jia.ferry.packAll(w.ctx, 1<<20, 1<<20)); left {
					w.lost(jia, yi)
				}
				damage(jia.kept, slices.Sorted(maps.Keys(jia.kept))[0])
				ids = append(ids, w.submit(jia.host, "yi", 700))
				jia.board()
				good := &carrier{rng: rand.New(rand.NewPCG(1, 1))}
				w.ferried(good, good, jia, yi, 9)
				yi.delivered(ids...)
				if q := jia.quarantined(); len(q) != 1 || q[0] != "bundle: "+node.ReasonStored {
					t.Errorf("shown: %v", q)
				}
				if len(jia.kept) > 0 {
					t.Errorf("%d bundles are kept", len(jia.kept))
				}
				jia.tallied()
			})
		}
	}
}
