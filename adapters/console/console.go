// Package console serves pages for people. In this version there is one: the
// read-only timeline of a document, which refreshes itself.
package console

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"html/template"
	"net/http"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange/node"
)

//go:embed page.html page.css page.js
var files embed.FS

var page = template.Must(template.New("page.html").Funcs(template.FuncMap{
	"clock": func(e node.Event) string { return e.Time.Time().Local().Format("15:04:05.000") },
}).ParseFS(files, "page.html"))

// Source gives the trace to show, as it is now.
type Source func(ctx context.Context) (*node.Trace, error)

// New makes the handler: GET / is the page, /trace.json what it shows.
// Nothing else is answered, nothing can be changed.
func New(source Source) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, source, renderPage, "text/html; charset=utf-8")
	})
	mux.HandleFunc("GET /trace.json", func(w http.ResponseWriter, r *http.Request) { serve(w, r, source, renderJSON, "application/json") })
	mux.HandleFunc("GET /page.css", asset("page.css", "text/css; charset=utf-8"))
	mux.HandleFunc("GET /page.js", asset("page.js", "text/javascript; charset=utf-8"))
	return headers(mux)
}

func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func asset(name, media string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		b, err := files.ReadFile(name)
		if err != nil {
			http.Error(w, "missing", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", media)
		_, _ = w.Write(b) // the client is gone if this fails
	}
}

type render func(*bytes.Buffer, *node.Trace) error

func renderPage(b *bytes.Buffer, t *node.Trace) error { return page.Execute(b, t) }
func renderJSON(b *bytes.Buffer, t *node.Trace) error { return json.NewEncoder(b).Encode(t) }

func serve(w http.ResponseWriter, r *http.Request, source Source, fn render, media string) {
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	t, err := source(ctx)
	if err != nil {
		http.Error(w, "节点没有应答 the node does not answer", http.StatusBadGateway)
		return
	}
	var b bytes.Buffer
	if err := fn(&b, t); err != nil {
		http.Error(w, "页面无法生成 the page cannot be made", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", media)
	_, _ = w.Write(b.Bytes()) // the client is gone if this fails
}
