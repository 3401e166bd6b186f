package main

import (
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/rest"
	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/exchange"
)

func (a *app) keyCommand() *cobra.Command {
	var data string
	c := &cobra.Command{Use: "key", Short: "API keys of agency systems · 接口密钥"}
	c.PersistentFlags().StringVar(&data, "data", "", "the node's data directory")
	c.AddCommand(a.keyCreate(&data), a.keyList(&data), a.keyRevoke(&data))
	return c
}

func openKeyRing(data string) (*rest.KeyRing, error) {
	if data == "" {
		return nil, usage("--data DIR is needed")
	}
	d := dataDir(data)
	if _, err := d.settings(); err != nil {
		return nil, err
	}
	return rest.OpenKeyRing(d.path(apiKeysFile))
}

func (a *app) keyCreate(data *string) *cobra.Command {
	var agency, note, certificate string
	var scopes []string
	var days int
	c := &cobra.Command{
		Use: "create --agency CODE", Short: "Make a key; it is shown this once", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			ring, err := openKeyRing(*data)
			if err != nil {
				return err
			}
			code, err := certs.ParseAgencyCode(agency)
			if err != nil {
				return &exchange.Error{Code: exchange.CodeAgencyCode, Detail: "--agency", Err: err}
			}
			var expires *time.Time
			if days > 0 {
				t := time.Now().UTC().AddDate(0, 0, days)
				expires = &t
			}
			if certificate != "" {
				return a.keyBind(ring, *data, certificate, code, scopes, expires, note)
			}
			var secret string
			var key rest.Key
			err = dataDir(*data).changing(func() error {
				secret, key, err = ring.Create(rand.Reader, code, scopes, expires, note, time.Now())
				return err
			})
			if err != nil {
				return err
			}
			out := map[string]any{"id": key.ID, "key": secret, "agency": key.Agency, "scopes": key.Scopes}
			return a.print(out, "%s\n", secret)
		},
	}
	c.Flags().StringVar(&agency, "agency", "", "the agency the key is for")
	c.Flags().StringSliceVar(&scopes, "scope", rest.Scopes, "what the key may do: "+strings.Join(rest.Scopes, ", "))
	c.Flags().IntVar(&days, "days", 365, "days until it expires; 0 is never")
	c.Flags().StringVar(&note, "note", "", "for whom it is")
	c.Flags().StringVar(&certificate, "certificate", "", "client certificate (PEM) that stands for the key, on a node with [rest_tls]")
	return c
}

// keyBind makes a key for whoever holds a client certificate.
func (a *app) keyBind(ring *rest.KeyRing, data, file string, code certs.AgencyCode, scopes []string, expires *time.Time, note string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return exchange.Fail(exchange.CodeBadRequest, "--certificate: %s holds no certificate in PEM", file)
	}
	var key rest.Key
	err = dataDir(data).changing(func() error {
		key, err = ring.Bind(rand.Reader, block.Bytes, code, scopes, expires, note, time.Now())
		return err
	})
	if err != nil {
		return err
	}
	return a.print(map[string]any{"id": key.ID, "agency": key.Agency, "scopes": key.Scopes, "certificate": key.Certificate}, "%s\n", key.ID)
}

func (a *app) keyList(data *string) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the keys, without their secrets", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			ring, err := openKeyRing(*data)
			if err != nil {
				return err
			}
			keys, err := ring.List()
			if err != nil {
				return err
			}
			text := ""
			for _, k := range keys {
				text += fmt.Sprintf("%s  %s  %s  %s\n", k.ID, k.Agency, strings.Join(k.Scopes, ","), k.Note)
			}
			return a.print(map[string]any{"keys": keys}, "%s", text)
		},
	}
}

func (a *app) keyRevoke(data *string) *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "Revoke a key at once", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			ring, err := openKeyRing(*data)
			if err != nil {
				return err
			}
			if err := dataDir(*data).changing(func() error { return ring.Revoke(args[0]) }); err != nil {
				return err
			}
			return a.print(map[string]string{"revoked": args[0]}, "revoked %s\n", args[0])
		},
	}
}
