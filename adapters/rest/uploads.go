package rest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gorilla/mux"
	tus "github.com/tus/tusd/v2/pkg/handler"
	"golang.org/x/exp/slog" // what tusd logs with

	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/queue/staging"
)

// Large files come by the tus protocol 1.0 (creation, termination, expiration): any
// number of requests, each going on where the last one that arrived ended. They lie
// sealed in queue/staging until a document names them.

const (
	uploadsPath = "/v1/uploads/"
	// uploadAfter is how long a file stays after a document took it, for a repetition
	// of that request.
	uploadAfter = time.Hour
)

// uploads registers the paths of tus.
func (s *Server) uploads() error {
	if s.c.Staging == nil {
		return nil
	}
	store := stagingStore{s.c.Staging}
	parts := tus.NewStoreComposer()
	parts.UseCore(store)
	parts.UseTerminater(store)
	h, err := tus.NewUnroutedHandler(tus.Config{
		StoreComposer: parts, BasePath: uploadsPath, MaxSize: s.c.Staging.MaxSize(), DisableDownload: true, DisableConcatenation: true,
		Cors: &tus.CorsConfig{Disable: true}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), NetworkTimeout: s.c.Silence,
	})
	if err != nil {
		return err
	}
	handle := func(method, path string, a about, do http.HandlerFunc, fill func(*huma.Operation)) {
		a.tag, a.scopes = tagUploads, []string{ScopeSend}
		s.stream(method, path, a, s.guarded(func(w http.ResponseWriter, r *http.Request) error {
			http.StripPrefix("/v1/uploads", h.Middleware(s.upload(do))).ServeHTTP(w, r)
			return nil
		}, ScopeSend), func(op *huma.Operation) {
			op.Responses["412"] = &huma.Response{Description: "Tus-Resumable is not 1.0.0 · 协议版本不符"}
			fill(op)
		})
	}
	handle(http.MethodPost, "/v1/uploads", about{
		id: "createUpload", en: "Announce a file that comes in pieces", zh: "建立续传", codes: []string{exchange.CodeQuota, exchange.CodeNoSpace},
		notes: "The tus protocol 1.0, with creation, termination and expiration: docs/api/uploads.md.",
	}, h.PostFile, describeCreateUpload)
	one := about{codes: []string{exchange.CodeNotFound}}
	one.id, one.en, one.zh = "headUpload", "How far a file came", "查询续传进度"
	handle(http.MethodHead, "/v1/uploads/{id}", one, h.HeadFile, describeHeadUpload)
	one.id, one.en, one.zh = "patchUpload", "Send the next piece of a file", "续传"
	handle(http.MethodPatch, "/v1/uploads/{id}", one, h.PatchFile, describePatchUpload)
	one.id, one.en, one.zh = "deleteUpload", "Remove a file that no document took", "删除续传"
	handle(http.MethodDelete, "/v1/uploads/{id}", one, h.DelFile, func(op *huma.Operation) {
		op.Parameters, op.Responses["204"] = append(op.Parameters, tusVersion), &huma.Response{Description: "Gone · 已删除"}
	})
	s.stream(http.MethodOptions, "/v1/uploads", about{id: "describeUploads", tag: tagUploads, en: "What of the protocol there is", zh: "续传能力", open: true},
		h.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP, func(op *huma.Operation) {
			op.Responses["200"] = &huma.Response{Description: "Tus-Version, Tus-Extension, Tus-Max-Size · 版本与扩展"}
		})
	return nil
}

var tusVersion = headerParam("Tus-Resumable", "1.0.0")

func describeCreateUpload(op *huma.Operation) {
	op.Parameters = append(op.Parameters, tusVersion, headerParam("Upload-Length", "Bytes of the file"),
		headerParam("Upload-Metadata", "filename and filetype, each in base64"))
	op.Responses["501"] = &huma.Response{Description: "Upload-Defer-Length is not possible: the length is known · 不支持"}
	op.Responses["201"] = &huma.Response{
		Description: "It can come now · 可以上传", Headers: map[string]*huma.Param{"Location": answerHeader("Where its pieces go")},
	}
}

func describeHeadUpload(op *huma.Operation) {
	op.Parameters = append(op.Parameters, tusVersion)
	op.Responses["200"] = &huma.Response{Description: "How far it came · 已收到的字节数", Headers: map[string]*huma.Param{
		"Upload-Offset": answerHeader("Bytes that are durable; go on here"), "Upload-Length": answerHeader("Bytes of the file"),
		"Upload-Expires": answerHeader("When it ends without a new piece"),
	}}
}

func describePatchUpload(op *huma.Operation) {
	op.Parameters = append(op.Parameters, tusVersion, headerParam("Upload-Offset", "Where the file ended"))
	op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"application/offset+octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}},
	}}
	op.Responses["204"] = &huma.Response{
		Description: "It is durable · 已落盘", Headers: map[string]*huma.Param{"Upload-Offset": answerHeader("Where it ends now")},
	}
	for status, what := range map[string]string{
		"409": "Upload-Offset is not where the file ends: ask with HEAD · 偏移不符", "423": "Another request adds to the file · 正在上传",
		"460": "The connection ended · 连接中断",
	} {
		op.Responses[status] = &huma.Response{Description: what}
	}
}

// upload holds what memory an upload may, and says when the file ends.
func (s *Server) upload(do http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch {
			release, err := s.budget.take(r.Context(), caller(r.Context()).Agency, uploadMost, budgetWait)
			if err != nil {
				s.writeError(w, r, err)
				return
			}
			defer release()
		}
		if info, err := s.c.Staging.Info(caller(r.Context()).Agency, mux.Vars(r)["id"]); err == nil {
			w.Header().Set("Upload-Expires", info.Expires.UTC().Format(http.TimeFormat))
		}
		do(w, r)
	})
}

// stagingStore is the store as tus asks it; who asks is in the context.
type stagingStore struct{ s *staging.Store }

type stagedUpload struct {
	s     *staging.Store
	owner string
	id    string
}

func (t stagingStore) NewUpload(ctx context.Context, info tus.FileInfo) (tus.Upload, error) {
	if info.SizeIsDeferred {
		return nil, tusError(exchange.Fail(exchange.CodeBadRequest, "Upload-Length is missing: the size of a file is known before it comes"))
	}
	meta := map[string]string{}
	for _, name := range []string{"filename", "filetype"} {
		if v := info.MetaData[name]; v != "" {
			if len(v) > 1024 {
				return nil, tusError(exchange.Fail(exchange.CodeBadRequest, "Upload-Metadata %s has more than 1024 bytes", name))
			}
			meta[name] = v
		}
	}
	owner := caller(ctx).Agency
	i, err := t.s.Create(owner, info.Size, meta)
	if err != nil {
		return nil, tusError(err)
	}
	return stagedUpload{t.s, owner, i.ID}, nil
}

func (t stagingStore) GetUpload(ctx context.Context, id string) (tus.Upload, error) {
	u := stagedUpload{t.s, caller(ctx).Agency, id}
	_, err := u.GetInfo(ctx)
	return u, err
}

func (t stagingStore) AsTerminatableUpload(u tus.Upload) tus.TerminatableUpload {
	return u.(stagedUpload)
}

func (u stagedUpload) GetInfo(context.Context) (tus.FileInfo, error) {
	i, err := u.s.Info(u.owner, u.id)
	if err != nil {
		return tus.FileInfo{}, tusError(err)
	}
	return tus.FileInfo{ID: i.ID, Size: i.Size, Offset: i.Offset, MetaData: i.Meta}, nil
}

func (u stagedUpload) WriteChunk(ctx context.Context, offset int64, r io.Reader) (int64, error) {
	n, err := u.s.Append(ctx, u.owner, u.id, offset, r)
	return n, tusError(err)
}

func (u stagedUpload) GetReader(context.Context) (io.ReadCloser, error) {
	return nil, tus.ErrNotImplemented
}

func (u stagedUpload) FinishUpload(context.Context) error { return nil }

func (u stagedUpload) Terminate(context.Context) error { return tusError(u.s.Remove(u.owner, u.id)) }

// tusError gives an error the answer it has everywhere else.
func tusError(err error) error {
	var known *exchange.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, staging.ErrNone):
		return tus.ErrNotFound
	case errors.Is(err, staging.ErrOffset):
		return tus.ErrMismatchOffset
	case errors.Is(err, staging.ErrBusy):
		return tus.ErrFileLocked
	case !errors.As(stagingError(err), &known):
		return err
	}
	p := problemOf(known, "en")
	b, _ := json.Marshal(p)
	header := tus.HTTPHeader{"Content-Type": problemMedia}
	if after := p.retryAfter(); after != "" {
		header["Retry-After"] = after
	}
	return tus.Error{ErrorCode: p.Code, Message: p.Title, HTTPResponse: tus.HTTPResponse{StatusCode: p.Status, Body: string(b), Header: header}}
}

// stagingError gives an error of the store a code.
func stagingError(err error) error {
	switch {
	case errors.Is(err, staging.ErrNone):
		return exchange.Fail(exchange.CodeNotFound, "an upload that the document names")
	case errors.Is(err, staging.ErrSize):
		return exchange.Fail(exchange.CodeTooLarge, "a file has from 1 byte up to the size in Tus-Max-Size")
	case errors.Is(err, staging.ErrFull):
		return exchange.Fail(exchange.CodeQuota, "too many uploads are open; finish or delete some")
	case errors.Is(err, staging.ErrUnfinished):
		return exchange.Fail(exchange.CodeUploadUnfinished, "%s", strings.TrimPrefix(err.Error(), "staging: "))
	}
	return err
}

// UploadedFile is a file of a document that came before.
type UploadedFile struct {
	Upload string `json:"upload" doc:"The last part of its address"`
	Role   string `json:"role" enum:"body,attachment" doc:"The first is the body"`
	Name   string `json:"name,omitempty" doc:"absent: filename of its Upload-Metadata"`
	Type   string `json:"type,omitempty" doc:"absent: filetype of its Upload-Metadata"`
}

// UploadedRequest submits a document of files that came before.
type UploadedRequest struct {
	Document SubmitRequest  `json:"document"`
	Files    []UploadedFile `json:"files"`
}

// submitUploaded takes a document of uploads. They are read once, while they are
// sealed for the recipients.
func (s *Server) submitUploaded(w http.ResponseWriter, r *http.Request) error {
	key, err := idempotencyKey(r)
	if err != nil {
		return err
	}
	var q UploadedRequest
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxMetadata))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		return exchange.Fail(exchange.CodeBadRequest, "%s", jsonReason(err))
	}
	agency := caller(r.Context()).Agency
	size, err := s.uploadedSize(agency, q.Files)
	if err != nil {
		return err
	}
	g, err := s.quotas.begin(agency, size, s.c.Node.Now())
	if err != nil {
		return err
	}
	in := q.Document.submission(agency)
	in.IdempotencyKey, in.Trace, in.Files = key, traceParent(r), s.uploaded(agency, q.Files)
	got, err := s.acceptUploaded(r.Context(), in)
	if err == nil && !got.Replayed {
		g.read.Store(size)
	}
	g.end(err == nil && !got.Replayed)
	if err != nil {
		return err
	}
	for _, f := range q.Files {
		// One that stays ends by itself.
		_ = s.c.Staging.Release(agency, f.Upload, uploadAfter)
	}
	return answerSubmission(w, got)
}

func (s *Server) acceptUploaded(ctx context.Context, in node.Submission) (*node.Accepted, error) {
	release, err := s.budget.take(ctx, in.Agency, uploadMost, budgetWait)
	if err != nil {
		return nil, err
	}
	defer release()
	return s.c.Node.Submit(ctx, in)
}

func (s *Server) uploadedSize(agency string, files []UploadedFile) (size int64, err error) {
	if len(files) == 0 || len(files) > envelope.MaxFiles {
		return 0, exchange.Fail(exchange.CodeMissingBody, "files: %d, 1 to %d are possible", len(files), envelope.MaxFiles)
	}
	for i, f := range files {
		if f.Role != envelope.RoleBody && f.Role != envelope.RoleAttachment {
			return 0, exchange.Fail(exchange.CodeBadRequest, "files[%d]: role is body or attachment", i)
		}
		info, err := s.c.Staging.Info(agency, f.Upload)
		if err != nil {
			return 0, stagingError(err)
		}
		if info.Offset != info.Size {
			return 0, exchange.Fail(exchange.CodeUploadUnfinished, "files[%d]: %d of %d bytes are there", i, info.Offset, info.Size)
		}
		size += info.Size
	}
	return size, nil
}

func (s *Server) uploaded(agency string, files []UploadedFile) iter.Seq2[envelope.File, error] {
	return func(yield func(envelope.File, error) bool) {
		for _, f := range files {
			info, content, err := s.c.Staging.Open(agency, f.Upload)
			if err != nil {
				yield(envelope.File{}, stagingError(err))
				return
			}
			media := or(f.Type, or(info.Meta["filetype"], "application/octet-stream"))
			more := yield(envelope.File{Role: f.Role, Name: or(f.Name, info.Meta["filename"]), Type: media, Content: content}, nil)
			_ = content.Close() // it was read, and nothing can be lost
			if !more {
				return
			}
		}
	}
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
