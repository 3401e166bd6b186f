//go:build cgo

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// token is a SoftHSM2 token of the test's own. Its directory can be taken
// away, which is what a token that is pulled looks like to SoftHSM: every
// operation and every new login fails until it is back.
type token struct {
	module, dir string
}

func newToken(t *testing.T) *token {
	t.Helper()
	k := &token{dir: filepath.Join(t.TempDir(), "tokens")}
	for _, path := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so", "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so"} {
		if _, err := os.Stat(path); err == nil {
			k.module = path
		}
	}
	util, err := exec.LookPath("softhsm2-util")
	if err != nil || k.module == "" {
		t.Skip("SoftHSM2 is missing (Debian package softhsm2): scripts/test installs it where it may")
	}
	if err := os.Mkdir(k.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	conf := k.dir + ".conf"
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+k.dir+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	out, err := exec.Command(util, "--init-token", "--free", "--label", "e2e", "--pin", passphrase, "--so-pin", passphrase).CombinedOutput()
	if err != nil {
		t.Fatalf("softhsm2-util: %v: %s", err, out)
	}
	return k
}

func (k *token) takeAway() error { return os.Rename(k.dir, k.dir+".away") }
func (k *token) bringBack() error {
	return os.Rename(k.dir+".away", k.dir)
}

// TestLostHSM: both nodes keep their keys under keys of one token, which goes
// away and comes back three times while documents cross. Nobody is started
// again, every document ends SIGNED_FOR, and none was rejected or damaged on
// the way.
func TestLostHSM(t *testing.T) {
	n := 60
	if testing.Short() {
		n = 15
	}
	k := newToken(t)
	c := newClusterWith(t, func(id string) []string {
		return []string{"--keystore", "wrapped", "--hsm-module", k.module, "--hsm-token", "e2e", "--hsm-key", "node-" + id}
	}, "jia", "yi")
	for _, p := range c.nodes {
		if err := p.start(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	r := newRun(t, ctx, c, n)
	r.withoutHSM(k, 3)
	r.checkOnce()
	for _, x := range r.all {
		r.neverRefused(x)
	}
	for _, p := range c.nodes {
		if log, err := os.ReadFile(p.logPath); err != nil || strings.Contains(string(log), "link fault") {
			t.Errorf("%s took its own trouble for a neighbour's (%v)", p.id, err)
		}
		if p.starts != 1 {
			t.Errorf("%s was started %d times", p.id, p.starts)
		}
		if err := p.stop(); err != nil {
			t.Errorf("stopping %s: %v", p.id, err)
		}
	}
}

// withoutHSM sends the documents in portions, each begun before the token is
// taken away and ended while it is; in between everything is signed for.
func (r *run) withoutHSM(k *token, times int) {
	ctx, done := context.WithCancel(r.ctx)
	defer done()
	var signer sync.WaitGroup
	signer.Go(func() { r.sign(ctx) })
	each := len(r.all) / times
	for i := range times {
		portion := r.all[i*each : (i+1)*each]
		var clients sync.WaitGroup
		work := make(chan *crossing, len(portion))
		for _, x := range portion {
			work <- x
		}
		close(work)
		for range 4 {
			clients.Go(func() {
				for x := range work {
					r.submit(x)
					time.Sleep(20 * time.Millisecond)
				}
			})
		}
		time.Sleep(time.Duration(30*(i+1)) * time.Millisecond)
		if err := k.takeAway(); err != nil {
			r.t.Fatal(err)
		}
		r.saysLater()
		time.Sleep(2 * time.Second)
		if err := k.bringBack(); err != nil {
			r.t.Fatal(err)
		}
		clients.Wait()
		for _, x := range portion {
			r.awaitSigned(x)
		}
	}
	done()
	signer.Wait()
}

// saysLater: a submission without the HSM is answered with "again later".
func (r *run) saysLater() {
	_, err := r.jia.submit(r.ctx, "without-hsm", r.yi.agency, "题", []byte("正文"))
	if err == nil || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), exchange.CodeTemporary) {
		r.t.Errorf("submitting without the HSM: %v", err)
	}
}

func (r *run) neverRefused(x *crossing) {
	var tr node.Trace
	r.retry("trace "+x.key, func() error { return r.jia.getJSON(r.ctx, "/v1/documents/"+x.id+"/trace", &tr) })
	stages := ""
	for _, ev := range tr.Events {
		stages += fmt.Sprintf("%s ", ev.Stage)
	}
	if !tr.ReceiptsVerified || strings.Contains(stages, string(exchange.StageRejected)) || strings.Contains(stages, string(exchange.StageReturned)) {
		r.t.Errorf("%s went %s", x.id, stages)
	}
}
