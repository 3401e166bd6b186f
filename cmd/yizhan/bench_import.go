package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/yizhan-gateway/yizhan/cmd/yizhan/bench"
	"github.com/yizhan-gateway/yizhan/internal/config"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// ImportShare implements bench.Site: a process of its own imports a share that stays as it
// is, with the settings that a profile has by default.
func (s *site) ImportShare(ctx context.Context, share string) (got bench.Imported, err error) {
	profile, err := s.importProfile(share)
	if err != nil {
		return got, err
	}
	self, err := os.Executable()
	if err != nil {
		return got, err
	}
	var out, said bytes.Buffer
	c := exec.CommandContext(ctx, self, "import", "run", "--profile", profile, "--json")
	c.Stdout, c.Stderr = &out, &said
	begin := time.Now()
	if err := c.Start(); err != nil {
		return got, err
	}
	ended := make(chan struct{})
	peak := make(chan int64)
	go func() { peak <- peakOf(bench.Node{PID: c.Process.Pid}, ended) }()
	err = c.Wait()
	close(ended)
	got.Seconds, got.Peak = time.Since(begin).Seconds(), <-peak
	if err != nil {
		return got, fmt.Errorf("the import: %w: %s", err, said.Bytes())
	}
	var result importResult
	err = json.Unmarshal(out.Bytes(), &result)
	got.Submitted = result.Submitted
	return got, err
}

// peakOf watches a process until it ended.
func peakOf(n bench.Node, ended <-chan struct{}) (most int64) {
	for {
		if m, err := n.Memory(); err == nil { // it may be gone already
			most = max(most, m)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ended:
			return most
		}
	}
}

func (s *site) importProfile(share string) (string, error) {
	key := filepath.Join(s.dir, "import.key")
	if err := os.WriteFile(key, []byte(s.jia.key), 0o600); err != nil {
		return "", err
	}
	b, err := config.Encode(importProfile{
		Share: share, Sentinel: bench.Sentinel, ReadOnly: true, Node: s.jia.url, KeyFile: key, State: share + "-state",
		Depth: 1, Stable: "rename", Defaults: importDefaults{Label: "内部"},
	})
	if err != nil {
		return "", err
	}
	path := share + ".toml"
	return path, durable.WriteFile(durable.OS, path, b)
}
