package rest

import (
	"bytes"
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
	second.read.Store(40)
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
