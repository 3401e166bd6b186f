package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

// notifySocket is a supervisor's socket.
func notifySocket(t *testing.T) (*net.UnixConn, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, path
}

// hear gives the next datagram, empty when none comes within a while.
func hear(l *net.UnixConn, within time.Duration) string {
	b := make([]byte, 200)
	_ = l.SetReadDeadline(time.Now().Add(within))
	n, _ := l.Read(b)
	return string(b[:n])
}

// TestTheWatchdogHearsOfLife: as long as the store commits, and not from a timer
// when it does not.
func TestTheWatchdogHearsOfLife(t *testing.T) {
	l, path := notifySocket(t)
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "150000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	s, err := findSupervisor()
	if err != nil || s.every != 50*time.Millisecond {
		t.Fatalf("%+v, %v", s, err)
	}
	if os.Getenv("NOTIFY_SOCKET") != "" {
		t.Error("a child would speak in this process's name")
	}
	if err := s.say("READY=1"); err != nil || hear(l, time.Second) != "READY=1" {
		t.Fatalf("it does not hear: %v", err)
	}
	var stuck atomic.Bool
	var failures atomic.Int32
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan bool)
	go func() {
		defer close(ended)
		s.keepAlive(ctx, func(ctx context.Context) error {
			if !stuck.Load() {
				return nil
			}
			<-ctx.Done() // a sync that does not come back
			return ctx.Err()
		}, func(err error) {
			if errors.Is(err, context.DeadlineExceeded) {
				failures.Add(1)
			}
		})
	}()
	for range 3 {
		if got := hear(l, time.Second); got != "WATCHDOG=1" {
			t.Fatalf("heard %q of a process that lives", got)
		}
	}
	stuck.Store(true)
	for hear(l, 100*time.Millisecond) != "" { // said before
	}
	if got := hear(l, 300*time.Millisecond); got != "" || failures.Load() == 0 {
		t.Errorf("heard %q of a process whose store does not commit, %d failures", got, failures.Load())
	}
	stuck.Store(false)
	if got := hear(l, time.Second); got != "WATCHDOG=1" {
		t.Errorf("heard %q when it commits again", got)
	}
	cancel()
	<-ended
}

// TestNobodySupervises: without a socket nothing is said and nothing fails, and
// the watchdog of another process is not ours.
func TestNobodySupervises(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	s, err := findSupervisor()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.say("READY=1"), s.close()); err != nil {
		t.Error(err)
	}
	s.keepAlive(t.Context(), func(context.Context) error { t.Error("asked"); return nil }, nil)

	_, path := notifySocket(t)
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "150000")
	t.Setenv("WATCHDOG_PID", "1")
	if s, err = findSupervisor(); err != nil || s.every != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	if _, err = findSupervisor(); err == nil {
		t.Error("a socket that is not there is no mistake")
	}
}
