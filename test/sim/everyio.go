package sim

import (
	"bytes"
	"time"

	"github.com/yizhan-gateway/yizhan/internal/durable/crashfs"
	"github.com/yizhan-gateway/yizhan/queue"
)

// way is how an I/O fails.
type way int

const (
	failsBefore way = iota // an error, and nothing of it is there
	failsAfter             // an error, and all of it is there
	cutBefore              // the power goes before it
	cutAfter               // and after it
	ways
)

// strike lets one I/O of a run fail: a commit of any host's store, or an
// operation of its disk that changes something.
type strike struct {
	at, count int
	way       way
	hit       bool
}

func (s *strike) before(err error) error {
	if s == nil {
		return nil
	}
	s.count++
	if s.count != s.at || s.way == failsAfter || s.way == cutAfter {
		return nil
	}
	return s.now(err)
}

func (s *strike) after(err error) error {
	if s == nil || s.hit || s.count != s.at {
		return nil
	}
	return s.now(err)
}

func (s *strike) now(err error) error {
	if s.hit = true; s.way == cutBefore || s.way == cutAfter {
		panic(crash{})
	}
	return err
}

// RunStrike lets a few documents cross in order, with the n-th I/O failing; then
// everything must finish and every promise hold. hit is false when there are fewer
// than n.
func RunStrike(seed uint64, n int, how way) (hit bool, stats Stats, err error) {
	s := &strike{at: n, way: how}
	_, stats, err = runWorld(2*seed+1, func(w *world) {
		w.faults.armed = false
		w.strike = s
		for _, h := range w.hosts {
			h.store.strike = s
			h.fs.Before = func(string, string) error { return s.before(crashfs.ErrInjected()) }
			h.fs.After = func(string, string) error { return s.after(crashfs.ErrInjected()) }
		}
		for _, h := range w.hosts {
			w.startAgain(h)
		}
		w.cross()
		for _, h := range w.hosts {
			h.store.strike, h.fs.Before, h.fs.After = nil, nil, nil
		}
		w.strike = nil
	})
	return s.hit, stats, err
}

// startAgain ends a host's process and starts it, twice if the I/O that fails is
// one of the start.
func (w *world) startAgain(h *host) {
	for had := true; had; {
		before := w.strike.hit
		had = w.failsToStart(h) && !before && w.strike.hit
	}
}

func (w *world) failsToStart(h *host) (failed bool) {
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		if _, refused := r.(failure); !refused && r != (any)(crash{}) || !w.strike.hit {
			panic(r)
		}
		failed = true
	}()
	h.fs.Crash()
	h.boot()
	return false
}

// cross is the way of two documents, one of them in files of its own, from the
// clients to the last receipt.
func (w *world) cross() {
	for range 2 {
		w.newSubmission()
	}
	w.docs[0].files[0] = bytes.Repeat([]byte("正文"), 5000)
	for range 40 {
		w.clock = w.clock.Add(time.Second)
		w.expireCalls()
		for _, d := range w.docs {
			if d.id == "" {
				w.guarded(d.host, func() { w.trySubmit(d) })
			}
		}
		for _, h := range w.hosts {
			w.tend(h)
		}
		for _, p := range w.pairs {
			for _, poll := range []bool{false, true} {
				w.startCall(p, poll)
				for len(w.wire) > 0 {
					w.deliverMessage()
				}
			}
		}
		if !w.hasWork() {
			return
		}
	}
}

// tend is what a host does by itself, and what its agencies and its operator do.
func (w *world) tend(h *host) {
	for more := true; more; {
		more = false
		w.guarded(h, func() {
			var err error
			more, err = h.node.Work(w.ctx)
			w.tolerate(err, "work")
		})
	}
	w.requeue(h)
	w.guarded(h, func() { w.actOnAll(h) })
	w.guarded(h, func() {
		_, err := h.blobs.Sweep(w.ctx, func(ref queue.Ref) (bool, error) { return h.node.Referenced(w.ctx, ref) })
		w.tolerate(err, "sweep")
		_, err = h.blobs.Compact(w.ctx)
		w.tolerate(err, "copying out")
	})
}

// hasWork says whether anything is left to do.
func (w *world) hasWork() bool { return w.unfinished() != "" }
