package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/rest"
)

// What a sending agency does about a document that it sent.

func (a *app) recallCommand() *cobra.Command {
	return a.askCommand("recall DOCUMENT --name PERSON", "Recall a document that was sent · 撤回", "recall")
}

func (a *app) remindCommand() *cobra.Command {
	return a.askCommand("remind DOCUMENT --name PERSON", "Remind the recipients of a document · 催办", "remind")
}

func (a *app) askCommand(use, short, what string) *cobra.Command {
	var f clientFlags
	var q rest.AskRequest
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if q.Actor.Name == "" {
				return usage("--name PERSON is needed: who asks")
			}
			client, err := f.client()
			if err != nil {
				return err
			}
			var got rest.AskResult
			if err := client.json(c.Context(), http.MethodPost, "/v1/documents/"+url.PathEscape(args[0])+"/"+what, &q, &got); err != nil {
				return err
			}
			return a.print(got, "%s %s: yizhan trace %s\n", got.Document, got.KindZH, got.Document)
		},
	}
	f.add(c)
	c.Flags().StringVar(&q.Actor.Name, "name", "", "name of the person who asks")
	c.Flags().StringVar(&q.Actor.Role, "role", "", "the person's role")
	c.Flags().StringSliceVar(&q.Recipients, "to", nil, "agency codes, separated by commas (default: all recipients)")
	return c
}

func (a *app) resendCommand() *cobra.Command {
	return a.againCommand("resend DOCUMENT", "Send a document again, to whom it did not reach · 重发", "resend",
		"agency codes among its recipients (default: all whose delivery ended without a signature)")
}

func (a *app) supplementCommand() *cobra.Command {
	return a.againCommand("supplement DOCUMENT --to CODE", "Send a document to further recipients · 补发", "supplement",
		"agency codes that the document does not name yet")
}

func (a *app) againCommand(use, short, what, to string) *cobra.Command {
	var f clientFlags
	var q rest.ResendRequest
	var key, expires string
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		Long: short + "\n\nIt is a new document with the same files and metadata, and says which one it relates to.",
		RunE: func(c *cobra.Command, args []string) error {
			if expires != "" {
				at, err := time.Parse(time.RFC3339, expires)
				if err != nil {
					return usage("--expires: a time like 2026-12-31T18:00:00+08:00 is expected")
				}
				q.Expires = &at
			}
			client, err := f.client()
			if err != nil {
				return err
			}
			if key == "" {
				key = "cli-" + rand.Text()
			}
			got, err := client.again(c.Context(), args[0], what, key, &q)
			if err != nil {
				return err
			}
			return a.print(got, "%s\n", got.Document)
		},
	}
	f.add(c)
	c.Flags().StringSliceVar(&q.Recipients, "to", nil, to)
	c.Flags().StringVar(&expires, "expires", "", "when undelivered copies end (default: in 90 days)")
	c.Flags().StringVar(&key, "idempotency-key", "", "repeat with the same key after a doubtful outcome")
	return c
}

func (c *apiClient) again(ctx context.Context, document, what, key string, q *rest.ResendRequest) (*rest.SubmitResult, error) {
	b, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	header := http.Header{"Content-Type": {"application/json"}, "Idempotency-Key": {key}}
	res, err := c.call(ctx, http.MethodPost, "/v1/documents/"+url.PathEscape(document)+"/"+what, strings.NewReader(string(b)), header)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var out rest.SubmitResult
	return &out, json.NewDecoder(res.Body).Decode(&out)
}
