package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/adapters/fileshare"
	"github.com/yizhan-gateway/yizhan/adapters/fileshare/pull"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// importPull is section [pull] of a profile: a share on an SSH server.
type importPull struct {
	URL          string `toml:"url,omitempty" comment:"sftp://用户@主机:22/目录，或 ftp://（口令与内容为明文） FTP sends all in clear"`
	HostKey      string `toml:"host_key,omitempty" comment:"服务器公钥指纹 the server's key as ssh-keygen -l shows it: SHA256:…"`
	Identity     string `toml:"identity,omitempty" comment:"私钥文件 a private key file without a passphrase; or"`
	PasswordFile string `toml:"password_file,omitempty" comment:"口令文件 a file with the password"`
	Sentinel     string `toml:"sentinel,omitempty" comment:"服务器目录中必有的文件 a file of the server's folder that must be there"`
	Remove       bool   `toml:"remove,omitempty" comment:"true: 取到本地后从服务器删除 remove files there once they are here"`
	MaxMiB       int64  `toml:"max_mib,omitempty" comment:"MiB of one file; 0: 4096"`
}

const mostPulled = 4096 // MiB

func (p *importPull) dial() (pull.Connection, error) {
	login, err := pull.ParseURL(p.URL)
	if err != nil {
		return nil, usageError{err}
	}
	if login.HostKey = p.HostKey; p.Sentinel == "" || login.Plain && p.PasswordFile == "" || p.Identity == "" && p.PasswordFile == "" {
		return nil, usage("[pull] needs sentinel, and host_key with identity or password_file; ftp needs password_file")
	}
	if p.Identity != "" {
		login.Key, err = durable.ReadFile(durable.OS, p.Identity, 64<<10)
	} else {
		var b []byte
		b, err = durable.ReadFile(durable.OS, p.PasswordFile, 4096)
		login.Password = strings.TrimRight(string(b), "\r\n")
	}
	if err != nil {
		return nil, err
	}
	return pull.Dial(login)
}

// puller is the source of a profile, over a connection.
func (i *imports) puller(from pull.Source, now nowFunc) *pull.Puller {
	p := &i.p.Pull
	most := p.MaxMiB
	if most <= 0 {
		most = mostPulled
	}
	if i.sights == nil {
		i.sights = pull.New(pull.Config{
			Into: i.p.Share, Sentinel: p.Sentinel, Depth: i.p.Depth, Quiet: i.p.quiet(), Remove: p.Remove, MaxFile: most << 20,
			Skip: func(name string) bool { return fileshare.LeftOut(name, i.p.Exclude) }, Ledger: i.store, Now: now,
		})
	}
	i.sights.Over(from)
	return i.sights
}

func (p *importProfile) quiet() time.Duration {
	if p.Quiet > 0 {
		return time.Duration(p.Quiet)
	}
	return fileshare.DefaultQuiet
}

// fetch brings what stands still at the source since an earlier look.
func (i *imports) fetch(ctx context.Context, now nowFunc) error { return i.fetchOver(ctx, now, 0) }

// fetchOnce lets the quiet period pass by itself.
func (i *imports) fetchOnce(ctx context.Context, now nowFunc) error {
	return i.fetchOver(ctx, now, i.p.quiet())
}

func (i *imports) fetchOver(ctx context.Context, now nowFunc, wait time.Duration) (err error) {
	if i.p.Pull.URL == "" {
		return nil
	}
	from, err := i.p.Pull.dial()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	p := i.puller(from, now)
	if err := p.Look(ctx); err != nil {
		return err
	}
	if wait > 0 {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	r, err := p.Pull(ctx)
	if r.Refused > 0 {
		fmt.Fprintf(i.said, "yizhan: %d files at %s are larger than max_mib and stay there\n", r.Refused, i.p.Pull.URL)
	}
	return err
}
