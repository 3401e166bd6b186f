package rest

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// TestRate: a key hears how much it has left, then 429 with the time to wait; other
// keys are not touched, and a window that is over begins anew.
func TestRate(t *testing.T) {
	o := newOfficeWith(t, Config{Rate: Rate{Requests: 3, Window: time.Hour}})
	for i, left := range []string{"r=2;", "r=1;", "r=0;", "r=0;"} {
		a := o.do("yi", http.MethodGet, "/v1/inbox", nil, nil)
		if !strings.Contains(a.header.Get("RateLimit"), left) || a.header.Get("RateLimit-Policy") != `"key";q=3;w=3600` {
			t.Errorf("request %d: %v", i, a.header)
		}
		after, err := strconv.Atoi(a.header.Get("Retry-After"))
		if refused := a.status == http.StatusTooManyRequests; refused != (i == 3) || refused && (err != nil || after < 3000 || after > 3600 || a.problem().Code != exchange.CodeRateLimited) {
			t.Errorf("request %d: %d %v %s", i, a.status, a.header, a.body)
		}
	}
	// A stream counts as any other request, and another key is another count.
	if a := o.do("yi", http.MethodGet, "/v1/events", nil, nil); a.status != http.StatusTooManyRequests {
		t.Errorf("a stream: %d", a.status)
	}
	if a := o.do("jia", http.MethodGet, "/v1/documents", nil, nil); a.status != http.StatusOK {
		t.Errorf("another key: %d", a.status)
	}
	var r rates
	now := time.Now()
	q := Rate{1, time.Minute}
	r.count("k", q, now)
	if left, after := r.count("k", q, now.Add(30*time.Second)); left >= 0 || after != 30*time.Second {
		t.Errorf("%d left, %s to wait", left, after)
	}
	if left, _ := r.count("k", q, now.Add(time.Minute)); left != 0 || len(r.used) != 1 {
		t.Errorf("%d left in the next window", left)
	}
}

// TestTraceComesOut: the trace context of a submission is at the other end.
func TestTraceComesOut(t *testing.T) {
	o := newOffice(t, 0)
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	body, contentType := form([]part{{"document", "", o.meta(nil)}, {"body", "正文.ofd", "x"}})
	a := o.do("jia", http.MethodPost, "/v1/documents", strings.NewReader(string(body)), map[string]string{"Content-Type": contentType, "Idempotency-Key": "t", "Traceparent": trace})
	o.settle()
	id := into[SubmitResult](o, a).Document
	if in := into[Received](o, o.do("yi", http.MethodGet, "/v1/inbox/"+id, nil, nil)); in.Trace != trace {
		t.Errorf("the inbox item has %q", in.Trace)
	}
	if got := o.do("yi", http.MethodGet, "/v1/inbox/"+id+"/files/0", nil, nil).header.Get("Traceparent"); got != trace {
		t.Errorf("the file comes with %q", got)
	}
}

// TestDirectoryPages: pages join, and a copy of the version in force is not given again.
func TestDirectoryPages(t *testing.T) {
	o := newOffice(t, 0)
	first := into[AgencyList](o, o.do("jia", http.MethodGet, "/v1/directory/agencies?limit=1", nil, nil))
	second := into[AgencyList](o, o.do("jia", http.MethodGet, "/v1/directory/agencies?limit=1&after="+first.Next, nil, nil))
	if len(first.Items) != 1 || first.Items[0].Code != o.jia || len(second.Items) != 1 || second.Items[0].Code != o.yi || second.Next != "" {
		t.Errorf("%+v, then %+v", first, second)
	}
	copied := into[AgencyList](o, o.do("jia", http.MethodGet, "/v1/directory/agencies?since="+strconv.FormatUint(first.Version, 10), nil, nil))
	if !copied.Unchanged || len(copied.Items) > 0 || copied.Version != first.Version {
		t.Errorf("of the version in force: %+v", copied)
	}
	if none := into[AgencyList](o, o.do("jia", http.MethodGet, "/v1/directory/agencies?group=x", nil, nil)); len(none.Items) > 0 {
		t.Errorf("of no group: %+v", none)
	}
}
