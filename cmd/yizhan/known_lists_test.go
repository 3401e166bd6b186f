package main

import (
	"crypto/rand"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/adapters/trust"
	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// administratorFromOutside puts an administrator into the authority's entries
// whose certificate, of serial number 300, an outside authority issued, and
// gives the keys to approve with, and that authority's lists: empty, and with
// the administrator on it.
func (a *adopting) administratorFromOutside(crl string) (keys *keystore.Store, empty, names []byte) {
	a.Helper()
	check := func(err error) {
		a.Helper()
		if err != nil {
			a.Fatal(err)
		}
	}
	now := time.Now()
	key, err := sm.GenerateKey(rand.Reader)
	check(err)
	root := &smx509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "示范证书机构"}, NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(9, 0, 0),
		KeyUsage: smx509.KeyUsageCertSign | smx509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true,
	}
	ca, err := smx509.CreateCertificate(rand.Reader, root, root, &key.PublicKey, key)
	check(err)
	keys, err = keystore.Create(filepath.Join(a.TempDir(), "li"), []byte("p"), rand.Reader)
	check(err)
	pub, err := keys.Generate()
	check(err)
	cert, err := smx509.CreateCertificate(rand.Reader, &smx509.Certificate{
		SerialNumber: big.NewInt(300), Subject: pkix.Name{CommonName: "李四"}, NotBefore: now.AddDate(0, -1, 0), NotAfter: now.AddDate(5, 0, 0),
		KeyUsage: smx509.KeyUsageDigitalSignature | smx509.KeyUsageContentCommitment,
	}, root, pub, key)
	check(err)
	check(a.authority.AddIssuer(ca, crl, ""))
	entry := fmt.Sprintf(`{"type":"yizhan-administrator","v":1,"domain":"test","id":"li","name":"李四","certs":[{"use":"sign","cert":"%s"}]}`, base64.StdEncoding.EncodeToString(cert))
	check(os.WriteFile(filepath.Join(a.ca, "entries", "administrator-li.json"), []byte(entry), 0o600))
	_, err = a.authority.SetPolicy(1, now)
	check(err)
	list := func(number int64, revoked ...certs.RevokedSerial) []byte {
		sign := func(msg []byte) ([]byte, error) { return sm.Sign(rand.Reader, key, msg) }
		der, err := certs.NewCRL(ca, sign, big.NewInt(number), now, now.AddDate(0, 0, 7), revoked)
		check(err)
		return der
	}
	return keys, list(1), list(2, certs.RevokedSerial{Serial: big.NewInt(300), Effective: now.Add(-time.Hour), Reason: certs.ReasonKeyCompromise})
}

// approved publishes with an administrator's approval.
func (a *adopting) approved(keys *keystore.Store) []byte {
	a.Helper()
	d, err := a.authority.Draft(time.Now())
	if err == nil {
		err = a.authority.Approve(d, "li", keys, time.Now())
	}
	if err != nil {
		a.Fatal(err)
	}
	return a.publish()
}

// TestKnownListsJudgeApprovals: what an outside authority's list says of an
// administrator reaches the shelf of the running node, and of the command that
// installs a directory beside it.
func TestKnownListsJudgeApprovals(t *testing.T) {
	a := newAdopting(t)
	var file atomic.Pointer[[]byte]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(*file.Load()) }))
	t.Cleanup(server.Close)
	keys, empty, names := a.administratorFromOutside(server.URL + "/list.crl")
	file.Store(&empty)
	if _, err := a.shelf.Install(a.approved(keys)); err != nil {
		t.Fatal(err)
	}
	a.adopt()
	next := a.approved(keys)

	a.settings.Trust = trustSettings{AllowLocal: true}
	clock := atomic.Int64{}
	watch, err := trust.New(trust.Config{
		Sources: func() []trust.Source { return trust.SourcesOf(a.shelf.Current(), time.Now()) },
		Apply:   a.takeRevocations, FS: durable.OS, Dir: a.dir.path(trustDir), AllowLocal: true,
		Now: func() time.Time { return time.Now().Add(time.Duration(clock.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	watch.Round(t.Context())
	file.Store(&names)
	clock.Store(int64(2 * time.Hour))
	watch.Round(t.Context())
	for _, s := range watch.Status() {
		if s.Error != "" || s.Revoked != 1 {
			t.Fatalf("%+v", s)
		}
	}
	if _, err := a.shelf.Install(next); !errors.Is(err, certs.ErrApproval) {
		t.Errorf("the running node: %v", err)
	}
	beside, err := a.dir.shelfToInstall(a.settings, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := beside.Install(next); !errors.Is(err, certs.ErrApproval) {
		t.Errorf("a command beside it: %v", err)
	}
}
