package sim

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/evidence"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/queue"
)

// Run plays one seed: a storm of steps with faults, a quiet phase in which
// everything must finish, and the promises. The error is the first broken
// promise; the hash identifies the run.
func Run(seed uint64, steps, docs int) (hash string, stats Stats, err error) {
	return runWorld(seed, func(w *world) { w.storm(steps, docs) })
}

// runWorld lets something happen in a world, then everything must finish, and the
// promises are checked.
func runWorld(seed uint64, happen func(*world)) (hash string, stats Stats, err error) {
	c, err := theCast()
	if err != nil {
		return "", Stats{}, err
	}
	var w *world
	defer func() { err = broken(w, recover(), err) }()
	w = newWorld(c, seed)
	happen(w)
	w.quiet(w.unfinished)
	if w.jumps { // only a timestamp that is later than all that a clock has shown bears it out
		w.clock = w.clock.Add(farthest)
	}
	w.check()
	return w.Hash(), w.stats, nil
}

func (w *world) storm(steps, docs int) {
	for i := range steps {
		w.step(docs)
		if i%25 == 0 {
			w.rememberHeads()
		}
	}
}

// broken turns a broken promise into an error with the end of the trace.
func broken(w *world, r any, err error) error {
	if r == nil {
		return err
	}
	f, is := r.(failure)
	if !is {
		panic(r)
	}
	trace := ""
	if w != nil {
		for _, line := range w.lines {
			trace += "\n\t" + line
		}
	}
	return errors.New(f.what + trace)
}

// rememberHeads keeps what each node shows of its ledger now, to be compared
// with what it shows in the end (I4).
func (w *world) rememberHeads() {
	for _, h := range w.hosts {
		head, err := h.node.Head(w.ctx, w.pairs[0].link)
		w.must(err, "head")
		if head.Checkpoint != nil {
			w.shown[h.id] = append(w.shown[h.id], head)
		}
	}
}

// quiet is the liveness phase: no faults, every waiting client retries, every
// agency acts. Everything must finish within a bound (I7).
func (w *world) quiet(unfinished func() string) {
	w.faults.armed = false
	w.wire = nil
	w.note("quiet")
	w.releaseAll()
	for v := uint64(versionFirst); v <= w.last; v++ { // what is not out yet comes out now
		if !slices.ContainsFunc(w.hosts, func(h *host) bool { return h.version() >= v }) {
			w.install(w.hosts[w.rng.IntN(len(w.hosts))], v)
		}
	}
	for range 400 {
		w.clock = w.clock.Add(5 * time.Second)
		w.expireCalls()
		for _, d := range w.docs {
			if d.id == "" {
				w.trySubmit(d)
			}
		}
		for _, h := range w.hosts {
			w.drain(h)
			w.requeue(h)
			w.actOnAll(h)
		}
		for _, p := range w.pairs {
			for _, poll := range []bool{false, true} {
				w.startCall(p, poll)
				for len(w.wire) > 0 {
					w.deliverMessage()
				}
			}
		}
		if unfinished() == "" {
			return
		}
	}
	w.fail("I7: not everything finished after the faults stopped: %s", unfinished())
}

func (w *world) drain(h *host) {
	for range 1000 {
		did, err := h.node.Work(w.ctx)
		w.must(err, "work in the quiet phase")
		if !did {
			return
		}
	}
	w.fail("I7: node %s works without end", h.id)
}

func (w *world) actOnAll(h *host) {
	for _, agency := range w.cast.agencies[h.id] {
		items, err := h.node.Inbox(w.ctx, agency, 0, 1000)
		w.must(err, "inbox")
		for _, item := range items {
			if !item.Stage.End() {
				d := w.document(item.ID)
				w.collect(h, agency, item.ID, d)
				w.decide(h, agency, item.ID)
			}
		}
	}
}

func (w *world) unfinished() string {
	for _, h := range w.hosts {
		if h.version() != w.last {
			return fmt.Sprintf("node %s has directory %d of %d", h.id, h.version(), w.last)
		}
	}
	for _, d := range w.docs {
		if d.id == "" {
			return d.key + " is not accepted"
		}
		t, err := d.host.node.Trace(w.ctx, d.sender, d.id)
		w.must(err, "trace")
		for _, r := range t.Recipients {
			if r.Stage != exchange.StageSignedFor && r.Stage != exchange.StageReturned && !w.failed(d, &r) && !d.lapsed(&r) && !d.withdrawn(&r) && w.excused(d, r.Agency) == "" {
				return fmt.Sprintf("%s (%s): %s stands at %s", d.key, d.id, r.Agency, r.Stage)
			}
		}
		if a := w.unanswered(d, t); a != "" {
			return fmt.Sprintf("%s (%s): the recall has no answer for %s", d.key, d.id, a)
		}
	}
	return w.stillWaiting()
}

// stillWaiting says what waits for a link.
func (w *world) stillWaiting() string {
	for _, p := range w.pairs {
		for _, h := range []*host{p.dialer, p.listener} {
			queues, err := h.node.Queues(w.ctx, p.link)
			w.must(err, "queues")
			if q := queues.Links[0]; q.Known && q.Waiting+q.Parked > 0 {
				return fmt.Sprintf("node %s has %d waiting and %d parked for link %s", h.id, q.Waiting, q.Parked, p.link)
			}
			outs, err := h.node.Outgoing(w.ctx, p.link, 1<<20, 10)
			w.must(err, "outgoing")
			if len(outs) > 0 {
				return fmt.Sprintf("node %s still holds a %s for link %s", h.id, outs[0].Kind, p.link)
			}
		}
	}
	return ""
}

// check holds the end of the run against the promises.
func (w *world) check() {
	for _, h := range w.hosts {
		w.catchUp(h)
	}
	for _, d := range w.docs {
		proof := w.evidence(d)
		w.checkOnce(d, proof)
		w.checkEvidence(d, proof)
	}
	w.checkNothingElse()
	w.checkStored()
	for _, h := range w.hosts {
		w.checkDirectory(h)
		w.checkLedger(h)
		w.checkBooks(h)
		w.checkBlobs(h)
	}
}

// checkOnce: exactly one inbox row for each recipient, with the agency's own
// decision at the sender (I1, I2).
func (w *world) checkOnce(d *submission, proof []byte) {
	t, err := d.host.node.Trace(w.ctx, d.sender, d.id)
	w.must(err, "trace")
	f := w.parsed(proof)
	voids := 0
	for i := range f.Receipts {
		if w.void(&f.Receipts[i]) {
			voids++
		}
	}
	w.stats.Void += voids
	w.stats.Receipts += len(f.Receipts) - voids
	if t.ReceiptsVerified != (voids == 0) || !t.LedgerVerified {
		w.fail("I3, I4: receipts verified %v with %d void, ledger verified %v for %s", t.ReceiptsVerified, voids, t.LedgerVerified, d.id)
	}
	if len(t.Recipients) != len(d.recipients) {
		w.fail("I1: %s has %d recipients, sent to %d", d.id, len(t.Recipients), len(d.recipients))
	}
	for _, r := range t.Recipients {
		w.checkGivenUp(d, &r)
		if w.failed(d, &r) {
			continue
		}
		if d.lapsed(&r) {
			w.checkLapsed(d, &r)
			continue
		}
		if d.withdrawn(&r) {
			w.checkWithdrawn(d, &r)
			continue
		}
		if want := intent(r.Agency, d.id); want != r.Stage {
			if w.excused(d, r.Agency) == "" || r.Stage == exchange.StageSignedFor || r.Stage == exchange.StageReturned {
				w.fail("I1: %s stands at %s for %s, whose agency said %s", d.id, r.Stage, r.Agency, want)
			}
			w.stats.Void++
		}
		once := 1
		if w.hostOf(r.Agency) != d.host && w.headerRefused(d, f, w.hostOf(r.Agency)) {
			once = 0
		}
		if n := w.inboxCount(r.Agency, d.id); n != once {
			w.fail("I2: %s is %d times in the inbox of %s", d.id, n, r.Agency)
		}
	}
	seen := map[string]int{}
	for _, ev := range t.Events {
		for _, r := range ev.Recipients {
			if key := string(ev.Stage) + r; ev.Stage != exchange.StageAccepted {
				if seen[key]++; seen[key] > 1 {
					w.fail("I2: two %s receipts of %s for %s", ev.Stage, r, d.id)
				}
				if !ev.Stage.End() {
					continue
				}
				if seen[r]++; seen[r] > 1 {
					w.fail("I1: two ends of %s for %s, one of them %s", r, d.id, ev.Stage)
				}
			}
		}
	}
}

func (w *world) hostOf(agency string) *host {
	for id, list := range w.cast.agencies {
		for _, a := range list {
			if a == agency {
				return w.host(id)
			}
		}
	}
	return nil
}

func (w *world) inboxCount(agency, id string) (n int) {
	items, err := w.hostOf(agency).node.Inbox(w.ctx, agency, 0, 10000)
	w.must(err, "inbox")
	for _, item := range items {
		if item.ID == id {
			n++
		}
	}
	return n
}

// checkNothingElse: no inbox holds a document that no client was told of.
func (w *world) checkNothingElse() {
	for _, agency := range w.cast.all {
		items, err := w.hostOf(agency).node.Inbox(w.ctx, agency, 0, 10000)
		w.must(err, "inbox")
		for _, item := range items {
			if w.document(item.ID) == nil {
				w.fail("I2: %s holds %s, of which no client was told", agency, item.ID)
			}
		}
	}
}

// checkEvidence: the proof file verifies by itself and matches the bytes (I3).
func (w *world) checkEvidence(d *submission, proof []byte) {
	delivered := w.deliveredFiles(d)
	report, err := evidence.Verify(proof, w.cast.directory.Authority(), delivered)
	w.must(err, "verify evidence")
	if !report.OK() && !w.allVoid(d, w.parsed(proof), report) {
		w.fail("I3: evidence of %s: %v", d.id, report.Problems)
	}
	if report.BytesMatch != (delivered != nil) || !report.LedgerVerified || report.OK() && !report.ReceiptsVerified {
		w.fail("I3: evidence of %s: bytes match %v, ledger verified %v, receipts verified %v", d.id, report.BytesMatch, report.LedgerVerified, report.ReceiptsVerified)
	}
	if report.Timestamp == "" || report.TimePending {
		w.fail("I10: evidence of %s has no timestamp", d.id)
	}
}

// deliveredFiles are the files as the first recipient has them that has any.
func (w *world) deliveredFiles(d *submission) (delivered []evidence.Delivered) {
	i := slices.IndexFunc(d.recipients, func(a string) bool {
		item, err := w.hostOf(a).node.InboxItem(w.ctx, a, d.id)
		return err == nil && item.Stage != exchange.StageRecalled
	})
	if i < 0 {
		return nil
	}
	opened, err := w.hostOf(d.recipients[i]).node.Collect(w.ctx, d.recipients[i], d.id)
	w.must(err, "collect for evidence")
	for i := range d.files {
		r, err := opened.File(w.ctx, i)
		w.must(err, "file for evidence")
		content, err := io.ReadAll(r)
		w.must(err, "read for evidence")
		delivered = append(delivered, evidence.Sum(content))
	}
	return delivered
}

// checkLedger: every head ever shown is a beginning of what is there now (I4).
func (w *world) checkLedger(h *host) {
	ledger := queue.Ledger{Name: "main"}
	err := h.store.View(w.ctx, func(tx queue.Tx) error {
		size, err := ledger.Size(tx)
		if err != nil {
			return err
		}
		root, err := ledger.Root(tx, size)
		if err != nil {
			return err
		}
		for _, head := range w.shown[h.id] {
			signed, err := cms.Parse(head.Checkpoint, exchange.MaxCheckpointCMS)
			if err != nil {
				return err
			}
			cp, err := merkle.ParseCheckpoint(signed.Content)
			if err != nil {
				return err
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
	})
	w.must(err, "I4: ledger of "+h.id)
	w.must(h.node.Alarm(), "I4: alarm of "+h.id)
}

// checkBooks: arrived = accepted + duplicate + refused + deferred + damaged, and
// exported = acked + outstanding + ended (I5).
func (w *world) checkBooks(h *host) {
	states, err := h.node.LinkStates(w.ctx, "")
	w.must(err, "books")
	for _, s := range states {
		if s.Arrived != s.Accepted+s.Duplicate+s.Refused+s.Deferred+s.Damaged ||
			s.Exported != s.Acked+s.Outstanding+s.Ended || !s.Balanced {
			w.fail("I5: the books of %s do not balance: %+v", h.id, s)
		}
	}
}

// checkStored: every row, blob, receipt and leaf fits every other.
func (w *world) checkStored() {
	for _, h := range w.hosts {
		r, err := h.node.Check(w.ctx, node.CheckOptions{ReadData: true, Still: true})
		w.must(err, "check "+h.id)
		if !r.OK {
			w.fail("I8: what %s has stored does not fit: %d times, first %+v", h.id, r.Found, r.Problems[0])
		}
	}
}

// checkBlobs: after a restart and a sweep no record misses its blob (I8) and
// every payload still verifies.
func (w *world) checkBlobs(h *host) {
	w.restart(h)
	for _, agency := range w.cast.agencies[h.id] {
		items, err := h.node.Inbox(w.ctx, agency, 0, 10000)
		w.must(err, "inbox after restart")
		for _, item := range items {
			w.collect(h, agency, item.ID, w.document(item.ID))
		}
	}
}
