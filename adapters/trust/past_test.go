package trust

import (
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// issued is a list of an issuer, for the world's clock.
func (w *world) issued(number int64, list ...certs.RevokedSerial) []byte {
	w.t.Helper()
	der, err := certs.NewCRL(w.root.Raw, w.sign, serial(number, testNow).Serial, *w.now.Load(), w.now.Load().AddDate(0, 0, 7), list)
	must(w.t, err)
	return der
}

// TestListsAddUp: a newer list that misses what an older one revoked takes
// nothing back, neither at once nor after another start nor after yet another
// list; a hold is lifted. A responder's good does not lift it either.
func TestListsAddUp(t *testing.T) {
	w := newWorld(t)
	var file atomic.Pointer[[]byte]
	w.source.CRL = serves(t, bytesAt(&file))
	w.source.OCSP = serves(t, w.responder(certs.OCSPHashSM3, func(int64) certs.OCSPAnswer {
		return certs.OCSPAnswer{Status: certs.OCSPGood, ThisUpdate: *w.now.Load()}
	}, new(atomic.Int64)))
	w.source.Certificates = [][]byte{w.cert(300), w.cert(302)}
	watch := w.watcher()
	hold := serial(301, testNow.Add(-time.Hour))
	hold.Reason = "certificate_hold"
	past := testNow.Add(-time.Hour)
	number := int64(0)
	round := func(list ...certs.RevokedSerial) {
		t.Helper()
		number++
		w.clock(testNow.Add(time.Duration(number) * 2 * defaultInterval))
		b := w.issued(number, list...)
		file.Store(&b)
		watch.Round(t.Context())
		for _, s := range watch.Status() {
			if s.Error != "" {
				t.Fatal(s.Error)
			}
		}
	}
	check := func(when string, want ...int64) {
		t.Helper()
		for _, n := range []int64{300, 301, 302} {
			is := false
			for _, one := range want {
				is = is || one == n
			}
			if w.revoked(n) != is {
				t.Errorf("%s: serial %d revoked: %v", when, n, !is)
			}
		}
	}
	round(serial(300, past), hold, serial(302, past))
	check("the first list", 300, 301, 302)
	round(serial(302, past))
	check("a list without 300 and the hold", 300, 302)
	round()
	check("an empty list", 300, 302)
	w.applied = nil
	watch = w.watcher()
	check("after another start", 300, 302)
	round(serial(300, past))
	check("300 is back", 300, 302)
	round()
	check("and gone again", 300, 302)
	if got := watch.Status()[0].Revoked; got != 2 {
		t.Errorf("%d revoked are shown", got)
	}
	// What is remembered and damaged is shown.
	path := filepath.Join(w.dir, key{w.source.id(), pastKind}.file())
	b, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, b[:len(b)-1], 0o600))
	if s := w.watcher().Status()[0]; s.Error == "" || !s.Fetched.IsZero() {
		t.Errorf("damaged: %+v", s)
	}
}

// TestFullDiskTakesNothingBack: what cannot be remembered keeps the newer list
// out, and the older one stays.
func TestFullDiskTakesNothingBack(t *testing.T) {
	w := newWorld(t)
	var file atomic.Pointer[[]byte]
	first := w.crl(1, 300)
	file.Store(&first)
	w.source.CRL = serves(t, func(out http.ResponseWriter, r *http.Request) { bytesAt(&file)(out, r) })
	full := false
	watch := w.watcher(func(c *Config) { c.FS = sometimesFull{durable.OS, &full} })
	watch.Round(t.Context())
	second := w.crl(2)
	file.Store(&second)
	full = true
	w.clock(testNow.Add(defaultInterval))
	watch.Round(t.Context())
	if s := w.status(t, watch); s.Error == "" || !w.revoked(300) {
		t.Errorf("%+v", s)
	}
	if w.watcher(); !w.revoked(300) {
		t.Error("taken back at the next start")
	}
}

type sometimesFull struct {
	durable.FS
	full *bool
}

func (f sometimesFull) Create(name string) (durable.File, error) {
	if *f.full {
		return fullDisk{}.Create(name)
	}
	return f.FS.Create(name)
}
