package main

import (
	"context"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/queue/staging"
)

const (
	uploadsDir = "uploads"

	uploadGiB   = 10
	uploadKeep  = 72 * time.Hour
	uploadFiles = 20 // that are under way, of one agency
	uploadSweep = 10 * time.Minute
)

// uploadSettings is the table [uploads] of config.toml: files that come in pieces.
type uploadSettings struct {
	MaxGiB int64    `toml:"max_gib,omitempty" comment:"GiB of one file that comes by resumable upload; 0: 10"`
	Keep   duration `toml:"keep,omitempty" comment:"how long an unfinished one waits for its next piece; empty: 72h"`
}

func (u *uploadSettings) check(file string) error {
	if u.MaxGiB < 0 || u.MaxGiB > 1024 || u.Keep < 0 {
		return exchange.Fail(exchange.CodeBadRequest, "%s: [uploads] max_gib is from 0 to 1024, and keep a time such as \"72h\"", file)
	}
	return nil
}

func (g *gateway) openUploads() (*staging.Store, error) {
	u := g.settings.Uploads
	c := staging.Config{
		Dir: g.dir.path(uploadsDir), Sealer: g.keys, Room: g.space.room, MaxSize: u.MaxGiB << 30, MaxFiles: uploadFiles, Keep: time.Duration(u.Keep),
	}
	if c.MaxSize == 0 {
		c.MaxSize = uploadGiB << 30
	}
	if c.Keep == 0 {
		c.Keep = uploadKeep
	}
	return staging.Open(c)
}

// sweepUploads removes files that nobody went on with.
func (g *gateway) sweepUploads(ctx context.Context) {
	for {
		n, err := g.staging.Sweep()
		if err != nil {
			g.log.Error("removing ended uploads failed", "error", err)
		}
		if n > 0 {
			g.log.Info("removed uploads that ended", "count", n)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(uploadSweep):
		}
	}
}
