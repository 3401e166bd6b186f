package rest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

func (o *office) preview(meta string) *answer {
	o.t.Helper()
	return o.do("jia", http.MethodPost, "/v1/documents/preview", strings.NewReader(meta), map[string]string{"Content-Type": "application/json"})
}

// TestPreview: what a submission means is shown before it is one, and nothing is
// stored.
func TestPreview(t *testing.T) {
	o := newOffice(t, 1<<20)
	var got node.Preview
	ask := func(change map[string]any) {
		t.Helper()
		a := o.preview(o.meta(change))
		got = node.Preview{}
		if a.status != http.StatusOK || json.Unmarshal(a.body, &got) != nil {
			t.Fatalf("%d %s", a.status, a.body)
		}
		if strings.Contains(string(a.body), "null") {
			t.Errorf("a list is null: %s", a.body)
		}
	}
	ask(map[string]any{
		"to":     []any{map[string]any{"agency": "市财政局", "copies": map[string]int{"from": 1, "to": 3}, "print_quota": 5}},
		"number": "遵府办发[2026]012号", "urgency": "特提", "doc_type": "通知",
	})
	if !got.Acceptable || len(got.Errors) != 0 || len(got.Warnings) != 0 {
		t.Errorf("acceptable %v, %+v, %+v", got.Acceptable, got.Errors, got.Warnings)
	}
	if d := got.Document; d.Number.Display != "遵府办发〔2026〕12号" || d.Number.Serial != 12 || d.Urgency != exchange.VeryUrgent || d.UrgencyMark != "特提" || d.LabelZH != "内部" {
		t.Errorf("understood as %+v", d)
	}
	if r := got.Recipients[0]; r.Agency != o.yi || r.Name != "示范单位乙" || r.By != "alias" || r.Field != "to[0]" || r.Role != "to" || *r.Copies != (exchange.Span{From: 1, To: 3}) ||
		r.Print != 5 || r.Zone != "政务外网" || len(r.Route) != 0 || !r.Receipts {
		t.Errorf("recipient %+v", r)
	}
	ask(map[string]any{"to": []string{"示范单位"}, "title": nil, "number": "第12期", "expires": "2020-01-01T00:00:00Z", "label": "geheim"})
	want := "label to[0] title expires"
	if got.Acceptable || fields(got.Errors) != want || fields(got.Warnings) != "number" {
		t.Errorf("errors %s, warnings %s", fields(got.Errors), fields(got.Warnings))
	}
	if a := o.preview(`{"tilte":"x"}`); a.status != http.StatusBadRequest || a.problem().Code != exchange.CodeBadRequest || !strings.Contains(a.problem().Detail, "tilte") {
		t.Errorf("an unknown member: %d %s", a.status, a.body)
	}
	if a := o.preview(`{"to":[{"agency":"x","copy":1}]}`); a.status != http.StatusBadRequest || !strings.Contains(a.problem().Detail, "copy") {
		t.Errorf("an unknown member of a recipient: %d %s", a.status, a.body)
	}
	if a := o.preview(strings.Repeat(" ", maxMetadata+1)); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("too large: %d %s", a.status, a.body)
	}
	described, err := json.Marshal(o.rest.OpenAPI().Paths["/v1/documents/preview"].Post)
	if err != nil || !strings.Contains(string(described), "schemas/SubmitRequest") || !strings.Contains(string(described), "schemas/Preview") {
		t.Errorf("it is described as %s, %v", described, err)
	}
	if a := o.do("jia", http.MethodGet, "/v1/documents", nil, nil); string(a.body) == "" || strings.Contains(string(a.body), `"document"`) {
		t.Errorf("something was stored: %s", a.body)
	}
}

func fields(list exchange.Faults) string {
	var all []string
	for _, one := range list {
		all = append(all, one.Field)
	}
	return strings.Join(all, " ")
}

// TestSubmissionSaysAllThatIsWrong: in one problem, in both languages.
func TestSubmissionSaysAllThatIsWrong(t *testing.T) {
	o := newOffice(t, 1<<20)
	a := o.send("all", part{"document", "", o.meta(map[string]any{
		"to": []any{"示范单位乙", map[string]any{"agency": "示范单位丙"}}, "urgency": "soon", "signed_by": []string{"甲", "甲"}, "title": "人事（机密★1年）试点",
	})}, part{"body", "正文.ofd", "content"})
	p := a.problem()
	if a.status != 422 || p.Code != exchange.CodeInvalidDocument || fields(p.Errors) != "urgency to[1] signed_by[1] title" {
		t.Errorf("%d %s %s", a.status, p.Code, fields(p.Errors))
	}
	for _, one := range p.Errors {
		if one.Code == "" || one.Detail == "" || one.DetailZH == "" || strings.Contains(one.Detail+one.DetailZH, "试点") {
			t.Errorf("%+v", one)
		}
	}
	if !strings.Contains(p.Errors[1].Detail, o.yi) {
		t.Errorf("candidates are not named: %s", p.Errors[1].Detail)
	}
	a = o.send("secret", part{"document", "", o.meta(map[string]any{"label": "机密★10年", "title": ""})}, part{"body", "正文.ofd", "content"})
	if p := a.problem(); p.Code != exchange.CodeStateSecret || fields(p.Errors) != "label" {
		t.Errorf("a state secret: %s", a.body)
	}
}

// TestSubmissionByName: a document to an alias arrives; a repeat is told by what was
// written, and another way to write it is another request.
func TestSubmissionByName(t *testing.T) {
	own, err := newCast(t.TempDir()) // its directory changes
	if err != nil {
		t.Fatal(err)
	}
	o := newOfficeOf(t, Config{MaxUpload: 1 << 20}, own)
	body := part{"body", "正文.ofd", "content"}
	meta := func(to any) part {
		return part{"document", "", o.meta(map[string]any{"to": []any{to}, "number": "情况第12期"})}
	}
	var first, again SubmitResult
	a := o.send("alias", meta("市财政局"), body)
	if a.status != http.StatusCreated || json.Unmarshal(a.body, &first) != nil || fields(first.Warnings) != "number" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	a = o.send("alias", meta("市财政局"), body)
	if a.status != http.StatusCreated || json.Unmarshal(a.body, &again) != nil || again.Document != first.Document || a.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("a repeat: %d %s", a.status, a.body)
	}
	if a = o.send("alias", meta(o.yi), body); a.problem().Code != exchange.CodeIdempotencyMismatch {
		t.Errorf("another way to write it: %d %s", a.status, a.body)
	}
	// It stays the same request when the directory does not know the alias any more.
	o.must(o.authority.ChangeAgency(o.yi, certs.AgencyChange{Aliases: &[]string{}}))
	o.publish()
	a = o.send("alias", meta("市财政局"), body)
	if a.status != http.StatusCreated || json.Unmarshal(a.body, &again) != nil || again.Document != first.Document {
		t.Errorf("a repeat under another directory: %d %s", a.status, a.body)
	}
	if a = o.send("new", meta("市财政局"), body); a.problem().Code != exchange.CodeUnknownRecipient {
		t.Errorf("a new request: %d %s", a.status, a.body)
	}
	o.settle()
	if a = o.do("yi", http.MethodGet, "/v1/inbox", nil, nil); !strings.Contains(string(a.body), first.Document) || !strings.Contains(string(a.body), "情况第12期") {
		t.Errorf("the inbox: %s", a.body)
	}
}

// FuzzSubmitRequest: metadata that are taken say the same when they are written and
// read again, and those that are not are refused by a code.
func FuzzSubmitRequest(f *testing.F) {
	for _, s := range []string{
		`{"title":"a","to":["b"],"label":"内部"}`, `{"to":[{"agency":"b","copies":{"from":1,"to":2},"print_quota":3}],"cc":[""]}`,
		`{"to":[null]}`, `{"to":[{"agency":"b","x":1}]}`, `{"to":"b"}`, `{} {}`, `[`, `{"expires":"2026-11-23T08:00:00Z"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := decodeRequest(b)
		if err != nil {
			if exchange.CodeOf(err) != exchange.CodeBadRequest {
				t.Fatal(err)
			}
			return
		}
		one, err := json.Marshal(q)
		if err != nil {
			t.Skip("a time that JSON cannot say")
		}
		again, err := decodeRequest(one)
		if err != nil {
			t.Fatalf("%s: %v", one, err)
		}
		if two, err := json.Marshal(again); err != nil || !bytes.Equal(one, two) {
			t.Fatalf("%s, then %s, %v", one, two, err)
		}
	})
}
