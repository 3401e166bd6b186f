package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/config"
	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/queue"
	"github.com/yizhan-gateway/yizhan/queue/badgerstore"
	"github.com/yizhan-gateway/yizhan/queue/blob"
)

// dataDir is where a node keeps everything it has.
type dataDir string

func (d dataDir) path(name string) string { return filepath.Join(string(d), name) }

// Names in a data directory.
const (
	configFile    = "config.toml"
	guardFile     = "guard.toml"
	keysDir       = "keys"
	tlsCertFile   = "tls.crt"
	tlsKeyFile    = "tls.key"
	requestFile   = "request.json"
	directoryFile = "directory.yzd"
	authorityFile = "authority.crt"
	apiKeysFile   = "api-keys.json"
	storeDir      = "store"
	blobsDir      = "blobs"
	ballastFile   = "ballast"
)

// settings is config.toml. Listen addresses are host:port; port 0 is chosen
// by the system.
type settings struct {
	Node       string `toml:"node" comment:"this node's name in the directory"`
	Domain     string `toml:"domain" comment:"the trust domain"`
	Zone       string `toml:"zone"`
	PeerURL    string `toml:"peer_url" comment:"where neighbours reach this node; empty if they never dial it"`
	PeerListen string `toml:"peer_listen" comment:"for neighbours; empty: none dials this node"`
	RestListen string `toml:"rest_listen" comment:"for agency systems; plain HTTP, so keep it on loopback or behind a TLS proxy; empty: it serves no agency"`
	MaxUpload  int64  `toml:"max_upload" comment:"bytes of one submission"`

	DeadLetterAfter duration `toml:"dead_letter_after,omitempty" comment:"how long a neighbour may take to take a delivery until it is parked; empty: 168h"`

	Keystore keystoreSettings `toml:"keystore"`
	Trust    trustSettings    `toml:"trust"`

	Timestamp timestampSettings `toml:"timestamp"`
	Metrics   metricsSettings   `toml:"metrics"`
	Disk      diskSettings      `toml:"disk"`
	Log       logSettings       `toml:"log"`
	Quota     quotaSettings     `toml:"quota"`
	Inspect   inspectSettings   `toml:"inspect"`
	Webhooks  webhookSettings   `toml:"webhooks"`
	Uploads   uploadSettings    `toml:"uploads"`
	Ferry     []ferrySettings   `toml:"ferry,omitempty"`
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
	if err == nil && s.DeadLetterAfter < 0 {
		err = exchange.Fail(exchange.CodeBadRequest, "%s: dead_letter_after is %s; name a time such as \"168h\"", d.path(configFile), time.Duration(s.DeadLetterAfter))
	}
	if err == nil {
		err = errors.Join(s.Disk.check(d.path(configFile)), s.Log.check(d.path(configFile)), s.Quota.check(d.path(configFile)), s.Inspect.check(d.path(configFile)), s.Webhooks.check(d.path(configFile)), s.Uploads.check(d.path(configFile)))
		for i := range s.Ferry {
			err = errors.Join(err, s.Ferry[i].check(d.path(configFile)))
		}
	}
	return &s, err
}

// openStore opens the store, or makes it at the first start. Blobs without a
// store are refused: a new one would have them swept as what nothing refers to.
func (d dataDir) openStore(log *slog.Logger) (*badgerstore.Store, error) {
	_, err := os.Stat(filepath.Join(d.path(blobsDir), "generation"))
	used := err == nil
	entries, err := os.ReadDir(d.path(storeDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if used && len(entries) == 0 {
		return nil, exchange.Fail(exchange.CodeStoreDamaged, "%s has payloads and no store", string(d))
	}
	store, err := badgerstore.Open(d.path(storeDir), badgerstore.Options{Logger: log})
	if errors.Is(err, badgerstore.ErrDamaged) {
		return nil, &exchange.Error{Code: exchange.CodeStoreDamaged, Err: err}
	}
	if err != nil || !used {
		return store, err
	}
	if err := d.belongs(store); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return store, nil
}

// openBlobs opens the payloads, wherever they lie.
func (d dataDir) openBlobs() (*blob.Store, error) {
	first, err := filepath.Abs(d.path(blobsDir)) // so that it can be told from what is added
	if err != nil {
		return nil, err
	}
	s, err := blob.Open(durable.OS, first)
	if errors.Is(err, blob.ErrNoRoot) {
		return nil, &exchange.Error{Code: exchange.CodeRootMissing, Err: err}
	}
	return s, err
}

// belongs refuses a store that is empty beside payloads: what it had is lost.
func (d dataDir) belongs(store *badgerstore.Store) error {
	return store.View(context.Background(), func(tx queue.Tx) error {
		identity, err := records.Identity.Get(tx)
		if err == nil && identity == nil {
			err = exchange.Fail(exchange.CodeStoreDamaged, "%s has payloads and an empty store", string(d))
		}
		return err
	})
}

// shelf opens the node's directories. Nothing need be installed yet.
func (d dataDir) shelf(now nowFunc) (*certs.Shelf, error) {
	return certs.OpenShelf(durable.OS, string(d), now)
}

// shelfToInstall opens the node's directories for a command that installs one:
// it judges approvals by the revocation lists that the node keeps, as the
// running node does.
func (d dataDir) shelfToInstall(s *settings, now nowFunc) (*certs.Shelf, error) {
	shelf, err := d.shelf(now)
	if err != nil || shelf.Current() == nil {
		return shelf, err
	}
	_, err = d.watcher(shelf.Current(), s, now, shelf.Know)
	return shelf, err
}

// directory gives the directory in force, for commands that only look: a node
// may be running. It was verified, and is not below the highest version that
// was ever in force here.
func (d dataDir) directory(now nowFunc) (*certs.Directory, error) {
	dir, err := certs.InForce(durable.OS, string(d), now)
	if err == nil && dir == nil {
		err = d.noDirectory()
	}
	if err != nil {
		return nil, err
	}
	return dir, nil
}

func (d dataDir) noDirectory() error {
	return exchange.Fail(exchange.CodeNotFound, "no directory is installed; run yizhan join --data %s --directory FILE, or yizhan init --data %s --directory FILE --authority FILE", string(d), string(d))
}
