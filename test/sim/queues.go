package sim

import (
	"bytes"
	"errors"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange/link"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// An operator at each node holds links and releases them, and requeues dead
// letters, of which there are many: a neighbour has little time. What he was
// told is so: a link that is held gives nothing out and takes nothing in until
// it is released, whatever happens to the node.

// deadLetterAfter is little enough for a storm, in which a call may take three
// seconds.
const deadLetterAfter = 2 * time.Second

var operator = node.Who{By: "值班员", Reason: "检修"}

// holding is what the operator knows of a link at a host.
type holding struct{ held, sure bool }

// operate lets the operator of a host hold a link, or release it.
func (w *world) operate(h *host, p *pair) {
	was := h.held(p.link)
	h.operator[p.link] = holding{} // until he is told
	act := h.node.HoldLink
	if was {
		act = h.node.ReleaseLink
	}
	w.guarded(h, func() {
		err := act(w.ctx, p.link, operator)
		w.tolerate(err, "hold or release")
		if err == nil {
			h.operator[p.link] = holding{!was, true}
			w.stats.Holds++
		}
		w.note("%s: link %s held: %v, %v", h.id, p.link, !was, err)
	})
}

// requeue puts dead letters of a host back into their lanes.
func (w *world) requeue(h *host) {
	w.guarded(h, func() {
		n, err := h.node.Requeue(w.ctx, node.Pick{}, operator, nil)
		w.tolerate(err, "requeue")
		w.stats.Requeued += n
		w.note("%s requeues %d", h.id, n)
	})
}

// held is what the node says of a link.
func (h *host) held(link string) bool {
	_, held := h.node.LinkHold(link)
	return held
}

// checkHolds: what the operator was told of a link is still so.
func (w *world) checkHolds(h *host) {
	for name, told := range h.operator {
		if told.sure && told.held != h.held(name) {
			w.fail("I1: link %s of %s was to be held: %v, and is not", name, h.id, told.held)
		}
	}
}

// receive hands a bundle to one side of a link. A held link takes no item.
func (w *world) receive(h *host, s *link.Session, b []byte) error {
	before, err := h.node.LinkBooks(w.ctx, s.Link())
	w.must(err, "books")
	_, err = s.Receive(w.ctx, bytes.NewReader(b))
	if !h.held(s.Link()) {
		w.tolerate(err, "receive")
		return err
	}
	after, e := h.node.LinkBooks(w.ctx, s.Link())
	w.must(e, "books")
	if after != before {
		w.fail("I1: held link %s of %s took items", s.Link(), h.id)
	}
	if errors.Is(err, link.ErrHeld) {
		w.stats.Held++
	} else {
		w.tolerate(err, "receive")
	}
	return err
}

// releaseAll ends all holds before the quiet phase.
func (w *world) releaseAll() {
	for _, h := range w.hosts {
		for _, p := range w.pairs {
			if !h.held(p.link) {
				continue
			}
			w.must(h.node.ReleaseLink(w.ctx, p.link, operator), "release")
			h.operator[p.link] = holding{false, true}
		}
	}
}
