package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/export"
	"github.com/yizhan-gateway/yizhan/adapters/rest"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// exportEvery is how long a watching export waits between two looks; the inbox is
// waited on, so this is about what was sent.
const exportEvery = 30 * time.Second

func (a *app) exportCommand() *cobra.Command {
	var f clientFlags
	var watch bool
	var every time.Duration
	c := &cobra.Command{
		Use: "export DIR", Short: "Write received documents and receipts into a folder · 导出到文件夹",
		Long: `Write what came to an agency into a folder, each document in one of its own with its files, a
manifest, its metadata and its proof, and below sent/ the status and proof of what it sent. A document
appears whole and once, also when the program or the machine ends meanwhile; what is taken away does
not come again. Collecting is recorded; signing for stays with a person (yizhan sign-for, or the page).`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := f.client()
			if err != nil {
				return err
			}
			client.http.Timeout = 0 // see exportSilence
			if every < time.Second {
				return usage("--every is at least 1s")
			}
			return a.export(c.Context(), args[0], client, watch, every)
		},
	}
	f.add(c)
	c.Flags().BoolVar(&watch, "watch", false, "go on until stopped")
	c.Flags().DurationVar(&every, "every", exportEvery, "with --watch: how often it looks")
	return c
}

// export opens the folder anew for each look: after an error its journal may end in
// what is no line, which opening mends.
func (a *app) export(ctx context.Context, dir string, client *apiClient, watch bool, every time.Duration) error {
	for {
		s, err := exportOnce(ctx, dir, client)
		if !watch {
			if err != nil {
				return err
			}
			return a.printExport(s)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && exchange.IsTemporary(err):
			fmt.Fprintf(a.err, "yizhan: %v; trying again in %s\n", err, every)
		case err != nil:
			return err
		case s.Received+s.Sent+s.Waiting > 0:
			if err := a.printExport(s); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(every):
		}
	}
}

func (a *app) printExport(s export.Summary) error {
	return a.print(s, "received %d, sent updated %d, outstanding %d, waiting for their place %d\n收文 %d，发文更新 %d，未办结 %d，因位置被占而等待 %d\n",
		s.Received, s.Sent, s.Open, s.Waiting, s.Received, s.Sent, s.Open, s.Waiting)
}

func exportOnce(ctx context.Context, dir string, client *apiClient) (s export.Summary, err error) {
	state := dataDir(filepath.Join(dir, ".yizhan"))
	if err := durable.OS.MkdirAll(string(state)); err != nil {
		return s, err
	}
	release, err := state.hold("lock", servePatience, "another export writes into the folder of %s")
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, release()) }()
	folder, err := export.Open(export.Config{Dir: dir, Node: exportNode{client}})
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	return folder.Run(ctx)
}

// exportNode is a node, through its REST interface, as an export asks it.
type exportNode struct{ c *apiClient }

func (n exportNode) Received(ctx context.Context, after uint64) ([]export.Document, error) {
	var in inboxList
	if err := n.ask(ctx, fmt.Sprintf("/v1/inbox?after=%d&limit=100", after), &in); err != nil {
		return nil, err
	}
	out := make([]export.Document, len(in.Items))
	for i := range in.Items {
		out[i] = exported(&in.Items[i])
	}
	return out, nil
}

func exported(r *rest.Received) export.Document {
	d := export.Document{
		Seq: r.Seq, ID: r.Document, Sender: r.Sender, SenderName: r.SenderName, Title: r.Title, Number: r.Number, Label: r.LabelZH,
		Urgency: exchange.Urgency(r.Urgency).Chinese(), Kind: exchange.Kind(r.Kind).Chinese(),
		DueAt: r.DueAt, Received: r.Received, RelatesTo: r.RelatesTo,
	}
	for _, f := range r.Files {
		d.Files = append(d.Files, export.File{Index: f.Index, Role: f.Role, Name: f.Name, Type: f.Type, Size: f.Size, SM3: f.SM3.String()})
	}
	return d
}

func (n exportNode) Content(ctx context.Context, document string, file int) (io.ReadCloser, error) {
	return n.open(ctx, fmt.Sprintf("/v1/inbox/%s/files/%d", url.PathEscape(document), file))
}

func (n exportNode) Evidence(ctx context.Context, document string) (io.ReadCloser, error) {
	return n.open(ctx, "/v1/documents/"+url.PathEscape(document)+"/evidence")
}

func (n exportNode) ask(ctx context.Context, path string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, exportSilence)
	defer cancel()
	return n.c.json(ctx, http.MethodGet, path, nil, out)
}

// exportSilence is how long a node may take for an answer, or bring no byte of a file.
const exportSilence = time.Minute

// open reads as long as bytes come: a large document may take hours.
func (n exportNode) open(ctx context.Context, path string) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &stream{cancel: cancel, silence: time.AfterFunc(exportSilence, cancel)}
	res, err := n.c.call(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		s.stop()
		return nil, err
	}
	s.body = res.Body
	return s, nil
}

type stream struct {
	body    io.ReadCloser
	cancel  context.CancelFunc
	silence *time.Timer
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	s.silence.Reset(exportSilence)
	if err != nil && err != io.EOF {
		err = &exchange.Error{Code: exchange.CodeTemporary, Temporary: true, Detail: "the node's answer ended early", Err: err}
	}
	return n, err
}

func (s *stream) stop() {
	s.silence.Stop()
	s.cancel()
}

func (s *stream) Close() error {
	defer s.stop()
	return s.body.Close()
}

func (n exportNode) Sent(ctx context.Context, behind string) ([]string, error) {
	var list struct {
		Items []rest.Sent `json:"items"`
	}
	if err := n.ask(ctx, "/v1/documents?limit=100&after="+url.QueryEscape(behind), &list); err != nil {
		return nil, err
	}
	out := make([]string, len(list.Items))
	for i := range list.Items {
		out[i] = list.Items[i].Document
	}
	return out, nil
}

func (n exportNode) Status(ctx context.Context, document string) (*export.Status, error) {
	var t node.Trace
	if err := n.ask(ctx, "/v1/documents/"+url.PathEscape(document)+"/trace", &t); err != nil {
		return nil, err
	}
	s := &export.Status{
		Title: t.Title, Number: t.Number, State: t.StateChinese, Receipts: t.Receipts,
		Ended: t.State == exchange.StateSignedFor || t.State == exchange.StateEnded,
	}
	for _, r := range t.Recipients {
		s.Recipients = append(s.Recipients, export.Recipient{
			Agency: r.Agency, Name: r.Name, Stage: r.Stage.Chinese(), At: r.At.Time(), Reason: r.Reason,
		})
	}
	return s, nil
}
