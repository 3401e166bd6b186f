package rest

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// Webhook is where an agency is told what happens to its documents.
type Webhook struct {
	ID        string    `json:"id"`
	URL       string    `json:"url"`
	Types     []string  `json:"types" doc:"Events that it is for; empty: all"`
	Algorithm string    `json:"algorithm" doc:"How calls are signed: sha256 (Standard Webhooks, v1) or sm3 (v1sm3)"`
	Created   time.Time `json:"created"`
	Secret    string    `json:"secret,omitempty" doc:"Shown when it is made, and never again"`
	Disabled  string    `json:"disabled,omitempty" doc:"Why nothing is sent: gone, after an answer 410"`
	Waiting   int       `json:"waiting" doc:"Events that the receiver did not take and that will be tried again"`
	Failures  int       `json:"failures" doc:"Calls that failed since the last one that did not"`
	// Deliveries are the last calls, the oldest first.
	Deliveries []WebhookDelivery `json:"deliveries"`
}

// WebhookDelivery is one call.
type WebhookDelivery struct {
	Message  string    `json:"message" doc:"The header webhook-id, the same at every repetition"`
	Type     string    `json:"type"`
	Document string    `json:"document,omitempty"`
	At       time.Time `json:"at"`
	Attempt  int       `json:"attempt"`
	Status   int       `json:"status,omitempty" doc:"HTTP status of the answer; absent: there was none"`
	Problem  string    `json:"problem,omitempty"`
	GaveUp   bool      `json:"gave_up,omitempty" doc:"It will not be tried again by itself"`
}

// WebhookRequest makes one.
type WebhookRequest struct {
	URL       string   `json:"url" maxLength:"2048" doc:"https address; internal ones must be allowed by the operator"`
	Types     []string `json:"types,omitempty" maxItems:"10" enum:"document.received,document.stage,document.request" doc:"absent: all"`
	Algorithm string   `json:"algorithm,omitempty" enum:"sha256,sm3" default:"sha256"`
}

// WebhookChange is what can be done to a webhook.
type WebhookChange string

// The changes of a webhook.
const (
	WebhookRotate WebhookChange = "rotate" // a new secret; for a day both sign
	WebhookEnable WebhookChange = "enable" // go on, with what waits at once
	WebhookDelete WebhookChange = "delete"
)

// Webhooks keeps and calls them. Each call is about the agency's own.
type Webhooks interface {
	List(agency string) []Webhook
	Create(ctx context.Context, agency string, q WebhookRequest) (*Webhook, error)
	Change(agency, id string, what WebhookChange) (secret string, err error)
	// Deliver sends a message of the log once more, or a test when it is empty.
	Deliver(ctx context.Context, agency, id, message string) (*WebhookDelivery, error)
}

type webhookPath struct {
	ID string `path:"id" minLength:"1" maxLength:"60"`
}

type webhookMessage struct {
	webhookPath
	Message string `path:"message" minLength:"1" maxLength:"200"`
}

type webhookSecret struct {
	Secret string `json:"secret" doc:"Shown this once. Calls carry signatures under the old one as well for 24 hours"`
}

func (s *Server) registerWebhooks() {
	get(s, "/v1/webhooks", "Webhooks of the agency", s.webhooks, ScopeManage)
	get(s, "/v1/webhooks/{id}", "A webhook with its last deliveries", s.webhook, ScopeManage)
	huma.Register(s.api, huma.Operation{
		Method: http.MethodPost, Path: "/v1/webhooks", Summary: "Make a webhook", OperationID: "post-v1-webhooks",
		Security: security([]string{ScopeManage}), MaxBodyBytes: maxJSON, DefaultStatus: http.StatusCreated,
	}, s.makeWebhook)
	huma.Register(s.api, huma.Operation{
		Method: http.MethodDelete, Path: "/v1/webhooks/{id}", Summary: "Remove a webhook", OperationID: "delete-v1-webhooks-id",
		Security: security([]string{ScopeManage}), DefaultStatus: http.StatusNoContent,
	}, s.removeWebhook)
	post(s, "/v1/webhooks/{id}/rotate", "Give a webhook a new secret", s.rotateWebhook, ScopeManage)
	post(s, "/v1/webhooks/{id}/enable", "Let a webhook go on, with what waits at once", s.enableWebhook, ScopeManage)
	post(s, "/v1/webhooks/{id}/test", "Send a made-up event now", s.testWebhook, ScopeManage)
	post(s, "/v1/webhooks/{id}/deliveries/{message}/resend", "Send an event once more now", s.resendWebhook, ScopeManage)
}

func (s *Server) webhooks(ctx context.Context, _ *struct{}) (*body[list[Webhook]], error) {
	items := s.c.Webhooks.List(caller(ctx).Agency)
	for i := range items {
		items[i].Deliveries = []WebhookDelivery{}
	}
	return &body[list[Webhook]]{list[Webhook]{append([]Webhook{}, items...)}}, nil
}

func (s *Server) webhook(ctx context.Context, in *webhookPath) (*body[Webhook], error) {
	for _, w := range s.c.Webhooks.List(caller(ctx).Agency) {
		if w.ID == in.ID {
			return &body[Webhook]{w}, nil
		}
	}
	return nil, s.problem(ctx, exchange.Fail(exchange.CodeNotFound, "webhook %s", in.ID))
}

func (s *Server) makeWebhook(ctx context.Context, in *struct{ Body WebhookRequest }) (*struct {
	Location string `header:"Location"`
	Body     Webhook
}, error) {
	w, err := s.c.Webhooks.Create(ctx, caller(ctx).Agency, in.Body)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return &struct {
		Location string `header:"Location"`
		Body     Webhook
	}{"/v1/webhooks/" + w.ID, *w}, nil
}

func (s *Server) removeWebhook(ctx context.Context, in *webhookPath) (*struct{}, error) {
	if _, err := s.c.Webhooks.Change(caller(ctx).Agency, in.ID, WebhookDelete); err != nil {
		return nil, s.problem(ctx, err)
	}
	return nil, nil
}

func (s *Server) rotateWebhook(ctx context.Context, in *webhookPath) (*body[webhookSecret], error) {
	secret, err := s.c.Webhooks.Change(caller(ctx).Agency, in.ID, WebhookRotate)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return &body[webhookSecret]{webhookSecret{secret}}, nil
}

func (s *Server) enableWebhook(ctx context.Context, in *webhookPath) (*body[Webhook], error) {
	if _, err := s.c.Webhooks.Change(caller(ctx).Agency, in.ID, WebhookEnable); err != nil {
		return nil, s.problem(ctx, err)
	}
	return s.webhook(ctx, in)
}

func (s *Server) testWebhook(ctx context.Context, in *webhookPath) (*body[WebhookDelivery], error) {
	return s.deliver(ctx, in.ID, "")
}

func (s *Server) resendWebhook(ctx context.Context, in *webhookMessage) (*body[WebhookDelivery], error) {
	return s.deliver(ctx, in.ID, in.Message)
}

func (s *Server) deliver(ctx context.Context, id, message string) (*body[WebhookDelivery], error) {
	d, err := s.c.Webhooks.Deliver(ctx, caller(ctx).Agency, id, message)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return &body[WebhookDelivery]{*d}, nil
}
