package trust

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// askCRL fetches an issuer's list, makes it durable, and then takes it when it
// is newer.
func (w *Watcher) askCRL(ctx context.Context, s Source, st *state) error {
	r, err := http.NewRequest(http.MethodGet, s.CRL, nil)
	if err != nil {
		return err
	}
	b, err := w.fetch(ctx, r, certs.MaxCRL)
	if err != nil {
		return err
	}
	c, err := certs.ParseCRL(b, s.Issuer)
	if err == nil {
		err = c.CheckTime(w.cfg.Now())
	}
	if err == nil {
		err = c.Replaces(st.crl)
	}
	if err != nil {
		return err
	}
	// Durable before it counts: after a crash nobody goes back to an older one.
	// The same list again is written, too, with the time it was fetched, for
	// commands that look at the disk.
	if st.crl != nil && bytes.Equal(st.crl.DER(), c.DER()) {
		return w.toDisk(key{s.id(), certs.SourceCRL}, b)
	}
	past, err := st.addUp(c)
	if err != nil {
		return err
	}
	if past != nil || st.past != nil {
		if err := w.keepPast(s.id(), past); err != nil {
			return err
		}
	}
	if err := w.toDisk(key{s.id(), certs.SourceCRL}, b); err != nil {
		return err
	}
	st.takeCRL(c)
	st.past = past
	return nil
}

func (st *state) takeCRL(c *certs.CRL) { st.crl, st.next = c, c.NextUpdate }

// answers are what a responder said, by the SM3 of the certificate.
type answers map[sm.Digest]answer

// answer is a response that was verified, and the request it answers: both are
// kept, so that what is read from disk is verified like what comes from
// outside.
type answer struct {
	Request  []byte    `json:"request"`
	Response []byte    `json:"response"`
	Fetched  time.Time `json:"fetched"`

	serial certs.RevokedSerial
	status string
	this   time.Time
	until  time.Time
}

// final says whether the certificate need not be asked about again. A hold may
// be lifted.
func (a *answer) final() bool {
	return a.status == certs.OCSPRevoked && a.serial.Reason != "certificate_hold"
}

// stale says whether the certificate is to be asked about (again).
func (a *answer) stale(now time.Time, interval time.Duration) bool {
	return !a.final() && (!now.Before(a.Fetched.Add(interval)) || !a.until.IsZero() && now.After(a.until))
}

// maxErrors is how many failures in a row show that a responder is ill.
const maxErrors = 3

// askOCSP asks about every certificate whose last answer is not final and due.
// One that gets no answer does not keep the others from theirs; what does not
// fit into some timeouts is asked at the next attempt, so that a slow
// responder does not keep other sources from being asked.
func (w *Watcher) askOCSP(ctx context.Context, s Source, st *state) error {
	list := maps.Clone(st.answers)
	if list == nil {
		list = answers{}
	}
	ctx, stop := context.WithTimeout(ctx, 5*w.cfg.Timeout)
	defer stop()
	var failures []error
	asked := false
	for _, cert := range s.Certificates {
		id := sm.Sum(cert)
		if had, ok := list[id]; ok && !had.stale(w.cfg.Now(), w.cfg.Interval) {
			continue
		}
		a, err := w.askOne(ctx, s, cert, st)
		if err == nil {
			list[id], asked = *a, true
			continue
		}
		if failures = append(failures, err); len(failures) == maxErrors || ctx.Err() != nil {
			break
		}
	}
	if asked {
		if err := w.keepAnswers(s.id(), list); err != nil {
			return err
		}
		st.takeAnswers(s.Issuer, list)
	}
	return errors.Join(failures...)
}

// askOne asks about one certificate, by SM3 first and by SHA-256 of a
// responder that does not know SM3.
func (w *Watcher) askOne(ctx context.Context, s Source, cert []byte, st *state) (*answer, error) {
	hashes := []string{certs.OCSPHashSM3, certs.OCSPHashSHA256}
	if st.hash == certs.OCSPHashSHA256 {
		slices.Reverse(hashes)
	}
	var failures []error
	for _, hash := range hashes {
		nonce := make([]byte, 16)
		if _, err := io.ReadFull(w.cfg.Rand, nonce); err != nil {
			return nil, err
		}
		q, err := certs.NewOCSPRequest(cert, s.Issuer, hash, nonce)
		if err != nil {
			return nil, err
		}
		r, err := http.NewRequest(http.MethodPost, s.OCSP, bytes.NewReader(q.DER))
		if err != nil {
			return nil, err
		}
		r.Header.Set("Content-Type", "application/ocsp-request")
		b, err := w.fetch(ctx, r, certs.MaxOCSPResponse)
		if err != nil {
			return nil, err
		}
		a := &answer{Request: q.DER, Response: b, Fetched: w.cfg.Now().UTC()}
		if err = a.verify(s.Issuer, w.delegates(s)); err == nil {
			st.hash = hash
			return a, nil
		}
		failures = append(failures, err)
		if !errors.Is(err, certs.ErrOCSP) {
			break // a wrong signature does not become right by another hash
		}
	}
	return nil, errors.Join(failures...)
}

// delegates says what is known of a source's delegates when it is asked.
func (w *Watcher) delegates(s Source) func(der []byte) *certs.Revocation {
	if s.Revoked == nil {
		return nil
	}
	known := w.known()
	return func(der []byte) *certs.Revocation { return s.Revoked(der, known) }
}

// verify reads an answer as of when it came. Of one that was believed then, and
// kept, it is not asked again who has been revoked since: a revocation that it
// brought would be taken back.
func (a *answer) verify(issuer []byte, revoked func([]byte) *certs.Revocation) error {
	q, err := certs.ParseOCSPRequest(a.Request)
	if err != nil {
		return err
	}
	q.Revoked = revoked
	got, err := q.ParseOCSPResponse(a.Response, issuer, a.Fetched)
	if err != nil {
		return err
	}
	a.status, a.this, a.until = got.Status, got.ThisUpdate, got.NextUpdate
	a.serial = certs.RevokedSerial{Serial: q.Serial, Effective: got.Effective, Reason: got.Reason}
	return nil
}

// takeAnswers puts the answers in force.
func (st *state) takeAnswers(issuer []byte, list answers) {
	var revoked []certs.RevokedSerial
	var this, next time.Time
	for _, a := range list {
		if a.status == certs.OCSPRevoked {
			revoked = append(revoked, a.serial)
		}
		if a.this.After(this) {
			this = a.this
		}
		if !a.final() && !a.until.IsZero() && (next.IsZero() || a.until.Before(next)) {
			next = a.until
		}
	}
	st.answers, st.next = list, next
	st.crl = certs.RevokedByOCSP(issuer, this, revoked)
}

func (k key) file() string { return k.issuer.String() + "." + strings.ToLower(k.kind) }

// fromDisk reads and verifies what was kept. What cannot be read is as if it
// were not there: the source gives it again, and until then Status says so.
func (w *Watcher) fromDisk(s Source, k key) *state {
	st := new(state)
	var broken error
	if k.kind == certs.SourceCRL {
		st.past, broken = w.readPast(s)
	}
	b, fetched, err := w.readCache(k)
	if err == nil && b != nil {
		st.fetched = fetched
		if k.kind == certs.SourceCRL {
			var c *certs.CRL
			if c, err = certs.ParseCRL(b, s.Issuer); err == nil {
				st.takeCRL(c)
			}
		} else {
			var list answers
			if list, err = readAnswers(b, s.Issuer); err == nil {
				st.takeAnswers(s.Issuer, list)
			}
		}
	}
	if err = errors.Join(err, broken); err != nil {
		st.fetched = time.Time{}
		st.err = fmt.Errorf("trust: what was kept on disk is not usable: %w", err)
		w.cfg.Logger.Error("a kept answer about revocations is not usable; its source is asked again", "issuer", s.Subject, "source", k.kind, "error", err)
	}
	return st
}
