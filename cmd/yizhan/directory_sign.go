package main

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
)

func (a *app) directoryDiff() *cobra.Command {
	var since string
	c := &cobra.Command{
		Use:   "diff (OLD NEW | CADIR [--since FILE])",
		Short: "Show what differs between two directories, or would with the next publication · 比较名录",
		Long: `Shows all that differs: of certificates the SM3 of their DER and their keys, and of
what this program does not understand, that it differs.

With CADIR the list of the next publication is fixed (CADIR/draft.json), and its
SM3 printed: it is what "yizhan directory sign --list" approves. It stays the same
until an entry changes. It is compared with the version in that folder; with
--since, with one that you have from elsewhere: a node's, or the one that you
approved last.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				return a.diffNext(args[0], since)
			}
			if since != "" {
				return usage("--since goes with CADIR alone")
			}
			before, err := a.readDirectory(args[0], "")
			if err != nil {
				return err
			}
			after, err := a.readDirectory(args[1], "")
			if err != nil {
				return err
			}
			d, err := diffOf(before, after, a.now())
			if err != nil {
				return err
			}
			return a.print(d, "%s", d.text(a.language()))
		},
	}
	sinceFlag(c, &since)
	return c
}

func sinceFlag(c *cobra.Command, since *string) {
	c.Flags().StringVar(since, "since", "", "compare with the version in this file or folder, and not with the one in CADIR")
}

// diffNext shows the next publication. Where the folder may only be read it is
// shown all the same, and said that this list is not the one that others see.
func (a *app) diffNext(dir, since string) error {
	authority, draft, d, err := a.draftOf(dir, since)
	if err != nil {
		return err
	}
	err = authority.Fix(draft)
	if err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) {
		return err
	}
	out := struct {
		*directoryDiff
		Fixed bool `json:"fixed"`
	}{d, draft.Fixed()}
	say := words(a.language())
	text := d.text(a.language())
	if draft.Fixed() {
		text += fmt.Sprintf(say("next: yizhan directory sign %s --administrator ID --keys DIR --list %s\n", "下一步：yizhan directory sign %s --administrator ID --keys DIR --list %s\n"), dir, d.List)
	} else {
		text += fmt.Sprintf(say("this list cannot be approved, it is not fixed: %v\n", "此清单未固定，不能批准：%v\n"), err)
	}
	return a.print(out, "%s", text)
}

// draftOf reads what an authority would publish next, and what that changes.
func (a *app) draftOf(dir, since string) (*certs.Authority, *certs.Draft, *directoryDiff, error) {
	authority, err := readAuthority(dir)
	if err != nil {
		return nil, nil, nil, err
	}
	draft, d, err := a.draftBy(authority, since)
	return authority, draft, d, err
}

func (a *app) draftBy(authority *certs.Authority, since string) (*certs.Draft, *directoryDiff, error) {
	draft, err := authority.Draft(a.now())
	if err != nil {
		return nil, nil, err
	}
	before := draft.Before
	if since != "" {
		if before, err = a.knownVersion(since, draft.Before); err != nil {
			return nil, nil, err
		}
	}
	d, err := diffOf(before, draft.Directory, a.now())
	if err != nil {
		return nil, nil, err
	}
	published := uint64(0)
	if draft.Before != nil {
		published, d.Previous = draft.Before.Version(), draft.Before.ID().String()
	}
	d.LeftOut = d.To - published - 1
	return draft, d, nil
}

// knownVersion reads a version that somebody knows from elsewhere. The one that
// an authority's folder holds must be it, or one that whoever has it would take:
// else what the folder's is compared with may hold what nobody approved.
func (a *app) knownVersion(since string, published *certs.Directory) (*certs.Directory, error) {
	known, err := a.readDirectory(since, "")
	if err != nil || published == nil || published.Version() < known.Version() || published.ID() == known.ID() {
		return known, err
	}
	var refused *certs.Error
	if err := published.Follows(known); errors.As(err, &refused) {
		return nil, exchange.Fail(refused.Code, "what the authority's folder holds as published would not be taken after version %d: %s", known.Version(), refused.Detail)
	} else if err != nil {
		return nil, err
	}
	return known, nil
}

type signFlags struct {
	administrator, keys, data, passFile, list, since string

	dry bool
}

func (a *app) directorySign() *cobra.Command {
	f := new(signFlags)
	c := &cobra.Command{
		Use:   "sign CADIR --administrator ID (--keys DIR | --data DIR) [--list SM3]",
		Short: "Approve the next publication as an administrator · 批准名录发布",
		Long: `Shows what the next publication changes, and approves exactly that with the
administrator's own key: at a terminal once "yes" was typed, else only with
--list, the SM3 that "yizhan directory diff CADIR" printed below what it showed.
What an administrator approved is void when anything of it changes afterwards.
The authority's keys are not needed; a copy of its folder will do, made after
"yizhan directory diff", from which approvals/ID.cms is brought back.`,
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
	fl.StringVar(&f.list, "list", "", "SM3 of the list to approve, as yizhan directory diff printed it")
	sinceFlag(c, &f.since)
	fl.BoolVar(&f.dry, "dry-run", false, "change nothing, and say what would be approved")
	return c
}

// administratorPassphrase is that of an administrator's own keystore.
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

// signed is what "directory sign --json" prints.
type signed struct {
	*directoryDiff
	Approved []string `json:"approved_by"`
	Void     []string `json:"void"`
	Missing  string   `json:"missing,omitempty"`
	DryRun   bool     `json:"dry_run,omitempty"`
	By       string   `json:"certificate"` // fingerprint of the administrator's
}

func (a *app) approve(dir string, f *signFlags) (err error) {
	authority, draft, d, err := a.draftOf(dir, f.since)
	if err != nil {
		return err
	}
	if err := f.sameList(draft, d); err != nil {
		return err
	}
	if f.list == "" && !f.dry && !isTerminal(os.Stdin) {
		return usage(words(a.language())("there is no terminal to ask at: look at what yizhan directory diff %s shows, and give the SM3 that it prints with --list",
			"没有可供询问的终端：请核对 yizhan directory diff %s 显示的内容，并用 --list 提供其打印的 SM3"), dir)
	}
	keys, err := f.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, keys.Close()) }()
	by, err := draft.Approver(f.administrator, keys, a.now())
	if err != nil {
		return approvals(err)
	}
	out := &signed{d, nil, append([]string{}, draft.Void...), "", f.dry, certs.Fingerprint(by.DER)}
	text := d.text(a.language())
	if f.list == "" && !f.dry {
		if err := authority.Fix(draft); err != nil {
			return err
		}
		if err := a.ask(text, f.administrator); err != nil {
			return err
		}
		text = ""
	}
	if !f.dry {
		if err := authority.Approve(draft, f.administrator, keys, a.now()); err != nil {
			return approvals(err)
		}
	}
	return a.tellSigned(dir, text, f, draft, out)
}

// sameList compares --list with the list that would be approved.
func (f *signFlags) sameList(draft *certs.Draft, d *directoryDiff) error {
	if f.list == "" {
		return nil
	}
	text := spaceless(f.list)
	if b, err := hex.DecodeString(text); err != nil || len(b) != sm.Size {
		return usage("--list: all %d digits (0-9, a-f) that yizhan directory diff printed are needed", 2*sm.Size)
	}
	if text != d.List || !draft.Fixed() {
		return exchange.Fail(exchange.CodeDirectoryList, "the next publication is version %d with list %s, and not the list that --list names", d.To, d.List)
	}
	return nil
}

// spaceless is a hex text as a person may have copied it.
func spaceless(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, s)
}

// isTerminal says whether a person can answer there. The null device is a
// character device as terminals are, and nobody sits at it.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// ask shows what is to be approved and has a person type that it shall be. With
// --json it is shown beside the object, on standard error.
func (a *app) ask(text, administrator string) error {
	show := a.out
	if a.json {
		show = a.err
	}
	say := words(a.language())
	if _, err := io.WriteString(show, text); err != nil {
		return err
	}
	fmt.Fprintf(show, say("approve this list as %s? type yes: ", "以 %s 的身份批准此清单？请输入 yes："), administrator)
	answer, err := bufio.NewReader(io.LimitReader(os.Stdin, 64)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(answer) != "yes" {
		return exchange.Fail(exchange.CodeApproval, "yes was not typed: nothing was approved")
	}
	return nil
}

// tellSigned says what was approved, or would be, and what is missing yet.
func (a *app) tellSigned(dir, text string, f *signFlags, draft *certs.Draft, out *signed) error {
	say := words(a.language())
	if len(out.Void) > 0 {
		text += fmt.Sprintf(say("entries have changed; the earlier approvals of %s are void\n", "条目已变更，%s 此前的批准作废\n"), strings.Join(out.Void, ", "))
	}
	out.Approved = slices.Clone(draft.Directory.Approvals())
	if f.dry {
		out.Approved = append([]string{}, out.Approved...)
		text += fmt.Sprintf(say("%s would approve this list with certificate %s\ndry run: nothing was changed\n", "%s 将以证书 %s 批准此清单\n试运行：未作任何更改\n"), f.administrator, out.By)
		return a.print(out, "%s", text)
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
