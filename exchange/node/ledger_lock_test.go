package node

import (
	"bytes"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// slowKeys sign like an HSM that hangs until it is released.
type slowKeys struct {
	Keys
	asked   chan struct{}
	release chan struct{}
}

func (k slowKeys) Sign(id sm.Digest, msg []byte) ([]byte, error) {
	k.asked <- struct{}{}
	<-k.release
	return k.Keys.Sign(id, msg)
}

// TestLinksGoOnWhileACheckpointIsSigned: what neighbours say of our ledger is
// noted, and the alarm answers, while an HSM hangs over a signature; and all who
// asked for one checkpoint get the same bytes.
func TestLinksGoOnWhileACheckpointIsSigned(t *testing.T) {
	s := newStation(t)
	s.send()
	keys := slowKeys{s.node.c.Keys, make(chan struct{}, 2), make(chan struct{})}
	s.node.c.Keys = keys
	heads := make(chan Head, 2)
	for range 2 {
		go func() {
			h, err := s.node.Head(s.ctx, "link")
			if err != nil {
				t.Error(err)
			}
			heads <- h
		}()
	}
	<-keys.asked
	<-keys.asked // neither waits for the other
	done := make(chan error, 1)
	go func() {
		if err := s.node.Alarm(); err != nil {
			t.Error(err)
		}
		done <- s.node.Seen(s.ctx, "link", Seen{Ledger: s.node.LedgerID(), Size: 1 << 40})
	}()
	select {
	case err := <-done:
		if err == nil || s.node.Alarm() == nil {
			t.Error("a neighbour that remembers more raises no alarm")
		}
	case <-time.After(10 * time.Second):
		t.Error("what a neighbour says waits for the HSM")
	}
	close(keys.release)
	if a, b := <-heads, <-heads; len(a.Checkpoint) == 0 || !bytes.Equal(a.Checkpoint, b.Checkpoint) {
		t.Error("two checkpoints of one size")
	}
}
