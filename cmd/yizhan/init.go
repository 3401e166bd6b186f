package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/peer"
	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

type nowFunc func() time.Time

const passphraseEnv = "YIZHAN_PASSPHRASE"

type initFlags struct {
	data, node, zone, domain       string
	peerURL, peerListen, rest      string
	agencies                       []string
	directory, authority, passFile string
	keystore                       keystoreFlags
	boundary                       boundaryFlags
}

func (a *app) initCommand() *cobra.Command {
	f := new(initFlags)
	c := &cobra.Command{
		Use:   "init --data DIR",
		Short: "Make a node's keys and join request, or install a directory · 初始化节点",
		Long: `First step, with --node: makes the keys of the node and of the agencies it serves,
and request.json, which the domain's authority admits with "yizhan ca admit".

Second step, with --directory and --authority: installs the directory that the
authority published. Compare the printed fingerprint with the authority's over
another channel before the first start.

With --profile boundary: one of the two nodes on either side of a gate that moves files
(docs/deploy/boundary.md). It serves no agency, holds no agency's key and listens to no
agency's system; config.toml has the link to the node --beyond with its spool.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if f.data == "" {
				return usage("--data DIR is needed")
			}
			if f.directory != "" {
				return a.installDirectory(f)
			}
			if err := f.checkProfile(c.Flags().Changed("rest-listen")); err != nil {
				return err
			}
			return a.initNode(f)
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.data, "data", "", "the node's data directory")
	fl.StringVar(&f.node, "node", "", "the node's name: a-z, 0-9, -")
	fl.StringVar(&f.zone, "zone", "", "the network zone it lives in, e.g. 政务外网")
	fl.StringVar(&f.domain, "domain", "", "the trust domain's name")
	fl.StringVar(&f.peerURL, "peer-url", "", "https URL where neighbours reach the node")
	fl.StringVar(&f.peerListen, "peer-listen", "127.0.0.1:8443", "address to serve neighbours on")
	fl.StringVar(&f.rest, "rest-listen", "127.0.0.1:8080", "address to serve agency systems on")
	fl.StringArrayVar(&f.agencies, "agency", nil, "CODE=NAME of an agency the node serves (repeatable)")
	fl.StringVar(&f.directory, "directory", "", "directory file to install")
	fl.StringVar(&f.authority, "authority", "", "authority's certificate to trust, PEM")
	fl.StringVar(&f.passFile, "passphrase-file", "", "file with the keystore's passphrase (or set "+passphraseEnv+")")
	fl.StringVar(&f.boundary.profile, "profile", "", "boundary: a node at a gate between two zones")
	fl.StringVar(&f.boundary.beyond, "beyond", "", "profile boundary: the node on the other side")
	fl.StringVar(&f.boundary.spool, "spool", "", "profile boundary: the directory that the gate serves (default: one in the data directory, for media)")
	f.keystore.register(c)
	return c
}

func (a *app) initNode(f *initFlags) error {
	if f.node == "" || f.domain == "" {
		return usage("--node and --domain are needed (or --directory to install one)")
	}
	agencies, err := agencySpecs(f.agencies)
	if err != nil {
		return err
	}
	places, err := f.keystore.settings()
	if err != nil {
		return err
	}
	d := dataDir(f.data)
	if err := d.vacant(); err != nil {
		return err
	}
	pass, err := keystore.Passphrase(f.passFile, passphraseEnv)
	if err != nil {
		return err
	}
	if err := durable.OS.MkdirAll(f.data); err != nil {
		return err
	}
	return d.changing(func() error { return a.makeNode(f, d, places, agencies, pass) })
}

// vacant refuses a directory with a node in it.
func (d dataDir) vacant() error {
	if _, err := os.Stat(d.path(configFile)); err != nil {
		return nil
	}
	who := "a node"
	if s, err := d.settings(); err == nil {
		who = fmt.Sprintf("node %s of domain %s", s.Node, s.Domain)
	}
	return exchange.Fail(exchange.CodeSetupConflict, "%s holds %s already; nothing was changed", string(d), who)
}

func (a *app) makeNode(f *initFlags, d dataDir, places *keystoreSettings, agencies []certs.AgencySpec, pass []byte) (err error) {
	if err := d.vacant(); err != nil { // another init was faster
		return err
	}
	keys, made, err := places.create(d.path(keysDir), pass)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, keys.Close()) }()
	if err := keys.SelfTest(); err != nil {
		return err
	}
	pin, err := d.makeTLS()
	if err != nil {
		return err
	}
	spec := certs.NodeSpec{ID: f.node, Zone: f.zone, URL: f.peerURL, TLSPin: pin}
	request, err := certs.NewRequest(keys, f.domain, spec, agencies, time.Now())
	if err != nil {
		return err
	}
	parsed, err := certs.ParseRequest(request)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(durable.OS, d.path(requestFile), request); err != nil {
		return err
	}
	ferries, err := f.ferries()
	if err != nil {
		return err
	}
	err = d.writeSettings(&settings{
		Node: f.node, Domain: f.domain, Zone: f.zone, PeerURL: f.peerURL,
		PeerListen: f.peerListen, RestListen: f.rest, MaxUpload: 32 << 20,
		Keystore: *places, Ferry: ferries,
	})
	if err != nil {
		return err
	}
	fingerprints, err := a.sayKeys(parsed)
	if err != nil {
		return err
	}
	out := map[string]any{"data": f.data, "request": d.path(requestFile), "keystore": places.mode(), "keys": fingerprints}
	note := ""
	if places.mode() == modeWrapped {
		if out["wrapping_key_made"] = made; made {
			note = fmt.Sprintf("the wrapping key %q was made in token %q: without it the keys do not open, so back the token up\n", places.Key, places.Token)
		}
	}
	steps := f.boundarySteps(d.path(requestFile))
	if len(ferries) > 0 {
		out["profile"], out["link"], out["spool"], out["next"] = f.boundary.profile, ferries[0].Link, ferries[0].Spool, steps
	}
	return a.print(out, "%snode %s is ready to join\nnext: %s\n", note, f.node, strings.Join(steps, "\n      "))
}

func agencySpecs(list []string) ([]certs.AgencySpec, error) {
	var out []certs.AgencySpec
	for _, s := range list {
		text, name, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return nil, usage("--agency %q: CODE=NAME is expected", s)
		}
		code, err := certs.ParseAgencyCode(text)
		if err != nil {
			return nil, &exchange.Error{Code: exchange.CodeAgencyCode, Err: err}
		}
		out = append(out, certs.AgencySpec{Code: code, Name: name})
	}
	return out, nil
}

func (d dataDir) makeTLS() (pin [32]byte, err error) {
	cert, key, pin, err := peer.GenerateTLS(rand.Reader)
	if err != nil {
		return pin, err
	}
	if err := durable.WriteFile(durable.OS, d.path(tlsCertFile), cert); err != nil {
		return pin, err
	}
	return pin, durable.WriteFile(durable.OS, d.path(tlsKeyFile), key)
}

// installDirectory verifies before it replaces anything. Without --authority
// the authority trusted here, or its heir, must have signed.
func (a *app) installDirectory(f *initFlags) error {
	d := dataDir(f.data)
	s, err := d.settings()
	if err != nil {
		return err
	}
	file, err := durable.ReadFile(durable.OS, f.directory, certs.MaxDirectory)
	if err != nil {
		return err
	}
	var dir *certs.Directory
	err = d.changing(func() error {
		dir, err = f.install(d, s, file)
		return err
	})
	if err != nil {
		return err
	}
	out := map[string]any{"domain": dir.Domain(), "version": dir.Version(), "fingerprint": dir.Fingerprint()}
	return a.print(out, "directory of %s, version %d, is installed\nauthority's fingerprint: %s\n%s",
		dir.Domain(), dir.Version(), dir.Fingerprint(), fmt.Sprintf("next: yizhan serve --data %s\n", f.data))
}

func (f *initFlags) install(d dataDir, s *settings, file []byte) (*certs.Directory, error) {
	shelf, err := d.shelfToInstall(s, time.Now)
	if err != nil {
		return nil, err
	}
	if f.authority == "" {
		return shelf.Install(file)
	}
	authority, err := certs.ReadCertificate(f.authority)
	if err != nil {
		return nil, err
	}
	dir, err := certs.LoadDirectory(file, authority, 0, time.Now())
	if err != nil {
		return nil, err
	}
	if err := s.ofDomain(dir); err != nil {
		return nil, err
	}
	return shelf.Trust(authority, file)
}

// ofDomain refuses the directory of another domain than the node's.
func (s *settings) ofDomain(d *certs.Directory) error {
	if d.Domain() == s.Domain {
		return nil
	}
	return exchange.Fail(exchange.CodeSetupConflict, "the directory is one of domain %s, and this is a node of %s; nothing was changed", d.Domain(), s.Domain)
}
