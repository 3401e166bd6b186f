package main

import (
	"context"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/yizhan-gateway/yizhan/queue"
)

// supervisor is who started the process and wants to hear how it is, as systemd
// has it (sd_notify): datagrams to the socket that NOTIFY_SOCKET names. Without
// one it hears nothing.
type supervisor struct {
	conn net.Conn
	// every is how often it wants to hear; 0 is never.
	every time.Duration
}

// findSupervisor reads what the environment says, and takes it out, so that no
// process that this one starts speaks in its name.
func findSupervisor() (*supervisor, error) {
	path, usec, pid := os.Getenv("NOTIFY_SOCKET"), os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID")
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		if err := os.Unsetenv(name); err != nil {
			return nil, err
		}
	}
	if path == "" {
		return &supervisor{}, nil
	}
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		return nil, err
	}
	s := &supervisor{conn: conn}
	if n, err := strconv.ParseInt(usec, 10, 64); err == nil && n > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		s.every = time.Duration(n) * time.Microsecond / 3
	}
	return s, nil
}

func (s *supervisor) say(state string) error {
	if s.conn == nil {
		return nil
	}
	_, err := s.conn.Write([]byte(state))
	return err
}

func (s *supervisor) close() error {
	if s.conn == nil {
		return nil
	}
	return s.conn.Close()
}

// keepAlive says that the process lives for as long as alive finds so, until the
// context ends. A process whose store does not commit any more is not alive,
// whatever else it does: then nothing is said and it is started again.
func (s *supervisor) keepAlive(ctx context.Context, alive func(context.Context) error, failed func(error)) {
	if s.every == 0 {
		return
	}
	for tick := time.NewTicker(s.every); ; {
		look, cancel := context.WithTimeout(ctx, s.every)
		err := alive(look)
		cancel()
		if err == nil {
			err = s.say("WATCHDOG=1")
		}
		if err != nil && ctx.Err() == nil {
			failed(err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return
		}
	}
}

// tell says something to the supervisor, which need not hear it.
func (g *gateway) tell(state string) {
	if err := g.boss.say(state); err != nil {
		g.log.Warn("the supervisor cannot be told how the node is", "error", err)
	}
}

// commits finds out whether the store still answers: an empty transaction waits
// its turn behind all others, so that it comes back only when those before it
// were synced.
func (g *gateway) commits(ctx context.Context) error {
	return g.store.Update(ctx, func(queue.Tx) error { return nil })
}

// silent says in the log why the supervisor hears nothing.
func (g *gateway) silent(err error) {
	g.log.Error("the store does not commit; the supervisor is not told that the node lives", "error", err)
}
