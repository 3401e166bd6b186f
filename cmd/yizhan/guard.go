package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/control"
	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/guard"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/internal/config"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// guard reads guard.toml; nil when there is none.
func (d dataDir) guard() (*guard.Policies, error) {
	path := d.path(guardFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > config.MaxSize {
		return nil, &config.Error{File: path, Problem: fmt.Sprintf("larger than %d bytes", config.MaxSize), Hint: "is this the right file?"}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return guard.Parse(path, b)
}

// guarded is what the commands of yizhan guard ask a node.
type guarded interface {
	GuardItems(ctx context.Context, link string, limit int) ([]node.GuardItem, error)
	GuardItem(ctx context.Context, id string) (*node.GuardItem, error)
	Approve(ctx context.Context, signed []byte) error
}

type remoteGuard struct{ *control.Client }

func (r remoteGuard) GuardItems(ctx context.Context, link string, limit int) (list []node.GuardItem, err error) {
	v := url.Values{"link": {link}, "limit": {strconv.Itoa(limit)}}
	err = r.Call(ctx, http.MethodGet, "/guard?"+v.Encode(), nil, &list, nil)
	return list, err
}

func (r remoteGuard) GuardItem(ctx context.Context, id string) (*node.GuardItem, error) {
	item := new(node.GuardItem)
	err := r.Call(ctx, http.MethodGet, "/guard/item?"+url.Values{"id": {id}}.Encode(), nil, item, nil)
	return item, err
}

// signedApproval is what an administrator signed.
type signedApproval struct {
	CMS []byte `json:"cms"`
}

func (r remoteGuard) Approve(ctx context.Context, signed []byte) error {
	return r.Call(ctx, http.MethodPost, "/guard/approve", signedApproval{signed}, nil, nil)
}

func (g *gateway) guardRoutes(s *control.Server) {
	s.Handle("GET /guard", func(ctx context.Context, q *control.Request) (any, error) {
		limit, err := strconv.Atoi(q.Query.Get("limit"))
		if err != nil || limit < 1 {
			return nil, exchange.Fail(exchange.CodeBadRequest, "limit must be a positive number")
		}
		return g.node.GuardItems(ctx, q.Query.Get("link"), limit)
	})
	s.Handle("GET /guard/item", func(ctx context.Context, q *control.Request) (any, error) {
		return g.node.GuardItem(ctx, q.Query.Get("id"))
	})
	s.Handle("POST /guard/approve", func(ctx context.Context, q *control.Request) (any, error) {
		var in signedApproval
		if err := q.Decode(&in); err != nil {
			return nil, err
		}
		return nil, g.node.Approve(ctx, in.CMS)
	})
}

func (a *app) onGuard(ctx context.Context, d dataDir, do func(guarded) error) error {
	return a.withNode(ctx, d, withoutKeys,
		func(c *control.Client) error { return do(remoteGuard{c}) },
		func(s *stoppedNode) error { return do(s.node) })
}

func (a *app) guardCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "guard", Short: "See what may pass the boundary, and approve what has to be approved · 边界检查", Args: cobra.NoArgs,
		Long: `What may pass each link of a node stands in guard.toml in its data directory, see
docs/guard.md. It is read when the node starts; check reads it before.`,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.guardCheckCommand(), a.guardListCommand(), a.guardShowCommand(),
		a.guardVerdictCommand("approve", "Approve a document as an administrator · 批准放行", exchange.VerdictApprove),
		a.guardVerdictCommand("refuse", "Refuse a document as an administrator · 不予放行", exchange.VerdictRefuse))
	return c
}

func (a *app) guardListCommand() *cobra.Command {
	f, link, limit := new(queueFlags), "", 0
	c := &cobra.Command{
		Use: "ls --data DIR [--link LINK]", Short: "Show what waits for approval · 待批准的公文", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := f.dir()
			if err == nil && limit < 1 {
				err = usage("--limit must be above 0")
			}
			if err != nil {
				return err
			}
			var out struct {
				Items []node.GuardItem `json:"items"`
			}
			err = a.onGuard(c.Context(), dir, func(g guarded) (err error) {
				out.Items, err = g.GuardItems(c.Context(), link, limit)
				return err
			})
			if err != nil {
				return err
			}
			var text strings.Builder
			for i := range out.Items {
				item := &out.Items[i]
				if item.Damaged {
					fmt.Fprintf(&text, "%s  %s\n", item.ID, both("cannot be read on this node: see yizhan fsck", "本机无法读取，请执行 yizhan fsck"))
					continue
				}
				fmt.Fprintf(&text, "%s  %s  %s → %s  %s  %s  %s\n", item.ID, item.Document, item.Sender, recipientsText(item),
					item.Label.Chinese()+" "+string(item.Label), a.now().Sub(item.Since.Time()).Round(time.Second), countText(item))
			}
			if len(out.Items) == 0 {
				text.WriteString(both("nothing waits for approval", "没有待批准的公文") + "\n")
			}
			return a.print(out, "%s", text.String())
		},
	}
	f.add(c)
	c.Flags().StringVar(&link, "link", "", "only this link")
	c.Flags().IntVar(&limit, "limit", 100, fmt.Sprintf("documents to list, at most %d", node.MaxQueueItems))
	return c
}

func recipientsText(item *node.GuardItem) string {
	text := strings.Join(item.Recipients, " ")
	if more := item.Count - len(item.Recipients); more > 0 {
		text += fmt.Sprintf(" +%d", more)
	}
	return text
}

func countText(item *node.GuardItem) string {
	n := 0
	for _, g := range item.Given {
		if g.Counts && g.Verdict == exchange.VerdictApprove {
			n++
		}
	}
	return both("%d of %d approvals", "已批准 %d/%d", n, item.Needed)
}

func (a *app) guardShowCommand() *cobra.Command {
	f := new(queueFlags)
	c := &cobra.Command{
		Use: "show ID --data DIR", Short: "Show what the header of one says, and who has approved it · 查看待批准的公文", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			dir, err := f.dir()
			if err != nil {
				return err
			}
			var item *node.GuardItem
			err = a.onGuard(c.Context(), dir, func(g guarded) (err error) {
				item, err = g.GuardItem(c.Context(), args[0])
				return err
			})
			if err != nil {
				return err
			}
			return a.print(item, "%s", itemSheet(item, string(dir)))
		},
	}
	f.add(c)
	return c
}

func itemSheet(item *node.GuardItem, dir string) string {
	var b strings.Builder
	row := func(en, zh, value string) { fmt.Fprintf(&b, "%-28s %s\n", en+" · "+zh, value) }
	row("document", "公文", item.Document)
	row("header", "信封头 SM3", item.Header.String())
	row("link", "链路", item.Link+" → "+or(item.Neighbour, "?"))
	row("sender", "发文单位", item.Sender)
	row("recipients", "收文单位", recipientsText(item))
	row("label", "密级", item.Label.Chinese()+" "+string(item.Label))
	row("kind", "类别", item.Kind.Chinese()+" "+string(item.Kind))
	row("urgency", "紧急程度", item.Urgency.Chinese()+" "+string(item.Urgency))
	row("size", "大小", fmt.Sprintf("%d B", item.Size))
	row("created", "成文时间", item.Created.Time().Local().Format(time.DateTime))
	row("expires", "有效期至", item.Expires.Time().Local().Format(time.DateTime))
	row("approvals", "批准", countText(item))
	for _, g := range item.Given {
		not := ""
		switch {
		case g.Damaged:
			not = "  " + both("damaged: to be signed anew", "已损坏，须重新签署")
		case !g.Counts:
			not = "  " + both("does not count", "无效")
		}
		fmt.Fprintf(&b, "  %s %s  %s  %s  %s%s\n", g.Administrator, g.Name, g.Verdict, g.Time.Time().Local().Format(time.DateTime), g.Reason, not)
	}
	b.WriteString(both("next: yizhan guard approve %s --header %s --administrator ID --keys DIR --data %s",
		"下一步：yizhan guard approve %s --header %s --administrator ID --keys DIR --data %s", item.ID, item.Header, dir) + "\n")
	return b.String()
}

// verdictResult is what guard approve and refuse say.
type verdictResult struct {
	ID            string    `json:"id"`
	Document      string    `json:"document"`
	Header        sm.Digest `json:"header"`
	Verdict       string    `json:"verdict"`
	Administrator string    `json:"administrator"`
	Certificate   string    `json:"certificate"`
}

func (a *app) guardVerdictCommand(name, short, verdict string) *cobra.Command {
	f, sign, header, reason := new(queueFlags), new(signFlags), "", ""
	c := &cobra.Command{
		Use: name + " ID --data DIR --header SM3 --administrator ID --keys DIR", Short: short, Args: cobra.ExactArgs(1),
		Long: `Signs, with the administrator's own key, that this document may or may not go over this
link. --header is the SM3 that yizhan guard show printed: what was looked at is what is
signed. With the last approval that the policy asks for the document goes on; one refusal
ends it with REJECTED, and --reason goes to the sender, sealed.`,
		RunE: func(c *cobra.Command, args []string) error {
			dir, err := f.dir()
			switch {
			case err != nil:
				return err
			case sign.administrator == "" || sign.keys == "" || header == "":
				return usage("--administrator ID, --keys DIR and --header SM3 are needed")
			case verdict == exchange.VerdictRefuse && reason == "":
				return usage("--reason TEXT is needed: it is sent to the sender")
			}
			looked, err := sm.ParseDigest(spaceless(header))
			if err != nil {
				return usage("--header: all 64 digits (0-9, a-f) that yizhan guard show printed are needed")
			}
			var out *verdictResult
			err = a.onGuard(c.Context(), dir, func(g guarded) (err error) {
				out, err = a.giveVerdict(c.Context(), g, dir, args[0], looked, sign, exchange.GuardApproval{Verdict: verdict, Administrator: sign.administrator, Reason: reason})
				return err
			})
			if err != nil {
				return err
			}
			return a.print(out, "%s\n", both("%s: %s signed %s", "%s：%s 已签署 %s", out.ID, out.Administrator, verdict))
		},
	}
	f.add(c)
	c.Flags().StringVar(&header, "header", "", "SM3 of the header, as yizhan guard show printed it")
	c.Flags().StringVar(&sign.administrator, "administrator", "", "who signs: the administrator's id in the directory")
	c.Flags().StringVar(&sign.keys, "keys", "", "the administrator's keystore")
	c.Flags().StringVar(&sign.passFile, "passphrase-file", "", "file with the keystore's passphrase (or set "+administratorEnv+" or "+passphraseEnv+")")
	c.Flags().StringVar(&reason, "reason", "", "why; of a refusal it goes to the sender")
	return c
}

func (a *app) giveVerdict(ctx context.Context, g guarded, dir dataDir, id string, looked sm.Digest, f *signFlags, v exchange.GuardApproval) (out *verdictResult, err error) {
	item, err := g.GuardItem(ctx, id)
	if err != nil {
		return nil, err
	}
	if item.Header != looked {
		return nil, exchange.Fail(exchange.CodeGuardApproval, "%s is now the document with header %s, and not the one that --header names", id, item.Header)
	}
	settings, err := dir.settings()
	if err != nil {
		return nil, err
	}
	directory, err := dir.directory(a.now)
	if err != nil {
		return nil, err
	}
	keys, err := f.open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, keys.Close()) }()
	by, err := signerOf(directory, f.administrator, keys, a.now())
	if err != nil {
		return nil, err
	}
	v.Domain, v.Node, v.Link, v.Header, v.Time = directory.Domain(), settings.Node, item.Link, item.Header, strictjson.TimeOf(a.now())
	content, err := v.Marshal()
	if err != nil {
		return nil, err
	}
	signed, err := cms.Sign(certs.Signer(keys, by), content, a.now())
	if err != nil {
		return nil, err
	}
	if err := g.Approve(ctx, signed); err != nil {
		return nil, err
	}
	return &verdictResult{id, item.Document, item.Header, v.Verdict, v.Administrator, certs.Fingerprint(by.DER)}, nil
}

// signerOf is the certificate with which an administrator of the directory can sign
// now: one whose key is held.
func signerOf(d *certs.Directory, administrator string, keys interface{ Has(sm.Digest) bool }, now time.Time) (*certs.Certificate, error) {
	list := d.Administrators()
	i := slices.IndexFunc(list, func(a *certs.Administrator) bool { return a.ID == administrator })
	if i < 0 {
		return nil, exchange.Fail(exchange.CodeGuardApproval, "%.40q is no administrator that the directory names", administrator)
	}
	for k := range list[i].Certificates {
		if c := &list[i].Certificates[k]; keys.Has(c.KeyID) && exchange.MaySign(c, now) == nil {
			return c, nil
		}
	}
	return nil, exchange.Fail(exchange.CodeGuardApproval, "the keystore holds no key of administrator %s with a certificate that is valid and not revoked", administrator)
}
