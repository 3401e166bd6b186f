package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

func (a *app) directoryCommand() *cobra.Command {
	c := &cobra.Command{Use: "directory", Short: "Show, compare, approve and publish directories · 名录"}
	c.AddCommand(a.directoryShow(), a.directoryFind(), a.directoryDiff(), a.directorySign(), a.directoryPublish(), a.directoryAdministrator())
	return c
}

func (a *app) directoryShow() *cobra.Command {
	var data, authority string
	c := &cobra.Command{
		Use:   "show (--data DIR | FILE | CADIR)",
		Short: "Show all that a directory says · 查看名录",
		Long: `Shows the directory in force at a node (--data), the one that an authority
published (its directory), or one in a file. A file is verified under
--authority; without it, under the certificate that it brings along, which says
nothing about who made it until you compare the fingerprint.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			d, err := a.someDirectory(data, authority, args)
			if err != nil {
				return err
			}
			v := viewOf(d, a.now())
			if data == "" {
				if err := v.addHeir(args[0], d); err != nil {
					return err
				}
			}
			return a.print(v, "%s", v.text(a.language()))
		},
	}
	c.Flags().StringVar(&data, "data", "", "a node's data directory")
	c.Flags().StringVar(&authority, "authority", "", "authority's certificate to verify a file with, PEM")
	return c
}

func (a *app) directoryFind() *cobra.Command {
	var data, authority string
	c := &cobra.Command{
		Use:   "find TEXT (--data DIR | FILE | CADIR)",
		Short: "Find agencies by code, name, alias or group · 查找单位",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			d, err := a.someDirectory(data, authority, args[1:])
			if err != nil {
				return err
			}
			found, by := d.Resolve(args[0])
			if len(found) == 0 {
				found, by = d.Search(args[0], 100), "part"
			}
			if len(found) == 0 {
				return exchange.Fail(exchange.CodeNotFound, "no agency of the directory has this code, name, alias or group")
			}
			v := viewOf(d, a.now())
			out := struct {
				By       string       `json:"by"`
				Agencies []agencyView `json:"agencies"`
			}{by, []agencyView{}}
			text := ""
			for _, one := range found {
				i := slices.IndexFunc(v.Agencies, func(x agencyView) bool { return x.Code == one.Code })
				out.Agencies = append(out.Agencies, v.Agencies[i])
				text += fmt.Sprintf("%s  %s  (%s)\n", one.Code, one.Name, one.Node)
			}
			return a.print(out, "%s", text)
		},
	}
	c.Flags().StringVar(&data, "data", "", "a node's data directory")
	c.Flags().StringVar(&authority, "authority", "", "authority's certificate to verify a file with, PEM")
	return c
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func publishedAt(dir string) (*certs.Directory, error) {
	authority, err := readAuthority(dir)
	if err != nil {
		return nil, err
	}
	d, err := authority.Published()
	if err == nil && d == nil {
		err = exchange.Fail(exchange.CodeNotFound, "%s: there is no directory; make one with yizhan ca publish", dir)
	}
	return d, err
}

// someDirectory reads the directory that a command line names.
func (a *app) someDirectory(data, authority string, args []string) (*certs.Directory, error) {
	switch {
	case data != "" && len(args) == 0:
		return dataDir(data).directory(a.now)
	case data == "" && len(args) == 1:
		return a.readDirectory(args[0], authority)
	}
	return nil, usage("--data DIR or one file is needed")
}

// readDirectory reads a directory file, or the one that an authority published,
// perhaps with a certificate that it has replaced since.
func (a *app) readDirectory(path, authority string) (*certs.Directory, error) {
	if isFolder(path) && authority == "" {
		return publishedAt(path)
	}
	if isFolder(path) {
		path = filepath.Join(path, directoryFile)
	}
	file, err := durable.ReadFile(durable.OS, path, certs.MaxDirectory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, exchange.Fail(exchange.CodeNotFound, "%s: there is no directory", path)
	}
	if err != nil {
		return nil, err
	}
	var trusted []byte
	if authority != "" {
		trusted, err = certs.ReadCertificate(authority)
	} else {
		trusted, err = certs.SignerOf(file)
	}
	if err != nil {
		return nil, err
	}
	return certs.LoadDirectory(file, trusted, 0, a.now())
}
