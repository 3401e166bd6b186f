package evidence

import (
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/crypto/timestamp/tsatest"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// stamped is the file with a token ten minutes after its receipts.
func (w *world) stamped(t *testing.T) *File {
	t.Helper()
	f := w.copyFile(t)
	f.Timestamp = must[[]byte](t)(stamp(w.ours.tsa, f.Checkpoint, start.Add(10*time.Minute)))
	return f
}

// cameAfterToken makes the ledger say that a receipt came after the time of
// the token that covers it.
func (w *world) cameAfterToken(t *testing.T, f *File) {
	t.Helper()
	cameAt(signedFor, start.Add(time.Hour))(t, w, f)
	f.Timestamp = must[[]byte](t)(stamp(w.ours.tsa, f.Checkpoint, start.Add(10*time.Minute)))
}

func TestATokenProvesTheTime(t *testing.T) {
	w := sharedWorld(t)
	if r := w.verify(t, w.copyFile(t)); r.Timestamp != "" || !r.TimePending || !r.OK() {
		t.Errorf("without a token: %+v", r)
	}
	r := w.verify(t, w.stamped(t), Sum(w.doc.body))
	if r.Timestamp != "2026-11-23T08:10:00.000Z" || r.TimePending || !r.OK() || !r.LedgerVerified {
		t.Errorf("with a token: %+v", r)
	}
}

func TestATamperedTokenIsNamed(t *testing.T) {
	w := sharedWorld(t)
	stranger := must[*tsatest.Key](t)(tsatest.NewKey(w.other.random, tsatest.Template(start)))
	at := start.Add(10 * time.Minute)
	for name, c := range map[string]struct {
		spoil func(f *File)
		says  string
	}{
		"signature flipped":    {func(f *File) { f.Timestamp[len(f.Timestamp)-1] ^= 1 }, "timestamp: signature_invalid"},
		"time changed":         {func(f *File) { flipIn(t, f.Timestamp, "20261123") }, "timestamp: signature_invalid"},
		"cut":                  {func(f *File) { f.Timestamp = f.Timestamp[:100] }, "timestamp: signature_invalid"},
		"of something else":    {func(f *File) { f.Timestamp = must[[]byte](t)(stamp(w.ours.tsa, f.Header, at)) }, "the timestamp is of something else"},
		"by a stranger":        {func(f *File) { f.Timestamp = must[[]byte](t)(stamp(stranger, f.Checkpoint, at)) }, "timestamp: signature_invalid"},
		"before the receipts":  {func(f *File) { f.Timestamp = must[[]byte](t)(stamp(w.ours.tsa, f.Checkpoint, at.AddDate(0, 0, -1))) }, "receipt 0 is said to have been received after"},
		"seen after the token": {func(f *File) { w.cameAfterToken(t, f) }, "receipt 3 is said to have been received after"},
		"checkpoint exchanged": {func(f *File) {
			f.Checkpoint = must[[]byte](t)(checkpoint(append(w.hashes(), sm.Digest{}), "jia", w.ours.byNode("jia")))
		}, "the timestamp is of something else"},
		"a directory without the authority": {func(f *File) {
			f.Directory, f.Authority = w.other.directory.Raw(), w.other.directory.Authority()
		}, "directory: "},
	} {
		t.Run(name, func(t *testing.T) {
			f := w.stamped(t)
			c.spoil(f)
			r := w.verify(t, f)
			if r.OK() || !strings.Contains(strings.Join(r.Problems, "\n"), c.says) {
				t.Errorf("problems %q, want one that says %q", r.Problems, c.says)
			}
			if r.Timestamp != "" && strings.HasPrefix(c.says, "timestamp:") {
				t.Errorf("a time is shown: %s", r.Timestamp)
			}
		})
	}
}

// crl is the outside authority's list over serial numbers.
func (d *domain) crl(t *testing.T, serials ...*big.Int) []byte {
	t.Helper()
	var list []certs.RevokedSerial
	for _, s := range serials {
		list = append(list, certs.RevokedSerial{Serial: s, Effective: start, Reason: "key_compromise"})
	}
	return must[[]byte](t)(certs.NewCRL(d.ca.DER, d.ca.Sign, big.NewInt(7), start, start.AddDate(0, 1, 0), list))
}

// What an issuer's list says counts as if the directory said it.
func TestRevocationListsAreJudged(t *testing.T) {
	w := sharedWorld(t)
	cert := must[[]byte](t)(w.ours.tsa.Certificate(), nil)
	serial := must[*big.Int](t)(serialOf(cert))
	for name, c := range map[string]struct {
		lists [][]byte
		says  string // empty: nothing is wrong
	}{
		"nothing on it":        {[][]byte{w.ours.crl(t)}, ""},
		"another on it":        {[][]byte{w.ours.crl(t, big.NewInt(99))}, ""},
		"the TSA on it":        {[][]byte{w.ours.crl(t, serial)}, "timestamp: certificate_revoked"},
		"on the second of two": {[][]byte{w.ours.crl(t), w.ours.crl(t, serial)}, "timestamp: certificate_revoked"},
		"of a stranger":        {[][]byte{w.other.crl(t, serial)}, "revocation list 0: of none of the directory's issuers"},
		"not one":              {[][]byte{[]byte("x")}, "revocation list 0: "},
		"too many":             {make([][]byte, MaxCRLs+1), "revocation lists: "},
	} {
		t.Run(name, func(t *testing.T) {
			f := w.stamped(t)
			f.CRLs = c.lists
			r := w.verify(t, f)
			if c.says == "" != r.OK() || !strings.Contains(strings.Join(r.Problems, "\n"), c.says) {
				t.Errorf("problems %q, want %q", r.Problems, c.says)
			}
		})
	}
}

func serialOf(der []byte) (*big.Int, error) {
	c, err := cms.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return c.SerialNumber, nil
}

// A header counts as signed when another node than the sender's first speaks
// of it: a revocation after that takes nothing away, one before it does.
func TestTheHeaderIsJudgedWhenAnotherNodeFirstSpeaksOfIt(t *testing.T) {
	w := sharedWorld(t)
	late := func(f *File, which ...int) {
		mine := &world{ours: w.ours, leaves: slices.Clone(w.leaves)}
		for _, i := range which {
			by := w.ours.byAgency("yi")
			if i == delivered {
				by = w.ours.byNode("yi")
			}
			signed := must[[]byte](t)(w.ours.says(w.doc, stageOf[i], by, func(r *exchange.Receipt) {
				r.Time = strictjson.TimeOf(revokedFrom.Add(time.Minute))
			}))
			f.Receipts[i] = *must[*Receipt](t)(mine.enter(signed))
		}
		must[any](t)(nil, mine.prove(f))
	}
	for name, c := range map[string]struct {
		change  func(f *File)
		refused bool
	}{
		"all before":                     {func(*File) {}, false},
		"DELIVERED before, others after": {func(f *File) { late(f, collected, signedFor) }, false},
		"every other node after":         {func(f *File) { late(f, delivered, collected, signedFor) }, true},
		"no other node: ACCEPTED": {func(f *File) {
			f.Receipts = f.Receipts[:1]
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := w.copyFile(t)
			f.Directory = w.ours.revoked
			c.change(f)
			r := w.verify(t, f)
			revoked := slices.ContainsFunc(r.Problems, func(p string) bool { return strings.HasPrefix(p, "header: certificate_revoked") })
			if revoked != c.refused || r.OK() == c.refused || len(r.Problems) > 1 {
				t.Errorf("problems %q, want refused: %v", r.Problems, c.refused)
			}
		})
	}
}

// The node's own certificate is judged at the time that the token proves, and
// without a token at the checkpoint's own word.
func TestTheCheckpointIsJudgedAtItsTime(t *testing.T) {
	w := sharedWorld(t)
	signedAt := func(at time.Time) func(*File) {
		return func(f *File) {
			hashes := w.hashes()
			cp := merkle.Checkpoint{
				Domain: "test", Ledger: "01K0000000000000000000000A", Node: "jia",
				Size: uint64(len(hashes)), Root: merkle.Root(hashes), Time: strictjson.TimeOf(at),
			}
			b := must[[]byte](t)(cp.Marshal())
			f.Checkpoint = must[[]byte](t)(cms.Sign(w.ours.byNode("jia"), b, start))
		}
	}
	f := w.copyFile(t)
	signedAt(start.AddDate(6, 0, 0))(f)
	if r := w.verify(t, f); r.OK() || !strings.Contains(r.Problems[0], "checkpoint: certificate_expired") {
		t.Errorf("%q", r.Problems)
	}
	f.Timestamp = must[[]byte](t)(stamp(w.ours.tsa, f.Checkpoint, start.Add(time.Minute)))
	if r := w.verify(t, f); !r.OK() {
		t.Errorf("%q", r.Problems)
	}
}

// A timestamp authority whose key is in other hands proves nothing any more,
// whatever time its tokens say; one that was revoked for another reason proves
// what it stamped before.
func TestTokensOfARevokedAuthority(t *testing.T) {
	w := sharedWorld(t)
	serial := must[*big.Int](t)(serialOf(w.ours.tsa.Certificate()))
	stampedAt := start.Add(10 * time.Minute)
	for name, c := range map[string]struct {
		reason string
		from   time.Time
		counts bool
	}{
		"superseded after it":      {"superseded", stampedAt.Add(time.Hour), true},
		"superseded then":          {"superseded", stampedAt, false},
		"ended before it":          {"cessation", stampedAt.Add(-time.Hour), false},
		"key stolen after it":      {"key_compromise", stampedAt.Add(time.Hour), false},
		"key stolen long after it": {"key_compromise", stampedAt.AddDate(1, 0, 0), false},
		"no reason, after it":      {"", stampedAt.Add(time.Hour), false},
	} {
		t.Run(name, func(t *testing.T) {
			f := w.stamped(t)
			list := []certs.RevokedSerial{{Serial: serial, Effective: c.from, Reason: c.reason}}
			f.CRLs = [][]byte{must[[]byte](t)(certs.NewCRL(w.ours.ca.DER, w.ours.ca.Sign, big.NewInt(8), start, start.AddDate(0, 1, 0), list))}
			r := w.verify(t, f)
			refused := strings.Contains(strings.Join(r.Problems, "\n"), "timestamp: certificate_revoked")
			if refused == c.counts || r.OK() != c.counts || (r.Timestamp != "") != c.counts {
				t.Errorf("problems %q, timestamp %q, want it to count: %v", r.Problems, r.Timestamp, c.counts)
			}
		})
	}
}
