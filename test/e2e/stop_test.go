package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestStopsInOrder: on SIGTERM an upload that is under way is accepted, waiting
// requests are answered, nothing new is taken, and the process ends with 0
// within its time, with a neighbour's poll open. A copy of the directory is
// refused beside the original.
func TestStopsInOrder(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: starts two processes")
	}
	c := newCluster(t, "jia", "yi")
	jia, yi := c.nodes[0], c.nodes[1]
	for _, p := range c.nodes {
		if err := p.start(); err != nil {
			t.Fatal(err)
		}
	}
	refuseCopy(t, c, yi)
	time.Sleep(time.Second) // jia's poll is open at yi

	r, w := io.Pipe()
	form := multipart.NewWriter(w)
	var uploaded, waited string
	done := make(chan error, 2)
	go func() {
		b, err := yi.call(t.Context(), http.MethodPost, "/v1/documents", r, map[string]string{"Content-Type": form.FormDataContentType(), "Idempotency-Key": "slow"})
		uploaded = string(b)
		done <- err
	}()
	wrote := make(chan struct{})
	traced := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { close(wrote) }})
	go func() {
		b, err := yi.call(traced, http.MethodGet, "/v1/inbox?wait=25", nil, nil)
		waited = string(b)
		done <- err
	}()
	meta, err := form.CreatePart(textproto.MIMEHeader{"Content-Disposition": {`form-data; name="document"`}})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewEncoder(meta).Encode(map[string]any{"title": "甲", "to": []string{jia.agency}, "label": "内部"}); err != nil {
		t.Fatal(err)
	}
	file, err := form.CreateFormFile("body", "正文.ofd")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.Write(bytes.Repeat([]byte("一"), 100_000)); err != nil {
		t.Fatal(err)
	}

	<-wrote
	time.Sleep(300 * time.Millisecond) // the node has read it: a connection on which nothing came is idle and may be closed
	began := time.Now()
	if err := yi.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	fresh := &http.Client{Transport: &http.Transport{}}
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+yi.restAddr+"/livez", nil)
	if res, err := fresh.Do(req); err == nil {
		res.Body.Close()
		t.Error("a node that stops takes a new connection")
	}
	if _, err := file.Write([]byte("完")); err != nil {
		t.Fatal(err)
	}
	if err := form.Close(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	for range 2 {
		if err := <-done; err != nil {
			t.Errorf("a request that was under way: %v", err)
		}
	}
	if !strings.Contains(uploaded, `"document"`) || !strings.Contains(waited, `"items":[]`) {
		t.Errorf("the upload was answered %q, the waiting request %q", uploaded, waited)
	}
	err = yi.cmd.Wait()
	yi.mu.Lock()
	yi.cmd = nil
	yi.mu.Unlock()
	if took := time.Since(began); err != nil || took > 12*time.Second {
		t.Errorf("the process ended after %s: %v", took, err)
	}

	if err := yi.start(); err != nil {
		t.Fatal(err)
	}
	var sent struct{ Document string }
	if err := json.Unmarshal([]byte(uploaded), &sent); err != nil {
		t.Fatal(err)
	}
	jia.waitForStage(t, sent.Document, "DELIVERED")
	for _, p := range c.nodes {
		if err := p.stop(); err != nil {
			t.Errorf("%s did not end with 0: %v", p.id, err)
		}
	}
}

// refuseCopy starts a copy of a running node's directory on other ports.
func refuseCopy(t *testing.T, c *cluster, p *proc) {
	t.Helper()
	twin := filepath.Join(c.dir, "copy-of-"+p.id)
	if out, err := exec.Command("cp", "-a", p.data, twin).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command(c.binary, "serve", "--data", twin, "--rest-listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0", "--json")
	cmd.Env = append(os.Environ(), "YIZHAN_PASSPHRASE="+c.passphrase())
	out, err := cmd.CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte(`"setup_conflict"`)) || !bytes.Contains(out, []byte("another process on this machine is node "+p.id)) {
		t.Errorf("a copy beside the original: %v, %s", err, out)
	}
}
