package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// revokeFlags say which certificates are revoked, since when and why.
type revokeFlags struct {
	certificate, agency, node, administrator, tsa, serial string
	use, effective, reason                                string
	dry, withdraw                                         bool
}

func (a *app) caRevoke(passFile *string) *cobra.Command {
	f := new(revokeFlags)
	c := &cobra.Command{
		Use: "revoke DIR (--agency CODE | --node ID | --administrator ID | --tsa NAME | --serial HEX | --certificate FILE) --reason REASON", Short: "End certificates before their time · 吊销证书",
		Long: `Revokes certificates from a time on, with the next publication of the directory.
What another node received before that time verifies for ever; what comes at that
time or later is refused. A stolen key is revoked from when it may have been stolen,
not before its certificate existed, and at most a year ahead.

--dry-run shows what would be revoked and since when. --withdraw takes back a
revocation that nobody has got yet: one that is published, or stands in a list that
yizhan ca crl made, stays. Answers of yizhan ca ocsp are not remembered: tell whoever
got one.

Reasons: ` + strings.Join(certs.Reasons(), ", "),
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if f.withdraw {
				return a.withdraw(args[0], *passFile, f)
			}
			return a.revoke(args[0], *passFile, f)
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.certificate, "certificate", "", "file with the certificate, of anybody, an issuer for instance")
	fl.StringVar(&f.agency, "agency", "", "all certificates of an agency")
	fl.StringVar(&f.node, "node", "", "all certificates of a node")
	fl.StringVar(&f.administrator, "administrator", "", "all certificates of a person who approves directories, by id or name")
	fl.StringVar(&f.tsa, "tsa", "", "all certificates of a timestamp authority, by the name in them")
	fl.StringVar(&f.serial, "serial", "", "the certificate with this serial number, as yizhan ca certs shows it")
	fl.StringVar(&f.use, "use", "", "only those to sign or to encrypt with")
	fl.StringVar(&f.effective, "effective", "", "from when on: a date like 2026-11-26, which begins at midnight in China, or a time like 2026-11-23T08:00:00Z (default: now)")
	fl.StringVar(&f.reason, "reason", "", "why")
	fl.BoolVar(&f.dry, "dry-run", false, "only show what would be revoked, or taken back")
	fl.BoolVar(&f.withdraw, "withdraw", false, "take back what is revoked and not published yet")
	return c
}

func (a *app) revoke(dir, passFile string, f *revokeFlags) error {
	now := a.now()
	at, err := parseMoment("effective", f.effective)
	if err != nil {
		return err
	}
	if f.reason == "" {
		return usage("--reason is needed: one of %s", strings.Join(certs.Reasons(), ", "))
	}
	authority, err := openAuthority(dir, passFile)
	if err != nil {
		return err
	}
	chosen, err := f.choose(authority)
	if err != nil {
		return err
	}
	if chosen, err = f.standing(chosen, at, now); err != nil {
		return err
	}
	var out []certificateLine
	for _, l := range chosen {
		if !f.dry {
			if err := authority.Revoke(l.DER, l.Revoked.Effective, l.Revoked.Reason); err != nil {
				return err
			}
		}
		out = append(out, lineOf(l.Holder, &l.Certificate, now))
	}
	rest := effectiveText(chosen)
	if f.dry {
		return a.printCertificates("would_revoke", out, rest+"nothing was changed\n")
	}
	missing, err := f.quorumText(authority, now)
	if err != nil {
		return err
	}
	return a.printCertificates("revoked", out, rest+missing+fmt.Sprintf("next: yizhan ca publish %s\n", dir))
}

// standing leaves out what is revoked from then on already or has ended, where
// a holder was named, and gives the rest as it will be revoked. A time that one
// of them cannot be revoked from is refused before anything is written. Without
// a time it is now, or when the certificate begins.
func (f *revokeFlags) standing(list []certs.Listed, at, now time.Time) ([]certs.Listed, error) {
	var out []certs.Listed
	for _, l := range list {
		from := at
		if f.effective == "" {
			from = now
			if from.Before(l.NotBefore) {
				from = l.NotBefore
			}
		}
		if f.holder() != "" && (l.RevokedAt(from) || now.After(l.NotAfter)) {
			continue
		}
		if err := certs.CheckEffective(&l.Certificate, from, now); err != nil {
			return nil, fmt.Errorf("%s: %w", l.Holder, err)
		}
		l.Revoked = &certs.Revocation{Effective: from, Reason: f.reason, Source: certs.SourceDirectory}
		out = append(out, l)
	}
	if len(out) == 0 {
		return nil, exchange.Fail(exchange.CodeNotFound, "%s has no certificate that is valid and not revoked; yizhan ca certs lists all", f.holder())
	}
	return out, nil
}

// effectiveText says from when on in the two times that people may have meant.
func effectiveText(list []certs.Listed) string {
	at := list[0].Revoked.Effective
	text := at.In(china).Format("2006-01-02 15:04:05") + " UTC+8 = " + at.UTC().Format(time.RFC3339)
	return both("from when on: %s", "生效时间：%s", text) + "\n"
}

// quorumText warns when the administrators that are left cannot approve what
// comes next.
func (f *revokeFlags) quorumText(authority *certs.Authority, now time.Time) (string, error) {
	if f.administrator == "" {
		return "", nil
	}
	d, err := authority.Draft(now)
	if err != nil {
		return "", err
	}
	q := d.Directory.Quorum(now)
	if q.Missing() == 0 {
		return "", nil
	}
	return both("warning: %d administrators are left who can approve, and %d are needed: make one with yizhan directory administrator before you publish",
		"注意：可批准的管理员只剩 %d 名，需要 %d 名：发布前请先用 yizhan directory administrator 补足", len(q.Able), q.Needed) + "\n", nil
}

func (a *app) withdraw(dir, passFile string, f *revokeFlags) error {
	if f.effective != "" || f.reason != "" {
		return usage("--withdraw takes a revocation back as a whole: it goes without --effective and --reason")
	}
	authority, err := openAuthority(dir, passFile)
	if err != nil {
		return err
	}
	chosen, err := f.choose(authority)
	if err != nil {
		return err
	}
	var out []certificateLine
	var refused error = exchange.Fail(exchange.CodeNotFound, "none of the certificates named is revoked; yizhan ca certs lists all")
	for _, l := range chosen {
		if l.Revoked == nil && f.certificate == "" {
			continue
		}
		if err := authority.CheckWithdraw(l.DER); err != nil {
			refused = fmt.Errorf("%s: %w", l.Holder, err)
			continue
		}
		if !f.dry {
			if err := authority.Withdraw(l.DER); err != nil {
				return err
			}
		}
		out = append(out, lineOf(l.Holder, &l.Certificate, a.now()))
	}
	if len(out) == 0 {
		return refused
	}
	if f.dry {
		return a.printCertificates("would_withdraw", out, "nothing was changed\n")
	}
	return a.printCertificates("withdrawn", out, both("taken back; nobody got it", "已撤回；尚无任何节点收到")+"\n")
}

// holder is whose certificates are meant, as they are listed; empty when one
// certificate is named by itself.
func (f *revokeFlags) holder() string {
	switch {
	case f.agency != "":
		return "agency " + f.agency
	case f.node != "":
		return "node " + f.node
	case f.administrator != "":
		return "administrator " + f.administrator
	case f.tsa != "":
		return "timestamp authority " + f.tsa
	}
	return ""
}

// choose gives what the flags name.
func (f *revokeFlags) choose(authority *certs.Authority) ([]certs.Listed, error) {
	named := slices.DeleteFunc([]string{f.certificate, f.agency, f.node, f.administrator, f.tsa, f.serial}, func(s string) bool { return s == "" })
	if len(named) != 1 {
		return nil, usage("one of --agency, --node, --administrator, --tsa, --serial and --certificate is needed")
	}
	list, err := authority.Certificates()
	if err != nil {
		return nil, err
	}
	if f.certificate != "" {
		return fromFile(f.certificate, list)
	}
	out := slices.DeleteFunc(list, func(l certs.Listed) bool { return !f.means(&l) || f.use != "" && l.Use != f.use })
	switch {
	case len(out) == 0:
		return nil, exchange.Fail(exchange.CodeNotFound, "no certificate of %s is in the entries; yizhan ca certs lists all", named[0])
	case f.administrator != "" && slices.ContainsFunc(out, func(l certs.Listed) bool { return l.Holder != out[0].Holder }):
		return nil, usage("--administrator %s: several have this name; give the id of the one", f.administrator)
	case f.serial != "" && len(out) > 1:
		return nil, usage("--serial %s: %d certificates of several issuers have this number; name the one by --certificate FILE", f.serial, len(out))
	}
	return out, nil
}

func (f *revokeFlags) means(l *certs.Listed) bool {
	switch {
	case f.serial != "":
		return l.Serial == serialNumber(f.serial)
	case f.tsa != "":
		return l.Holder == "timestamp authority" && l.Name == f.tsa
	case f.administrator != "" && l.Name == f.administrator:
		return strings.HasPrefix(l.Holder, "administrator ")
	}
	return l.Holder == f.holder()
}

// fromFile gives the one certificate of a file, with its holder if an entry
// has it.
func fromFile(path string, list []certs.Listed) ([]certs.Listed, error) {
	der, err := oneCertificate(path, "one is revoked at a time")
	if err != nil {
		return nil, err
	}
	for _, l := range list {
		if string(l.DER) == string(der) {
			return []certs.Listed{l}, nil
		}
	}
	c, err := certs.Describe(der)
	if err != nil {
		return nil, err
	}
	return []certs.Listed{{Holder: "not in an entry", Certificate: *c}}, nil
}
