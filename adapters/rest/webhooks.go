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
	Types     []string `json:"types,omitempty" maxItems:"10" enum:"document.received,document.stage,document.request" doc:"Events that it is for; absent: all"`
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

// WebhookPath names one webhook of the caller.
type WebhookPath struct {
	ID string `path:"id" minLength:"1" maxLength:"60"`
}

type webhookMessage struct {
	WebhookPath
	Message string `path:"message" minLength:"1" maxLength:"200"`
}

type webhookSecret struct {
	Secret string `json:"secret" doc:"Shown this once. Calls carry signatures under the old one as well for 24 hours"`
}

func (s *Server) registerWebhooks() {
	one := func(id, en, zh string, codes ...string) about {
		return about{id: id, tag: tagWebhooks, en: en, zh: zh, scopes: []string{ScopeManage}, codes: append(codes, exchange.CodeNotFound)}
	}
	get(s, "/v1/webhooks", one("listWebhooks", "Webhooks of the agency", "回调列表"), s.webhooks)
	get(s, "/v1/webhooks/{id}", one("getWebhook", "A webhook with its last deliveries", "回调及最近投递"), s.webhook)
	create := one("createWebhook", "Make a webhook; its secret is in the answer, and never again", "建立回调", exchange.CodeWebhookAddress, exchange.CodeConflict)
	create.notes = "Calls are those of Standard Webhooks 1.0, or with HMAC-SM3: docs/webhooks.md. An agency may have 10."
	op := create.operation(http.MethodPost, "/v1/webhooks")
	op.MaxBodyBytes, op.DefaultStatus = maxJSON, http.StatusCreated
	huma.Register(s.api, op, s.makeWebhook)
	op = one("deleteWebhook", "Remove a webhook", "删除回调").operation(http.MethodDelete, "/v1/webhooks/{id}")
	op.DefaultStatus = http.StatusNoContent
	huma.Register(s.api, op, s.removeWebhook)
	post(s, "/v1/webhooks/{id}/rotate", one("rotateWebhook", "Give a webhook a new secret", "更换回调密钥"), s.rotateWebhook)
	post(s, "/v1/webhooks/{id}/enable", one("enableWebhook", "Let a webhook go on, with what waits at once", "恢复回调"), s.enableWebhook)
	post(s, "/v1/webhooks/{id}/test", one("testWebhook", "Send a made-up event now", "试发事件"), s.testWebhook)
	post(s, "/v1/webhooks/{id}/deliveries/{message}/resend", one("resendWebhook", "Send an event once more now", "重发事件"), s.resendWebhook)
}

func (s *Server) webhooks(ctx context.Context, _ *struct{}) (*body[list[Webhook]], error) {
	items := s.c.Webhooks.List(caller(ctx).Agency)
	for i := range items {
		items[i].Deliveries = []WebhookDelivery{}
	}
	return &body[list[Webhook]]{list[Webhook]{Items: append([]Webhook{}, items...)}}, nil
}

func (s *Server) webhook(ctx context.Context, in *WebhookPath) (*body[Webhook], error) {
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

func (s *Server) removeWebhook(ctx context.Context, in *WebhookPath) (*struct{}, error) {
	if _, err := s.c.Webhooks.Change(caller(ctx).Agency, in.ID, WebhookDelete); err != nil {
		return nil, s.problem(ctx, err)
	}
	return nil, nil
}

func (s *Server) rotateWebhook(ctx context.Context, in *WebhookPath) (*body[webhookSecret], error) {
	secret, err := s.c.Webhooks.Change(caller(ctx).Agency, in.ID, WebhookRotate)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return &body[webhookSecret]{webhookSecret{secret}}, nil
}

func (s *Server) enableWebhook(ctx context.Context, in *WebhookPath) (*body[Webhook], error) {
	if _, err := s.c.Webhooks.Change(caller(ctx).Agency, in.ID, WebhookEnable); err != nil {
		return nil, s.problem(ctx, err)
	}
	return s.webhook(ctx, in)
}

func (s *Server) testWebhook(ctx context.Context, in *WebhookPath) (*body[WebhookDelivery], error) {
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
