package sim

import (
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/timestamp"
	"github.com/yizhan-gateway/yizhan/crypto/timestamp/tsatest"
	"github.com/yizhan-gateway/yizhan/exchange/evidence"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// The timestamp authority of the simulation: up or down as the seed draws.

// stamp lets a node mark its checkpoint, and ask the authority about some of
// what waits when it is up. The power may go at every commit in between.
func (w *world) stamp(h *host) {
	up := w.rng.IntN(3) > 0
	w.guarded(h, func() {
		marked, err := h.node.MarkForStamp(w.ctx)
		w.tolerate(err, "mark")
		if marked {
			w.note("%s marks a checkpoint", h.id)
		}
		if !up {
			return
		}
		list, err := h.node.Unstamped(w.ctx, 1+w.rng.IntN(3))
		w.must(err, "unstamped")
		for _, u := range list {
			err := h.node.Stamped(w.ctx, u.Size, w.token(u))
			w.tolerate(err, "stamped")
			w.note("%s stamps %d: %v", h.id, u.Size, err)
		}
	})
}

// token is the authority's answer for a checkpoint.
func (w *world) token(u node.Unstamped) []byte {
	issuer := timestamp.Issuer{Signer: w.cast.tsa.WithRandom(w.stream), Policy: tsatest.Policy, Accuracy: time.Second}
	answer, err := issuer.Issue(&timestamp.Request{Imprint: u.Imprint, Nonce: []byte{1}, CertReq: true}, int64(u.Size), w.clock)
	w.must(err, "timestamp")
	token, err := timestamp.ParseResponse(answer)
	w.must(err, "timestamp")
	return token
}

// catchUp has everything stamped once the faults are over (I10).
func (w *world) catchUp(h *host) {
	_, err := h.node.MarkForStamp(w.ctx)
	w.must(err, "mark")
	list, err := h.node.Unstamped(w.ctx, 0)
	w.must(err, "unstamped")
	for _, u := range list {
		w.must(h.node.Stamped(w.ctx, u.Size, w.token(u)), "stamped")
	}
	waiting, _, err := h.node.Waiting(w.ctx)
	w.must(err, "waiting")
	if waiting != 0 {
		w.fail("I10: %d checkpoints of %s still wait", waiting, h.id)
	}
	w.checkStamps(h)
}

// checkStamps: nothing waits that has a token, and every token holds.
func (w *world) checkStamps(h *host) {
	err := h.store.View(w.ctx, func(tx queue.Tx) error {
		left := 0
		err := records.Unstamped.Each(tx, 0, func([]byte, *records.UnstampedRow) bool { left++; return true }, h.node.LedgerID())
		if err != nil {
			return err
		}
		if left != 0 {
			w.fail("I10: %d checkpoints of %s wait and are not counted", left, h.id)
		}
		return records.Stamps.Each(tx, 0, func(_ []byte, s *records.Stamp) bool {
			_, err := evidence.VerifyStamp(w.cast.directory, s.CMS, s.Token)
			w.must(err, "the stored timestamp")
			return true
		}, h.node.LedgerID())
	})
	w.must(err, "stamps")
}
