package node

import (
	"fmt"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// TestManyNextHops: a document for more links than one transaction can enter
// reaches the lanes of all of them, in steps.
func TestManyNextHops(t *testing.T) {
	d := newDepot(t)
	hh, id := sm.Sum([]byte("document")), sm.Sum([]byte("consignment"))
	p := &parcel{hh: hh, id: id, env: &records.Envelope{Parts: 1}, routing: &exchange.Routing{Urgency: exchange.Normal}}
	const links = 450
	d.update(func(tx queue.Tx) (err error) {
		p.work, err = enqueueEntry(tx, laneWork, laneEntry{Envelope: hh, Object: id})
		if err != nil {
			return err
		}
		return records.Fans.Insert(tx, &records.Fan{Next: links, Work: p.work}, hh, id)
	})
	for at := 0; at < links; at += fanStep {
		d.update(func(tx queue.Tx) error {
			for i := at; i < min(at+fanStep, links); i++ {
				if err := gather(tx, p, fmt.Sprintf("link-%03d", i), []int{i}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	steps := 0
	for more := true; more; steps++ {
		d.update(func(tx queue.Tx) error {
			fan, err := records.Fans.Lock(tx, hh, id)
			if more = fan != nil; !more || err != nil {
				return err
			}
			return d.node.finishFan(tx, p, fan)
		})
	}
	if steps != links/fanStep+2 {
		t.Errorf("%d steps", steps)
	}
	d.update(func(tx queue.Tx) error {
		for i := range links {
			n, err := queue.Waiting(tx, laneName(fmt.Sprintf("link-%03d", i), 0))
			if err != nil || n != 1 {
				t.Fatalf("%d wait for link %d, %v", n, i, err)
			}
		}
		if n, err := queue.Waiting(tx, laneWork); n != 0 || err != nil {
			t.Errorf("%d in the lane of the work, %v", n, err)
		}
		return nil
	})
}

func (d *depot) update(fn func(queue.Tx) error) {
	d.Helper()
	if err := d.store.Update(d.ctx, fn); err != nil {
		d.Fatal(err)
	}
}

// TestWhomAnotherConsignmentCarriedOn names the recipients whose delivery this node
// must not end.
func TestWhomAnotherConsignmentCarriedOn(t *testing.T) {
	hh, mine, other := sm.Sum([]byte("document")), sm.Sum([]byte("mine")), sm.Sum([]byte("other"))
	lane := laneName("b", 0)
	cases := map[string]struct {
		id   sm.Digest
		out  records.Outbound
		mark uint64
		want bool
	}{
		"handed over":              {other, records.Outbound{State: records.StateHanded}, 0, true},
		"waits":                    {other, records.Outbound{State: records.StateQueued, Lane: lane, Seq: 2}, 1, false},
		"may have left":            {other, records.Outbound{State: records.StateQueued, Lane: lane, Seq: 2}, 2, true},
		"parked":                   {other, records.Outbound{State: records.StateParked}, 0, false},
		"parked after it left":     {other, records.Outbound{State: records.StateParked, Left: true}, 0, true},
		"declined":                 {other, records.Outbound{State: records.StateParked, Left: true, Declined: true}, 0, false},
		"its own":                  {mine, records.Outbound{State: records.StateHanded}, 0, false},
		"refused by the neighbour": {other, records.Outbound{State: records.StateRefused}, 0, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			d := newDepot(t)
			c.out.Recipients = []int{3}
			d.update(func(tx queue.Tx) error {
				if c.mark > 0 {
					if err := records.Offered.Insert(tx, &c.mark, lane); err != nil {
						return err
					}
				}
				return records.Outgoing.Insert(tx, &c.out, hh, "b", c.id)
			})
			for _, locks := range []bool{true, false} {
				look := d.store.View
				if locks {
					look = d.store.Update
				}
				if err := look(d.ctx, func(tx queue.Tx) error {
					got, err := carriedOn(tx, hh, mine, locks)
					if got[3] != c.want || got[2] {
						t.Errorf("%v, want %v", got, c.want)
					}
					return err
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
