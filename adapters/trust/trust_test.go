package trust

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

var testNow = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

// outside is a certification authority that is none of ours.
type outside struct {
	t    *testing.T
	key  *sm.PrivateKey
	root *smx509.Certificate
}

func newOutside(t *testing.T) *outside {
	key, err := sm.GenerateKey(rand.Reader)
	must(t, err)
	o := &outside{t: t, key: key}
	o.renew()
	return o
}

// renew gives it another certificate, of the same name and key.
func (o *outside) renew() {
	template := &smx509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "示范证书机构"},
		NotBefore: testNow.AddDate(-1, 0, 0), NotAfter: testNow.AddDate(9, 0, 0),
		KeyUsage: smx509.KeyUsageCertSign | smx509.KeyUsageCRLSign | smx509.KeyUsageDigitalSignature,
		IsCA:     true, BasicConstraintsValid: true,
	}
	der, err := smx509.CreateCertificate(rand.Reader, template, template, &o.key.PublicKey, o.key)
	must(o.t, err)
	o.root, err = smx509.ParseCertificate(der)
	must(o.t, err)
}

func (o *outside) source() *Source { return &Source{Issuer: o.root.Raw} }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (o *outside) sign(msg []byte) ([]byte, error) { return sm.Sign(rand.Reader, o.key, msg) }

func serial(n int64, at time.Time) certs.RevokedSerial {
	return certs.RevokedSerial{Serial: big.NewInt(n), Effective: at, Reason: "key_compromise"}
}

func (o *outside) cert(serial int64) []byte {
	key, err := sm.GenerateKey(rand.Reader)
	must(o.t, err)
	return o.certFor(serial, &key.PublicKey)
}

func (o *outside) certFor(serial int64, pub *ecdsa.PublicKey) []byte {
	der, err := smx509.CreateCertificate(rand.Reader, &smx509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "holder"},
		NotBefore: testNow.AddDate(0, -1, 0), NotAfter: testNow.AddDate(5, 0, 0), KeyUsage: smx509.KeyUsageDigitalSignature,
	}, o.root, pub, o.key)
	must(o.t, err)
	return der
}

func (o *outside) crl(number int64, revoked ...int64) []byte {
	var list []certs.RevokedSerial
	for _, n := range revoked {
		list = append(list, serial(n, testNow.Add(-time.Hour)))
	}
	der, err := certs.NewCRL(o.root.Raw, o.sign, big.NewInt(number), testNow, testNow.AddDate(0, 0, 7), list)
	must(o.t, err)
	return der
}

// world is a watcher with one issuer, a clock, and what it applied last.
type world struct {
	*outside
	now     atomic.Pointer[time.Time]
	source  Source
	dir     string
	mu      sync.Mutex
	applied []*certs.CRL
	times   int
}

func newWorld(t *testing.T) *world {
	w := &world{outside: newOutside(t), dir: filepath.Join(t.TempDir(), "trust")}
	w.source = Source{Issuer: w.root.Raw, Subject: "CN=示范证书机构"}
	w.clock(testNow)
	return w
}

func (w *world) clock(at time.Time) { w.now.Store(&at) }

func (w *world) watcher(change ...func(*Config)) *Watcher {
	w.t.Helper()
	cfg := Config{
		Sources: func() []Source { return []Source{w.source} },
		Apply: func(list []*certs.CRL) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.applied, w.times = list, w.times+1
		},
		FS: durable.OS, Dir: w.dir, AllowLocal: true, Timeout: 10 * time.Second,
		Now: func() time.Time { return *w.now.Load() },
	}
	for _, c := range change {
		c(&cfg)
	}
	out, err := New(cfg)
	must(w.t, err)
	return out
}

// revoked says whether what was applied revokes a serial number.
func (w *world) revoked(serial int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.applied {
		if _, ok := c.Find(big.NewInt(serial)); ok {
			return true
		}
	}
	return false
}

// serves answers each request with what the handler says, until the test ends.
func serves(t *testing.T, h http.HandlerFunc) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func bytesAt(b *atomic.Pointer[[]byte]) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(*b.Load()) }
}

// status of the only source.
func (w *world) status(t *testing.T, watch *Watcher) Status {
	t.Helper()
	list := watch.Status()
	if len(list) != 1 {
		t.Fatalf("%d sources", len(list))
	}
	return list[0]
}

func TestCRLIsFetchedKeptAndApplied(t *testing.T) {
	w := newWorld(t)
	var file atomic.Pointer[[]byte]
	set := func(b []byte) { file.Store(&b) }
	w.source.CRL = serves(t, bytesAt(&file)) + "/list.crl"
	watch := w.watcher()
	if s := w.status(t, watch); !s.Stale || !s.Fetched.IsZero() || s.Error != "" || w.times != 1 {
		t.Errorf("before the first: %+v, applied %d times", s, w.times)
	}
	set(w.crl(1, 300))
	watch.Round(t.Context())
	if s := w.status(t, watch); s.Stale || !s.Fetched.Equal(testNow) || s.Revoked != 1 || s.Error != "" || !s.ThisUpdate.Equal(testNow) {
		t.Errorf("after the first: %+v", s)
	}
	if !w.revoked(300) || w.revoked(301) {
		t.Error("serial 300 alone is revoked")
	}
	set(w.crl(2, 300, 301))
	watch.Round(t.Context())
	if w.revoked(301) {
		t.Error("asked again within the interval")
	}
	w.clock(testNow.Add(defaultInterval))
	watch.Round(t.Context())
	if !w.revoked(301) {
		t.Error("not asked again after the interval")
	}
	// The same list again: nothing changes but the age, on disk, too.
	times := w.times
	w.clock(testNow.Add(3 * defaultInterval))
	watch.Round(t.Context())
	if w.times != times {
		t.Error("the same list is applied again")
	}
	if s := w.status(t, w.watcher()); !s.Fetched.Equal(testNow.Add(3 * defaultInterval)) {
		t.Errorf("the age on disk: %+v", s)
	}
	// Another start, without the network.
	w.source.CRL = "http://127.0.0.1:1/list.crl"
	w.applied = nil
	watch = w.watcher()
	if !w.revoked(301) {
		t.Error("what was kept is not applied at the start")
	}
	watch.Round(t.Context())
	if s := w.status(t, watch); s.Error == "" || s.Fetched.IsZero() || !w.revoked(301) {
		t.Errorf("a source that is down: %+v", s)
	}
	w.clock(testNow.AddDate(0, 0, 8))
	if s := w.status(t, watch); !s.Stale || !w.revoked(301) {
		t.Errorf("overdue: %+v", s)
	}
}

// TestBadSources: whatever a source does, what it said before stays in force
// and the error is shown.
func TestBadSources(t *testing.T) {
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	stranger := newOutside(t)
	for name, bad := range map[string]func(*world) http.HandlerFunc{
		"an error": func(*world) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }
		},
		"slow": func(*world) http.HandlerFunc {
			return func(_ http.ResponseWriter, r *http.Request) {
				select {
				case <-release:
				case <-r.Context().Done():
				}
			}
		},
		"drops bytes": func(w *world) http.HandlerFunc {
			return func(out http.ResponseWriter, r *http.Request) {
				out.WriteHeader(http.StatusOK)
				for r.Context().Err() == nil {
					if _, err := out.Write([]byte{0x30}); err != nil {
						return
					}
					out.(http.Flusher).Flush()
					select {
					case <-release:
						return
					case <-time.After(20 * time.Millisecond):
					}
				}
			}
		},
		"endless": func(*world) http.HandlerFunc {
			return func(out http.ResponseWriter, r *http.Request) {
				chunk := make([]byte, 1<<20)
				for r.Context().Err() == nil {
					if _, err := out.Write(chunk); err != nil {
						return
					}
				}
			}
		},
		"signed by another": func(*world) http.HandlerFunc {
			return func(out http.ResponseWriter, _ *http.Request) { _, _ = out.Write(stranger.crl(9)) }
		},
		"an older list": func(w *world) http.HandlerFunc {
			return func(out http.ResponseWriter, _ *http.Request) { _, _ = out.Write(w.crl(4)) }
		},
		"a list from the future": func(w *world) http.HandlerFunc {
			der, err := certs.NewCRL(w.root.Raw, w.sign, big.NewInt(9), testNow.AddDate(1, 0, 0), testNow.AddDate(2, 0, 0), nil)
			must(w.t, err)
			return func(out http.ResponseWriter, _ *http.Request) { _, _ = out.Write(der) }
		},
		"redirects elsewhere": func(w *world) http.HandlerFunc {
			other := serves(w.t, func(out http.ResponseWriter, _ *http.Request) { _, _ = out.Write(w.crl(6)) })
			return func(out http.ResponseWriter, r *http.Request) { http.Redirect(out, r, other, http.StatusFound) }
		},
		"redirects in a circle": func(*world) http.HandlerFunc {
			return func(out http.ResponseWriter, r *http.Request) { http.Redirect(out, r, r.URL.Path, http.StatusFound) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			var h atomic.Pointer[http.HandlerFunc]
			good := http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) { _, _ = out.Write(w.crl(5, 300)) })
			h.Store(&good)
			w.source.CRL = serves(t, func(out http.ResponseWriter, r *http.Request) { (*h.Load())(out, r) })
			watch := w.watcher(func(c *Config) { c.Timeout = 500 * time.Millisecond })
			watch.Round(t.Context())
			if s := w.status(t, watch); s.Error != "" || !w.revoked(300) {
				t.Fatalf("while it was well: %+v", s)
			}
			ill := bad(w)
			h.Store(&ill)
			w.clock(testNow.Add(defaultInterval))
			watch.Round(t.Context())
			s := w.status(t, watch)
			if s.Error == "" || !s.Fetched.Equal(testNow) || !w.revoked(300) {
				t.Errorf("while it was ill: %+v", s)
			}
			t.Log(s.Error)
			// It comes back: asked again before the interval is over.
			h.Store(&good)
			w.clock(testNow.Add(defaultInterval + firstRetry))
			watch.Round(t.Context())
			if s := w.status(t, watch); s.Error != "" {
				t.Errorf("after it was well again: %+v", s)
			}
		})
	}
}

func TestRedirectOnTheSameHost(t *testing.T) {
	w := newWorld(t)
	w.source.CRL = serves(t, func(out http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			http.Redirect(out, r, "/list.crl", http.StatusFound)
			return
		}
		_, _ = out.Write(w.crl(5, 300))
	})
	watch := w.watcher()
	watch.Round(t.Context())
	if s := w.status(t, watch); s.Error != "" || !w.revoked(300) {
		t.Errorf("%+v", s)
	}
}

// TestAddressesThatAreNoSource: a directory, or a name server, must not make
// the node ask services of its own machine.
func TestAddressesThatAreNoSource(t *testing.T) {
	for _, address := range []string{
		"127.0.0.1:80", "127.9.9.9:80", "[::1]:80", "[::ffff:127.0.0.1]:80", "169.254.169.254:80", "[fe80::1%eth0]:80",
		"100.100.100.200:80", "[fd00:ec2::254]:80", "[64:ff9b::7f00:1]:80", "[64:ff9b::a9fe:a9fe]:80",
		"[::ffff:100.100.100.200]:80",
	} {
		if checkAddress(address, false) == nil {
			t.Errorf("%s is permitted", address)
		}
		if loopback := strings.Contains(address, "127.") || address == "[::1]:80"; loopback && checkAddress(address, true) != nil {
			t.Errorf("%s is refused with allow_local", address)
		}
	}
	for _, address := range []string{"0.0.0.0:80", "0.1.2.3:80", "[::]:80", "224.0.0.1:80", "[ff02::1]:80", "name:80", ""} {
		if checkAddress(address, true) == nil {
			t.Errorf("%s is permitted with allow_local", address)
		}
	}
	for _, address := range []string{"10.1.2.3:80", "192.168.1.1:443", "59.1.2.3:80", "[2001:db8::1]:80", "[fd00::1]:80"} {
		if err := checkAddress(address, false); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	// A name that leads home is refused where it is dialled.
	w := newWorld(t)
	hit := false
	at := serves(t, func(http.ResponseWriter, *http.Request) { hit = true })
	w.source.CRL = strings.Replace(at, "127.0.0.1", "localhost", 1)
	watch := w.watcher(func(c *Config) { c.AllowLocal = false })
	watch.Round(t.Context())
	if s := w.status(t, watch); hit || !strings.Contains(s.Error, "allow_local") {
		t.Errorf("hit: %v, %+v", hit, s)
	}
	for _, url := range []string{"file:///etc/passwd", "ftp://a.example/", "http://user@a.example/", "http:///x", "gopher://x"} {
		w.source.CRL = url
		w.clock(w.now.Load().Add(2 * defaultInterval))
		watch.Round(t.Context())
		if s := w.status(t, watch); !strings.Contains(s.Error, "http or https") {
			t.Errorf("%s: %+v", url, s)
		}
	}
}

// TestKeptFileIsDamaged: it is shown, asked for again, and not applied.
func TestKeptFileIsDamaged(t *testing.T) {
	w := newWorld(t)
	w.source.CRL = serves(t, func(out http.ResponseWriter, _ *http.Request) { _, _ = out.Write(w.crl(5, 300)) })
	watch := w.watcher()
	watch.Round(t.Context())
	k := w.source.keys()[0]
	path := filepath.Join(w.dir, k.file())
	b, err := os.ReadFile(path)
	must(t, err)
	b[len(b)-1] ^= 1
	must(t, os.WriteFile(path, b, 0o600))
	watch = w.watcher()
	if s := w.status(t, watch); s.Error == "" || !s.Fetched.IsZero() || w.revoked(300) {
		t.Errorf("damaged: %+v", s)
	}
	watch.Round(t.Context())
	if s := w.status(t, watch); s.Error != "" || !w.revoked(300) {
		t.Errorf("asked again: %+v", s)
	}
}

// TestIssuersComeAndGo: lists of issuers that the directory no longer names do
// not count, and those of new ones do.
func TestIssuersComeAndGo(t *testing.T) {
	w := newWorld(t)
	w.source.CRL = serves(t, func(out http.ResponseWriter, _ *http.Request) { _, _ = out.Write(w.crl(5, 300)) })
	gone := atomic.Bool{}
	watch := w.watcher(func(c *Config) {
		all := c.Sources
		c.Sources = func() []Source {
			if gone.Load() {
				return nil
			}
			return all()
		}
	})
	watch.Round(t.Context())
	gone.Store(true)
	watch.Round(t.Context())
	if w.revoked(300) || len(watch.Status()) != 0 {
		t.Error("the list of an issuer that is gone counts")
	}
	gone.Store(false)
	watch.Round(t.Context())
	if !w.revoked(300) {
		t.Error("the list of an issuer that came back does not count")
	}
}

// responder answers OCSP about certificates of a world.
func (w *world) responder(knows string, status func(serial int64) certs.OCSPAnswer, asked *atomic.Int64) http.HandlerFunc {
	by := certs.OCSPResponder{Issuer: w.root.Raw, Sign: w.sign}
	return func(out http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		q, err := certs.ParseOCSPRequest(b)
		if err != nil || r.Header.Get("Content-Type") != "application/ocsp-request" {
			out.WriteHeader(http.StatusBadRequest)
			return
		}
		refusal, _ := certs.OCSPRefusal(6)
		sha256 := []byte{0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1}
		if bytes.Contains(b, sha256) != (knows == certs.OCSPHashSHA256) {
			_, _ = out.Write(refusal)
			return
		}
		der, err := by.Answer(q, status(q.Serial.Int64()), *w.now.Load())
		if err == nil {
			_, _ = out.Write(der)
		}
	}
}

func TestOCSPIsAskedKeptAndApplied(t *testing.T) {
	for _, hash := range []string{certs.OCSPHashSM3, certs.OCSPHashSHA256} {
		t.Run(hash, func(t *testing.T) {
			w := newWorld(t)
			var asked atomic.Int64
			var bad atomic.Int64
			bad.Store(301)
			w.source.OCSP = serves(t, w.responder(hash, func(serial int64) certs.OCSPAnswer {
				now := *w.now.Load()
				if serial == bad.Load() {
					return certs.OCSPAnswer{Status: certs.OCSPRevoked, Effective: now.Add(-time.Hour), Reason: "superseded", ThisUpdate: now}
				}
				return certs.OCSPAnswer{Status: certs.OCSPGood, ThisUpdate: now, NextUpdate: now.Add(time.Hour)}
			}, &asked))
			w.source.Certificates = [][]byte{w.cert(300), w.cert(301), w.cert(302)}
			watch := w.watcher()
			watch.Round(t.Context())
			if s := w.status(t, watch); s.Error != "" || s.Revoked != 1 || s.Source != certs.SourceOCSP || !w.revoked(301) || w.revoked(300) {
				t.Errorf("%+v", s)
			}
			before := asked.Load()
			w.clock(testNow.Add(defaultInterval))
			bad.Store(302)
			watch.Round(t.Context())
			if !w.revoked(301) || !w.revoked(302) {
				t.Error("a revocation is final, and new ones come")
			}
			if n := asked.Load() - before; n != 2 {
				t.Errorf("asked %d times about two certificates", n)
			}
			w.applied = nil
			w.source.OCSP = "http://127.0.0.1:1/"
			watch = w.watcher()
			if !w.revoked(301) || !w.revoked(302) || w.revoked(300) {
				t.Error("what was kept is not applied at the start")
			}
			w.clock(testNow.Add(3 * defaultInterval))
			if s := w.status(t, watch); !s.Stale {
				t.Errorf("overdue: %+v", s)
			}
		})
	}
}

// TestHoldIsLifted: a certificate on hold is asked about again, and counts
// again when the responder says good.
func TestHoldIsLifted(t *testing.T) {
	w := newWorld(t)
	var held atomic.Bool
	held.Store(true)
	w.source.OCSP = serves(t, w.responder(certs.OCSPHashSM3, func(int64) certs.OCSPAnswer {
		now := *w.now.Load()
		if held.Load() {
			return certs.OCSPAnswer{Status: certs.OCSPRevoked, Effective: now, Reason: "certificate_hold", ThisUpdate: now}
		}
		return certs.OCSPAnswer{Status: certs.OCSPGood, ThisUpdate: now}
	}, new(atomic.Int64)))
	w.source.Certificates = [][]byte{w.cert(300)}
	watch := w.watcher()
	watch.Round(t.Context())
	if !w.revoked(300) {
		t.Error("on hold, and not revoked")
	}
	held.Store(false)
	w.clock(testNow.Add(defaultInterval))
	watch.Round(t.Context())
	if w.revoked(300) {
		t.Error("the hold was lifted")
	}
}

// TestOCSPLies: an answer that another signed is shown and says nothing, and
// an ill responder is not asked about everything.
func TestOCSPLies(t *testing.T) {
	w, stranger := newWorld(t), newOutside(t)
	var asked atomic.Int64
	real := w.outside
	w.outside = &outside{t, stranger.key, real.root}
	w.source.OCSP = serves(t, w.responder(certs.OCSPHashSM3, func(int64) certs.OCSPAnswer {
		return certs.OCSPAnswer{Status: certs.OCSPRevoked, Effective: testNow, ThisUpdate: testNow}
	}, &asked))
	w.outside = real
	for i := range 10 {
		w.source.Certificates = append(w.source.Certificates, w.cert(int64(300+i)))
	}
	watch := w.watcher()
	watch.Round(t.Context())
	if s := w.status(t, watch); s.Error == "" || w.revoked(300) || asked.Load() > maxErrors {
		t.Errorf("asked %d times: %+v", asked.Load(), s)
	}
}

// TestRunEnds: with its context, and while a source does not answer.
func TestRunEnds(t *testing.T) {
	w := newWorld(t)
	reached := make(chan struct{}, 1)
	w.source.CRL = serves(t, func(_ http.ResponseWriter, r *http.Request) {
		reached <- struct{}{}
		<-r.Context().Done()
	})
	watch := w.watcher()
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan struct{})
	go func() {
		watch.Run(ctx)
		close(done)
	}()
	<-reached
	cancel(errors.New("end"))
	<-done
	if s := w.status(t, watch); s.Error != "" {
		t.Errorf("the end of the program is no error of the source: %+v", s)
	}
}

// TestFullDisk: what cannot be kept does not count, because after a crash an
// older list would be in force again.
func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	w.source.CRL = serves(t, func(out http.ResponseWriter, _ *http.Request) { _, _ = out.Write(w.crl(5, 300)) })
	watch := w.watcher(func(c *Config) { c.FS = fullDisk{durable.OS} })
	watch.Round(t.Context())
	if s := w.status(t, watch); !strings.Contains(s.Error, "cannot be kept") || w.revoked(300) {
		t.Errorf("%+v", s)
	}
}

type fullDisk struct{ durable.FS }

func (fullDisk) Create(string) (durable.File, error) { return nil, fmt.Errorf("no space") }
