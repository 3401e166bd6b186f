package link

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

func (h *host) check() *node.CheckReport {
	h.w.t.Helper()
	r, err := h.node.Check(h.w.ctx, node.CheckOptions{ReadData: true, Still: true})
	h.w.must(err)
	return r
}

// busy makes two nodes with documents in every state: waiting, parked, handed
// over, delivered, signed for, returned, refused, and after a loss.
func (w *world) busy() (jia, yi *host) {
	jia, yi = w.pair()
	backup := yi.store.clone()
	first, second := w.submit(jia, "yi", 100), w.submit(jia, "yi", 3<<20)
	sent := w.submit(yi, "jia", 200)
	w.submit(yi, "yi", 50_000)
	w.exchange(jia, yi)
	yi.signFor(first)
	_, err := yi.node.Act(w.ctx, w.cast.agencies["yi"], second, node.Action{Stage: exchange.StageReturned, Actor: exchange.Actor{Name: "值班员"}, Reason: "重复"})
	w.must(err)
	jia.signFor(sent)
	w.exchange(jia, yi)
	yi = w.afterDiskLoss(yi, backup)
	w.replayed(jia, yi)
	w.submit(jia, "yi", 300) // waits
	w.submit(yi, "jia", 300)
	w.must(jia.node.HoldLink(w.ctx, "jia-yi", node.Who{By: "值班员", Reason: "检修"}))
	w.must(jia.node.Quarantine(w.ctx, "jia-yi", "bundle", "damaged", nil))
	return jia, yi
}

// TestCheckFindsNothingWhereNothingIs: nodes in the middle of their work are
// whole.
func TestCheckFindsNothingWhereNothingIs(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.busy()
	for _, h := range []*host{jia, yi} {
		r := h.check()
		if !r.OK || r.Found != 0 || len(r.Problems) != 0 {
			t.Errorf("%s: %+v", h.id, r.Problems)
		}
		if r.Checked["leaf"] == 0 || r.Checked["rcp"] == 0 || r.Checked["env"] == 0 || r.Bytes == 0 {
			t.Errorf("%s: nearly nothing was looked at: %+v, %d bytes", h.id, r.Checked, r.Bytes)
		}
	}
}

// unmissed are the tables of which a single row may be gone without any other
// row speaking of it: memories, counts, marks, and what only waits.
var unmissed = []string{
	"act", "bok", "cfl", "dirv", "fork", "head", "hold", "idm", "inc", "lane#", "lane^", "nbr", "node", "off", "out", "pdg", "qua", "quc", "rst", "rsh", "rpl", "rpg", "fan", "ddp", "stb", "stp", "sts", "stw", "dfr", "dfw",
}

// TestCheckNamesWhatIsDamaged: each row in turn is made unreadable, and is
// named; each is taken away, and is missed by another, but for a few tables.
func TestCheckNamesWhatIsDamaged(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.busy()
	tables := map[string]bool{}
	for _, h := range []*host{jia, yi} {
		for _, key := range slices.Sorted(maps.Keys(h.store.rows)) {
			table, _, _ := strings.Cut(key, "\x00")
			tables[table] = true
			whole := h.store.rows[key]
			h.store.rows[key] = []byte("{")
			r := h.check()
			if r.OK && !bytes.Equal(whole, []byte("{")) {
				t.Errorf("%s: an unreadable row of %s (%q) is not noticed", h.id, table, key)
			}
			delete(h.store.rows, key)
			if !slices.Contains(unmissed, table) {
				if r = h.check(); r.OK {
					t.Errorf("%s: a missing row of %s (%q) is not noticed", h.id, table, key)
				}
			}
			h.store.rows[key] = whole
		}
		if r := h.check(); !r.OK {
			t.Fatalf("%s is not whole again: %+v", h.id, r.Problems)
		}
	}
	if len(tables) < 24 {
		t.Errorf("only %v were tried", tables)
	}
}

// TestCheckNamesDamagedBlobs: a blob that is gone, and one with other bytes.
func TestCheckNamesDamagedBlobs(t *testing.T) {
	w := newWorld(t)
	jia, _ := w.busy()
	var refs []queue.Ref
	w.must(jia.store.View(w.ctx, func(tx queue.Tx) error {
		return records.BlobOwners.Each(tx, 0, func(key []byte, _ *records.Owner) bool {
			refs = append(refs, queue.Ref(records.BlobOwners.Name(key)))
			return true
		})
	}))
	if len(refs) < 2 {
		t.Fatalf("%d blobs", len(refs))
	}
	w.must(jia.blobs.Delete(w.ctx, refs[0]))
	r := jia.check()
	if r.OK || !strings.Contains(r.Problems[0].What, string(refs[0])) {
		t.Errorf("%+v", r.Problems)
	}
	if strings.Contains(strings.Join(kinds(r), " "), "通知") {
		t.Error("a title is shown")
	}
}

func kinds(r *node.CheckReport) (list []string) {
	for _, p := range r.Problems {
		list = append(list, p.Table+" "+p.Key+" "+p.What)
	}
	return list
}
