package rest

import (
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// streams registers what does not fit into JSON.
func (s *Server) streams() {
	submit := submission("submitDocument", "Submit a document", "发文")
	submit.notes += " The part `document` comes first, then `body`, then any `attachment`; each file has its name in filename. " +
		"At most 32 MiB unless the operator says otherwise."
	s.stream(http.MethodPost, "/v1/documents", submit, s.guarded(s.accept, ScopeSend), s.describeSubmit)
	s.stream(http.MethodGet, "/v1/events", about{
		id: "followEvents", tag: tagSent, en: "What happens, as it happens", zh: "事件流", scopes: []string{ScopeSend, ScopeReceive},
		notes: "Events `arrived` (a document is in the inbox), `receipt` (a stage of a document that was sent or received), `request` (a recall or a " +
			"reminder) and `reset` (the node was restored: look at the lists again). An agency may hold 8 streams.",
		codes: []string{exchange.CodeRateLimited},
	}, s.guarded(s.follow, ScopeSend, ScopeReceive), describeEvents)
	one := either("getReceipt", "A receipt as it was signed", "回执原文")
	s.stream(http.MethodGet, "/v1/documents/{id}/receipts/{receipt}", one, s.guarded(s.receipt, ScopeSend, ScopeReceive), func(op *huma.Operation) {
		op.Responses["200"] = content("The receipt's CMS (docs/spec/receipt-v1.md), DER · 回执的 CMS 结构", "application/pkcs7-mime")
	})
	proof := either("getEvidence", "Everything that proves a document's way, for offline verification", "存证文件")
	s.stream(http.MethodGet, "/v1/documents/{id}/evidence", proof, s.guarded(s.evidence, ScopeSend, ScopeReceive), func(op *huma.Operation) {
		op.Responses["200"] = &huma.Response{
			Description: "The evidence file (docs/spec/evidence-v1.md), for yzverify · 存证文件，用 yzverify 核验",
			Content:     map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}, Example: map[string]any{}}},
		}
	})
	file := about{
		id: "getFile", tag: tagInbox, en: "A file of a received document, whole or in ranges", zh: "取件", scopes: []string{ScopeReceive},
		notes: "The first answer with content signs COLLECTED. The ETag is the file's SM3, so a download goes on after any interruption.",
		codes: []string{exchange.CodeNotFound, exchange.CodeRecalled, exchange.CodeUnreadable},
	}
	head := file
	head.id, head.en, head.zh, head.notes = "headFile", "What a file of a received document is", "文件信息", "Signs nothing."
	for method, a := range map[string]about{http.MethodGet: file, http.MethodHead: head} {
		s.stream(method, "/v1/inbox/{id}/files/{n}", a, s.guarded(s.file, ScopeReceive), describeFile)
	}
}

func (s *Server) describeSubmit(op *huma.Operation) {
	schemas := s.api.OpenAPI().Components.Schemas
	document := schemas.Schema(reflect.TypeFor[SubmitRequest](), true, "SubmitRequest")
	file := &huma.Schema{Type: huma.TypeString, Format: "binary"}
	op.Parameters = append(op.Parameters,
		keyParameter(true, "1 to 255 printable ASCII characters, one for each document, the same on a retry · 幂等键"),
		headerParam("Traceparent", "W3C trace context; travels in the signed header"))
	op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"multipart/form-data": {
		Schema: &huma.Schema{
			Type: huma.TypeObject, Required: []string{"document", "body"},
			Properties: map[string]*huma.Schema{"document": document, "body": file, "attachment": {Type: huma.TypeArray, Items: file}},
		},
		Encoding: map[string]*huma.Encoding{"document": {ContentType: "application/json"}, "body": {ContentType: "application/octet-stream"}},
	}}}
	op.Responses["201"] = &huma.Response{
		Description: "Accepted: it is on disk, and will be delivered or end with a signed reason · 已受理",
		Headers: map[string]*huma.Param{
			"Location":            answerHeader("Where the document's state is"),
			"Idempotent-Replayed": answerHeader("true when the same had been accepted before under the key"),
		},
		Content: map[string]*huma.MediaType{"application/json": {Schema: schemas.Schema(reflect.TypeFor[SubmitResult](), true, "SubmitResult")}},
	}
}

func describeFile(op *huma.Operation) {
	op.Parameters = append(op.Parameters,
		headerParam("Range", "bytes=… (RFC 9110), at most 16 ranges"), headerParam("If-Range", "The ETag; else the whole file is given"),
		headerParam("If-Match", "The ETag; another one is answered with 412"), headerParam("If-None-Match", "The ETag of what is there already"))
	headers := map[string]*huma.Param{
		"ETag": answerHeader("The file's SM3"), "Yizhan-SM3": answerHeader("SM3 of the whole file, hex"),
		"Content-Disposition": answerHeader("The file's name (RFC 6266)"), "Accept-Ranges": answerHeader("bytes"),
	}
	whole, part := content("The file · 文件内容", "*/*"), content("The ranges · 部分内容", "*/*")
	whole.Headers, part.Headers = headers, headers
	if op.Method == http.MethodHead {
		whole.Content, part.Content = nil, nil
	}
	op.Responses["200"], op.Responses["206"] = whole, part
	op.Responses["304"] = &huma.Response{Description: "It is the one of If-None-Match"}
	op.Responses["412"] = &huma.Response{Description: "It is not the one of If-Match"}
	op.Responses["416"] = content("No byte of the file is in the range", "text/plain")
}
