package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/control"
	"github.com/yizhan-gateway/yizhan/cmd/yizhan/backup"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
	"github.com/yizhan-gateway/yizhan/queue/blob"
)

// notCopied is what of a data directory is no file to copy: rows and blobs are
// copied as such, locks and the socket are made anew.
var notCopied = []string{storeDir, blobsDir, uploadsDir, setupLock, serveLock, ballastFile, "control.sock"}

// snapshotLine is a snapshot as the commands show it.
type snapshotLine struct {
	Snapshot string          `json:"snapshot"`
	Node     string          `json:"node"`
	Ledger   string          `json:"ledger"`
	Size     uint64          `json:"size"`
	At       strictjson.Time `json:"at"`
	Rows     int64           `json:"rows"`
	Blobs    int64           `json:"blobs"`
	Bytes    int64           `json:"bytes"`
	Missing  []string        `json:"missing,omitempty"` // blobs that it could not read
}

func snapshotLineOf(s *backup.Snapshot) snapshotLine {
	m := s.Manifest
	return snapshotLine{s.Name, m.Node, m.Ledger, m.Size, m.At, m.Rows.Count, m.Blobs.Count, m.BlobBytes, m.Missing}
}

func (l snapshotLine) text() string {
	text := fmt.Sprintf("%s  %s  节点 node %s  %d 行 rows  %d 个文件块 blobs  %.1f MiB  台账 ledger %d",
		l.Snapshot, l.At.Time().Local().Format(time.DateTime), l.Node, l.Rows, l.Blobs, float64(l.Bytes)/(1<<20), l.Size)
	if len(l.Missing) > 0 {
		text += fmt.Sprintf("  缺 missing %d", len(l.Missing))
	}
	return text
}

// lacks is what a copy does not hold of the node, for people.
func (l snapshotLine) lacks() string {
	if len(l.Missing) == 0 {
		return ""
	}
	text := fmt.Sprintf("缺少 %d 个无法读取的文件块 blobs missing, which could not be read:\n", len(l.Missing))
	for _, ref := range l.Missing {
		text += "  " + ref + "\n"
	}
	return text + "请运行 yizhan fsck --read-data 查明所属公文 · find out with yizhan fsck --read-data whose they are\n"
}

// printCopy prints what was done with a copy; one that lacks something is a warning.
func (a *app) printCopy(line snapshotLine, out any, format string, args ...any) error {
	if err := a.print(out, format+"%s", append(args, line.lacks())...); err != nil {
		return err
	}
	if len(line.Missing) > 0 {
		return verdictError(exitWarnings)
	}
	return nil
}

// copyNode copies a node that is open in this process.
func copyNode(ctx context.Context, n *node.Node, store queue.Store, blobs *blob.Store, d dataDir, repo string, report func(backup.Progress)) (snapshotLine, error) {
	source := backup.Source{
		Domain: n.Directory().Domain(), Node: n.ID(), Ledger: n.LedgerID(), Store: store, Blobs: blobs, Data: string(d),
		Skip: notCopied, Now: n.Now,
		Sign: func(content []byte) ([]byte, error) {
			signer, err := n.Signer()
			if err != nil {
				return nil, err
			}
			return cms.Sign(signer, content, n.Now())
		},
	}
	s, err := backup.Create(ctx, source, repo, report)
	if err != nil {
		return snapshotLine{}, err
	}
	return snapshotLineOf(s), nil
}

// backupOrder is what a running node is asked for.
type backupOrder struct {
	To string `json:"to"`
}

func (g *gateway) backupRoutes(s *control.Server) {
	s.HandleLong("POST /backups", func(ctx context.Context, q *control.Request) (any, error) {
		var o backupOrder
		if err := q.Decode(&o); err != nil {
			return nil, err
		}
		if !filepath.IsAbs(o.To) {
			return nil, exchange.Fail(exchange.CodeBadRequest, "to: an absolute path is expected")
		}
		return copyNode(ctx, g.node, g.store, g.blobs, g.dir, o.To, func(p backup.Progress) { q.Progress(p) })
	})
}

func (a *app) backupCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "backup", Short: "Copy a node while it runs, and restore it · 备份与恢复", Args: cobra.NoArgs,
		Long: `A repository is a folder on another disk. Each copy adds what is new; the newest is the one
that is verified or restored unless another is named. A restored node gets from its
neighbours what they had given it since.`,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.backupCreateCommand(), a.backupListCommand(), a.backupVerifyCommand(), a.backupRestoreCommand())
	return c
}

func (a *app) backupCreateCommand() *cobra.Command {
	f, to, passFile := new(queueFlags), "", ""
	c := &cobra.Command{
		Use: "create --data DIR --to REPOSITORY", Short: "Copy a node into a repository · 备份", Args: cobra.NoArgs,
		Long: `The node goes on meanwhile. A node that is not running is opened for it; then the
passphrase is needed, to sign what was copied. A payload that cannot be read any more is
named, and the copy has all the others; then the exit code is 9.`,
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := f.dir()
			if err != nil {
				return err
			}
			if to == "" {
				return usage("--to REPOSITORY is needed")
			}
			if to, err = filepath.Abs(to); err != nil {
				return err
			}
			line, err := a.createBackup(c.Context(), dir, to, passFile)
			if err != nil {
				return err
			}
			return a.printCopy(line, line, "%s\n", line.text())
		},
	}
	f.add(c)
	c.Flags().StringVar(&to, "to", "", "the repository, a folder on another disk")
	c.Flags().StringVar(&passFile, "passphrase-file", "", "file with the keystore's passphrase (or set "+passphraseEnv+"), for a node that is not running")
	return c
}

func (a *app) createBackup(ctx context.Context, d dataDir, to, passFile string) (line snapshotLine, err error) {
	keys := func(d dataDir) (nodeKeys, error) { return d.openKeys(passFile) }
	report := a.reportCopy()
	err = a.withNode(ctx, d, keys,
		func(c *control.Client) error {
			return c.Call(ctx, http.MethodPost, "/backups", backupOrder{to}, &line, func(b json.RawMessage) {
				var p backup.Progress
				if json.Unmarshal(b, &p) == nil {
					report(p)
				}
			})
		},
		func(s *stoppedNode) (err error) {
			line, err = copyNode(ctx, s.node, s.store, s.blobs, d, to, report)
			return err
		})
	return line, err
}

// reportCopy shows progress now and then.
func (a *app) reportCopy() func(backup.Progress) {
	last := time.Now()
	return func(p backup.Progress) {
		if time.Since(last) < time.Second {
			return
		}
		last = time.Now()
		fmt.Fprintf(a.err, "%d 行 rows, %d/%d 个文件块 blobs, %.1f MiB\n", p.Rows, p.Blobs, p.OfBlobs, float64(p.Bytes)/(1<<20))
	}
}

func (a *app) backupListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls REPOSITORY", Short: "List the copies in a repository · 列出备份", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			list, err := backup.Snapshots(args[0])
			if err != nil {
				return backupError(err)
			}
			lines, text := []snapshotLine{}, new(strings.Builder)
			for _, s := range list {
				lines = append(lines, snapshotLineOf(s))
				fmt.Fprintln(text, snapshotLineOf(s).text())
			}
			return a.print(map[string]any{"snapshots": lines}, "%s", text)
		},
	}
}

func (a *app) backupVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "verify REPOSITORY[/SNAPSHOT]", Short: "Read a copy and compare it with its signed manifest · 校验备份", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := backup.Open(args[0])
			if err == nil {
				err = s.Verify(c.Context(), a.reportCopy())
			}
			if err == nil {
				err = signedByNode(s, dataDir(s.Files()), a.now)
			}
			if err != nil {
				return backupError(err)
			}
			line := snapshotLineOf(s)
			return a.printCopy(line, line, "%s\n完好 intact\n", line.text())
		},
	}
}

// signedByNode says whether a manifest is signed with a certificate that the
// copied directory gives the node.
func signedByNode(s *backup.Snapshot, files dataDir, now nowFunc) error {
	dir, err := files.directory(now)
	if err != nil {
		return err
	}
	self, ok := dir.Node(s.Manifest.Node)
	if !ok || !self.Holds("sign", s.Signer) {
		return exchange.Fail(exchange.CodeSignatureInvalid, "snapshot %s is not signed by node %s", s.Name, s.Manifest.Node)
	}
	return nil
}

// backupError gives what is wrong with a copy a code.
func backupError(err error) error {
	switch {
	case errors.Is(err, backup.ErrNoSnapshot):
		return &exchange.Error{Code: exchange.CodeNotFound, Err: err}
	case errors.Is(err, backup.ErrDamaged):
		return &exchange.Error{Code: exchange.CodeBackupDamaged, Err: err}
	}
	return err
}
