package node

import (
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// TestADamagedRowStopsNothingElse: a row that cannot be read, of a lane or of a
// record, is held back and shown once, and what waits beside it goes. It is
// never taken for one that is done.
func TestADamagedRowStopsNothingElse(t *testing.T) {
	for name, key := range map[string][]byte{
		"lane entry": queue.Key("lane", laneName(wire, 0), uint64(1)),
		"outbound":   records.Outgoing.Key(sm.Sum([]byte("1")), wire, sm.Sum([]byte("1"))),
		"envelope":   records.Envelopes.Key(sm.Sum([]byte("1"))),
		"digests":    records.Digests.Key(sm.Sum([]byte("1"))),
	} {
		t.Run(name, func(t *testing.T) {
			d := newDepot(t)
			d.wait(0, 2, 1000)
			d.damage(key)
			for range 5 {
				d.at = d.at.Add(2 * time.Minute)
				if outs := d.next(1<<20, 100); len(outs) != 1 {
					t.Fatalf("%d items go", len(outs))
				}
			}
			shown := ok[[]records.Quarantined](t)(d.node.Quarantined(d.ctx, 10))
			if len(shown) != 1 || shown[0].Reason != reasonStored {
				t.Fatalf("shown: %+v", shown)
			}
		})
	}
}

func (d *depot) damage(key []byte) {
	d.Helper()
	err := d.store.Update(d.ctx, func(tx queue.Tx) error {
		if _, err := tx.Lock(key); err != nil {
			return err
		}
		return tx.Put(key, []byte("{\"Kind\":"))
	})
	if err != nil {
		d.Fatal(err)
	}
}

// TestDamagedWorkIsShownAndKept: an entry of the work lane that cannot be read
// stays, is shown once an hour, and the others are done.
func TestDamagedWorkIsShownAndKept(t *testing.T) {
	d := newDepot(t)
	err := d.store.Update(d.ctx, func(tx queue.Tx) error {
		for i := range 2 {
			if _, err := enqueueEntry(tx, laneWork, laneEntry{Envelope: sm.Sum([]byte{byte(i)})}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	d.damage(queue.Key("lane", laneWork, uint64(1)))
	for range 5 {
		d.at = d.at.Add(2 * time.Minute)
		for {
			e, err := d.node.nextWork(d.ctx)
			if err != nil {
				t.Fatal(err)
			}
			if len(e) == 0 {
				break
			}
			_ = d.node.workOn(d.ctx, e[0]) // the damaged row, each time
		}
	}
	var left uint64
	err = d.store.View(d.ctx, func(tx queue.Tx) (err error) {
		left, err = queue.Waiting(tx, laneWork)
		return err
	})
	shown := ok[[]records.Quarantined](t)(d.node.Quarantined(d.ctx, 10))
	if err != nil || left != 1 || len(shown) != 1 {
		t.Errorf("%d entries are left, shown: %+v, %v", left, shown, err)
	}
	d.damage(records.Quarantine.Key(uint64(1)))
	d.at = d.at.Add(2 * time.Hour)
	d.node.ShowDamage(d.ctx, "work", errDamaged)
	if shown := ok[[]records.Quarantined](t)(d.node.Quarantined(d.ctx, 10)); len(shown) != 2 || shown[1].Reason != reasonStored {
		t.Errorf("a damaged record of the quarantine hides others: %+v", shown)
	}
}
