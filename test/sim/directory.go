package sim

import (
	"strings"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// shelfDir is where a host keeps its directories.
const shelfDir = "directory"

// enrol puts the first directory on a host, as joining the domain does, and
// lets the power go at the steps of its later ones.
func (h *host) enrol() {
	shelf, err := certs.OpenShelf(h.fs, shelfDir, h.now)
	h.w.must(err, "open the shelf of "+h.id)
	_, err = shelf.Trust(h.w.cast.directory.Authority(), h.w.cast.files[versionFirst-1])
	h.w.must(err, "enrol "+h.id)
	cut := func(_, name string) error {
		if strings.HasPrefix(name, shelfDir) && h.w.faults.hit(60) {
			h.torn = true
			panic(crash{})
		}
		return nil
	}
	h.shelf, h.fs.Before, h.fs.After = shelf, cut, cut
}

// reopenShelf reads the directories back after a power cut that came while they
// were being written, and now and then after another one: judging a directory
// is what takes most time in a run.
func (h *host) reopenShelf() {
	if !h.torn && h.w.rng.IntN(4) > 0 {
		return
	}
	before := h.version()
	shelf, err := certs.OpenShelf(h.fs, shelfDir, h.now)
	h.w.must(err, "open the shelf of "+h.id)
	if shelf.Current().Version() < before {
		h.w.fail("node %s had directory %d in force and starts with %d", h.id, before, shelf.Current().Version())
	}
	h.shelf, h.torn = shelf, false
}

func (h *host) version() uint64 { return h.shelf.Current().Version() }

// directories is what a host's node gives and takes.
type directories struct{ h *host }

func (d directories) Delta(from uint64) ([]byte, error) { return d.h.shelf.Delta(from) }

func (d directories) Take(delta []byte) error {
	before := d.h.version()
	got, err := d.h.shelf.Take(delta)
	if err == nil && got.Version() > before {
		d.h.w.stats.Spread++
		d.h.w.note("%s takes directory %d", d.h.id, got.Version())
	}
	return err
}

// publish lets the next version, or one that is out already, be installed at
// a node by a person.
func (w *world) publish(h *host) {
	newest := uint64(0)
	for _, o := range w.hosts {
		newest = max(newest, o.version())
	}
	w.install(h, min(newest+1, w.last))
}

func (w *world) install(h *host, version uint64) {
	if version <= h.version() {
		return
	}
	w.guarded(h, func() {
		_, err := h.shelf.Install(w.cast.files[version-1])
		w.must(err, "install a directory")
		h.node.Wake()
		w.stats.Installed++
		w.note("%s installs directory %d", h.id, version)
	})
}

// keyring are a host's keys. Renewed signing keys may come into it later than
// the directory that names them. It notices what must never happen: work with
// a private key inside a transaction, which a slow or lost HSM would stop.
type keyring struct {
	*keystore.Store
	h    *host
	late bool // renewed signing keys are not here yet
}

func (k *keyring) outside(what string) {
	if k.h.store.inside > 0 {
		k.h.w.fail("node %s: %s inside a transaction", k.h.id, what)
	}
}

// Has hides late keys, until the old ones are about to end.
func (k *keyring) Has(id sm.Digest) bool {
	if k.late && k.h.w.cast.renewed[id] && k.h.version() < versionRevoked {
		return false
	}
	return k.Store.Has(id)
}

func (k *keyring) Sign(id sm.Digest, msg []byte) ([]byte, error) {
	k.outside("signing")
	if !k.Has(id) {
		return nil, keystore.ErrNoKey
	}
	return k.Store.Sign(id, msg)
}

func (k *keyring) Unwrap(id sm.Digest, sealed []byte) ([]byte, error) {
	k.outside("unwrapping")
	return k.Store.Unwrap(id, sealed)
}
