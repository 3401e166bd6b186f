package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// administratorEnv is the passphrase of an administrator's own keystore, where
// it is not that of the authority.
const administratorEnv = "YIZHAN_ADMINISTRATOR_PASSPHRASE"

// readAuthority opens an authority's directory without its keys.
func readAuthority(dir string) (*certs.Authority, error) {
	authority, err := certs.ReadAuthority(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, exchange.Fail(exchange.CodeNotFound, "%s is not an authority's directory; make one with yizhan ca init", dir)
	}
	return authority, err
}

// approvals gives lacking approvals their code, and with it exit code 5.
func approvals(err error) error {
	var ce *certs.Error
	if errors.As(err, &ce) && errors.Is(ce, certs.ErrApproval) {
		return exchange.Fail(exchange.CodeApproval, "%s", ce.Detail)
	}
	return err
}

// publishFlags are those of "ca publish" and "directory publish".
type publishFlags struct {
	output string
	dry    bool
	skip   bool   // above was given
	above  uint64 // see certs.Authority.NumberAbove
}

// publishCommand signs the next version; "ca publish" and "directory publish"
// are the same.
func (a *app) publishCommand(passFile *string) *cobra.Command {
	f := new(publishFlags)
	c := &cobra.Command{
		Use: "publish DIR", Short: "Sign the next version of the directory · 发布名录", Args: cobra.ExactArgs(1),
		Long: `Signs the next version of the directory, if as many administrators have approved it
as the policy asks for.

When the authority's folder came from a backup, versions that nodes have may be
missing in it, and nodes refuse what is numbered like them or lower. --version-above
with the highest of those numbers makes the next one greater; administrators see it
and approve it. docs/operations.md says what else a backup may have lost.`,
		RunE: func(c *cobra.Command, args []string) error {
			f.skip = c.Flags().Changed("version-above")
			if f.dry {
				return a.publishDry(args[0], f)
			}
			return a.publish(args[0], *passFile, f)
		},
	}
	c.Flags().StringVarP(&f.output, "output", "o", "", "write a copy here")
	c.Flags().BoolVar(&f.dry, "dry-run", false, "change nothing, and say what would be published (no passphrase is needed)")
	c.Flags().Uint64Var(&f.above, "version-above", 0, "highest version that was lost with a backup: the next one is numbered above it")
	return c
}

func (a *app) publish(dir, passFile string, f *publishFlags) error {
	authority, err := openAuthority(dir, passFile)
	if err != nil {
		return err
	}
	if f.skip {
		if err := authority.NumberAbove(f.above, true); err != nil {
			return err
		}
	}
	file, err := authority.Publish(a.now())
	if err != nil {
		return approvals(err)
	}
	if f.output != "" {
		if err := durable.WriteFile(durable.OS, f.output, file); err != nil {
			return err
		}
	}
	d, err := certs.LoadDirectory(file, authority.Certificate(), 0, a.now())
	if err != nil {
		return err
	}
	out := publishedView(dir, d)
	return a.print(out, "directory version %d with %d agencies: %s\nSM3 of the list: %s\n", d.Version(), len(d.Agencies()), out["file"], out["list"])
}

func publishedView(dir string, d *certs.Directory) map[string]any {
	return map[string]any{
		"version": d.Version(), "file": filepath.Join(dir, directoryFile), "agencies": len(d.Agencies()), "approved_by": append([]string{}, d.Approvals()...),
		"list": d.ID().String(), "issued": d.Issued(), "next_update": d.NextUpdate(),
	}
}

// publishDry shows what would be published, and ends as publishing would. What
// needs no approvals is issued when it is published: its times and SM3 are not
// these.
func (a *app) publishDry(dir string, f *publishFlags) error {
	authority, err := readAuthority(dir)
	if err != nil {
		return err
	}
	if f.skip {
		if err := authority.NumberAbove(f.above, false); err != nil {
			return err
		}
	}
	draft, d, err := a.draftBy(authority, "")
	if err != nil {
		return err
	}
	missing := approvals(draft.Approved())
	out := publishedView(dir, draft.Directory)
	out["dry_run"], out["changes"], out["would_publish"] = true, d.Changes, missing == nil
	say := words(a.language())
	text := d.text(a.language())
	if missing == nil {
		text += fmt.Sprintf(say("version %d with %d agencies would be published: %s\n", "将发布第 %d 版，单位 %d 个：%s\n"), draft.Directory.Version(), len(draft.Directory.Agencies()), out["file"])
	}
	if missing == nil && len(draft.Directory.Approvals()) == 0 {
		text += say("it is issued when it is published: its times and SM3 are then others\n", "名录在发布时签发：届时时间与 SM3 将不同\n")
	}
	text += say("dry run: nothing was changed\n", "试运行：未作任何更改\n")
	if err := a.print(out, "%s", text); err != nil {
		return err
	}
	return missing
}

func (a *app) directoryPublish() *cobra.Command {
	var passFile string
	c := a.publishCommand(&passFile)
	c.Flags().StringVar(&passFile, "passphrase-file", "", "file with the authority's passphrase (or set "+passphraseEnv+")")
	return c
}

func (a *app) directoryAdministrator() *cobra.Command {
	var name, keysDir, keysPass, passFile string
	c := &cobra.Command{
		Use:   "administrator CADIR ID --name NAME --keys DIR",
		Short: "Make the key of a person who approves publications · 设立管理员",
		Long: `Makes a keystore with a signing key for an administrator, and has the authority
certify it. The keystore belongs on a machine, or a medium, of that person; the
passphrase is read from --keys-passphrase-file or ` + administratorEnv + `
(or else is the authority's). Who keeps a key elsewhere, in an HSM for instance,
brings a certification request instead: yizhan ca issue CADIR CSR --administrator ID.`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) (err error) {
			if name == "" || keysDir == "" {
				return usage("--name NAME and --keys DIR are needed")
			}
			authority, err := openAuthority(args[0], passFile)
			if err != nil {
				return err
			}
			pass, err := administratorPassphrase(keysPass)
			if err != nil {
				return err
			}
			keys, err := keystore.Create(keysDir, pass, rand.Reader)
			if errors.Is(err, keystore.ErrExists) {
				keys, err = keystore.Open(keysDir, pass, rand.Reader) // a further key of the same person
			}
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, keys.Close()) }()
			if err := authority.AddAdministrator(args[1], name, keys, a.now()); err != nil {
				return err
			}
			return a.print(map[string]string{"administrator": args[1], "name": name, "keys": keysDir},
				"%s %s approves directories from the next publication on; keystore: %s\nnext: yizhan ca policy %s --approvals N, then yizhan directory diff %s and yizhan directory sign\n", args[1], name, keysDir, args[0], args[0])
		},
	}
	fl := c.Flags()
	fl.StringVar(&name, "name", "", "the person's name")
	fl.StringVar(&keysDir, "keys", "", "where to make the person's keystore")
	fl.StringVar(&keysPass, "keys-passphrase-file", "", "file with that keystore's passphrase")
	fl.StringVar(&passFile, "passphrase-file", "", "file with the authority's passphrase (or set "+passphraseEnv+")")
	return c
}

func (a *app) caPolicy(passFile *string) *cobra.Command {
	n := -1
	c := &cobra.Command{
		Use: "policy DIR --approvals N", Short: "Say how many administrators must approve a publication · 设定批准人数", Args: cobra.ExactArgs(1),
		Long: `Says how many administrators must approve a publication, the next one included. A
policy that the administrators with a valid certificate could not meet is refused;
so name them first, and one more than are needed.`,
		RunE: func(_ *cobra.Command, args []string) error {
			if n < 0 {
				return usage("--approvals N is needed")
			}
			authority, err := openAuthority(args[0], *passFile)
			if err != nil {
				return err
			}
			q, err := authority.SetPolicy(n, a.now())
			if err != nil {
				return err
			}
			return a.tellPolicy(authority, q)
		},
	}
	c.Flags().IntVar(&n, "approvals", -1, "number of administrators")
	return c
}

// tellPolicy says what the policy is, and whether the published version's own,
// which the next one must meet, too, can still be met.
func (a *app) tellPolicy(authority *certs.Authority, q *certs.Quorum) error {
	out := struct {
		policyView
		Published *policyView `json:"published,omitempty"`
	}{policyViewOf(q), nil}
	say := words(a.language())
	text := fmt.Sprintf("%d administrators approve publications, the next one included\n", q.Needed)
	if len(q.Unable) > 0 {
		text += fmt.Sprintf(say("%[1]d of %[2]d administrators can approve (not: %[3]s)\n", "%[2]d 名管理员中 %[1]d 名可以批准（无效：%[3]s）\n"), len(q.Able), len(q.Able)+len(q.Unable), strings.Join(q.Unable, ", "))
	}
	before, err := authority.Published()
	if err != nil {
		return err
	}
	if before != nil {
		p := policyViewOf(before.Quorum(a.now()))
		out.Published = &p
		if unmet := p.unmet(say); unmet != "" {
			text += fmt.Sprintf(say("version %d, which nodes have: %s\n", "节点现行的第 %d 版：%s\n"), before.Version(), unmet)
		}
	}
	return a.print(out, "%s", text)
}

func (a *app) caSucceed(passFile *string) *cobra.Command {
	return &cobra.Command{
		Use:   "succeed DIR",
		Short: "Replace the authority's key and certificate · 更换名录机构密钥",
		Long: `Makes a new key and certificate for the authority, of the same name, signed by the
old one. What the old key issued goes on to verify. Nodes follow by themselves
with the next publication, from whichever certificate of the authority they trust,
and then trust the new one alone. Who joins from now on compares the new
fingerprint.

When the old key was stolen, publish at once, tell every node's operator, and
revoke the old certificate (yizhan ca revoke) once holders have renewed theirs.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			authority, err := openAuthority(args[0], *passFile)
			if err != nil {
				return err
			}
			former := filepath.Join(args[0], certs.FormerFile(authority.Certificate()))
			if err := authority.Succeed(a.now()); err != nil {
				return err
			}
			print := certs.Fingerprint(authority.Certificate())
			return a.print(map[string]string{"fingerprint": print, "certificate": filepath.Join(args[0], authorityFile), "former": former},
				"new fingerprint: %s\nformer certificate, for evidence of its time: %s\nnext: yizhan ca publish %s\n", print, former, args[0])
		},
	}
}
