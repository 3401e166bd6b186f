package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/yizhan-gateway/yizhan/adapters/rest"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// preview shows whom a document would reach and how; it ends as sending it would.
func (a *app) preview(ctx context.Context, client *apiClient, q *rest.SubmitRequest) error {
	var p node.Preview
	if err := client.json(ctx, http.MethodPost, "/v1/documents/preview", q, &p); err != nil {
		return err
	}
	var text strings.Builder
	for i := range p.Recipients {
		text.WriteString(previewLine(&p.Recipients[i]))
	}
	text.WriteString(faultLines("错误 error", p.Errors))
	text.WriteString(faultLines("提醒 warning", p.Warnings))
	if err := a.print(&p, "%s", text.String()); err != nil {
		return err
	}
	return p.Errors.Err()
}

func previewLine(r *node.PreviewRecipient) string {
	line := fmt.Sprintf("%s  %s  %s", map[string]string{"to": "主送", "cc": "抄送"}[r.Role], r.Agency, r.Name)
	if r.Group != "" {
		line += "  ∈ " + r.Group
	}
	for _, hop := range r.Route {
		line += fmt.Sprintf("  → %s (%s)", hop.Node, hop.Kind)
	}
	if r.Approval > 0 {
		line += fmt.Sprintf("  须 %d 人审核 to be approved", r.Approval)
	}
	if r.Refused == "" && !r.Receipts {
		line += "  无回执通道 no receipts come back"
	}
	return line + "\n"
}

func faultLines(what string, list exchange.Faults) string {
	text := ""
	for _, one := range list {
		text += fmt.Sprintf("%s  %s: %s · %s\n", what, one.Field, one.DetailZH, one.Detail)
	}
	return text
}
