package main

import (
	"crypto/ecdsa"
	"crypto/rand"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// device is an HSM in memory that can be made to hang, or be taken out.
type device struct {
	mu   sync.Mutex
	keys map[sm.Digest]*sm.PrivateKey
	hang chan struct{} // Reload waits until it is closed; nil: it answers
	lost bool
}

func (d *device) Generate(rand io.Reader) (*ecdsa.PublicKey, error) {
	key, err := sm.GenerateKey(rand)
	if err != nil {
		return nil, err
	}
	return &key.PublicKey, d.Import(key)
}

func (d *device) Import(key *sm.PrivateKey) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keys[sm.KeyID(&key.PublicKey)] = key
	return nil
}

func (d *device) Public() (list []*ecdsa.PublicKey) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, key := range d.keys {
		list = append(list, &key.PublicKey)
	}
	return list
}

func (d *device) Reload() error {
	d.mu.Lock()
	hang := d.hang
	d.mu.Unlock()
	if hang != nil {
		<-hang
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lost {
		return keystore.ErrUnavailable
	}
	return nil
}

func (d *device) set(hang chan struct{}, lost bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hang, d.lost = hang, lost
}

func (d *device) key(id sm.Digest) *sm.PrivateKey {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.keys[id]
}

func (d *device) Signs() bool { return true }

func (d *device) Sign(rand io.Reader, id sm.Digest, msg []byte) ([]byte, error) {
	return sm.Sign(rand, d.key(id), msg)
}

func (d *device) Unwrap(id sm.Digest, sealed []byte) ([]byte, error) {
	return sm.Decrypt(d.key(id), sealed)
}

func (*device) Close() error { return nil }

// adopting is a node that serves, without its doors, and its authority.
type adopting struct {
	*testing.T
	*gateway
	hsm       *device
	authority *certs.Authority
	beside    *keystore.Store // the same HSM, as another process has it
	ca        string
	agencies  []certs.AgencySpec
	old       *certs.Certificate // the node's first signing certificate
}

func newAdopting(t *testing.T) *adopting {
	dir := t.TempDir()
	a := &adopting{T: t, ca: filepath.Join(dir, "ca"), hsm: &device{keys: map[sm.Digest]*sm.PrivateKey{}}}
	fatal := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	code, err := certs.MakeAgencyCode("11520000000000001")
	fatal(err)
	a.agencies = []certs.AgencySpec{{Code: code, Name: "示范单位"}}
	a.authority, err = certs.InitAuthority(filepath.Join(dir, "ca"), "test", []byte("p"), rand.Reader, time.Now())
	fatal(err)
	a.beside, err = keystore.CreateNative(filepath.Join(dir, "keys"), a.hsm, rand.Reader)
	fatal(err)
	a.renew()
	shelf, err := certs.OpenShelf(durable.OS, dir, time.Now)
	fatal(err)
	d, err := shelf.Trust(a.authority.Certificate(), a.publish())
	fatal(err)
	// One of the keys that the directory names has never been here.
	delete(a.hsm.keys, d.Agencies()[0].Certificates[0].KeyID)
	keys, err := keystore.OpenNative(filepath.Join(dir, "keys"), a.hsm, rand.Reader)
	fatal(err)
	a.gateway = &gateway{dir: dataDir(dir), settings: &settings{Node: "jia"}, log: slog.New(slog.DiscardHandler), keys: keys, shelf: shelf, base: d}
	a.putInForce(d)
	self, _ := d.Node("jia")
	a.old, err = self.Current(certs.UseSign, time.Now())
	fatal(err)
	return a
}

// renew makes new keys beside the node and has them certified.
func (a *adopting) renew() {
	a.Helper()
	b, err := certs.NewRequest(a.beside, "test", certs.NodeSpec{ID: "jia"}, a.agencies, time.Now())
	if err != nil {
		a.Fatal(err)
	}
	r, err := certs.ParseRequest(b)
	if err != nil {
		a.Fatal(err)
	}
	admission, err := a.authority.Admission(time.Now())
	if err != nil {
		a.Fatal(err)
	}
	admission.Replace = true
	if err = admission.Add(r); err == nil {
		err = admission.Commit()
	}
	if err != nil {
		a.Fatal(err)
	}
}

func (a *adopting) publish() []byte {
	a.Helper()
	file, err := a.authority.Publish(time.Now())
	if err != nil {
		a.Fatal(err)
	}
	return file
}

// install publishes, installs and adopts, and gives the version in force then.
func (a *adopting) install() uint64 {
	a.Helper()
	if _, err := a.shelf.Install(a.publish()); err != nil {
		a.Fatal(err)
	}
	a.adopt()
	return a.directory.Load().Version()
}

// within fails when a step waits for the device.
func (a *adopting) within(what string, d time.Duration, step func()) {
	a.Helper()
	done := make(chan struct{})
	go func() { step(); close(done) }()
	select {
	case <-done:
	case <-time.After(d):
		a.Fatalf("%s waits for the device", what)
	}
}

// TestRevocationsDoNotWaitForTheHSM: a directory that names no new key of this
// node is in force at once, whether the HSM is lost or hangs.
func TestRevocationsDoNotWaitForTheHSM(t *testing.T) {
	a := newAdopting(t)
	hang := make(chan struct{})
	defer close(hang)
	for i, set := range []func(){func() { a.hsm.set(nil, true) }, func() { a.hsm.set(hang, false) }} {
		set()
		if err := a.authority.Revoke(a.old.DER, time.Now().Add(-time.Duration(i)*time.Hour), certs.ReasonKeyCompromise); err != nil {
			t.Fatal(err)
		}
		a.within("a revocation", keyPatience, func() {
			if got := a.install(); got != uint64(2+i) {
				t.Errorf("version %d is in force", got)
			}
		})
		self, _ := a.directory.Load().Node("jia")
		if !self.Certificates[0].RevokedAt(time.Now()) && !self.Certificates[1].RevokedAt(time.Now()) {
			t.Error("the revocation is not in force")
		}
	}
	if !a.keys.Has(a.old.KeyID) {
		t.Error("a key is gone")
	}
}

// TestNewKeysWaitForTheHSM: the directory in force stays until the keys can be
// read, and meanwhile nothing else waits.
func TestNewKeysWaitForTheHSM(t *testing.T) {
	a := newAdopting(t)
	a.renew()
	hang := make(chan struct{})
	a.hsm.set(hang, false)
	a.within("bringing a directory", 10*keyPatience, func() {
		if got := a.install(); got != 1 {
			t.Errorf("version %d is in force without its keys", got)
		}
	})
	go a.adopt()
	a.within("evidence", keyPatience/2, func() { a.crlFiles() })
	a.within("a list of revocations", keyPatience/2, func() { a.takeRevocations(nil) })
	a.within("a directory for a neighbour", keyPatience/2, func() {
		if b, err := a.shelf.Delta(1); b == nil || err != nil {
			t.Errorf("%d bytes, %v", len(b), err)
		}
	})
	a.hsm.set(nil, true)
	close(hang)
	a.adopt()
	if got := a.directory.Load().Version(); got != 1 {
		t.Errorf("version %d is in force while the HSM is lost", got)
	}
	a.hsm.set(nil, false)
	a.adopt()
	if got := a.directory.Load().Version(); got != 2 {
		t.Errorf("version %d is in force with the HSM back", got)
	}
	self, _ := a.directory.Load().Node("jia")
	for _, c := range self.Certificates {
		if !a.keys.Has(c.KeyID) {
			t.Errorf("key %s is not known", c.KeyID)
		}
	}
}
