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
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// floodBound is what a flooded node may hold of memory beside the files that it
// maps; its GOMEMLIMIT is floodLimit, MiB.
const (
	floodLimit  = 256
	floodBound  = 400
	floodStalls = 300 // uploads that stop in the middle
	floodBusy   = 32  // clients that send one document after the other
)

// anonymous is what a process holds beside mapped files, MiB.
func (p *proc) anonymous(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "RssAnon:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib >> 10
}

// stalled begins an upload and stops in the middle until the test ends.
func (p *proc) stalled(t *testing.T, to string, i int) (gone func()) {
	r, w := io.Pipe()
	form := multipart.NewWriter(w)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+p.restAddr+"/v1/documents", r)
	if err != nil {
		t.Error(err)
		return func() {}
	}
	req.Header.Set("Authorization", "Bearer "+p.key)
	req.Header.Set("Content-Type", form.FormDataContentType())
	req.Header.Set("Idempotency-Key", fmt.Sprintf("stalled-%d", i))
	go func() {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		if res, err := client.Do(req); err == nil {
			res.Body.Close()
		}
		r.CloseWithError(io.ErrClosedPipe) // whoever writes may stop
	}()
	go func() {
		meta, _ := form.CreatePart(textproto.MIMEHeader{"Content-Disposition": {`form-data; name="document"`}})
		_ = json.NewEncoder(meta).Encode(map[string]any{"title": "甲", "to": []string{to}, "label": "内部"})
		file, err := form.CreateFormFile("body", "正文.ofd")
		if err == nil {
			_, _ = io.CopyN(file, zeros{}, 2<<20) // what the node does not want ends it
		}
	}()
	return func() { w.CloseWithError(io.ErrUnexpectedEOF) }
}

// TestFlood: hundreds of uploads that stall, and many clients that do not pause,
// do not take a node beyond its memory, and it goes on serving.
func TestFlood(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: floods a process")
	}
	c := newCluster(t, "jia", "yi")
	jia, yi := c.nodes[0], c.nodes[1]
	t.Setenv("GOMEMLIMIT", fmt.Sprintf("%dMiB", floodLimit))
	if err := jia.start(); err != nil { // its neighbour is away: all waits
		t.Fatal(err)
	}
	var ends []func()
	for i := range floodStalls {
		ends = append(ends, jia.stalled(t, yi.agency, i))
	}
	var most, sent atomic.Int64
	var wait sync.WaitGroup
	until := time.Now().Add(15 * time.Second)
	for i := range floodBusy {
		wait.Go(func() {
			for n := 0; time.Now().Before(until); n++ {
				_, err := jia.submit(t.Context(), fmt.Sprintf("%d-%d", i, n), yi.agency, "甲", bytes.Repeat([]byte{byte(i)}, 512<<10))
				if err == nil {
					sent.Add(1)
				} else if !strings.Contains(err.Error(), "503") {
					t.Error(err)
					return
				}
			}
		})
	}
	for time.Now().Before(until) {
		most.Store(max(most.Load(), int64(jia.anonymous(t))))
		time.Sleep(100 * time.Millisecond)
	}
	wait.Wait()
	for _, end := range ends {
		end()
	}
	if _, err := jia.submit(t.Context(), "after", yi.agency, "甲", []byte("正文")); err != nil {
		t.Errorf("after the flood: %v", err)
	}
	t.Logf("%d documents accepted beside %d stalled uploads, at most %d MiB", sent.Load(), floodStalls, most.Load())
	if most.Load() > floodBound || sent.Load() == 0 {
		t.Errorf("a node with GOMEMLIMIT %d MiB took %d MiB, bound %d; %d documents were accepted", floodLimit, most.Load(), floodBound, sent.Load())
	}
}
