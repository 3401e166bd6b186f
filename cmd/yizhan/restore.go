package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/cmd/yizhan/backup"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/queue/blob"
)

// restoringMark stands in a folder that a restore has not finished: one that a
// crash left is recognized by it, and begun anew.
const restoringMark = "RESTORING"

// restoreResult is what backup restore says.
type restoreResult struct {
	snapshotLine
	NewLedger string `json:"new_ledger"`
}

func (a *app) backupRestoreCommand() *cobra.Command {
	data := ""
	c := &cobra.Command{
		Use: "restore REPOSITORY[/SNAPSHOT] --data DIR", Short: "Make a data directory of a copy · 恢复", Args: cobra.ExactArgs(1),
		Long: `DIR must not exist, or be empty. It appears when everything is restored and compared; until
then the work lies in DIR.restoring. The node goes on under a new ledger id, which it
announces to its neighbours at its next start; they give again what they had given it
since the copy was made. Never start the old node again: it would speak with the same keys.`,
		RunE: func(c *cobra.Command, args []string) error {
			if data == "" {
				return usage("--data DIR is needed")
			}
			r, err := a.restore(c.Context(), args[0], filepath.Clean(data))
			if err != nil {
				return backupError(err)
			}
			return a.printCopy(r.snapshotLine, r, "%s\n已恢复到 restored in %s，新台账 new ledger %s\n", r.text(), data, r.NewLedger)
		},
	}
	c.Flags().StringVar(&data, "data", "", "the data directory to make")
	return c
}

// restore works beside the data directory's place and moves it there last. A
// crash before that leaves a folder that the next attempt begins anew; after
// it, everything.
func (a *app) restore(ctx context.Context, from, data string) (r restoreResult, err error) {
	s, err := backup.Open(from)
	if err != nil {
		return r, err
	}
	if err := emptyPlace(data); err != nil {
		return r, err
	}
	staging := data + ".restoring"
	if err := beginStaging(staging); err != nil {
		return r, err
	}
	if err := s.RestoreFiles(staging); err != nil {
		return r, err
	}
	d := dataDir(staging)
	if err := signedByNode(s, d, a.now); err != nil {
		return r, err
	}
	if err := a.restoreStore(ctx, s, d); err != nil {
		return r, err
	}
	if r.NewLedger, err = a.beginAgain(ctx, s, d); err != nil {
		return r, err
	}
	r.snapshotLine = snapshotLineOf(s)
	return r, moveInto(staging, data)
}

// emptyPlace refuses a place where something is.
func emptyPlace(data string) error {
	entries, err := os.ReadDir(data)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && len(entries) > 0 {
		err = exchange.Fail(exchange.CodeSetupConflict, "%s is not empty; nothing was changed. Restore into another folder, or move this one away", data)
	}
	return err
}

func beginStaging(staging string) error {
	mark := filepath.Join(staging, restoringMark)
	if _, err := os.Stat(staging); err == nil {
		if _, err := os.Stat(mark); err != nil {
			return exchange.Fail(exchange.CodeSetupConflict, "%s is in the way, and no restore made it; nothing was changed", staging)
		}
		if err := os.RemoveAll(staging); err != nil {
			return err
		}
	}
	if err := durable.OS.MkdirAll(staging); err != nil {
		return err
	}
	return durable.WriteFile(durable.OS, mark, []byte("yizhan backup restore\n"))
}

func (a *app) restoreStore(ctx context.Context, s *backup.Snapshot, d dataDir) error {
	log := slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	store, err := d.openStore(log)
	if err != nil {
		return err
	}
	blobs, err := blob.OpenAbove(durable.OS, d.path(blobsDir), s.Generation())
	if err == nil {
		err = s.Restore(ctx, backup.Target{Store: store, Blobs: blobs}, a.reportCopy())
	}
	return errors.Join(err, store.Close())
}

// beginAgain gives the restored node its new ledger id.
func (a *app) beginAgain(ctx context.Context, s *backup.Snapshot, d dataDir) (ledger string, err error) {
	stopped, err := a.openStopped(ctx, d, withoutKeys)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, stopped.close()) }()
	old, err := stopped.node.BeginAgain(ctx)
	if err != nil {
		return "", err
	}
	m := s.Manifest
	if stopped.node.ID() != m.Node || old.Ledger != m.Ledger || old.Size != m.Size || old.Root != m.Root {
		return "", fmt.Errorf("%w: the restored ledger is not the one of the manifest", backup.ErrDamaged)
	}
	return stopped.node.LedgerID(), nil
}

// moveInto is the commit point of a restore.
func moveInto(staging, data string) error {
	if err := os.Remove(filepath.Join(staging, restoringMark)); err != nil {
		return err
	}
	if err := durable.OS.SyncDir(staging); err != nil {
		return err
	}
	if err := os.Remove(data); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(staging, data); err != nil {
		return err
	}
	return durable.OS.SyncDir(filepath.Dir(data))
}
