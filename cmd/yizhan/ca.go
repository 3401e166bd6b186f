package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/config"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

func (a *app) caCommand() *cobra.Command {
	var passFile string
	c := &cobra.Command{Use: "ca", Short: "The domain's authority: certificates and directory · 名录机构"}
	c.PersistentFlags().StringVar(&passFile, "passphrase-file", "", "file with the authority's passphrase (or set "+passphraseEnv+")")
	c.AddCommand(a.caInit(&passFile), a.caAdmit(&passFile), a.caRemove(&passFile), a.caLink(&passFile), a.caRoute(&passFile), a.caInspection(&passFile), a.caAgency(&passFile), a.caTSA(&passFile),
		a.caPolicy(&passFile), a.caSucceed(&passFile), a.publishCommand(&passFile), a.caShow())
	c.AddCommand(a.caCertificates(&passFile)...)
	return c
}

func openAuthority(dir, passFile string) (*certs.Authority, error) {
	pass, err := keystore.Passphrase(passFile, passphraseEnv)
	if err != nil {
		return nil, err
	}
	places, err := authoritySettings(dir)
	if err != nil {
		return nil, err
	}
	authority, err := certs.OpenAuthorityWith(dir, func(keys string) (*keystore.Store, error) { return places.open(keys, pass) }, rand.Reader)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, exchange.Fail(exchange.CodeNotFound, "%s is not an authority's directory; make one with yizhan ca init", dir)
	}
	return authority, err
}

func (a *app) caInit(passFile *string) *cobra.Command {
	var domain string
	var f keystoreFlags
	c := &cobra.Command{
		Use: "init DIR --domain NAME", Short: "Make a new authority", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if domain == "" {
				return usage("--domain NAME is needed")
			}
			pass, err := keystore.Passphrase(*passFile, passphraseEnv)
			if err != nil {
				return err
			}
			places, err := f.settings()
			if err != nil {
				return err
			}
			authority, err := initAuthority(args[0], domain, places, pass)
			if err != nil {
				return err
			}
			print := certs.Fingerprint(authority.Certificate())
			out := map[string]string{"domain": domain, "certificate": filepath.Join(args[0], authorityFile), "fingerprint": print}
			return a.print(out, "authority of %s\ncertificate: %s\nfingerprint: %s\n", domain, out["certificate"], print)
		},
	}
	c.Flags().StringVar(&domain, "domain", "", "the trust domain's name")
	f.register(c)
	return c
}

// initAuthority makes an authority whose keys are where places says. That is
// written down before its certificate, the last of its files: a crash in
// between leaves a directory that nothing takes for an authority's.
func initAuthority(dir, domain string, places *keystoreSettings, secret []byte) (*certs.Authority, error) {
	create := func(keys string) (*keystore.Store, error) {
		s, _, err := places.create(keys, secret)
		if err != nil || places.mode() == modeFile {
			return s, err
		}
		b, err := config.Encode(&authorityConfig{Keystore: *places})
		if err == nil {
			err = durable.WriteFile(durable.OS, filepath.Join(dir, configFile), b)
		}
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		return s, nil
	}
	return certs.InitAuthorityWith(dir, domain, create, rand.Reader, time.Now())
}

// authorityConfig is config.toml of an authority whose keys are in an HSM; one
// with its keys in files has none.
type authorityConfig struct {
	Keystore keystoreSettings `toml:"keystore"`
}

func authoritySettings(dir string) (*keystoreSettings, error) {
	var c authorityConfig
	err := config.Load(filepath.Join(dir, configFile), &c)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return &c.Keystore, nil
}

func (a *app) caLink(passFile *string) *cobra.Command {
	l := certs.Link{Kind: "https"}
	c := &cobra.Command{
		Use: "link DIR NODE NODE", Short: "Let two nodes be neighbours", Args: cobra.ExactArgs(3),
		RunE: func(_ *cobra.Command, args []string) error {
			authority, err := openAuthority(args[0], *passFile)
			if err != nil {
				return err
			}
			l.A, l.B = args[1], args[2]
			if l.Dialer == "" {
				l.Dialer = l.A
			}
			label, err := exchange.ParseLabel(l.Ceiling)
			if err != nil || label.StateSecret() {
				return usage("--ceiling: one of public 公开, internal 内部, work_secret 工作秘密 is expected")
			}
			l.Ceiling = string(label)
			if err := authority.AddLink(l); err != nil {
				return err
			}
			out := map[string]string{"a": l.A, "b": l.B, "dialer": l.Dialer}
			if l.OneWay != "" {
				out["oneway"] = l.OneWay
				return a.print(out, "%s and %s are neighbours; only %s sends, and nothing comes back\n", l.A, l.B, l.OneWay)
			}
			return a.print(out, "%s and %s are neighbours; %s dials\n", l.A, l.B, l.Dialer)
		},
	}
	c.Flags().StringVar(&l.Dialer, "dialer", "", "the node that dials (default: the first)")
	c.Flags().StringVar(&l.Kind, "kind", "https", "how bytes pass: https, or ferry (files over a gate or on media)")
	c.Flags().StringVar(&l.Ceiling, "ceiling", "internal", "highest label that may pass")
	c.Flags().StringVar(&l.OneWay, "one-way", "", "with --kind ferry: the node that sends; nothing comes back over the link")
	c.Flags().StringVar(&l.ID, "name", "", "the link's name (default: made of the nodes)")
	return c
}

func (a *app) caRoute(passFile *string) *cobra.Command {
	return &cobra.Command{
		Use: "route DIR FROM TO NEXT", Short: "What is for node TO goes from node FROM to its neighbour NEXT", Args: cobra.ExactArgs(4),
		RunE: func(_ *cobra.Command, args []string) error {
			authority, err := openAuthority(args[0], *passFile)
			if err != nil {
				return err
			}
			if err := authority.AddRoute(args[1], args[2], args[3]); err != nil {
				return err
			}
			return a.print(map[string]string{"from": args[1], "to": args[2], "next": args[3]}, "from %s to %s by %s\n", args[1], args[2], args[3])
		},
	}
}

func (a *app) caInspection(passFile *string) *cobra.Command {
	var one certs.Inspection
	var remove bool
	c := &cobra.Command{
		Use: "inspection DIR --node NODE [--link LINK]", Short: "Let a node look into what passes its links · 设置内容检查点", Args: cobra.ExactArgs(1),
		Long: `Names an inspection point: NODE looks into the documents that pass LINK, either
way, or without --link any of its links (docs/inspection.md). NODE is an end of
the link. Senders seal what goes there for the inspection point too, from the
directory on that names it; what comes without its key is refused.`,
		RunE: func(_ *cobra.Command, args []string) error {
			if one.Node == "" {
				return usage("--node: the id of a node is expected")
			}
			authority, err := openAuthority(args[0], *passFile)
			if err != nil {
				return err
			}
			word := words(a.language())
			change, does := authority.AddInspection, word("inspects", "检查")
			if remove {
				change, does = authority.RemoveInspection, word("does not inspect any more", "不再检查")
			}
			if err := change(one); err != nil {
				return err
			}
			link := one.Link
			if link == "" {
				link = word("all its links", "其全部链路")
			}
			return a.print(map[string]any{"node": one.Node, "link": one.Link, "removed": remove}, "%s %s %s\n", one.Node, does, link)
		},
	}
	c.Flags().StringVar(&one.Node, "node", "", "the inspection point")
	c.Flags().StringVar(&one.Link, "link", "", "the link it guards (default: all its links)")
	c.Flags().BoolVar(&remove, "remove", false, "it does so no more")
	return c
}

func (a *app) caShow() *cobra.Command {
	return &cobra.Command{
		Use: "show DIR", Short: "Show the published directory", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			d, err := publishedAt(args[0])
			if err != nil {
				return err
			}
			v := viewOf(d, a.now())
			if err := v.addHeir(args[0], d); err != nil {
				return err
			}
			type line struct {
				Code string `json:"code"`
				Name string `json:"name"`
				Node string `json:"node"`
			}
			out := struct {
				Domain      string `json:"domain"`
				Version     uint64 `json:"version"`
				Fingerprint string `json:"fingerprint"`
				Stale       bool   `json:"stale"`
				Agencies    []line `json:"agencies"`

				Authorities []authorityCertificateView `json:"authority_certificates"`
			}{d.Domain(), d.Version(), d.Fingerprint(), v.Stale, []line{}, v.Authorities}
			text := fmt.Sprintf("%s, version %d\nfingerprint: %s\n%s", d.Domain(), d.Version(), d.Fingerprint(), v.otherAuthorities(words(a.language())))
			for _, g := range d.Agencies() {
				out.Agencies = append(out.Agencies, line{g.Code, g.Name, g.Node})
				text += fmt.Sprintf("%s  %s  (%s)\n", g.Code, g.Name, g.Node)
			}
			return a.print(out, "%s", text)
		},
	}
}
