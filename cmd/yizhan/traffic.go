package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"time"

	"github.com/yizhan-gateway/yizhan/adapters/rest"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// send submits a document and notes its id.
func (d *pair) send(ctx context.Context, from, to *pairNode, title string, files []upload, ids *[]string) error {
	q := &rest.SubmitRequest{Title: title, To: rest.Recipients(string(to.agency)), Label: "内部", Urgency: "加急"}
	sent, err := from.client.submit(ctx, rand.Text(), q, files)
	if err == nil {
		*ids = append(*ids, sent.Document)
	}
	return err
}

// inboxOf counts how often each document lies in an agency's inbox.
func inboxOf(ctx context.Context, n *pairNode) (map[string]int, error) {
	count, after := map[string]int{}, uint64(0)
	for {
		var in inboxList
		if err := n.client.json(ctx, http.MethodGet, fmt.Sprintf("/v1/inbox?after=%d&limit=100", after), nil, &in); err != nil {
			return nil, err
		}
		if len(in.Items) == 0 {
			return count, nil
		}
		for _, item := range in.Items {
			count[item.Document]++
			after = max(after, item.Seq)
		}
	}
}

// arrived waits until all documents are in an inbox.
func (d *pair) arrived(ctx context.Context, n *pairNode, ids []string) error {
	return d.until(ctx, fmt.Sprintf("documents at %s", n.id), func() (int, error) {
		in, err := inboxOf(ctx, n)
		missing := 0
		for _, id := range ids {
			if in[id] == 0 {
				missing++
			}
		}
		return missing, err
	})
}

// settled waits until the sender has a signed receipt for the end of each.
func (d *pair) settled(ctx context.Context, n *pairNode, ids []string) error {
	return d.until(ctx, fmt.Sprintf("receipts at %s", n.id), func() (int, error) {
		missing := 0
		for _, id := range ids {
			t, err := n.client.trace(ctx, id)
			if err != nil && exchange.CodeOf(err) != exchange.CodeNotFound {
				return 0, err
			}
			if err != nil || t.State != exchange.StateSignedFor {
				missing++
			}
		}
		return missing, nil
	})
}

func (d *pair) until(ctx context.Context, what string, missing func() (int, error)) error {
	for end := time.Now().Add(demoPatience); ; {
		n, err := missing()
		if n == 0 || err != nil {
			return err
		}
		if time.Now().After(end) {
			return exchange.Fail(exchange.CodeTemporary, "%d %s are missing after %s", n, what, demoPatience)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (d *pair) signFor(ctx context.Context, n *pairNode, id string) error {
	act := &rest.ActRequest{Actor: rest.Person{Name: "值班员", Role: "文书"}}
	_, err := n.client.act(ctx, id, "accept", act)
	return err
}
