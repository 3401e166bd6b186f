package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/config"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// dataDir is where a node keeps everything it has.
type dataDir string

func (d dataDir) path(name string) string { return filepath.Join(string(d), name) }

// Names in a data directory.
const (
	configFile    = "config.toml"
	keysDir       = "keys"
	tlsCertFile   = "tls.crt"
	tlsKeyFile    = "tls.key"
	requestFile   = "request.json"
	directoryFile = "directory.yzd"
	authorityFile = "authority.crt"
	versionFile   = "directory.version"
	apiKeysFile   = "api-keys.json"
	storeDir      = "store"
	blobsDir      = "blobs"
)

// settings is config.toml. Listen addresses are host:port; port 0 is chosen
// by the system.
type settings struct {
	Node       string `toml:"node" comment:"this node's name in the directory"`
	Domain     string `toml:"domain" comment:"the trust domain"`
	Zone       string `toml:"zone"`
	PeerURL    string `toml:"peer_url" comment:"where neighbours reach this node; empty if they never dial it"`
	PeerListen string `toml:"peer_listen"`
	RestListen string `toml:"rest_listen" comment:"for agency systems; plain HTTP, so keep it on loopback or behind a TLS proxy"`
	MaxUpload  int64  `toml:"max_upload" comment:"bytes of one submission"`
}

func (d dataDir) writeSettings(s *settings) error {
	b, err := config.Encode(s)
	if err != nil {
		return err
	}
	return durable.WriteFile(durable.OS, d.path(configFile), b)
}

func (d dataDir) settings() (*settings, error) {
	var s settings
	err := config.Load(d.path(configFile), &s)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, exchange.Fail(exchange.CodeNotFound, "%s is not a node's data directory; make one with yizhan init", string(d))
	}
	return &s, err
}

// directory loads and verifies the installed directory and refuses a version
// below the highest that was ever in force here.
func (d dataDir) directory(now nowFunc) (*certs.Directory, error) {
	authority, err := certs.ReadCertificate(d.path(authorityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, exchange.Fail(exchange.CodeNotFound, "no directory is installed; run yizhan init --data %s --directory FILE --authority FILE", string(d))
	}
	if err != nil {
		return nil, err
	}
	file, err := durable.ReadFile(durable.OS, d.path(directoryFile), certs.MaxDirectory)
	if err != nil {
		return nil, err
	}
	highest, err := d.highestVersion()
	if err != nil {
		return nil, err
	}
	dir, err := certs.LoadDirectory(file, authority, highest, now())
	if err != nil {
		return nil, err
	}
	if dir.Version() > highest {
		// Durable before the version is used: after a crash it still counts.
		b := []byte(strconv.FormatUint(dir.Version(), 10) + "\n")
		err = durable.WriteFile(durable.OS, d.path(versionFile), b)
	}
	return dir, err
}

func (d dataDir) highestVersion() (uint64, error) {
	b, err := os.ReadFile(d.path(versionFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is unreadable: put the highest directory version this node has seen into it", d.path(versionFile))
	}
	return n, nil
}
