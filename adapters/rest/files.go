package rest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// maxRanges bounds the ranges of one request: each is a seek into the envelope.
// A request with more is answered with the whole file, as RFC 9110 permits.
const maxRanges = 16

// file gives one file of a received document, whole or in ranges (RFC 9110:
// Range, If-Range, If-Match, If-None-Match, HEAD). The envelope is opened where
// a range begins. The ETag is the file's SM3, so that a download can go on
// after any interruption and however often the node was started since.
//
// COLLECTED is signed before the first answer that holds content; asking for
// a file's size, or for what one has already, is no collecting.
func (s *Server) file(w http.ResponseWriter, r *http.Request) error {
	agency, document := caller(r.Context()).Agency, mux.Vars(r)["id"]
	opened, err := s.c.Node.Peek(r.Context(), agency, document)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(mux.Vars(r)["n"])
	if err != nil || n < 0 || n >= len(opened.Manifest.Files) {
		return exchange.Fail(exchange.CodeNotFound, "file %.10q of the document", mux.Vars(r)["n"])
	}
	info := opened.Manifest.Files[n]
	w, release, err := s.takeDownload(w, r, info.Size)
	if err != nil {
		return err
	}
	defer release()
	h := w.Header()
	h.Set("Content-Type", safeMedia(info.Type))
	h.Set("Content-Disposition", "attachment; filename*=UTF-8''"+url.PathEscape(info.Name))
	if item, err := s.c.Node.InboxItem(r.Context(), agency, document); err == nil && traceContext(item.Trace) != "" {
		h.Set("Traceparent", item.Trace)
	}
	h.Set("Yizhan-SM3", info.SM3.String())
	var sha []byte
	if info.Size <= sumUnasked || wantsSHA(r) {
		sha = s.shaOf(r.Context(), opened, n)
	}
	h.Set("Repr-Digest", digestField(sha, info.SM3[:]))
	h.Set("Etag", `"sm3-`+info.SM3.String()+`"`)
	if strings.Count(r.Header.Get("Range"), ",") >= maxRanges {
		r = r.Clone(r.Context())
		r.Header.Del("Range")
	}
	content := &fileContent{ctx: r.Context(), opened: opened, file: n, size: info.Size}
	defer content.close()
	if r.Method == http.MethodGet && hasContent(r, h, content) {
		if err := s.c.Node.Collected(r.Context(), agency, document); err != nil {
			for _, name := range []string{"Content-Disposition", "Yizhan-Sm3", "Etag", "Repr-Digest"} {
				h.Del(name)
			}
			return err
		}
	}
	http.ServeContent(w, r, "", time.Time{}, content)
	if content.err != nil {
		// What has left must not pass for the whole: the connection is cut.
		s.c.Node.ShowUnreadable(context.WithoutCancel(r.Context()), agency, document, content.err)
		s.c.Logger.Error("a document could not be streamed to its end", "document", document, "error", content.err)
		panic(http.ErrAbortHandler)
	}
	return nil
}

// hasContent says whether the answer to a GET will hold bytes of the file: it
// asks for the head of the same answer, which reads none.
func hasContent(r *http.Request, header http.Header, content io.ReadSeeker) bool {
	head := r.Clone(r.Context())
	head.Method = http.MethodHead
	probe := &statusOnly{header: header.Clone()}
	http.ServeContent(probe, head, "", time.Time{}, content)
	return probe.status == http.StatusOK || probe.status == http.StatusPartialContent
}

// statusOnly is an answer of which only the status is kept.
type statusOnly struct {
	header http.Header
	status int
}

func (s *statusOnly) Header() http.Header         { return s.header }
func (s *statusOnly) Write(p []byte) (int, error) { return len(p), nil }
func (s *statusOnly) WriteHeader(status int)      { s.status = status }

// fileContent reads one file of an opened envelope from wherever it is asked
// to. Read from its beginning to its end it gives its last bytes only if the
// whole has the SM3 that the sender signed for; every chunk it gives has opened.
type fileContent struct {
	ctx    context.Context
	opened *envelope.Opened
	file   int
	size   int64
	at     int64
	r      io.ReadCloser // stands at the offset; nil: not opened yet
	err    error         // trouble with reading, not with the client
}

func (f *fileContent) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.at
	case io.SeekEnd:
		offset += f.size
	}
	if offset < 0 || offset > f.size {
		return 0, errors.New("rest: a seek outside the file")
	}
	if offset != f.at {
		f.close()
	}
	f.at = offset
	return offset, nil
}

func (f *fileContent) Read(p []byte) (n int, err error) {
	if f.at == f.size {
		return 0, io.EOF
	}
	if f.r == nil {
		if f.at == 0 {
			f.r, err = f.opened.File(f.ctx, f.file)
		} else {
			f.r, err = f.opened.Section(f.ctx, f.file, f.at)
		}
	}
	if err == nil {
		n, err = f.r.Read(p)
	}
	f.at += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}

func (f *fileContent) close() {
	if f.r != nil {
		_ = f.r.Close() // it was only read
		f.r = nil
	}
}
