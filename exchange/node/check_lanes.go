package node

import (
	"fmt"
	"strings"

	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// checkEntry: what stands in a lane is there, and knows that it stands there.
func checkEntry(c *check, tx queue.Tx, k *keyReader, b []byte) (string, error) {
	lane, seq := k.str(), k.num()
	c.stand[lane]++
	link, out := "", false
	if link, out = strings.CutPrefix(lane, parkedPrefix); !out {
		link, _, out = waitsIn(lane)
	}
	if !out && lane != laneWork { // of another part of the program
		return "", nil
	}
	e, err := value[laneEntry](b)
	if err != nil {
		return "", err
	}
	switch {
	case e.Kind == KindRequest:
		row, err := records.Requests.Get(tx, e.Envelope, e.Object)
		return missingRow("its request", row, err)
	case lane == laneWork && e.Kind == kindGuarded:
		env, err := records.Envelopes.Get(tx, e.Envelope)
		return missingRow("its envelope", env, err)
	case lane == laneWork:
		fan, err := records.Fans.Get(tx, e.Envelope, e.Object)
		if err == nil && fan != nil && fan.Work != seq {
			return "its consignment waits at another place", nil
		}
		return missingRow("its consignment", fan, err)
	case e.Kind == KindReceipt:
		row, err := records.Receipts.Get(tx, e.Envelope, e.Object)
		return missingRow("its receipt", row, err)
	case e.Kind == KindOwnHeader:
		env, err := records.Envelopes.Get(tx, e.Envelope)
		return missingRow("its envelope", env, err)
	case e.Kind != KindHeader:
		return fmt.Sprintf("kind %q is unknown", e.Kind), nil
	}
	o, err := records.Outgoing.Get(tx, e.Envelope, link, e.Object)
	if err == nil && o != nil && (o.Lane != lane || o.Seq != seq) {
		return fmt.Sprintf("its delivery stands at %s/%d", o.Lane, o.Seq), nil
	}
	return missingRow("its delivery", o, err)
}

// checkLane: the counts of a lane are those of what stands in it, and what a link
// carries has a book.
func checkLane(c *check, tx queue.Tx, k *keyReader, _ []byte) (string, error) {
	lane := k.str()
	n, err := queue.Waiting(tx, lane)
	if err != nil {
		return "unreadable", nil
	}
	if c.o.Still && n != c.stand[lane] {
		return fmt.Sprintf("it counts %d entries, and %d are there", n, c.stand[lane]), nil
	}
	link, isOut := linkOfLane(lane)
	if !isOut || n == 0 {
		return "", nil
	}
	book, err := tx.Get(records.OutBooks.Key(link))
	if err == nil && book == nil {
		return "the book of its link is missing", nil
	}
	return "", err
}

func checkFront(_ *check, tx queue.Tx, k *keyReader, _ []byte) (string, error) {
	if _, _, err := queue.Front(tx, k.str()); err != nil {
		return "unreadable", nil
	}
	return "", nil
}

// checkLedgerRow leaves leaves and nodes to the walk over the tree.
func checkLedgerRow(c *check, _ queue.Tx, k *keyReader, _ []byte) (string, error) {
	k.str()
	k.str()
	k.b = nil
	return "", nil
}
