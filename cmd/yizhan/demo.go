package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/console"
	"github.com/yizhan-gateway/yizhan/adapters/rest"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// demoPatience bounds every wait of the demo.
const demoPatience = 60 * time.Second

func (a *app) demoCommand() *cobra.Command {
	d := &demo{pair: pair{app: a}}
	d.say = d.print
	lose, across, share := false, "", ""
	c := &cobra.Command{
		Use:   "demo",
		Short: "Watch a document travel between two nodes on this machine · 演示",
		Long: `Makes a throwaway authority and two nodes in two zones as separate processes on
loopback, sends a document with a body and two attachments from 示范单位甲 to
示范单位乙, has it collected and signed for, and verifies everything again from
files. Stays up with a page that shows the timeline; --once ends instead.

With --disaster one node's disk is destroyed in the middle of traffic and the node restored
from a copy made while it ran; everything arrives once. It ends by itself.

With --boundary ferry there are four nodes, two on either side of a gate that moves files,
loses 20% of them, doubles 10% and cuts 5%; everything arrives once and is proven. It ends
by itself.

With --import DIR the documents in a folder go to 示范单位乙, or to whom a list in it says,
and a second run finds nothing new. The folder is only read. It ends by itself.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case across != "" && across != "ferry":
				return usage("--boundary %q: there is ferry", across)
			case across != "" && lose, share != "" && (lose || across != ""):
				return usage("--boundary, --disaster and --import are demos of their own")
			case share != "":
				return (&importing{demo: d, share: share}).run(c.Context())
			case across != "":
				return (&boundary{demo: d}).run(c.Context())
			case lose:
				return (&disaster{demo: d}).run(c.Context())
			}
			return d.run(c.Context())
		},
	}
	c.Flags().BoolVar(&d.once, "once", false, "end when everything is verified")
	c.Flags().BoolVar(&lose, "disaster", false, "destroy a node's disk and restore it")
	c.Flags().StringVar(&share, "import", "", "a folder whose documents are taken in")
	c.Flags().StringVar(&across, "boundary", "", "ferry: cross a gate that moves files, and moves them badly")
	c.Flags().BoolVar(&d.keep, "keep", false, "keep the demo's files")
	c.Flags().StringVar(&d.examples, "examples", filepath.Join("..", "shared", "data", "ofd"), "folder with OFD files to send, if present")
	return c
}

type demo struct {
	pair
	once, keep bool
	examples   string

	started  time.Time
	document string
	copies   []string
}

// demoResult is what --once --json prints.
type demoResult struct {
	Document         string          `json:"document"`
	State            exchange.State  `json:"state"`
	Recipients       []demoRecipient `json:"recipients"`
	Receipts         int             `json:"receipts"`
	ReceiptsVerified bool            `json:"receipts_verified"`
	LedgerVerified   bool            `json:"ledger_verified"`
	BytesMatch       bool            `json:"bytes_match"`
	ElapsedMS        int64           `json:"elapsed_ms"`
}

type demoRecipient struct {
	Agency string         `json:"agency"`
	Stage  exchange.Stage `json:"stage"`
}

func (d *demo) print(format string, args ...any) {
	if !d.app.json {
		fmt.Fprintf(d.app.out, format, args...)
	}
}

func (d *demo) run(ctx context.Context) (err error) {
	d.started = time.Now()
	if d.dir, err = os.MkdirTemp("", "yizhan-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.end()) }()
	if err := d.prepare(); err != nil {
		return err
	}
	for _, n := range []*pairNode{d.jia, d.yi} {
		if err := d.start(ctx, n); err != nil {
			return err
		}
	}
	t, err := d.exchange(ctx)
	if err != nil {
		return err
	}
	result, err := d.verify(t)
	if err != nil {
		return err
	}
	if d.app.json {
		if err := json.NewEncoder(d.app.out).Encode(result); err != nil {
			return err
		}
	}
	if !result.ReceiptsVerified || !result.LedgerVerified || !result.BytesMatch || result.State != exchange.StateSignedFor {
		return exchange.Fail(exchange.CodeSignatureInvalid, "the demo's document did not verify")
	}
	if d.once {
		return nil
	}
	return d.stay(ctx)
}

// end stops the nodes and removes the files.
func (d *demo) end() error {
	for _, n := range d.nodes {
		n.end(syscall.SIGTERM)
	}
	if d.keep {
		d.say("文件保留在 files are kept in %s\n", d.dir)
		return nil
	}
	return os.RemoveAll(d.dir)
}

// exchange sends, collects and signs for the document, and gives the sender's
// trace when it shows the end.
func (d *demo) exchange(ctx context.Context) (*node.Trace, error) {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	files, err := sampleFiles(filepath.Join(d.dir, "out"), d.examples)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		d.copies = append(d.copies, f.path)
	}
	q := &rest.SubmitRequest{
		Title: "关于开展公文交换试点工作的通知", To: rest.Recipients(string(d.yi.agency)), Label: "内部", Urgency: "加急",
		Number: "示范办发〔2026〕1号", DocType: "通知",
	}
	sent, err := d.jia.client.submit(ctx, "demo-"+rand.Text(), q, files)
	if err != nil {
		return nil, err
	}
	d.document = sent.Document
	d.say("%s 发出公文 sent document %s\n", d.jia.agencyName, sent.Document)
	var in inboxList
	for len(in.Items) == 0 {
		if err := d.yi.client.json(ctx, http.MethodGet, "/v1/inbox?wait=20", nil, &in); err != nil {
			return nil, err
		}
	}
	if d.copies, err = d.yi.client.collect(ctx, sent.Document, filepath.Join(d.dir, "in")); err != nil {
		return nil, err
	}
	d.say("%s 取件 collected %d 个文件 files\n", d.yi.agencyName, len(d.copies))
	act := &rest.ActRequest{Actor: rest.Person{Name: "值班员", Role: "文书"}, Opinion: "已阅，请办公室阅处", Number: "收文〔2026〕1号"}
	if _, err := d.yi.client.act(ctx, sent.Document, "accept", act); err != nil {
		return nil, err
	}
	for {
		t, err := d.jia.client.trace(ctx, sent.Document)
		if err != nil || t.State == exchange.StateSignedFor {
			d.say("\n%s\n", timeline(t))
			return t, err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, exchange.Fail(exchange.CodeTemporary, "the receipt did not come home within %s", demoPatience)
		}
	}
}

// verify checks everything once more from files alone.
func (d *demo) verify(t *node.Trace) (*demoResult, error) {
	proof := filepath.Join(d.dir, "evidence.json")
	if err := d.jia.client.evidence(context.Background(), d.document, proof); err != nil {
		return nil, err
	}
	report, err := verifyFiles(proof, filepath.Join(d.dir, "ca", authorityFile), d.copies)
	if err != nil {
		return nil, err
	}
	d.say("离线验证 verified offline:\n%s\n", reportText(report))
	r := &demoResult{
		Document: report.Document, State: report.State, Receipts: report.Receipts,
		ReceiptsVerified: report.ReceiptsVerified && t.ReceiptsVerified,
		LedgerVerified:   report.LedgerVerified && t.LedgerVerified,
		BytesMatch:       report.BytesMatch, ElapsedMS: time.Since(d.started).Milliseconds(),
	}
	for _, s := range report.Recipients {
		r.Recipients = append(r.Recipients, demoRecipient{s.Agency, s.Stage})
	}
	return r, nil
}

// stay serves the timeline until the context ends.
func (d *demo) stay(ctx context.Context) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	page := console.New(func(ctx context.Context) (*node.Trace, error) { return d.jia.client.trace(ctx, d.document) })
	server := &http.Server{Handler: page, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	d.say("时间线 timeline: http://%s/\n", l.Addr())
	for _, n := range []*pairNode{d.jia, d.yi} {
		d.say("%s: YIZHAN_SERVER=%s YIZHAN_KEY=%s  code=%s\n", n.agencyName, n.url, n.key, n.agency)
	}
	d.say("按 Ctrl-C 结束 press Ctrl-C to end\n")
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
