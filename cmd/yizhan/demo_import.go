package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/yizhan-gateway/yizhan/adapters/fileshare"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// importing is the demo of a share: a folder is taken in by a real node, twice. The
// folder is only read.
type importing struct {
	*demo
	share string
}

// importedResult is what --import --json prints.
type importedResult struct {
	Submitted   int               `json:"submitted"`
	Quarantined int               `json:"quarantined"`
	Duplicates  int               `json:"duplicates"`
	Second      int               `json:"second_run_submitted"`
	Report      []fileshare.Entry `json:"report"`
}

func (d *importing) run(ctx context.Context) (err error) {
	if d.dir, err = os.MkdirTemp("", "yizhan-demo-"); err != nil {
		return err
	}
	profile, err := d.profile()
	if err != nil {
		return errors.Join(err, os.RemoveAll(d.dir))
	}
	defer func() { err = errors.Join(err, d.end()) }()
	if err := d.prepare(); err != nil {
		return err
	}
	for _, n := range []*pairNode{d.jia, d.yi} {
		defer n.end(syscall.SIGTERM)
		if err := d.start(ctx, n); err != nil {
			return err
		}
	}
	profile.Node, profile.KeyFile = d.jia.url, filepath.Join(d.dir, "import.key")
	if err := os.WriteFile(profile.KeyFile, []byte(d.jia.key), 0o600); err != nil {
		return err
	}
	out, err := d.twice(ctx, profile)
	if err != nil {
		return err
	}
	if err := d.arrived(ctx, out); err != nil {
		return err
	}
	if d.app.json {
		return json.NewEncoder(d.app.out).Encode(out)
	}
	d.say("\n%s", importText(&importResult{Attention: out.attention(), Summary: fileshare.Summary{Submitted: out.Submitted, Quarantined: out.Quarantined, Duplicates: out.Duplicates}}))
	d.say("第二次导入新提交 submitted by a second run: %d\n", out.Second)
	return nil
}

// profile reads a folder of which nothing is known: lists where there are some, else
// the rules, and 示范单位乙 as the recipient that nobody named. A file that is there
// stands for the sentinel.
func (d *importing) profile() (*importProfile, error) {
	share, err := filepath.Abs(d.share)
	if err != nil {
		return nil, err
	}
	sentinel, err := anyFile(share)
	if err != nil {
		return nil, err
	}
	return &importProfile{
		Share: share, Sentinel: sentinel, ReadOnly: true, State: filepath.Join(d.dir, "import"), Depth: 8,
		Quiet: duration(time.Second), Defaults: importDefaults{Label: string(exchange.Internal), To: []string{"示范单位乙"}}, Rules: importRules{On: true},
	}, nil
}

func anyFile(dir string) (string, error) {
	found := ""
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		if found, err = filepath.Rel(dir, path); err == nil {
			err = fs.SkipAll
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return "", exchange.Fail(exchange.CodeNotFound, "%s", dir)
	}
	if err == nil && found == "" {
		err = usage("--import %s: there is no file in it; an empty share is taken for one that is not mounted", dir)
	}
	return found, err
}

// twice runs the import, and again as another process would: over the same ledger and
// with nothing else of the first.
func (d *importing) twice(ctx context.Context, p *importProfile) (*importedResult, error) {
	first, entries, err := d.through(ctx, p)
	if err != nil {
		return nil, err
	}
	d.say("第一次导入 first run: %d 份已提交 submitted\n", first.Submitted)
	second, _, err := d.through(ctx, p)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(entries, func(a, b fileshare.Entry) int {
		return cmp.Or(cmp.Compare(a.Manifest, b.Manifest), cmp.Compare(a.Row, b.Row), slices.Compare(a.Files, b.Files))
	})
	return &importedResult{first.Submitted, first.Quarantined, first.Duplicates, second.Submitted, entries}, nil
}

func (d *importing) through(ctx context.Context, p *importProfile) (_ fileshare.Summary, entries []fileshare.Entry, err error) {
	node, err := p.node()
	if err != nil {
		return fileshare.Summary{}, nil, err
	}
	log := slog.New(slog.NewTextHandler(d.app.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	store, err := p.ledger(log)
	if err != nil {
		return fileshare.Summary{}, nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	c := p.config(log, d.app.now)
	c.SentinelCounts, c.Detect = true, true
	entries = []fileshare.Entry{}
	bar := d.app.newProgressBar()
	c.Progress = func(e fileshare.Entry, s fileshare.Summary) {
		bar.show(s)
		entries = append(entries, e)
	}
	i, err := fileshare.Open(c, store, node)
	if err != nil {
		return fileshare.Summary{}, nil, err
	}
	s, err := i.Run(ctx)
	bar.end()
	return s, entries, err
}

// mostFollowed is how many documents are followed to their recipients.
const mostFollowed = 20

// arrived waits until documents that were submitted are delivered.
func (d *importing) arrived(ctx context.Context, r *importedResult) error {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	n := 0
	for _, e := range r.Report {
		if e.Outcome != fileshare.Submitted || n == mostFollowed {
			continue
		}
		n++
		if err := d.delivered(ctx, e.Document); err != nil {
			return fmt.Errorf("document %s: %w", e.Document, err)
		}
	}
	d.say("其中 %d 份已逐一核对到达 of them %d were followed to their recipients\n", n, n)
	return nil
}

func (d *importing) delivered(ctx context.Context, document string) error {
	for {
		t, err := d.jia.client.trace(ctx, document)
		if err != nil {
			return err
		}
		waiting := slices.ContainsFunc(t.Recipients, func(r exchange.RecipientState) bool { return r.Stage != exchange.StageDelivered })
		if !waiting && t.ReceiptsVerified {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *importedResult) attention() (out []fileshare.Entry) {
	for _, e := range r.Report {
		if e.Outcome != fileshare.Submitted {
			out = append(out, e)
		}
	}
	return out
}
