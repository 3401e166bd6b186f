package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humamux"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// tagged is an answer with the ETag of what it shows.
type tagged[T any] struct {
	ETag string `header:"ETag" doc:"Stands for the state that is shown; for If-Match"`
	Body T
}

// Unless is an act's condition.
type Unless struct {
	IfMatch string `header:"If-Match" maxLength:"1000" doc:"The ETag of the document as it was looked at: when it has changed since, nothing is done (412)"`
}

func withTag[T any](v T) *tagged[T] {
	return &tagged[T]{etag(v), v}
}

// etag stands for what is shown of a document: the SM3 of its JSON.
func etag(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return "" // none matches
	}
	return `"` + sm.Sum(b).String()[:32] + `"`
}

// met refuses an act whose caller looked at another state. The act decides by itself,
// under the document's lock, so a change between the two is a conflict as ever.
func (u *Unless) met(now func() (any, error)) error {
	if u.IfMatch == "" || u.IfMatch == "*" {
		return nil
	}
	v, err := now()
	if err != nil {
		return err
	}
	have := etag(v)
	for one := range strings.SplitSeq(u.IfMatch, ",") {
		if strings.TrimSpace(one) == have && have != "" {
			return nil
		}
	}
	return exchange.Fail(exchange.CodePrecondition, "the ETag is %s", have)
}

func (s *Server) statusNow(ctx context.Context, id string) func() (any, error) {
	return func() (any, error) {
		t, err := s.c.Node.Trace(ctx, caller(ctx).Agency, id)
		if err != nil {
			return nil, err
		}
		return statusOfTrace(t), nil
	}
}

func (s *Server) itemNow(ctx context.Context, id string) func() (any, error) {
	return func() (any, error) {
		item, err := s.c.Node.InboxItem(ctx, caller(ctx).Agency, id)
		if err != nil {
			return nil, err
		}
		return received(item), nil
	}
}

const keyHeader = "Idempotency-Key"

type keyKey struct{}

// keyOf is the idempotency key that an act came with; empty for none.
func keyOf(ctx context.Context) string {
	key, _ := ctx.Value(keyKey{}).(string)
	return key
}

// keyed lets an act that comes with a key happen under it.
func (s *Server) keyed(ctx huma.Context, next func(huma.Context)) {
	r, w := humamux.Unwrap(ctx)
	if len(r.Header.Values(keyHeader)) == 0 {
		next(ctx)
		return
	}
	k, err := s.beginKeyed(ctx, w, r)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	if k.Replayed {
		w.Header().Set("Idempotent-Replayed", "true")
	}
	defer func() {
		// The act is done, whether its key is remembered or not.
		if err := k.End(context.WithoutCancel(r.Context()), ctx.Status()/100 == 2); err != nil {
			s.c.Logger.Warn("an idempotency key could not be remembered", "error", err)
		}
	}()
	next(huma.WithValue(ctx, keyKey{}, r.Header.Get(keyHeader)))
}

func (s *Server) beginKeyed(ctx huma.Context, w http.ResponseWriter, r *http.Request) (*node.Keyed, error) {
	key, err := idempotencyKey(r)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxJSON))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, err
	case err != nil:
		return nil, exchange.Fail(exchange.CodeBadRequest, "the body ends early")
	}
	r.Body = io.NopCloser(bytes.NewReader(b))
	return s.c.Node.BeginKeyed(r.Context(), caller(ctx.Context()).Agency, key, []byte(r.URL.Path), b)
}

func keyParameter(required bool, about string) *huma.Param {
	return &huma.Param{
		Name: keyHeader, In: "header", Required: required, Description: about,
		Schema: &huma.Schema{Type: huma.TypeString, Examples: []any{"oa-2026-000123"}},
	}
}
