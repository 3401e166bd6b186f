package rest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// SubmitRequest is the part "document" of a submission.
type SubmitRequest struct {
	Title          string     `json:"title"`
	To             []string   `json:"to"`
	Cc             []string   `json:"cc,omitempty"`
	Label          string     `json:"label"`
	LabelTerm      string     `json:"label_term,omitempty"`
	Kind           string     `json:"kind,omitempty"`
	Urgency        string     `json:"urgency,omitempty"`
	DocType        string     `json:"doc_type,omitempty"`
	Number         string     `json:"number,omitempty"`
	IssuerMark     string     `json:"issuer_mark,omitempty"`
	Signatory      string     `json:"signatory,omitempty"`
	SignedBy       []string   `json:"signed_by,omitempty"`
	WrittenOn      string     `json:"written_on,omitempty"`
	AttachmentNote string     `json:"attachment_note,omitempty"`
	Remark         string     `json:"remark,omitempty"`
	ReleaseScope   string     `json:"release_scope,omitempty"`
	Contact        string     `json:"contact,omitempty"`
	DueAt          string     `json:"due_at,omitempty"`
	Expires        *time.Time `json:"expires,omitempty"`
	RelatesTo      string     `json:"relates_to,omitempty"`
}

// SubmitResult answers a submission.
type SubmitResult struct {
	Document string `json:"document"`
	State    string `json:"state"`
	Receipt  []byte `json:"receipt"`
}

func (q *SubmitRequest) document() (exchange.Document, error) {
	label, err := exchange.ParseLabel(q.Label)
	if err != nil {
		return exchange.Document{}, err
	}
	kind, err := exchange.ParseKind(q.Kind)
	if err != nil {
		return exchange.Document{}, err
	}
	urgency, err := exchange.ParseUrgency(q.Urgency)
	if err != nil {
		return exchange.Document{}, err
	}
	d := exchange.Document{
		Label: label, LabelTerm: q.LabelTerm, Kind: kind, Urgency: urgency, DocType: q.DocType, Title: q.Title,
		IssuerMark: q.IssuerMark, Signatory: q.Signatory, SignedBy: q.SignedBy, WrittenOn: q.WrittenOn,
		AttachmentNote: q.AttachmentNote, Remark: q.Remark, ReleaseScope: q.ReleaseScope, Contact: q.Contact, DueAt: q.DueAt,
		To: addressees(q.To), Cc: addressees(q.Cc),
	}
	if q.Number != "" {
		d.Number = &exchange.Number{Display: q.Number}
	}
	return d, nil
}

func addressees(codes []string) []exchange.Addressee {
	var out []exchange.Addressee
	for _, c := range codes {
		out = append(out, exchange.Addressee{Agency: c})
	}
	return out
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
	if err := withDigests(r); err != nil {
		return false, err
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
	doc, err := q.document()
	if err != nil {
		return false, err
	}
	in := node.Submission{
		Agency: caller(r.Context()).Agency, IdempotencyKey: key, Document: doc, RelatesTo: q.RelatesTo,
		Trace: traceParent(r), Files: files(parts, r.Body),
	}
	if q.Expires != nil {
		in.Expires = *q.Expires
	}
	got, err := s.c.Node.Submit(r.Context(), in)
	if err != nil {
		return false, err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Location", "/v1/documents/"+got.ID)
	if got.Replayed {
		w.Header().Set("Idempotent-Replayed", "true")
	}
	w.WriteHeader(http.StatusCreated)
	return got.Replayed, json.NewEncoder(w).Encode(SubmitResult{Document: got.ID, State: string(exchange.StateInDelivery), Receipt: got.Receipt})
}

func idempotencyKey(r *http.Request) (string, error) {
	key := r.Header.Get("Idempotency-Key")
	return key, checkKey(key)
}

func checkKey(key string) error {
	if key == "" {
		return exchange.Fail(exchange.CodeIdempotencyMissing, "")
	}
	printable := strings.IndexFunc(key, func(c rune) bool { return c < 0x20 || c > 0x7e }) < 0
	if len(key) > 255 || !printable {
		return exchange.Fail(exchange.CodeIdempotencyMissing, "1 to 255 printable ASCII characters are expected")
	}
	return nil
}

// traceParent is the W3C trace context a caller sent, if it looks like one.
func traceParent(r *http.Request) string { return traceContext(r.Header.Get("Traceparent")) }

func traceContext(t string) string {
	if len(t) == 55 && strings.Count(t, "-") == 3 {
		return t
	}
	return ""
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
	b, err := io.ReadAll(io.LimitReader(p, maxJSON+1))
	if err != nil {
		return nil, uploadError(err)
	}
	if len(b) > maxJSON {
		return nil, exchange.Fail(exchange.CodeTooLarge, "part document: at most %d bytes are possible", maxJSON)
	}
	var q SubmitRequest
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		return nil, exchange.Fail(exchange.CodeBadRequest, "part document: %s", jsonReason(err))
	}
	if d.More() {
		return nil, exchange.Fail(exchange.CodeBadRequest, "part document: more than one JSON value")
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

// uploadError tells a broken or oversized upload from a fault of ours.
func uploadError(err error) error {
	var tooLarge *http.MaxBytesError
	if exchange.CodeOf(err) == exchange.CodeDigestMismatch {
		return err
	}
	if errors.As(err, &tooLarge) {
		return exchange.Fail(exchange.CodeTooLarge, "at most %d bytes are possible", tooLarge.Limit)
	}
	return &exchange.Error{Code: exchange.CodeBadMultipart, Detail: "the body ends early or its boundaries are broken", Err: err}
}

// files yields the parts behind the metadata as they arrive. A broken upload
// is an error of the part it breaks in and never looks like its end. What comes
// behind the last boundary belongs to the body and its digests.
func files(parts *multipart.Reader, body io.Reader) iter.Seq2[envelope.File, error] {
	return func(yield func(envelope.File, error) bool) {
		for {
			p, err := parts.NextPart()
			if errors.Is(err, io.EOF) {
				if _, err = io.Copy(io.Discard, body); err == nil {
					return
				}
			}
			if err != nil {
				yield(envelope.File{}, uploadError(err))
				return
			}
			f, err := fileOf(p)
			if !yield(f, err) || err != nil {
				return
			}
		}
	}
}

func fileOf(p *multipart.Part) (envelope.File, error) {
	role := map[string]string{"body": envelope.RoleBody, "attachment": envelope.RoleAttachment}[p.FormName()]
	if role == "" {
		return envelope.File{}, exchange.Fail(exchange.CodeBadMultipart, "a part is named neither body nor attachment")
	}
	if p.FileName() == "" {
		return envelope.File{}, exchange.Fail(exchange.CodeBadMultipart, "a part %s has no filename", p.FormName())
	}
	media := p.Header.Get("Content-Type")
	if media == "" {
		media = "application/octet-stream"
	}
	e, err := digestsOf(p.Header)
	if err != nil {
		return envelope.File{}, err
	}
	var content io.Reader = p
	if e != nil {
		content = &digested{p, e, "a part " + p.FormName()}
	}
	return envelope.File{Role: role, Name: p.FileName(), Type: media, Content: upload{content}}, nil
}

type upload struct{ r io.Reader }

func (u upload) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if err != nil && err != io.EOF {
		err = uploadError(err)
	}
	return n, err
}

func (s *Server) receipt(w http.ResponseWriter, r *http.Request) error {
	id, err := sm.ParseDigest(mux.Vars(r)["receipt"])
	if err != nil {
		return exchange.Fail(exchange.CodeBadRequest, "a receipt is named by 64 hex digits")
	}
	b, err := s.c.Node.Receipt(r.Context(), caller(r.Context()).Agency, mux.Vars(r)["id"], id)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/pkcs7-mime; smime-type=signed-data")
	_, err = w.Write(b)
	return err
}

func (s *Server) evidence(w http.ResponseWriter, r *http.Request) error {
	w, release, err := s.takeDownload(w, r, downloadMost)
	if err != nil {
		return err
	}
	defer release()
	w.Header().Set("Content-Disposition", `attachment; filename="evidence.json"`)
	w.Header().Set("Content-Type", "application/json")
	sums := newSummed(w)
	if err := s.c.Node.Evidence(r.Context(), caller(r.Context()).Agency, mux.Vars(r)["id"], sums); err != nil {
		w.Header().Del("Trailer")
		return err
	}
	sums.end()
	return nil
}

// safeMedia keeps a sender's media type from carrying more than that.
func safeMedia(t string) string {
	if media, _, err := mime.ParseMediaType(t); err == nil && strings.Count(media, "/") == 1 {
		return media
	}
	return "application/octet-stream"
}
