package main

import (
	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/certs"
)

func (a *app) caTSA(passFile *string) *cobra.Command {
	var url string
	c := &cobra.Command{
		Use: "tsa DIR CERTIFICATE [--url URL]", Short: "Let the timestamps of an authority count · 采信时间戳机构", Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			der, err := oneCertificate(args[1], "each timestamp authority is named by itself, without the chain of its certificate")
			if err != nil {
				return err
			}
			authority, err := openAuthority(args[0], *passFile)
			if err != nil {
				return err
			}
			if err := authority.AddTSA(der, url); err != nil {
				return err
			}
			print := certs.Fingerprint(der)
			return a.print(map[string]string{"fingerprint": print}, "timestamp authority with fingerprint: %s\nnext: compare it over another channel, then yizhan ca publish %s\n", print, args[0])
		},
	}
	c.Flags().StringVar(&url, "url", "", "http or https URL where nodes ask it (RFC 3161)")
	return c
}
