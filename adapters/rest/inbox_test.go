package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// sentWith submits a document with other metadata.
func (o *office) sentWith(key string, change map[string]any) string {
	o.t.Helper()
	a := o.send(key, part{"document", "", o.meta(change)}, part{"body", "正文.ofd", "the body of " + key})
	var r SubmitResult
	o.must(json.Unmarshal(o.ok(a), &r))
	o.settle()
	return r.Document
}

// posted posts JSON.
func (o *office) posted(who, path, body string) *answer {
	o.t.Helper()
	a := o.do(who, http.MethodPost, path, strings.NewReader(body), map[string]string{"Content-Type": "application/json"})
	o.settle()
	return a
}

// into reads JSON.
func into[T any](o *office, a *answer) (v T) {
	o.t.Helper()
	o.must(json.Unmarshal(o.ok(a), &v))
	return v
}

func ids(list list[Received]) (out []string) {
	for _, r := range list.Items {
		out = append(out, r.Document)
	}
	return out
}

// TestFiltersAndCount: each filter picks what it says, pages join without a gap,
// and the count follows what the agency does.
func TestFiltersAndCount(t *testing.T) {
	o := newOffice(t, 0)
	plain := o.sentWith("1", map[string]any{"number": "示范发〔2026〕1号"})
	urgent := o.sentWith("2", map[string]any{"urgency": "特急", "kind": "通知", "number": "示范发〔2026〕22号", "due_at": "2020-01-01"})
	signed := o.sentWith("3", map[string]any{"urgency": "加急"})
	o.ok(o.posted("yi", "/v1/inbox/"+signed+"/accept", someone))
	for query, want := range map[string][]string{
		"":                                {plain, urgent, signed},
		"state=waiting":                   {plain, urgent},
		"state=SIGNED_FOR":                {signed},
		"urgency=特急":                      {urgent},
		"urgency=very_urgent&kind=notice": {urgent},
		"kind=公文":                         {plain, signed},
		"q=22号":                           {urgent},
		"q=〔2026〕&state=waiting":          {plain, urgent},
		"sender=" + o.jia:                 {plain, urgent, signed},
		"sender=" + o.yi:                  nil,
		"from=2020-01-01&to=2999-01-01":   {plain, urgent, signed},
		"to=2020-01-01":                   nil,
	} {
		got := into[list[Received]](o, o.do("yi", http.MethodGet, "/v1/inbox?"+strings.NewReplacer("特急", url.QueryEscape("特急"), "公文", url.QueryEscape("公文"), "号", url.QueryEscape("号"), "〔2026〕", url.QueryEscape("〔2026〕")).Replace(query), nil, nil))
		if fmt.Sprint(ids(got)) != fmt.Sprint(want) || got.Next != "" {
			t.Errorf("%s gives %v %s, want %v", query, ids(got), got.Next, want)
		}
	}
	var walked []string
	for after, more := "", true; more; {
		page := into[list[Received]](o, o.do("yi", http.MethodGet, "/v1/inbox?limit=1&after="+after, nil, nil))
		walked, after, more = append(walked, ids(page)...), page.Next, page.Next != ""
	}
	if fmt.Sprint(walked) != fmt.Sprint([]string{plain, urgent, signed}) {
		t.Errorf("page by page: %v", walked)
	}
	count := into[InboxCount](o, o.do("yi", http.MethodGet, "/v1/inbox/count", nil, nil))
	if count.Waiting != 2 || count.Overdue != 1 || count.Urgency[exchange.VeryUrgent] != 1 || count.Urgency[exchange.Normal] != 1 || count.More {
		t.Errorf("the count is %+v", count)
	}
	o.ok(o.posted("jia", "/v1/documents/"+urgent+"/recall", someone))
	if count := into[InboxCount](o, o.do("yi", http.MethodGet, "/v1/inbox/count", nil, nil)); count.Waiting != 1 || count.Overdue != 0 {
		t.Errorf("after a recall the count is %+v", count)
	}
	for query, want := range map[string]int{"": 3, "state=SIGNED_FOR": 1, "state=ENDED": 1, "kind=notice": 1, "q=22": 1, "urgency=urgent": 1, "to=2020-01-01": 0, "limit=1": 1} {
		got := into[list[Sent]](o, o.do("jia", http.MethodGet, "/v1/documents?"+query, nil, nil))
		if len(got.Items) != want || (got.Next != "") != (query == "limit=1") {
			t.Errorf("sent, %s: %d %q, want %d", query, len(got.Items), got.Next, want)
		}
	}
	for _, query := range []string{"kind=x", "urgency=x", "from=x", "to=2026-13-01", "state=x"} {
		if a := o.do("yi", http.MethodGet, "/v1/inbox?"+query, nil, nil); a.status != 400 || a.problem().Code != exchange.CodeBadRequest || a.problem().Detail == "" {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
}

// TestBatch: each document of a batch has its own outcome; a repeat changes
// nothing and gives the same receipts.
func TestBatch(t *testing.T) {
	o := newOffice(t, 0)
	one, returned := o.sent("1"), o.sent("2")
	o.ok(o.posted("yi", "/v1/inbox/"+returned+"/return", `{"actor":{"name":"x"},"reason":"误送"}`))
	body := fmt.Sprintf(`{"documents":[%q,%q,%q],"actor":{"name":"王伟"},"opinion":"已阅"}`, one, returned, exampleID)
	first := o.posted("yi", "/v1/inbox/accept", body)
	got := into[BatchResult](o, first)
	if got.Done != 1 || got.Failed != 2 || !got.Items[0].Done || len(got.Items[0].Receipt) == 0 {
		t.Fatalf("%+v", got)
	}
	if got.Items[1].Problem.Code != exchange.CodeConflict || got.Items[2].Problem.Code != exchange.CodeNotFound || got.Items[2].Document != exampleID {
		t.Errorf("%s", first.body)
	}
	if again := o.posted("yi", "/v1/inbox/accept", body); !bytes.Equal(again.body, first.body) {
		t.Errorf("a repeat gives %s", again.body)
	}
	many := `{"actor":{"name":"x"},"documents":["` + strings.Repeat(exampleID+`","`, maxBatch) + exampleID + `"]}`
	if a := o.posted("yi", "/v1/inbox/accept", many); a.status != 422 {
		t.Errorf("more than %d: %d %s", maxBatch, a.status, a.body)
	}
}

// TestAdoptAndComplete: only what is signed for is adopted or completed, each with
// one receipt; the sender sees both, a recall is refused, and the store is whole.
func TestAdoptAndComplete(t *testing.T) {
	o := newOffice(t, 0)
	id := o.sent("1")
	for _, what := range []string{"adopt", "complete"} {
		if a := o.posted("yi", "/v1/inbox/"+id+"/"+what, someone); a.status != 409 || a.problem().Code != exchange.CodeNotSignedFor {
			t.Errorf("%s before it is signed for: %d %s", what, a.status, a.body)
		}
	}
	signed := o.posted("yi", "/v1/inbox/"+id+"/accept", someone)
	done := o.posted("yi", "/v1/inbox/"+id+"/complete", `{"actor":{"name":"王伟"},"opinion":"已办结归档"}`)
	o.ok(done)
	o.ok(o.posted("yi", "/v1/inbox/"+id+"/adopt", someone))
	for what, before := range map[string]*answer{"complete": done, "accept": signed} {
		if again := o.posted("yi", "/v1/inbox/"+id+"/"+what, someone); !bytes.Equal(again.body, before.body) {
			t.Errorf("to %s once more: %d %s", what, again.status, again.body)
		}
	}
	if a := o.posted("yi", "/v1/inbox/"+id+"/return", `{"actor":{"name":"x"},"reason":"误送"}`); a.status != 409 {
		t.Errorf("returned after it was completed: %d %s", a.status, a.body)
	}
	o.ok(o.posted("jia", "/v1/documents/"+id+"/recall", someone))
	tr := into[node.Trace](o, o.do("jia", http.MethodGet, "/v1/documents/"+id+"/trace", nil, nil))
	if tr.State != exchange.StateSignedFor || tr.Recipients[0].Stage != exchange.StageCompleted || !tr.ReceiptsVerified || !tr.LedgerVerified {
		t.Errorf("the sender sees %+v", tr)
	}
	seen := map[exchange.Stage]*node.Event{}
	for i, e := range tr.Events {
		seen[e.Stage] = &tr.Events[i]
	}
	adopted, completed := seen[exchange.StageAdopted], seen[exchange.StageCompleted]
	if adopted == nil || completed == nil || completed.Detail == nil || completed.Detail.Opinion != "已办结归档" || len(completed.After) != 1 || completed.After[0] != seen[exchange.StageSignedFor].Receipt {
		t.Errorf("the receipts are %+v", tr.Events)
	}
	if refused := seen[exchange.StageRecallRefused]; refused == nil || refused.Reason != "completed" {
		t.Errorf("the recall was answered %+v", refused)
	}
	report, err := o.node.Check(t.Context(), node.CheckOptions{ReadData: true})
	o.must(err)
	if len(report.Problems) > 0 {
		t.Errorf("the store is not whole: %+v", report.Problems)
	}
}
