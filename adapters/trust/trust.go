// Package trust asks the authorities outside what they say about the
// certificates they issued: it fetches the revocation lists (CRL) of the
// issuers that the directory names, asks their OCSP responders, keeps what was
// verified on disk, and hands it to whoever judges.
//
// None of it is ever in the way of a document. A source that is down, slow,
// endless or lying is shown in [Watcher.Status] and asked again later, and what
// it said before stays in force: revocations are only ever added.
package trust

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// The usual times. A source is asked once an interval; one that failed is
// asked again after firstRetry, then twice that, and so on up to the interval.
const (
	defaultInterval = time.Hour
	defaultTimeout  = time.Minute
	firstRetry      = time.Minute
	tick            = 5 * time.Second
	parallel        = 4
)

// Source is an issuer and where it speaks of what it issued. The URLs come from
// the signed directory and from nowhere else.
type Source struct {
	Issuer       []byte // certificate, DER
	Subject      string
	CRL, OCSP    string   // URLs; empty for none
	Certificates [][]byte // DER, those that the responder is asked about

	// Revoked says what is known of a certificate (DER) by the directory and
	// by lists; nil: nothing is. A responder that is revoked is not believed.
	Revoked func(der []byte, known []*certs.CRL) *certs.Revocation
}

// SourcesOf gives the sources that a directory names: its issuers that have a
// URL, and the certificates of each that are valid and not revoked yet. An
// issuer with several certificates of one name and key is one source, with the
// URLs that are named first.
func SourcesOf(d *certs.Directory, now time.Time) []Source {
	var list []Source
	at := map[certs.IssuerID]int{}
	asked := false
	for _, i := range d.Issuers() {
		if i.CRL == "" && i.OCSP == "" {
			continue
		}
		one := Source{Issuer: i.DER, Subject: i.Subject, CRL: i.CRL, OCSP: i.OCSP, Revoked: d.RevocationOf}
		asked = asked || i.OCSP != ""
		had, twice := at[one.id()]
		if !twice {
			at[one.id()] = len(list)
			list = append(list, one)
			continue
		}
		list[had].CRL, list[had].OCSP = cmp.Or(list[had].CRL, one.CRL), cmp.Or(list[had].OCSP, one.OCSP)
	}
	if !asked {
		return list
	}
	for _, c := range d.AllCertificates() {
		if i, ok := at[c.Issuer]; ok && list[i].OCSP != "" && !c.RevokedAt(now) && now.Before(c.NotAfter) {
			list[i].Certificates = append(list[i].Certificates, c.DER)
		}
	}
	return list
}

// Config is what a watcher stands on.
type Config struct {
	// Sources gives the sources in force; it is asked again and again.
	Sources func() []Source
	// Apply takes what is known from all sources. It is called once by New,
	// with what is on disk, and whenever that changes.
	Apply func([]*certs.CRL)
	// FS and Dir say where answers are kept, one file for each issuer and kind.
	FS  durable.FS
	Dir string
	// AllowLocal permits sources on this machine and its link: loopback and
	// link-local addresses, which nobody else's CRL is at.
	AllowLocal bool

	Interval time.Duration    // between two questions to a source; 0: an hour
	Timeout  time.Duration    // of one answer, from name to last byte; 0: a minute
	Now      func() time.Time // nil: the clock
	Rand     io.Reader        // of nonces; nil: the system's
	Logger   *slog.Logger
}

// Status is what is known of one source, for people and for metrics.
type Status struct {
	Issuer     string    `json:"issuer"`
	Source     string    `json:"source"` // CRL or OCSP
	URL        string    `json:"url"`
	Fetched    time.Time `json:"fetched,omitzero"` // of the last answer that was verified
	ThisUpdate time.Time `json:"this_update,omitzero"`
	NextUpdate time.Time `json:"next_update,omitzero"`
	Revoked    int       `json:"revoked"`
	Stale      bool      `json:"stale"` // the next answer is overdue, or there is none yet
	Error      string    `json:"error,omitempty"`
}

// Watcher keeps what the sources say. Safe for concurrent use.
type Watcher struct {
	cfg    Config
	client *http.Client

	mu     sync.Mutex
	states map[key]*state
	last   []Source
}

// key is one source: an issuer, and CRL or OCSP.
type key struct {
	issuer certs.IssuerID
	kind   string
}

// state is what is known of one source.
type state struct {
	crl     *certs.CRL // nil: nothing yet
	past    *certs.CRL // what earlier lists revoked and crl does not; nil: nothing
	fetched time.Time
	next    time.Time // by when the next answer is due
	err     error     // of the last attempt
	failed  int       // attempts in a row
	due     time.Time
	answers answers // of OCSP, by certificate
	hash    string  // that the responder knows
}

// New reads what is on disk, verifies it and applies it.
func New(cfg Config) (*Watcher, error) {
	cfg.Interval, cfg.Timeout = cmp.Or(cfg.Interval, defaultInterval), cmp.Or(cfg.Timeout, defaultTimeout)
	cfg.Now, cfg.Rand, cfg.Logger = surroundings(cfg.Now, cfg.Rand, cfg.Logger)
	if err := cfg.FS.MkdirAll(cfg.Dir); err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	w := &Watcher{cfg: cfg, client: newClient(cfg.AllowLocal, cfg.Timeout), states: map[key]*state{}}
	w.sources()
	w.apply()
	return w, nil
}

// surroundings gives what a loop stands on: what was set, else the clock, the
// system's randomness and no log.
func surroundings(now func() time.Time, random io.Reader, log *slog.Logger) (func() time.Time, io.Reader, *slog.Logger) {
	if now == nil {
		now = time.Now
	}
	if random == nil {
		random = rand.Reader
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return now, random, log
}

// Run asks the sources until the context ends.
func (w *Watcher) Run(ctx context.Context) {
	for {
		w.Round(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(tick):
		}
	}
}

// Round asks every source that is due once.
func (w *Watcher) Round(ctx context.Context) {
	var wait sync.WaitGroup
	room := make(chan struct{}, parallel)
	var mu sync.Mutex
	list, changed := w.sources()
	for _, s := range list {
		for _, k := range s.keys() {
			if !w.isDue(k) {
				continue
			}
			room <- struct{}{}
			wait.Go(func() {
				defer func() { <-room }()
				if w.ask(ctx, s, k) {
					mu.Lock()
					changed = true
					mu.Unlock()
				}
			})
		}
	}
	wait.Wait()
	if changed {
		w.apply()
	}
}

// id is zero for what is no issuer's certificate, and then nothing verifies.
func (s *Source) id() certs.IssuerID {
	id, _ := certs.IssuerOf(s.Issuer)
	return id
}

func (s *Source) keys() []key {
	id := s.id()
	var list []key
	if s.CRL != "" {
		list = append(list, key{id, certs.SourceCRL})
	}
	if s.OCSP != "" {
		list = append(list, key{id, certs.SourceOCSP})
	}
	return list
}

// sources gives those in force, reads from disk what is known of new ones, and
// says whether the issuers changed: then other lists count than before.
func (w *Watcher) sources() (list []Source, changed bool) {
	list = w.cfg.Sources()
	w.mu.Lock()
	defer w.mu.Unlock()
	same := slices.EqualFunc(list, w.last, func(a, b Source) bool { return bytes.Equal(a.Issuer, b.Issuer) })
	w.last = list
	for _, s := range list {
		for _, k := range s.keys() {
			if w.states[k] == nil {
				w.states[k] = w.fromDisk(s, k)
			}
		}
	}
	return list, !same
}

func (w *Watcher) isDue(k key) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.cfg.Now().Before(w.states[k].due)
}

// ask asks one source and says whether something new is known.
func (w *Watcher) ask(ctx context.Context, s Source, k key) bool {
	w.mu.Lock()
	before := *w.states[k]
	w.mu.Unlock()
	after := before
	var err error
	if k.kind == certs.SourceCRL {
		err = w.askCRL(ctx, s, &after)
	} else {
		err = w.askOCSP(ctx, s, &after)
	}
	if ctx.Err() != nil {
		return false
	}
	now := w.cfg.Now()
	after.err = err
	if err != nil {
		wait := min(w.cfg.Interval, firstRetry<<min(after.failed, 10))
		after.failed++
		after.due = now.Add(wait)
		w.cfg.Logger.Warn("a source of revocations failed; what it said before stays in force", "issuer", s.Subject, "source", k.kind, "error", err)
	} else {
		after.failed, after.due, after.fetched = 0, now.Add(w.cfg.Interval), now
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states[k] = &after
	return after.crl != before.crl
}

// apply hands over what is known of the issuers in force.
func (w *Watcher) apply() { w.cfg.Apply(w.known()) }

func (w *Watcher) known() []*certs.CRL {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []*certs.CRL
	for _, s := range w.last {
		for _, k := range s.keys() {
			if st := w.states[k]; st != nil {
				list = append(list, st.known()...)
			}
		}
	}
	return list
}

// known are the lists that count: the newest, and what those before it say
// besides.
func (st *state) known() (list []*certs.CRL) {
	for _, c := range []*certs.CRL{st.crl, st.past} {
		if c != nil {
			list = append(list, c)
		}
	}
	return list
}

// Status tells what is known of each source, in the order of the directory.
func (w *Watcher) Status() []Status {
	now := w.cfg.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []Status
	for _, s := range w.last {
		for _, k := range s.keys() {
			out = append(out, w.states[k].status(s, k, now))
		}
	}
	return out
}

func (st *state) status(s Source, k key, now time.Time) Status {
	one := Status{Issuer: s.Subject, Source: k.kind, URL: s.CRL, Fetched: st.fetched, NextUpdate: st.next}
	if k.kind == certs.SourceOCSP {
		one.URL = s.OCSP
	}
	if st.crl != nil {
		one.ThisUpdate, one.Revoked = st.crl.ThisUpdate, st.crl.Len()
	}
	if st.past != nil {
		one.Revoked += st.past.Len()
	}
	one.Stale = st.fetched.IsZero() || !st.next.IsZero() && now.After(st.next)
	if st.err != nil {
		one.Error = strings.ToValidUTF8(st.err.Error(), "?")
	}
	return one
}
