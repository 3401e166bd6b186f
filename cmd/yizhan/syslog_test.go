package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// TestSyslog: each line reaches a real socket with its priority, structured as
// the log is, and standard error has it, too.
func TestSyslog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &logSettings{Format: "json", Syslog: "unixgram://" + path}
	var stderr bytes.Buffer
	log, end := s.open(&stderr, slog.LevelInfo)
	log.Debug("not asked for")
	log.With("link", "jia-yi").Info("one", "n", 1)
	log.WithGroup("g").Warn("two", "n", 2)
	log.Error("three", "text", "甲\n乙")
	log.Error(strings.Repeat("长", 10_000))
	end()
	b := make([]byte, 64<<10)
	for i, want := range []struct {
		priority int // daemon is 3
		json     string
	}{{3*8 + 6, `{"level":"INFO","msg":"one","link":"jia-yi","n":1}`}, {3*8 + 4, `{"level":"WARN","msg":"two","g":{"n":2}}`}, {3*8 + 3, `{"level":"ERROR","msg":"three","text":"甲\n乙"}`}} {
		_ = l.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, err := l.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		got := string(b[:n])
		if !strings.HasPrefix(got, fmt.Sprintf("<%d>", want.priority)) || !strings.HasSuffix(got, fmt.Sprintf("yizhan[%d]: %s\n", os.Getpid(), want.json)) {
			t.Errorf("line %d is %q", i, got)
		}
	}
	if n, err := l.Read(b); err != nil || n > syslogLine+200 {
		t.Errorf("a long line has %d bytes, %v", n, err)
	}
	if lines := strings.Split(strings.TrimSpace(stderr.String()), "\n"); len(lines) != 4 || !json.Valid([]byte(lines[0])) {
		t.Errorf("standard error has %d lines: %.200s", len(lines), stderr.String())
	}
}

// TestASyslogThatIsAway costs lines and no time; that they were lost is said
// when it is back.
func TestASyslogThatIsAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	s := newSyslogSink("unixgram://" + path)
	began := time.Now()
	for range 10 * syslogWaiting {
		s.put(entry{slog.LevelInfo, "lost"})
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("a daemon that is away took %s of the node's time", took)
	}
	for end := time.Now().Add(5 * time.Second); s.dropped.Load() < 10*syslogWaiting && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	time.Sleep(syslogAgain + 100*time.Millisecond)
	s.put(entry{slog.LevelInfo, "heard"})
	s.close()
	b := make([]byte, 4096)
	for _, want := range []string{"10240 lines of this log were lost", "heard"} {
		_ = l.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, err := l.Read(b)
		if err != nil || !strings.Contains(string(b[:n]), want) {
			t.Errorf("%q, %v instead of %q", b[:n], err, want)
		}
	}
}

// TestLogSettings: what is not understood is refused when the node starts.
func TestLogSettings(t *testing.T) {
	for _, bad := range []logSettings{{Format: "xml"}, {Syslog: "remote"}, {Syslog: "udp://host"}, {Syslog: "unixgram://host/x"}, {Syslog: "http://h:1"}, {Syslog: "tcp://h:1/x"}, {Syslog: "\x00"}} {
		if err := bad.check("config.toml"); exchange.CodeOf(err) != exchange.CodeBadRequest {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	for _, good := range []logSettings{{}, {Format: "json"}, {Syslog: "local"}, {Syslog: "udp://[::1]:514"}, {Syslog: "tcp://loghost:601"}, {Syslog: "unixgram:///run/log"}} {
		if err := good.check("config.toml"); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
}
