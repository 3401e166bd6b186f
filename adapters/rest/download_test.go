package rest

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// TestDownloadsAreBounded: one that finds no room is told to come again; what a
// reader holds comes back when it ends, and when it goes silent in the middle.
func TestDownloadsAreBounded(t *testing.T) {
	o := newOfficeWith(t, Config{Silence: 300 * time.Millisecond})
	body := strings.Repeat("x", 24<<20) // more than the kernel keeps for a reader
	a := o.send("long", part{"document", "", o.meta(nil)}, part{"body", "正文.ofd", body})
	if a.status != http.StatusCreated {
		t.Fatalf("%d %s", a.status, a.body)
	}
	id := strings.Split(a.header.Get("Location"), "/")[3]
	o.settle()
	o.rest.downloads = newBudget("downloads", downloadWeight(int64(len(body))), 1<<40)
	release, err := o.rest.downloads.take(t.Context(), "other", downloadWeight(1), 0)
	o.must(err)
	if a := o.do("yi", http.MethodGet, "/v1/inbox/"+id+"/files/0", nil, nil); a.status != 503 || a.problem().Code != exchange.CodeTemporary || a.header.Get("Retry-After") == "" {
		t.Fatalf("without room: %d %v", a.status, a.header)
	}
	release()

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, o.url+"/v1/inbox/"+id+"/files/0", nil)
	o.must(err)
	req.Header.Set("Authorization", "Bearer "+o.keys["yi"])
	silent, err := http.DefaultClient.Do(req)
	o.must(err)
	defer silent.Body.Close()
	if _, err := io.ReadFull(silent.Body, make([]byte, 1<<10)); err != nil {
		t.Fatal(err)
	}
	// Its place is free only after it was cut off.
	if a := o.do("yi", http.MethodGet, "/v1/inbox/"+id+"/files/0", nil, nil); a.status != http.StatusOK || len(a.body) != len(body) {
		t.Fatalf("after the silent one: %d, %d bytes", a.status, len(a.body))
	}
	if _, err := io.Copy(io.Discard, silent.Body); err == nil {
		t.Error("the silent one has the whole file")
	}
}
