package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/yizhan-gateway/yizhan/adapters/control"
	"github.com/yizhan-gateway/yizhan/adapters/ferry/badgate"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// boundary is the demo across a gate: an agency in each of two zones, behind each a
// node at the boundary, and between those a directory in which a bad gate loses,
// doubles and cuts files.
type boundary struct {
	*demo
	wai, nei *pairNode
	files    []upload
	toYi     []string
	toJia    []string
	got      map[string][]string // the files of each document, as they were collected
	bad      *badgate.Gate
	result   boundaryResult
}

// boundaryResult is what --boundary ferry --once --json prints.
type boundaryResult struct {
	Documents        int                 `json:"documents"`
	State            exchange.State      `json:"state"` // of all, if they agree
	SignedFor        int                 `json:"signed_for"`
	Lost             int                 `json:"lost"` // acknowledged, and not signed for once
	Duplicated       int                 `json:"duplicated"`
	Recipients       []boundaryRecipient `json:"recipients"`
	Receipts         int                 `json:"receipts"`
	ReceiptsVerified bool                `json:"receipts_verified"`
	LedgerVerified   bool                `json:"ledger_verified"`
	BytesMatch       bool                `json:"bytes_match"`
	BooksBalanced    bool                `json:"books_balanced"`
	Suffered         badgate.Losses      `json:"suffered"` // what the gate did to the files
	ElapsedMS        int64               `json:"elapsed_ms"`
}

type boundaryRecipient struct {
	Document string         `json:"document"`
	Agency   string         `json:"agency"`
	Stage    exchange.Stage `json:"stage"`
}

const (
	boundaryThere = 24 // documents
	boundaryBack  = 8
	boundaryPace  = 100 * time.Millisecond // between two, and between two looks into a spool
	boundaryLarge = 9 << 20                // bytes of one document, which has two parts
)

func (x *boundary) run(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*demoPatience)
	defer cancel()
	x.started, x.got, x.bad = time.Now(), map[string][]string{}, badgate.New(mrand.Uint64(), badgate.Usual)
	if x.dir, err = os.MkdirTemp("", "yizhan-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.end()) }()
	if err := x.prepare(); err != nil {
		return err
	}
	for _, n := range x.nodes {
		if err := x.start(ctx, n); err != nil {
			return err
		}
	}
	carrying := make(chan error, 1)
	route, stop := context.WithCancel(ctx)
	go func() {
		carrying <- x.bad.Run(route, boundaryPace/2,
			[2]string{x.gate(x.wai, "out"), x.gate(x.nei, "in")}, [2]string{x.gate(x.nei, "out"), x.gate(x.wai, "in")})
	}()
	err = x.traffic(ctx)
	stop()
	if err = errors.Join(err, <-carrying); err != nil {
		return err
	}
	return x.report()
}

// gate is a folder of the spool of one side.
func (x *boundary) gate(n *pairNode, folder string) string {
	return filepath.Join(x.dir, "gate-"+n.id, folder)
}

// prepare makes four nodes in a row: 政务外网 with jia and wai, 专网 with nei and yi.
func (x *boundary) prepare() (err error) {
	x.introduce()
	x.wai = &pairNode{id: "wai", zone: "政务外网"}
	x.nei = &pairNode{id: "nei", zone: "专网"}
	for n, beyond := range map[*pairNode]*pairNode{x.wai: x.nei, x.nei: x.wai} {
		if err := os.Mkdir(x.gate(n, ""), 0o700); err != nil {
			return err
		}
		n.initArgs = []string{"--profile", profileBoundary, "--beyond", beyond.id, "--spool", x.gate(n, "")}
	}
	if err := x.begin(x.jia, x.wai, x.nei, x.yi); err != nil {
		return err
	}
	for _, n := range []*pairNode{x.wai, x.nei} {
		if err := n.hurry(boundaryPace); err != nil {
			return err
		}
	}
	if x.files, err = sampleFiles(filepath.Join(x.dir, "files"), x.examples); err != nil {
		return err
	}
	x.say("建立名录机构、两侧各一个业务节点和一个边界节点 made an authority and, on either side, a node of an agency and one at the boundary\n")
	label := []string{"--ceiling", "work_secret"}
	return x.publish(
		append([]string{"link", "jia", "wai", "--dialer", "jia"}, label...),
		append([]string{"link", "nei", "wai", "--kind", "ferry", "--name", "nei-wai"}, label...),
		append([]string{"link", "yi", "nei", "--dialer", "yi"}, label...),
		[]string{"route", "jia", "yi", "wai"}, []string{"route", "wai", "yi", "nei"},
		[]string{"route", "yi", "jia", "nei"}, []string{"route", "nei", "jia", "wai"},
	)
}

// hurry lets a node look into its spool more often than a real gate needs.
func (n *pairNode) hurry(every time.Duration) error {
	d := dataDir(n.data)
	s, err := d.settings()
	if err != nil {
		return err
	}
	for i := range s.Ferry {
		s.Ferry[i].Every = duration(every)
	}
	return d.writeSettings(s)
}

// traffic sends both ways, one document after the other so that many files are
// needed, and lets each be collected and signed for.
func (x *boundary) traffic(ctx context.Context) error {
	if err := x.sendLarge(ctx); err != nil {
		return err
	}
	for i := range boundaryThere - 1 {
		if err := x.send(ctx, x.jia, x.yi, "关于跨网交换试点的通知", x.files, &x.toYi); err != nil {
			return err
		}
		if i < boundaryBack {
			if err := x.send(ctx, x.yi, x.jia, "关于跨网交换试点的复函", x.files, &x.toJia); err != nil {
				return err
			}
		}
		time.Sleep(boundaryPace)
	}
	x.say("已发 sent %d + %d 件；摆渡中 carrying: %+v\n", len(x.toYi), len(x.toJia), x.bad.Losses())
	for _, way := range x.ways() {
		if err := x.arrived(ctx, way.to, way.ids); err != nil {
			return err
		}
		for _, id := range way.ids {
			if err := x.take(ctx, way.to, id); err != nil {
				return err
			}
		}
	}
	for _, way := range x.ways() {
		if err := x.settled(ctx, way.from, way.ids); err != nil {
			return err
		}
	}
	return x.until(ctx, "things that are not acknowledged", func() (int, error) {
		n, _, err := x.books(ctx)
		return n, err
	})
}

type boundaryWay struct {
	from, to *pairNode
	ids      []string
}

func (x *boundary) ways() []boundaryWay {
	return []boundaryWay{{x.jia, x.yi, x.toYi}, {x.yi, x.jia, x.toJia}}
}

// sendLarge sends a document that does not fit into one part.
func (x *boundary) sendLarge(ctx context.Context) error {
	path := filepath.Join(x.dir, "files", "大附件.bin")
	b := make([]byte, boundaryLarge)
	if _, err := rand.Read(b); err != nil {
		return err
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return err
	}
	large := append(append([]upload{}, x.files...), upload{"attachment", path})
	return x.send(ctx, x.jia, x.yi, "关于报送大附件的通知", large, &x.toYi)
}

// take collects a document and signs for it.
func (x *boundary) take(ctx context.Context, n *pairNode, id string) (err error) {
	if x.got[id], err = n.client.collect(ctx, id, filepath.Join(x.dir, "in", id)); err != nil {
		return err
	}
	return x.signFor(ctx, n, id)
}

// books says how much of what the links were given is outstanding, and whether the
// books of all of them balance, as yizhan link status does.
func (x *boundary) books(ctx context.Context) (outstanding int, balanced bool, err error) {
	balanced = true
	for _, n := range x.nodes {
		var st linkStatus
		err := onRunning(ctx, dataDir(n.data), func(c *control.Client) error {
			return c.Call(ctx, http.MethodGet, "/links", nil, &st, nil)
		})
		if err != nil {
			return 0, false, err
		}
		for _, l := range st.Links {
			outstanding += int(l.Outstanding)
			balanced = balanced && l.Balanced && len(l.Gaps) == 0
			if l.Ferry != nil {
				outstanding += int(l.Ferry.Bundles)
			}
		}
	}
	return outstanding, balanced, nil
}

// report verifies everything once more from files alone, and counts.
func (x *boundary) report() error {
	ctx, r := context.Background(), &x.result
	r.State, r.ReceiptsVerified, r.LedgerVerified, r.BytesMatch = exchange.StateSignedFor, true, true, true
	for _, way := range x.ways() {
		in, err := inboxOf(ctx, way.to)
		if err != nil {
			return err
		}
		for _, n := range in {
			r.Duplicated += n - 1
		}
		for _, id := range way.ids {
			if err := x.verifyOne(ctx, way, id); err != nil {
				return err
			}
		}
	}
	r.Documents, r.Lost = len(x.toYi)+len(x.toJia), len(x.toYi)+len(x.toJia)-r.SignedFor
	n, balanced, err := x.books(ctx)
	if err != nil {
		return err
	}
	r.BooksBalanced = n == 0 && balanced
	r.Suffered, r.ElapsedMS = x.bad.Losses(), time.Since(x.started).Milliseconds()
	x.say("%d 件全部签收 of %d documents %d are signed for, %d 份回执已离线验证 receipts verified offline\n"+
		"摆渡文件 files %d：丢失 lost %d，重复 doubled %d，截断 truncated %d\n",
		r.Documents, r.Documents, r.SignedFor, r.Receipts, r.Suffered.Files, r.Suffered.Lost, r.Suffered.Doubled, r.Suffered.Truncated)
	if x.app.json {
		if err := json.NewEncoder(x.app.out).Encode(r); err != nil {
			return err
		}
	}
	if r.Lost > 0 || r.Duplicated > 0 || !r.ReceiptsVerified || !r.LedgerVerified || !r.BytesMatch || !r.BooksBalanced {
		return exchange.Fail(exchange.CodeInternal, "%d documents are lost, %d doubled, or not all of it verifies", r.Lost, r.Duplicated)
	}
	return nil
}

func (x *boundary) verifyOne(ctx context.Context, way boundaryWay, id string) error {
	proof := filepath.Join(x.dir, "evidence-"+id+".json")
	if err := way.from.client.evidence(ctx, id, proof); err != nil {
		return err
	}
	report, err := verifyFiles(proof, filepath.Join(x.ca(), authorityFile), x.got[id])
	if err != nil {
		return fmt.Errorf("evidence of %s: %w", id, err)
	}
	r := &x.result
	if r.Receipts += report.Receipts; report.State == exchange.StateSignedFor {
		r.SignedFor++
	} else {
		r.State = report.State
	}
	r.ReceiptsVerified = r.ReceiptsVerified && report.ReceiptsVerified
	r.LedgerVerified = r.LedgerVerified && report.LedgerVerified
	r.BytesMatch = r.BytesMatch && report.BytesMatch
	for _, s := range report.Recipients {
		r.Recipients = append(r.Recipients, boundaryRecipient{id, s.Agency, s.Stage})
	}
	if id == way.ids[0] && !x.app.json {
		return x.showWay(ctx, way.from, id)
	}
	return nil
}

// showWay prints the trace of one document, with its relays.
func (x *boundary) showWay(ctx context.Context, n *pairNode, id string) error {
	var t *node.Trace
	t, err := n.client.trace(ctx, id)
	if err == nil {
		x.say("\n%s\n", timeline(t))
	}
	return err
}
