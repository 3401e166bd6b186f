package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/console"
	"github.com/yizhan-gateway/yizhan/adapters/rest"
	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// demoPatience bounds every wait of the demo.
const demoPatience = 60 * time.Second

func (a *app) demoCommand() *cobra.Command {
	d := &demo{app: a}
	c := &cobra.Command{
		Use:   "demo",
		Short: "Watch a document travel between two nodes on this machine · 演示",
		Long: `Makes a throwaway authority and two nodes in two zones as separate processes on
loopback, sends a document with a body and two attachments from 示范单位甲 to
示范单位乙, has it collected and signed for, and verifies everything again from
files. Stays up with a page that shows the timeline; --once ends instead.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return d.run(c.Context()) },
	}
	c.Flags().BoolVar(&d.once, "once", false, "end when everything is verified")
	c.Flags().BoolVar(&d.keep, "keep", false, "keep the demo's files")
	c.Flags().StringVar(&d.examples, "examples", filepath.Join("..", "shared", "data", "ofd"), "folder with OFD files to send, if present")
	return c
}

type demo struct {
	app        *app
	once, keep bool
	examples   string

	dir      string
	passFile string
	jia, yi  *demoNode
	started  time.Time
	document string
	copies   []string
}

// demoNode is one node of the demo: its data, its process, its agency.
type demoNode struct {
	id, zone, agencyName string
	agency               certs.AgencyCode
	data, peerAddr       string
	key                  string
	process              *exec.Cmd
	url                  string
	client               *apiClient
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

func (d *demo) say(format string, args ...any) {
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
	for _, n := range []*demoNode{d.jia, d.yi} {
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
	var err error
	for _, n := range []*demoNode{d.jia, d.yi} {
		if n == nil || n.process == nil || n.process.Process == nil {
			continue
		}
		_ = n.process.Process.Signal(syscall.SIGTERM) // it may be gone already
		_ = n.process.Wait()                          // its exit code says nothing new here
	}
	if d.keep {
		d.say("文件保留在 files are kept in %s\n", d.dir)
		return nil
	}
	return errors.Join(err, os.RemoveAll(d.dir))
}

// prepare makes authority, nodes and directory, with the same commands a
// person would use.
func (d *demo) prepare() error {
	d.passFile = filepath.Join(d.dir, "passphrase")
	if err := os.WriteFile(d.passFile, []byte(rand.Text()+"\n"), 0o600); err != nil {
		return err
	}
	d.jia = &demoNode{id: "jia", zone: "政务外网", agencyName: "示范单位甲"}
	d.yi = &demoNode{id: "yi", zone: "专网", agencyName: "示范单位乙"}
	ca := filepath.Join(d.dir, "ca")
	if err := d.command("ca", "init", ca, "--domain", "示范域", "--passphrase-file", d.passFile); err != nil {
		return err
	}
	for i, n := range []*demoNode{d.jia, d.yi} {
		if err := d.prepareNode(n, i+1, ca); err != nil {
			return err
		}
	}
	d.say("建立名录机构和两个节点 made an authority and two nodes\n")
	directory := filepath.Join(d.dir, "directory.yzd")
	steps := [][]string{
		{"ca", "link", ca, "jia", "yi", "--dialer", "jia", "--ceiling", "work_secret", "--passphrase-file", d.passFile},
		{"ca", "publish", ca, "-o", directory, "--passphrase-file", d.passFile},
	}
	for _, n := range []*demoNode{d.jia, d.yi} {
		steps = append(steps, []string{"init", "--data", n.data, "--directory", directory, "--authority", filepath.Join(ca, authorityFile)})
	}
	for _, s := range steps {
		if err := d.command(s...); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) prepareNode(n *demoNode, number int, ca string) (err error) {
	if n.agency, err = certs.MakeAgencyCode(fmt.Sprintf("1152000000000%03dX", number)); err != nil {
		return err
	}
	if n.peerAddr, err = freeAddress(); err != nil {
		return err
	}
	n.data = filepath.Join(d.dir, n.id)
	if err := d.command("init", "--data", n.data, "--node", n.id, "--zone", n.zone, "--domain", "示范域",
		"--peer-url", "https://"+n.peerAddr, "--peer-listen", n.peerAddr, "--rest-listen", "127.0.0.1:0",
		"--agency", string(n.agency)+"="+n.agencyName, "--passphrase-file", d.passFile); err != nil {
		return err
	}
	if err := d.command("ca", "admit", ca, filepath.Join(n.data, requestFile), "--passphrase-file", d.passFile); err != nil {
		return err
	}
	ring, err := rest.OpenKeyRing(filepath.Join(n.data, apiKeysFile))
	if err != nil {
		return err
	}
	n.key, _, err = ring.Create(rand.Reader, n.agency, rest.Scopes, nil, "demo", time.Now())
	return err
}

// command runs one of our own commands inside this process, quietly.
func (d *demo) command(args ...string) error {
	quiet := &app{out: io.Discard, err: d.app.err, now: d.app.now, lang: d.app.lang}
	root := quiet.root()
	root.SetArgs(args)
	root.SetOut(io.Discard)
	return root.Execute()
}

// freeAddress asks the system for a port; should another process take it
// before the node does, the node's start fails and says so.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// start runs a node as a process of its own, which ends with this one.
func (d *demo) start(ctx context.Context, n *demoNode) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(d.dir, n.id+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	n.process = exec.Command(self, "serve", "--data", n.data, "--passphrase-file", d.passFile, "--json")
	n.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	n.process.Stderr = log
	out, err := n.process.StdoutPipe()
	if err != nil {
		return err
	}
	if err := n.process.Start(); err != nil {
		return err
	}
	line := make(chan ready, 1)
	go func() {
		var r ready
		if b, err := bufio.NewReader(out).ReadBytes('\n'); err == nil && json.Unmarshal(b, &r) == nil {
			line <- r
		}
		close(line)
	}()
	select {
	case r, ok := <-line:
		if !ok || !r.Ready {
			text, _ := os.ReadFile(log.Name()) // only for the message
			return fmt.Errorf("node %s did not start:\n%s", n.id, text)
		}
		n.url = r.REST
	case <-time.After(demoPatience):
		return fmt.Errorf("node %s did not become ready within %s", n.id, demoPatience)
	case <-ctx.Done():
		return ctx.Err()
	}
	n.client = newAPIClient(n.url, n.key)
	d.say("节点 node %s（%s, %s）: 进程 process %d, %s\n", n.id, n.agencyName, n.zone, n.process.Process.Pid, n.url)
	return nil
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
		Title: "关于开展公文交换试点工作的通知", To: []string{string(d.yi.agency)}, Label: "内部", Urgency: "加急",
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
	for _, n := range []*demoNode{d.jia, d.yi} {
		d.say("%s: YIZHAN_SERVER=%s YIZHAN_KEY=%s  code=%s\n", n.agencyName, n.url, n.key, n.agency)
	}
	d.say("按 Ctrl-C 结束 press Ctrl-C to end\n")
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
