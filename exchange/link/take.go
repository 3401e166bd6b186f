package link

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"

	"github.com/yizhan-gateway/yizhan/exchange/node"
)

const (
	// smallPart is up to where a part is read into memory, so that documents
	// are taken in side by side; larger ones stream into the node.
	smallPart = 1 << 20
	// takeBytes bounds the parts that are in memory at once.
	takeBytes = FillBytes
)

// taking is a bundle whose items are being handed to the node. Items of one
// document, and each other item for itself, are a group: groups do not need
// one another and are handed over as node.Config.Together has it; within a
// group the order of the bundle is kept.
type taking struct {
	s        *Session
	b        *bundle
	outcomes []node.Outcome
	groups   [][]taken
	byName   map[string]int
	bytes    int64 // of parts in memory
}

type taken struct {
	at   int // in the manifest
	item node.Item
	data []byte    // what is in memory
	rest io.Reader // what is not
}

func (one taken) body() io.Reader {
	if one.rest != nil {
		return one.rest
	}
	return bytes.NewReader(one.data)
}

// takeItems hands the items to the node. Those that are not parts lie in the
// section; parts follow as a stream and are always read to their end, so that
// the next one begins where it should.
func (s *Session) takeItems(ctx context.Context, b *bundle) ([]node.Outcome, error) {
	t := &taking{s: s, b: b, outcomes: make([]node.Outcome, len(b.inner.Items)), byName: map[string]int{}}
	small := b.small
	for i, e := range b.inner.Items {
		one := taken{at: i, item: node.Item{Kind: e.Kind, ID: e.ID, Size: e.Size, Digest: e.Digest}}
		if e.Kind != node.KindPart || b.inner.Inside {
			one.data, small = small[:e.Size], small[e.Size:]
		}
		if err := t.take(ctx, one); err != nil {
			return t.outcomes, err
		}
	}
	return t.outcomes, t.flush(ctx)
}

// take hands over one item, now or with its group.
func (t *taking) take(ctx context.Context, one taken) error {
	switch {
	case one.item.Kind == node.KindDirectory: // what follows is judged by it
		return t.alone(ctx, one)
	case one.item.Kind == node.KindPart && one.data == nil && one.item.Size > smallPart:
		one.rest = io.LimitReader(t.b.rest, one.item.Size)
		return t.alone(ctx, one)
	case one.item.Kind == node.KindPart && one.data == nil:
		if t.bytes += one.item.Size; t.bytes > takeBytes {
			if err := t.flush(ctx); err != nil {
				return err
			}
			t.bytes = one.item.Size
		}
		data, err := io.ReadAll(io.LimitReader(t.b.rest, one.item.Size)) // what is missing is damage
		if err != nil {
			return err
		}
		one.data = data
	}
	name, _, _ := strings.Cut(one.item.ID, "/")
	if one.item.Kind == node.KindReceipt {
		name = "receipt " + name
	}
	k, known := t.byName[name]
	if !known {
		k = len(t.groups)
		t.groups, t.byName[name] = append(t.groups, nil), k
	}
	t.groups[k] = append(t.groups[k], one)
	return nil
}

// alone hands over an item after all that came before it.
func (t *taking) alone(ctx context.Context, one taken) error {
	if err := t.flush(ctx); err != nil {
		return err
	}
	if err := t.hand(ctx, one); err != nil || one.rest == nil {
		return err
	}
	_, err := io.Copy(io.Discard, one.rest)
	return err
}

func (t *taking) hand(ctx context.Context, one taken) error {
	out, err := t.s.node.Intake(ctx, t.s.link, one.item, one.body())
	if out, err = t.alive(ctx, one.item, out, err); err == nil {
		t.outcomes[one.at] = out
	}
	return err
}

// alive makes an outcome of trouble with what is stored of one document, which will
// not pass by itself: it is shown, and the neighbour holds that item back. As an
// error it would leave the whole bundle unanswered, whenever it comes.
func (t *taking) alive(ctx context.Context, item node.Item, out node.Outcome, err error) (node.Outcome, error) {
	if err == nil || !node.IsAboutOneItem(err) {
		return out, err
	}
	t.s.node.ShowDamage(ctx, item.Kind+" "+item.ID, err)
	return node.Outcome{Status: node.Damaged, Reason: node.ReasonStored}, nil
}

// flush hands over the groups. After trouble of our own the rest of a group is
// left unanswered; the neighbour sends it again.
func (t *taking) flush(ctx context.Context) error {
	failed := make([]error, len(t.groups))
	t.s.node.Together(len(t.groups), func(k int) {
		group := t.groups[k]
		if done, err := t.whole(ctx, group); done || err != nil {
			failed[k] = err
			return
		}
		for _, one := range group {
			if failed[k] = t.hand(ctx, one); failed[k] != nil {
				return
			}
		}
	})
	t.groups, t.bytes = nil, 0
	clear(t.byName)
	return errors.Join(failed...)
}

// whole hands over a document that lies in the bundle as a whole. With done
// false its items are to be handed over one by one.
func (t *taking) whole(ctx context.Context, group []taken) (done bool, err error) {
	if len(group) != 3 || group[0].item.Kind != node.KindHeader || group[1].item.Kind != node.KindConsignment || group[2].item.Kind != node.KindPart {
		return false, nil
	}
	done, err = t.s.node.IntakeWhole(ctx, t.s.link, node.Whole{
		Header: group[0].item, HeaderBytes: group[0].data,
		Consignment: group[1].item, ConsignmentBytes: group[1].data,
		Part: group[2].item, PartBytes: group[2].data,
	})
	if err != nil && node.IsAboutOneItem(err) {
		return false, nil // each item is answered for itself
	}
	if done && err == nil {
		for _, one := range group {
			t.outcomes[one.at] = node.Outcome{Status: node.Taken}
		}
	}
	return done, err
}
