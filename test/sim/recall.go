package sim

import (
	"slices"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// Senders recall documents, at any moment, and remind of them. A recall that was
// acknowledged is answered for every recipient: it is recalled, or a receipt
// says that it was too late. What is recalled can neither be read nor signed.

// ask lets the sender of a document recall it, or remind of it.
func (w *world) ask() {
	var sent []*submission
	for _, d := range w.docs {
		if d.id != "" {
			sent = append(sent, d)
		}
	}
	if len(sent) == 0 {
		return
	}
	d := sent[w.rng.IntN(len(sent))]
	wish := exchange.WishRecall
	if w.rng.IntN(3) == 0 {
		wish = exchange.WishRemind
	}
	w.guarded(d.host, func() {
		d.recalled = d.recalled || wish == exchange.WishRecall
		all, err := d.host.node.Ask(w.ctx, d.sender, d.id, node.Asking{Wish: wish, Actor: exchange.Actor{Name: "值班员"}})
		w.note("%s asks for %s of %s: %v", d.host.id, wish, d.id, err)
		if exchange.CodeOf(err) == exchange.CodeNotFound { // lost with a disk
			return
		}
		w.tolerate(err, "ask")
		if err == nil && wish == exchange.WishRecall {
			w.stats.Recalls++
			d.promised = len(all) > 0
		}
	})
}

// withdrawn says whether a delivery may stand at RECALLED, and does.
func (d *submission) withdrawn(r *exchange.RecipientState) bool {
	return d.recalled && r.Stage == exchange.StageRecalled
}

// unanswered names a recipient for whom a recall that was acknowledged has had no
// answer. A revoked key recalls nothing, and a refused header needs no recall.
func (w *world) unanswered(d *submission, t *node.Trace) string {
	if !d.promised || w.last != versionFirst {
		return ""
	}
	for _, r := range t.Recipients {
		refused := slices.ContainsFunc(t.Events, func(e node.Event) bool {
			return e.Stage == exchange.StageRecallRefused && slices.Contains(e.Recipients, r.Agency)
		})
		if !refused && r.Stage != exchange.StageRecalled && r.Stage != exchange.StageRejected {
			return r.Agency
		}
	}
	return ""
}

// checkWithdrawn: what was recalled is in no inbox, or shown there as recalled.
func (w *world) checkWithdrawn(d *submission, r *exchange.RecipientState) {
	items, err := w.hostOf(r.Agency).node.Inbox(w.ctx, r.Agency, 0, 10000)
	w.must(err, "inbox")
	for _, item := range items {
		if item.ID == d.id && item.Stage != exchange.StageRecalled {
			w.fail("I1: %s was recalled from %s, whose inbox says %s", d.id, r.Agency, item.Stage)
		}
	}
	w.stats.Recalled++
}
