package trust

import (
	"crypto/rand"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/crypto/timestamp"
	"github.com/yizhan-gateway/yizhan/crypto/timestamp/tsatest"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/evidence"
)

// TestAuthorityWhoseKeyWasStolen: what a timestamp authority's issuer says of it
// in its list reaches the judging of tokens, those from long before included.
func TestAuthorityWhoseKeyWasStolen(t *testing.T) {
	w := newWorld(t)
	tsa, err := tsatest.IssueKey(rand.Reader, tsatest.Template(testNow), &tsatest.Key{Private: w.key, DER: w.root.Raw})
	must(t, err)
	var file atomic.Pointer[[]byte]
	empty := w.crl(1)
	file.Store(&empty)
	d := directoryWith(t, w.root.Raw, serves(t, bytesAt(&file)), tsa.DER)
	judged := d
	watch := w.watcher(func(c *Config) {
		c.Sources = func() []Source { return SourcesOf(d, *w.now.Load()) }
		c.Apply = func(list []*certs.CRL) { judged = d.WithCRLs(list) }
	})
	checkpoint := []byte("a signed checkpoint")
	issuer := timestamp.Issuer{Signer: tsa.WithRandom(rand.Reader), Policy: tsatest.Policy}
	answer, err := issuer.Issue(&timestamp.Request{Imprint: sm.Sum(checkpoint), CertReq: true}, 1, testNow)
	must(t, err)
	token, err := timestamp.ParseResponse(answer)
	must(t, err)
	for i, tt := range []struct{ reason, code string }{
		{"none", ""},
		{"superseded", ""},
		{"key_compromise", exchange.CodeCertificateRevoked},
	} {
		if tt.reason != "none" {
			w.clock(testNow.AddDate(0, i, 0))
			one := serial(testNow.Unix(), *w.now.Load())
			one.Reason = tt.reason
			b := w.issued(int64(1+i), one)
			file.Store(&b)
		}
		watch.Round(t.Context())
		at, err := evidence.VerifyStamp(judged, checkpoint, token)
		if got := exchange.CodeOf(err); (err == nil) != (tt.code == "") || err != nil && got != tt.code {
			t.Errorf("%s: %s, %v; %+v", tt.reason, at, err, watch.Status())
		}
	}
}

// directoryWith names an issuer, where its list is, and a timestamp authority.
func directoryWith(t *testing.T, issuer []byte, list string, tsa []byte) *certs.Directory {
	t.Helper()
	dir, secret, now := t.TempDir(), []byte("p"), testNow.Add(-time.Hour)
	authority, err := certs.InitAuthority(filepath.Join(dir, "ca"), "test", secret, rand.Reader, now)
	must(t, err)
	keys, err := keystore.Create(filepath.Join(dir, "keys"), secret, rand.Reader)
	must(t, err)
	request, err := certs.NewRequest(keys, "test", certs.NodeSpec{ID: "jia"}, nil, now)
	must(t, err)
	r, err := certs.ParseRequest(request)
	must(t, err)
	must(t, authority.Admit(r, now))
	must(t, authority.AddIssuer(issuer, list, ""))
	must(t, authority.AddTSA(tsa, ""))
	b, err := authority.Publish(now)
	must(t, err)
	d, err := certs.LoadDirectory(b, authority.Certificate(), 0, now)
	must(t, err)
	return d
}
