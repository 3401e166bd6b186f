package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// diskOf is the file system of the node on the small disk, and its marks; MiB.
const (
	diskOf       = 400
	refuseBelow  = 100
	ballastOf    = 32
	smallEnough  = 60 // free, so that new work is refused
	fullToTheEnd = 10 // free, so that the ballast is given back
)

// onSmallDisk moves a node that is not running to a file system of its own.
func (p *proc) onSmallDisk(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0700", diskOf)); err != nil {
		t.Skipf("mounting a small file system needs root: %v", err)
	}
	t.Cleanup(func() {
		p.kill()
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	data := filepath.Join(dir, "data")
	if out, err := exec.Command("cp", "-a", p.data, data).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	config := filepath.Join(data, "config.toml")
	b, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(b), "[disk]")
	text := before + fmt.Sprintf("[disk]\nrefuse_below_mib = %d\nballast_mib = %d\n", refuseBelow, ballastOf)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p.data = data
}

// fillTo leaves so many MiB of the node's disk free.
func (p *proc) fillTo(t *testing.T, mib int64) (filler string) {
	t.Helper()
	filler = filepath.Join(filepath.Dir(p.data), "filler")
	f, err := os.OpenFile(filler, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var s syscall.Statfs_t
	if err := syscall.Statfs(p.data, &s); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(f, zeros{}, int64(s.Bavail)*s.Bsize-mib<<20); err != nil {
		t.Fatal(err)
	}
	return filler
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// waitForStage waits until a document is in the node's inbox at a stage.
func (p *proc) waitForStage(t *testing.T, document, stage string) {
	t.Helper()
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if p.stageOf(t, document) == stage {
			return
		}
	}
	t.Fatalf("document %s is not %s at %s", document, stage, p.id)
}

func (p *proc) stageOf(t *testing.T, document string) string {
	t.Helper()
	var inbox struct{ Items []inboxItem }
	if err := p.getJSON(t.Context(), "/v1/inbox", &inbox); err != nil {
		t.Fatal(err)
	}
	for _, item := range inbox.Items {
		if item.Document == document {
			return item.Stage
		}
	}
	return ""
}

// waitForReceipt waits until the sender has the receipt of a stage.
func (p *proc) waitForReceipt(t *testing.T, document, stage string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		b, err := p.call(t.Context(), http.MethodGet, "/v1/documents/"+document+"/trace", nil, nil)
		if err == nil && bytes.Contains(b, []byte(stage)) {
			return
		}
	}
	t.Fatalf("the receipt %s of %s did not come home", stage, document)
}

// refusedForSpace submits and expects the answer of a full disk.
func (p *proc) refusedForSpace(t *testing.T, to string) {
	t.Helper()
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	meta, _ := form.CreatePart(textproto.MIMEHeader{"Content-Disposition": {`form-data; name="document"`}})
	_ = json.NewEncoder(meta).Encode(map[string]any{"title": "甲", "to": []string{to}, "label": "内部"})
	file, _ := form.CreateFormFile("body", "正文.ofd")
	_, _ = file.Write([]byte("正文"))
	_ = form.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+p.restAddr+"/v1/documents", &b)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+p.key)
	req.Header.Set("Content-Type", form.FormDataContentType())
	req.Header.Set("Idempotency-Key", "full")
	res, err := p.httpClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusInsufficientStorage || res.Header.Get("Retry-After") == "" {
		t.Fatalf("a full node answers %s, Retry-After %q: %s", res.Status, res.Header.Get("Retry-After"), body)
	}
	for _, want := range []string{`"code":"no_space"`, "磁盘空间不足", "The disk has no room"} {
		if !bytes.Contains(body, []byte(want)) {
			t.Errorf("the problem does not say %q: %s", want, body)
		}
	}
}

// TestFullDisk: on a real file system that fills up a node refuses new work
// from agencies and neighbours, goes on with what it has, gives back its
// ballast, starts again on the full disk, and takes everything once there is
// room.
func TestFullDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: starts two processes on a file system of their own")
	}
	c := newCluster(t, "jia", "yi")
	jia, yi := c.nodes[0], c.nodes[1]
	yi.onSmallDisk(t)
	for _, p := range c.nodes {
		if err := p.start(); err != nil {
			t.Fatal(err)
		}
	}
	send := func(key string) string {
		t.Helper()
		id, err := jia.submit(t.Context(), key, yi.agency, "关于"+key, bytes.Repeat([]byte(key), 1000))
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	sign := func(id string) {
		t.Helper()
		if _, err := yi.call(t.Context(), http.MethodPost, "/v1/inbox/"+id+"/accept", strings.NewReader(`{"actor":{"name":"值班员"}}`), map[string]string{"Content-Type": "application/json"}); err != nil {
			t.Fatal(err)
		}
		jia.waitForReceipt(t, id, "SIGNED_FOR")
	}
	ballast := filepath.Join(yi.data, "ballast")
	if info, err := os.Stat(ballast); err != nil || info.Size() != ballastOf<<20 {
		t.Fatalf("no ballast: %v", err)
	}
	first, second := send("first"), send("second")
	yi.waitForStage(t, first, "DELIVERED")
	yi.waitForStage(t, second, "DELIVERED")

	filler := yi.fillTo(t, smallEnough)
	time.Sleep(300 * time.Millisecond) // past the next look
	yi.refusedForSpace(t, jia.agency)
	third := send("third")
	sign(first)
	time.Sleep(2 * time.Second)
	if stage := yi.stageOf(t, third); stage != "" {
		t.Fatalf("a full node took a document: %s", stage)
	}
	if _, err := os.Stat(ballast); err != nil {
		t.Fatalf("the ballast went before the disk was full: %v", err)
	}

	yi.fillTo(t, fullToTheEnd)
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(ballast); os.IsNotExist(err) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the ballast was not given back")
		}
	}
	sign(second)
	yi.kill()
	if err := yi.start(); err != nil { // on the full disk
		t.Fatal(err)
	}
	yi.refusedForSpace(t, jia.agency)
	out, err := exec.Command(c.binary, "ballast", "--data", yi.data, "--json").CombinedOutput()
	if err == nil || !strings.Contains(string(out), `"no_space"`) {
		t.Fatalf("a ballast on a full disk: %v, %s", err, out)
	}

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	yi.waitForStage(t, third, "DELIVERED")
	sign(third)
	if out := c.run("ballast", "--data", yi.data, "--json"); !strings.Contains(out, `"made":true`) {
		t.Errorf("the ballast: %s", out)
	}
	if _, err := yi.submit(t.Context(), "full", jia.agency, "甲", []byte("正文")); err != nil {
		t.Error(err)
	}
	r := newRun(t, t.Context(), c, 0)
	for key, id := range map[string]string{"first": first, "second": second, "third": third} {
		r.all = append(r.all, &crossing{key: key, id: id, body: bytes.Repeat([]byte(key), 1000)})
	}
	r.checkOnce()
	r.checkEvidence()
	r.tell("%d times full", 1)
}
