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
	reasonWaits = "being_handed_on" // damaged: the neighbour keeps it and sends it again
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
	if gone, err := n.handedOn(tx, hh, id); err != nil || !gone {
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
	if err := askedAgain(tx, hh); err != nil {
		return false, err
	}
	_, err = n.leaf(tx, eventTaken, hh, id)
	return err == nil, err
}

// setOutAgain numbers a consignment that is new here once more if recipients of its were
// handed on from here before: it set out again, or was split on its way back.
func (n *Node) setOutAgain(tx queue.Tx, hh, id sm.Digest, con *records.Consignment, item *ConsignmentItem) error {
	forgotten, err := n.forgetHanded(tx, hh, item)
	switch {
	case err != nil || forgotten == 0:
		return err
	case item.Again >= maxComeback:
		return errLoop
	}
	con.Back = 1
	if err := records.Incoming.Put(tx, con, hh, id); err != nil {
		return err
	}
	return askedAgain(tx, hh)
}

var errLoop = errors.New("node: the document goes in a circle")

// handedOn says whether all that a consignment was for has left this node. While
// something of it may have, and no neighbour has said that it has it, nobody knows: the
// answer waits for that.
func (n *Node) handedOn(tx queue.Tx, hh, id sm.Digest) (gone bool, err error) {
	rows, err := outboundsOf(tx, hh, func(key sm.Digest, _ *records.Outbound) bool { return key == id })
	kept := false
	for _, r := range rows {
		out, err := records.Outgoing.Lock(tx, hh, r.link, r.id)
		if err != nil {
			return false, err
		}
		if out == nil { // it stood there a moment ago: somebody is changing it
			return false, errHandingOn
		}
		switch out.State {
		case records.StateHanded:
			gone = true
		case records.StateQueued:
			left, err := mayHaveLeft(tx, out)
			if err != nil {
				return false, err
			}
			if left && n.Way(r.link) != WayOut { // without a way back it is ours until a code comes
				return false, errHandingOn
			}
			kept = true
		case records.StateParked, records.StateGuarded:
			kept = true
		}
	}
	return gone && !kept, err
}

var errHandingOn = errors.New("node: the document is being handed on")

// outboundKey names a row of a document's.
type outboundKey struct {
	link string
	id   sm.Digest
}

func outboundsOf(tx queue.Tx, hh sm.Digest, want func(id sm.Digest, out *records.Outbound) bool) (rows []outboundKey, err error) {
	prefix := len(records.Outgoing.Key(hh))
	err = records.Outgoing.Each(tx, 0, func(key []byte, out *records.Outbound) bool {
		if id := lastDigest(key); want(id, out) {
			rows = append(rows, outboundKey{linkOf(key[prefix:]), id})
		}
		return len(rows) < maxConsignments
	}, hh)
	return rows, err
}

// forgetHanded removes what says that a neighbour answers for the recipients that came
// back: this node does, and it ends their deliveries if they end.
func (n *Node) forgetHanded(tx queue.Tx, hh sm.Digest, item *ConsignmentItem) (forgotten int, err error) {
	came := func(i int) bool { return item.Slot(i) != nil }
	rows, err := outboundsOf(tx, hh, func(_ sm.Digest, out *records.Outbound) bool {
		return out.State == records.StateHanded && slices.ContainsFunc(out.Recipients, came)
	})
	if err != nil {
		return 0, err
	}
	for _, r := range rows {
		out, err := records.Outgoing.Lock(tx, hh, r.link, r.id)
		if err != nil || out == nil || out.State != records.StateHanded {
			return forgotten, err
		}
		if out.Recipients = slices.DeleteFunc(out.Recipients, came); len(out.Recipients) == 0 {
			err = records.Outgoing.Delete(tx, hh, r.link, r.id)
		} else {
			err = records.Outgoing.Put(tx, out, hh, r.link, r.id)
		}
		if err != nil {
			return forgotten, err
		}
		forgotten++
	}
	return forgotten, nil
}

// askedAgain lets what the sender asked about the document follow it once more.
func askedAgain(tx queue.Tx, hh sm.Digest) error {
	var ids []sm.Digest
	err := records.Requests.Each(tx, maxAlike, func(key []byte, _ *records.Request) bool {
		ids = append(ids, lastDigest(key))
		return true
	}, hh)
	for _, id := range ids {
		if err == nil {
			_, err = enqueueEntry(tx, laneWork, laneEntry{Kind: KindRequest, Envelope: hh, Object: id})
		}
	}
	return err
}
