package main

import (
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// caCertificates are the authority's commands about single certificates.
func (a *app) caCertificates(passFile *string) []*cobra.Command {
	return []*cobra.Command{a.caIssue(passFile), a.caRevoke(passFile), a.caCRL(passFile), a.caOCSP(passFile), a.caCerts(passFile), a.caIssuer(passFile)}
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func (a *app) caIssue(passFile *string) *cobra.Command {
	var p certs.Purpose
	var output string
	c := &cobra.Command{
		Use: "issue DIR CSR (--agency CODE | --node ID | --administrator ID | --tsa) --use sign", Short: "Issue a certificate for a certification request (PKCS#10) · 签发证书",
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := durable.ReadFile(durable.OS, args[1], certs.MaxCSR)
			if err != nil {
				return err
			}
			csr, err := certs.ParseCSR(b)
			if err != nil {
				return fmt.Errorf("%s: %w", args[1], err)
			}
			authority, err := openAuthority(args[0], *passFile)
			if err != nil {
				return err
			}
			der, err := authority.Issue(csr, p, a.now())
			if err != nil {
				return err
			}
			text := certificatePEM(der)
			out := map[string]string{"certificate": string(text)}
			if output == "" {
				return a.print(out, "%s", text)
			}
			if err := durable.WriteFile(durable.OS, output, text); err != nil {
				return err
			}
			out["file"] = output
			return a.print(out, "certificate: %s\nnext: yizhan ca publish %s\n", output, args[0])
		},
	}
	fl := c.Flags()
	fl.StringVar(&p.Agency, "agency", "", "code of the agency, which was admitted")
	fl.StringVar(&p.Node, "node", "", "name of the node, which was admitted")
	fl.StringVar(&p.Administrator, "administrator", "", "id of a person who approves directories")
	fl.StringVar(&p.Name, "name", "", "name of a new administrator")
	fl.BoolVar(&p.TSA, "tsa", false, "for a timestamp authority")
	fl.StringVar(&p.URL, "url", "", "where the timestamp authority answers")
	fl.StringVar(&p.Use, "use", certs.UseSign, "sign or encrypt")
	fl.StringVarP(&output, "output", "o", "", "file for the certificate, PEM (default: it is printed)")
	return c
}

// certificateLine is one certificate as the commands list it.
type certificateLine struct {
	Holder    string           `json:"holder"`
	Use       string           `json:"use"`
	Serial    string           `json:"serial"`
	NotBefore time.Time        `json:"not_before"`
	NotAfter  time.Time        `json:"not_after"`
	DaysLeft  int              `json:"days_left"`
	Revoked   *revocationShown `json:"revoked,omitempty"`
	KeyHere   *bool            `json:"key_here,omitempty"`
}

type revocationShown struct {
	Effective time.Time `json:"effective"`
	Reason    string    `json:"reason"`
	Source    string    `json:"source,omitempty"`
}

func lineOf(holder string, c *certs.Certificate, now time.Time) certificateLine {
	l := certificateLine{Holder: holder, Use: c.Use, Serial: c.Serial, NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(), DaysLeft: daysLeft(c.NotAfter, now)}
	if c.Revoked != nil {
		l.Revoked = &revocationShown{c.Revoked.Effective.UTC(), c.Revoked.Reason, c.Revoked.Source}
	}
	return l
}

// daysLeft counts whole days; what ended an hour ago has -1 left.
func daysLeft(until, now time.Time) int {
	d := until.Sub(now)
	if d < 0 {
		return int(d/(24*time.Hour)) - 1
	}
	return int(d / (24 * time.Hour))
}

// text is the line of a table that a person reads.
func (l *certificateLine) text() string {
	state := fmt.Sprintf("%d days left", l.DaysLeft)
	switch {
	case l.Revoked != nil:
		state = fmt.Sprintf("revoked from %s (%s)", l.Revoked.Effective.Format(time.RFC3339), l.Revoked.Reason)
	case l.DaysLeft < 0:
		state = "expired"
	}
	if l.KeyHere != nil && !*l.KeyHere {
		state += ", its key is not here"
	}
	return fmt.Sprintf("%-32s %-8s %s  %s to %s  %s\n", l.Holder, l.Use, l.Serial, l.NotBefore.Format(time.DateOnly), l.NotAfter.Format(time.DateOnly), state)
}

// printCertificates prints certificates under the name that the object has.
func (a *app) printCertificates(name string, list []certificateLine, rest string) error {
	if list == nil {
		list = []certificateLine{}
	}
	var b strings.Builder
	for i := range list {
		b.WriteString(list[i].text())
	}
	return a.print(map[string]any{name: list}, "%s%s", b.String(), rest)
}

func (a *app) caCerts(passFile *string) *cobra.Command {
	return &cobra.Command{
		Use: "certs DIR", Short: "List the certificates of all entries · 列出证书", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			authority, err := openAuthority(args[0], *passFile)
			if err != nil {
				return err
			}
			list, err := authority.Certificates()
			if err != nil {
				return err
			}
			var out []certificateLine
			for _, l := range list {
				out = append(out, lineOf(l.Holder, &l.Certificate, a.now()))
			}
			return a.printCertificates("certificates", out, "")
		},
	}
}

func (a *app) caCRL(passFile *string) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "crl DIR -o FILE", Short: "Make a revocation list (CRL) for those who have no directory · 生成吊销列表", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if output == "" {
				return usage("-o FILE is needed")
			}
			authority, err := openAuthority(args[0], *passFile)
			if err != nil {
				return err
			}
			der, err := authority.CRL(a.now())
			if err != nil {
				return err
			}
			list, err := certs.ParseCRL(der, authority.Certificate())
			if err != nil {
				return err
			}
			if err := durable.WriteFile(durable.OS, output, der); err != nil {
				return err
			}
			out := map[string]any{"file": output, "number": list.Number, "revoked": list.Len(), "next_update": list.NextUpdate}
			return a.print(out, "CRL %s with %d certificates, valid until %s: %s\n", list.Number, list.Len(), list.NextUpdate.Format(time.DateOnly), output)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "file for the list, DER")
	return c
}

func (a *app) caOCSP(passFile *string) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "ocsp DIR REQUEST -o FILE", Short: "Answer an OCSP request from a file", Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			if output == "" {
				return usage("-o FILE is needed")
			}
			request, err := durable.ReadFile(durable.OS, args[1], certs.MaxOCSPRequest)
			if err != nil {
				return err
			}
			authority, err := openAuthority(args[0], *passFile)
			if err != nil {
				return err
			}
			der, err := authority.OCSP(request, a.now())
			if err != nil {
				return err
			}
			if err := durable.WriteFile(durable.OS, output, der); err != nil {
				return err
			}
			return a.print(map[string]string{"file": output}, "answer: %s\n", output)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "file for the answer, DER")
	return c
}

// oneCertificate reads a file with a single certificate, in PEM or DER.
func oneCertificate(path, why string) ([]byte, error) {
	b, err := durable.ReadFile(durable.OS, path, certs.MaxCertificateFile)
	if err != nil {
		return nil, err
	}
	list, err := certs.ParseCertificates(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(list) != 1 {
		return nil, usage("%s holds %d certificates: %s", path, len(list), why)
	}
	return list[0], nil
}

func (a *app) caIssuer(passFile *string) *cobra.Command {
	var crl, ocsp string
	c := &cobra.Command{
		Use: "issuer DIR CERTIFICATE [--crl URL] [--ocsp URL]", Short: "Let certificates count that an outside CA issues · 信任外部证书机构", Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			der, err := oneCertificate(args[1], "each CA that issues is named by itself")
			if err != nil {
				return err
			}
			authority, err := openAuthority(args[0], *passFile)
			if err != nil {
				return err
			}
			if err := authority.AddIssuer(der, crl, ocsp); err != nil {
				return err
			}
			print := certs.Fingerprint(der)
			return a.print(map[string]string{"fingerprint": print}, "issuer with fingerprint: %s\nnext: compare it over another channel, then yizhan ca publish %s\n", print, args[0])
		},
	}
	c.Flags().StringVar(&crl, "crl", "", "http or https URL of its revocation list")
	c.Flags().StringVar(&ocsp, "ocsp", "", "http or https URL of its OCSP responder")
	return c
}
