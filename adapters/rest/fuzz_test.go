package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// FuzzRequests sends any body to every route that takes one: the answer is a
// result, or a problem with a code of the public list, and never a fault of
// the server.
func FuzzRequests(f *testing.F) {
	o := newOffice(f, 1<<20)
	document := o.sent("fuzz")
	body, contentType := form([]part{{"document", "", o.meta(nil)}, {"body", "a.ofd", "content"}})
	targets := []struct{ who, path, media string }{
		{"jia", "/v1/documents", contentType},
		{"yi", "/v1/inbox/" + document + "/accept", "application/json"},
		{"yi", "/v1/inbox/" + document + "/return", "application/json"},
	}
	f.Add(uint(0), body)
	f.Add(uint(0), body[:len(body)/2])
	f.Add(uint(0), bytes.Replace(body, []byte("内部"), []byte("机密"), 1))
	f.Add(uint(1), []byte(`{"actor":{"role":"机要员","name":"王伟"},"opinion":"已阅"}`))
	f.Add(uint(2), []byte(`{"actor":{"name":1}}`))
	n := 0
	f.Fuzz(func(t *testing.T, i uint, b []byte) {
		to := targets[i%uint(len(targets))]
		n++
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, to.path, bytes.NewReader(b))
		r.Header.Set("Authorization", "Bearer "+o.keys[to.who])
		r.Header.Set("Content-Type", to.media)
		r.Header.Set("Idempotency-Key", fmt.Sprint("fuzz ", os.Getpid(), n))
		w := httptest.NewRecorder()
		o.handler.ServeHTTP(w, r)
		if w.Code < 300 {
			return
		}
		var p Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code >= 500 || p.Code == "" || p.Status != w.Code {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	})
}

// FuzzKeyRing: a damaged file of API keys is an error, and lets nobody in.
func FuzzKeyRing(f *testing.F) {
	f.Add([]byte(`[{"id":"00000001","agency":"x","scopes":["send"],"hash":"` + fmt.Sprintf("%064d", 0) + `","created":"2026-11-23T08:00:00Z"}]`))
	f.Add([]byte(`[]`))
	f.Add([]byte(`[{"hash":null}]`))
	path := filepath.Join(f.TempDir(), "api-keys.json")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := OpenKeyRing(path)
		if err != nil {
			return
		}
		list, err := k.List()
		if err != nil {
			t.Fatal(err)
		}
		for range list {
			if _, err := k.find("yzk_nobody has this secret", time.Now()); err == nil {
				t.Fatal("somebody without a key was let in")
			}
		}
	})
}

// FuzzDigests: whatever a digest header says, a body is held against known names
// only, with values of their size, and a body without one of them always passes.
func FuzzDigests(f *testing.F) {
	f.Add("sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:", []byte(""))
	f.Add("unixsum=:AA==:, sm3=:GrIdg1XPoX+OYRlIMegajyK+yMco/vt0ftA161CCqis=:", []byte(""))
	f.Add("sm3=::,", []byte("x"))
	f.Fuzz(func(t *testing.T, header string, body []byte) {
		e, err := digestsOf(http.Header{"Content-Digest": {header}})
		if err != nil || e == nil {
			return
		}
		for name, sum := range e.want {
			if digesters[name] == nil || len(sum) != digesters[name]().Size() {
				t.Fatalf("%s with %d bytes", name, len(sum))
			}
		}
		e.write(body)
		if err := e.check("it"); err != nil && len(e.want) == 0 {
			t.Fatal(err)
		}
	})
}
