// Package e2e runs real processes: nodes built from this tree, killed and
// started again, spoken to over their REST interface as agency systems do.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
)

// cluster is an authority and nodes, each a data directory and a process.
type cluster struct {
	t      *testing.T
	dir    string
	binary string
	nodes  []*proc
}

// proc is one node.
type proc struct {
	c          *cluster
	id         string
	data       string
	agency     string
	key        string
	restAddr   string
	mu         sync.Mutex
	cmd        *exec.Cmd
	starts     int
	logPath    string
	httpClient *http.Client
}

// passphrase of every keystore, and PIN of every token.
var passphrase = rand.Text()

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "yizhan-e2e-")
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "yizhan")
	out, err := exec.Command("go", "build", "-o", binary, "github.com/yizhan-gateway/yizhan/cmd/yizhan").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return binary, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if binary, err := build(); err == nil {
		os.RemoveAll(filepath.Dir(binary))
	}
	os.Exit(code)
}

// newCluster makes an authority and one node for each name, neighbours in a
// row; the first of each pair dials.
func newCluster(t *testing.T, names ...string) *cluster {
	t.Helper()
	return newClusterWith(t, nil, names...)
}

// newClusterWith gives init further arguments for each node.
func newClusterWith(t *testing.T, initArgs func(id string) []string, names ...string) *cluster {
	t.Helper()
	return newRow(t, initArgs, nil, names...)
}

// newRow gives ca link further arguments for each pair, too. A node whose init has a
// profile has no agency.
func newRow(t *testing.T, initArgs func(id string) []string, linkArgs func(a, b string) []string, names ...string) *cluster {
	t.Helper()
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return rowOf(t, binary, initArgs, linkArgs, names...)
}

// rowOf is newRow with another program.
func rowOf(t *testing.T, binary string, initArgs func(id string) []string, linkArgs func(a, b string) []string, names ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir(), binary: binary}
	pass := filepath.Join(c.dir, "passphrase")
	if err := os.WriteFile(pass, []byte(passphrase), 0o600); err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(c.dir, "ca")
	c.run("ca", "init", ca, "--domain", "e2e")
	for i, id := range names {
		code, err := certs.MakeAgencyCode(fmt.Sprintf("1152000000000%03dE", i))
		if err != nil {
			t.Fatal(err)
		}
		p := &proc{c: c, id: id, data: filepath.Join(c.dir, id), agency: string(code), restAddr: freeAddress(t), logPath: filepath.Join(c.dir, id+".log")}
		p.httpClient = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 32}}
		peer := freeAddress(t)
		args := []string{"init", "--data", p.data, "--node", id, "--zone", "z" + id, "--domain", "e2e", "--peer-url", "https://" + peer,
			"--peer-listen", peer}
		var more []string
		if initArgs != nil {
			more = initArgs(id)
		}
		serves := !slices.Contains(more, "--profile")
		if serves {
			args = append(args, "--rest-listen", p.restAddr, "--agency", p.agency+"=单位"+id)
		}
		c.run(append(args, more...)...)
		c.run("ca", "admit", ca, filepath.Join(p.data, "request.json"))
		if serves {
			p.key = strings.TrimSpace(c.run("key", "create", "--data", p.data, "--agency", p.agency))
		}
		if i > 0 {
			link := []string{"ca", "link", ca, names[i-1], id, "--ceiling", "work_secret"}
			if linkArgs != nil {
				link = append(link, linkArgs(names[i-1], id)...)
			}
			c.run(link...)
		}
		for k := range i - 1 { // to those that are no neighbours, over those between
			c.run("ca", "route", ca, id, names[k], names[i-1])
			c.run("ca", "route", ca, names[k], id, names[k+1])
		}
		c.nodes = append(c.nodes, p)
	}
	c.run("ca", "publish", ca)
	for _, p := range c.nodes {
		c.run("init", "--data", p.data, "--directory", filepath.Join(ca, "directory.yzd"), "--authority", filepath.Join(ca, "authority.crt"))
	}
	t.Cleanup(func() {
		for _, p := range c.nodes {
			p.kill()
			if t.Failed() {
				log, _ := os.ReadFile(p.logPath)
				t.Logf("log of %s:\n%s", p.id, tail(log, 4000))
			}
		}
	})
	return c
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// run runs one command to its end.
func (c *cluster) run(args ...string) string {
	c.t.Helper()
	cmd := exec.Command(c.binary, args...)
	cmd.Env = append(os.Environ(), "YIZHAN_PASSPHRASE="+c.passphrase())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		c.t.Fatalf("yizhan %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

func (c *cluster) passphrase() string {
	b, err := os.ReadFile(filepath.Join(c.dir, "passphrase"))
	if err != nil {
		c.t.Fatal(err)
	}
	return string(b)
}

// start runs the node and waits until it answers.
func (p *proc) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	log, err := os.OpenFile(p.logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.c.binary, "serve", "--data", p.data, "--json")
	cmd.Env = append(os.Environ(), "YIZHAN_PASSPHRASE="+p.c.passphrase())
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd = cmd
	p.starts++
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.Contains(line, `"ready":true`) {
		return fmt.Errorf("node %s did not become ready: %q, %w", p.id, line, err)
	}
	return nil
}

// kill ends the node as a power cut of the process would.
func (p *proc) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	p.cmd = nil
}

// stop ends the node in order.
func (p *proc) stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	err := p.cmd.Wait()
	p.cmd = nil
	return err
}

// call does one request; 2xx is a success.
func (p *proc) call(ctx context.Context, method, path string, body io.Reader, header map[string]string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+p.restAddr+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+p.key)
	for k, v := range header {
		req.Header.Set(k, v)
	}
	res, err := p.httpClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	if res.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, res.Status, b)
	}
	return b, nil
}

func (p *proc) getJSON(ctx context.Context, path string, out any) error {
	b, err := p.call(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, out)
}

// submit sends a document once and gives its id.
func (p *proc) submit(ctx context.Context, key, to, title string, body []byte) (string, error) {
	return p.submitWith(ctx, key, map[string]any{"title": title, "to": []string{to}, "label": "内部"}, body)
}

// submitWith sends a document with its metadata.
func (p *proc) submitWith(ctx context.Context, key string, document map[string]any, body []byte) (string, error) {
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	meta, err := form.CreatePart(textproto.MIMEHeader{"Content-Disposition": {`form-data; name="document"`}})
	if err != nil {
		return "", err
	}
	if err := json.NewEncoder(meta).Encode(document); err != nil {
		return "", err
	}
	file, err := form.CreateFormFile("body", "正文.ofd")
	if err != nil {
		return "", err
	}
	if _, err := file.Write(body); err != nil {
		return "", err
	}
	if err := form.Close(); err != nil {
		return "", err
	}
	out, err := p.call(ctx, http.MethodPost, "/v1/documents", &b, map[string]string{
		"Content-Type": form.FormDataContentType(), "Idempotency-Key": key})
	if err != nil {
		return "", err
	}
	var got struct{ Document string }
	return got.Document, json.Unmarshal(out, &got)
}
