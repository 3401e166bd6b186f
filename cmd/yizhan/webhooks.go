package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/yizhan-gateway/yizhan/adapters/notify"
	"github.com/yizhan-gateway/yizhan/adapters/rest"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

const webhooksDir = "webhooks"

// webhookSettings is the table [webhooks] of config.toml: which internal addresses
// agencies may have called. Without it only public ones are.
type webhookSettings struct {
	Allow []string `toml:"allow,omitempty" comment:"internal networks that webhooks may reach, such as [\"10.20.0.0/16\"]; empty: none, only public addresses"`
	HTTP  bool     `toml:"http,omitempty" comment:"also http addresses; what is sent is signed, and readable on its way"`
	Roots string   `toml:"roots,omitempty" comment:"PEM file with the authorities of the receivers' TLS certificates; empty: the system's"`
}

func (w *webhookSettings) check(file string) error {
	for _, one := range w.Allow {
		if _, err := netip.ParsePrefix(one); err != nil {
			return exchange.Fail(exchange.CodeBadRequest, "%s: [webhooks] allow has %.60q; name networks such as \"10.20.0.0/16\"", file, one)
		}
	}
	return nil
}

func (w *webhookSettings) outbound() (*notify.Outbound, error) {
	var allow []netip.Prefix
	for _, one := range w.Allow {
		p, err := netip.ParsePrefix(one)
		if err != nil {
			return nil, err
		}
		allow = append(allow, p.Masked())
	}
	if w.Roots == "" {
		return notify.NewOutbound(allow, nil, w.HTTP), nil
	}
	b, err := os.ReadFile(w.Roots)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(b) {
		return nil, exchange.Fail(exchange.CodeBadRequest, "[webhooks] roots: %s holds no certificate in PEM", w.Roots)
	}
	return notify.NewOutbound(allow, roots, w.HTTP), nil
}

func (g *gateway) openWebhooks() error {
	out, err := g.settings.Webhooks.outbound()
	if err != nil {
		return err
	}
	g.webhooks, err = notify.Open(notify.Config{
		Dir: g.dir.path(webhooksDir), Source: happenings{g.node}, Outbound: out, Sealer: g.keys, Logger: g.log,
	})
	return err
}

// happenings is the node's ledger as webhooks read it.
type happenings struct{ *node.Node }

func (h happenings) Newest(ctx context.Context) (string, error) {
	at, err := h.Node.Newest(ctx)
	return at.String(), err
}

func (h happenings) Events(ctx context.Context, agency, after string, limit int) ([]notify.Event, string, error) {
	from, err := node.ParsePosition(after)
	if err != nil {
		return nil, "", err
	}
	list, upto, err := h.Happenings(ctx, agency, from, limit)
	if err != nil || upto == from {
		return nil, after, err
	}
	var out []notify.Event
	for i := range list {
		out = append(out, told(&list[i]))
	}
	return out, upto.String(), nil
}

// Event finds one again. A ledger that was lost with its disk has other events at
// its places.
func (h happenings) Event(ctx context.Context, agency, at string) (*notify.Event, error) {
	p, err := node.ParsePosition(at)
	if err != nil || p.Seq == 0 || p.Ledger != h.LedgerID() {
		return nil, err
	}
	list, _, err := h.Happenings(ctx, agency, node.Position{Ledger: p.Ledger, Seq: p.Seq - 1}, 1)
	if err != nil || len(list) == 0 || list[0].At != p {
		return nil, err
	}
	e := told(&list[0])
	return &e, nil
}

func told(h *node.Happening) notify.Event {
	types := map[string]string{
		node.HappenedReceived: notify.TypeReceived, node.HappenedStage: notify.TypeStage, node.HappenedRequest: notify.TypeRequest,
	}
	return notify.Event{
		At: h.At.String(), Type: types[h.Kind], Time: h.Time, Document: h.Document,
		Stage: string(h.Stage), Request: string(h.Wish), Agencies: h.Agencies,
	}
}

// webhooks is the book as agencies' systems use it.
type webhooks struct{ book *notify.Book }

func (w webhooks) List(agency string) []rest.Webhook {
	var out []rest.Webhook
	for _, h := range w.book.List(agency) {
		out = append(out, shownWebhook(&h, ""))
	}
	return out
}

func (w webhooks) Create(ctx context.Context, agency string, q rest.WebhookRequest) (*rest.Webhook, error) {
	h, secret, err := w.book.Create(ctx, agency, q.URL, q.Types, q.Algorithm)
	if err != nil {
		return nil, webhookError(err)
	}
	out := shownWebhook(&h, secret)
	return &out, nil
}

func (w webhooks) Change(agency, id string, what rest.WebhookChange) (secret string, err error) {
	switch what {
	case rest.WebhookDelete:
		err = w.book.Delete(agency, id)
	case rest.WebhookEnable:
		err = w.book.Enable(agency, id)
	case rest.WebhookRotate:
		secret, err = w.book.Rotate(agency, id)
	}
	return secret, webhookError(err)
}

func (w webhooks) Deliver(ctx context.Context, agency, id, message string) (*rest.WebhookDelivery, error) {
	var d notify.Delivery
	var err error
	if message == "" {
		d, err = w.book.Test(ctx, agency, id)
	} else {
		d, err = w.book.Resend(ctx, agency, id, message)
	}
	if err != nil {
		return nil, webhookError(err)
	}
	out := shownDelivery(&d)
	return &out, nil
}

func shownWebhook(h *notify.Hook, secret string) rest.Webhook {
	out := rest.Webhook{
		ID: h.ID, URL: h.URL, Types: append([]string{}, h.Types...), Algorithm: h.Algorithm, Created: h.Created, Secret: secret,
		Disabled: h.Disabled, Waiting: len(h.Kept), Failures: h.Failures, Deliveries: []rest.WebhookDelivery{},
	}
	for i := range h.Log {
		out.Deliveries = append(out.Deliveries, shownDelivery(&h.Log[i]))
	}
	return out
}

func shownDelivery(d *notify.Delivery) rest.WebhookDelivery {
	return rest.WebhookDelivery{
		Message: d.Message, Type: d.Type, Document: d.Document, At: d.At.Truncate(time.Millisecond), Attempt: d.Attempt,
		Status: d.Status, Problem: d.Problem, GaveUp: d.GaveUp,
	}
}

// webhookError gives an error the code that users see.
func webhookError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, notify.ErrNoHook):
		return exchange.Fail(exchange.CodeNotFound, "%v", err)
	case errors.Is(err, notify.ErrForbidden), errors.Is(err, notify.ErrURL):
		return exchange.Fail(exchange.CodeWebhookAddress, "%v", err)
	case errors.Is(err, notify.ErrTooMany):
		return exchange.Fail(exchange.CodeConflict, "%v: %d", err, notify.MaxHooks)
	}
	return fmt.Errorf("webhooks: %w", err)
}
