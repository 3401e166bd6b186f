package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// maxMetadata bounds a submission's metadata, bytes: those of 4,000 recipients with
// all that can be said of each.
const maxMetadata = 1 << 20

// SubmitRequest is the part "document" of a submission.
type SubmitRequest struct {
	Title          string      `json:"title" doc:"标题, at most 500 characters"`
	To             []Recipient `json:"to" maxItems:"3999" doc:"主送机关"`
	Cc             []Recipient `json:"cc,omitempty" maxItems:"3999" doc:"抄送机关"`
	Label          string      `json:"label" doc:"密级: public 公开, internal 内部 or work_secret 工作秘密. State secrets are recognised and refused."`
	LabelTerm      string      `json:"label_term,omitempty" doc:"保密期限"`
	Kind           string      `json:"kind,omitempty" doc:"official 公文 (when absent), information 政务信息, notice 通知, material 资料"`
	Urgency        string      `json:"urgency,omitempty" doc:"紧急程度: normal (when absent), urgent 加急, very_urgent 特急, or of telegrams 平急 加急 特急 特提"`
	DocType        string      `json:"doc_type,omitempty" doc:"文种; one of the 15 when kind is official"`
	Number         string      `json:"number,omitempty" doc:"发文字号, 代字〔2026〕12号 in any brackets; of a joint issue that of the main issuer"`
	IssuerMark     string      `json:"issuer_mark,omitempty" doc:"发文机关标志"`
	Signatory      string      `json:"signatory,omitempty" doc:"签发人"`
	SignedBy       []string    `json:"signed_by,omitempty" maxItems:"50" doc:"署名; several are a joint issue 联合发文, the main issuer first"`
	WrittenOn      string      `json:"written_on,omitempty" doc:"成文日期"`
	AttachmentNote string      `json:"attachment_note,omitempty" doc:"附件说明"`
	Remark         string      `json:"remark,omitempty" doc:"附注"`
	PrintedBy      string      `json:"printed_by,omitempty" doc:"印发机关"`
	PrintedOn      string      `json:"printed_on,omitempty" doc:"印发日期"`
	ReleaseScope   string      `json:"release_scope,omitempty" doc:"发布层次"`
	Sealed         bool        `json:"sealed,omitempty" doc:"是否用印"`
	Contact        string      `json:"contact,omitempty" doc:"联系人"`
	DueAt          string      `json:"due_at,omitempty" doc:"签收时限: a date, or a time of RFC 3339"`
	Expires        *time.Time  `json:"expires,omitempty" doc:"When undelivered copies end; absent: in 90 days"`
	RelatesTo      string      `json:"relates_to,omitempty" doc:"An earlier document that this one belongs to"`
}

// Recipient is an agency by its code, name or alias, or a group. In JSON it is this
// text alone, or an object that says more.
type Recipient struct {
	Agency string         `json:"agency"`
	Copies *exchange.Span `json:"copies,omitempty"`
	Print  int64          `json:"print_quota,omitempty"`
}

// Recipients are agencies or groups of which no more is to be said.
func Recipients(texts ...string) (out []Recipient) {
	for _, text := range texts {
		out = append(out, Recipient{Agency: text})
	}
	return out
}

// plainRecipient has the members of a Recipient and none of its methods.
type plainRecipient Recipient

// MarshalJSON gives the short form where it says everything.
func (r Recipient) MarshalJSON() ([]byte, error) {
	if r.Copies == nil && r.Print == 0 {
		return json.Marshal(r.Agency)
	}
	return json.Marshal(plainRecipient(r))
}

// UnmarshalJSON reads either form. A member that is not known is refused, so that
// one that is misspelt is not lost.
func (r *Recipient) UnmarshalJSON(b []byte) error {
	*r = Recipient{}
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &r.Agency)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode((*plainRecipient)(r))
}

// Schema describes both forms.
func (r Recipient) Schema(huma.Registry) *huma.Schema {
	least, most, none, quota := 1.0, float64(exchange.MaxCopy), 0.0, float64(exchange.MaxPrintQuota)
	number := &huma.Schema{Type: "integer", Minimum: &least, Maximum: &most}
	return &huma.Schema{
		Description: "An agency's code, name or alias, or a group; or an object that says more of it",
		OneOf: []*huma.Schema{
			{Type: "string", Description: "Code, name, alias or group"},
			{
				Type: "object", Required: []string{"agency"}, AdditionalProperties: false,
				Properties: map[string]*huma.Schema{
					"agency": {Type: "string", Description: "Code, name, alias or group"},
					"copies": {
						Type: "object", Description: "份号, both ends included; not for a group", Required: []string{"from", "to"}, AdditionalProperties: false,
						Properties: map[string]*huma.Schema{"from": number, "to": number},
					},
					"print_quota": {Type: "integer", Description: "打印份数", Minimum: &none, Maximum: &quota},
				},
			},
		},
	}
}

// SubmitResult answers a submission.
type SubmitResult struct {
	Document string          `json:"document"`
	State    string          `json:"state"`
	Receipt  []byte          `json:"receipt"`
	Warnings exchange.Faults `json:"warnings,omitempty" doc:"What is strange and was accepted as it is"`
}

func (q *SubmitRequest) submission(agency string) node.Submission {
	s := node.Submission{Agency: agency, RelatesTo: q.RelatesTo, Form: q.form()}
	if q.Expires != nil {
		s.Expires = *q.Expires
	}
	return s
}

func (q *SubmitRequest) form() *exchange.Form {
	return &exchange.Form{
		Title: q.Title, To: named(q.To), Cc: named(q.Cc), Label: q.Label, LabelTerm: q.LabelTerm, Kind: q.Kind, Urgency: q.Urgency,
		DocType: q.DocType, Number: q.Number, IssuerMark: q.IssuerMark, Signatory: q.Signatory, SignedBy: q.SignedBy,
		WrittenOn: q.WrittenOn, AttachmentNote: q.AttachmentNote, Remark: q.Remark, PrintedBy: q.PrintedBy, PrintedOn: q.PrintedOn,
		ReleaseScope: q.ReleaseScope, Sealed: q.Sealed, Contact: q.Contact, DueAt: q.DueAt,
	}
}

func named(list []Recipient) (out []exchange.Named) {
	for _, r := range list {
		one := exchange.Named{Text: r.Agency, Print: r.Print}
		if r.Copies != nil {
			// A range of zeros is a mistake, and none at all is not.
			one.CopyFrom, one.CopyTo = r.Copies.From, r.Copies.To
			if *r.Copies == (exchange.Span{}) {
				one.CopyFrom = -1
			}
		}
		out = append(out, one)
	}
	return out
}

// previewInput is read as the part of a submission is: what is missing is named with
// all else that is wrong.
type previewInput struct {
	RawBody []byte `contentType:"application/json"`
}

// registerPreview adds the dry run: nothing is stored, and it counts in no quota.
func (s *Server) registerPreview() {
	const path = "/v1/documents/preview"
	op := about{
		id: "previewDocument", tag: tagSent, en: "What would become of a submission", zh: "发文预检", scopes: []string{ScopeSend},
		notes: "Validates the metadata, finds the recipients and their ways, and names all that is wrong; stores nothing. What is wrong does not make it fail: look at acceptable.",
	}.operation(http.MethodPost, path)
	op.MaxBodyBytes, op.SkipValidateBody = maxMetadata, true
	huma.Register(s.api, op, func(ctx context.Context, in *previewInput) (*body[*node.Preview], error) {
		q, err := decodeRequest(in.RawBody)
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		p, err := s.c.Node.Preview(ctx, q.submission(caller(ctx).Agency))
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		return &body[*node.Preview]{p}, nil
	})
	api := s.api.OpenAPI()
	api.Paths[path].Post.RequestBody.Content["application/json"].Schema = api.Components.Schemas.Schema(reflect.TypeFor[SubmitRequest](), true, "")
}

// submit streams a multipart body into the node: the part document first,
// then body, then attachments, each name of a file given by its filename.
// replayed says that it had been accepted before.
func (s *Server) submit(w http.ResponseWriter, r *http.Request) (replayed bool, err error) {
	key, err := idempotencyKey(r)
	if err != nil {
		return false, err
	}
	if r.ContentLength > s.c.MaxUpload {
		return false, exchange.Fail(exchange.CodeTooLarge, "%d bytes, at most %d are possible", r.ContentLength, s.c.MaxUpload)
	}
	r.Body = http.MaxBytesReader(w, r.Body, s.c.MaxUpload)
	parts, err := r.MultipartReader()
	if err != nil {
		return false, exchange.Fail(exchange.CodeBadMultipart, "the request is not multipart/form-data with a boundary")
	}
	q, err := readMetadata(parts)
	if err != nil {
		return false, err
	}
	in := q.submission(caller(r.Context()).Agency)
	in.IdempotencyKey, in.Trace, in.Files = key, traceParent(r), files(parts)
	got, err := s.c.Node.Submit(r.Context(), in)
	if err != nil {
		return false, err
	}
	return got.Replayed, answerSubmission(w, got)
}

func answerSubmission(w http.ResponseWriter, got *node.Accepted) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Location", "/v1/documents/"+got.ID)
	if got.Replayed {
		w.Header().Set("Idempotent-Replayed", "true")
	}
	w.WriteHeader(http.StatusCreated)
	return json.NewEncoder(w).Encode(SubmitResult{
		Document: got.ID, State: string(exchange.StateInDelivery), Receipt: got.Receipt, Warnings: got.Warnings,
	})
}

func readMetadata(parts *multipart.Reader) (*SubmitRequest, error) {
	p, err := parts.NextPart()
	if errors.Is(err, io.EOF) {
		return nil, exchange.Fail(exchange.CodeBadMultipart, "there is no part")
	}
	if err != nil {
		return nil, uploadError(err)
	}
	if p.FormName() != "document" {
		return nil, exchange.Fail(exchange.CodeBadMultipart, "the first part must be named document")
	}
	b, err := io.ReadAll(io.LimitReader(p, maxMetadata+1))
	if err != nil {
		return nil, uploadError(err)
	}
	if len(b) > maxMetadata {
		return nil, exchange.Fail(exchange.CodeTooLarge, "part document: at most %d bytes are possible", maxMetadata)
	}
	return decodeRequest(b)
}

func decodeRequest(b []byte) (*SubmitRequest, error) {
	var q SubmitRequest
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		return nil, exchange.Fail(exchange.CodeBadRequest, "document: %s", jsonReason(err))
	}
	if d.More() {
		return nil, exchange.Fail(exchange.CodeBadRequest, "document: more than one JSON value")
	}
	return &q, nil
}

// jsonReason says where JSON is wrong without repeating a value.
func jsonReason(err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("broken JSON at byte %d", syntax.Offset)
	case errors.As(err, &kind):
		return fmt.Sprintf("member %s must be a %s", kind.Field, kind.Type)
	case strings.HasPrefix(err.Error(), "json: unknown field "):
		return "unknown member " + strings.TrimPrefix(err.Error(), "json: unknown field ")
	}
	return "not a JSON object"
}
