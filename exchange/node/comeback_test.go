package node

import (
	"bytes"
	"errors"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// moving has rows of Outgoing that a scan sees and a lock finds gone: of another
// transaction that is changing them.
type moving struct{ queue.Tx }

func (m moving) Lock(k []byte) ([]byte, error) {
	if bytes.HasPrefix(k, records.Outgoing.Key()) {
		return nil, nil
	}
	return m.Tx.Lock(k)
}

// TestNobodyKnowsWhatIsMoving: where a consignment's row is changed at the same time,
// what comes back waits until it is known who has the document.
func TestNobodyKnowsWhatIsMoving(t *testing.T) {
	d := newDepot(t)
	hh, id := sm.Sum([]byte("header")), sm.Sum([]byte("consignment"))
	err := d.store.Update(d.ctx, func(tx queue.Tx) error {
		out := &records.Outbound{State: records.StateHanded, Recipients: []int{0}}
		if err := records.Outgoing.Insert(tx, out, hh, wire, id); err != nil {
			return err
		}
		if gone, err := d.node.handedOn(tx, hh, id); !gone || err != nil {
			t.Errorf("handed over: %t, %v", gone, err)
		}
		if _, err := d.node.handedOn(moving{tx}, hh, id); !errors.Is(err, errHandingOn) {
			t.Errorf("while its row moves: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
