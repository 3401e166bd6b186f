package main

import (
	"bytes"
	"crypto/subtle"
	"encoding/hex"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

type joinFlags struct{ data, directory, fingerprint string }

func (a *app) joinCommand() *cobra.Command {
	f := new(joinFlags)
	c := &cobra.Command{
		Use:   "join --data DIR --directory FILE --fingerprint TEXT",
		Short: "Join a domain: install its first directory, trusted by its fingerprint · 加入信任域",
		Long: `Installs the first directory of a node. The file may come over any way; that it is
the authority's is told by its fingerprint, which somebody at the authority reads
out over the phone and you enter here, all 64 digits of it (spaces do not
matter). Without --fingerprint the file's is printed and nothing is installed.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if f.data == "" || f.directory == "" {
				return usage("--data DIR and --directory FILE are needed")
			}
			return a.join(f)
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.data, "data", "", "the node's data directory, made with yizhan init")
	fl.StringVar(&f.directory, "directory", "", "directory file")
	fl.StringVar(&f.fingerprint, "fingerprint", "", "fingerprint of the authority's certificate, as it was read out to you")
	return c
}

func (a *app) join(f *joinFlags) error {
	d := dataDir(f.data)
	s, err := d.settings()
	if err != nil {
		return err
	}
	file, err := durable.ReadFile(durable.OS, f.directory, certs.MaxDirectory)
	if err != nil {
		return err
	}
	// Whoever made the file: it is what it says, and of this node's domain. Only
	// the fingerprint says who made it.
	authority, err := certs.SignerOf(file)
	if err != nil {
		return err
	}
	dir, err := certs.LoadDirectory(file, authority, 0, time.Now())
	if err != nil {
		return err
	}
	if err := s.ofDomain(dir); err != nil {
		return err
	}
	if f.fingerprint == "" {
		return a.askFingerprint(dir)
	}
	if err := sameFingerprint(f.fingerprint, authority, dir.Former()); err != nil {
		return err
	}
	err = d.changing(func() error {
		shelf, err := d.shelfToInstall(s, time.Now)
		if err != nil {
			return err
		}
		if had := shelf.Current(); had != nil && !bytes.Equal(had.Authority(), authority) {
			return exchange.Fail(exchange.CodeSetupConflict, "this node has joined already, and trusts the authority with fingerprint %s; nothing was changed. If the domain begins anew with another authority: yizhan init --directory FILE --authority FILE", had.Fingerprint())
		}
		dir, err = shelf.Trust(authority, file)
		return err
	})
	if err != nil {
		return err
	}
	out := map[string]any{"joined": true, "domain": dir.Domain(), "version": dir.Version(), "fingerprint": dir.Fingerprint()}
	say := words(a.language())
	return a.print(out, say("joined %s; directory version %d is installed\nnext: yizhan serve --data %s\n", "已加入 %s，名录第 %d 版已安装\n下一步：yizhan serve --data %s\n"), dir.Domain(), dir.Version(), f.data)
}

// askFingerprint shows what is to be compared.
func (a *app) askFingerprint(dir *certs.Directory) error {
	say := words(a.language())
	out := map[string]any{"joined": false, "domain": dir.Domain(), "version": dir.Version(), "fingerprint": dir.Fingerprint()}
	err := a.print(out, say("authority's fingerprint in this file:\n%s\n", "该文件中名录机构的指纹：\n%s\n"), dir.Fingerprint())
	if err != nil {
		return err
	}
	return usage("%s", say("nothing was installed: call the authority, have its fingerprint read out, and enter what you hear with --fingerprint",
		"未安装：请致电名录机构，请对方读出指纹，并将听到的内容用 --fingerprint 输入"))
}

// sameFingerprint compares what a person entered with the fingerprint of a
// certificate. All of it counts: an attacker finds a certificate with a part
// of a fingerprint, and none with all of it. That of a former certificate does
// not do: who stole that key makes heirs, too.
func sameFingerprint(entered string, der []byte, former [][]byte) error {
	text := spaceless(entered)
	b, err := hex.DecodeString(text)
	if want := sm.Sum(der); err != nil || len(b) != len(want) {
		return usage("--fingerprint: all %d digits (0-9, a-f) are needed, and %d characters were entered; a part of a fingerprint proves nothing", 2*len(want), len([]rune(text)))
	} else if slices.ContainsFunc(former, func(old []byte) bool { return bytes.Equal(b, digestOf(old)) }) {
		return exchange.Fail(exchange.CodeFingerprint, "what was entered is the fingerprint of a certificate that the authority has replaced: have the one read out that yizhan directory show prints at the authority; nothing was installed")
	} else if subtle.ConstantTimeCompare(b, want[:]) != 1 {
		return exchange.Fail(exchange.CodeFingerprint, "what was entered is not the fingerprint of this file's authority; nothing was installed")
	}
	return nil
}

func digestOf(der []byte) []byte {
	sum := sm.Sum(der)
	return sum[:]
}
