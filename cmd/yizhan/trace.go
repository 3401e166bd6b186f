package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/evidence"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

func (a *app) traceCommand() *cobra.Command {
	var f clientFlags
	var proof string
	c := &cobra.Command{
		Use: "trace DOCUMENT", Short: "Show every stage of a document · 流转轨迹", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := f.client()
			if err != nil {
				return err
			}
			t, err := client.trace(c.Context(), args[0])
			if err != nil {
				return err
			}
			if proof != "" {
				if err := client.evidence(c.Context(), args[0], proof); err != nil {
					return err
				}
			}
			return a.print(t, "%s", timeline(t))
		},
	}
	f.add(c)
	c.Flags().StringVar(&proof, "evidence", "", "also write the proof file, which yizhan verify checks offline")
	return c
}

func (c *apiClient) trace(ctx context.Context, document string) (*node.Trace, error) {
	var t node.Trace
	err := c.json(ctx, http.MethodGet, "/v1/documents/"+url.PathEscape(document)+"/trace", nil, &t)
	return &t, err
}

func (c *apiClient) evidence(ctx context.Context, document, path string) error {
	res, err := c.call(ctx, http.MethodGet, "/v1/documents/"+url.PathEscape(document)+"/evidence", nil, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, evidence.MaxFile+1))
	if err != nil {
		return err
	}
	return durable.WriteFile(durable.OS, path, b)
}

// timeline is a trace for a person, in Chinese and English.
func timeline(t *node.Trace) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s %s\n", t.Document, t.State.Chinese(), t.State.English())
	if t.Title != "" {
		fmt.Fprintf(&b, "%s\n", t.Title)
	}
	for _, e := range t.Events {
		fmt.Fprintf(&b, "  %s  %-6s %-14s %s\n", e.Time.Time().Local().Format("15:04:05.000"), e.Chinese, e.English, eventLine(&e))
	}
	for _, r := range t.Requests {
		fmt.Fprintf(&b, "  %s  %-6s %-14s %s\n", r.Time.Time().Local().Format("15:04:05.000"), r.Chinese, r.English, requestLine(&r))
	}
	for _, r := range t.Recipients {
		fmt.Fprintf(&b, "  → %s %s: %s %s\n", r.Agency, r.Name, r.Stage.ChineseFor(r.Reason), r.Stage.EnglishFor(r.Reason))
	}
	fmt.Fprintf(&b, "  %d 份回执 receipts: %s; 台账 ledger: %s\n", t.Receipts, verdict(t.ReceiptsVerified), verdict(t.LedgerVerified))
	return b.String()
}

func requestLine(r *node.RequestLine) string {
	line := fmt.Sprintf("请求 request, %d 个单位 agencies", len(r.Recipients))
	if r.Actor != nil {
		line = r.Actor.Name + " " + line
	}
	return line
}

func eventLine(e *node.Event) string {
	var parts []string
	if e.AgencyName != "" {
		parts = append(parts, e.AgencyName)
	} else {
		parts = append(parts, "节点 node "+e.Node)
	}
	if e.Actor != nil {
		parts = append(parts, e.Actor.Name)
	}
	if e.Reason != "" {
		parts = append(parts, strings.TrimSpace(e.ReasonZH+" "+e.ReasonEN+" ("+e.Reason+")"))
	}
	if e.Detail != nil {
		parts = append(parts, strings.TrimSpace(e.Detail.Opinion+" "+e.Detail.Number+" "+e.Detail.Reason))
	}
	if !e.Verified {
		parts = append(parts, "✗ 未通过验证 NOT VERIFIED")
	}
	return strings.Join(parts, " · ")
}

func verdict(ok bool) string {
	if ok {
		return "已验证 verified"
	}
	return "未通过 NOT VERIFIED"
}

func (a *app) verifyCommand() *cobra.Command {
	var authority, relabel string
	c := &cobra.Command{
		Use: "verify EVIDENCE [FILE...]", Short: "Verify a proof file, and received files against it, offline · 离线验证",
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			v, err := openEvidence(args[0], authority)
			if err != nil {
				return err
			}
			report, err := v.verify(args[1:])
			if err != nil {
				return err
			}
			text := reportText(report)
			if relabel != "" {
				names, err := v.relabel(relabel)
				if err != nil {
					return err
				}
				text += fmt.Sprintf("  已导出 exported: %d files in %s (RFC 5652; docs/verify-with-other-tools.md)\n", len(names), relabel)
			}
			if err := a.print(report, "%s", text); err != nil {
				return err
			}
			if !report.OK() {
				return exchange.Fail(exchange.CodeSignatureInvalid, "%d problems", len(report.Problems))
			}
			return nil
		},
	}
	c.Flags().StringVar(&authority, "authority", "", "the authority's certificate, PEM, from a source you trust")
	c.Flags().StringVar(&relabel, "relabel", "", "also write the signed objects as RFC 5652 CMS into this new `folder`, for other tools")
	return c
}

func verifyFiles(path, authority string, files []string) (*evidence.Report, error) {
	v, err := openEvidence(path, authority)
	if err != nil {
		return nil, err
	}
	return v.verify(files)
}

// openedEvidence is an evidence file with the authority's certificate that the
// user trusts, nil without one.
type openedEvidence struct{ file, trusted []byte }

func openEvidence(path, authority string) (*openedEvidence, error) {
	b, err := durable.ReadFile(durable.OS, path, evidence.MaxFile)
	if os.IsNotExist(err) {
		return nil, exchange.Fail(exchange.CodeNotFound, "file %s", path)
	}
	if err != nil {
		return nil, err
	}
	v := &openedEvidence{file: b}
	if authority != "" {
		if v.trusted, err = certs.ReadCertificate(authority); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// relabel writes the signed objects for other tools; it gives the names written.
func (v *openedEvidence) relabel(dir string) ([]string, error) {
	f, err := evidence.Parse(v.file)
	if err != nil {
		return nil, err
	}
	return f.WriteRelabelled(dir, v.trusted)
}

func (v *openedEvidence) verify(files []string) (*evidence.Report, error) {
	var delivered []evidence.Delivered
	for _, name := range files {
		d, err := sumFile(name)
		if err != nil {
			return nil, err
		}
		delivered = append(delivered, d)
	}
	return evidence.Verify(v.file, v.trusted, delivered)
}

func sumFile(name string) (evidence.Delivered, error) {
	f, err := durable.OpenRegular(name)
	if err != nil {
		return evidence.Delivered{}, err
	}
	defer f.Close()
	h := sm.New()
	n, err := io.Copy(h, f)
	return evidence.Delivered{Name: name, Size: n, SM3: sm.Digest(h.Sum(nil))}, err
}

func reportText(r *evidence.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s %s\n", r.Document, r.Sender, r.SenderName)
	fmt.Fprintf(&b, "  %s %s\n", r.State.Chinese(), r.State.English())
	for _, s := range r.Recipients {
		fmt.Fprintf(&b, "  → %s %s: %s %s\n", s.Agency, s.Name, s.Stage.ChineseFor(s.Reason), s.Stage.EnglishFor(s.Reason))
	}
	fmt.Fprintf(&b, "  %d 份回执 receipts: %s\n  台账 ledger: %s\n", r.Receipts, verdict(r.ReceiptsVerified), verdict(r.LedgerVerified))
	if r.Timestamp != "" {
		fmt.Fprintf(&b, "  时间戳证明不晚于 a timestamp proves all of it to be no later than %s\n", r.Timestamp)
	} else if r.TimePending {
		fmt.Fprintf(&b, "  时间戳待补 time-pending: export again when the timestamp authority has answered\n")
	}
	if r.BytesMatch {
		fmt.Fprintf(&b, "  文件与封装时一致 the files are those that were sealed\n")
	}
	if !r.AuthorityTrusted {
		fmt.Fprintf(&b, "  名录机构指纹未核对 compare the authority's fingerprint yourself: %s\n", r.Authority)
	}
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "  ✗ %s\n", p)
	}
	return b.String()
}
