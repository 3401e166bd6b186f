package link

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// again lets what left leave once more, wherever its files are.
func (b *bank) again(from, to uint64) (Exported, error) {
	b.w.t.Helper()
	return b.ferry.ExportAgain(b.w.ctx, b.limit, from, to, b.place)
}

// TestLapsesWithItsLastPart: a document in several bundles stays where it is while any
// of them may be confirmed, though the first have lapsed.
func TestLapsesWithItsLastPart(t *testing.T) {
	for name, confirmed := range map[string]bool{"confirmed": true, "not confirmed": false} {
		t.Run(name, func(t *testing.T) {
			w, jia, yi := oneWayWorld(t)
			id := w.submit(jia.host, "yi", 17<<20)
			whole := jia.limit
			jia.limit = Limits{FileBytes: 1, Files: 1}
			bundles := 0
			for got := jia.export(); got.Bundles > 0; got = jia.export() {
				w.clock = w.clock.Add(10 * 24 * time.Hour)
				bundles++
			}
			if bundles < 3 {
				t.Fatalf("%d bundles", bundles)
			}
			w.clock = w.clock.Add(5 * 24 * time.Hour) // more than 30 days after the first left
			jia.limit = whole
			jia.export()
			if st := jia.oneWay(); st.Ended == 0 || st.Ended == uint64(bundles) || jia.backlogOf() != 1 {
				t.Fatalf("%+v, %d wait", st, jia.backlogOf())
			}
			jia.balanced()
			if !confirmed {
				w.clock = w.clock.Add(40 * 24 * time.Hour)
				jia.export()
				w.wantStage(jia.host, id, "FERRIED "+exchange.ReasonNoWayBack)
			} else {
				w.carryAll(jia, yi)
				yi.delivered(id)
				if _, receipts, err := jia.confirm(yi.code().Code); err != nil || receipts != 1 {
					t.Fatal(receipts, err)
				}
				w.wantStage(jia.host, id, "CONFIRMED "+exchange.ReasonNoWayBack)
			}
			jia.balanced()
			if len(jia.kept) > 0 || jia.backlogOf() != 0 {
				t.Errorf("%d bundles are kept, %d things wait", len(jia.kept), jia.backlogOf())
			}
			jia.tallied()
		})
	}
}

// TestWhatCannotBeReadStopsNothing: nothing is said of a document of which a row is
// damaged, and it is shown; what is beside it is ferried, confirmed, and let go.
func TestWhatCannotBeReadStopsNothing(t *testing.T) {
	damages := map[string]func(tx queue.Tx, hh sm.Digest) error{
		"header": func(tx queue.Tx, hh sm.Digest) error { return tx.Delete(records.Headers.Key(hh)) },
		"outbound": func(tx queue.Tx, hh sm.Digest) error {
			for kv, err := range tx.Scan(records.Outgoing.Key(hh), nil, 1) {
				if err != nil {
					return err
				}
				return tx.Put(kv.Key, []byte("{"))
			}
			return nil
		},
	}
	for name, damage := range damages {
		for end, lapses := range map[string]bool{"confirmed": false, "lapsed": true} {
			t.Run(name+" "+end, func(t *testing.T) {
				w, jia, yi := oneWayWorld(t)
				bad, good := w.submit(jia.host, "yi", 3000), w.submit(jia.host, "yi", 4000)
				w.must(jia.ferry.packAll(w.ctx, 1<<20, 1<<20))
				hh, err := sm.ParseDigest(jia.headerOf(bad))
				w.must(err)
				w.must(jia.store.Update(w.ctx, func(tx queue.Tx) error { return damage(tx, hh) }))
				jia.board()
				for range 3 {
					jia.export()
				}
				later := w.submit(jia.host, "yi", 5000)
				jia.export()
				for _, id := range []string{good, later} {
					w.wantStage(jia.host, id, "FERRIED "+exchange.ReasonNoWayBack)
				}
				if q := jia.quarantined(); len(q) != 1 || !strings.Contains(q[0], "stored copy unreadable") {
					t.Errorf("shown: %v", q)
				}
				if lapses {
					w.clock = w.clock.Add(31 * 24 * time.Hour)
					jia.export()
					if st := jia.oneWay(); st.Ended != 2 || jia.backlogOf() != 0 {
						t.Errorf("%+v, %d wait", st, jia.backlogOf())
					}
					jia.balanced()
					return
				}
				w.carryAll(jia, yi)
				yi.delivered(bad, good, later)
				if bundles, receipts, err := jia.confirm(yi.code().Code); err != nil || bundles != 2 || receipts != 2 {
					t.Fatal(bundles, receipts, err)
				}
				for _, id := range []string{good, later} {
					w.wantStage(jia.host, id, "CONFIRMED "+exchange.ReasonNoWayBack)
				}
				jia.balanced()
			})
		}
	}
}

// TestNoWayHomeStopsNothing: a relay of which no way leads to the sender any more says
// FERRIED to itself, and goes on.
func TestNoWayHomeStopsNothing(t *testing.T) {
	last := oneWayLink
	last.OneWay = "yi"
	w := newWorld(t)
	var err error
	dir := t.TempDir()
	w.cast, err = newCastOver(filepath.Join(dir, "before"), last)
	w.must(err)
	w.must(w.cast.authority.AddRoute("bing", "jia", "yi"))
	w.cast.directory = w.publish()
	bing, relay := w.host("bing", "yi-bing", nil, nil), w.host("yi", "yi-bing", nil, nil)
	w.submit(bing, "jia", 3000)
	w.exchange(relay, bing)
	apart, err := castOf(filepath.Join(dir, "after"), []string{"jia", "yi", "bing"}, nil, []certs.Link{last}, nil)
	w.must(err)
	relay.shelf.inForce = apart.directory
	yi := &bank{host: relay, kept: shed{}, limit: Limits{FileBytes: 1 << 20, Files: 10}}
	yi.ferry, err = NewFerry(w.ctx, relay.node, "jia-yi", yi.kept)
	w.must(err)
	if got := yi.export(); got.Bundles == 0 {
		t.Fatalf("%+v", got)
	}
	if !slices.Contains(relay.events(), "ferried") {
		t.Errorf("nothing says that it left: %v", relay.events())
	}
	if got := yi.export(); got.Files != 0 {
		t.Errorf("it leaves again: %+v", got)
	}
	yi.booked()
}
