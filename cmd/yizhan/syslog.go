package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"log/syslog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The bounds of what waits for the syslog daemon. A node never waits for it:
// what does not fit is dropped, counted, and said once there is room.
const (
	syslogWaiting = 1024
	syslogLine    = 8 << 10
	syslogAgain   = 2 * time.Second
	syslogEnd     = time.Second
)

// syslogAddress reads the setting; "local" and "" have neither network nor
// address.
func syslogAddress(text string) (network, address string, err error) {
	if text == "" || text == "local" {
		return "", "", nil
	}
	u, err := url.Parse(text)
	if err != nil {
		return "", "", errors.New("not an address")
	}
	switch {
	case u.Scheme == "unixgram" && u.Host == "" && u.Path != "":
		return u.Scheme, u.Path, nil
	case (u.Scheme == "udp" || u.Scheme == "tcp") && u.Port() != "" && u.Path == "":
		return u.Scheme, u.Host, nil
	}
	return "", "", errors.New("name local, unixgram:///PATH, udp://HOST:PORT or tcp://HOST:PORT")
}

// entry is one line on its way.
type entry struct {
	level slog.Level
	text  string
}

// syslogSink brings lines to the daemon, one after the other, on a goroutine of
// its own. A daemon that is away or slow costs lines and no time of the node.
type syslogSink struct {
	network, address string
	lines            chan entry
	stop, done       chan struct{}
	dropped          atomic.Uint64
	closing          sync.Once
}

func newSyslogSink(setting string) *syslogSink {
	network, address, _ := syslogAddress(setting) // checked with the configuration
	s := &syslogSink{network: network, address: address, lines: make(chan entry, syslogWaiting), stop: make(chan struct{}), done: make(chan struct{})}
	go s.run()
	return s
}

func (s *syslogSink) put(e entry) {
	if len(e.text) > syslogLine {
		e.text = strings.ToValidUTF8(e.text[:syslogLine], "") + "…"
	}
	select {
	case s.lines <- e:
	default:
		s.dropped.Add(1)
	}
}

// close gives what waits a moment to leave.
func (s *syslogSink) close() {
	s.closing.Do(func() { close(s.stop) })
	select {
	case <-s.done:
	case <-time.After(syslogEnd):
	}
}

func (s *syslogSink) run() {
	defer close(s.done)
	var w *syslog.Writer
	var tried time.Time
	for {
		var e entry
		select {
		case e = <-s.lines:
		case <-s.stop:
			select {
			case e = <-s.lines: // the rest
			default:
				return
			}
		}
		if w == nil && time.Since(tried) >= syslogAgain {
			tried = time.Now()
			w, _ = syslog.Dial(s.network, s.address, syslog.LOG_DAEMON|syslog.LOG_INFO, "yizhan") // tried again
		}
		if w == nil {
			s.dropped.Add(1)
			continue
		}
		if n := s.dropped.Swap(0); n > 0 {
			_ = w.Warning(fmt.Sprintf("%d lines of this log were lost on the way", n)) // as lost as they are
		}
		if send(w, e) != nil {
			s.dropped.Add(1)
			_ = w.Close() // it is made anew
			w = nil
		}
	}
}

func send(w *syslog.Writer, e entry) error {
	switch {
	case e.level >= slog.LevelError:
		return w.Err(e.text)
	case e.level >= slog.LevelWarn:
		return w.Warning(e.text)
	case e.level >= slog.LevelInfo:
		return w.Info(e.text)
	}
	return w.Debug(e.text)
}

// syslogHandler makes lines without a time, which the daemon adds.
type syslogHandler struct {
	sink  *syslogSink
	line  *syslogBuffer
	inner slog.Handler
}

type syslogBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func newSyslogHandler(sink *syslogSink, s *logSettings, level slog.Level) *syslogHandler {
	line := new(syslogBuffer)
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}
	return &syslogHandler{sink, line, s.handler(&line.Buffer, options)}
}

// Enabled implements slog.Handler.
func (h *syslogHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.inner.Enabled(ctx, l)
}

// Handle implements slog.Handler.
func (h *syslogHandler) Handle(ctx context.Context, r slog.Record) error {
	h.line.mu.Lock()
	defer h.line.mu.Unlock()
	h.line.Reset()
	if err := h.inner.Handle(ctx, r); err != nil {
		return err
	}
	h.sink.put(entry{r.Level, strings.TrimSuffix(h.line.String(), "\n")})
	return nil
}

// WithAttrs implements slog.Handler.
func (h *syslogHandler) WithAttrs(a []slog.Attr) slog.Handler {
	return &syslogHandler{h.sink, h.line, h.inner.WithAttrs(a)}
}

// WithGroup implements slog.Handler.
func (h *syslogHandler) WithGroup(name string) slog.Handler {
	return &syslogHandler{h.sink, h.line, h.inner.WithGroup(name)}
}
