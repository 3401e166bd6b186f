package rest

import (
	"errors"
	"io"
	"iter"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"

	"github.com/gorilla/mux"

	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
)

func idempotencyKey(r *http.Request) (string, error) {
	key := r.Header.Get("Idempotency-Key")
	return key, checkKey(key)
}

func checkKey(key string) error {
	if key == "" {
		return exchange.Fail(exchange.CodeIdempotencyMissing, "")
	}
	printable := strings.IndexFunc(key, func(c rune) bool { return c < 0x20 || c > 0x7e }) < 0
	if len(key) > 255 || !printable {
		return exchange.Fail(exchange.CodeIdempotencyMissing, "1 to 255 printable ASCII characters are expected")
	}
	return nil
}

// traceParent is the W3C trace context a caller sent, if it looks like one.
func traceParent(r *http.Request) string { return traceContext(r.Header.Get("Traceparent")) }

func traceContext(t string) string {
	if len(t) == 55 && strings.Count(t, "-") == 3 {
		return t
	}
	return ""
}

// uploadError tells a broken or oversized upload from a fault of ours.
func uploadError(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return exchange.Fail(exchange.CodeTooLarge, "at most %d bytes are possible", tooLarge.Limit)
	}
	return &exchange.Error{Code: exchange.CodeBadMultipart, Detail: "the body ends early or its boundaries are broken", Err: err}
}

// files yields the parts behind the metadata as they arrive. A broken upload
// is an error of the part it breaks in and never looks like its end.
func files(parts *multipart.Reader) iter.Seq2[envelope.File, error] {
	return func(yield func(envelope.File, error) bool) {
		for {
			p, err := parts.NextPart()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(envelope.File{}, uploadError(err))
				return
			}
			f, err := fileOf(p)
			if !yield(f, err) || err != nil {
				return
			}
		}
	}
}

func fileOf(p *multipart.Part) (envelope.File, error) {
	role := map[string]string{"body": envelope.RoleBody, "attachment": envelope.RoleAttachment}[p.FormName()]
	if role == "" {
		return envelope.File{}, exchange.Fail(exchange.CodeBadMultipart, "a part is named neither body nor attachment")
	}
	if p.FileName() == "" {
		return envelope.File{}, exchange.Fail(exchange.CodeBadMultipart, "a part %s has no filename", p.FormName())
	}
	media := p.Header.Get("Content-Type")
	if media == "" {
		media = "application/octet-stream"
	}
	return envelope.File{Role: role, Name: p.FileName(), Type: media, Content: upload{p}}, nil
}

type upload struct{ r io.Reader }

func (u upload) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if err != nil && err != io.EOF {
		err = uploadError(err)
	}
	return n, err
}

func (s *Server) receipt(w http.ResponseWriter, r *http.Request) error {
	id, err := sm.ParseDigest(mux.Vars(r)["receipt"])
	if err != nil {
		return exchange.Fail(exchange.CodeBadRequest, "a receipt is named by 64 hex digits")
	}
	b, err := s.c.Node.Receipt(r.Context(), caller(r.Context()).Agency, mux.Vars(r)["id"], id)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/pkcs7-mime; smime-type=signed-data")
	_, err = w.Write(b)
	return err
}

func (s *Server) evidence(w http.ResponseWriter, r *http.Request) error {
	w, release, err := s.takeDownload(w, r, downloadMost)
	if err != nil {
		return err
	}
	defer release()
	w.Header().Set("Content-Disposition", `attachment; filename="evidence.json"`)
	w.Header().Set("Content-Type", "application/json")
	return s.c.Node.Evidence(r.Context(), caller(r.Context()).Agency, mux.Vars(r)["id"], w)
}

// safeMedia keeps a sender's media type from carrying more than that.
func safeMedia(t string) string {
	if media, _, err := mime.ParseMediaType(t); err == nil && strings.Count(media, "/") == 1 {
		return media
	}
	return "application/octet-stream"
}
