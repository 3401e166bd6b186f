package node

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

// QueueItem is one entry of a link's lanes, as an operator sees it: never with
// a title. ID names a parked one to Requeue.
type QueueItem struct {
	ID         string          `json:"id"`
	State      string          `json:"state"` // queued or parked
	Link       string          `json:"link"`
	Rank       string          `json:"rank"`
	Kind       string          `json:"kind"` // document, or what else travels
	Document   string          `json:"document,omitempty"`
	Sender     string          `json:"sender,omitempty"`
	Recipients []string        `json:"recipients,omitempty"` // the first of them
	Count      int             `json:"recipient_count,omitempty"`
	Since      strictjson.Time `json:"since,omitzero"`
	Reason     string          `json:"reason,omitempty"`

	entry laneEntry
	to    []int
}

// The bounds of a list of items.
const (
	MaxQueueItems = 1000
	maxShown      = 20 // recipients of one
)

// QueueItems lists the entries of a link, or of all (""): the parked ones, and
// with waiting set those in its lanes as well, the most urgent first; at most
// limit of them.
func (n *Node) QueueItems(ctx context.Context, link string, waiting bool, limit int) (list []QueueItem, err error) {
	limit = min(limit, MaxQueueItems)
	err = n.view(ctx, func(tx queue.Tx) error {
		list = []QueueItem{}
		lanes, err := n.lanesToShow(tx, link, waiting)
		if err != nil {
			return err
		}
		for _, lane := range lanes {
			if list, err = n.appendItems(tx, list, lane, limit); err != nil || len(list) == limit {
				return err
			}
		}
		return nil
	})
	for i := range list {
		if err == nil {
			err = n.nameRecipients(ctx, &list[i])
		}
	}
	return list, err
}

func (n *Node) lanesToShow(tx queue.Tx, only string, waiting bool) (lanes []string, err error) {
	collect := func(prefix string) {
		for c, e := range queue.Counts(tx, prefix) {
			if e != nil {
				err = e
				return
			}
			link := strings.TrimPrefix(c.Lane, parkedPrefix)
			if out, _, ok := laneOf(c.Lane); ok {
				link = out
			}
			if c.Waiting > 0 && (only == "" || link == only) {
				lanes = append(lanes, c.Lane)
			}
		}
	}
	collect(parkedPrefix)
	if parked := len(lanes); waiting && err == nil {
		collect("out/")
		slices.Reverse(lanes[parked:]) // ranks rise with the names
	}
	return lanes, err
}

// appendItems adds what stands in a lane.
func (n *Node) appendItems(tx queue.Tx, list []QueueItem, lane string, limit int) ([]QueueItem, error) {
	if link, ok := strings.CutPrefix(lane, parkedPrefix); ok {
		after, _, err := queue.Front(tx, lane)
		if err != nil {
			return nil, err
		}
		parked, err := readParked(tx, lane, after, limit-len(list))
		for i := range parked {
			e := &parked[i]
			list = append(list, QueueItem{ID: Pick{link, e.seq}.String(), State: records.StateParked, Link: link, Rank: rankNames[e.Rank], entry: e.laneEntry})
		}
		return n.describe(tx, list, err)
	}
	link, rank, _ := laneOf(lane)
	entries, err := n.standing(tx, lane, limit-len(list))
	for _, e := range entries[:min(len(entries), limit-len(list))] {
		list = append(list, QueueItem{ID: fmt.Sprintf("%s/%s/%d", link, rankNames[rank], e.seq), State: records.StateQueued, Link: link, Rank: rankNames[rank], entry: e.laneEntry})
	}
	return n.describe(tx, list, err)
}

// describe fills in what the records say of the entries that have nothing yet.
func (n *Node) describe(tx queue.Tx, list []QueueItem, err error) ([]QueueItem, error) {
	for i := range list {
		q := &list[i]
		if err != nil || q.Kind != "" {
			continue
		}
		q.Kind, q.Since = q.entry.Kind, q.entry.Since
		if q.Kind == KindHeader {
			q.Kind = "document"
		}
		var env *records.Envelope
		if env, err = records.Envelopes.Get(tx, q.entry.Envelope); env != nil {
			q.Document, q.Sender = env.ID, env.Sender
		}
		if err != nil || q.entry.Kind != KindHeader {
			continue
		}
		var out *records.Outbound
		if out, err = records.Outgoing.Get(tx, q.entry.Envelope, q.Link, q.entry.Object); out != nil {
			q.Count, q.Reason = len(out.Recipients), out.Reason
			q.to = out.Recipients[:min(len(out.Recipients), maxShown)]
		}
	}
	return list, err
}

// nameRecipients reads the header for the recipients' codes. One that cannot
// be read is left without: it is in the quarantine.
func (n *Node) nameRecipients(ctx context.Context, q *QueueItem) error {
	if len(q.to) == 0 {
		return nil
	}
	env, err := n.envelopeRow(ctx, q.entry.Envelope)
	if err != nil || env == nil {
		return err
	}
	e, err := n.loadHeader(ctx, q.entry.Envelope, env)
	if err != nil {
		return ctx.Err()
	}
	for _, i := range q.to {
		q.Recipients = append(q.Recipients, e.Header.Recipients[i].Agency)
	}
	return nil
}
