package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/rest"
)

func (a *app) webhookCommand() *cobra.Command {
	f := new(clientFlags)
	c := &cobra.Command{Use: "webhook", Short: "Where an agency's system is called when something happens · 事件回调"}
	c.AddCommand(
		a.webhookList(f), a.webhookAdd(f),
		a.webhookAct(f, "remove ID", "Remove a webhook", http.MethodDelete, ""),
		a.webhookAct(f, "rotate ID", "Give it a new secret, shown this once; the old one signs as well for 24 hours", http.MethodPost, "/rotate"),
		a.webhookAct(f, "enable ID", "Let it go on, with what waits at once", http.MethodPost, "/enable"),
		a.webhookAct(f, "test ID", "Send a made-up event now and show what the receiver said", http.MethodPost, "/test"),
		a.webhookResend(f),
	)
	for _, sub := range c.Commands() {
		f.add(sub)
	}
	return c
}

type webhookItems struct {
	Items []rest.Webhook `json:"items"`
}

func (a *app) webhookList(f *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use: "ls [ID]", Short: "List webhooks, or the last deliveries of one", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := f.client()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				var w rest.Webhook
				if err := client.json(c.Context(), http.MethodGet, "/v1/webhooks/"+url.PathEscape(args[0]), nil, &w); err != nil {
					return err
				}
				return a.print(w, "%s", deliveryLines(w.Deliveries))
			}
			var all webhookItems
			if err := client.json(c.Context(), http.MethodGet, "/v1/webhooks", nil, &all); err != nil {
				return err
			}
			text := ""
			for _, w := range all.Items {
				text += fmt.Sprintf("%s  %s  %s  waiting 等待 %d  failures 连续失败 %d  %s\n", w.ID, w.URL, or(strings.Join(w.Types, ","), "*"), w.Waiting, w.Failures, w.Disabled)
			}
			return a.print(all, "%s", text)
		},
	}
}

func deliveryLines(list []rest.WebhookDelivery) string {
	text := ""
	for _, d := range list {
		text += fmt.Sprintf("%s  %s  %s  attempt %d  %d  %s\n", d.At.Local().Format("2006-01-02 15:04:05"), d.Message, d.Type, d.Attempt, d.Status, d.Problem)
	}
	return text
}

func (a *app) webhookAdd(f *clientFlags) *cobra.Command {
	var q rest.WebhookRequest
	c := &cobra.Command{
		Use: "add URL", Short: "Make a webhook; its secret is shown this once", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := f.client()
			if err != nil {
				return err
			}
			q.URL = args[0]
			var w rest.Webhook
			if err := client.json(c.Context(), http.MethodPost, "/v1/webhooks", &q, &w); err != nil {
				return err
			}
			return a.print(w, "%s\n%s\n", w.ID, w.Secret)
		},
	}
	c.Flags().StringSliceVar(&q.Types, "type", nil, "document.received, document.stage, document.request; absent: all")
	c.Flags().StringVar(&q.Algorithm, "algorithm", "", "how calls are signed: sha256 or sm3")
	return c
}

// webhookAct does something to one webhook and shows what the node answers.
func (a *app) webhookAct(f *clientFlags, use, short, method, what string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := f.client()
			if err != nil {
				return err
			}
			path := "/v1/webhooks/" + url.PathEscape(args[0]) + what
			if method == http.MethodDelete {
				res, err := client.call(c.Context(), method, path, nil, nil)
				if err != nil {
					return err
				}
				return res.Body.Close()
			}
			var out struct {
				Secret string `json:"secret,omitempty"`
				ID     string `json:"id,omitempty"`
				rest.WebhookDelivery
			}
			if err := client.json(c.Context(), method, path, nil, &out); err != nil {
				return err
			}
			switch what {
			case "/rotate":
				return a.print(map[string]string{"secret": out.Secret}, "%s\n", out.Secret)
			case "/test":
				return a.print(out.WebhookDelivery, "%d %s\n", out.Status, out.Problem)
			}
			return a.print(map[string]string{"id": out.ID}, "%s\n", out.ID)
		},
	}
}

func (a *app) webhookResend(f *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use: "resend ID MESSAGE", Short: "Send an event of its list once more", Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := f.client()
			if err != nil {
				return err
			}
			var d rest.WebhookDelivery
			path := "/v1/webhooks/" + url.PathEscape(args[0]) + "/deliveries/" + url.PathEscape(args[1]) + "/resend"
			if err := client.json(c.Context(), http.MethodPost, path, nil, &d); err != nil {
				return err
			}
			return a.print(d, "%d %s\n", d.Status, d.Problem)
		},
	}
}
