package main

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/adapters/fileshare"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// TestWhatAnImportHears: what is wrong with a document, what will pass, and what is
// wrong with the settings are three things; a file that is too large is refused before
// it is sent.
func TestWhatAnImportHears(t *testing.T) {
	problem := func(status int, code, after string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			if after != "" {
				w.Header().Set("Retry-After", after)
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"code":"`+code+`","detail":"why"}`)
		}
	}
	opened := 0
	file := func(size int64) fileshare.File {
		return fileshare.File{Role: "body", Name: "正文\".ofd", Size: size, Open: func() (io.ReadCloser, error) {
			opened++
			return io.NopCloser(io.LimitReader(zeros{}, size)), nil
		}}
	}
	for name, one := range map[string]struct {
		answer http.HandlerFunc
		size   int64
		code   string // of a *Refused
		after  time.Duration
		busy   bool
		fatal  string
	}{
		"accepted": {answer: func(w http.ResponseWriter, r *http.Request) {
			parts, err := r.MultipartReader()
			if err != nil {
				t.Error(err)
				return
			}
			for _, want := range []string{"document", "body"} {
				p, err := parts.NextPart()
				if err != nil || p.FormName() != want {
					t.Errorf("%v, want %s", err, want)
					return
				}
				b, err := io.ReadAll(p)
				if want == "document" && (err != nil || !strings.Contains(string(b), `"label":"internal"`)) || want == "body" && len(b) != 3 {
					t.Errorf("%s %v", b, err)
				}
			}
			if r.Header.Get("Idempotency-Key") != "k" || r.Header.Get("Authorization") != "Bearer secret" || r.ContentLength < 0 {
				t.Errorf("%v", r.Header)
			}
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, `{"document":"D"}`)
		}},
		"refused":          {answer: problem(422, exchange.CodeStateSecret, ""), code: exchange.CodeStateSecret},
		"too large":        {answer: problem(413, exchange.CodeTooLarge, ""), size: 8 << 20, code: exchange.CodeTooLarge},
		"full":             {answer: problem(507, exchange.CodeNoSpace, "60"), busy: true, after: time.Minute},
		"quota":            {answer: problem(429, exchange.CodeQuota, "3600"), busy: true, after: time.Hour},
		"the same at once": {answer: problem(409, exchange.CodeIdempotencyInUse, ""), busy: true},
		"a proxy's":        {answer: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", http.StatusBadGateway) }, busy: true},
		"cut":              {answer: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, busy: true},
		"an empty answer":  {answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) }, busy: true},
		"the key":          {answer: problem(401, exchange.CodeUnauthenticated, ""), fatal: exchange.CodeUnauthenticated},
		"another server":   {answer: http.NotFound, fatal: exchange.CodeInternal},
	} {
		s := httptest.NewServer(one.answer)
		opened = 0
		d := &exchange.Document{Title: "标题", Label: exchange.Internal, To: []exchange.Addressee{{Agency: "x"}}}
		got, err := newImportNode(s.URL, "secret", 1).Submit(t.Context(), "k", d, []fileshare.File{file(max(one.size, 3))})
		s.Close()
		var no *fileshare.Refused
		var busy *fileshare.Busy
		switch {
		case one.code != "":
			if !errors.As(err, &no) || no.Code != one.code || no.Detail != "why" {
				t.Errorf("%s: %v", name, err)
			}
		case one.busy:
			if !errors.As(err, &busy) || busy.After != one.after {
				t.Errorf("%s: %v", name, err)
			}
		case one.fatal != "":
			if errors.As(err, &no) || errors.As(err, &busy) || exchange.CodeOf(err) != one.fatal {
				t.Errorf("%s: %v", name, err)
			}
		case err != nil || got != "D":
			t.Errorf("%s: %q %v", name, got, err)
		}
		if one.size > 0 && opened > 0 {
			t.Errorf("%s: its file was sent", name)
		}
	}
}

// shelf is a source in a folder.
type shelf string

func (s shelf) List(dir string) (out []fs.FileInfo, err error) {
	entries, err := os.ReadDir(filepath.Join(string(s), dir))
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		out = append(out, info)
	}
	return out, err
}
func (s shelf) Stat(at string) (fs.FileInfo, error) { return os.Lstat(filepath.Join(string(s), at)) }
func (s shelf) Remove(at string) error              { return os.Remove(filepath.Join(string(s), at)) }
func (s shelf) Fetch(at string, w io.Writer) error {
	b, err := os.ReadFile(filepath.Join(string(s), at))
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}

// TestPullByAProfile fetches what a profile lets in, and remembers over connections how
// files stood.
func TestPullByAProfile(t *testing.T) {
	from, into := t.TempDir(), t.TempDir()
	for _, name := range []string{"标志", "好.ofd", "Thumbs.db", "草稿.doc"} {
		if err := os.WriteFile(filepath.Join(from, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := &importProfile{Share: into, State: t.TempDir(), Depth: 1, Exclude: []string{"草稿*"}, Pull: importPull{URL: "sftp://a@b/c", Sentinel: "标志"}}
	store, err := p.ledger(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	i := &imports{p: p, store: store, said: io.Discard}
	clock := time.Now()
	for _, want := range []int{0, 1, 0} {
		puller := i.puller(shelf(from), func() time.Time { return clock })
		if err := puller.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if r, err := puller.Pull(t.Context()); err != nil || r.Fetched != want {
			t.Errorf("%+v %v, want %d", r, err, want)
		}
		clock = clock.Add(fileshare.DefaultQuiet)
	}
	if list, err := os.ReadDir(into); err != nil || len(list) != 1 || list[0].Name() != "好.ofd" {
		t.Errorf("%v %v", list, err)
	}
	var bad usageError
	if err := i.fetch(t.Context(), time.Now); !errors.As(err, &bad) {
		t.Errorf("without a host key: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
