package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// disaster is the demo in which a node's disk is lost: the node is copied while
// it runs, killed in the middle of traffic, its data directory destroyed, and
// restored from the copy.
type disaster struct {
	*demo
	files  []upload
	toYi   []string // documents acknowledged to 示范单位甲
	fromYi []string
	result disasterResult
}

// disasterResult is what --disaster --json prints. Lost counts documents that
// the sender was told of and that the recipient does not have, or whose signed
// end did not come home; duplicated those that lie in an inbox more than once.
type disasterResult struct {
	Acknowledged     int   `json:"acknowledged"`
	BeforeCopy       int   `json:"before_copy"`
	SinceCopy        int   `json:"since_copy"` // acknowledged and delivered since, on the disk that was lost
	DuringLoss       int   `json:"during_loss"`
	Delivered        int   `json:"delivered"`
	SignedFor        int   `json:"signed_for"`
	Lost             int   `json:"lost"`
	Duplicated       int   `json:"duplicated"`
	ReceiptsVerified bool  `json:"receipts_verified"`
	RestoreMS        int64 `json:"restore_ms"` // from the loss to serving again
	ElapsedMS        int64 `json:"elapsed_ms"`
}

const disasterBatch = 10

func (x *disaster) run(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*demoPatience)
	defer cancel()
	x.started = time.Now()
	if x.dir, err = os.MkdirTemp("", "yizhan-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.end()) }()
	if err := x.prepare(); err != nil {
		return err
	}
	if x.files, err = sampleFiles(filepath.Join(x.dir, "out"), x.examples); err != nil {
		return err
	}
	for _, n := range []*pairNode{x.jia, x.yi} {
		if err := x.start(ctx, n); err != nil {
			return err
		}
	}
	steps := []func(context.Context) error{x.beforeCopy, x.sinceCopy, x.duringLoss, x.afterwards}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return x.report()
}

// beforeCopy: some documents arrive, then the node is copied while it runs.
func (x *disaster) beforeCopy(ctx context.Context) error {
	if err := x.sendSome(ctx, x.jia, x.yi, &x.toYi); err != nil {
		return err
	}
	if err := x.arrived(ctx, x.yi, x.toYi); err != nil {
		return err
	}
	x.result.BeforeCopy = len(x.toYi)
	x.say("%s 收到 received %d 件；备份 copying node yi\n", x.yi.agencyName, len(x.toYi))
	return x.command("backup", "create", "--data", x.yi.data, "--to", filepath.Join(x.dir, "copies"))
}

// sinceCopy: what only the disk that will be lost knows, and the neighbour.
func (x *disaster) sinceCopy(ctx context.Context) error {
	if err := x.sendSome(ctx, x.jia, x.yi, &x.toYi); err != nil {
		return err
	}
	if err := x.sendSome(ctx, x.yi, x.jia, &x.fromYi); err != nil {
		return err
	}
	if err := errors.Join(x.arrived(ctx, x.yi, x.toYi), x.arrived(ctx, x.jia, x.fromYi)); err != nil {
		return err
	}
	for _, id := range x.toYi[disasterBatch/2 : disasterBatch*3/2] {
		if err := x.signFor(ctx, x.yi, id); err != nil {
			return err
		}
	}
	x.result.SinceCopy = disasterBatch + len(x.fromYi)
	return x.settled(ctx, x.jia, x.toYi[disasterBatch/2:disasterBatch*3/2])
}

// duringLoss: the sender goes on sending while the receiver dies, loses its disk
// and comes back.
func (x *disaster) duringLoss(ctx context.Context) (err error) {
	var wait sync.WaitGroup
	var sending error
	half := make(chan struct{})
	wait.Go(func() {
		for i := range 2 * disasterBatch {
			if i == disasterBatch {
				close(half)
			}
			if sending = x.sendOne(ctx, x.jia, x.yi, &x.toYi); sending != nil {
				return
			}
		}
	})
	defer func() {
		wait.Wait()
		err = errors.Join(err, sending)
		x.result.DuringLoss = 2 * disasterBatch
	}()
	select {
	case <-half:
	case <-ctx.Done():
		return ctx.Err()
	}
	x.yi.end(syscall.SIGKILL)
	lost := time.Now()
	if err := os.RemoveAll(x.yi.data); err != nil {
		return err
	}
	x.say("节点 yi 被强制终止，数据目录被销毁 node yi was killed and its data destroyed\n")
	if err := x.command("backup", "restore", filepath.Join(x.dir, "copies"), "--data", x.yi.data); err != nil {
		return err
	}
	if err := x.start(ctx, x.yi); err != nil {
		return err
	}
	x.result.RestoreMS = time.Since(lost).Milliseconds()
	return nil
}

// afterwards: everything arrives, everything is signed for, every receipt is at
// home.
func (x *disaster) afterwards(ctx context.Context) error {
	if err := x.arrived(ctx, x.yi, x.toYi); err != nil {
		return err
	}
	for _, id := range x.toYi {
		if err := x.signFor(ctx, x.yi, id); err != nil {
			return err
		}
	}
	for _, id := range x.fromYi {
		if err := x.signFor(ctx, x.jia, id); err != nil {
			return err
		}
	}
	return errors.Join(x.settled(ctx, x.jia, x.toYi), x.settled(ctx, x.yi, x.fromYi))
}

func (x *disaster) sendOne(ctx context.Context, from, to *pairNode, ids *[]string) error {
	return x.send(ctx, from, to, "关于灾难恢复演练的通知", x.files, ids)
}

func (x *disaster) sendSome(ctx context.Context, from, to *pairNode, ids *[]string) error {
	for range disasterBatch {
		if err := x.sendOne(ctx, from, to, ids); err != nil {
			return err
		}
	}
	return nil
}

// report counts everything once more, from both sides.
func (x *disaster) report() error {
	ctx, r := context.Background(), &x.result
	r.Acknowledged, r.ReceiptsVerified = len(x.toYi)+len(x.fromYi), true
	for _, way := range []struct {
		from, to *pairNode
		ids      []string
	}{{x.jia, x.yi, x.toYi}, {x.yi, x.jia, x.fromYi}} {
		in, err := inboxOf(ctx, way.to)
		if err != nil {
			return err
		}
		for _, n := range in {
			r.Duplicated += n - 1
		}
		for _, id := range way.ids {
			t, err := way.from.client.trace(ctx, id)
			if err != nil {
				return err
			}
			signed := t.State == exchange.StateSignedFor
			r.ReceiptsVerified = r.ReceiptsVerified && t.ReceiptsVerified && t.LedgerVerified
			switch {
			case in[id] == 0 || !signed:
				r.Lost++
			default:
				r.Delivered++
				r.SignedFor++
			}
		}
		r.Duplicated += max(0, len(in)-len(way.ids))
	}
	r.ElapsedMS = time.Since(x.started).Milliseconds()
	x.say("已确认 acknowledged %d，送达 delivered %d，丢失 lost %d，重复 duplicated %d，恢复用时 restored in %d ms\n",
		r.Acknowledged, r.Delivered, r.Lost, r.Duplicated, r.RestoreMS)
	if x.app.json {
		if err := json.NewEncoder(x.app.out).Encode(r); err != nil {
			return err
		}
	}
	if r.Lost > 0 || r.Duplicated > 0 || !r.ReceiptsVerified {
		return exchange.Fail(exchange.CodeInternal, "after the loss of a disk %d documents are lost and %d doubled", r.Lost, r.Duplicated)
	}
	return nil
}
