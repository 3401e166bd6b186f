package node

import (
	"slices"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// A node whose disk is nearly full begins no new work and finishes what it has
// begun: Config.Room is asked before a submission is sealed, before each of its
// parts is stored, and before a header, a consignment or a part is taken from a
// neighbour. Receipts, acks, directories and all that is done with documents
// that are here go on, since by them room comes back.
//
// A neighbour hears "damaged" with no_space: it keeps the item. What is asked of
// it then is a pause for all documents of the link, not one for each; its
// receipts pass. A node that does not know the reason pauses each entry, as for
// any other damage.

// reasonNoSpace tells the neighbour that documents are not taken at the moment.
const reasonNoSpace = exchange.CodeNoSpace

// room says why new work may not begin; nil when it may.
func (n *Node) room() error {
	if n.c.Room == nil {
		return nil
	}
	return n.c.Room()
}

// noRoom is the outcome of an item for which there is no room.
func (n *Node) noRoom() (out Outcome, full bool) {
	if n.room() == nil {
		return Outcome{}, false
	}
	return Outcome{Damaged, reasonNoSpace}, true
}

// turnedAway says that the neighbour has no room for an item.
func turnedAway(o Outcome) bool { return o.Status == Damaged && o.Reason == reasonNoSpace }

// spaceOf names the pause of a link whose neighbour has no room.
func spaceOf(link string) string { return "space/" + link }

// noteSpace keeps documents back when the neighbour has no room for them: once
// for each bundle, however many it turned away. The first document that it
// takes ends the pause.
func (n *Node) noteSpace(link string, outs []Out, outcomes []Outcome) {
	if slices.ContainsFunc(outcomes, turnedAway) {
		n.pauses.failed(spaceOf(link), 0, n.c.Now(), nil)
		return
	}
	for i, o := range outs {
		if o.Kind != KindReceipt && o.Kind != KindRequest && o.Kind != KindDirectory && has(outcomes[i]) {
			n.pauses.succeeded(spaceOf(link))
			return
		}
	}
}

// documentsWait says whether the documents of a link are to stay in their lanes,
// since the neighbour had no room a moment ago.
func (n *Node) documentsWait(link string) bool {
	return !n.pauses.ready(spaceOf(link), 0, n.c.Now())
}
