package rest

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// TestQuota: an agency that used up its documents hears 429 with the time to
// wait, in both languages; repeats and refusals use nothing up, and another
// agency is not touched.
func TestQuota(t *testing.T) {
	o := newOfficeWith(t, Config{Quota: Quota{Documents: 2, Window: time.Hour}})
	document := func(who, key, to string) *answer {
		body, kind := form([]part{{"document", "", o.meta(map[string]any{"to": []string{to}})}, {"body", "正文.ofd", "text"}})
		return o.do(who, http.MethodPost, "/v1/documents", bytes.NewReader(body), map[string]string{"Content-Type": kind, "Idempotency-Key": key})
	}
	for i, step := range []struct {
		who, key, to string
		status       int
	}{
		{"jia", "1", o.yi, 201},
		{"jia", "1", o.yi, 201}, // a repeat
		{"jia", "x", "no agency", 422},
		{"jia", "2", o.yi, 201},
		{"jia", "3", o.yi, 429},
		{"yi", "1", o.jia, 201},
	} {
		a := document(step.who, step.key, step.to)
		if a.status != step.status {
			t.Fatalf("step %d: %d %s", i, a.status, a.body)
		}
		if a.status != http.StatusTooManyRequests {
			continue
		}
		after, err := strconv.Atoi(a.header.Get("Retry-After"))
		if p := a.problem(); err != nil || after < 3500 || after > 3600 || p.Code != exchange.CodeQuota || !strings.Contains(p.TitleZH, "配额") || p.TitleEN == "" {
			t.Errorf("Retry-After %d, %v: %s", after, err, a.body)
		}
	}
	if a := o.do("jia", http.MethodGet, "/v1/inbox", nil, nil); a.status != http.StatusOK {
		t.Errorf("the inbox has no quota: %d", a.status)
	}
}

// TestQuotaOfBytes: what was announced is reserved at once, what came is counted
// in the end, and a window that is over begins anew.
func TestQuotaOfBytes(t *testing.T) {
	q := quotas{q: Quota{Bytes: 100, Window: time.Minute}, used: map[string]*usage{}}
	now := time.Now()
	refused := func(announced int64, code string) {
		t.Helper()
		if _, err := q.begin("jia", announced, now); exchange.CodeOf(err) != code {
			t.Errorf("%d bytes: %v, want %s", announced, err, code)
		}
	}
	begin := func(announced int64) *grant {
		t.Helper()
		g, err := q.begin("jia", announced, now)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	refused(101, exchange.CodeTooLarge)
	first := begin(60)
	refused(41, exchange.CodeQuota)
	second := begin(-1) // chunked: nothing is announced
	if over := second.charge(40); over != nil {
		t.Error(over)
	}
	refused(1, exchange.CodeQuota) // while it is under way
	if over := second.charge(1); over == nil || exchange.CodeOf(over) != exchange.CodeQuota {
		t.Errorf("more than there is: %v", over)
	}
	second.read.Store(40) // what came is what counts
	second.end(true)
	refused(1, exchange.CodeQuota)
	first.read.Store(10) // cut off
	first.end(false)
	begin(50).end(true)
	now = now.Add(time.Minute)
	begin(100)
	refused(1, exchange.CodeQuota)
	if _, err := (&quotas{}).begin("jia", 1<<40, now); err != nil {
		t.Errorf("without a quota: %v", err)
	}
}

// TestAChunkedUploadEndsWithItsQuota: nothing is announced, and it is cut off where
// its agency has no more.
func TestAChunkedUploadEndsWithItsQuota(t *testing.T) {
	o := newOfficeWith(t, Config{Quota: Quota{Bytes: 50_000, Window: time.Hour}})
	body, kind := form([]part{{"document", "", o.meta(nil)}, {"body", "正文.ofd", strings.Repeat("x", 1<<20)}})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, o.url+"/v1/documents", io.MultiReader(bytes.NewReader(body)))
	o.must(err)
	req.Header.Set("Authorization", "Bearer "+o.keys["jia"])
	req.Header.Set("Content-Type", kind)
	req.Header.Set("Idempotency-Key", "chunked")
	res, err := http.DefaultClient.Do(req)
	o.must(err)
	defer res.Body.Close()
	if res.StatusCode != http.StatusTooManyRequests {
		b, _ := io.ReadAll(res.Body)
		t.Errorf("%s %s", res.Status, b)
	}
}

// TestSendingAgainCountsItsBytes as an upload of them would.
func TestSendingAgainCountsItsBytes(t *testing.T) {
	o := newOfficeWith(t, Config{Quota: Quota{Bytes: 60_000, Window: time.Hour}})
	a := o.send("once", part{"document", "", o.meta(nil)}, part{"body", "正文.ofd", strings.Repeat("x", 40_000)})
	if a.status != http.StatusCreated {
		t.Fatalf("%d %s", a.status, a.body)
	}
	again := "/v1/documents/" + strings.Split(a.header.Get("Location"), "/")[3] + "/resend"
	if a := o.do("jia", http.MethodPost, again, strings.NewReader(`{"recipients":["`+o.yi+`"]}`), map[string]string{"Content-Type": "application/json", "Idempotency-Key": "again"}); a.status != http.StatusTooManyRequests {
		t.Errorf("%d %s", a.status, a.body)
	}
}
