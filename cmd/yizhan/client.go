package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/rest"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// apiClient talks to a node's REST interface as one agency.
type apiClient struct {
	server, key string
	http        *http.Client
}

type clientFlags struct{ server, keyFile string }

func (f *clientFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.server, "server", os.Getenv("YIZHAN_SERVER"), "URL of the node's REST interface (or set YIZHAN_SERVER)")
	c.Flags().StringVar(&f.keyFile, "key-file", "", "file with the API key (or set YIZHAN_KEY)")
}

func (f *clientFlags) client() (*apiClient, error) {
	server := f.server
	if server == "" {
		server = "http://127.0.0.1:8080"
	}
	key := os.Getenv("YIZHAN_KEY")
	if f.keyFile != "" {
		b, err := durable.ReadFile(durable.OS, f.keyFile, 4096)
		if err != nil {
			return nil, err
		}
		key = strings.TrimSpace(string(b))
	}
	if key == "" {
		return nil, exchange.Fail(exchange.CodeUnauthenticated, "no API key: name a file with --key-file or set YIZHAN_KEY")
	}
	return newAPIClient(server, key), nil
}

func newAPIClient(server, key string) *apiClient {
	return &apiClient{strings.TrimSuffix(server, "/"), key, &http.Client{Timeout: 10 * time.Minute}}
}

// call does a request and gives the response of a success; a Problem becomes
// the error it was on the other side.
func (c *apiClient) call(ctx context.Context, method, path string, body io.Reader, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.server+path, body)
	if err != nil {
		return nil, usageError{err}
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	res, err := c.http.Do(req)
	if err != nil {
		return nil, &exchange.Error{Code: exchange.CodeTemporary, Temporary: true, Detail: "the node does not answer", Err: err}
	}
	if res.StatusCode < 300 {
		return res, nil
	}
	defer res.Body.Close()
	var p rest.Problem
	b, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil || json.Unmarshal(b, &p) != nil || p.Code == "" {
		return nil, fmt.Errorf("the server answered %s and not like a Yizhan node", res.Status)
	}
	return nil, &exchange.Error{Code: p.Code, Detail: p.Detail, Temporary: p.Status == http.StatusServiceUnavailable}
}

func (c *apiClient) json(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	header := http.Header{}
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
		header.Set("Content-Type", "application/json")
	}
	res, err := c.call(ctx, method, path, body, header)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return json.NewDecoder(res.Body).Decode(out)
}

// upload is one file of a submission.
type upload struct{ role, path string }

// submit streams a document and its files.
func (c *apiClient) submit(ctx context.Context, key string, q *rest.SubmitRequest, files []upload) (*rest.SubmitResult, error) {
	r, w := io.Pipe()
	form := multipart.NewWriter(w)
	go func() { w.CloseWithError(writeForm(form, q, files)) }()
	header := http.Header{"Content-Type": {form.FormDataContentType()}, "Idempotency-Key": {key}}
	res, err := c.call(ctx, http.MethodPost, "/v1/documents", r, header)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	defer res.Body.Close()
	var out rest.SubmitResult
	return &out, json.NewDecoder(res.Body).Decode(&out)
}

func writeForm(form *multipart.Writer, q *rest.SubmitRequest, files []upload) error {
	b, err := json.Marshal(q)
	if err != nil {
		return err
	}
	p, err := form.CreatePart(textproto.MIMEHeader{
		"Content-Disposition": {`form-data; name="document"`}, "Content-Type": {"application/json"}})
	if err != nil {
		return err
	}
	if _, err := p.Write(b); err != nil {
		return err
	}
	for _, f := range files {
		if err := writeFile(form, f); err != nil {
			return err
		}
	}
	return form.Close()
}

func writeFile(form *multipart.Writer, f upload) error {
	in, err := durable.OpenRegular(f.path)
	if err != nil {
		return err
	}
	defer in.Close()
	p, err := form.CreateFormFile(f.role, filepath.Base(f.path))
	if err != nil {
		return err
	}
	_, err = io.Copy(p, in)
	return err
}

func (a *app) sendCommand() *cobra.Command {
	var f clientFlags
	q := new(rest.SubmitRequest)
	var body, key string
	var attachments, to, cc []string
	var dry bool
	c := &cobra.Command{
		Use: "send --to AGENCY --title TEXT --body FILE", Short: "Send a document · 发送公文", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if body == "" && !dry || q.Title == "" || len(to) == 0 {
				return usage("--to, --title and --body are needed")
			}
			q.To, q.Cc = rest.Recipients(to...), rest.Recipients(cc...)
			if dry {
				client, err := f.client()
				if err != nil {
					return err
				}
				return a.preview(c.Context(), client, q)
			}
			files := []upload{{"body", body}}
			for _, p := range attachments {
				files = append(files, upload{"attachment", p})
			}
			for _, u := range files {
				if _, err := os.Stat(u.path); err != nil {
					return usageError{err}
				}
			}
			client, err := f.client()
			if err != nil {
				return err
			}
			if key == "" {
				key = "cli-" + rand.Text()
			}
			got, err := client.submit(c.Context(), key, q, files)
			if err != nil {
				return err
			}
			if !a.json { // where a script does not take them for the document's id
				fmt.Fprint(a.err, faultLines("提醒 warning", got.Warnings))
			}
			return a.print(got, "%s\n", got.Document)
		},
	}
	f.add(c)
	fl := c.Flags()
	fl.BoolVar(&dry, "dry-run", false, "show whom it would reach and what is wrong, and send nothing; no file is needed")
	fl.StringSliceVar(&to, "to", nil, "main recipients 主送: codes, names, aliases or groups")
	fl.StringSliceVar(&cc, "cc", nil, "those copied 抄送, likewise")
	fl.StringVar(&q.Title, "title", "", "title 标题")
	fl.StringVar(&q.Label, "label", "internal", "public 公开, internal 内部, work_secret 工作秘密")
	fl.StringVar(&q.Urgency, "urgency", "", "normal, urgent 加急, very_urgent 特急; of telegrams 平急, 加急, 特急, 特提")
	fl.StringVar(&q.Kind, "kind", "", "official 公文, information 政务信息, notice 通知, material 资料")
	fl.StringVar(&q.Number, "number", "", "document number 发文字号")
	fl.StringVar(&q.DueAt, "due", "", "sign for by this date 签收时限")
	fl.StringVar(&body, "body", "", "the body file 正文")
	fl.StringArrayVar(&attachments, "attach", nil, "an attachment 附件 (repeatable)")
	fl.StringVar(&key, "idempotency-key", "", "repeat a failed send with the same key and nothing is sent twice")
	return c
}

type inboxList struct {
	Items []rest.Received `json:"items"`
}

func (a *app) inboxCommand() *cobra.Command {
	var f clientFlags
	var after uint64
	var limit, wait int
	c := &cobra.Command{
		Use: "inbox", Short: "List received documents · 收件箱", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := f.client()
			if err != nil {
				return err
			}
			var out inboxList
			path := fmt.Sprintf("/v1/inbox?after=%d&limit=%d&wait=%d", after, limit, wait)
			if err := client.json(c.Context(), http.MethodGet, path, nil, &out); err != nil {
				return err
			}
			text := ""
			for _, i := range out.Items {
				text += fmt.Sprintf("%s  %s  %s  %s  %s\n", i.Document, i.StageZH, i.LabelZH, i.SenderName, i.Title)
			}
			return a.print(out, "%s", text)
		},
	}
	f.add(c)
	c.Flags().Uint64Var(&after, "after", 0, "continue behind this seq")
	c.Flags().IntVar(&limit, "limit", 50, "at most so many")
	c.Flags().IntVar(&wait, "wait", 0, "seconds to wait for a document")
	return c
}

func (a *app) collectCommand() *cobra.Command {
	var f clientFlags
	var dir string
	c := &cobra.Command{
		Use: "collect DOCUMENT --dir DIR", Short: "Fetch a received document's files · 取件", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := f.client()
			if err != nil {
				return err
			}
			paths, err := client.collect(c.Context(), args[0], dir)
			if err != nil {
				return err
			}
			return a.print(map[string]any{"document": args[0], "files": paths}, "%s\n", strings.Join(paths, "\n"))
		},
	}
	f.add(c)
	c.Flags().StringVar(&dir, "dir", ".", "where to write the files; existing ones are never overwritten")
	return c
}

// collect writes all files of a document under their own names, each first
// under a temporary one, so that a file that is there is whole.
func (c *apiClient) collect(ctx context.Context, document, dir string) ([]string, error) {
	var item rest.Received
	if err := c.json(ctx, http.MethodGet, "/v1/inbox/"+url.PathEscape(document), nil, &item); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var paths []string
	for _, f := range item.Files {
		name, err := c.fetch(ctx, root, item.Document, f.Index, f.Name)
		if err != nil {
			return paths, err
		}
		paths = append(paths, filepath.Join(dir, name))
	}
	return paths, nil
}

func (c *apiClient) fetch(ctx context.Context, root *os.Root, document string, index int, name string) (string, error) {
	res, err := c.call(ctx, http.MethodGet, fmt.Sprintf("/v1/inbox/%s/files/%d", document, index), nil, nil)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	temp := ".yizhan-" + rand.Text()
	out, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(out, res.Body)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return "", errors.Join(err, root.Remove(temp))
	}
	for n := 0; ; n++ {
		target := name
		if n > 0 {
			ext := filepath.Ext(name)
			target = fmt.Sprintf("%s (%d)%s", strings.TrimSuffix(name, ext), n, ext)
		}
		err := root.Link(temp, target)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		return target, errors.Join(err, root.Remove(temp))
	}
}

func (a *app) signForCommand() *cobra.Command {
	return a.actCommand("sign-for DOCUMENT --name PERSON", "Sign for a received document · 签收", "accept")
}

func (a *app) returnCommand() *cobra.Command {
	return a.actCommand("return DOCUMENT --name PERSON --reason TEXT", "Return a received document · 退文", "return")
}

func (a *app) actCommand(use, short, what string) *cobra.Command {
	var f clientFlags
	var q rest.ActRequest
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if q.Actor.Name == "" {
				return usage("--name PERSON is needed: who acts")
			}
			client, err := f.client()
			if err != nil {
				return err
			}
			got, err := client.act(c.Context(), args[0], what, &q)
			if err != nil {
				return err
			}
			return a.print(got, "%s %s\n", got.Document, got.StageZH)
		},
	}
	f.add(c)
	c.Flags().StringVar(&q.Actor.Name, "name", "", "name of the person who acts")
	c.Flags().StringVar(&q.Actor.Role, "role", "", "the person's role")
	c.Flags().StringVar(&q.Opinion, "opinion", "", "opinion 意见, sealed to the sender")
	c.Flags().StringVar(&q.Number, "number", "", "receiving number 收文号, sealed to the sender")
	c.Flags().StringVar(&q.Reason, "reason", "", "why it is returned, sealed to the sender")
	return c
}

func (c *apiClient) act(ctx context.Context, document, what string, q *rest.ActRequest) (*rest.ActResult, error) {
	var out rest.ActResult
	err := c.json(ctx, http.MethodPost, "/v1/inbox/"+url.PathEscape(document)+"/"+what, q, &out)
	return &out, err
}
