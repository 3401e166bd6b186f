package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	mrand "math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/evidence"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/queue"
	"github.com/yizhan-gateway/yizhan/queue/badgerstore"
)

var documents = flag.Int("documents", 200, "how many documents TestKillNine sends")

// crossing is one document of the run.
type crossing struct {
	key, title string
	body       []byte
	id         string
}

func newCrossing(i int) *crossing {
	sum := sha256.Sum256(fmt.Appendf(nil, "document %d", i))
	return &crossing{
		key: fmt.Sprintf("e2e-%d", i), title: fmt.Sprintf("关于第%d号事项的通知", i),
		body: bytes.Repeat(sum[:], 1+i*7),
	}
}

type inboxItem struct {
	Seq      uint64 `json:"seq"`
	Document string `json:"document"`
	Stage    string `json:"stage"`
}

// TestKillNine: both nodes are killed at random moments and started again
// while clients submit with idempotency keys and the receiving agency signs.
// Every acknowledged document is signed for exactly once (I1, I2), every
// receipt verifies from files (I3), and no ledger took anything back (I4).
func TestKillNine(t *testing.T) {
	n := *documents
	if testing.Short() {
		n = min(n, 20)
	}
	c := newCluster(t, "jia", "yi")
	jia, yi := c.nodes[0], c.nodes[1]
	for _, p := range c.nodes {
		if err := p.start(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	all := make([]*crossing, n)
	for i := range all {
		all[i] = newCrossing(i)
	}
	r := &run{t: t, ctx: ctx, jia: jia, yi: yi, all: all}
	r.trouble = r.kill
	r.storm()
	r.checkOnce()
	r.checkEvidence()
	r.checkLedgers()
	t.Logf("%d documents, %d kills, %d heads compared, %d receipts verified", n, r.kills.Load(), len(r.heads["jia"])+len(r.heads["yi"]), r.receipts)
}

type run struct {
	t       *testing.T
	ctx     context.Context
	jia, yi *proc
	trouble func(context.Context) // what happens meanwhile
	all     []*crossing
	kills   atomic.Int64
	signed  sync.Map
	mu      sync.Mutex
	heads   map[string][]merkle.Checkpoint

	receipts int // verified from files
}

// storm runs clients, signers and the killer until every document is signed
// for at the sender.
func (r *run) storm() {
	r.heads = map[string][]merkle.Checkpoint{}
	ctx, done := context.WithCancel(r.ctx)
	defer done()
	var others, clients sync.WaitGroup
	others.Go(func() { r.trouble(ctx) })
	others.Go(func() { r.sign(ctx) })
	work := make(chan *crossing)
	for range 8 {
		clients.Go(func() {
			for x := range work {
				r.submit(x)
			}
		})
	}
	for _, x := range r.all {
		work <- x
	}
	close(work)
	clients.Wait()
	for _, x := range r.all {
		r.awaitSigned(x)
	}
	done()
	others.Wait()
}

// retry repeats until it works: nodes come and go.
func (r *run) retry(what string, fn func() error) {
	for {
		err := fn()
		if err == nil {
			return
		}
		if r.ctx.Err() != nil {
			r.t.Errorf("%s: %v", what, err)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (r *run) submit(x *crossing) {
	r.retry("submit "+x.key, func() error {
		id, err := r.jia.submit(r.ctx, x.key, r.yi.agency, x.title, x.body)
		if err == nil {
			x.id = id
		}
		return err
	})
}

// kill ends one node after another at random moments.
func (r *run) kill(ctx context.Context) {
	for ctx.Err() == nil {
		time.Sleep(time.Duration(150+mrand.IntN(700)) * time.Millisecond)
		p := []*proc{r.jia, r.yi}[mrand.IntN(2)]
		p.kill()
		r.kills.Add(1)
		if err := p.start(); err != nil {
			r.t.Error(err)
			return
		}
	}
}

// sign is the receiving agency: it collects, compares and signs whatever it
// finds, also again and again.
func (r *run) sign(ctx context.Context) {
	for ctx.Err() == nil {
		for _, item := range r.inbox() {
			if item.Stage != string(exchange.StageSignedFor) {
				r.signOne(ctx, item.Document)
			}
		}
		time.Sleep(30 * time.Millisecond)
	}
}

func (r *run) inbox() []inboxItem {
	var all []inboxItem
	for {
		var page struct{ Items []inboxItem }
		after := uint64(0)
		if len(all) > 0 {
			after = all[len(all)-1].Seq
		}
		if r.yi.getJSON(r.ctx, fmt.Sprintf("/v1/inbox?limit=200&after=%d", after), &page) != nil || len(page.Items) == 0 {
			return all // a node that is down shows nothing; the caller looks again
		}
		all = append(all, page.Items...)
	}
}

func (r *run) signOne(ctx context.Context, id string) {
	if _, err := r.yi.call(ctx, http.MethodGet, "/v1/inbox/"+id+"/files/0", nil, nil); err != nil {
		return
	}
	act := strings.NewReader(`{"actor":{"name":"值班员"},"opinion":"已阅"}`)
	b, err := r.yi.call(ctx, http.MethodPost, "/v1/inbox/"+id+"/accept", act, map[string]string{"Content-Type": "application/json"})
	if err != nil {
		return
	}
	if before, again := r.signed.Swap(id, string(b)); again && before != string(b) {
		r.t.Errorf("I2: signing for %s twice gave two receipts", id)
	}
}

func (r *run) awaitSigned(x *crossing) {
	r.retry("signed "+x.key, func() error {
		var tr node.Trace
		if err := r.jia.getJSON(r.ctx, "/v1/documents/"+x.id+"/trace", &tr); err != nil {
			return err
		}
		if tr.State != exchange.StateSignedFor {
			return fmt.Errorf("%s stands at %s", x.id, tr.State)
		}
		return nil
	})
}

// checkOnce: every acknowledged document is once in the inbox, and nothing
// else is there.
func (r *run) checkOnce() {
	count := map[string]int{}
	for _, item := range r.inbox() {
		count[item.Document]++
	}
	ids := map[string]bool{}
	for _, x := range r.all {
		if ids[x.id] {
			r.t.Errorf("I2: two submissions share %s", x.id)
		}
		ids[x.id] = true
		if count[x.id] != 1 {
			r.t.Errorf("I1, I2: %s is %d times in the inbox", x.id, count[x.id])
		}
		got, err := r.yi.call(r.ctx, http.MethodGet, "/v1/inbox/"+x.id+"/files/0", nil, nil)
		if err != nil || !bytes.Equal(got, x.body) {
			r.t.Errorf("%s arrived with other bytes (%v)", x.id, err)
		}
	}
	if len(count) != len(ids) {
		r.t.Errorf("I2: %d documents in the inbox, %d acknowledged", len(count), len(ids))
	}
}

// checkEvidence verifies every document from its proof file alone.
func (r *run) checkEvidence() {
	authority, err := certs.ReadCertificate(filepath.Join(r.jia.c.dir, "ca", "authority.crt"))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, x := range r.all {
		b, err := r.jia.call(r.ctx, http.MethodGet, "/v1/documents/"+x.id+"/evidence", nil, nil)
		if err != nil {
			r.t.Errorf("evidence of %s: %v", x.id, err)
			continue
		}
		report, err := evidence.Verify(b, authority, []evidence.Delivered{evidence.Sum(x.body)})
		if err != nil || !report.OK() || !report.BytesMatch || report.State != exchange.StateSignedFor {
			r.t.Errorf("I3: evidence of %s: %v %+v", x.id, err, report)
			continue
		}
		f, err := evidence.Parse(b)
		if err != nil {
			r.t.Fatal(err)
		}
		r.remember("jia", f)
		r.receipts += len(f.Receipts)
		signed := 0
		for _, receipt := range f.Receipts {
			if s, err := cms.Parse(receipt.CMS, exchange.MaxReceiptCMS); err == nil && strings.Contains(string(s.Content), `"stage":"SIGNED_FOR"`) {
				signed++
			}
		}
		if signed != 1 {
			r.t.Errorf("I2: %d SIGNED_FOR receipts of %s", signed, x.id)
		}
		if b, err = r.yi.call(r.ctx, http.MethodGet, "/v1/documents/"+x.id+"/evidence", nil, nil); err == nil {
			if f, err = evidence.Parse(b); err == nil {
				r.remember("yi", f)
			}
		}
	}
}

func (r *run) remember(id string, f *evidence.File) {
	s, err := cms.Parse(f.Checkpoint, exchange.MaxCheckpointCMS)
	if err != nil {
		r.t.Fatal(err)
	}
	cp, err := merkle.ParseCheckpoint(s.Content)
	if err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heads[id] = append(r.heads[id], *cp)
}

// checkLedgers stops both nodes, opens their stores, and finds every head that
// was ever shown, also to the neighbour, at its place in the tree.
func (r *run) checkLedgers() {
	for _, p := range []*proc{r.jia, r.yi} {
		if err := p.stop(); err != nil {
			r.t.Fatalf("stopping %s: %v", p.id, err)
		}
		store, err := badgerstore.Open(filepath.Join(p.data, "store"), badgerstore.Options{})
		if err != nil {
			r.t.Fatal(err)
		}
		ledger := queue.Ledger{Name: "main"}
		err = store.View(r.ctx, func(tx queue.Tx) error {
			size, err := ledger.Size(tx)
			if err != nil {
				return err
			}
			var leaves []sm.Digest
			for i := range size {
				leaf, err := ledger.Leaf(tx, i)
				if err != nil {
					return err
				}
				leaves = append(leaves, merkle.LeafHash(leaf))
			}
			for _, cp := range r.heads[p.id] {
				if cp.Size > size || merkle.Root(leaves[:cp.Size]) != cp.Root {
					return fmt.Errorf("the head of %d leaves is no beginning of the %d here", cp.Size, size)
				}
			}
			return nil
		})
		if err != nil {
			r.t.Errorf("I4: ledger of %s: %v", p.id, err)
		}
		if err := store.Close(); err != nil {
			r.t.Error(err)
		}
	}
}
