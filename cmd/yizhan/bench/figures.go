package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/yizhan-gateway/yizhan/adapters/peer"
	"github.com/yizhan-gateway/yizhan/queue"
	"github.com/yizhan-gateway/yizhan/queue/badgerstore"
)

// committer: durable updates of one key each, 64 callers, against a raw
// preallocated file that is appended to by as many.
func (e *engine) committer(ctx context.Context) error {
	store, err := badgerstore.Open(filepath.Join(e.dir, "committer"), badgerstore.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	const callers = 64
	value := make([]byte, 100)
	var key atomic.Uint64
	update := func() error {
		k := binary.BigEndian.AppendUint64([]byte("bench"), key.Add(1))
		return store.Update(ctx, func(tx queue.Tx) error { return tx.Put(k, value) })
	}
	var rounds []Result
	for range 2*e.sizes.rounds + 1 {
		raw, err := many(4*e.sizes.slice, callers, func() error { return e.raw.append(value) })
		if err != nil {
			return err
		}
		n, err := many(4*e.sizes.slice, callers, update)
		if err != nil {
			return err
		}
		rounds = append(rounds, Result{"committer", n, "updates/s", raw, "appends of 100 B to a raw preallocated file with one fdatasync for all that wait, 64 callers", n / raw})
	}
	e.add(median(rounds))
	return store.Close()
}

// idleLinks: the scheduler's memory for a link and its attempts at a dead one.
func (e *engine) idleLinks(ctx context.Context) error {
	const links, dead = 10_000, 100
	r := peer.Rehearse(ctx, links, dead, time.Hour)
	if err := ctx.Err(); err != nil {
		return err
	}
	is := fmt.Sprintf("%d links of which %d are down, an hour of the schedule", links, dead)
	e.add(Result{"idle_links", r.BytesPerLink, "B/link", 1024, "allowed for each link, an open poll apart; " + is, 1024 / r.BytesPerLink})
	e.add(Result{"idle_links_attempts", r.AttemptsPerBackOff, "attempts/back-off", 1, "one attempt for each back-off of a dead link; " + is, 1 / r.AttemptsPerBackOff})
	return nil
}

// acceptPasses are what a node must do for a submission before it answers.
func acceptPasses() []pass {
	return []pass{
		{opRequest, 1, ""}, {opWrap, 2, "the file key, to recipient and sender"}, {opSign, 2, "header and ACCEPTED"},
		{opSM3, smallDocument, "plaintext"}, {opSeal, smallDocument, ""}, {opSM3, smallDocument, "ciphertext"},
		{opBlob, 1, "the payload"}, {opRecord, 1, "the records"},
	}
}

// accept: from POST to 201, the neighbour away.
func (e *engine) accept(ctx context.Context) error {
	from, form, err := e.sender(ctx)
	if err != nil {
		return err
	}
	if _, err := from.submitMany(ctx, form, e.sizes.documents/4); err != nil { // warm
		return err
	}
	var rounds []Result
	worst := 0.0
	for range e.sizes.rounds {
		r, err := e.against("accept", "documents/s", fmt.Sprintf("; %d documents of 10 KB, 256 clients", e.sizes.documents), acceptPasses(), func() (float64, error) {
			l, err := from.submitMany(ctx, form, e.sizes.documents)
			if err != nil {
				return 0, err
			}
			worst = max(worst, l.p99.Seconds()/l.mean.Seconds())
			return l.perSecond, nil
		})
		if err != nil {
			return err
		}
		rounds = append(rounds, r)
	}
	e.add(median(rounds))
	e.add(Result{"accept_p99", worst, "means", 3, "the slowest hundredth may take three times the mean", 3 / worst})
	return nil
}

// sender starts the sending node anew, alone.
func (e *engine) sender(ctx context.Context) (*office, *form, error) {
	if err := e.site.Kill(Receiver); err != nil {
		return nil, nil, err
	}
	return e.from(ctx)
}

func (e *engine) from(ctx context.Context) (*office, *form, error) {
	if err := e.site.Kill(Sender); err != nil {
		return nil, nil, err
	}
	n, err := e.site.Start(ctx, Sender)
	if err != nil {
		return nil, nil, err
	}
	f, err := newForm(n.Neighbour)
	return newOffice(n), f, err
}

// both starts both nodes and lets what waits go first.
func (e *engine) both(ctx context.Context) (from, to *office, f *form, err error) {
	if err := e.site.Kill(Receiver); err != nil {
		return nil, nil, nil, err
	}
	n, err := e.site.Start(ctx, Receiver)
	if err != nil {
		return nil, nil, nil, err
	}
	if from, f, err = e.from(ctx); err != nil {
		return nil, nil, nil, err
	}
	_, err = e.drain(ctx, Sender, 0)
	return from, newOffice(n), f, err
}

// drain waits until at most left items wait at a node, and gives how long that
// took.
func (e *engine) drain(ctx context.Context, which Which, left uint64) (time.Duration, error) {
	begin := time.Now()
	for {
		n, err := e.site.Waiting(ctx, which)
		if err != nil || n <= left {
			return time.Since(begin), err
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// exchange: submitted, sealed, carried, verified, and the receipt verified at
// the sender, over HTTPS between the nodes.
func (e *engine) exchange(ctx context.Context) error {
	from, _, form, err := e.both(ctx)
	if err != nil {
		return err
	}
	if _, err := e.wholeWay(ctx, from, form, e.sizes.documents/4); err != nil { // warm
		return err
	}
	passes := append(acceptPasses(), []pass{
		{opVerify, 2, "header at the receiver, DELIVERED at the sender"}, {opSM3, smallDocument, "what arrived"}, {opUnwrap, 1, ""},
		{opOpen, smallDocument, ""}, {opSM3, smallDocument, "what was opened"}, {opSign, 1, "DELIVERED"},
		{opBlob, 1, "what arrived"}, {opRecord, 1, "the delivery"}, {opRecord, 1, "the receipt at home"},
	}...)
	var rounds []Result
	for range e.sizes.rounds {
		r, err := e.against("exchange", "documents/s", fmt.Sprintf("; %d documents of 10 KB, 256 clients", e.sizes.documents), passes, func() (float64, error) {
			return e.wholeWay(ctx, from, form, e.sizes.documents)
		})
		if err != nil {
			return err
		}
		rounds = append(rounds, r)
	}
	e.add(median(rounds))
	return nil
}

// wholeWay sends n documents and gives how many a second are delivered as the
// sender can prove: nothing waits any more at either end, neither documents
// nor receipts. That the receipts are there and verify is looked up afterwards,
// of every fiftieth.
func (e *engine) wholeWay(ctx context.Context, from *office, f *form, n int) (float64, error) {
	begin := time.Now()
	l, err := from.submitMany(ctx, f, n)
	if err != nil {
		return 0, err
	}
	for _, which := range []Which{Sender, Receiver, Sender} {
		if _, err := e.drain(ctx, which, 0); err != nil {
			return 0, err
		}
	}
	perSecond := float64(n) / time.Since(begin).Seconds()
	for i := 0; i < n; i += 50 {
		if err := from.delivered(ctx, l.documents[i]); err != nil {
			return 0, err
		}
	}
	return perSecond, nil
}

// delivered waits until a document's receipt is at home, and verified.
func (o *office) delivered(ctx context.Context, id string) error {
	for {
		var t struct {
			Recipients []struct{ Stage string } `json:"recipients"`
			Verified   bool                     `json:"receipts_verified"`
		}
		if err := o.get(ctx, "/v1/documents/"+id+"/trace", &t); err != nil {
			return err
		}
		if len(t.Recipients) == 1 && t.Recipients[0].Stage == "DELIVERED" {
			if !t.Verified {
				return fmt.Errorf("document %s: a receipt does not verify", id)
			}
			return nil
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// largeDocument goes end to end; the memory of both nodes is watched.
func (e *engine) largeDocument(ctx context.Context) error {
	from, to, form, err := e.both(ctx)
	if err != nil {
		return err
	}
	size := float64(e.sizes.large)
	passes := []pass{
		{opSM3, size, "plaintext"}, {opSeal, size, ""}, {opSM3, size, "ciphertext"},
		{opSM3, size, "what arrived"},
	}
	// Warm: what a node takes once, whatever the size, is not growth.
	if err := e.large(ctx, from, form, e.sizes.large/8); err != nil {
		return err
	}
	watch := watchMemory(from.Node, to.Node)
	r, err := e.against("large", "MiB/s", fmt.Sprintf("; one document of %d MiB, to the receipt at the sender", e.sizes.large>>20), passes, func() (float64, error) {
		begin := time.Now()
		err := e.large(ctx, from, form, e.sizes.large)
		return 1 / time.Since(begin).Seconds(), err
	})
	grown, watched := watch()
	if err == nil {
		err = watched
	}
	if err != nil {
		return err
	}
	mib := size / (1 << 20)
	r.Value, r.Bound = r.Value*mib, r.Bound*mib
	e.add(r)
	e.add(Result{"large_memory", grown, "MiB", 64, "by which the resident memory of either node may grow, after a document of an eighth of the size", 64 / max(grown, 1)})
	return nil
}

// large sends one document and waits for its receipt.
func (e *engine) large(ctx context.Context, from *office, f *form, size int64) error {
	id, err := from.submit(ctx, f, io.LimitReader(new(noise), size), size)
	if err != nil {
		return err
	}
	return from.delivered(ctx, id)
}

// noise is cheap content that does not compress.
type noise struct{ state uint64 }

func (n *noise) Read(p []byte) (int, error) {
	for i := 0; i+8 <= len(p); i += 8 {
		n.state = n.state*6364136223846793005 + 1442695040888963407
		binary.LittleEndian.PutUint64(p[i:], n.state)
	}
	return len(p), nil
}

// watchMemory gives, when it is called again, by how many MiB the process grew
// that grew most.
func watchMemory(nodes ...*Node) func() (float64, error) {
	first, most := make([]int64, len(nodes)), make([]int64, len(nodes))
	var failed error
	look := func(into []int64) {
		for i, n := range nodes {
			m, err := n.Memory()
			if err != nil {
				failed = err
			}
			into[i] = max(into[i], m)
		}
	}
	look(first)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			look(most)
			select {
			case <-time.After(10 * time.Millisecond):
			case <-quit:
				return
			}
		}
	}()
	return func() (float64, error) {
		close(quit)
		<-done
		grown := int64(0)
		for i := range nodes {
			grown = max(grown, most[i]-first[i])
		}
		return float64(grown) / (1 << 20), failed
	}
}
