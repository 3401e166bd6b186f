package model

import (
	"fmt"
	"slices"
	"time"
)

// Item is what a bundle carries of a document: one of its items, or the request
// about it (Part -1).
type Item struct {
	Document *Document
	Rank     int
	Part     int
	Size     int64
}

// Bundle is one under way.
type Bundle struct {
	Items []Item
	at    []place // of each item's entry
}

type place struct {
	rank int
	seq  uint64
}

func (i Item) place() place {
	if i.Part < 0 {
		return place{Requests, i.Document.Request.Seq}
	}
	return place{i.Rank, i.Document.Entry.Seq}
}

// candidate is an item that may go next; sure when it must go before the others.
type candidate struct {
	Item
	sure bool
}

// Fill holds a bundle against what may be in it: most urgent first, each rank in the
// order of its lane, as much as fits, something of each rank in ten bundles, and
// nothing that is held back, elsewhere, or in another bundle.
func (m *Engine) Fill(items []Item, room int64, most int, under []*Bundle, sizes map[string]int64, now time.Time) (*Bundle, error) {
	if m.Held && len(items) > 0 {
		return nil, fmt.Errorf("a held link gives %d items", len(items))
	}
	b := &Bundle{Items: items}
	var size, largest, second int64
	for i, it := range items {
		if i > 0 && it.Rank > items[i-1].Rank {
			return nil, fmt.Errorf("rank %d leaves behind rank %d", it.Rank, items[i-1].Rank)
		}
		b.at = append(b.at, it.place())
		size += it.Size
		switch {
		case it.Size > largest:
			largest, second = it.Size, largest
		case it.Size > second:
			second = it.Size
		}
	}
	if size-largest-second > room || len(items) > most+2 {
		return nil, fmt.Errorf("%d items of %d bytes, for %d bytes", len(items), size, room)
	}
	if m.Held {
		return b, nil
	}
	return b, m.order(b, room-size, most-len(items), under, sizes, now)
}

// order matches each rank with its lane.
func (m *Engine) order(b *Bundle, room int64, most int, under []*Bundle, sizes map[string]int64, now time.Time) error {
	open := true // nothing above may have stopped the filling
	for rank := Ranks - 1; rank >= 0; rank-- {
		var mine []Item
		for _, it := range b.Items {
			if it.Rank == rank {
				mine = append(mine, it)
			}
		}
		all := m.candidates(rank, under, now)
		left, err := match(mine, all)
		if err != nil {
			return fmt.Errorf("rank %d: %w", rank, err)
		}
		waits := slices.ContainsFunc(all, func(c candidate) bool { return c.sure })
		if m.passed[rank]++; !waits || len(mine) > 0 {
			m.passed[rank] = 0
		}
		if m.passed[rank] >= Starving {
			return fmt.Errorf("%d bundles without any of rank %d", m.passed[rank], rank)
		}
		if !open || len(left) == 0 {
			continue
		}
		size, known := sizes[left[0].Name()]
		if left[0].sure && known && size <= room && most > 0 {
			return fmt.Errorf("rank %d: %d bytes and %d items are free, and the next has %d", rank, room, most, size)
		}
		if left[0].sure && len(mine) == 0 && !slices.ContainsFunc(b.Items, func(it Item) bool { return it.Rank > rank }) {
			return fmt.Errorf("rank %d is the most urgent that waits, and has nothing in the bundle", rank)
		}
		open = false
	}
	return nil
}

// Name is an item's, for what is known of its size.
func (i Item) Name() string { return fmt.Sprintf("%d/%d", i.Document.No, i.Part) }

// candidates are the items of a lane in their order.
func (m *Engine) candidates(rank int, under []*Bundle, now time.Time) (all []candidate) {
	var list []*Document
	for _, d := range m.Documents {
		if rank == Requests && d.Recall == Queued || rank == d.Rank && d.Remote.Place == Queued {
			list = append(list, d)
		}
	}
	entry := func(d *Document) *Entry {
		if rank == Requests {
			return &d.Request
		}
		return &d.Entry
	}
	slices.SortFunc(list, func(a, b *Document) int { return int(entry(a).Seq) - int(entry(b).Seq) })
	for _, d := range list {
		e := entry(d)
		at := place{rank, e.Seq}
		if now.Before(e.Pause.Least) || slices.ContainsFunc(under, func(b *Bundle) bool { return slices.Contains(b.at, at) }) {
			continue
		}
		sure := !now.Before(e.Pause.Most)
		if rank == Requests {
			all = append(all, candidate{Item{d, rank, -1, 0}, sure && !d.lost})
			continue
		}
		for part, known := range d.Items {
			if known != Done {
				all = append(all, candidate{Item{d, rank, part, 0}, sure && known == Due})
			}
		}
	}
	return all
}

// match finds items among candidates, none of which it passes that is sure, and
// gives what is left. What it passes of a document that goes on was noted.
func match(items []Item, all []candidate) (left []candidate, err error) {
	next := 0
	for _, it := range items {
		for next < len(all) && (all[next].Document != it.Document || all[next].Part != it.Part) {
			c := all[next]
			if c.sure {
				return nil, fmt.Errorf("item %s goes before %s", it.Name(), c.Name())
			}
			if c.Document == it.Document && c.Document.Items[c.Part] == Maybe {
				c.Document.Items[c.Part] = Done
			}
			next++
		}
		if next == len(all) {
			return nil, fmt.Errorf("item %s goes, which is taken, held back, or not there", it.Name())
		}
		if it.Part >= 0 {
			it.Document.Items[it.Part] = Due
		} else {
			it.Document.lost = false
		}
		next++
	}
	return all[next:], nil
}

// Offered notes that a bundle leaves; sure is false when it did not, and its mark may
// stand nevertheless.
func (m *Engine) Offered(b *Bundle, sure bool) {
	for i, at := range b.at {
		d := b.Items[i].Document
		first := i == 0 || b.at[i-1] != at
		if at.rank == Requests || !first {
			continue
		}
		if m.maybe[at.rank] = max(m.maybe[at.rank], at.seq); sure {
			m.mark[at.rank] = max(m.mark[at.rank], at.seq)
			d.Offers++
		}
		m.FateOf(d)
	}
}

// Answer is what the neighbour says of one item.
type Answer int

// The answers.
const (
	Silence   Answer = iota
	Taken            // or had before, or will judge later
	Damaged          // comes again after a pause
	Misses           // it misses what the item belongs to: all of it comes again
	Declined         // refused, and nobody signs an end: a dead letter
	Forbidden        // refused for good
)

// Answered notes what the neighbour said of a bundle. sure is false when the node
// failed meanwhile: then of each entry all was noted, or nothing.
func (m *Engine) Answered(b *Bundle, answers []Answer, sure bool, now time.Time) {
	for i := 0; i < len(b.Items); {
		j := i + 1
		for j < len(b.Items) && b.at[j] == b.at[i] {
			j++
		}
		d, said := b.Items[i].Document, answers[i:j]
		m.pause(d, b.at[i], said, now)
		if b.Items[i].Part < 0 {
			d.answerRequest(said[0], sure)
		} else {
			d.answer(b.Items[i:j], said, sure)
		}
		i = j
	}
}

// pause holds an entry back that met damage, and ends the pauses of another.
func (m *Engine) pause(d *Document, at place, said []Answer, now time.Time) {
	e := &d.Entry
	if at.rank == Requests {
		e = &d.Request
	} else if d.Remote.Place != Queued {
		return
	}
	if e.Seq != at.seq {
		return
	}
	if !slices.ContainsFunc(said, func(a Answer) bool { return a == Damaged || a == Misses }) {
		e.Pause = Pause{}
		return
	}
	bound := min(max(2*e.Pause.Bound, FirstPause), LastPause)
	e.Pause = Pause{bound, now.Add(bound / 2), now.Add(bound)}
}

func (d *Document) answerRequest(said Answer, sure bool) {
	switch {
	case said != Taken && said != Forbidden && said != Declined:
	case sure:
		d.Recall = Handed
	default:
		d.lost = true
	}
}

// answer enters what was said of the items of one document.
func (d *Document) answer(items []Item, said []Answer, sure bool) {
	if d.may == nil {
		d.may = []Spot{d.Remote}
	}
	before, refused := d.Items, Silence
	for k, a := range said {
		switch a {
		case Declined, Forbidden:
			refused = a
		case Misses:
			d.Items, d.Arrived = [ItemsOf]Known{}, [ItemsOf]bool{}
		case Taken:
			d.Items[items[k].Part], d.Arrived[items[k].Part] = Done, true
		}
	}
	if d.Remote.Place != Queued && d.Remote.Place != Parked {
		d.Items = before
		return
	}
	spot := d.Remote
	switch {
	case refused == Declined:
		if spot = (Spot{Place: Parked}); d.Offers <= 1 && d.Fate == Unknown {
			d.Fate = Perhaps // the only bundle that ever carried it was turned away
		}
	case refused == Forbidden:
		spot = Spot{Place: Refused}
	case !slices.Contains(d.Items[:], Due):
		spot = Spot{Place: Handed}
	}
	if sure && (spot.Place != Handed || !slices.Contains(d.Items[:], Maybe)) {
		d.may = []Spot{spot}
		return
	}
	if d.may = append(d.may, spot); sure {
		return
	}
	for k := range d.Items {
		if d.Items[k] != before[k] {
			d.Items[k] = Maybe
		}
	}
}
