package sim

import (
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// An operator gives up dead letters. His node does it only when the neighbour
// certainly does not have the delivery, so that what was given up never
// arrives, and the sender sees FAILED and no other end.

// wayOf names one delivery.
type wayOf struct{ document, agency string }

// givenUp is what came of an order: the operator was told that it is done, or
// was not told.
type givenUp struct{ sure bool }

// giveUp orders a host to give up one of its dead letters.
func (w *world) giveUp(h *host) {
	w.guarded(h, func() {
		list, err := h.node.QueueItems(w.ctx, "", false, 10)
		w.must(err, "queue items")
		if len(list) == 0 {
			return
		}
		q := list[w.rng.IntN(len(list))]
		pick, err := node.PickOf(q.ID)
		w.must(err, "pick")
		for _, agency := range q.Recipients { // until he is told
			w.given[wayOf{q.Document, agency}] = givenUp{}
		}
		err = h.node.GiveUp(w.ctx, pick, operator)
		w.note("%s gives up %s: %v", h.id, q.ID, err)
		if exchange.CodeOf(err) == exchange.CodeFateUnknown {
			w.stats.Unknown++
			for _, agency := range q.Recipients {
				delete(w.given, wayOf{q.Document, agency})
			}
			return
		}
		w.tolerate(err, "give up")
		if err != nil {
			return
		}
		w.stats.GivenUp++
		for _, agency := range q.Recipients {
			w.given[wayOf{q.Document, agency}] = givenUp{sure: true}
		}
	})
}

// ordered says whether an operator ordered to give up a delivery.
func (w *world) ordered(d *submission, agency string) bool {
	_, ordered := w.given[wayOf{d.id, agency}]
	return ordered
}

// failed says whether a delivery may stand at FAILED, and does.
func (w *world) failed(d *submission, r *exchange.RecipientState) bool {
	return w.ordered(d, r.Agency) && r.Stage == exchange.StageFailed
}

// forgetGivenUp: what an operator was told at a host may have been lost with its
// disk. What he was told of is as unknown as if he had not been.
func (w *world) forgetGivenUp(h *host) {
	for way := range w.given {
		if d := w.document(way.document); d == nil || d.host == h {
			w.given[way] = givenUp{}
		}
	}
}

// checkGivenUp: what an operator was told to have ended has ended, and what
// ended so has not arrived (I1).
func (w *world) checkGivenUp(d *submission, r *exchange.RecipientState) {
	if w.given[wayOf{d.id, r.Agency}].sure && r.Stage != exchange.StageFailed {
		w.fail("I1: %s was given up for %s and stands at %s", d.id, r.Agency, r.Stage)
	}
	if r.Stage == exchange.StageFailed && w.inboxCount(r.Agency, d.id) > 0 {
		w.fail("I1: %s was given up for %s, and has arrived", d.id, r.Agency)
	}
}
