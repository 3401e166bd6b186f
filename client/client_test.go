package client_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/client"
)

var clerk = client.Person{Name: "王伟", Role: "机要员"}

func notice(to ...string) *client.Document {
	return &client.Document{Title: "关于试点的通知", Label: "内部", To: client.To(to...)}
}

func submit(t *testing.T, c *client.Client, d *client.Document, content string) *client.Sent {
	t.Helper()
	sent, err := c.Submit(t.Context(), d, client.FileOf("正文.txt", []byte(content)))
	if err != nil {
		t.Fatal(err)
	}
	return sent
}

// arrival waits until a document is in an inbox.
func arrival(t *testing.T, c *client.Client, document string) *client.Received {
	t.Helper()
	for doc, err := range c.Inbox(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		if doc.Document == document {
			return doc
		}
	}
	t.Fatal("the inbox has ended")
	return nil
}

// TestWholeExchange drives all there is through the client alone.
func TestWholeExchange(t *testing.T) {
	s, ctx := start(), t.Context()
	jia, yi, bing := s.as("甲"), s.as("乙"), s.as("丙")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	found, err := jia.Agencies(ctx, "示范乙", 10)
	must(err)
	if len(found) != 1 || found[0].Code != s.codes["乙"] || found[0].Zone != "政务外网" {
		t.Errorf("agencies %+v", found)
	}
	d := notice()
	d.To = []client.Recipient{{Agency: "示范乙", Copies: &client.Copies{From: 1, To: 3}, Print: 3}, {Agency: "示范单位丙"}}
	d.Number, d.Urgency = "情况第12期", "特提"
	p, err := jia.Preview(ctx, d)
	must(err)
	if !p.Acceptable || len(p.Recipients) != 2 || p.Recipients[0].Copies.To != 3 || len(p.Warnings) != 1 || p.Warnings[0].DetailZH == "" ||
		p.Document.Number.Display != d.Number || p.Document.UrgencyMark != "特提" || p.Document.LabelZH != "内部" {
		t.Errorf("preview %+v", p)
	}
	path := filepath.Join(t.TempDir(), "附件 1.bin")
	attached := bytes.Repeat([]byte("0123456789"), 30_000)
	must(os.WriteFile(path, attached, 0o600))
	sent, err := jia.Submit(ctx, d, client.FileOf("正文.ofd", []byte("正文")), client.FileAt(path))
	must(err)
	if len(sent.Receipt) == 0 || len(sent.Warnings) != 1 || sent.Replayed {
		t.Errorf("sent %+v", sent)
	}
	list, err := jia.Sent(ctx, "", 1)
	must(err)
	if len(list) != 1 || list[0].Document != sent.Document || list[0].Recipients != 2 {
		t.Errorf("the list has %+v", list)
	}

	doc := arrival(t, yi, sent.Document)
	one, err := yi.Get(ctx, sent.Document)
	must(err)
	if one.Seq != doc.Seq || one.Title != "关于试点的通知" || len(one.Files) != 2 || one.Files[1].Name != "附件 1.bin" ||
		one.Urgency != "very_urgent" || one.Mark != "特提" || *one.Copies != (client.Copies{From: 1, To: 3}) || one.Print != 3 {
		t.Errorf("received %+v", one)
	}
	for _, r := range []struct{ from, length int64 }{{0, -1}, {0, 10}, {299_995, -1}, {299_995, 100}, {17, 1000}} {
		f, err := yi.FileRange(ctx, sent.Document, 1, r.from, r.length)
		must(err)
		b, err := io.ReadAll(f)
		must(errors.Join(err, f.Close()))
		want := attached[r.from:]
		if r.length >= 0 && r.length < int64(len(want)) {
			want = want[:r.length]
		}
		if !bytes.Equal(b, want) || f.Name != "附件 1.bin" || f.Size != int64(len(attached)) || len(f.SM3) != 64 {
			t.Errorf("%+v: %d bytes of %q, %d in all", r, len(b), f.Name, f.Size)
		}
	}
	reminded, err := jia.Remind(ctx, sent.Document, clerk, s.codes["乙"])
	must(err)
	if reminded.Kind != "REMIND" || len(reminded.Requests) != 1 {
		t.Errorf("reminded %+v", reminded)
	}
	acted, err := yi.Accept(ctx, sent.Document, client.Act{Actor: clerk, Opinion: "已阅"})
	must(err)
	again, err := yi.Accept(ctx, sent.Document, client.Act{Actor: clerk, Opinion: "已阅"})
	must(err)
	if acted.Stage != "SIGNED_FOR" || !bytes.Equal(acted.Receipt, again.Receipt) {
		t.Errorf("acted %+v, then %+v", acted, again)
	}
	if other := arrival(t, bing, sent.Document); other.Copies != nil || other.Print != 0 {
		t.Errorf("another's copies: %+v", other)
	}
	_, err = bing.Return(ctx, sent.Document, client.Act{Actor: clerk, Reason: "误送"})
	must(err)
	_, err = bing.Accept(ctx, sent.Document, client.Act{Actor: clerk})
	if !client.IsCode(err, "conflict") {
		t.Errorf("signing for what was returned: %v", err)
	}
	status, err := jia.Status(ctx, sent.Document)
	must(err)
	if status.State != "ENDED" || len(status.Recipients) != 2 || status.Recipients[0].Stage != "SIGNED_FOR" {
		t.Errorf("status %+v", status)
	}
	trace, err := jia.Trace(ctx, sent.Document)
	must(err)
	opinion := slices.IndexFunc(trace.Events, func(e client.Event) bool { return e.Detail != nil && e.Detail.Opinion == "已阅" })
	if !trace.ReceiptsVerified || !trace.LedgerVerified || opinion < 0 || trace.Events[opinion].Actor.Name != "王伟" {
		t.Errorf("trace %+v", trace)
	}
	receipts, err := jia.Receipts(ctx, sent.Document)
	must(err)
	if len(receipts) != trace.Receipts {
		t.Errorf("%d receipts, %d in the trace", len(receipts), trace.Receipts)
	}
	b, err := jia.Receipt(ctx, sent.Document, receipts[0].Receipt)
	must(err)
	if len(b) == 0 || b[0] != 0x30 {
		t.Error("a receipt is no DER")
	}
	var evidence bytes.Buffer
	must(jia.Evidence(ctx, sent.Document, &evidence))
	if !json.Valid(evidence.Bytes()) {
		t.Error("the evidence is no JSON")
	}
	resent, err := jia.Resend(ctx, sent.Document, nil)
	must(err)
	if doc := arrival(t, bing, resent.Document); doc.RelatesTo != sent.Document {
		t.Errorf("sent again: %+v", doc)
	}
	recalled, err := jia.Recall(ctx, resent.Document, clerk)
	must(err)
	if recalled.Kind != "RECALL" {
		t.Errorf("recalled %+v", recalled)
	}
	only := submit(t, jia, notice("示范乙"), "x")
	more, err := jia.Supplement(ctx, only.Document, []string{s.codes["丙"]})
	must(err)
	arrival(t, bing, more.Document)
}

// lossy is a network that does what its plan says to each request in turn, and
// nothing to those behind.
type lossy struct {
	mu   sync.Mutex
	plan []string
	seen []*http.Request
}

func (l *lossy) RoundTrip(r *http.Request) (*http.Response, error) {
	l.mu.Lock()
	what := ""
	if len(l.plan) > 0 {
		what, l.plan = l.plan[0], l.plan[1:]
	}
	l.seen = append(l.seen, r)
	l.mu.Unlock()
	if what == "refused" {
		return nil, errors.New("connection refused")
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	switch name, n, _ := strings.Cut(what, " "); name {
	case "lost": // the node has done it and nobody hears of it
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		return nil, errors.New("connection reset")
	case "cut": // behind so many bytes
		at, _ := strconv.ParseInt(n, 10, 64)
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(io.LimitReader(res.Body, at), broken{}), res.Body}
	}
	return res, nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

func (s *site) over(t *testing.T, name string, l http.RoundTripper) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{Server: s.url, Key: s.keys[name], Transport: l})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestNothingHappensTwice: an answer that is lost is asked for again, and what was
// done is not done again.
func TestNothingHappensTwice(t *testing.T) {
	s, ctx := start(), t.Context()
	l := &lossy{plan: []string{"refused", "lost", "lost"}}
	sent, err := s.over(t, "甲", l).Submit(ctx, notice("示范乙"), client.FileOf("正文.txt", bytes.Repeat([]byte("x"), 100_000)))
	if err != nil || !sent.Replayed || len(l.seen) != 4 {
		t.Fatalf("%+v after %d tries, %v", sent, len(l.seen), err)
	}
	for _, r := range l.seen[1:] {
		if r.Header.Get("Idempotency-Key") != l.seen[0].Header.Get("Idempotency-Key") || r.ContentLength < 100_000 {
			t.Errorf("a try had the key %q and %d bytes", r.Header.Get("Idempotency-Key"), r.ContentLength)
		}
	}
	list, err := s.as("甲").Sent(ctx, "", 2)
	if err != nil || list[0].Document != sent.Document || len(list) > 1 && list[1].Document == sent.Document {
		t.Errorf("the list has %+v, %v", list, err)
	}
	arrival(t, s.as("乙"), sent.Document)
	l = &lossy{plan: []string{"lost"}}
	acted, err := s.over(t, "乙", l).Accept(ctx, sent.Document, client.Act{Actor: clerk})
	if err != nil || acted.Stage != "SIGNED_FOR" || len(l.seen) != 2 {
		t.Errorf("%+v after %d tries, %v", acted, len(l.seen), err)
	}
	trace, err := s.as("甲").Trace(ctx, sent.Document)
	if err != nil || trace.Receipts != 3 { // accepted, delivered, signed for
		t.Errorf("%d receipts, %v", trace.Receipts, err)
	}
}

// TestDownloadGoesOn where it was, over connections that break, and to its end.
func TestDownloadGoesOn(t *testing.T) {
	s := start()
	content := make([]byte, 300_000)
	for i := range content {
		content[i] = byte(i * 7 >> 3)
	}
	sent := submit(t, s.as("甲"), notice("示范乙"), string(content))
	arrival(t, s.as("乙"), sent.Document)
	l := &lossy{plan: []string{"cut 100000", "refused", "cut 0", "cut 50000"}}
	f, err := s.over(t, "乙", l).File(t.Context(), sent.Document, 0)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err != nil || !bytes.Equal(b, content) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	var ranges []string
	for _, r := range l.seen {
		ranges = append(ranges, r.Header.Get("Range"))
	}
	if got := strings.Join(ranges, " "); got != " bytes=100000-299999 bytes=100000-299999 bytes=100000-299999 bytes=150000-299999" {
		t.Errorf("asked for %q", got)
	}
	for _, r := range l.seen[1:] {
		if !strings.HasPrefix(r.Header.Get("If-Match"), `"sm3-`) {
			t.Errorf("goes on with whatever there is: %q", r.Header.Get("If-Match"))
		}
	}
	// One that never comes ends with an error, and so does one that is closed.
	l = &lossy{plan: []string{"cut 10", "cut 0", "cut 0", "cut 0"}}
	c, err := client.New(client.Config{Server: s.url, Key: s.keys["乙"], Transport: l, Tries: 3})
	if err != nil {
		t.Fatal(err)
	}
	if f, err = c.File(t.Context(), sent.Document, 0); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(f); err == nil || len(b) != 10 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if f, err = s.as("乙").File(t.Context(), sent.Document, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := f.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("reading what is closed: %v", err)
	}
	if _, err := s.as("乙").File(t.Context(), sent.Document, 7); !client.IsCode(err, "not_found") {
		t.Errorf("a file that is not there: %v", err)
	}
}

// answers is a server that gives what it is told, and counts.
func answers(t *testing.T, each func(n int, w http.ResponseWriter, r *http.Request)) (*client.Client, *int) {
	t.Helper()
	n := new(int)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*n++
		each(*n, w, r)
	}))
	t.Cleanup(server.Close)
	c, err := client.New(client.Config{Server: server.URL, Key: "yk_secret", Stall: 200 * time.Millisecond, Tries: 5})
	if err != nil {
		t.Fatal(err)
	}
	return c, n
}

func problem(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"code": code, "title": "t", "status": status})
}

// TestWhatIsTriedAgain: what may succeed later, and nothing else.
func TestWhatIsTriedAgain(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer func(w http.ResponseWriter)
		again  bool
		code   string
	}{
		{"quota", func(w http.ResponseWriter) { problem(w, 429, "quota") }, true, "quota"},
		{"busy", func(w http.ResponseWriter) { problem(w, 503, "temporary") }, true, "temporary"},
		{"full", func(w http.ResponseWriter) { problem(w, 507, "no_space") }, true, "no_space"},
		{"a proxy", func(w http.ResponseWriter) { http.Error(w, "<html>yk_secret", http.StatusBadGateway) }, true, "not_a_node"},
		{"still under way", func(w http.ResponseWriter) { problem(w, 409, "idempotency_in_use") }, true, "idempotency_in_use"},
		{"conflict", func(w http.ResponseWriter) { problem(w, 409, "conflict") }, false, "conflict"},
		{"refused", func(w http.ResponseWriter) { problem(w, 422, "unknown_recipient") }, false, "unknown_recipient"},
		{"wrong key", func(w http.ResponseWriter) { problem(w, 401, "unauthenticated") }, false, "unauthenticated"},
		{"fault", func(w http.ResponseWriter) { problem(w, 500, "internal") }, false, "internal"},
		{"far too early", func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "3600")
			problem(w, 429, "quota")
		}, false, "quota"},
		{"elsewhere", func(w http.ResponseWriter) {
			w.Header().Set("Location", "http://example.com/")
			w.WriteHeader(307)
		}, false, "not_a_node"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, n := answers(t, func(n int, w http.ResponseWriter, _ *http.Request) {
				if n == 1 || !tt.again {
					tt.answer(w)
					return
				}
				_, _ = w.Write([]byte(`{"document":"x"}`))
			})
			_, err := c.Status(t.Context(), "x")
			if tt.again && (err != nil || *n != 2) || !tt.again && (!client.IsCode(err, tt.code) || *n != 1) {
				t.Errorf("%d tries, %v", *n, err)
			}
			if err != nil && strings.Contains(err.Error(), "yk_secret") {
				t.Error("the error shows the key")
			}
		})
	}
}

// TestTriesEnd: with the last refusal, or with the context, whose end is no refusal.
func TestTriesEnd(t *testing.T) {
	c, n := answers(t, func(_ int, w http.ResponseWriter, _ *http.Request) { problem(w, 503, "temporary") })
	if _, err := c.Status(t.Context(), "x"); !client.IsCode(err, "temporary") || *n != 5 {
		t.Errorf("%d tries, %v", *n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c, n = answers(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		cancel()
		problem(w, 503, "temporary")
	})
	if _, err := c.Status(ctx, "x"); err == nil || *n != 1 {
		t.Errorf("%d tries, %v", *n, err)
	}
	for range c.Inbox(ctx, 0) {
		t.Error("an inbox whose context has ended gives something")
	}
}

// TestStalledIsGivenUp: an answer that stops coming is cut and asked for again.
func TestStalledIsGivenUp(t *testing.T) {
	hang := make(chan struct{})
	c, n := answers(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Etag", `"sm3-x"`)
		if n == 1 {
			w.Header().Set("Content-Length", "6")
			_, _ = w.Write([]byte("abc"))
			_ = http.NewResponseController(w).Flush()
			<-hang
			return
		}
		w.Header().Set("Content-Range", "bytes 3-5/6")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write([]byte("def"))
	})
	defer close(hang)
	f, err := c.File(t.Context(), "x", 0)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(f); string(b) != "abcdef" || err != nil || *n != 2 {
		t.Errorf("%q after %d tries, %v", b, *n, err)
	}
}

// TestFileNamesLeadNowhere: whatever a node says, a name is never a path.
func TestFileNamesLeadNowhere(t *testing.T) {
	for disposition, want := range map[string]string{
		`attachment; filename*=UTF-8''%E9%99%84%E4%BB%B6.txt`: "附件.txt",
		`attachment; filename*=UTF-8''..%2F..%2Fetc%2Fpasswd`: "file-2", `attachment; filename=".."`: "file-2",
		`attachment; filename*=UTF-8''a%5Cb`: "file-2", ``: "file-2", `attachment; filename*=UTF-8''a%00b`: "file-2",
	} {
		c, _ := answers(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Etag", `"sm3-x"`)
			w.Header().Set("Content-Disposition", disposition)
			_, _ = w.Write([]byte("x"))
		})
		f, err := c.File(t.Context(), "x", 2)
		if err != nil || f.Name != want {
			t.Errorf("%q: %+v, %v", disposition, f, err)
		}
	}
}

// TestFileTroubleIsOurs: a file that is not there, or grows meanwhile, is told at
// once and not tried again; nothing half is submitted.
func TestFileTroubleIsOurs(t *testing.T) {
	s, dir := start(), t.TempDir()
	missing := client.FileAt(filepath.Join(dir, "missing"))
	grows := client.FileOf("a.txt", []byte("ab"))
	grows.Size = 1
	unknown := client.FileOf("a.txt", []byte("ab"))
	unknown.Size = -1
	for name, tt := range map[string]struct {
		file client.File
		ok   bool
	}{"missing": {missing, false}, "grows": {grows, false}, "of unknown size": {unknown, true}, "no Open": {client.File{Name: "x"}, false}} {
		l := &lossy{}
		_, err := s.over(t, "甲", l).Submit(t.Context(), notice("示范乙"), client.FileOf("正文.txt", []byte("x")), tt.file)
		if (err == nil) != tt.ok || len(l.seen) > 1 {
			t.Errorf("%s: %v after %d tries", name, err, len(l.seen))
		}
		var p *client.Problem
		if errors.As(err, &p) {
			t.Errorf("%s: the node is blamed: %v", name, err)
		}
	}
}

// TestTLSIsPluggable, and what is not trusted is not tried again.
func TestTLSIsPluggable(t *testing.T) {
	s := start()
	server := httptest.NewTLSServer(s.handle)
	defer server.Close()
	server.Config.ErrorLog = nil
	trusting := server.Client().Transport.(*http.Transport).TLSClientConfig
	c, err := client.New(client.Config{Server: server.URL, Key: s.keys["甲"], TLS: trusting})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Sent(t.Context(), "", 1); err != nil {
		t.Error(err)
	}
	if c, err = client.New(client.Config{Server: server.URL, Key: s.keys["甲"], TLS: &tls.Config{MinVersion: tls.VersionTLS12}}); err != nil {
		t.Fatal(err)
	}
	var untrusted *tls.CertificateVerificationError
	if _, err := c.Sent(t.Context(), "", 1); !errors.As(err, &untrusted) || strings.Contains(err.Error(), s.keys["甲"]) {
		t.Errorf("a stranger: %v", err)
	}
}

// TestNewRefuses what would show a key or leads nowhere.
func TestNewRefuses(t *testing.T) {
	for _, c := range []client.Config{
		{}, {Server: "node.example", Key: "k"}, {Server: "ftp://node.example", Key: "k"}, {Server: "https://u:p@node.example", Key: "k"},
		{Server: "https://node.example?x", Key: "k"}, {Server: "http://node.example", Key: "k"}, {Server: "https://node.example"},
		{Server: "https://node.example", Key: "a b"}, {Server: "https://node.example", Key: "a\nb"},
	} {
		if _, err := client.New(c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
	for _, c := range []client.Config{
		{Server: "http://127.0.0.1:1", Key: "k"}, {Server: "http://localhost", Key: "k"}, {Server: "http://node.example", Key: "k", PlainHTTP: true},
		{Server: "https://node.example/yizhan/", Key: "k"},
	} {
		if _, err := client.New(c); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
