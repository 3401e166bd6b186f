package inspect

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// eicar is the harmless file that every scanner takes for a virus; in two
// pieces, so that none takes this one for it.
const eicar = `X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR` + `-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*`

// clamd speaks the daemon's protocol: it refuses above most bytes, and finds
// what holds the test string.
func clamd(t *testing.T, most int, answer func(stream []byte) string) *Clamd {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serveClamd(conn, most, answer)
		}
	}()
	c, err := NewClamd("unix:"+path, 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func serveClamd(conn net.Conn, most int, answer func([]byte) string) {
	defer conn.Close()
	var command []byte
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(conn, b); err != nil {
			return
		}
		if b[0] == 0 {
			break
		}
		command = append(command, b[0])
	}
	if string(command) == "zPING" {
		_, _ = io.WriteString(conn, "PONG\x00")
		return
	}
	if string(command) != "zINSTREAM" {
		_, _ = io.WriteString(conn, "UNKNOWN COMMAND\x00")
		return
	}
	var stream []byte
	for n := uint32(0); ; {
		if binary.Read(conn, binary.BigEndian, &n) != nil {
			return
		}
		if n == 0 {
			break
		}
		if len(stream)+int(n) > most {
			_, _ = io.WriteString(conn, "INSTREAM size limit exceeded. ERROR\x00")
			return
		}
		chunk := make([]byte, n)
		if _, err := io.ReadFull(conn, chunk); err != nil {
			return
		}
		stream = append(stream, chunk...)
	}
	if answer != nil {
		_, _ = io.WriteString(conn, answer(stream))
		return
	}
	if bytes.Contains(stream, []byte(eicar)) {
		_, _ = io.WriteString(conn, "stream: Win.Test.EICAR_HDB-1 FOUND\x00")
		return
	}
	_, _ = io.WriteString(conn, "stream: OK\x00")
}

// TestScanner: what it finds is refused under its name, and what it cannot say
// is neither passed nor refused.
func TestScanner(t *testing.T) {
	fixed := func(s string) func([]byte) string { return func([]byte) string { return s } }
	clean := samplePDF("<< >>")
	bad := samplePDF("<< >>", eicar)
	large := samplePDF("<< >>", strings.Repeat("x", 3*clamdChunk))
	gone, err := NewClamd("unix:"+filepath.Join(t.TempDir(), "none"), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		scanner *Clamd
		b       []byte
		reason  string
		detail  string
		trouble string
	}{
		{"clean", clamd(t, 1<<20, nil), clean, "", "", ""},
		{"a virus", clamd(t, 1<<20, nil), bad, exchange.CodeContentMalware, "Win.Test.EICAR_HDB-1", ""},
		{"more than it looks at", clamd(t, 1<<20, fixed("stream: Heuristics.Limits.Exceeded.MaxFileSize FOUND\x00")), clean, exchange.CodeContentTooLarge, "Heuristics.Limits.Exceeded.MaxFileSize", ""},
		{"more than a chunk", clamd(t, 1<<20, nil), large, "", "", ""},
		{"more than it takes", clamd(t, 1<<17, nil), large, "", "", "StreamMaxLength"},
		{"away", gone, clean, "", "", "does not answer"},
		{"an error", clamd(t, 1<<20, fixed("stream: Can't allocate memory ERROR\x00")), clean, "", "", "no result"},
		{"no answer", clamd(t, 1<<20, fixed("")), clean, "", "", "gave no answer"},
		{"half an answer", clamd(t, 1<<20, fixed("stream: O")), clean, "", "", "gave no answer"},
		{"an answer without end", clamd(t, 1<<20, fixed(strings.Repeat("x", 10<<10))), clean, "", "", "without end"},
		{"two answers", clamd(t, 1<<20, fixed("stream: OK\x00stream: X FOUND\x00")), clean, "", "", "not understood"},
		{"an answer about something else", clamd(t, 1<<20, fixed("other: OK\x00")), clean, "", "", "no result"},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := &Inspector{Scanner: c.scanner}
			v, err := i.Inspect(t.Context(), "a.pdf", "application/pdf", bytes.NewReader(c.b), int64(len(c.b)))
			if c.trouble != "" {
				if !exchange.IsTemporary(err) || !strings.Contains(err.Error(), c.trouble) || v.Reason != "" {
					t.Fatalf("%+v, %v; want trouble %q", v, err, c.trouble)
				}
				return
			}
			if err != nil || v.Reason != c.reason || v.Detail != c.detail {
				t.Fatalf("%+v, %v; want %q", v, err, c.reason)
			}
		})
	}
}

// TestScannerIsAskedLast: what is refused anyway is not given to it.
func TestScannerIsAskedLast(t *testing.T) {
	c := clamd(t, 1<<20, func([]byte) string { t.Error("asked"); return "stream: OK\x00" })
	if v := judge(t, &Inspector{Scanner: c}, "a.pdf", "", []byte("#!/bin/sh")); v.Reason != exchange.CodeContentActive {
		t.Errorf("%+v", v)
	}
}

// TestScanEnds: neither a daemon that stays silent nor a file that cannot be
// read holds anybody up for ever.
func TestScanEnds(t *testing.T) {
	silent := clamd(t, 1<<20, func([]byte) string { time.Sleep(5 * time.Second); return "stream: OK\x00" })
	silent.timeout = 50 * time.Millisecond
	if _, err := silent.Scan(t.Context(), strings.NewReader("x")); !exchange.IsTemporary(err) {
		t.Errorf("silent: %v", err)
	}
	// A daemon that hangs costs its timeout once, and is asked again later.
	begin := time.Now()
	for range 100 {
		if _, err := silent.Scan(t.Context(), strings.NewReader("x")); !exchange.IsTemporary(err) {
			t.Errorf("silent: %v", err)
		}
	}
	if time.Since(begin) > 3*time.Second {
		t.Errorf("100 files took %v", time.Since(begin))
	}
	if silent.resting(time.Now().Add(clamdRest)) != nil {
		t.Error("it is never asked again")
	}
	silent.rest = time.Time{}
	silent.timeout = time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin = time.Now()
	if _, err := silent.Scan(ctx, strings.NewReader("x")); err == nil || time.Since(begin) > 3*time.Second {
		t.Errorf("cancelled: %v after %v", err, time.Since(begin))
	}
	if _, err := clamd(t, 1<<20, nil).Scan(t.Context(), iotest.ErrReader(errDisk)); !errors.Is(err, errDisk) {
		t.Errorf("a file that cannot be read: %v", err)
	}
}

func TestPing(t *testing.T) {
	if err := clamd(t, 0, nil).Ping(t.Context()); err != nil {
		t.Error(err)
	}
	gone, err := NewClamd("tcp:127.0.0.1:1", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := gone.Ping(t.Context()); !exchange.IsTemporary(err) {
		t.Errorf("away: %v", err)
	}
}

func TestClamdAddress(t *testing.T) {
	for address, good := range map[string]bool{
		"unix:/run/clamav/clamd.ctl": true, "tcp:127.0.0.1:3310": true, "tcp:[::1]:3310": true,
		"": false, "/run/clamav/clamd.ctl": false, "unix:": false, "unix:clamd.ctl": false, "tcp:3310": false, "tcp::3310": false, "tcp:host:": false, "http://x": false,
	} {
		if _, err := NewClamd(address, 0); (err == nil) != good {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestReply(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, c := range []struct {
		reply, found string
		ok           bool
	}{
		{"stream: OK\x00", "", true},
		{"stream: Eicar-Signature FOUND\x00", "Eicar-Signature", true},
		{"stream: Eicar(44d88612:68) FOUND\x00", "Eicar(44d88612:68)", true},
		{"stream: a b\xffc FOUND\x00", "a_b_c", true},
		{"stream: " + long + " FOUND\x00", long[:clamdName], true},
		{"stream: OK FOUND\x00", "OK", true},
		{"stream:  FOUND\x00", "", false},
		{"stream: OK", "", false},
		{"stream: OK\x00\x00", "", false},
		{"stream: OK\nstream: X FOUND\x00", "", false},
		{"stream: ok\x00", "", false},
		{"stream: OK \x00", "", false},
		{"OK\x00", "", false},
		{"", "", false},
		{"\x00", "", false},
		{"INSTREAM size limit exceeded. ERROR\x00", "", false},
	} {
		found, err := parseReply([]byte(c.reply))
		if found != c.found || (err == nil) != c.ok || err != nil && !exchange.IsTemporary(err) {
			t.Errorf("%.40q: %q, %v", c.reply, found, err)
		}
	}
}
