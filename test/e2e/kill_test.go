package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
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
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

var kills = flag.Int("kills", 6, "how often TestKillNine ends a node")

// forEachKill documents are sent between two kills.
const forEachKill = 20

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

// TestKillNine: three nodes in a row, the sender's, a relay and the receiver's,
// are killed at random moments and started again while clients submit with
// idempotency keys and the receiving agency signs. Every acknowledged document is
// signed for exactly once (I1, I2), every receipt verifies from files (I3), and no
// ledger took anything back (I4).
func TestKillNine(t *testing.T) {
	n := *kills
	if testing.Short() {
		n = min(n, 1)
	}
	n *= forEachKill
	c := newCluster(t, "jia", "zhong", "yi")
	for _, p := range c.nodes {
		if err := p.start(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience(n))
	defer cancel()
	r := newRun(t, ctx, c, n)
	r.trouble, r.pace = r.kill, forEachKill
	r.storm()
	r.checkOnce()
	r.checkEvidence()
	compared := r.checkLedgers()
	r.tell("%d kills of %d nodes, %d heads compared", r.kills.Load(), len(c.nodes), compared)
}

// patience bounds a run, generously.
func patience(documents int) time.Duration {
	return 10*time.Minute + time.Duration(documents)*2*time.Second
}

type run struct {
	t       *testing.T
	ctx     context.Context
	nodes   []*proc               // jia, those between, yi
	jia, yi *proc                 // the sender's and the receiver's
	trouble func(context.Context) // what happens meanwhile
	pace    int                   // documents for each time that it happened (kills); 0: as fast as can be
	all     []*crossing
	kills   atomic.Int64
	cuts    atomic.Int64 // power cuts that have begun
	signed  sync.Map
	mu      sync.Mutex
	heads   map[string][]merkle.Checkpoint

	receipts   int             // verified from files
	lost       map[string]bool // acknowledged, and not there in the end as it was sent, or not proven
	duplicated int             // deliveries and receipts that are there once more than they should
}

func newRun(t *testing.T, ctx context.Context, c *cluster, documents int) *run {
	r := &run{t: t, ctx: ctx, nodes: c.nodes, jia: c.nodes[0], yi: c.nodes[len(c.nodes)-1], heads: map[string][]merkle.Checkpoint{}, lost: map[string]bool{}}
	for i := range documents {
		r.all = append(r.all, newCrossing(i))
	}
	return r
}

// tell says what the run went through and what it found, in the words that
// test/campaign looks for.
func (r *run) tell(format string, args ...any) {
	r.t.Helper()
	acknowledged := 0
	for _, x := range r.all {
		if x.id != "" {
			acknowledged++
		}
	}
	r.t.Logf("%d documents, %s; %d lost, %d duplicated, %d receipts verified", acknowledged, fmt.Sprintf(format, args...), len(r.lost), r.duplicated, r.receipts)
}

// storm runs clients, signers and the killer until every document is signed
// for at the sender.
func (r *run) storm() {
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
	for i, x := range r.all {
		for r.pace > 0 && int(r.kills.Load()) < i/r.pace && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		work <- x
	}
	close(work)
	clients.Wait()
	for _, x := range r.all {
		r.awaitSigned(x)
	}
	done()
	others.Wait()
	r.ctx = r.t.Context() // what is there is compared also when the time was over
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
		before := r.cuts.Load()
		id, err := r.jia.submit(r.ctx, x.key, r.yi.agency, x.title, x.body)
		if err == nil && r.cuts.Load() != before {
			err = errors.New("the power went meanwhile")
		}
		if err == nil {
			x.id = id
		}
		return err
	})
}

// kill ends one node after another at random moments. Between two kills lies at
// least the time that the last start took: on a busy machine nodes would do
// nothing but start otherwise.
func (r *run) kill(ctx context.Context) {
	took := 150 * time.Millisecond
	for ctx.Err() == nil {
		time.Sleep(took + mrand.N(700*time.Millisecond+took))
		p := r.nodes[mrand.IntN(len(r.nodes))]
		p.kill()
		r.kills.Add(1)
		began := time.Now()
		if err := p.start(); err != nil {
			r.t.Error(err)
			return
		}
		took = time.Since(began)
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
	before := r.cuts.Load()
	b, err := r.yi.call(ctx, http.MethodPost, "/v1/inbox/"+id+"/accept", act, map[string]string{"Content-Type": "application/json"})
	if err != nil || r.cuts.Load() != before {
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
			r.lost[x.key] = true
			r.t.Errorf("I2: two submissions share %s", x.id)
		}
		ids[x.id] = true
		if n := count[x.id]; n != 1 {
			r.duplicated += max(0, n-1)
			r.t.Errorf("I1, I2: %s is %d times in the inbox", x.id, n)
		}
		got, err := r.yi.call(r.ctx, http.MethodGet, "/v1/inbox/"+x.id+"/files/0", nil, nil)
		if err != nil || !bytes.Equal(got, x.body) {
			r.lost[x.key] = true
			r.t.Errorf("%s arrived with other bytes (%v)", x.id, err)
		}
	}
	for id := range count {
		if !ids[id] {
			r.duplicated++
			r.t.Errorf("I2: %s is in the inbox, and nobody was told that it was accepted", id)
		}
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
			r.lost[x.key] = true
			r.t.Errorf("evidence of %s: %v", x.id, err)
			continue
		}
		report, err := evidence.Verify(b, authority, []evidence.Delivered{evidence.Sum(x.body)})
		if err != nil || !report.OK() || !report.BytesMatch || report.State != exchange.StateSignedFor {
			r.lost[x.key] = true
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
			r.duplicated += max(0, signed-1)
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

// checkLedgers stops all nodes, opens their stores, and finds every head that was
// ever shown, to a client in evidence or to a neighbour, at its place in the tree.
// It says how many there were.
func (r *run) checkLedgers() (compared int) {
	leaves := map[string][]sm.Digest{}
	for _, p := range r.nodes {
		if err := p.stop(); err != nil {
			r.t.Fatalf("stopping %s: %v", p.id, err)
		}
		p.look(r.t, func(tx queue.Tx) (err error) {
			if leaves[p.id], err = leavesOf(tx); err != nil {
				return err
			}
			return records.Heads.Each(tx, 0, func(key []byte, h *records.Head) bool {
				of := records.Heads.Name(key)
				r.heads[of] = append(r.heads[of], merkle.Checkpoint{Size: h.Size, Root: h.Root})
				return true
			})
		})
	}
	for _, p := range r.nodes {
		for _, cp := range r.heads[p.id] {
			if compared++; cp.Size > uint64(len(leaves[p.id])) || merkle.Root(leaves[p.id][:cp.Size]) != cp.Root {
				r.t.Errorf("I4: ledger of %s: the head of %d leaves is no beginning of the %d here", p.id, cp.Size, len(leaves[p.id]))
			}
		}
	}
	return compared
}

func leavesOf(tx queue.Tx) (leaves []sm.Digest, err error) {
	ledger := queue.Ledger{Name: "main"}
	size, err := ledger.Size(tx)
	if err != nil {
		return nil, err
	}
	for i := range size {
		leaf, err := ledger.Leaf(tx, i)
		if err != nil {
			return nil, err
		}
		leaves = append(leaves, merkle.LeafHash(leaf))
	}
	return leaves, nil
}
