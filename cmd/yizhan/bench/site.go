package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Site is two nodes with a link that the figures are measured on: real
// processes of this program on this machine. Sender dials Receiver.
type Site interface {
	// Start runs a node and gives it when it serves.
	Start(ctx context.Context, which Which) (*Node, error)
	// Kill ends a node as kill -9 does; one that does not run is no error.
	Kill(which Which) error
	// Waiting is how many items wait on a running node, for its links and to
	// be distributed.
	Waiting(ctx context.Context, which Which) (uint64, error)
	// ImportShare runs yizhan import over a share to the sender's node, leaving the share
	// as it is.
	ImportShare(ctx context.Context, share string) (Imported, error)
	// Live is the memory that a running node holds, garbage apart.
	Live(ctx context.Context, which Which) (int64, error)
}

// Which is one of the nodes of a site.
type Which int

// The nodes of a site.
const (
	Sender Which = iota
	Receiver
)

// Node is a running node of a site, with an agency that it serves.
type Node struct {
	URL, Key, Agency string
	Neighbour        string // an agency of the other node
	PID              int
}

// office is a client of a node's REST interface.
type office struct {
	*Node
	http *http.Client
}

const clients = 256 // that submit at the same time

func newOffice(n *Node) *office {
	return &office{n, &http.Client{Transport: &http.Transport{MaxIdleConns: 2 * clients, MaxIdleConnsPerHost: 2 * clients, WriteBufferSize: 16 << 10}}}
}

// form is a submission whose body file is to follow between its two halves.
type form struct {
	contentType string
	head, tail  []byte
}

func newForm(to string) (*form, error) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	document, err := json.Marshal(map[string]any{"title": "测试", "to": []string{to}, "label": "内部"})
	if err != nil {
		return nil, err
	}
	p, err := w.CreatePart(textproto.MIMEHeader{"Content-Disposition": {`form-data; name="document"`}, "Content-Type": {"application/json"}})
	if err != nil {
		return nil, err
	}
	if _, err := p.Write(document); err != nil {
		return nil, err
	}
	if _, err := w.CreateFormFile("body", "body.ofd"); err != nil {
		return nil, err
	}
	head := bytes.Clone(b.Bytes())
	b.Reset()
	err = w.Close()
	return &form{w.FormDataContentType(), head, b.Bytes()}, err
}

// submit posts one document of size random bytes and gives its id.
func (o *office) submit(ctx context.Context, f *form, body io.Reader, size int64) (string, error) {
	all := io.MultiReader(bytes.NewReader(f.head), body, bytes.NewReader(f.tail))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.URL+"/v1/documents", all)
	if err != nil {
		return "", err
	}
	req.ContentLength = int64(len(f.head)) + size + int64(len(f.tail))
	req.Header.Set("Content-Type", f.contentType)
	req.Header.Set("Idempotency-Key", rand.Text())
	var out struct {
		Document string `json:"document"`
	}
	return out.Document, o.do(req, http.StatusCreated, &out)
}

func (o *office) get(ctx context.Context, path string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, o.URL+path, nil)
	if err != nil {
		return err
	}
	return o.do(req, http.StatusOK, out)
}

func (o *office) do(req *http.Request, want int, out any) error {
	req.Header.Set("Authorization", "Bearer "+o.Key)
	res, err := o.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != want {
		return fmt.Errorf("%s %s: %s: %s", req.Method, req.URL.Path, res.Status, b)
	}
	return json.Unmarshal(b, out)
}

// load is what submitting many documents took.
type load struct {
	perSecond float64
	p99, mean time.Duration
	documents []string // their ids
}

// submitMany posts n documents from all clients.
func (o *office) submitMany(ctx context.Context, f *form, n int) (*load, error) {
	content := make([]byte, smallDocument)
	if _, err := rand.Read(content); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	took := make([]time.Duration, n)
	documents := make([]string, n)
	var wait sync.WaitGroup
	begin := time.Now()
	for range clients {
		wait.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				sent := time.Now()
				id, err := o.submit(ctx, f, bytes.NewReader(content), smallDocument)
				if err != nil {
					cancel(err)
					return
				}
				took[i] = time.Since(sent)
				documents[i] = id
			}
		})
	}
	wait.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	l := &load{perSecond: float64(n) / time.Since(begin).Seconds(), documents: documents}
	l.p99, l.mean = spread(took)
	return l, nil
}

// Memory is what a process holds of its own, bytes; mapped files apart.
func (n *Node) Memory() (int64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(n.PID) + "/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("the memory of process %d is not to be seen", n.PID)
}
