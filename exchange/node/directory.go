package node

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// KindDirectory is an item that brings a newer directory: the delta from the
// version that the neighbour has. Its id is the new version, decimal.
const KindDirectory = "directory"

// MaxDelta bounds a directory item, bytes: it must fit a bundle's sealed
// section. A larger step is not carried; the operator installs the file.
const MaxDelta = 6 << 20

// Directories is where directories are kept. Delta gives what leads from a
// version to the one in force; nil when that version is not kept or not older.
// From 0 it brings every entry.
// Take verifies a delta against the one in force, makes the result durable and
// brings it into force; an error of certs is about the delta, another one
// about ourselves.
type Directories interface {
	Delta(from uint64) ([]byte, error)
	Take(delta []byte) error
}

// shownState is what is remembered of the neighbours' directories, so that
// the store is asked once only.
type shownState struct {
	mu      sync.Mutex
	version map[string]uint64 // by link
	apart   map[string]apart  // by link
	refused map[string]string // what was refused last, by link and direction
	full    map[string]bool   // by link
	noted   uint64            // version of ours that the ledger speaks of
}

// apart is a step that cannot be carried over a link; it is shown once.
type apart struct{ from, to uint64 }

// ShownDirectory notes which directory a link's neighbour has in force, as its
// newest bundle says. A lower version than before counts too: a neighbour that
// was put back from a backup needs what it had once more, and a late bundle
// costs no more than one duplicate.
func (n *Node) ShownDirectory(ctx context.Context, link string, version uint64) error {
	known, err := n.neighbourVersion(ctx, link)
	if err != nil || known == version {
		return err
	}
	return n.noteVersion(ctx, link, version)
}

// noteVersion is a commit of its own: after a crash before it the neighbour's
// next bundle says the same.
func (n *Node) noteVersion(ctx context.Context, link string, version uint64) error {
	err := n.update(ctx, func(tx queue.Tx) error {
		row, err := records.Neighbours.Lock(tx, link)
		if err != nil {
			return err
		}
		if row == nil {
			return records.Neighbours.Insert(tx, &records.Neighbour{Directory: version}, link)
		}
		row.Directory = version
		return records.Neighbours.Put(tx, row, link)
	})
	if err != nil {
		return err
	}
	n.shown.mu.Lock()
	newer := version > n.shown.version[link]
	n.shown.version[link] = version
	n.shown.mu.Unlock()
	if newer { // what it refused, or could not be brought, may find another base
		n.pauses.succeeded(directoryLane(link))
	}
	return nil
}

// neighbourVersion is 0 as long as the neighbour has shown none.
func (n *Node) neighbourVersion(ctx context.Context, link string) (uint64, error) {
	n.shown.mu.Lock()
	version, known := n.shown.version[link]
	n.shown.mu.Unlock()
	if known {
		return version, nil
	}
	var row *records.Neighbour
	err := n.view(ctx, func(tx queue.Tx) (err error) {
		row, err = records.Neighbours.Get(tx, link)
		return err
	})
	if row == nil || err != nil {
		return 0, err
	}
	n.shown.mu.Lock()
	defer n.shown.mu.Unlock()
	n.shown.version[link] = row.Directory
	return row.Directory, nil
}

func directoryLane(link string) string { return "directory/" + link }

// refusedPause is how long a neighbour that takes no directory is left alone.
const refusedPause = time.Hour

// adoptedPause is how long a neighbour that has a directory is not sent it
// again although it still shows an older one.
const adoptedPause = time.Minute

// addDirectory puts the newer directory before everything else that goes to a
// neighbour whose directory is older: what follows is judged by it.
func (n *Node) addDirectory(ctx context.Context, link string, b *batch, except map[place]bool) error {
	if n.c.Directories == nil {
		return nil
	}
	theirs, err := n.neighbourVersion(ctx, link)
	ours := n.Directory().Version()
	o := Out{lane: directoryLane(link), seq: ours}
	if err != nil || theirs == 0 || theirs >= ours || except[place{o.lane, o.seq}] || !n.pauses.ready(o.lane, o.seq, n.c.Now()) {
		return err
	}
	delta, err := n.c.Directories.Delta(theirs)
	if delta == nil && err == nil { // not kept here: bring every entry
		delta, err = n.c.Directories.Delta(0)
	}
	if err != nil {
		return err
	}
	if delta == nil || len(delta) > MaxDelta {
		n.pauses.hold(o.lane, o.seq, n.c.Now(), refusedPause)
		return n.showApart(ctx, link, apart{theirs, ours}, len(delta))
	}
	b.first = append(b.first, smallItem(o, KindDirectory, strconv.FormatUint(ours, 10), delta))
	b.room -= int64(len(delta))
	b.items--
	return nil
}

// showApart tells the operator, once, that a neighbour's directory cannot be
// brought up to date over the link.
func (n *Node) showApart(ctx context.Context, link string, a apart, size int) error {
	n.shown.mu.Lock()
	again := n.shown.apart[link] == a
	n.shown.apart[link] = a
	n.shown.mu.Unlock()
	if again {
		return nil
	}
	reason := fmt.Sprintf("no update from version %d of the neighbour to %d is here: install version %d there from its file", a.from, a.to, a.to)
	if size > 0 {
		reason = fmt.Sprintf("a delta of %d bytes, at most %d are carried: install version %d there from its file", size, MaxDelta, a.to)
	}
	return n.Quarantine(ctx, link, KindDirectory, reason, nil)
}

// settleDirectory notes what the neighbour did with the directory item.
func (n *Node) settleDirectory(ctx context.Context, link string, o Out, outcome Outcome) error {
	switch {
	case has(outcome):
		// It may have it and wait for keys of its own before it is in force:
		// its bundles then go on showing the older one.
		err := n.noteVersion(ctx, link, o.seq)
		n.pauses.hold(o.lane, o.seq, n.c.Now(), adoptedPause)
		return err
	case outcome.Status == Refused:
		n.pauses.hold(o.lane, o.seq, n.c.Now(), refusedPause)
		return n.showRefused(ctx, link, o.ID, "refused by the neighbour: "+outcome.Reason, nil)
	}
	return nil // damaged: the pause is noted already
}

// showRefused tells the operator once of a directory that was refused for one
// reason, however often it comes or goes.
func (n *Node) showRefused(ctx context.Context, link, id, reason string, sample []byte) error {
	direction := link + " in"
	if sample == nil {
		direction = link + " out"
	}
	key := id + " " + reason
	n.shown.mu.Lock()
	again := n.shown.refused[direction] == key
	n.shown.refused[direction] = key
	n.shown.mu.Unlock()
	if again {
		return nil
	}
	return n.Quarantine(ctx, link, KindDirectory+" "+id, reason, sample)
}

// intakeDirectory takes a newer directory from a neighbour. Who carries it
// does not matter: the authority's signature and the approvals decide, and a
// version that is not newer changes nothing. It is durable when Take returns;
// a crash before the acknowledgement lets it come again as a duplicate. What is
// judged and not right is refused for good, and shown once.
func (n *Node) intakeDirectory(ctx context.Context, link string, it Item, b []byte) (Outcome, error) {
	if n.c.Directories == nil {
		return Outcome{Refused, "unknown_kind"}, nil
	}
	version, err := strconv.ParseUint(it.ID, 10, 64)
	if err != nil || strconv.FormatUint(version, 10) != it.ID {
		return n.damaged(ctx, link, it, "unparsable", b)
	}
	before := n.Directory().Version()
	if version <= before {
		return Outcome{Duplicate, ""}, nil
	}
	err = n.c.Directories.Take(b)
	var bad *certs.Error
	switch {
	case errors.Is(err, certs.ErrRollback):
		return Outcome{Duplicate, ""}, nil
	case errors.As(err, &bad):
		// The bytes are those that were sent: the same would come again.
		return Outcome{Refused, bad.Code}, n.showRefused(ctx, link, it.ID, bad.Code, b)
	case err != nil:
		return Outcome{}, err
	}
	if n.Directory().Version() <= before { // what it holds is not what its id says
		return Outcome{Duplicate, ""}, nil
	}
	n.Wake()
	return Outcome{Taken, ""}, nil
}

// noteDirectory writes into the ledger that another directory is in force.
// The directory itself is no row of the store, so that this is a step of its
// own: after a crash between the two the next step writes it. fresh says that
// it did.
func (n *Node) noteDirectory(ctx context.Context) (fresh bool, err error) {
	d := n.Directory()
	n.shown.mu.Lock()
	done := n.shown.noted == d.Version()
	n.shown.mu.Unlock()
	if done {
		return false, nil
	}
	var noted *uint64
	err = n.view(ctx, func(tx queue.Tx) (err error) {
		noted, err = records.InForce.Get(tx)
		return err
	})
	if err == nil && (noted == nil || *noted != d.Version()) {
		fresh, err = true, n.noteInForce(ctx, d)
	}
	if err != nil {
		return false, err
	}
	n.shown.mu.Lock()
	defer n.shown.mu.Unlock()
	n.shown.noted = d.Version()
	return fresh, nil
}

func (n *Node) noteInForce(ctx context.Context, d *certs.Directory) error {
	return n.update(ctx, func(tx queue.Tx) error {
		noted, err := records.InForce.Lock(tx)
		if err != nil || noted != nil && *noted == d.Version() {
			return err
		}
		version := d.Version()
		if noted == nil {
			err = records.InForce.Insert(tx, &version)
		} else {
			err = records.InForce.Put(tx, &version)
		}
		if err != nil {
			return err
		}
		_, err = n.append(tx, &merkle.Leaf{Event: eventDirectory, Object: d.ID(), At: n.now()})
		return err
	})
}
