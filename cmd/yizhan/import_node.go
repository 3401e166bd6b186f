package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"time"

	"github.com/yizhan-gateway/yizhan/adapters/fileshare"
	"github.com/yizhan-gateway/yizhan/adapters/rest"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// importNode is the node of an import: its REST interface, as one agency uses it.
type importNode struct{ *apiClient }

// answerPatience is how long a node may take for an answer once it has all of a document.
const answerPatience = 10 * time.Minute

// askFirst is from how many bytes on a node is asked before the body goes: one that will
// not have it says so, instead of cutting the connection.
const askFirst = 256 << 10

// newImportNode keeps a connection for each of those who submit side by side.
func newImportNode(server, key string, parallel int) importNode {
	c := newAPIClient(server, key)
	c.http = &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, ResponseHeaderTimeout: answerPatience, MaxIdleConns: parallel, MaxIdleConnsPerHost: parallel, IdleConnTimeout: time.Minute,
		WriteBufferSize: 32 << 10, TLSHandshakeTimeout: 10 * time.Second, ExpectContinueTimeout: 5 * time.Second,
	}}
	return importNode{c}
}

// Find implements fileshare.Submitter.
func (n importNode) Find(ctx context.Context, text string) ([]fileshare.Agency, error) {
	const most = 500
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.server+"/v1/directory/agencies?"+url.Values{"q": {text}, "limit": {strconv.Itoa(most)}}.Encode(), nil)
	if err != nil {
		return nil, err
	}
	var got struct{ Items []rest.AgencyLine }
	if err := n.do(req, &got); err != nil {
		return nil, err
	}
	out := make([]fileshare.Agency, len(got.Items))
	for i, a := range got.Items {
		out[i] = fileshare.Agency{Code: a.Code, Name: a.Name, Aliases: a.Aliases}
	}
	return out, nil
}

// Submit implements fileshare.Submitter.
func (n importNode) Submit(ctx context.Context, key string, d *exchange.Document, files []fileshare.File) (string, error) {
	form, err := newImportForm(d, files)
	if err != nil {
		return "", err
	}
	defer form.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.server+"/v1/documents", form)
	if err != nil {
		return "", err
	}
	req.ContentLength = form.size
	req.Header.Set("Content-Type", form.contentType)
	req.Header.Set("Idempotency-Key", key)
	if form.size > askFirst {
		req.Header.Set("Expect", "100-continue")
	}
	var got rest.SubmitResult
	err = n.do(req, &got)
	if err == nil && got.Document == "" {
		err = &fileshare.Busy{Err: errors.New("its answer names no document")}
	}
	return got.Document, err
}

// do asks the node, and tells what is wrong with a document from what will pass, and
// from what is wrong with the settings.
func (n importNode) do(req *http.Request, out any) error {
	req.Header.Set("Authorization", "Bearer "+n.key)
	res, err := n.http.Do(req)
	if err != nil {
		return &fileshare.Busy{Err: &exchange.Error{Code: exchange.CodeTemporary, Temporary: true, Detail: "the node does not answer", Err: err}}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 4<<20))
	if err != nil {
		return &fileshare.Busy{Err: err}
	}
	if res.StatusCode < 300 {
		if json.Unmarshal(b, out) != nil {
			return &fileshare.Busy{Err: errors.New("the node's answer is cut")}
		}
		return nil
	}
	return importProblem(res, b)
}

func importProblem(res *http.Response, b []byte) error {
	var p rest.Problem
	if json.Unmarshal(b, &p) != nil {
		p = rest.Problem{}
	}
	said := &exchange.Error{Code: p.Code, Detail: p.Detail}
	switch status := res.StatusCode; {
	case status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || p.Code == exchange.CodeIdempotencyInUse:
		if p.Code == "" {
			said = exchange.Fail(exchange.CodeTemporary, "the server answered %s", res.Status)
		}
		return &fileshare.Busy{After: retryAfter(res.Header), Err: said}
	case p.Code == "":
		return fmt.Errorf("the server answered %s and not like a Yizhan node", res.Status)
	case status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusNotFound:
		return said
	}
	return &fileshare.Refused{Code: p.Code, Detail: p.Detail}
}

func retryAfter(h http.Header) time.Duration {
	if n, err := strconv.Atoi(h.Get("Retry-After")); err == nil && n >= 0 && n < 1<<20 {
		return time.Duration(n) * time.Second
	}
	return 0
}

// importForm is the body of a submission: its length is known, and each file is opened
// when its turn comes.
type importForm struct {
	size        int64
	contentType string
	parts       []func() (io.ReadCloser, error)
	now         io.ReadCloser
}

func newImportForm(d *exchange.Document, files []fileshare.File) (*importForm, error) {
	b, err := json.Marshal(importRequest(d))
	if err != nil {
		return nil, err
	}
	form := &importForm{}
	var text bytes.Buffer
	w := multipart.NewWriter(&text)
	form.contentType = w.FormDataContentType()
	p, err := w.CreatePart(textproto.MIMEHeader{"Content-Disposition": {`form-data; name="document"`}, "Content-Type": {"application/json"}})
	if err != nil {
		return nil, err
	}
	if _, err := p.Write(b); err != nil {
		return nil, err
	}
	for _, f := range files {
		if _, err := w.CreateFormFile(f.Role, f.Name); err != nil {
			return nil, err
		}
		form.between(&text)
		form.size += f.Size
		form.parts = append(form.parts, f.Open)
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	form.between(&text)
	return form, nil
}

// between adds what stands between two files.
func (f *importForm) between(text *bytes.Buffer) {
	b := bytes.Clone(text.Bytes())
	text.Reset()
	f.size += int64(len(b))
	f.parts = append(f.parts, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil })
}

// Read implements io.Reader.
func (f *importForm) Read(p []byte) (int, error) {
	for {
		if f.now == nil {
			if len(f.parts) == 0 {
				return 0, io.EOF
			}
			next, err := f.parts[0]()
			if err != nil {
				return 0, err
			}
			f.now, f.parts = next, f.parts[1:]
		}
		n, err := f.now.Read(p)
		if errors.Is(err, io.EOF) {
			f.now.Close()
			f.now, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Close implements io.Closer.
func (f *importForm) Close() error {
	if f.now == nil {
		return nil
	}
	return f.now.Close()
}

// importUrgency is the grade of a telegram as it stands on the document, else the word
// of its lane.
func importUrgency(d *exchange.Document) string { return or(d.UrgencyMark, string(d.Urgency)) }

func importRequest(d *exchange.Document) *rest.SubmitRequest {
	named := func(list []exchange.Addressee) (out []rest.Recipient) {
		for _, a := range list {
			out = append(out, rest.Recipient{Agency: a.Agency})
		}
		return out
	}
	q := &rest.SubmitRequest{
		Title: d.Title, To: named(d.To), Cc: named(d.Cc), Label: string(d.Label), LabelTerm: d.LabelTerm,
		Kind: string(d.Kind), Urgency: importUrgency(d), DocType: d.DocType, IssuerMark: d.IssuerMark, Signatory: d.Signatory,
		SignedBy: d.SignedBy, WrittenOn: d.WrittenOn, AttachmentNote: d.AttachmentNote, Remark: d.Remark,
		ReleaseScope: d.ReleaseScope, Contact: d.Contact, DueAt: d.DueAt,
	}
	if d.Number != nil {
		q.Number = d.Number.Display
	}
	return q
}
