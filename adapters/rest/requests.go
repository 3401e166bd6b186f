package rest

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// What a sender asks for about a document that it sent, and sending it again.

// AskRequest recalls a document, or reminds of it.
type AskRequest struct {
	Actor      Person   `json:"actor"`
	Recipients []string `json:"recipients,omitempty" maxItems:"3999" doc:"Agency codes; absent: all recipients of the document"`
}

// AskResult names what was signed. What came of it is in the trace: RECALLED or
// RECALL_REFUSED for each recipient, or another end.
type AskResult struct {
	Document string        `json:"document" example:"01ARZ3NDEKTSV4RRFFQ69G5FAV"`
	Kind     exchange.Wish `json:"kind"`
	KindZH   string        `json:"kind_zh" example:"撤回"`
	Requests []sm.Digest   `json:"requests" doc:"SM3 of the signed requests"`
}

// ResendRequest sends a document again.
type ResendRequest struct {
	Recipients []string   `json:"recipients,omitempty" maxItems:"3999" doc:"Agency codes; absent when resending: all whose delivery ended without a signature"`
	Expires    *time.Time `json:"expires,omitempty" doc:"When undelivered copies end; absent: in 90 days"`
}

type askInput struct {
	DocumentPath
	Unless
	Body AskRequest
}

type resendInput struct {
	DocumentPath
	Key         string `header:"Idempotency-Key" doc:"1 to 255 printable ASCII characters, the same on a retry"`
	Traceparent string `header:"Traceparent"`
	Body        ResendRequest
}

type created struct {
	Location string `header:"Location"`
	Replayed string `header:"Idempotent-Replayed"`
	Body     SubmitResult
}

func (s *Server) registerRequests() {
	post(s, "/v1/documents/{id}/recall", wish("recallDocument", "Recall a document", "撤回"), s.ask(exchange.WishRecall))
	post(s, "/v1/documents/{id}/remind", wish("remindOfDocument", "Remind the recipients of a document", "催办"), s.ask(exchange.WishRemind))
	s.again("/v1/documents/{id}/resend", submission("resendDocument", "Send a document again", "重发"), false)
	s.again("/v1/documents/{id}/supplement", submission("supplementDocument", "Send a document to further recipients", "补发"), true)
}

func wish(id, en, zh string) about {
	return about{
		id: id, tag: tagSent, en: en, zh: zh, scopes: []string{ScopeSend},
		notes: "What came of it is in the trace, for each recipient. A recall that is repeated is the same; a reminder is one more, unless its Idempotency-Key was used before.",
		codes: []string{
			exchange.CodeNotFound, exchange.CodeConflict, exchange.CodePrecondition, exchange.CodeUnknownRecipient, exchange.CodeCertificateExpired,
			exchange.CodeCertificateRevoked,
		},
	}
}

// submission describes what hands a document in.
func submission(id, en, zh string) about {
	return about{
		id: id, tag: tagSent, en: en, zh: zh, scopes: []string{ScopeSend},
		notes: "201 says that the document is on disk; repeat it with the same Idempotency-Key after a doubtful outcome, and the answer is the same.",
		codes: []string{
			exchange.CodeIdempotencyMissing, exchange.CodeIdempotencyInUse, exchange.CodeIdempotencyMismatch, exchange.CodeNotFound, exchange.CodeConflict,
			exchange.CodeUnknownRecipient, exchange.CodeAgencyCode, exchange.CodeAgencyNotActive, exchange.CodeMissingBody, exchange.CodeEmptyFile,
			exchange.CodeStateSecret, exchange.CodeClassificationMark, exchange.CodeLabelCeiling, exchange.CodeInvalidDocument, exchange.CodeNoRoute,
			exchange.CodeGuardKind, exchange.CodeGuardSize, exchange.CodeGuardPair, exchange.CodeCertificateExpired, exchange.CodeCertificateRevoked,
			exchange.CodeBadMultipart, exchange.CodeQuota, exchange.CodeNoSpace, exchange.CodeUnreadable,
		},
	}
}

func (s *Server) ask(wish exchange.Wish) func(context.Context, *askInput) (*body[AskResult], error) {
	return func(ctx context.Context, in *askInput) (*body[AskResult], error) {
		if err := in.met(s.statusNow(ctx, in.ID)); err != nil {
			return nil, s.problem(ctx, err)
		}
		all, err := s.c.Node.Ask(ctx, caller(ctx).Agency, in.ID, node.Asking{
			Wish: wish, Recipients: in.Body.Recipients, IdempotencyKey: keyOf(ctx), Actor: exchange.Actor{Name: in.Body.Actor.Name, Role: in.Body.Actor.Role},
		})
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		out := &body[AskResult]{AskResult{Document: in.ID, Kind: wish, KindZH: wish.Chinese()}}
		for _, one := range all {
			out.Body.Requests = append(out.Body.Requests, one.ID)
		}
		return out, nil
	}
}

func (s *Server) again(path string, a about, others bool) {
	op := a.operation(http.MethodPost, path)
	op.MaxBodyBytes, op.DefaultStatus = maxJSON, http.StatusCreated
	huma.Register(s.api, op, func(ctx context.Context, in *resendInput) (*created, error) {
		out, err := s.resend(ctx, in, others)
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		return out, nil
	})
}

// resend counts as a document of its size in the agency's quota, and holds what an
// upload of it would.
func (s *Server) resend(ctx context.Context, in *resendInput, others bool) (*created, error) {
	if err := checkKey(in.Key); err != nil {
		return nil, err
	}
	a := node.Resending{
		Document: in.ID, IdempotencyKey: in.Key, Recipients: in.Body.Recipients, Others: others, Trace: traceContext(in.Traceparent),
	}
	if in.Body.Expires != nil {
		a.Expires = *in.Body.Expires
	}
	size, err := s.c.Node.SentSize(ctx, caller(ctx).Agency, in.ID)
	if err != nil {
		return nil, err
	}
	g, err := s.quotas.begin(caller(ctx).Agency, size, s.c.Node.Now())
	if err != nil {
		return nil, err
	}
	release, err := s.budget.take(ctx, caller(ctx).Agency, weight(size), budgetWait)
	if err != nil {
		g.end(false)
		return nil, err
	}
	defer release()
	got, err := s.c.Node.SendAgain(ctx, caller(ctx).Agency, a)
	if err == nil && !got.Replayed {
		g.read.Store(size) // which was reserved
	}
	g.end(err == nil && !got.Replayed)
	if err != nil {
		return nil, err
	}
	out := &created{Location: "/v1/documents/" + got.ID, Body: SubmitResult{Document: got.ID, State: string(exchange.StateInDelivery), Receipt: got.Receipt}}
	if got.Replayed {
		out.Replayed = "true"
	}
	return out, nil
}
