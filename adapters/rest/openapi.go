package rest

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// Every operation is described in /openapi.json: those with JSON by Huma from
// their types, those that stream by hand beside the route. describe_test.go sees
// that no route is without a description, and that what is answered over HTTP is
// what the description says.

// about is what is said of an operation beside its types.
type about struct {
	id, tag string
	en, zh  string // one line
	notes   string
	codes   []string // problems it may have, beside those that all have
	scopes  []string // any one of them
	open    bool     // needs no key
}

// The groups of operations.
const (
	tagSent      = "sent"
	tagInbox     = "inbox"
	tagDirectory = "directory"
	tagUploads   = "uploads"
	tagWebhooks  = "webhooks"
	tagService   = "service"
)

var tags = []*huma.Tag{
	{Name: tagSent, Description: "Documents that the agency sent, and what becomes of any document · 发文与流转"},
	{Name: tagInbox, Description: "Documents that the agency received · 收文"},
	{Name: tagDirectory, Description: "Agencies that can be reached · 名录"},
	{Name: tagUploads, Description: "Large files, in pieces and over interruptions (tus 1.0) · 大文件续传"},
	{Name: tagWebhooks, Description: "Calls to the agency's system when something happens · 事件回调"},
	{Name: tagService, Description: "The node itself · 节点"},
}

const introduction = "A gateway for official documents (公文). An agency's system submits documents, watches them, collects those " +
	"that came and signs for them. Every error is a Problem with a stable code, its cause and the next step in Chinese and English.\n\n" +
	"公文交换接口：单位系统通过它发文、查询流转、取件、签收。每个错误都有稳定的代码，并以中英文说明原因与下一步。"

func (s *Server) openapiConfig() huma.Config {
	config := huma.DefaultConfig("Yizhan 驿站", "v1")
	config.OpenAPIPath, config.DocsPath, config.SchemasPath, config.CreateHooks = "", "", "", nil
	config.Info.Description = introduction
	config.Tags = tags
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"key": {
		Type: "http", Scheme: "bearer", Description: "API key of the agency's system; yizhan key create · 接口密钥",
	}}
	for from, to := range map[reflect.Type]reflect.Type{
		reflect.TypeFor[sm.Digest]():        reflect.TypeFor[digestSchema](),
		reflect.TypeFor[strictjson.Time]():  reflect.TypeFor[timeSchema](),
		reflect.TypeFor[exchange.Actor]():   reflect.TypeFor[Actor](),
		reflect.TypeFor[exchange.Stage]():   reflect.TypeFor[stageSchema](),
		reflect.TypeFor[exchange.State]():   reflect.TypeFor[stateSchema](),
		reflect.TypeFor[exchange.Label]():   reflect.TypeFor[labelSchema](),
		reflect.TypeFor[exchange.Urgency](): reflect.TypeFor[urgencySchema](),
		reflect.TypeFor[exchange.Kind]():    reflect.TypeFor[kindSchema](),
		reflect.TypeFor[exchange.Wish]():    reflect.TypeFor[wishSchema](),
	} {
		config.Components.Schemas.RegisterTypeAlias(from, to)
	}
	return config
}

// The words of the lower floors, as the description shows them.
type (
	digestSchema  struct{}
	timeSchema    struct{}
	stageSchema   struct{}
	stateSchema   struct{}
	labelSchema   struct{}
	urgencySchema struct{}
	kindSchema    struct{}
	wishSchema    struct{}
)

// Actor is the person who acted, as a receipt names him.
type Actor struct {
	Role string `json:"role,omitempty" example:"机要员"`
	Name string `json:"name" example:"王伟"`
}

func (digestSchema) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Pattern: "^[0-9a-f]{64}$", Description: "SM3, hex", Examples: []any{strings.Repeat("0123456789abcdef", 4)}}
}

func (timeSchema) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "date-time", Examples: []any{"2026-11-27T08:00:00.000Z"}}
}

func (stageSchema) Schema(huma.Registry) *huma.Schema { return words(exchange.Stages()) }
func (stateSchema) Schema(huma.Registry) *huma.Schema { return words(exchange.States()) }
func (labelSchema) Schema(huma.Registry) *huma.Schema {
	return words([]exchange.Label{exchange.Public, exchange.Internal, exchange.WorkSecret})
}

func (urgencySchema) Schema(huma.Registry) *huma.Schema {
	return words([]exchange.Urgency{exchange.Normal, exchange.Urgent, exchange.VeryUrgent})
}

func (kindSchema) Schema(huma.Registry) *huma.Schema {
	return words([]exchange.Kind{exchange.Official, exchange.Information, exchange.Notice, exchange.Material})
}

func (wishSchema) Schema(huma.Registry) *huma.Schema {
	return words([]exchange.Wish{exchange.WishRecall, exchange.WishRemind})
}

// words is the schema of one of some words, each with its Chinese name.
func words[T interface {
	~string
	Chinese() string
}](list []T) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeString}
	var names []string
	for _, w := range list {
		s.Enum = append(s.Enum, string(w))
		names = append(names, string(w)+" "+w.Chinese())
	}
	s.Description = strings.Join(names, ", ")
	return s
}

// operation makes the description of an operation, all but its types.
func (a about) operation(method, path string) huma.Operation {
	op := huma.Operation{
		Method: method, Path: path, OperationID: a.id, Tags: []string{a.tag}, Summary: a.en + " · " + a.zh, Description: a.notes,
		Responses: map[string]*huma.Response{},
	}
	found := map[int][]string{}
	add := func(status int, code string) {
		if !slices.Contains(found[status], code) {
			found[status] = append(found[status], code)
		}
	}
	for _, code := range append([]string{exchange.CodeBadRequest, exchange.CodeInternal, exchange.CodeTemporary}, a.codes...) {
		add(statusFor(code), code)
	}
	if !a.open {
		op.Security = []map[string][]string{{"key": a.scopes}}
		add(http.StatusUnauthorized, exchange.CodeUnauthenticated)
	}
	if len(a.scopes) > 0 {
		add(http.StatusForbidden, exchange.CodeForbidden)
	}
	if method == http.MethodPost {
		add(http.StatusRequestEntityTooLarge, exchange.CodeTooLarge)
		add(http.StatusUnsupportedMediaType, exchange.CodeBadRequest)
	}
	add(http.StatusUnprocessableEntity, exchange.CodeBadRequest)
	for status, codes := range found {
		op.Responses[strconv.Itoa(status)] = problemResponse(status, codes)
	}
	return op
}

func statusFor(code string) int {
	if status := statusOf[code]; status != 0 {
		return status
	}
	return http.StatusInternalServerError
}

// problemResponse describes one status by the codes that it comes with.
func problemResponse(status int, codes []string) *huma.Response {
	var b strings.Builder
	for _, code := range codes {
		fmt.Fprintf(&b, "`%s`: %s · %s\n\n", code, exchange.Explain(code, "en").Title, exchange.Explain(code, "zh").Title)
	}
	return &huma.Response{
		Description: strings.TrimSpace(b.String()),
		Content: map[string]*huma.MediaType{problemMedia: {
			Schema: &huma.Schema{Ref: "#/components/schemas/Problem"}, Example: newProblem(status, codes[0], "", "en"),
		}},
	}
}

func get[I, O any](s *Server, path string, a about, fn func(context.Context, *I) (*O, error)) {
	huma.Register(s.api, a.operation(http.MethodGet, path), fn)
}

func post[I, O any](s *Server, path string, a about, fn func(context.Context, *I) (*O, error)) {
	a.codes = append(a.codes, exchange.CodeIdempotencyMissing, exchange.CodeIdempotencyInUse, exchange.CodeIdempotencyMismatch)
	op := a.operation(http.MethodPost, path)
	op.MaxBodyBytes = maxJSON
	op.Middlewares = append(op.Middlewares, s.keyed)
	op.Parameters = append(op.Parameters, keyParameter(false, "1 to 255 printable ASCII characters: a repeat with the same body is the same request, another body is refused (422) · 幂等键"))
	huma.Register(s.api, op, fn)
}

// stream registers what does not fit into JSON, with its description. What is
// described as open is asked for without a key.
func (s *Server) stream(method, path string, a about, h http.HandlerFunc, fill func(*huma.Operation)) {
	op := a.operation(method, path)
	fill(&op)
	for _, name := range pathParameters(path) {
		op.Parameters = append(op.Parameters, &huma.Param{Name: name, In: "path", Required: true, Schema: pathSchema(name)})
	}
	s.api.OpenAPI().AddOperation(&op)
	s.router.HandleFunc(path, h).Methods(method)
}

func pathParameters(path string) (names []string) {
	for part := range strings.SplitSeq(path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			names = append(names, strings.TrimSuffix(name, "}"))
		}
	}
	return names
}

func pathSchema(name string) *huma.Schema {
	switch name {
	case "n":
		return &huma.Schema{Type: huma.TypeInteger, Description: "Index of the file, from 0 · 文件序号", Examples: []any{0}}
	case "receipt":
		return digestSchema{}.Schema(nil)
	}
	return &huma.Schema{Type: huma.TypeString, Description: "Document id", Examples: []any{exampleID}}
}

const exampleID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"

// content is an answer that is not JSON.
func content(description string, media ...string) *huma.Response {
	r := &huma.Response{Description: description, Content: map[string]*huma.MediaType{}}
	for _, m := range media {
		r.Content[m] = &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString}}
	}
	return r
}

func headerParam(name, description string) *huma.Param {
	return &huma.Param{Name: name, In: "header", Description: description, Schema: &huma.Schema{Type: huma.TypeString}}
}

func answerHeader(description string) *huma.Param {
	return &huma.Param{Description: description, Schema: &huma.Schema{Type: huma.TypeString}}
}

// complete fills in what holds for all operations, when all are there.
func (s *Server) complete() {
	api := s.api.OpenAPI()
	codes := map[string]bool{exchange.CodeInternal: true, exchange.CodeLedgerRolledBack: true}
	for code := range statusOf {
		codes[code] = true
	}
	problem := api.Components.Schemas.Schema(reflect.TypeFor[Problem](), false, "Problem")
	problem.Properties["code"].Enum = nil
	for _, code := range slices.Sorted(maps.Keys(codes)) {
		problem.Properties["code"].Enum = append(problem.Properties["code"].Enum, code)
	}
	problem.PrecomputeMessages()
	for _, item := range api.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Head, item.Post, item.Patch, item.Delete, item.Options} {
			if op == nil {
				continue
			}
			if op.RequestBody != nil {
				s.examples(op.RequestBody.Content)
			}
			for status, r := range op.Responses {
				s.examples(r.Content)
				if r.Description == "" || r.Description == http.StatusText(http.StatusOK) || r.Description == http.StatusText(http.StatusCreated) {
					r.Description = map[string]string{"200": "Done · 成功", "201": "Accepted: it is on disk · 已受理"}[status]
				}
			}
		}
	}
}

const openapiMedia = "application/openapi+json"

// openapi gives the description, as it is or for tools that read OpenAPI 3.0 only.
func (s *Server) openapi(make func() ([]byte, error)) http.HandlerFunc {
	made := sync.OnceValues(make)
	return func(w http.ResponseWriter, r *http.Request) {
		b, err := made()
		if err != nil {
			s.writeError(w, r, err)
			return
		}
		w.Header().Set("Content-Type", openapiMedia)
		_, _ = w.Write(b) // the client is gone if this fails
	}
}

// examples gives JSON its example, made of those of its members.
func (s *Server) examples(content map[string]*huma.MediaType) {
	if m := content["application/json"]; m != nil && m.Example == nil && m.Schema != nil {
		m.Example = s.example(m.Schema)
	}
}

func (s *Server) example(of *huma.Schema) any {
	if of.Ref != "" {
		of = s.api.OpenAPI().Components.Schemas.SchemaFromRef(of.Ref)
	}
	switch {
	case len(of.Examples) > 0:
		return of.Examples[0]
	case len(of.Enum) > 0:
		return of.Enum[0]
	}
	switch of.Type {
	case huma.TypeObject:
		all := map[string]any{}
		for name, p := range of.Properties {
			all[name] = s.example(p)
		}
		return all
	case huma.TypeArray:
		return []any{s.example(of.Items)}
	case huma.TypeInteger:
		return 1
	case huma.TypeBoolean:
		return true
	}
	switch {
	case of.Format == "date-time":
		return "2026-11-27T08:00:00Z"
	case of.ContentEncoding == "base64":
		return "MIIB"
	}
	return "…"
}
