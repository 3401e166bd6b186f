package node

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// GiveUp ends a dead letter for good: FAILED, signed by this node, for all of
// its recipients, on its way to the sender. It is refused unless this node is
// certainly the one that answers for the delivery: nothing of it ever left, or
// the neighbour answered that it does not take it. The operator's reason goes
// to the sender, sealed.
//
// A receipt covers up to a hundred recipients, and each is one commit: dedup
// marks, receipt, its way home, what is left of the Outbound, and with the last
// of them the end of the dead letter and the leaf of the operator's act. A
// crash leaves the rest parked; to repeat the order ends it. Nobody gets two
// receipts: the marks decide.
func (n *Node) GiveUp(ctx context.Context, p Pick, who Who) error {
	if err := who.check(true); err != nil {
		return err
	}
	return n.endParked(ctx, p, ending{stage: exchange.StageFailed, state: records.StateFailed, who: &who})
}

// ending is how a dead letter ends; who is the operator who says so, nil when
// it ends by itself.
type ending struct {
	stage  exchange.Stage
	state  string
	who    *Who
	after  []sm.Digest // what it builds on
	reason string      // a code; empty: of an operator's, what the dead letter has
	text   string      // for the sender, sealed
}

func (n *Node) endParked(ctx context.Context, p Pick, how ending) error {
	for {
		g, err := n.doomed(ctx, p)
		if err != nil {
			return err
		}
		if g.step > 0 {
			if g.receipt, err = n.signEnd(g, how); err != nil {
				return err
			}
		}
		done, err := n.commitEnd(ctx, p, g, how)
		if done || err != nil && !errors.Is(err, errChanged) {
			return err
		}
	}
}

// errChanged: what a decision was made on is not so any more; it is made again.
var errChanged = errors.New("node: changed meanwhile")

// doomed is a dead letter that is to end, as it was looked at.
type doomed struct {
	entry   parkedItem
	out     *records.Outbound
	env     *records.Envelope
	header  *envelope.Envelope
	step    int      // how many of the recipients this commit ends
	names   []string // those of them that have no end yet, and nobody else's care
	carried map[int]bool
	receipt *signedReceipt
}

func (n *Node) doomed(ctx context.Context, p Pick) (*doomed, error) {
	g := new(doomed)
	err := n.view(ctx, func(tx queue.Tx) error {
		list, err := readParked(tx, parkedLane(p.Link), p.No-1, 1)
		if err != nil {
			return err
		}
		if p.No == 0 || len(list) == 0 || list[0].seq != p.No {
			return exchange.Fail(exchange.CodeNotFound, "%s is not parked", p)
		}
		g.entry = list[0]
		if g.out, err = records.Outgoing.Get(tx, g.entry.Envelope, p.Link, g.entry.Object); err != nil {
			return err
		}
		if g.env, err = records.Envelopes.Get(tx, g.entry.Envelope); err != nil {
			return err
		}
		if g.out == nil || g.env == nil || g.out.State != records.StateParked || g.out.Seq != p.No {
			return exchange.Fail(exchange.CodeNotFound, "%s is not parked", p)
		}
		if g.carried, err = carriedOn(tx, g.entry.Envelope, g.entry.Object, false); err != nil {
			return err
		}
		return answersFor(tx, g.out, p)
	})
	if err != nil {
		return nil, err
	}
	if g.header, err = n.loadHeader(ctx, g.entry.Envelope, g.env); err != nil {
		return nil, err
	}
	routing, err := exchange.ParseRouting(g.header.Header.Routing)
	if err != nil {
		return nil, err
	}
	if n.forgotten(routing) {
		return nil, fateUnknown(p)
	}
	g.step = min(fanStep, len(g.out.Recipients))
	for _, i := range g.out.Recipients[:g.step] {
		name := g.header.Header.Recipients[i].Agency
		if ended, err := n.isDelivered(ctx, g.entry.Envelope, name); err != nil {
			return nil, err
		} else if !ended && !g.carried[i] {
			g.names = append(g.names, name)
		}
	}
	return g, nil
}

// answersFor refuses to end what the neighbour may have.
func answersFor(tx queue.Tx, out *records.Outbound, p Pick) error {
	left, err := mayHaveLeft(tx, out)
	if left && err == nil {
		err = fateUnknown(p)
	}
	return err
}

func fateUnknown(p Pick) error {
	return exchange.Fail(exchange.CodeFateUnknown, "%s may have arrived at the neighbour, which did not answer", p)
}

// signEnd signs the end for the recipients of a step that have none yet; nil
// when all of them have one.
func (n *Node) signEnd(g *doomed, how ending) (*signedReceipt, error) {
	if len(g.names) == 0 {
		return nil, nil
	}
	body := &exchange.Receipt{Stage: how.stage, Envelope: g.env.ID, Header: g.entry.Envelope, Recipients: g.names, After: how.after, Reason: how.reason}
	text := how.text
	if how.who != nil {
		body.Reason, text = g.out.Reason, how.who.Reason
	}
	var detail []byte
	if text != "" {
		var err error
		if detail, err = n.sealDetail(g.entry.Envelope, g.env.Sender, Action{Reason: text}); err != nil {
			return nil, err
		}
		body.Detail = sm.Sum(detail).String()
	}
	r, err := n.nodeReceipt(n.Directory(), body)
	if err == nil {
		r.detail = detail
	}
	return r, err
}

// commitEnd is the commit point of one step; done says that it was the last.
func (n *Node) commitEnd(ctx context.Context, p Pick, g *doomed, how ending) (done bool, err error) {
	d := n.Directory()
	last := false // of the commit's own: after an error it may still be running
	err = n.update(ctx, func(tx queue.Tx) error {
		last = false
		out, err := records.Outgoing.Lock(tx, g.entry.Envelope, p.Link, g.entry.Object)
		if err != nil {
			return err
		}
		if out == nil || out.State != records.StateParked || out.Seq != p.No || !slices.Equal(out.Recipients, g.out.Recipients) {
			return errChanged
		}
		if err := answersFor(tx, out, p); err != nil {
			return err
		}
		carried, err := carriedOn(tx, g.entry.Envelope, g.entry.Object, true)
		if err != nil {
			return err
		}
		if !maps.Equal(carried, g.carried) {
			return errChanged
		}
		for _, name := range g.names {
			mark := &records.Dedup{Stage: how.stage, Receipt: g.receipt.id}
			if err := claim(tx, mark, g.header, name); errors.Is(err, queue.ErrExists) {
				return errChanged
			} else if err != nil {
				return err
			}
		}
		if g.receipt != nil {
			if _, err := n.putReceipt(tx, g.entry.Envelope, g.receipt, eventEnded); err != nil {
				return err
			}
			if err := n.homeward(tx, d, g.env.Sender, g.entry.Envelope, g.receipt.id); err != nil {
				return err
			}
		}
		out.Recipients = out.Recipients[g.step:]
		if last = len(out.Recipients) == 0; last {
			if err := n.buried(tx, p, g, out, how); err != nil {
				return err
			}
		}
		return records.Outgoing.Put(tx, out, g.entry.Envelope, p.Link, g.entry.Object)
	})
	if err != nil {
		return false, err
	}
	return last, nil
}

// buried takes a dead letter of which nobody is left out of the parked ones.
func (n *Node) buried(tx queue.Tx, p Pick, g *doomed, out *records.Outbound, how ending) error {
	out.State = how.state
	if err := leave(tx, p.Link, out.Lane, out.Seq, ended); err != nil || how.who == nil {
		return err
	}
	a := &records.OperatorAct{What: eventGivenUp, Link: p.Link, Item: p.String(), By: how.who.By, Reason: how.who.Reason}
	_, err := n.act(tx, &g.entry.Envelope, a)
	return err
}
