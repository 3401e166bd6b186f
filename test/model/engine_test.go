package model

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/internal/durable/crashfs"
	"github.com/yizhan-gateway/yizhan/queue"
	"github.com/yizhan-gateway/yizhan/queue/badgerstore"
	"github.com/yizhan-gateway/yizhan/queue/blob"
)

// deadAfter is how long the neighbour has.
const deadAfter = 10 * time.Minute

// engine is the real node over a real store, beside the model of it.
type engine struct {
	*rapid.T
	ctx   context.Context
	cast  *cast
	dir   string
	now   time.Time
	rand  *mathrand.ChaCha8
	store *flaky
	fs    *crashfs.FS
	blobs *blob.Store
	node  *node.Node

	m     *Engine
	sizes map[string]int64
	under []*flight
	acts  map[string][]byte
	of    map[string]*Document // by the name of an envelope, or of a request
	quiet bool                 // nothing goes wrong any more
	subs  map[string]node.Submission
}

// flight is a bundle under way.
type flight struct {
	outs []node.Out
	b    *Bundle
}

func newEngine(t *rapid.T) *engine {
	c, err := theCast()
	if err != nil {
		t.Fatal(err)
	}
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], rapid.Uint64().Draw(t, "seed"))
	e := &engine{
		T: t, ctx: context.Background(), cast: c, now: start, rand: mathrand.NewChaCha8(seed),
		fs: crashfs.New(mathrand.New(mathrand.NewPCG(binary.LittleEndian.Uint64(seed[:]), 1))),
		m:  &Engine{DeadAfter: deadAfter}, sizes: map[string]int64{}, acts: map[string][]byte{}, of: map[string]*Document{}, subs: map[string]node.Submission{},
	}
	if e.dir, err = os.MkdirTemp(storesIn(), "yizhan-model-"); err != nil {
		t.Fatal(err)
	}
	e.open()
	e.boot()
	return e
}

// storesIn is where stores lie: in memory where the system has such a place, since here
// no disk loses anything. That is what test/sim and the power cuts are for.
func storesIn() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}

func (e *engine) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

func (e *engine) open() {
	s, err := badgerstore.Open(filepath.Join(e.dir, "store"), badgerstore.Options{Logger: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) }})
	e.must(err)
	e.store = &flaky{Store: queue.Checked(s)}
}

// boot is a start of the process.
func (e *engine) boot() {
	var err error
	e.blobs, err = blob.OpenSized(e.fs, "/blobs", 64<<10)
	e.must(err)
	e.node, err = node.New(e.ctx, node.Config{
		ID: "jia", Store: e.store, Blobs: e.blobs, Keys: e.cast.keys.WithRandom(e.rand), Directory: func() *certs.Directory { return e.cast.directory },
		Now: func() time.Time { return e.now }, Rand: e.rand, Clock: "model", DeadLetterAfter: deadAfter,
	})
	e.must(err)
}

// restart is a loss of power: the disk loses what was not synced, bundles under way
// are forgotten. The store is opened again now and then, since that takes long.
func (e *engine) restart(reopen bool) {
	e.store.left = 0
	e.fs.Crash()
	if reopen {
		e.must(e.store.Close())
		e.open()
	}
	e.boot()
	e.under = nil
	e.m.Restart()
	_, err := e.blobs.Sweep(e.ctx, func(ref queue.Ref) (bool, error) { return e.node.Referenced(e.ctx, ref) })
	e.must(err)
}

// crash is what a loss of power panics with.
type crash struct{}

// flaky is a store of which one commit goes wrong.
type flaky struct {
	queue.Store
	left    int // commits until then; 0: none
	stays   bool
	crashes bool
	hit     bool
}

func (f *flaky) Update(ctx context.Context, fn func(queue.Tx) error) error {
	if f.left--; f.left != 0 {
		return f.Store.Update(ctx, fn)
	}
	f.hit = true
	if f.stays {
		if err := f.Store.Update(ctx, fn); err != nil {
			return err
		}
	}
	if f.crashes {
		panic(crash{})
	}
	return queue.ErrUnknown
}

// once does something during which one commit may go wrong, and says whether nothing
// did. After a loss of power the node has started again.
func (e *engine) once(do func() error) (whole bool) {
	s := e.store
	if s.left, s.hit = 0, false; !e.quiet {
		s.left = rapid.IntRange(0, 6).Draw(e.T, "fails")
	}
	if s.left > 0 {
		s.stays, s.crashes = rapid.Bool().Draw(e.T, "stays"), rapid.Bool().Draw(e.T, "crashes")
	}
	defer func() {
		s.left = 0
		if r := recover(); r != nil {
			if _, is := r.(crash); !is {
				panic(r)
			}
			whole = false
			e.restart(false)
		}
	}()
	err := do()
	if s.hit {
		return false
	}
	e.must(err)
	return true
}

// untilDone repeats something that may be repeated until it was done.
func (e *engine) untilDone(do func() error) (whole bool) {
	if e.once(do) {
		return true
	}
	e.must(do())
	return false
}

// work lets the node do all it has to do. After a failure entries wait a moment in
// memory; nobody waits for that here.
func (e *engine) work() {
	sure := e.once(e.drain)
	if !sure {
		e.restart(false)
		e.must(e.drain())
	}
	e.m.Work(e.now, sure)
}

func (e *engine) drain() error {
	for range 2000 {
		if did, err := e.node.Work(e.ctx); !did || err != nil {
			return err
		}
	}
	return errors.New("the node works without end")
}

func (e *engine) submission(key string, d *Document, remote bool, size int) node.Submission {
	doc := exchange.Document{
		Label: exchange.Internal, Kind: exchange.Official, Title: "关于模型的通知 " + key,
		Urgency: []exchange.Urgency{exchange.Normal, exchange.Urgent, exchange.VeryUrgent}[d.Rank],
	}
	if remote {
		doc.To = append(doc.To, exchange.Addressee{Agency: e.cast.remote})
	}
	if d.Local {
		doc.To = append(doc.To, exchange.Addressee{Agency: e.cast.local})
	}
	body := bytes.Repeat([]byte(key+"\n"), size/len(key))
	return node.Submission{Agency: e.cast.sender, IdempotencyKey: key, Document: doc, Expires: d.Expires, Files: one(body)}
}

func one(body []byte) iter.Seq2[envelope.File, error] {
	return func(yield func(envelope.File, error) bool) {
		yield(envelope.File{Role: envelope.RoleBody, Name: "正文.ofd", Type: "application/ofd", Content: bytes.NewReader(body)}, nil)
	}
}

// submit is a client that repeats its document until it is told that it is there.
func (e *engine) submit(t *rapid.T) {
	d := &Document{Rank: rapid.IntRange(0, 2).Draw(t, "rank"), Local: rapid.IntRange(0, 3).Draw(t, "local") == 0}
	remote := !d.Local || rapid.Bool().Draw(t, "remote")
	d.Expires = e.now.Add(time.Duration(rapid.IntRange(5, 60).Draw(t, "life"))*time.Minute + time.Millisecond)
	size := rapid.SampledFrom([]int{200, 3000, 40_000, 400_000}).Draw(t, "size")
	s := e.submission(fmt.Sprintf("key-%d", len(e.m.Documents)), d, remote, size)
	var got *node.Accepted
	e.untilDone(func() (err error) {
		got, err = e.node.Submit(e.ctx, s)
		return err
	})
	d.ID = got.ID
	e.subs[d.ID], e.of[got.Header.String()] = s, d
	e.m.Accept(d, remote, e.now)
}

// again is a client that did not hear the answer.
func (e *engine) again(t *rapid.T) {
	d := e.pick(t, func(*Document) bool { return true })
	got, err := e.node.Submit(e.ctx, e.subs[d.ID])
	e.must(err)
	if got.ID != d.ID || !got.Replayed {
		t.Fatalf("a repeated submission of %s is %s, replayed %v", d.ID, got.ID, got.Replayed)
	}
	other := e.subs[d.ID]
	other.Document.Title += " (另一件)"
	if _, err := e.node.Submit(e.ctx, other); exchange.CodeOf(err) != exchange.CodeIdempotencyMismatch {
		t.Fatalf("another document under the same key: %v", err)
	}
}

// pick draws a document of a kind; there being none, the step is not taken.
func (e *engine) pick(t *rapid.T, is func(*Document) bool) *Document {
	var list []*Document
	for _, d := range e.m.Documents {
		if is(d) {
			list = append(list, d)
		}
	}
	if len(list) == 0 {
		t.Skip("no such document")
	}
	return list[rapid.IntRange(0, len(list)-1).Draw(t, "document")]
}

// fill makes a bundle and lets it leave.
func (e *engine) fill(t *rapid.T) {
	if len(e.under) == 2 {
		t.Skip("two bundles are under way")
	}
	e.bundle(rapid.SampledFrom([]int64{4000, 30_000, 1 << 20}).Draw(t, "room"), rapid.SampledFrom([]int{3, 20, 1000}).Draw(t, "items"))
}

func (e *engine) bundle(room int64, most int) {
	var carried []node.Out
	var under []*Bundle
	for _, f := range e.under {
		carried, under = append(carried, f.outs...), append(under, f.b)
	}
	outs, err := e.node.Outgoing(e.ctx, wire, room, most, carried...)
	e.must(err)
	var items []Item
	for i := range outs {
		it := e.item(&outs[i])
		e.sizes[it.Name()] = it.Size
		items = append(items, it)
	}
	b, err := e.m.Fill(items, room, most, under, e.sizes, e.now)
	e.must(err)
	if len(outs) == 0 {
		return
	}
	e.readable(outs)
	ok := false
	sure := e.once(func() (err error) {
		ok, err = e.node.Offer(e.ctx, outs)
		return err
	})
	if e.m.Offered(b, sure); !sure {
		return
	}
	if !ok {
		e.Fatal("a bundle may not leave, though nothing of it was taken away")
	}
	e.under = append(e.under, &flight{outs, b})
}

// readable reads what a bundle carries, as it would be written.
func (e *engine) readable(outs []node.Out) {
	for _, o := range outs {
		r, err := o.Open(e.ctx)
		e.must(err)
		n, err := io.Copy(io.Discard, r)
		if err = errors.Join(err, r.Close()); err != nil || n != o.Size {
			e.Fatalf("%s of %d bytes yields %d: %v", o.Kind, o.Size, n, err)
		}
	}
}

// item says which one the node chose.
func (e *engine) item(o *node.Out) Item {
	part := map[string]int{node.KindRequest: -1, node.KindHeader: 0, node.KindConsignment: 1, node.KindPart: 2}
	k, known := part[o.Kind]
	of, _, _ := strings.Cut(o.ID, "/")
	d := e.of[of]
	if !known || d == nil {
		e.Fatalf("a bundle carries %s %s", o.Kind, o.ID)
	}
	if k < 0 {
		return Item{d, Requests, k, o.Size}
	}
	return Item{d, d.Rank, k, o.Size}
}

var answers = map[Answer]node.Outcome{
	Silence: {}, Damaged: {Status: node.Damaged, Reason: "digest"}, Misses: {Status: node.Damaged, Reason: "header_missing"},
	Declined: {Status: node.Refused, Reason: "unknown_kind"}, Forbidden: {Status: node.Refused, Reason: "label_ceiling"},
}

// arrive lets the neighbour answer a bundle under way, or nobody.
func (e *engine) arrive(t *rapid.T) {
	if len(e.under) == 0 {
		t.Skip("no bundle is under way")
	}
	i := rapid.IntRange(0, len(e.under)-1).Draw(t, "bundle")
	f := e.under[i]
	e.under = append(e.under[:i], e.under[i+1:]...)
	mood := rapid.SampledFrom([]string{"well", "well", "badly", "silent"}).Draw(t, "answers")
	said := make([]Answer, len(f.outs))
	for k := range said {
		switch mood {
		case "well":
			said[k] = Taken
		case "badly":
			said[k] = rapid.SampledFrom([]Answer{Taken, Taken, Taken, Damaged, Silence, Misses, Declined, Forbidden}).Draw(t, "answer")
			if f.b.Items[k].Part < 1 && said[k] == Misses {
				said[k] = Damaged
			}
		}
	}
	e.answered(f, said)
}

func (e *engine) answered(f *flight, said []Answer) {
	outcomes := make([]node.Outcome, len(said))
	for k, a := range said {
		if outcomes[k] = answers[a]; a == Taken {
			outcomes[k].Status = []string{node.Taken, node.Duplicate, node.Postponed}[k%3]
		}
	}
	was := e.node
	sure := e.once(func() error { return e.node.Settle(e.ctx, wire, f.outs, outcomes) })
	e.m.Answered(f.b, said, sure, e.now)
	if e.node != was {
		e.m.Restart()
	}
}

// wait lets time go by, and the node see that it did.
func (e *engine) wait(t *rapid.T) {
	e.now = e.now.Add(rapid.SampledFrom([]time.Duration{time.Second, 30 * time.Second, 2 * time.Minute, 11 * time.Minute}).Draw(t, "time"))
	e.work()
}

var operator = node.Who{By: "值班员", Reason: "检修"}

func (e *engine) hold(*rapid.T) {
	act := e.node.HoldLink
	if e.m.Held {
		act = e.node.ReleaseLink
	}
	whole := e.once(func() error { return act(e.ctx, wire, operator) })
	_, held := e.node.LinkHold(wire)
	if whole && held == e.m.Held {
		e.Fatalf("the link is held: %v, after the opposite was ordered", held)
	}
	if e.m.Held && !held {
		e.m.Released = e.now
	}
	e.m.Held = held
}

func (e *engine) requeue(*rapid.T) {
	e.untilDone(func() error {
		_, err := e.node.Requeue(e.ctx, node.Pick{}, operator, nil)
		return err
	})
	for _, d := range e.m.Documents {
		if d.Remote.Place == Parked {
			d.may = []Spot{{Place: Queued}}
		}
	}
}

func (e *engine) giveUp(t *rapid.T) {
	d := e.pick(t, func(d *Document) bool { return d.Remote.Place == Parked })
	order := func() error { return e.node.GiveUp(e.ctx, node.Pick{Link: wire, No: d.Entry.Seq}, operator) }
	var err error
	if !e.once(func() error { err = order(); return nil }) {
		err = order()
	}
	switch code := exchange.CodeOf(err); {
	case code == exchange.CodeFateUnknown && d.Fate != Ours:
	case (err == nil || code == exchange.CodeNotFound) && d.Fate != Unknown:
		d.may = []Spot{{Ended, "FAILED"}}
	default:
		t.Fatalf("document %d of fate %d is given up: %v", d.No, d.Fate, err)
	}
}

func (e *engine) recall(t *rapid.T) {
	d := e.pick(t, func(*Document) bool { return true })
	e.untilDone(func() error {
		all, err := e.node.Ask(e.ctx, e.cast.sender, d.ID, node.Asking{Wish: exchange.WishRecall, Actor: exchange.Actor{Name: "经办人"}})
		for _, one := range all {
			e.of[one.ID.String()] = d
		}
		return err
	})
	if d.Recall == Nowhere {
		d.Recall = Undone
	}
	e.work()
}

// act signs for what the local agency has, twice.
func (e *engine) act(t *rapid.T) {
	d := e.pick(t, func(d *Document) bool { return d.Inbox == "DELIVERED" || d.Inbox == "SIGNED_FOR" })
	var receipt []byte
	e.untilDone(func() (err error) {
		receipt, err = e.node.Act(e.ctx, e.cast.local, d.ID, node.Action{Stage: exchange.StageSignedFor, Actor: exchange.Actor{Name: "值班员"}})
		return err
	})
	if before := e.acts[d.ID]; before != nil && !bytes.Equal(before, receipt) {
		t.Fatalf("two receipts of one act on document %d", d.No)
	}
	e.acts[d.ID], d.Inbox = receipt, "SIGNED_FOR"
}

// compare holds the engine against the model.
func (e *engine) compare(*rapid.T) {
	s := &Shown{Stages: map[string]map[bool]string{}}
	items, err := e.node.QueueItems(e.ctx, wire, true, 1000)
	e.must(err)
	ranks := map[string]int{"normal": 0, "urgent": 1, "very_urgent": 2, "receipt": Requests}
	for _, q := range items {
		lane := ranks[q.Rank]
		if q.State == "parked" {
			lane = Ranks
		}
		seq, err := strconv.ParseUint(q.ID[strings.LastIndexByte(q.ID, '/')+1:], 10, 64)
		e.must(err)
		s.Lanes[lane] = append(s.Lanes[lane], Seen{seq, q.Document, q.Kind == node.KindRequest})
	}
	inbox, err := e.node.Inbox(e.ctx, e.cast.local, 0, 1000)
	e.must(err)
	for _, item := range inbox {
		s.Inbox = append(s.Inbox, item.ID)
	}
	for _, d := range e.m.Documents {
		tr, err := e.node.Trace(e.ctx, e.cast.sender, d.ID)
		e.must(err)
		if !tr.ReceiptsVerified || !tr.LedgerVerified {
			e.Fatalf("document %d: receipts verified %v, ledger verified %v", d.No, tr.ReceiptsVerified, tr.LedgerVerified)
		}
		s.Stages[d.ID] = map[bool]string{}
		for _, r := range tr.Recipients {
			s.Stages[d.ID][r.Agency == e.cast.local] = string(r.Stage)
		}
	}
	if err := e.m.Compare(s, e.now); err != nil {
		e.Fatal(err)
	}
	e.counts(s)
}

// counts: what the counters say is what is there.
func (e *engine) counts(s *Shown) {
	all, err := e.node.Queues(e.ctx, wire)
	e.must(err)
	waiting := 0
	for _, lane := range s.Lanes[:Ranks] {
		waiting += len(lane)
	}
	if q := all.Links[0]; int(q.Waiting) != waiting || int(q.Parked) != len(s.Lanes[Ranks]) {
		e.Fatalf("%d wait and %d are parked, counted as %d and %d", waiting, len(s.Lanes[Ranks]), q.Waiting, q.Parked)
	}
}

// finish lets all go out that can, compares everything stored with everything, and
// says how many receipts there are.
func (e *engine) finish() (receipts int) {
	e.quiet = true
	e.restart(true)
	if e.m.Held {
		e.must(e.node.ReleaseLink(e.ctx, wire, operator))
		e.m.Held, e.m.Released = false, e.now
	}
	e.must(e.drain())
	e.m.Work(e.now, false)
	e.compare(nil)
	for range 400 {
		e.bundle(1<<20, 1000)
		if len(e.under) == 0 {
			break
		}
		f := e.under[0]
		e.under = nil
		said := make([]Answer, len(f.outs))
		for k := range said {
			said[k] = Taken
		}
		e.answered(f, said)
		e.compare(nil)
	}
	for _, d := range e.m.Documents {
		if d.Remote.Place == Queued || d.Recall == Queued {
			e.Fatalf("document %d still waits: %+v", d.No, d)
		}
	}
	r, err := e.node.Check(e.ctx, node.CheckOptions{ReadData: true, Still: true})
	e.must(err)
	if !r.OK {
		e.Fatalf("what is stored does not fit: %d times, first %+v", r.Found, r.Problems[0])
	}
	for _, d := range e.m.Documents {
		tr, err := e.node.Trace(e.ctx, e.cast.sender, d.ID)
		e.must(err)
		receipts += tr.Receipts
	}
	return receipts
}
