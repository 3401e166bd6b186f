package rest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/gorilla/mux"

	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/queue/staging"
)

// description is /openapi.json as an independent implementation reads it. It does
// not depend on how a server is configured, so all tests share one.
var description = sync.OnceValues(func() (routers.Router, error) {
	s := New(Config{Node: new(node.Node), Staging: new(staging.Store), Webhooks: &hooks{}})
	b, err := json.Marshal(s.OpenAPI())
	if err != nil {
		return nil, err
	}
	doc, err := openapi3.NewLoader().LoadFromData(b)
	if err != nil {
		return nil, err
	}
	if err := doc.Validate(openapi3.NewLoader().Context, openapi3.EnableExamplesValidation()); err != nil {
		return nil, err
	}
	// A server of any name.
	doc.Servers = nil
	return gorillamux.NewRouter(doc)
})

// described fails the test when an answer is not what the description says. It
// gives the operation, empty for what is none.
func described(t testing.TB, req *http.Request, a *answer) (operation string) {
	t.Helper()
	router, err := description()
	if err != nil {
		t.Fatal(err)
	}
	local := req.Clone(req.Context())
	local.URL.Scheme, local.URL.Host, local.Host = "", "", ""
	route, params, err := router.FindRoute(local)
	if err != nil {
		if a.status != http.StatusNotFound && a.status != http.StatusMethodNotAllowed {
			t.Errorf("%s %s is not described and answers %d", req.Method, req.URL.Path, a.status)
		}
		return ""
	}
	in := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: local, PathParams: params, Route: route},
		Status:                 a.status, Header: a.header, Body: io.NopCloser(bytes.NewReader(a.body)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true},
	}
	media := strings.Split(a.header.Get("Content-Type"), ";")[0]
	in.Options.ExcludeResponseBody = media != "application/json" && media != problemMedia
	if err := openapi3filter.ValidateResponse(req.Context(), in); err != nil {
		t.Errorf("%s %s answers %d, which is not as described: %v", req.Method, req.URL.Path, a.status, err)
	}
	return route.Operation.OperationID
}

// TestDescriptionIsValid: OpenAPI 3.1, examples included.
func TestDescriptionIsValid(t *testing.T) {
	if _, err := description(); err != nil {
		t.Fatal(err)
	}
}

// TestEveryRouteIsDescribed: nothing is served that the description does not name.
func TestEveryRouteIsDescribed(t *testing.T) {
	s := New(Config{Node: new(node.Node), Staging: new(staging.Store), Webhooks: &hooks{}})
	paths := s.OpenAPI().Paths
	err := s.router.Walk(func(route *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		path, err := route.GetPathTemplate()
		if err != nil {
			return err
		}
		methods, err := route.GetMethods()
		if err != nil {
			return err
		}
		item := paths[path]
		if item == nil {
			t.Errorf("%s is not described", path)
			return nil
		}
		for _, m := range methods {
			if operations(item)[m] == nil {
				t.Errorf("%s %s is not described", m, path)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func operations(item *huma.PathItem) map[string]*huma.Operation {
	return map[string]*huma.Operation{
		http.MethodGet: item.Get, http.MethodHead: item.Head, http.MethodPost: item.Post,
		http.MethodPatch: item.Patch, http.MethodDelete: item.Delete, http.MethodOptions: item.Options,
	}
}

// TestEveryOperation exercises each operation of the description over HTTP until it
// succeeds once. All answers of all tests are compared with their schemas, see
// office.do.
func TestEveryOperation(t *testing.T) {
	o := newOffice(t, 0)
	done := map[string]bool{}
	o.seen = func(operation string, a *answer) {
		if a.status < 300 {
			done[operation] = true
		}
	}
	exerciseAll(o)
	for path, item := range o.rest.OpenAPI().Paths {
		for method, op := range operations(item) {
			if op != nil && !done[op.OperationID] {
				t.Errorf("%s %s (%s) was not exercised", method, path, op.OperationID)
			}
		}
	}
}

const someone = `{"actor":{"name":"王伟","role":"机要员"}}`

// exerciseAll is one use of everything.
func exerciseAll(o *office) {
	id := o.sent("k1")
	again := map[string]string{"Content-Type": "application/json", "Idempotency-Key": "again"}
	get := func(who, path string) []byte { return o.ok(o.do(who, http.MethodGet, path, nil, nil)) }
	act := func(who, path, body string) []byte {
		again["Idempotency-Key"] += "+"
		defer o.settle()
		return o.ok(o.do(who, http.MethodPost, path, strings.NewReader(body), again))
	}
	act("jia", "/v1/webhooks", `{"url":"https://oa.example/"}`)
	get("jia", "/v1/webhooks")
	get("jia", "/v1/webhooks/hook")
	for _, what := range []string{"rotate", "enable", "test", "deliveries/m/resend"} {
		act("jia", "/v1/webhooks/hook/"+what, "")
	}
	o.ok(o.do("jia", http.MethodDelete, "/v1/webhooks/hook", nil, nil))
	o.ok(o.do("", http.MethodOptions, "/v1/uploads", nil, nil))
	act("jia", "/v1/documents/preview", o.meta(nil))
	upload := o.upload("jia", 3, "正文.ofd")
	o.ok(o.do("jia", http.MethodPatch, upload, strings.NewReader("abc"), patch(0)))
	o.ok(o.do("jia", http.MethodHead, upload, nil, patch(0)))
	o.ok(o.do("jia", http.MethodDelete, upload, nil, patch(0)))
	for _, path := range []string{"/livez", "/readyz", "/openapi.json", "/openapi-3.0.json", "/docs"} {
		get("", path)
	}
	get("jia", "/v1/directory/agencies?q=财政")
	get("jia", "/v1/documents")
	get("yi", "/v1/inbox")
	get("yi", "/v1/inbox/"+id)
	get("yi", "/v1/inbox/"+id+"/files/0")
	o.ok(o.do("yi", http.MethodHead, "/v1/inbox/"+id+"/files/0", nil, nil))
	o.ok(o.do("yi", http.MethodGet, "/v1/inbox/"+id+"/files/0", nil, map[string]string{"Range": "bytes=1-2"}))
	act("jia", "/v1/documents/"+id+"/remind", someone)
	act("yi", "/v1/inbox/"+id+"/return", `{"actor":{"name":"王伟"},"reason":"误送"}`)
	act("jia", "/v1/documents/"+id+"/resend", `{}`)
	second := o.sent("k2")
	act("yi", "/v1/inbox/lease", `{"limit":1}`)
	act("yi", "/v1/inbox/release", `{"documents":["`+second+`"]}`)
	o.listen("jia", "").end()
	act("jia", "/v1/documents/"+second+"/supplement", `{"recipients":["`+o.jia+`"]}`)
	act("yi", "/v1/inbox/"+second+"/accept", someone)
	act("yi", "/v1/inbox/accept", `{"documents":["`+second+`"],"actor":{"name":"王伟"}}`)
	act("yi", "/v1/inbox/"+second+"/adopt", someone)
	act("yi", "/v1/inbox/"+second+"/complete", someone)
	get("yi", "/v1/inbox/count")
	act("jia", "/v1/documents/"+second+"/recall", someone)
	for _, what := range []string{"", "/trace", "/receipts", "/events", "/evidence"} {
		get("jia", "/v1/documents/"+second+what)
	}
	var receipts list[ReceiptLine]
	o.must(json.Unmarshal(get("jia", "/v1/documents/"+second+"/receipts"), &receipts))
	get("jia", "/v1/documents/"+second+"/receipts/"+receipts.Items[0].Receipt.String())
}

// ok gives the body of an answer that has to be one of success.
func (o *office) ok(a *answer) []byte {
	o.t.Helper()
	if a.status >= 300 {
		o.t.Fatalf("%d %s", a.status, a.body)
	}
	return a.body
}
