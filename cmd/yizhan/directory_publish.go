package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

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

func (a *app) directoryDiff() *cobra.Command {
	return &cobra.Command{
		Use:   "diff (OLD NEW | CADIR)",
		Short: "Show what differs between two directories, or would with the next publication · 比较名录",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			var before, after *certs.Directory
			if len(args) == 1 {
				authority, err := readAuthority(args[0])
				if err != nil {
					return err
				}
				draft, err := authority.Draft(time.Now())
				if err != nil {
					return err
				}
				before, after = draft.Before, draft.Directory
			} else {
				var err error
				if before, err = readDirectory(args[0], ""); err != nil {
					return err
				}
				if after, err = readDirectory(args[1], ""); err != nil {
					return err
				}
			}
			d, err := diffOf(before, after, time.Now())
			if err != nil {
				return err
			}
			return a.print(d, "%s", d.text(a.language()))
		},
	}
}

type signFlags struct{ administrator, keys, data, passFile string }

func (a *app) directorySign() *cobra.Command {
	f := new(signFlags)
	c := &cobra.Command{
		Use:   "sign CADIR --administrator ID (--keys DIR | --data DIR)",
		Short: "Approve the next publication as an administrator · 批准名录发布",
		Long: `Shows what the next publication changes, and approves exactly that with the
administrator's own key. What an administrator approved is void when anything of
it changes afterwards. The authority's keys are not needed; a copy of its folder
will do, from which approvals/ID.cms is brought back.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if f.administrator == "" || (f.keys == "") == (f.data == "") {
				return usage("--administrator ID and one of --keys DIR and --data DIR are needed")
			}
			return a.approve(args[0], f)
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.administrator, "administrator", "", "who approves: the administrator's id in the directory")
	fl.StringVar(&f.keys, "keys", "", "the administrator's keystore")
	fl.StringVar(&f.data, "data", "", "a node's data directory whose keystore holds the administrator's key")
	fl.StringVar(&f.passFile, "passphrase-file", "", "file with the keystore's passphrase (or set "+administratorEnv+" or "+passphraseEnv+")")
	return c
}

// administratorKeys opens a keystore with its own passphrase.
func administratorPassphrase(file string) ([]byte, error) {
	env := administratorEnv
	if os.Getenv(env) == "" {
		env = passphraseEnv
	}
	return keystore.Passphrase(file, env)
}

func (f *signFlags) open() (*keystore.Store, error) {
	if f.data != "" {
		return dataDir(f.data).openKeys(f.passFile)
	}
	pass, err := administratorPassphrase(f.passFile)
	if err != nil {
		return nil, err
	}
	return keystore.Open(f.keys, pass, rand.Reader)
}

func (a *app) approve(dir string, f *signFlags) (err error) {
	authority, err := readAuthority(dir)
	if err != nil {
		return err
	}
	now := time.Now()
	draft, err := authority.Draft(now)
	if err != nil {
		return err
	}
	d, err := diffOf(draft.Before, draft.Directory, now)
	if err != nil {
		return err
	}
	keys, err := f.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, keys.Close()) }()
	void := slices.Clone(draft.Void)
	if err := authority.Approve(draft, f.administrator, keys, now); err != nil {
		return approvals(err)
	}
	out := struct {
		*directoryDiff
		Approved []string `json:"approved_by"`
		Void     []string `json:"void"`
		Missing  string   `json:"missing,omitempty"`
	}{d, draft.Directory.Approvals(), append([]string{}, void...), ""}
	say := words(a.language())
	text := d.text(a.language())
	if len(void) > 0 {
		text += fmt.Sprintf(say("entries have changed; the earlier approvals of %s are void\n", "条目已变更，%s 此前的批准作废\n"), strings.Join(void, ", "))
	}
	text += fmt.Sprintf(say("approved by: %s\n", "已批准：%s\n"), strings.Join(out.Approved, ", "))
	if missing := approvals(draft.Approved()); missing != nil {
		out.Missing = missing.Error()
		text += fmt.Sprintf(say("not enough yet: %s\n", "尚不足：%s\n"), detailOf(missing))
	} else {
		text += fmt.Sprintf(say("next: yizhan directory publish %s\n", "下一步：yizhan directory publish %s\n"), dir)
	}
	return a.print(out, "%s", text)
}

func detailOf(err error) string {
	var known *exchange.Error
	if errors.As(err, &known) {
		return known.Detail
	}
	return err.Error()
}

// publishCommand signs the next version; "ca publish" and "directory publish"
// are the same.
func (a *app) publishCommand(passFile *string) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "publish DIR", Short: "Sign the next version of the directory · 发布名录", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			authority, err := openAuthority(args[0], *passFile)
			if err != nil {
				return err
			}
			file, err := authority.Publish(time.Now())
			if err != nil {
				return approvals(err)
			}
			if output != "" {
				if err := durable.WriteFile(durable.OS, output, file); err != nil {
					return err
				}
			}
			d, err := certs.LoadDirectory(file, authority.Certificate(), 0, time.Now())
			if err != nil {
				return err
			}
			out := map[string]any{"version": d.Version(), "file": filepath.Join(args[0], directoryFile), "agencies": len(d.Agencies()), "approved_by": append([]string{}, d.Approvals()...)}
			return a.print(out, "directory version %d with %d agencies: %s\n", d.Version(), len(d.Agencies()), out["file"])
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "write a copy here")
	return c
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
			if err := authority.AddAdministrator(args[1], name, keys, time.Now()); err != nil {
				return err
			}
			return a.print(map[string]string{"administrator": args[1], "name": name, "keys": keysDir},
				"%s %s approves directories from the next publication on; keystore: %s\nnext: yizhan ca policy %s --approvals N, then yizhan directory sign\n", args[1], name, keysDir, args[0])
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
		RunE: func(_ *cobra.Command, args []string) error {
			if n < 0 {
				return usage("--approvals N is needed")
			}
			authority, err := openAuthority(args[0], *passFile)
			if err != nil {
				return err
			}
			if err := authority.SetPolicy(n); err != nil {
				return err
			}
			return a.print(map[string]int{"approvals": n}, "%d administrators approve publications, the next one included\n", n)
		},
	}
	c.Flags().IntVar(&n, "approvals", -1, "number of administrators")
	return c
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
			if err := authority.Succeed(time.Now()); err != nil {
				return err
			}
			print := certs.Fingerprint(authority.Certificate())
			return a.print(map[string]string{"fingerprint": print, "certificate": filepath.Join(args[0], authorityFile)},
				"new fingerprint: %s\nnext: yizhan ca publish %s\n", print, args[0])
		},
	}
}
