package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/control"
	"github.com/yizhan-gateway/yizhan/adapters/ferry"
	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/link"
)

// Links without a way back: a code that a person reads to another, and the signature
// of whoever enters it. The node checks the code and says what is to be signed; the
// operator's key stays with the operator's program.

// ferryConfirming is a step of it: Certificates are the operator's in the node's
// directory.
type ferryConfirming struct {
	*link.Confirmation
	Certificates [][]byte `json:"certificates,omitempty"`
}

// againAll is what --again without a range asks for.
const againAll = "all"

func (g *gateway) ferryCodeRoutes(s *control.Server, ordered func(func(context.Context, *ferry.Spool, ferryOrder) (any, error)) control.Handler) {
	s.HandleLong("POST /ferry/again", ordered(func(ctx context.Context, spool *ferry.Spool, o ferryOrder) (any, error) {
		from, to, err := bundleRange(o.Again)
		if err != nil {
			return nil, err
		}
		got, list, err := spool.ExportAgain(ctx, o.Medium, from, to)
		if o.Medium == "" {
			list = nil
		}
		return ferryExported{o.Link, got, list}, err
	}))
	s.Handle("POST /ferry/code", ordered(func(ctx context.Context, spool *ferry.Spool, _ ferryOrder) (any, error) {
		return spool.Code(ctx)
	}))
	s.HandleLong("POST /ferry/confirm", ordered(func(ctx context.Context, spool *ferry.Spool, o ferryOrder) (any, error) {
		got, err := spool.Confirm(ctx, o.Code, o.Operator, o.Signed)
		if err != nil {
			return nil, err
		}
		out := ferryConfirming{Confirmation: got}
		for _, a := range g.node.Directory().Administrators() {
			for i := range a.Certificates {
				if a.ID == o.Operator {
					out.Certificates = append(out.Certificates, a.Certificates[i].DER)
				}
			}
		}
		return out, nil
	}))
}

// bundleRange reads FROM-TO, or one number; 0 and 0 for all.
func bundleRange(text string) (from, to uint64, err error) {
	if text == againAll {
		return 0, 0, nil
	}
	first, last, ok := strings.Cut(text, "-")
	if !ok {
		last = first
	}
	if from, err = strconv.ParseUint(first, 10, 64); err == nil {
		to, err = strconv.ParseUint(last, 10, 64)
	}
	if err != nil || from == 0 || to < from {
		return 0, 0, exchange.Fail(exchange.CodeBadRequest, "--again: FROM-TO with numbers of bundles, like 3-7, is expected")
	}
	return from, to, nil
}

// withAgain adds --again to the export.
func (a *app) withAgain(c *cobra.Command) *cobra.Command {
	again, first := "", c.RunE
	c.Use = "export --link LINK --data DIR [--to DIR] [--again[=FROM-TO]]"
	c.Flags().StringVar(&again, "again", "", "on a link without a way back: let bundles leave once more, byte for byte: =FROM-TO, or all that nobody confirmed")
	c.Flags().Lookup("again").NoOptDefVal = againAll
	c.RunE = func(c *cobra.Command, args []string) error {
		if again == "" {
			return first(c, args)
		}
		if _, _, err := bundleRange(again); err != nil {
			return usage("%s", detailOf(err))
		}
		f, to := new(ferryFlags), c.Flag("to").Value.String()
		f.data, f.link = c.Flag("data").Value.String(), c.Flag("link").Value.String()
		medium, err := absolute(to)
		if err != nil {
			return err
		}
		var out ferryExported
		if err := f.order(c.Context(), "/ferry/again", ferryOrder{Medium: medium, Again: again}, &out); err != nil {
			return err
		}
		var more strings.Builder
		if out.Manifest != nil {
			more.WriteString(out.Manifest.Text())
		}
		if out.Rest > 0 {
			fmt.Fprintf(&more, "%s\n", both("%d bundles had no room; export them by their numbers", "另有 %d 个驿包放不下，请按编号再次导出", out.Rest))
		}
		return a.print(out, "%s\n%s", both("round %d: %d bundles once more, in %d files, %d bytes", "第 %d 轮：补发 %d 个驿包，%d 个文件，%d 字节",
			out.Round, out.Bundles, out.Files, out.Bytes), more.String())
	}
	return c
}

func absolute(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	return filepath.Abs(path)
}

// order sends an order about the link to the running node.
func (f *ferryFlags) order(ctx context.Context, path string, o ferryOrder, out any) error {
	if f.data == "" || f.link == "" {
		return usage("--data DIR and --link LINK are needed")
	}
	o.Link = f.link
	return onRunning(ctx, dataDir(f.data), func(c *control.Client) error {
		return c.Call(ctx, http.MethodPost, path, o, out, nil)
	})
}

func (a *app) ferryCodeCommand() *cobra.Command {
	f := new(ferryFlags)
	c := &cobra.Command{
		Use: "code --link LINK --data DIR", Short: "Show the code to read to the side that sends · 到达确认码", Args: cobra.NoArgs,
		Long: `For a link over which this node only receives. The code proves that every bundle up to its
number was opened here. Read it to the operator of the other side, digit by digit; it holds
nothing of what came.`,
		RunE: func(c *cobra.Command, _ []string) error {
			var out link.CodeReport
			if err := f.order(c.Context(), "/ferry/code", ferryOrder{}, &out); err != nil {
				return err
			}
			return a.print(out, "%s", codeText(&out))
		},
	}
	f.add(c)
	return c
}

func codeText(r *link.CodeReport) string {
	var b strings.Builder
	if r.Code == "" {
		fmt.Fprintf(&b, "%s\n", both("no code yet: bundle 1 has not come", "尚无确认码：第 1 个驿包未到"))
	} else {
		fmt.Fprintf(&b, "%s\n", r.Code)
		fmt.Fprintf(&b, "%s\n", both("all bundles up to %d are here (%s)", "已收齐至第 %d 个驿包（%s）", r.UpTo, r.At.Time().Local().Format("2006-01-02 15:04:05")))
	}
	if len(r.Missing) > 0 {
		fmt.Fprintf(&b, "%s\n", both("missing: %s; the other side lets them leave again with yizhan ferry export --again=FROM-TO", "缺少：%s；请对方用 yizhan ferry export --again=起-止 补发", ranges(r.Missing)))
	}
	if len(r.Refused) > 0 {
		fmt.Fprintf(&b, "%s\n", both("something was refused here for good in bundles %v: tell the other side", "第 %v 个驿包中有件被拒收：请告知对方", r.Refused))
	}
	return b.String()
}

func ranges(list []link.Range) string {
	var parts []string
	for _, r := range list {
		if r.From == r.To {
			parts = append(parts, strconv.FormatUint(r.From, 10))
			continue
		}
		parts = append(parts, fmt.Sprintf("%d-%d", r.From, r.To))
	}
	return strings.Join(parts, ", ")
}

func (a *app) ferryConfirmCommand() *cobra.Command {
	f, s := new(ferryFlags), new(signFlags)
	c := &cobra.Command{
		Use: "confirm --link LINK --data DIR --administrator ID [--keys DIR] CODE", Short: "Enter the code that the receiving side read · 输入到达确认码",
		Long: `For a link over which this node only sends. With the right code every delivery up to its
number gets the receipt CONFIRMED, signed with the key of the administrator who entered it, and
the bytes that were kept for it are freed. The keystore is that in --keys, or the node's own.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if s.administrator == "" {
				return usage("--administrator ID is needed: CONFIRMED is signed by whoever enters the code")
			}
			if s.keys == "" {
				s.data = f.data
			}
			return a.confirm(c.Context(), f, s, strings.Join(args, " "))
		},
	}
	f.add(c)
	c.Flags().StringVar(&s.administrator, "administrator", "", "who enters the code: the administrator's id in the directory")
	c.Flags().StringVar(&s.keys, "keys", "", "the administrator's keystore (default: the node's own)")
	c.Flags().StringVar(&s.passFile, "passphrase-file", "", "file with the keystore's passphrase (or set "+administratorEnv+" or "+passphraseEnv+")")
	return c
}

type ferryConfirmed struct {
	Link     string `json:"link"`
	UpTo     uint64 `json:"up_to"`
	Known    bool   `json:"known"` // it was confirmed before
	Bundles  int    `json:"bundles"`
	Receipts int    `json:"receipts"`
}

// confirm goes on until nothing is left to sign. The code is checked before the
// operator's keystore is opened.
func (a *app) confirm(ctx context.Context, f *ferryFlags, s *signFlags, code string) (err error) {
	out := ferryConfirmed{Link: f.link}
	o := ferryOrder{Code: code, Operator: s.administrator}
	var keys *keystore.Store
	defer func() {
		if keys != nil {
			err = errors.Join(err, keys.Close())
		}
	}()
	for {
		var got ferryConfirming
		if err := f.order(ctx, "/ferry/confirm", o, &got); err != nil {
			return err
		}
		out.UpTo, out.Known = got.UpTo, got.Known
		out.Bundles, out.Receipts = out.Bundles+got.Bundles, out.Receipts+got.Receipts
		if len(got.Statements) == 0 {
			return a.print(out, "%s\n", confirmedText(&out))
		}
		if keys == nil {
			if keys, err = s.open(); err != nil {
				return err
			}
		}
		if o.Signed, err = a.signStatements(keys, s.administrator, &got); err != nil {
			return err
		}
	}
}

func confirmedText(c *ferryConfirmed) string {
	if c.Known {
		return both("everything up to bundle %d was confirmed or ended before; nothing changed", "第 %d 个驿包及以前此前均已确认或了结，未作更改", c.UpTo)
	}
	return both("confirmed up to bundle %d: %d bundles, %d receipts", "已确认至第 %d 个驿包：%d 个驿包，%d 份回执", c.UpTo, c.Bundles, c.Receipts)
}

// signStatements signs what says CONFIRMED in the operator's own name, and nothing
// else that a node may ask for.
func (a *app) signStatements(keys *keystore.Store, operator string, got *ferryConfirming) (signed [][]byte, err error) {
	var own *certs.Certificate
	for _, der := range got.Certificates {
		c, err := certs.DescribeFor(certs.UseSign, der)
		if err == nil && keys.Has(c.KeyID) && exchange.MaySign(c, a.now()) == nil {
			own = c
			break
		}
	}
	if own == nil {
		return nil, exchange.Fail(exchange.CodeFerryOperator, "the keystore holds no key of administrator %s with a certificate that is valid", operator)
	}
	for _, content := range got.Statements {
		r, err := exchange.ParseReceipt(content)
		if err != nil {
			return nil, err
		}
		if r.Stage != exchange.StageConfirmed || r.Actor == nil || r.Actor.Name != operator {
			return nil, exchange.Fail(exchange.CodeSignatureInvalid, "the node asks to sign something else than CONFIRMED in the name of %s; nothing was signed", operator)
		}
		one, err := cms.Sign(certs.Signer(keys, own), content, a.now())
		if err != nil {
			return nil, err
		}
		signed = append(signed, one)
	}
	return signed, nil
}

// oneWayText is what a link without a way back adds to the status.
func oneWayText(s *link.OneWayStatus) string {
	switch {
	case s == nil:
		return ""
	case s.Way == "out":
		return "  " + both("no way back: %d bundles left, %d confirmed, %d ended unconfirmed", "无回执通道：已发出 %d 个驿包，已确认 %d 个，逾期未确认 %d 个", s.Exported, s.Confirmed, s.Ended) + "\n"
	}
	return "  " + both("no way back: missing %s of %d; %d receipts are kept here", "无回执通道：共 %[2]d 个驿包，缺少 %[1]s；%[3]d 份回执留存本地", or(ranges(s.Missing), "-"), s.Last, s.Kept) + "\n"
}
