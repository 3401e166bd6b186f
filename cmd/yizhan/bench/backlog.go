package bench

import (
	"context"
	"fmt"
	"time"
)

// backlog: accepting and draining with many deliveries waiting, against none;
// what each takes of memory; and how long a killed node needs to serve again.
func (e *engine) backlog(ctx context.Context) error {
	emptyAccept, emptyDrain, emptyMemory, err := e.whileEmpty(ctx)
	if err != nil {
		return err
	}
	from, form, err := e.sender(ctx)
	if err != nil {
		return err
	}
	if err := e.fill(ctx, from, form); err != nil {
		return err
	}
	l, err := from.submitMany(ctx, form, e.sizes.probe)
	if err != nil {
		return err
	}
	n, memory, err := e.afterKill(ctx)
	if err != nil {
		return err
	}
	drained, err := e.drainSome(ctx)
	if err != nil {
		return err
	}
	sizes := fmt.Sprintf("with nothing waiting; %d deliveries waited, %d documents measured", n, e.sizes.probe)
	accept := Result{"backlog_accept", l.perSecond, "documents/s", emptyAccept, sizes, l.perSecond / emptyAccept}
	drain := Result{"backlog_drain", drained, "documents/s", emptyDrain, sizes, drained / emptyDrain}
	worse := accept
	if drain.Ratio < accept.Ratio {
		worse = drain
	}
	worse.Name, worse.BoundIs = "backlog", "the worse of accepting and draining, "+worse.BoundIs
	e.add(worse)
	e.add(accept)
	e.add(drain)
	e.add(memoryResult(float64(max(memory-emptyMemory, 0)), n))
	return nil
}

// tellingBacklog is from where on the memory for each delivery can be told from
// the store's caches, which have a fixed size.
const tellingBacklog = 100_000

func memoryResult(grown float64, waiting uint64) Result {
	r := Result{Name: "backlog_memory", Unit: "B/delivery", Bound: 400}
	if waiting < tellingBacklog {
		r.BoundIs = fmt.Sprintf("not measured: with less than %d waiting deliveries the store's caches of a fixed size hide it", tellingBacklog)
		return r
	}
	r.Value = grown / float64(waiting)
	r.BoundIs = "allowed for each waiting delivery: live memory of a node just started, with them and without"
	r.Ratio = r.Bound / max(r.Value, 1)
	return r
}

// whileEmpty measures accepting, draining and memory with nothing waiting.
func (e *engine) whileEmpty(ctx context.Context) (accept, drain float64, memory int64, err error) {
	if _, _, _, err := e.both(ctx); err != nil {
		return 0, 0, 0, err
	}
	from, form, err := e.sender(ctx)
	if err != nil {
		return 0, 0, 0, err
	}
	if _, err := from.submitMany(ctx, form, e.sizes.probe); err != nil { // warm, and so that draining has a beginning
		return 0, 0, 0, err
	}
	l, err := from.submitMany(ctx, form, e.sizes.probe)
	if err != nil {
		return 0, 0, 0, err
	}
	if drain, err = e.drainSome(ctx); err != nil {
		return 0, 0, 0, err
	}
	if _, err := e.drain(ctx, Sender, 0); err != nil {
		return 0, 0, 0, err
	}
	// As afterKill does with what waits: a store that ended in the middle of its
	// work is read back into memory first.
	if _, _, err := e.sender(ctx); err != nil {
		return 0, 0, 0, err
	}
	memory, err = e.settledMemory(ctx)
	return l.perSecond, drain, memory, err
}

// fill lets deliveries wait until there are as many as asked for.
func (e *engine) fill(ctx context.Context, from *office, form *form) error {
	for {
		n, err := e.site.Waiting(ctx, Sender)
		if err != nil || n >= uint64(e.sizes.waiting) {
			return err
		}
		e.say("  %d of %d wait\n", n, e.sizes.waiting)
		if _, err := from.submitMany(ctx, form, min(e.sizes.waiting-int(n), 50_000)); err != nil {
			return err
		}
		if err := e.distributed(ctx); err != nil {
			return err
		}
	}
}

// distributed waits until the count of what waits stands still: every document
// has become a delivery in its lane.
func (e *engine) distributed(ctx context.Context) error {
	last := uint64(0)
	for {
		n, err := e.site.Waiting(ctx, Sender)
		if err != nil || n == last {
			return err
		}
		last = n
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

// drainSome starts the receiver and gives deliveries a second while the first
// of what waits goes.
func (e *engine) drainSome(ctx context.Context) (float64, error) {
	if err := e.distributed(ctx); err != nil {
		return 0, err
	}
	begin, err := e.site.Waiting(ctx, Sender)
	if err != nil {
		return 0, err
	}
	if begin < uint64(e.sizes.probe) {
		return 0, fmt.Errorf("%d deliveries wait, and %d are to be drained", begin, e.sizes.probe)
	}
	if err := e.site.Kill(Receiver); err != nil {
		return 0, err
	}
	if _, err := e.site.Start(ctx, Receiver); err != nil {
		return 0, err
	}
	// The first tenth covers the time until the sender tries again, unless so few
	// wait that they are gone between two looks.
	first, since := begin, time.Now()
	some := uint64(e.sizes.probe)
	if _, err := e.drain(ctx, Sender, begin-some/10); err != nil {
		return 0, err
	}
	now, err := e.site.Waiting(ctx, Sender)
	if err != nil {
		return 0, err
	}
	if now > begin-some {
		first, since = now, time.Now()
	}
	if _, err := e.drain(ctx, Sender, begin-some); err != nil {
		return 0, err
	}
	left, err := e.site.Waiting(ctx, Sender)
	return float64(first-left) / time.Since(since).Seconds(), err
}

// afterKill ends the sender as kill -9 does and measures until it serves.
func (e *engine) afterKill(ctx context.Context) (waiting uint64, memory int64, err error) {
	if err := e.distributed(ctx); err != nil {
		return 0, 0, err
	}
	if waiting, err = e.site.Waiting(ctx, Sender); err != nil {
		return 0, 0, err
	}
	if err := e.site.Kill(Sender); err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	if _, err := e.site.Start(ctx, Sender); err != nil {
		return 0, 0, err
	}
	took := time.Since(begin).Seconds()
	e.add(Result{"restart", took, "s", 10, fmt.Sprintf("allowed from kill -9 to serving, with %d waiting", waiting), 10 / took})
	memory, err = e.settledMemory(ctx)
	return waiting, memory, err
}

// settledMemory is what the sender holds two seconds after it serves.
func (e *engine) settledMemory(ctx context.Context) (int64, error) {
	if err := sleep(ctx, 2*time.Second); err != nil {
		return 0, err
	}
	return e.site.Live(ctx, Sender)
}
