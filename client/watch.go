package client

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// errStalled is why a call was given up: nothing came or went for too long.
var errStalled = errors.New("client: nothing came for too long")

// watchdog gives a call up when it is not fed in time.
type watchdog struct {
	every time.Duration
	mu    sync.Mutex
	timer *time.Timer // nil once it has ended
}

func watch(cancel context.CancelCauseFunc, every time.Duration) *watchdog {
	return &watchdog{every: every, timer: time.AfterFunc(every, func() { cancel(errStalled) })}
}

func (w *watchdog) feed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Reset(w.every)
	}
}

func (w *watchdog) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
}

// watched is a body under watch. Of the response it ends the watch when it is
// closed; each read feeds it, or none does.
type watched struct {
	io.ReadCloser
	w      *watchdog
	cancel context.CancelCauseFunc // of the response's
	each   bool
}

func (b *watched) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.each && n > 0 {
		b.w.feed()
	}
	return n, err
}

func (b *watched) Close() error {
	err := b.ReadCloser.Close()
	if b.cancel != nil {
		b.w.end()
		b.cancel(nil)
	}
	return err
}
