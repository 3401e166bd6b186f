package e2e

import (
	"context"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/evidence"
)

// TestRotationInTraffic: while documents cross, all keys of both nodes and
// their agencies are renewed and the receiving agency's old signing key is
// revoked. Each directory is installed at one node only; the link brings it to
// the other. Every document is signed for exactly once, none is rejected or
// damaged, and all evidence verifies when the revocation is in effect: what
// the old key signed in time, too.
func TestRotationInTraffic(t *testing.T) {
	n := 60
	if testing.Short() {
		n = 20
	}
	c := newCluster(t, "jia", "yi")
	for _, p := range c.nodes {
		if err := p.start(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	r := newRun(t, ctx, c, n)
	old := c.signingCertificate(r.yi.agency)
	inTraffic, done := context.WithCancel(ctx)
	var signer sync.WaitGroup
	signer.Go(func() { r.sign(inTraffic) })

	quarter := n / 4
	r.crossing(0, quarter, nil)
	r.crossing(quarter, 2*quarter, func() { c.renew(ctx, r.yi, 2) })
	r.crossing(2*quarter, 3*quarter, func() { c.renew(ctx, r.jia, 3) })
	effective := time.Now().Add(3 * time.Second).UTC().Truncate(time.Second)
	r.crossing(3*quarter, n, func() { c.revoke(ctx, r.jia, old, effective, 4) })
	time.Sleep(time.Until(effective) + time.Second)
	late := newCrossing(n)
	r.all = append(r.all, late)
	r.submit(late)
	r.awaitSigned(late)
	done()
	signer.Wait()

	r.checkOnce()
	r.checkEvidence()
	if by := r.signedBy(sm.Sum(old)); by[true] == 0 || by[false] == 0 {
		t.Errorf("SIGNED_FOR by the old key %d times, by the new one %d times", by[true], by[false])
	}
	for _, p := range c.nodes {
		if log, err := os.ReadFile(p.logPath); err != nil || strings.Contains(string(log), "link fault") {
			t.Errorf("%s met a link fault (%v)", p.id, err)
		}
		if p.starts != 1 {
			t.Errorf("%s was started %d times", p.id, p.starts)
		}
	}
	r.checkLedgers()
}

// crossing sends some documents while something happens.
func (r *run) crossing(from, to int, meanwhile func()) {
	const apart = 30 * time.Millisecond
	var clients sync.WaitGroup
	clients.Go(func() {
		for _, x := range r.all[from:to] {
			clients.Go(func() { r.submit(x) })
			time.Sleep(apart)
		}
	})
	if meanwhile != nil {
		time.Sleep(time.Duration(to-from) / 3 * apart)
		meanwhile()
	}
	clients.Wait()
	for _, x := range r.all[from:to] {
		r.awaitSigned(x)
	}
}

func (c *cluster) path(name string) string { return filepath.Join(c.dir, "ca", name) }

// signingCertificate is the one in use by an agency, as published.
func (c *cluster) signingCertificate(agency string) []byte {
	c.t.Helper()
	authority, err := certs.ReadCertificate(c.path("authority.crt"))
	if err != nil {
		c.t.Fatal(err)
	}
	file, err := os.ReadFile(c.path("directory.yzd"))
	if err != nil {
		c.t.Fatal(err)
	}
	d, err := certs.LoadDirectory(file, authority, 0, time.Now())
	if err != nil {
		c.t.Fatal(err)
	}
	a, ok := d.Agency(agency)
	if !ok {
		c.t.Fatalf("%s is not in the directory", agency)
	}
	cert, err := a.Current(certs.UseSign, time.Now())
	if err != nil {
		c.t.Fatal(err)
	}
	return cert.DER
}

// renew makes new keys for a running node and all it serves, and lets the
// directory with their certificates come into force.
func (c *cluster) renew(ctx context.Context, p *proc, version uint64) {
	c.run("cert", "renew", "--data", p.data)
	c.run("ca", "admit", c.path(""), filepath.Join(p.data, "request.json"))
	c.publish(ctx, p, version)
}

func (c *cluster) revoke(ctx context.Context, at *proc, der []byte, effective time.Time, version uint64) {
	name := filepath.Join(c.dir, "old.pem")
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		c.t.Error(err)
		return
	}
	c.run("ca", "revoke", c.path(""), "--certificate", name, "--reason", "key_compromise", "--effective", effective.Format(time.RFC3339))
	c.publish(ctx, at, version)
}

// publish installs the next directory at one node and waits until every node
// has it.
func (c *cluster) publish(ctx context.Context, at *proc, version uint64) {
	c.run("ca", "publish", c.path(""))
	c.run("init", "--data", at.data, "--directory", c.path("directory.yzd"))
	want := fmt.Sprintf(`"version":%d`, version)
	for _, p := range c.nodes {
		for {
			if strings.Contains(c.run("directory", "show", "--data", p.data, "--json"), want) {
				break
			}
			if ctx.Err() != nil {
				c.t.Errorf("node %s never heard of directory %d", p.id, version)
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// signedBy counts the SIGNED_FOR receipts by whether a certificate signed them.
func (r *run) signedBy(certificate sm.Digest) map[bool]int {
	by := map[bool]int{}
	for _, x := range r.all {
		b, err := r.jia.call(r.ctx, http.MethodGet, "/v1/documents/"+x.id+"/evidence", nil, nil)
		if err != nil {
			r.t.Fatal(err)
		}
		f, err := evidence.Parse(b)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, receipt := range f.Receipts {
			s, err := cms.Parse(receipt.CMS, exchange.MaxReceiptCMS)
			if err != nil {
				r.t.Fatal(err)
			}
			if strings.Contains(string(s.Content), `"stage":"SIGNED_FOR"`) {
				by[sm.Sum(s.Certificate) == certificate]++
			}
		}
	}
	return by
}
