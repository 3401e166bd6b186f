package sim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/durable/crashfs"
	"github.com/yizhan-gateway/yizhan/queue"
	"github.com/yizhan-gateway/yizhan/queue/blob"
)

// backup is what a copy of a host's data holds: all rows of one moment, and the
// blobs that they refer to.
type backup struct {
	rows       map[string][]byte
	keys       []string
	blobs      map[queue.Ref][]byte
	generation uint32
	operator   map[string]holding
	has        map[*submission]bool // accepted by then
}

func (w *world) backup(h *host) *backup {
	b := &backup{
		rows: maps.Clone(h.store.rows), keys: slices.Clone(h.store.keys), blobs: map[queue.Ref][]byte{},
		generation: h.blobs.Generation(), operator: maps.Clone(h.operator), has: map[*submission]bool{},
	}
	err := h.store.View(w.ctx, func(tx queue.Tx) error {
		return records.BlobOwners.Each(tx, 0, func(key []byte, _ *records.Owner) bool {
			ref := queue.Ref(records.BlobOwners.Name(key))
			r, err := h.blobs.Open(w.ctx, ref, 0)
			w.must(err, "back up a blob")
			b.blobs[ref], err = io.ReadAll(r)
			w.must(errors.Join(err, r.Close()), "back up a blob")
			return true
		})
	})
	w.must(err, "back up "+h.id)
	for _, d := range w.docs {
		b.has[d] = d.host == h && d.id != ""
	}
	w.note("%s is backed up: %d rows, %d blobs", h.id, len(b.keys), len(b.blobs))
	return b
}

// loss is what was on a disk and in no backup.
type loss struct {
	host *host
	*backup
	taken map[*submission]bool // the neighbour had all of it
}

// loseDisk destroys a host's disk and starts it again from a backup.
func (w *world) loseDisk(h *host, b *backup) *loss {
	l := &loss{host: h, backup: b, taken: map[*submission]bool{}}
	for _, d := range w.docs {
		l.taken[d] = d.host == h && d.id != "" && w.complete(w.hosts[1-indexOf(w.hosts, h)], d)
	}
	armed := w.faults.armed
	w.faults.armed = false
	h.fs = crashfs.New(w.rng)
	h.store = newStore(h.now, w.faults)
	h.store.rows, h.store.keys = maps.Clone(b.rows), slices.Clone(b.keys)
	h.operator = maps.Clone(b.operator)
	blobs, err := blob.OpenAbove(h.fs, "/blobs", b.generation)
	w.must(err, "open blobs to restore")
	for _, ref := range slices.Sorted(maps.Keys(b.blobs)) {
		w.must(blobs.Adopt(w.ctx, ref, bytes.NewReader(b.blobs[ref])), "restore a blob")
	}
	h.enrol()
	h.torn = true
	h.boot()
	_, err = h.node.BeginAgain(w.ctx)
	w.must(err, "begin again")
	h.boot()
	w.faults.armed = armed
	w.forgetGivenUp(h)
	w.note("%s has lost its disk and is restored", h.id)
	return l
}

// complete says whether a host has taken a document over.
func (w *world) complete(h *host, d *submission) (all bool) {
	w.must(h.store.View(w.ctx, func(tx queue.Tx) error {
		hh, err := records.FirstHeader.Get(tx, d.sender, d.id)
		if hh == nil || err != nil {
			return err
		}
		env, err := records.Envelopes.Get(tx, *hh)
		if env == nil || err != nil {
			return err
		}
		all = env.Complete
		return err
	}), "look for a document")
	return all
}

// RunLoss plays one seed in which a disk is lost in the middle of the storm.
func RunLoss(seed uint64, steps, docs int) (hash string, stats Stats, err error) {
	c, err := theCast()
	if err != nil {
		return "", Stats{}, err
	}
	var w *world
	defer func() { err = broken(w, recover(), err) }()
	w = newWorld(c, seed)
	w.last = versionFirst
	h := w.hosts[w.rng.IntN(len(w.hosts))]
	copyAt := 1 + w.rng.IntN(steps/2)
	loseAt := copyAt + 1 + w.rng.IntN(steps-copyAt)
	again := w.rng.IntN(4) == 0
	var b *backup
	var l *loss
	for i := range steps {
		switch i {
		case copyAt:
			b = w.backup(h)
		case loseAt:
			l = w.loseDisk(h, b)
		case loseAt + 20:
			if again { // before everything has come, from the same backup
				taken := l.taken
				l = w.loseDisk(h, b)
				maps.Copy(l.taken, taken)
			}
		}
		w.step(docs)
		if i%25 == 0 {
			w.rememberHeads()
		}
	}
	if l == nil {
		l = w.loseDisk(h, b)
	}
	looks := 0
	w.quiet(func() string {
		// A receipt of what no neighbour can bring is given up in the end.
		if looks++; looks == 200 {
			w.clock = w.clock.Add(8 * 24 * time.Hour)
		}
		return w.unfinishedAfter(l)
	})
	w.checkAfter(l)
	return w.Hash(), w.stats, nil
}

// owed says of which recipients of a document the sender must hear: all, unless
// it was accepted on the lost disk behind the backup. Then it is those that the
// neighbour serves, when it had taken the document over.
func (l *loss) owed(w *world, d *submission) []string {
	if d.host != l.host || l.has[d] {
		return d.recipients
	}
	if !l.taken[d] {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(d.recipients), func(a string) bool { return w.hostOf(a) == l.host })
}

func (w *world) unfinishedAfter(l *loss) string {
	replaying := ""
	for _, d := range w.docs {
		if d.id == "" {
			return d.key + " is not accepted"
		}
		owed := l.owed(w, d)
		if len(owed) == 0 {
			continue
		}
		t, err := d.host.node.Trace(w.ctx, d.sender, d.id)
		if exchange.CodeOf(err) == exchange.CodeNotFound {
			return fmt.Sprintf("%s (%s) is not known any more", d.key, d.id)
		}
		w.must(err, "trace")
		for _, r := range t.Recipients {
			if slices.Contains(owed, r.Agency) && r.Stage != intent(r.Agency, d.id) && !w.failed(d, &r) && !d.lapsed(&r) && !d.withdrawn(&r) {
				return fmt.Sprintf("%s (%s): %s stands at %s", d.key, d.id, r.Agency, r.Stage)
			}
		}
	}
	for _, h := range w.hosts {
		w.must(h.store.View(w.ctx, func(tx queue.Tx) error {
			return records.Replays.Each(tx, 0, func([]byte, *records.Replay) bool { replaying = h.id; return true })
		}), "replays")
	}
	for _, h := range w.hosts {
		b, err := h.node.Queues(w.ctx, "")
		if w.must(err, "queues"); b.Undone > 0 {
			return "node " + h.id + " has something to deliver"
		}
	}
	if replaying != "" {
		return "node " + replaying + " is still giving again"
	}
	return w.stillWaiting()
}

// checkAfter: I11. Nothing that a neighbour had handed over or taken is lost,
// nothing is done twice, and the ledgers contradict nobody.
func (w *world) checkAfter(l *loss) {
	for _, d := range w.docs {
		owed := l.owed(w, d)
		for _, a := range d.recipients {
			n := w.inboxCount(a, d.id)
			if n > 1 || n == 0 && slices.Contains(owed, a) && !w.ordered(d, a) && d.expires.IsZero() && !d.recalled {
				w.fail("I11: %s is %d times in the inbox of %s", d.id, n, a)
			}
		}
		if len(owed) > 0 {
			w.checkReceiptsAfter(l, d)
		}
	}
	for _, agency := range w.cast.all {
		items, err := w.hostOf(agency).node.Inbox(w.ctx, agency, 0, 10000)
		w.must(err, "inbox")
		for _, item := range items {
			if w.document(item.ID) == nil && !slices.Contains(w.cast.agencies[l.host.id], item.Sender) {
				w.fail("I2: %s holds %s, of which no client was told", agency, item.ID)
			}
		}
	}
	w.checkStored()
	for _, h := range w.hosts {
		w.checkLedgerAfter(h)
		w.checkBooks(h)
		w.checkBlobs(h)
		w.checkShown(h)
	}
}

// checkReceiptsAfter: one receipt of each stage for each recipient, all verified.
// The restored node may have signed once more what it had signed before, when it
// went to work before a neighbour had given that back: both stand.
func (w *world) checkReceiptsAfter(l *loss, d *submission) {
	t, err := d.host.node.Trace(w.ctx, d.sender, d.id)
	w.must(err, "trace")
	if !t.ReceiptsVerified || !t.LedgerVerified {
		w.fail("I11: receipts verified %v, ledger verified %v for %s", t.ReceiptsVerified, t.LedgerVerified, d.id)
	}
	w.stats.Receipts += t.Receipts
	for i := range t.Recipients {
		w.checkGivenUp(d, &t.Recipients[i])
		if d.lapsed(&t.Recipients[i]) {
			w.checkLapsed(d, &t.Recipients[i])
		}
	}
	seen := map[string]bool{}
	for _, ev := range t.Events {
		for _, r := range ev.Recipients {
			key := string(ev.Stage) + r
			if ev.Stage == exchange.StageRecallRefused { // a sender whose node forgot that it had asked asks again
				key += fmt.Sprint(ev.After)
			}
			if seen[key] && ev.Stage != exchange.StageAccepted && w.hostOf(r) != l.host {
				w.fail("I11: two %s receipts of %s for %s", ev.Stage, r, d.id)
			}
			seen[key] = true
		}
	}
}

// checkLedgerAfter: every head ever shown is a beginning of what is there, but
// those of the lost disk's ledger behind the backup, which nobody can extend.
func (w *world) checkLedgerAfter(h *host) {
	ledger := queue.Ledger{Name: "main"}
	w.must(h.store.View(w.ctx, func(tx queue.Tx) error {
		old := map[string]uint64{}
		row, err := records.RestoredRow.Get(tx)
		if err != nil {
			return err
		}
		if row != nil {
			for _, o := range row.Old {
				old[o.Ledger] = o.Size
			}
		}
		size, err := ledger.Size(tx)
		if err != nil {
			return err
		}
		root, err := ledger.Root(tx, size)
		if err != nil {
			return err
		}
		for _, head := range w.shown[h.id] {
			cp, err := checkpointOf(head)
			if err != nil {
				return err
			}
			most, was := old[cp.Ledger]
			if cp.Ledger != h.node.LedgerID() && (!was || cp.Size > most) {
				continue
			}
			proof, err := ledger.Consistency(tx, cp.Size, size)
			if err != nil {
				return err
			}
			if err := merkle.VerifyConsistency(cp.Size, size, proof, cp.Root, root); err != nil {
				return fmt.Errorf("the head of %d leaves is no beginning of the %d now: %w", cp.Size, size, err)
			}
		}
		return nil
	}), "I4: ledger of "+h.id)
	w.must(h.node.Alarm(), "I4: alarm of "+h.id)
}

func checkpointOf(head node.Head) (*merkle.Checkpoint, error) {
	signed, err := cms.Parse(head.Checkpoint, exchange.MaxCheckpointCMS)
	if err != nil {
		return nil, err
	}
	return merkle.ParseCheckpoint(signed.Content)
}

// checkShown: no neighbour takes an announced restore for a contradiction.
func (w *world) checkShown(h *host) {
	list, err := h.node.Quarantined(w.ctx, 1000)
	w.must(err, "quarantine")
	for _, q := range list {
		if strings.HasPrefix(q.What, "checkpoint") || strings.HasPrefix(q.What, "seen") {
			w.fail("I11: %s shows %s: %s", h.id, q.What, q.Reason)
		}
	}
}
