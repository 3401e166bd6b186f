package rest

import (
	"cmp"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// Problem is an error as RFC 9457 has it. Type and Code are stable; Title and
// Fix come in the language asked for, and in both languages beside that.
type Problem struct {
	Type    string `json:"type" doc:"urn:yizhan:problem:<code>"`
	Title   string `json:"title" doc:"What is wrong, in the language of Accept-Language"`
	Status  int    `json:"status"`
	Detail  string `json:"detail,omitempty" doc:"Which field, code or identifier it is about"`
	Code    string `json:"code" doc:"Stable code for programs"`
	Fix     string `json:"fix" doc:"The next step, in the language of Accept-Language"`
	TitleZH string `json:"title_zh"`
	FixZH   string `json:"fix_zh"`
	TitleEN string `json:"title_en"`
	FixEN   string `json:"fix_en"`

	Errors exchange.Faults `json:"errors,omitempty" doc:"All that is wrong with a document, field by field"`

	after string // Retry-After, seconds; empty: by status
}

// Error implements error.
func (p *Problem) Error() string { return p.Code + ": " + p.Detail }

// GetStatus implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders implements huma.HeadersError.
func (p *Problem) GetHeaders() http.Header {
	h := http.Header{}
	if after := p.retryAfter(); after != "" {
		h.Set("Retry-After", after)
	}
	return h
}

func (p *Problem) retryAfter() string { return cmp.Or(p.after, retryAfter[p.Status]) }

// retryAfter is when a caller may ask again, seconds, by status: a disk is not
// emptied in a moment.
var retryAfter = map[int]string{http.StatusServiceUnavailable: "2", http.StatusInsufficientStorage: "60"}

// ContentType implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return problemMedia }

const problemMedia = "application/problem+json"

var statusOf = map[string]int{
	exchange.CodeUnknownRecipient: 422, exchange.CodeAmbiguousRecipient: 422, exchange.CodeAgencyCode: 422, exchange.CodeMissingBody: 422,
	exchange.CodeEmptyFile: 422, exchange.CodeStateSecret: 422, exchange.CodeLabelCeiling: 422,
	exchange.CodeInvalidDocument: 422, exchange.CodeNoRoute: 422, exchange.CodeTooLarge: 413,
	exchange.CodeBadMultipart: 400, exchange.CodeBadRequest: 400, exchange.CodeUnauthenticated: 401,
	exchange.CodeForbidden: 403, exchange.CodeNotFound: 404, exchange.CodeConflict: 409, exchange.CodeRecalled: 410,
	exchange.CodeIdempotencyInUse: 409, exchange.CodeIdempotencyMismatch: 422, exchange.CodeIdempotencyMissing: 400,
	exchange.CodeAgencyNotActive: 422, exchange.CodeCertificateExpired: 422, exchange.CodeCertificateRevoked: 422, exchange.CodeCertificateUsage: 422, exchange.CodeSignatureInvalid: 422,
	exchange.CodeClassificationMark: 422, exchange.CodeGuardKind: 422, exchange.CodeGuardSize: 422, exchange.CodeGuardPair: 422,
	exchange.CodeNotSignedFor: 409, exchange.CodePrecondition: 412, exchange.CodeDigestMismatch: 400, exchange.CodeRateLimited: 429,
	exchange.CodeUnreadable: 422, exchange.CodeTemporary: 503, exchange.CodeNoSpace: 507, exchange.CodeMediumFull: 507, exchange.CodeQuota: 429, exchange.CodeWebhookAddress: 422, exchange.CodeUploadUnfinished: 409, exchange.CodeTooSlow: 408,
}

// problemOf maps any error to a Problem. What is not one of ours is shown as
// an internal fault without its text.
func problemOf(err error, lang string) *Problem {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		err = exchange.Fail(exchange.CodeTooLarge, "at most %d bytes are possible", tooLarge.Limit)
	}
	code, detail := exchange.CodeInternal, ""
	if known := exchange.Known(err); known != nil {
		code, detail = known.Code, detailOf(known)
	}
	status := statusOf[code]
	if status == 0 {
		status = http.StatusInternalServerError
	}
	p := newProblem(status, code, detail, lang)
	if faults := (exchange.Faults)(nil); errors.As(err, &faults) {
		p.Errors = faults
	}
	if over := (*overQuota)(nil); errors.As(err, &over) {
		p.after = strconv.Itoa(int(math.Ceil(over.after.Seconds())))
	}
	return p
}

// detailOf gives what may be shown: our own words, and those of certs.
func detailOf(e *exchange.Error) string {
	detail := e.Detail
	var ce *certs.Error
	if errors.As(e.Err, &ce) {
		detail = strings.TrimPrefix(detail+": "+ce.Detail, ": ")
	}
	return detail
}

func newProblem(status int, code, detail, lang string) *Problem {
	zh, en := exchange.Explain(code, "zh"), exchange.Explain(code, "en")
	p := &Problem{
		Type: "urn:yizhan:problem:" + code, Status: status, Detail: detail, Code: code,
		Title: en.Title, Fix: en.Fix, TitleZH: zh.Title, FixZH: zh.Fix, TitleEN: en.Title, FixEN: en.Fix,
	}
	if lang == "zh" {
		p.Title, p.Fix = zh.Title, zh.Fix
	}
	return p
}

// language is zh when the client prefers Chinese.
func language(r *http.Request) string { return preferred(r.Header.Get("Accept-Language")) }

func preferred(accept string) string {
	first, _, _ := strings.Cut(accept, ",")
	if strings.HasPrefix(strings.ToLower(strings.TrimSpace(first)), "zh") {
		return "zh"
	}
	return "en"
}

func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err, language(r))
	if p.logged() {
		s.c.Logger.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	writeProblem(w, p)
}

// logged says whether an answer is for the log, too. That the disk has no room is
// said there once, by who found it, and not with every caller.
func (p *Problem) logged() bool { return p.Status >= 500 && p.Code != exchange.CodeNoSpace }

func writeProblem(w http.ResponseWriter, p *Problem) {
	w.Header().Set("Content-Type", problemMedia)
	if after := p.retryAfter(); after != "" {
		w.Header().Set("Retry-After", after)
	}
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client is gone if this fails
}
