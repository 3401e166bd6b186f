package rest

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// TestTooManyParts: a hundred thousand parts are a precise refusal within the memory
// of a short upload, and nothing stays behind.
func TestTooManyParts(t *testing.T) {
	o := newOffice(t, 0)
	var b strings.Builder
	fmt.Fprintf(&b, "--e\r\nContent-Disposition: form-data; name=\"document\"\r\n\r\n%s\r\n--e\r\nContent-Disposition: form-data; name=\"body\"; filename=\"a\"\r\n\r\nx\r\n", o.meta(nil))
	for i := range 100_000 {
		fmt.Fprintf(&b, "--e\r\nContent-Disposition: form-data; name=\"attachment\"; filename=\"%d\"\r\n\r\nx\r\n", i)
	}
	b.WriteString("--e--\r\n")
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	a := o.do("jia", http.MethodPost, "/v1/documents", strings.NewReader(b.String()), map[string]string{"Content-Type": "multipart/form-data; boundary=e", "Idempotency-Key": "many"})
	runtime.GC()
	runtime.ReadMemStats(&after)
	if p := a.problem(); a.status != 422 || p.Code != exchange.CodeInvalidDocument || !strings.Contains(p.Detail, "1000 files") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if more := int64(after.HeapAlloc) - int64(before.HeapAlloc); more > 16<<20 {
		t.Errorf("%d bytes stay in memory", more)
	}
	o.nothingStored()
	o.sent("healthy")
}

// TestLyingLength: a body shorter or longer than it announces is refused or cut at
// what it announced, nothing is accepted of it, and others are served meanwhile.
func TestLyingLength(t *testing.T) {
	o := newOfficeWith(t, Config{Silence: 300 * time.Millisecond})
	body, contentType := form([]part{{"document", "", o.meta(nil)}, {"body", "a.ofd", strings.Repeat("content ", 100)}})
	for name, length := range map[string]int{"more than comes": len(body) + 1000, "less than comes": len(body) - 200, "far too much": 1 << 40} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(o.url, "http://"))
		o.must(err)
		_, err = fmt.Fprintf(conn, "POST /v1/documents HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: %s\r\nIdempotency-Key: %d\r\nContent-Length: %d\r\n\r\n%s", o.keys["jia"], contentType, length, length, body)
		o.must(err)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		o.must(err)
		if res.StatusCode < 400 || res.StatusCode > 503 {
			t.Errorf("%s: %d", name, res.StatusCode)
		}
		res.Body.Close()
		conn.Close()
	}
	o.nothingStored()
	o.sent("healthy")
}

// TestHugeMember: a member far beyond its bound is refused by name, without its value.
func TestHugeMember(t *testing.T) {
	o := newOffice(t, 0)
	id := o.sent("1")
	text := strings.Repeat("密", 3000)
	a := o.posted("yi", "/v1/inbox/"+id+"/accept", `{"actor":{"name":"x"},"opinion":"`+text+`"}`)
	if a.status != 422 || !strings.Contains(a.problem().Detail, "body.opinion") || strings.Contains(string(a.body), "密密") {
		t.Errorf("%d %.400s", a.status, a.body)
	}
	sent := o.send("huge", part{"document", "", o.meta(map[string]any{"remark": strings.Repeat("x", maxMetadata)})}, part{"body", "a", "x"})
	if sent.status != 413 || sent.problem().Code != exchange.CodeTooLarge || len(sent.body) > 4<<10 {
		t.Errorf("%d %.400s", sent.status, sent.body)
	}
}
