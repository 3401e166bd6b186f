package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// serve runs a server on the socket of a directory until the test ends.
func serve(t *testing.T, dir string, routes func(*Server)) {
	t.Helper()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := New(slog.New(slog.DiscardHandler))
	s.read = 200 * time.Millisecond
	routes(s)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, l.Close()); err != nil {
			t.Error(err)
		}
	})
}

func ask(t *testing.T, dir, method, path string, in, out any, progress func(json.RawMessage)) error {
	t.Helper()
	c, err := Dial(t.Context(), dir)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Call(t.Context(), method, path, in, out, progress)
}

// TestAnswers: results, errors and progress come over as they were given, also
// when the work takes longer than a request may.
func TestAnswers(t *testing.T) {
	dir := t.TempDir()
	refusal := &exchange.Error{Code: exchange.CodeNotFound, Detail: "link \"x\"", Temporary: true}
	serve(t, dir, func(s *Server) {
		s.Handle("POST /echo", func(_ context.Context, q *Request) (any, error) {
			var in struct{ A int }
			err := q.Decode(&in)
			return in, err
		})
		s.Handle("GET /refuse", func(context.Context, *Request) (any, error) { return nil, refusal })
		s.Handle("GET /break", func(context.Context, *Request) (any, error) { return nil, errors.New("a fault") })
		s.HandleLong("POST /long", func(ctx context.Context, q *Request) (any, error) {
			for i := range 3 {
				q.Progress(i)
				select {
				case <-time.After(200 * time.Millisecond):
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
			if q.Query.Get("end") == "refusal" {
				return nil, refusal
			}
			return "done", nil
		})
	})
	var echo struct{ A int }
	if err := ask(t, dir, "POST", "/echo", map[string]int{"A": 7}, &echo, nil); err != nil || echo.A != 7 {
		t.Errorf("%d, %v", echo.A, err)
	}
	for _, bad := range []any{map[string]int{"B": 1}, strings.Repeat("x", maxRequest)} {
		if err := ask(t, dir, "POST", "/echo", bad, nil, nil); exchange.CodeOf(err) != exchange.CodeBadRequest {
			t.Errorf("a bad body: %v", err)
		}
	}
	var known *exchange.Error
	if err := ask(t, dir, "GET", "/refuse", nil, nil, nil); !errors.As(err, &known) || *known != *refusal {
		t.Errorf("a refusal comes as %v", err)
	}
	if err := ask(t, dir, "GET", "/break", nil, nil, nil); err == nil || err.Error() != "a fault" {
		t.Errorf("a fault comes as %v", err)
	}
	if err := ask(t, dir, "GET", "/none", nil, nil, nil); exchange.CodeOf(err) != exchange.CodeNotFound {
		t.Errorf("an unknown route: %v", err)
	}
	var seen []string
	note := func(p json.RawMessage) { seen = append(seen, string(p)) }
	var result string
	if err := ask(t, dir, "POST", "/long", nil, &result, note); err != nil || result != "done" || !slices.Equal(seen, []string{"0", "1", "2"}) {
		t.Errorf("%q after %v, %v", result, seen, err)
	}
	if err := ask(t, dir, "POST", "/long?end=refusal", nil, nil, nil); !errors.As(err, &known) || *known != *refusal {
		t.Errorf("a refusal after progress comes as %v", err)
	}
}

// TestCutOff: an answer that ends early is not taken for a result.
func TestCutOff(t *testing.T) {
	for _, text := range []string{"", "{\"progress\":1}\n", "{\"result\":"} {
		if err := read(strings.NewReader(text), nil, nil); err == nil {
			t.Errorf("%q passes for an answer", text)
		}
	}
}

// TestOneSocket: the socket is for its owner alone, replaces one that a dead
// process left, replaces nothing else, and goes when it is closed.
func TestOneSocket(t *testing.T) {
	dir := t.TempDir()
	if _, err := Dial(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("without a socket: %v", err)
	}
	for _, name := range []string{SocketName, SocketName + ".new"} { // as after kill -9
		dead, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(dir, name)})
		if err != nil {
			t.Fatal(err)
		}
		dead.SetUnlinkOnClose(false)
		dead.Close()
	}
	if _, err := Dial(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("a dead process's socket: %v", err)
	}
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(filepath.Join(dir, SocketName))
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if c, err := Dial(t.Context(), dir); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Error(err)
	}
	if list, err := os.ReadDir(dir); len(list) > 0 || err != nil {
		t.Errorf("left behind: %v %v", list, err)
	}
	if err := os.WriteFile(filepath.Join(dir, SocketName), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(dir); exchange.CodeOf(err) != exchange.CodeSetupConflict {
		t.Errorf("over a file: %v", err)
	}
}

// TestDeepDirectory: a data directory may lie deeper than a socket's address
// is long.
func TestDeepDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("很深/", 40))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	serve(t, dir, func(s *Server) {
		s.Handle("GET /here", func(context.Context, *Request) (any, error) { return true, nil })
	})
	var here bool
	if err := ask(t, dir, "GET", "/here", nil, &here, nil); err != nil || !here {
		t.Errorf("%v, %v", here, err)
	}
}

// TestWhoMayAsk: the node's user and root. A connection of which the kernel
// does not say whose it is gets no answer.
func TestWhoMayAsk(t *testing.T) {
	if mayAsk(1001, 1000) || !mayAsk(1000, 1000) || !mayAsk(0, 1000) {
		t.Error("the wrong users may ask")
	}
	if a, b := net.Pipe(); allowed(a) || allowed(b) {
		t.Error("a connection of an unknown process is let in")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(slog.New(slog.DiscardHandler))
	s.Handle("GET /here", func(context.Context, *Request) (any, error) { return true, nil })
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	wait.Go(func() { _ = s.Serve(ctx, l) })
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET /here HTTP/1.0\r\n\r\n")
	if got, err := io.ReadAll(c); err != nil || !strings.Contains(string(got), "403") {
		t.Errorf("%s, %v", got, err)
	}
}

// TestManyAtOnce: what is beyond the bound is told to come again.
func TestManyAtOnce(t *testing.T) {
	dir, hold := t.TempDir(), make(chan struct{})
	serve(t, dir, func(s *Server) {
		s.Handle("GET /wait", func(context.Context, *Request) (any, error) { <-hold; return nil, nil })
	})
	results := make(chan error, maxAtOnce+1)
	for range cap(results) {
		go func() { results <- ask(t, dir, "GET", "/wait", nil, nil, nil) }()
	}
	if err := <-results; !exchange.IsTemporary(err) {
		t.Errorf("the first to be answered: %v", err)
	}
	close(hold)
	for range maxAtOnce {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}
