package rest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/queue/staging"
)

var uploadMiB = flag.Int64("uploadmib", 24, "MiB of the upload that is interrupted 20 times")

// rows seals what is staged, as the node's keystore would.
type rows struct{}

func (rows) SealRow(row, plain []byte) ([]byte, error) {
	aead, err := sm.NewGCM(make([]byte, 16))
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, make([]byte, 12), plain, row), nil
}

func (rows) OpenRow(row, sealed []byte) ([]byte, error) {
	aead, err := sm.NewGCM(make([]byte, 16))
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, make([]byte, 12), sealed, row)
}

func stagingAt(t testing.TB, dir string) *staging.Store {
	t.Helper()
	store, err := staging.Open(staging.Config{Dir: dir, Sealer: rows{}, MaxSize: 2 << 30, MaxFiles: 5, Keep: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// upload makes one and gives its path.
func (o *office) upload(who string, size int64, name string) string {
	o.t.Helper()
	a := o.do(who, http.MethodPost, "/v1/uploads", nil, map[string]string{
		"Tus-Resumable": "1.0.0", "Upload-Length": strconv.FormatInt(size, 10),
		"Upload-Metadata": "filename " + base64.StdEncoding.EncodeToString([]byte(name)),
	})
	if a.status != http.StatusCreated {
		o.t.Fatalf("%d %s", a.status, a.body)
	}
	_, path, _ := strings.Cut(a.header.Get("Location"), "/v1/")
	return "/v1/" + path
}

func (o *office) offset(who, path string) int64 {
	o.t.Helper()
	a := o.do(who, http.MethodHead, path, nil, map[string]string{"Tus-Resumable": "1.0.0"})
	n, err := strconv.ParseInt(a.header.Get("Upload-Offset"), 10, 64)
	if a.status != http.StatusOK || err != nil || a.header.Get("Upload-Expires") == "" {
		o.t.Fatalf("%d %v %v", a.status, a.header, err)
	}
	return n
}

func patch(at int64) map[string]string {
	return map[string]string{"Tus-Resumable": "1.0.0", "Upload-Offset": strconv.FormatInt(at, 10), "Content-Type": "application/offset+octet-stream"}
}

func (o *office) submitUploads(who, key, to string, paths ...string) *answer {
	o.t.Helper()
	var files []map[string]string
	for i, p := range paths {
		files = append(files, map[string]string{"upload": p[strings.LastIndex(p, "/")+1:], "role": []string{"body", "attachment"}[min(i, 1)]})
	}
	b, err := json.Marshal(map[string]any{"document": json.RawMessage(o.meta(map[string]any{"to": []string{to}})), "files": files})
	o.must(err)
	return o.do(who, http.MethodPost, "/v1/documents", bytes.NewReader(b), map[string]string{"Content-Type": "application/json", "Idempotency-Key": key})
}

// breaking is a body that ends in the middle, like its line, and counts what was
// read of it.
type breaking struct {
	r    io.Reader
	left int64
	sent *int64
}

func (b *breaking) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("the line broke")
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	*b.sent += int64(n)
	return n, err
}

// original is the same bytes whenever it is read, from any place on.
type original struct{ size, at int64 }

func (c *original) Read(p []byte) (int, error) {
	if c.at >= c.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), c.size-c.at))
	for i := range n {
		p[i] = byte((c.at + int64(i)) * 2654435761 >> 13)
	}
	c.at += int64(n)
	return n, nil
}

// TestAnUploadInterruptedTwentyTimes arrives byte for byte, and of what was sent no
// more is sent again than what was on its way when the line broke.
func TestAnUploadInterruptedTwentyTimes(t *testing.T) {
	o := newOffice(t, 0)
	size := *uploadMiB << 20
	path, dice, sent := o.upload("jia", size, "大文件.ofd"), rand.New(rand.NewPCG(1, 2)), int64(0)
	const times = 20
	for n := 0; n < times; n++ {
		at := o.offset("jia", path)
		body := &breaking{&original{size, at}, 1 + dice.Int64N(size/times), &sent}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, o.url+path, body)
		o.must(err)
		for k, v := range patch(at) {
			req.Header.Set(k, v)
		}
		req.Header.Set("Authorization", "Bearer "+o.keys["jia"])
		res, err := http.DefaultClient.Do(req)
		if err == nil && (res.StatusCode == http.StatusLocked || res.StatusCode == http.StatusConflict) {
			n-- // the one before had not begun when its line broke, and was read meanwhile
		} else if err == nil {
			t.Fatalf("the line did not break: %s", res.Status)
		}
		o.free(path)
	}
	for whole := false; !whole; {
		at := o.offset("jia", path)
		// A request whose line broke before it was read may move the offset meanwhile.
		switch a := o.do("jia", http.MethodPatch, path, &breaking{&original{size, at}, size, &sent}, patch(at)); a.status {
		case http.StatusNoContent:
			whole = true
		case http.StatusConflict, http.StatusLocked:
			o.free(path)
		default:
			t.Fatalf("the rest: %d %s", a.status, a.body)
		}
	}
	// Of each interruption what lies in buffers between the two ends may be lost.
	const chunk = 1 << 20
	if twice := sent - size; twice > times*chunk {
		t.Errorf("%d bytes were sent twice", twice)
	}
	a := o.submitUploads("jia", "1", o.yi, path)
	if a.status != http.StatusCreated {
		t.Fatalf("%d %s", a.status, a.body)
	}
	var got SubmitResult
	o.must(json.Unmarshal(a.body, &got))
	o.settle()
	want := digest(o, &original{size: size})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, o.url+"/v1/inbox/"+got.Document+"/files/0", nil)
	o.must(err)
	req.Header.Set("Authorization", "Bearer "+o.keys["yi"])
	res, err := http.DefaultClient.Do(req)
	o.must(err)
	defer res.Body.Close()
	if digest(o, res.Body) != want {
		t.Fatal("other bytes arrived")
	}
	if !strings.Contains(res.Header.Get("Content-Disposition"), "%E5%A4%A7") {
		t.Errorf("its name is %q", res.Header.Get("Content-Disposition"))
	}
	t.Logf("%d MiB, %d interruptions, %d bytes sent twice", size>>20, times, sent-size)
}

func digest(o *office, r io.Reader) string {
	h := sm.New()
	n, err := io.Copy(h, r)
	o.must(err)
	return fmt.Sprintf("%d %x", n, h.Sum(nil))
}

// free waits until the server is done with a request whose line broke.
func (o *office) free(path string) {
	o.t.Helper()
	id := path[strings.LastIndex(path, "/")+1:]
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if err := o.rest.c.Staging.Release(o.jia, id, time.Hour); err == nil {
			return
		}
	}
	o.t.Fatal("the upload stays busy")
}

// TestNoPlaintextOfAnUploadOnTheDisk looks at every file that the node has, while the
// upload is under way, when it is whole, and after the document took it.
func TestNoPlaintextOfAnUploadOnTheDisk(t *testing.T) {
	o := newOffice(t, 0)
	text := []byte("关于试点工作的通知，征求意见稿。")
	body := bytes.Repeat(text, 40000)
	look := func(when string) {
		seen := int64(0)
		for _, dir := range []string{o.dir} {
			o.must(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err != nil || !d.Type().IsRegular() {
					return err
				}
				b, err := os.ReadFile(path)
				if seen += int64(len(b)); bytes.Contains(b, text[:18]) || bytes.Contains(b, []byte("机要")) {
					t.Errorf("%s: %s holds plaintext", when, path)
				}
				return err
			}))
		}
		if seen < int64(len(body))/2 {
			t.Fatalf("%s: %d bytes were looked at", when, seen)
		}
	}
	path := o.upload("jia", int64(len(body)), "机要.ofd")
	if a := o.do("jia", http.MethodPatch, path, bytes.NewReader(body[:len(body)-5]), patch(0)); a.status != http.StatusNoContent {
		t.Fatalf("%d %s", a.status, a.body)
	}
	look("under way")
	if a := o.do("jia", http.MethodPatch, path, bytes.NewReader(body[len(body)-5:]), patch(int64(len(body)-5))); a.status != http.StatusNoContent {
		t.Fatalf("%d %s", a.status, a.body)
	}
	look("whole")
	if a := o.submitUploads("jia", "1", o.yi, path); a.status != http.StatusCreated {
		t.Fatalf("%d %s", a.status, a.body)
	}
	o.settle()
	look("submitted")
}

// TestSubmittingUploadsAgain gives the same document, and what is not whole or not
// ours gives none.
func TestSubmittingUploadsAgain(t *testing.T) {
	o := newOffice(t, 0)
	first, second := o.upload("jia", 4, "正文.ofd"), o.upload("jia", 3, "附件.pdf")
	o.do("jia", http.MethodPatch, first, strings.NewReader("body"), patch(0))
	if a := o.submitUploads("jia", "1", o.yi, first, second); a.status != http.StatusConflict || a.problem().Code != exchange.CodeUploadUnfinished {
		t.Fatalf("not whole: %d %s", a.status, a.body)
	}
	o.do("jia", http.MethodPatch, second, strings.NewReader("one"), patch(0))
	if a := o.submitUploads("yi", "1", o.jia, first); a.status != http.StatusNotFound {
		t.Fatalf("another agency's: %d %s", a.status, a.body)
	}
	var ids []string
	for range 2 {
		a := o.submitUploads("jia", "1", o.yi, first, second)
		var got SubmitResult
		if o.must(json.Unmarshal(a.body, &got)); a.status != http.StatusCreated {
			t.Fatalf("%d %s", a.status, a.body)
		}
		ids = append(ids, got.Document)
	}
	if ids[0] != ids[1] {
		t.Errorf("two documents: %v", ids)
	}
	if a := o.submitUploads("jia", "1", o.yi, first); a.status != http.StatusUnprocessableEntity {
		t.Errorf("the key with other files: %d %s", a.status, a.body)
	}
	for name, body := range map[string]string{
		"no files": `{"document":{},"files":[]}`, "a strange member": `{"document":{},"file":[]}`, "no JSON": `{`,
		"a strange role": `{"document":{},"files":[{"upload":"x","role":"cover"}]}`,
	} {
		a := o.do("jia", http.MethodPost, "/v1/documents", strings.NewReader(body), map[string]string{"Content-Type": "application/json", "Idempotency-Key": "2"})
		if a.status != http.StatusBadRequest && a.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}

// TestUploadsRefuse what does not fit, each with the answer of the protocol.
func TestUploadsRefuse(t *testing.T) {
	o := newOffice(t, 0)
	path := o.upload("jia", 10, "a")
	with := func(more ...string) map[string]string {
		h := patch(0)
		for i := 0; i < len(more); i += 2 {
			h[more[i]] = more[i+1]
		}
		return h
	}
	for _, one := range []struct {
		name, who, method, path string
		header                  map[string]string
		want                    int
	}{
		{"another version", "jia", http.MethodPatch, path, with("Tus-Resumable", "0.2.0"), 412},
		{"another agency", "yi", http.MethodPatch, path, with(), 404},
		{"another agency asks", "yi", http.MethodHead, path, with(), 404},
		{"another agency deletes", "yi", http.MethodDelete, path, with(), 404},
		{"an offset ahead", "jia", http.MethodPatch, path, with("Upload-Offset", "5"), 409},
		{"a wrong type", "jia", http.MethodPatch, path, with("Content-Type", "text/plain"), 400},
		{"a path", "jia", http.MethodHead, "/v1/uploads/..%2fx", with(), 404},
		{"no length", "jia", http.MethodPost, "/v1/uploads", with(), 400},
		{"a length that is put off", "jia", http.MethodPost, "/v1/uploads", with("Upload-Defer-Length", "1"), 501},
		{"no bytes", "jia", http.MethodPost, "/v1/uploads", with("Upload-Length", "0"), 413},
		{"too many bytes", "jia", http.MethodPost, "/v1/uploads", with("Upload-Length", "99999999999"), 413},
		{"parts to put together", "jia", http.MethodPost, "/v1/uploads", with("Upload-Length", "5", "Upload-Concat", "partial"), 201},
		{"it is written only", "jia", http.MethodGet, path, with(), 405},
		{"deleting", "jia", http.MethodDelete, path, with(), 204},
		{"deleting again", "jia", http.MethodDelete, path, with(), 404},
	} {
		if a := o.do(one.who, one.method, one.path, nil, one.header); a.status != one.want {
			t.Errorf("%s: %d %s, want %d", one.name, a.status, a.body, one.want)
		}
	}
	for range 4 {
		o.upload("jia", 10, "a")
	}
	a := o.do("jia", http.MethodPost, "/v1/uploads", nil, with("Upload-Length", "5"))
	if p := a.problem(); a.status != http.StatusTooManyRequests || p.Code != exchange.CodeQuota || p.TitleZH == "" {
		t.Errorf("a sixth: %d %s", a.status, a.body)
	}
	if a := o.do("", http.MethodPost, "/v1/uploads", nil, with("Upload-Length", "5")); a.status != http.StatusUnauthorized {
		t.Errorf("without a key: %d", a.status)
	}
}
