package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/adapters/ferry/badgate"
)

var gateKills = flag.Int("gatekills", 3, "how often TestAcrossAGate ends a node")

// TestAcrossAGate: a sender and a receiver, and between them two nodes on either side
// of a gate that moves files and moves them badly, all killed at random moments while
// clients submit and the receiving agency signs. Every acknowledged document is signed
// for exactly once (I1, I2), its receipts verify from files (I3), no ledger took
// anything back (I4), and in the end nothing is outstanding on the ferry (I5).
func TestAcrossAGate(t *testing.T) {
	n := *gateKills
	if testing.Short() {
		n = min(n, 1)
	}
	n *= forEachKill
	c, gate := newBoundary(t)
	for _, p := range c.nodes {
		if err := p.start(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience(n))
	defer cancel()
	seed := mrand.Uint64()
	t.Logf("the gate's seed is %d", seed)
	bad := badgate.New(seed, badgate.Usual)
	carrying, stop := context.WithCancel(ctx)
	var wait sync.WaitGroup
	wait.Go(func() {
		err := bad.Run(carrying, 50*time.Millisecond, [2]string{gate("wai", "out"), gate("nei", "in")}, [2]string{gate("nei", "out"), gate("wai", "in")})
		if err != nil {
			t.Error(err)
		}
	})
	r := newRun(t, ctx, c, n)
	r.trouble, r.pace = r.kill, forEachKill
	r.storm()
	for _, p := range c.nodes[1:3] {
		r.retry("acknowledged at "+p.id, p.nothingOutstanding)
	}
	stop()
	wait.Wait()
	r.checkOnce()
	r.checkEvidence()
	compared := r.checkLedgers()
	did := bad.Losses()
	r.tell("%d kills of %d nodes, %d heads compared, files %+v", r.kills.Load(), len(c.nodes), compared, did)
	if did.Files >= badgate.Deck && (did.Lost == 0 || did.Doubled == 0 || did.Truncated == 0) {
		t.Errorf("the gate did no harm: %+v", did)
	}
}

// newBoundary is jia – wai = nei – yi, with a gate in the middle, whose directories
// gate names.
func newBoundary(t *testing.T) (c *cluster, gate func(id, folder string) string) {
	t.Helper()
	dir := t.TempDir()
	gate = func(id, folder string) string { return filepath.Join(dir, id, folder) }
	beyond := map[string]string{"wai": "nei", "nei": "wai"}
	c = newRow(t, func(id string) []string {
		if beyond[id] == "" {
			return nil
		}
		if err := os.Mkdir(gate(id, ""), 0o700); err != nil {
			t.Fatal(err)
		}
		return []string{"--profile", "boundary", "--beyond", beyond[id], "--spool", gate(id, "")}
	}, func(a, b string) []string {
		if beyond[a] == b {
			return []string{"--kind", "ferry", "--name", "nei-wai"}
		}
		return nil
	}, "jia", "wai", "nei", "yi")
	for _, p := range c.nodes[1:3] { // looks into its spool more often than a real gate needs
		config, err := os.OpenFile(filepath.Join(p.data, "config.toml"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := config.WriteString("every = '100ms'\n"); err != nil {
			t.Fatal(err)
		}
		if err := config.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return c, gate
}

// nothingOutstanding says whether the other side of the gate has acknowledged all.
func (p *proc) nothingOutstanding() error {
	var st struct {
		Ferries []struct{ Outstanding int }
	}
	if err := json.Unmarshal([]byte(p.c.run("ferry", "status", "--data", p.data, "--json")), &st); err != nil {
		return err
	}
	if len(st.Ferries) != 1 || st.Ferries[0].Outstanding != 0 {
		return fmt.Errorf("%+v", st)
	}
	return nil
}
