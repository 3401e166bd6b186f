package rest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// TestTheBudgetOfUploads: long uploads leave room for short ones, who finds none
// waits for it and is told to come again, and what is given back is there.
func TestTheBudgetOfUploads(t *testing.T) {
	b := newBudget("uploads", 4*uploadMost, uploadMost)
	var held []func()
	for _, agency := range []string{"a", "b", "c"} {
		release, err := b.take(t.Context(), agency, weight(-1), 0)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, release)
	}
	if _, err := b.take(t.Context(), "d", weight(100<<20), 0); exchange.CodeOf(err) != exchange.CodeTemporary {
		t.Errorf("a fourth long one: %v", err)
	}
	short := 0
	for ; ; short++ {
		if _, err := b.take(t.Context(), fmt.Sprint("d", short), weight(10<<10), 0); err != nil {
			break
		}
	}
	if want := uploadMost / (uploadLeast + 10<<10); short != int(want) {
		t.Errorf("%d short ones find room, want %d", short, want)
	}
	time.AfterFunc(20*time.Millisecond, func() { held[0](); held[0]() })
	if _, err := b.take(t.Context(), "e", weight(10<<10), 5*time.Second); err != nil {
		t.Errorf("room that came back: %v", err)
	}
	for range 3 {
		held[1]()
		held[2]()
	}
	if b.room > 3*uploadMost {
		t.Errorf("room was given back twice: %d", b.room)
	}
}

// TestOneAgencyHoldsHalf: the other half stays for the others, and whoever holds
// nothing may begin.
func TestOneAgencyHoldsHalf(t *testing.T) {
	b := newBudget("uploads", 8*uploadMost, uploadMost)
	var held []func()
	for range 4 {
		release, err := b.take(t.Context(), "a", uploadMost, 0)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, release)
	}
	if _, err := b.take(t.Context(), "a", uploadMost, 0); exchange.CodeOf(err) != exchange.CodeTemporary {
		t.Errorf("more than half: %v", err)
	}
	short := 0
	for ; ; short++ {
		release, err := b.take(t.Context(), "a", uploadMost/4, 0)
		if err != nil {
			break
		}
		held = append(held, release)
	}
	if short != 4 {
		t.Errorf("%d short ones beside them, want an eighth", short)
	}
	if _, err := b.take(t.Context(), "b", uploadMost, 0); err != nil {
		t.Errorf("another agency: %v", err)
	}
	for _, release := range held {
		release()
	}
	if len(b.held) != 1 {
		t.Errorf("%d agencies are remembered", len(b.held))
	}
	small := newBudget("uploads", uploadMost, 1<<40)
	if _, err := small.take(t.Context(), "a", uploadMost, 0); err != nil {
		t.Errorf("the only one: %v", err)
	}
}

// TestABodyThatNeverComes holds no connection, whoever is asked for what.
func TestABodyThatNeverComes(t *testing.T) {
	o := newOfficeWith(t, Config{Silence: 200 * time.Millisecond})
	for _, line := range []string{"POST /livez", "GET /v1/inbox", "POST /v1/documents", "POST /nowhere", "POST /v1/documents/x/recall"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(o.url, "http://"))
		o.must(err)
		_, err = fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n", line)
		o.must(err)
		o.must(conn.SetReadDeadline(time.Now().Add(10 * time.Second)))
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection is held", line)
		}
		o.must(conn.Close())
	}
}

// TestASilentUpload is given up, and its caller told so.
func TestASilentUpload(t *testing.T) {
	o := newOfficeWith(t, Config{Silence: 200 * time.Millisecond})
	r, w := io.Pipe()
	defer w.Close()
	body, kind := form([]part{{"document", "", o.meta(nil)}, {"body", "正文.ofd", "text"}})
	go func() { _, _ = w.Write(body[:len(body)-20]) }()
	began := time.Now()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, o.url+"/v1/documents", r)
	o.must(err)
	req.Header.Set("Authorization", "Bearer "+o.keys["jia"])
	req.Header.Set("Content-Type", kind)
	req.Header.Set("Idempotency-Key", "silent")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusServiceUnavailable || time.Since(began) > 5*time.Second {
		t.Errorf("%s after %s", res.Status, time.Since(began))
	}
	o.sent("after")
}

// TestATricklingUpload is given up though it is never silent; one that falls behind for
// a moment is not.
func TestATricklingUpload(t *testing.T) {
	o := newOfficeWith(t, Config{Silence: time.Minute, Slowest: 100_000, Grace: 2 * time.Second})
	send := func(key string, piece int) (status int, problem string) {
		t.Helper()
		r, w := io.Pipe()
		body, kind := form([]part{{"document", "", o.meta(nil)}, {"body", "正文.ofd", strings.Repeat("text", 1500)}})
		go func() {
			for len(body) > 0 {
				n := min(piece, len(body))
				if _, err := w.Write(body[:n]); err != nil {
					return
				}
				body = body[n:]
				time.Sleep(50 * time.Millisecond)
			}
			_ = w.Close()
		}()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, o.url+"/v1/documents", r)
		o.must(err)
		req.Header.Set("Authorization", "Bearer "+o.keys["jia"])
		req.Header.Set("Content-Type", kind)
		req.Header.Set("Idempotency-Key", key)
		res, err := http.DefaultClient.Do(req)
		o.must(err)
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		o.must(err)
		_ = r.Close()
		return res.StatusCode, string(b)
	}
	if status, problem := send("trickle", 10); status != http.StatusRequestTimeout || !strings.Contains(problem, `"too_slow"`) {
		t.Errorf("a trickle: %d %s", status, problem)
	}
	if status, problem := send("slow", 2000); status != http.StatusCreated {
		t.Errorf("a slow one: %d %s", status, problem)
	}
	o.sent("after")
}

// TestPace: what came early does not pay for a trickle later, and only waiting counts.
func TestPace(t *testing.T) {
	p := pace{slowest: 1000, grace: time.Minute, left: time.Minute}
	p.read(30<<20, time.Second)
	if p.left != time.Minute {
		t.Errorf("a burst leaves %s", p.left)
	}
	for range 59 {
		p.read(1, time.Second)
	}
	if p.left < 0 || p.left > 2*time.Second {
		t.Errorf("after 59 seconds of one byte each %s are left", p.left)
	}
	if p.read(1, 2*time.Second); p.left > 0 {
		t.Errorf("%s are left", p.left)
	}
}
