package node

import (
	"errors"
	"slices"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// The routes of one directory lead in no circle, but those of two may, at nodes of
// which one has not heard of the newer yet: then a document comes back to a node that
// has passed it on. Answered as a duplicate it would be nobody's. So the node takes it
// once more and passes it on as its directory says now; consignments that set out
// again are numbered, so that those behind do not take them for what they had.

// reasonLoop refuses a document that came back too often: whoever has it keeps it,
// among the dead letters, until somebody has looked at the routes.
const (
	reasonLoop  = "loop"
	maxComeback = 8
)

// comesBack takes a consignment that is here under its digest, if it came over another
// link before and has been handed on since. A crash before the commit lets the
// neighbour send it again.
func (n *Node) comesBack(tx queue.Tx, hh, id sm.Digest, link string, item *ConsignmentItem) (bool, error) {
	con, err := records.Incoming.Lock(tx, hh, id)
	if err != nil || con == nil || con.Link == link {
		return false, err
	}
	if fan, err := records.Fans.Lock(tx, hh, id); err != nil || fan != nil {
		return false, err
	}
	if gone, err := handedOn(tx, hh, id); err != nil || !gone {
		return false, err
	}
	if item.Again+con.Back >= maxComeback {
		return false, errLoop
	}
	con.Link, con.Back = link, con.Back+1
	if err := records.Incoming.Put(tx, con, hh, id); err != nil {
		return false, err
	}
	if _, err := n.forgetHanded(tx, hh, item); err != nil {
		return false, err
	}
	fan := new(records.Fan)
	if err := startFan(tx, hh, id, fan); err != nil {
		return false, err
	}
	if err := records.Fans.Insert(tx, fan, hh, id); err != nil {
		return false, err
	}
	_, err = n.leaf(tx, eventTaken, hh, id)
	return err == nil, err
}

// setOutAgain numbers a consignment that set out again, and is new here, once more if
// its document was handed on from here before.
func (n *Node) setOutAgain(tx queue.Tx, hh, id sm.Digest, con *records.Consignment, item *ConsignmentItem) error {
	forgotten, err := n.forgetHanded(tx, hh, item)
	switch {
	case err != nil || forgotten == 0:
		return err
	case item.Again >= maxComeback:
		return errLoop
	}
	con.Back = 1
	return records.Incoming.Put(tx, con, hh, id)
}

var errLoop = errors.New("node: the document goes in a circle")

// handedOn says whether all that a consignment was for has left this node.
func handedOn(tx queue.Tx, hh, id sm.Digest) (gone bool, err error) {
	kept := false
	err = records.Outgoing.Each(tx, 0, func(key []byte, out *records.Outbound) bool {
		if lastDigest(key) == id {
			gone = gone || out.State == records.StateHanded
			kept = kept || slices.Contains([]string{records.StateQueued, records.StateParked, records.StateGuarded}, out.State)
		}
		return !kept
	}, hh)
	return gone && !kept, err
}

// forgetHanded removes what says that a neighbour answers for the recipients that came
// back: this node does, and it ends their deliveries if they end.
func (n *Node) forgetHanded(tx queue.Tx, hh sm.Digest, item *ConsignmentItem) (int, error) {
	type row struct {
		link string
		id   sm.Digest
	}
	var rows []row
	prefix := len(records.Outgoing.Key(hh))
	err := records.Outgoing.Each(tx, 0, func(key []byte, out *records.Outbound) bool {
		stays := slices.ContainsFunc(out.Recipients, func(i int) bool { return item.Slot(i) == nil })
		if out.State == records.StateHanded && !stays {
			rows = append(rows, row{linkOf(key[prefix:]), lastDigest(key)})
		}
		return len(rows) < maxConsignments
	}, hh)
	for _, r := range rows {
		if err == nil {
			err = records.Outgoing.Delete(tx, hh, r.link, r.id)
		}
	}
	return len(rows), err
}
