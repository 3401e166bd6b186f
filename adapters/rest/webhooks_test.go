package rest

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// hooks are webhooks that call nobody. The real ones are adapters/notify, which the
// script webhook.txt of cmd/yizhan tries through this interface.
type hooks struct{ of map[string][]Webhook }

func (h *hooks) List(agency string) []Webhook { return h.of[agency] }

func (h *hooks) Create(_ context.Context, agency string, q WebhookRequest) (*Webhook, error) {
	if !strings.HasPrefix(q.URL, "https://") {
		return nil, exchange.Fail(exchange.CodeWebhookAddress, "an https address is expected")
	}
	w := Webhook{
		ID: "hook", URL: q.URL, Types: append([]string{}, q.Types...), Algorithm: q.Algorithm, Created: time.Now(),
		Deliveries: []WebhookDelivery{{Message: "m", Type: "document.received", At: time.Now(), Attempt: 1, Status: 204}},
	}
	h.of[agency] = append(h.of[agency], w)
	w.Secret = "whsec_x"
	return &w, nil
}

func (h *hooks) Change(agency, id string, what WebhookChange) (string, error) {
	at := slices.IndexFunc(h.of[agency], func(w Webhook) bool { return w.ID == id })
	if at < 0 {
		return "", exchange.Fail(exchange.CodeNotFound, "webhook %s", id)
	}
	if what == WebhookDelete {
		h.of[agency] = slices.Delete(h.of[agency], at, at+1)
	}
	return "whsec_y", nil
}

func (h *hooks) Deliver(_ context.Context, agency, id, _ string) (*WebhookDelivery, error) {
	if len(h.of[agency]) == 0 || id != "hook" {
		return nil, exchange.Fail(exchange.CodeNotFound, "webhook %s", id)
	}
	return &WebhookDelivery{Message: "m", Type: "webhook.test", At: time.Now(), Attempt: 1, Status: 204}, nil
}

// TestWebhooksOfAnAgency: the secret is shown when it is made and never again, and
// nobody else sees or changes a webhook, or does so without the scope.
func TestWebhooksOfAnAgency(t *testing.T) {
	o := newOffice(t, 0)
	post := func(who, path, body string) *answer {
		return o.do(who, http.MethodPost, path, strings.NewReader(body), map[string]string{"Content-Type": "application/json"})
	}
	if a := post("jia", "/v1/webhooks", `{"url":"ftp://x"}`); a.status != 422 || a.problem().Code != exchange.CodeWebhookAddress {
		t.Errorf("a wrong address: %d %s", a.status, a.body)
	}
	if a := post("jia", "/v1/webhooks", `{"url":"https://oa.example/","types":["everything"]}`); a.status != 422 {
		t.Errorf("a type that is none: %d %s", a.status, a.body)
	}
	a := post("jia", "/v1/webhooks", `{"url":"https://oa.example/","algorithm":"sm3"}`)
	var w Webhook
	o.must(json.Unmarshal(o.ok(a), &w))
	if a.status != http.StatusCreated || w.Secret != "whsec_x" || w.Algorithm != "sm3" || a.header.Get("Location") != "/v1/webhooks/hook" {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	for _, path := range []string{"/v1/webhooks", "/v1/webhooks/hook"} {
		if got := string(o.ok(o.do("jia", http.MethodGet, path, nil, nil))); strings.Contains(got, "whsec") || !strings.Contains(got, "oa.example") {
			t.Errorf("%s: %s", path, got)
		}
	}
	for _, what := range []string{"rotate", "enable", "test", "deliveries/m/resend"} {
		if a := post("yi", "/v1/webhooks/hook/"+what, ""); a.status != http.StatusNotFound {
			t.Errorf("another agency, %s: %d %s", what, a.status, a.body)
		}
		o.ok(post("jia", "/v1/webhooks/hook/"+what, ""))
	}
	if a := o.do("yi", http.MethodDelete, "/v1/webhooks/hook", nil, nil); a.status != http.StatusNotFound {
		t.Errorf("another agency deletes: %d", a.status)
	}
	secret, _, err := o.ring.Create(strings.NewReader(strings.Repeat("k", 64)), "", []string{ScopeSend, ScopeReceive}, nil, "", time.Now())
	o.must(err)
	o.keys["less"] = secret
	if a := o.do("less", http.MethodGet, "/v1/webhooks", nil, nil); a.status != http.StatusForbidden {
		t.Errorf("without the scope: %d", a.status)
	}
	if a := o.do("jia", http.MethodDelete, "/v1/webhooks/hook", nil, nil); a.status != http.StatusNoContent {
		t.Errorf("deleting: %d %s", a.status, a.body)
	}
}
