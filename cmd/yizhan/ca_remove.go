package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/exchange"
)

type removeFlags struct {
	node, agency, serial string
	restore, dry         bool
}

func (a *app) caRemove(passFile *string) *cobra.Command {
	f := new(removeFlags)
	c := &cobra.Command{
		Use: "remove DIR (--node ID | --agency CODE | --serial HEX) [--restore] [--dry-run]", Short: "Take a node or an agency out of the next publication · 从名录移除",
		Long: `Takes out what was admitted by mistake: an agency, or a node with the agencies that
it serves, its links and its routes. What nobody has got yet leaves no trace but
the time of its request. --restore puts back what is published instead: it undoes
an admission, a removal or another change that is not published yet. --serial
takes out one certificate of a node or an agency, to make room for new ones when
there are as many as a directory may list: one that was never used.

What is published ends for everybody with the next version. Documents on their way
to it are rejected (no_route) at the next node; what it signed, and what another
node has not received by then, is not accepted any more. What was received before
verifies for ever, with the versions of its time. An agency that ends in order is
better given its time and its successor:

  yizhan ca agency DIR CODE --until DATE --successor CODE

Removing is not revoking: for keys in other hands, yizhan ca revoke.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return a.remove(args[0], *passFile, f)
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.node, "node", "", "id of the node")
	fl.StringVar(&f.agency, "agency", "", "code of the agency")
	fl.StringVar(&f.serial, "serial", "", "serial number of a certificate, as yizhan ca certs shows it")
	fl.BoolVar(&f.restore, "restore", false, "put back what is published of it")
	fl.BoolVar(&f.dry, "dry-run", false, "only show what would be changed")
	return c
}

func (f *removeFlags) check() error {
	named := 0
	for _, s := range []string{f.node, f.agency, f.serial} {
		if s != "" {
			named++
		}
	}
	if named != 1 || f.restore && f.serial != "" {
		return usage("one of --node, --agency and --serial is needed, and --restore goes with the first two")
	}
	return nil
}

// begin gives the change that the flags name, and what for.
func (f *removeFlags) begin(authority *certs.Authority) (what string, r *certs.Removal, err error) {
	what = "node " + f.node
	switch {
	case f.serial != "":
		what = "certificate " + f.serial
		r, err = authority.CertificateRemoval(serialNumber(f.serial))
		return what, r, err
	case f.agency != "":
		what = "agency " + f.agency
	}
	if f.restore {
		r, err = authority.Restoration(what)
	} else {
		r, err = authority.Removal(what)
	}
	return what, r, err
}

// serialNumber reads a serial number as programs write it: in capitals, with
// colons or spaces between the bytes, with zeros before it.
func serialNumber(s string) string {
	s = strings.NewReplacer(":", "", " ", "").Replace(strings.ToLower(s))
	return strings.TrimLeft(strings.TrimPrefix(s, "0x"), "0")
}

func (a *app) remove(dir, passFile string, f *removeFlags) error {
	authority, err := openAuthority(dir, passFile)
	if err != nil {
		return err
	}
	holder, r, err := f.begin(authority)
	if err != nil {
		return err
	}
	if len(r.Taken)+len(r.Back) == 0 && !f.restore {
		return exchange.Fail(exchange.CodeNotFound, "%s is not in the entries; yizhan ca certs lists what is", holder)
	}
	would := ""
	if f.dry {
		would = "would_be_"
	}
	out := map[string][]string{
		would + "removed": append([]string{}, r.Taken...), would + "restored": append([]string{}, r.Back...),
		"published": append([]string{}, r.Published...),
	}
	if f.dry {
		err = r.Check(a.now())
	} else {
		err = r.Commit(a.now())
	}
	if err != nil {
		return err
	}
	return a.print(out, "%s", removalText(r, dir, f.dry))
}

func removalText(r *certs.Removal, dir string, dry bool) string {
	var b strings.Builder
	for _, name := range r.Taken {
		fmt.Fprintf(&b, "%s\n", both("taken out: %s", "移除：%s", name))
	}
	for _, name := range r.Back {
		fmt.Fprintf(&b, "%s\n", both("back as it is published: %s", "恢复为已发布的内容：%s", name))
	}
	if len(r.Published) > 0 {
		fmt.Fprintf(&b, "%s\n", both(
			"%s: published, and ends for everybody with the next version. Documents on their way to who is taken out are rejected at the next node; what was signed with it and another node has not received by then is not accepted any more. Until that version is published, --restore puts it back.",
			"%s 已发布，将随下一版名录对所有节点失效：在途发往被移除者的公文会在下一节点被拒收；凭其签名而其他节点届时尚未收到的内容不再采信。下一版发布前可用 --restore 恢复。",
			strings.Join(r.Published, ", ")))
	}
	if dry {
		return b.String() + "nothing was changed\n"
	}
	return b.String() + fmt.Sprintf("next: yizhan directory diff %s, then yizhan ca publish %s\n", dir, dir)
}
