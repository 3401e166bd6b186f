package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// longFile sends a document with a body of many chunks.
func (o *office) longFile(size int) (path, document string, content []byte) {
	o.t.Helper()
	content = make([]byte, size)
	for i := range content {
		content[i] = byte(i * i >> 8)
	}
	a := o.send("long", part{"document", "", o.meta(nil)}, part{"body", "正文.ofd", string(content)})
	if a.status != http.StatusCreated {
		o.t.Fatalf("%d %s", a.status, a.body)
	}
	var r SubmitResult
	o.must(json.Unmarshal(a.body, &r))
	o.settle()
	return "/v1/inbox/" + r.Document + "/files/0", r.Document, content
}

func (o *office) collected(document string) (n int) {
	o.t.Helper()
	var tr node.Trace
	o.must(json.Unmarshal(o.do("jia", http.MethodGet, "/v1/documents/"+document+"/trace", nil, nil).body, &tr))
	for _, e := range tr.Events {
		if e.Stage == exchange.StageCollected {
			n++
		}
	}
	return n
}

// TestRanges: a file comes in whatever pieces are asked for, byte for byte, and
// COLLECTED is signed once, with the first content.
func TestRanges(t *testing.T) {
	o := newOffice(t, 1<<22)
	const size = 1<<20 + 12345
	path, document, content := o.longFile(size)
	etag := fmt.Sprintf(`"sm3-%s"`, sm.Sum(content))

	// What holds no content is no collecting.
	head := o.do("yi", http.MethodHead, path, nil, nil)
	if head.status != 200 || head.header.Get("Content-Length") != fmt.Sprint(size) || head.header.Get("Etag") != etag || head.header.Get("Accept-Ranges") != "bytes" {
		t.Fatalf("HEAD: %d %v", head.status, head.header)
	}
	for _, c := range []struct {
		status int
		header map[string]string
	}{
		{304, map[string]string{"If-None-Match": etag}},
		{412, map[string]string{"If-Match": `"another"`}},
		{416, map[string]string{"Range": fmt.Sprintf("bytes=%d-", size)}},
		{416, map[string]string{"Range": "bytes=x"}},
	} {
		if a := o.do("yi", http.MethodGet, path, nil, c.header); a.status != c.status || bytes.Contains(content, a.body) && len(a.body) > 10 {
			t.Errorf("%v: %d %.80s", c.header, a.status, a.body)
		}
	}
	if n := o.collected(document); n != 0 {
		t.Fatalf("%d COLLECTED before any content left", n)
	}

	for _, c := range []struct {
		ranges   string
		ifRange  string
		status   int
		from, to int
	}{
		{"bytes=0-0", "", 206, 0, 1},
		{"bytes=65519-65521", "", 206, 65519, 65522}, // over the edge of a chunk
		{"bytes=65520-131039", etag, 206, 65520, 131040},
		{"bytes=1000000-", "", 206, 1000000, size},
		{"bytes=-5", "", 206, size - 5, size},
		{fmt.Sprintf("bytes=%d-%d", size-1, 10*size), "", 206, size - 1, size},
		{"bytes=5-9", `"another"`, 200, 0, size},
		{"bytes=5-9", "W/" + etag, 200, 0, size},
		{"lines=5-9", "", 416, 0, 0},
		{"", "", 200, 0, size},
		{"bytes=" + strings.Repeat("0-1,", maxRanges) + "2-3", "", 200, 0, size},
	} {
		header := map[string]string{"Range": c.ranges}
		if c.ifRange != "" {
			header["If-Range"] = c.ifRange
		}
		a := o.do("yi", http.MethodGet, path, nil, header)
		if a.status != c.status || c.status < 300 && !bytes.Equal(a.body, content[c.from:c.to]) {
			t.Errorf("%.40s (If-Range %s): %d, %d bytes", c.ranges, c.ifRange, a.status, len(a.body))
		}
		if want := fmt.Sprintf("bytes %d-%d/%d", c.from, c.to-1, size); c.status == 206 && a.header.Get("Content-Range") != want {
			t.Errorf("%s: Content-Range %s", c.ranges, a.header.Get("Content-Range"))
		}
	}
	o.settle()
	if n := o.collected(document); n != 1 {
		t.Errorf("%d COLLECTED", n)
	}

	a := o.do("yi", http.MethodGet, path, nil, map[string]string{"Range": "bytes=900000-900099,10-19"})
	_, params, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	o.must(err)
	parts := multipart.NewReader(bytes.NewReader(a.body), params["boundary"])
	for _, want := range [][]byte{content[900000:900100], content[10:20]} {
		p, err := parts.NextPart()
		o.must(err)
		if got, err := io.ReadAll(p); err != nil || !bytes.Equal(got, want) {
			t.Errorf("a part of several ranges: %d bytes, %v", len(got), err)
		}
	}
}

// TestRangesOfADamagedFile: what is damaged is never given out, in no piece and
// not as the end of the whole, and is shown; the rest of the file is still good.
func TestRangesOfADamagedFile(t *testing.T) {
	o := newOffice(t, 1<<22)
	const size, bad = 1 << 20, 700000
	path, _, content := o.longFile(size)
	o.must(filepath.WalkDir(filepath.Join(o.dir, "blobs"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || len(b) < size || strings.Contains(path, "segment") {
			return err
		}
		b[bad] ^= 1
		return os.WriteFile(path, b, 0o600)
	}))
	for _, c := range []struct {
		ranges string
		whole  bool
		from   int
		to     int
	}{
		{"bytes=0-599999", true, 0, 600000},
		{"bytes=800000-", true, 800000, size},
		{"bytes=600000-800000", false, 600000, 800001},
		{"", false, 0, size},
	} {
		req, err := http.NewRequest(http.MethodGet, o.url+path, nil)
		o.must(err)
		req.Header.Set("Authorization", "Bearer "+o.keys["yi"])
		if c.ranges != "" {
			req.Header.Set("Range", c.ranges)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil { // cut off before the header
			if c.whole {
				t.Errorf("%s: %v", c.ranges, err)
			}
			continue
		}
		got, err := io.ReadAll(res.Body)
		res.Body.Close()
		if (err == nil) != c.whole || !bytes.HasPrefix(content[c.from:c.to], got) || c.from+len(got) > bad && c.from < bad {
			t.Errorf("%q: %d bytes, %v", c.ranges, len(got), err)
		}
	}
	shown, err := o.node.Quarantined(t.Context(), 10)
	if err != nil || len(shown) != 1 || !strings.HasPrefix(shown[0].What, "document ") {
		t.Errorf("the quarantine has %+v, %v", shown, err)
	}
}
