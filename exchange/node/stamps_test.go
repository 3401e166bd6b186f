package node

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/timestamp"
	"github.com/yizhan-gateway/yizhan/crypto/timestamp/tsatest"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/evidence"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/queue"
	"github.com/yizhan-gateway/yizhan/queue/badgerstore"
	"github.com/yizhan-gateway/yizhan/queue/blob"
)

// station is one node that serves two agencies, with a timestamp authority
// that its directory names, and a clock in the test's hands.
type station struct {
	*testing.T
	ctx  context.Context
	at   time.Time
	tsa  *tsatest.TSA
	node *Node
	jia  string
	yi   string
	key  int

	authority *certs.Authority
}

func (s *station) now() time.Time { return s.at }

func ok[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newStation(t *testing.T) *station {
	t.Helper()
	s := &station{T: t, ctx: context.Background(), at: time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)}
	random, pass, dir := rand.NewChaCha8([32]byte{1}), []byte("stamp tests"), t.TempDir()
	s.tsa = ok[*tsatest.TSA](t)(tsatest.New(rand.NewChaCha8([32]byte{2}), s.now))
	authority := ok[*certs.Authority](t)(certs.InitAuthority(filepath.Join(dir, "ca"), "test", pass, random, s.at))
	keys := ok[*keystore.Store](t)(keystore.Create(filepath.Join(dir, "keys"), pass, random))
	var agencies []certs.AgencySpec
	for i := range 2 {
		code := ok[certs.AgencyCode](t)(certs.MakeAgencyCode(fmt.Sprintf("115200000000000%02d", i)))
		agencies = append(agencies, certs.AgencySpec{Code: code, Name: fmt.Sprintf("示范单位%d", i)})
	}
	s.jia, s.yi = string(agencies[0].Code), string(agencies[1].Code)
	request := ok[[]byte](t)(certs.NewRequest(keys, "test", certs.NodeSpec{ID: "jia", Zone: "政务外网"}, agencies, s.at))
	if err := authority.Admit(ok[*certs.Request](t)(certs.ParseRequest(request)), s.at); err != nil {
		t.Fatal(err)
	}
	s.authority = authority
	entry := fmt.Sprintf(`{"type":"yizhan-tsa","v":1,"domain":"test","cert":"%s"}`, base64.StdEncoding.EncodeToString(s.tsa.Certificate()))
	if err := os.WriteFile(filepath.Join(dir, "ca", "entries", "tsa.json"), []byte(entry), 0o600); err != nil {
		t.Fatal(err)
	}
	file := ok[[]byte](t)(authority.Publish(s.at))
	d := ok[*certs.Directory](t)(certs.LoadDirectory(file, authority.Certificate(), 0, s.at))
	store := ok[*badgerstore.Store](t)(badgerstore.Open(filepath.Join(dir, "store"), badgerstore.Options{}))
	t.Cleanup(func() { store.Close() })
	s.node = ok[*Node](t)(New(s.ctx, Config{
		ID: "jia", Store: store, Blobs: ok[*blob.Store](t)(blob.Open(durable.OS, filepath.Join(dir, "blobs"))), Keys: keys,
		Directory: func() *certs.Directory { return d }, Now: s.now, Rand: random,
	}))
	return s
}

// send has one document delivered and signed for.
func (s *station) send() string {
	s.Helper()
	s.key++
	doc := exchange.Document{
		To: []exchange.Addressee{{Agency: s.yi}}, Label: exchange.Internal, Kind: exchange.Official,
		Urgency: exchange.Normal, Title: "关于时间戳的通知",
	}
	content := func(yield func(envelope.File, error) bool) {
		yield(envelope.File{Role: envelope.RoleBody, Name: "正文.ofd", Type: "application/ofd", Content: bytes.NewReader([]byte("正文"))}, nil)
	}
	got, err := s.node.Submit(s.ctx, Submission{Agency: s.jia, IdempotencyKey: fmt.Sprint(s.key), Document: doc, Files: content})
	if err != nil {
		s.Fatal(err)
	}
	for {
		did, err := s.node.Work(s.ctx)
		if err != nil {
			s.Fatal(err)
		}
		if !did {
			break
		}
	}
	if _, err := s.node.Act(s.ctx, s.yi, got.ID, Action{Stage: exchange.StageSignedFor, Actor: exchange.Actor{Name: "值班员"}}); err != nil {
		s.Fatal(err)
	}
	return got.ID
}

// mark marks the checkpoint and says whether there was a new one.
func (s *station) mark() bool {
	s.Helper()
	return ok[bool](s)(s.node.MarkForStamp(s.ctx))
}

// token asks the authority about a checkpoint.
func (s *station) token(u Unstamped) []byte {
	s.Helper()
	r := ok[*timestamp.Request](s)(timestamp.NewRequest(u.Imprint, rand.NewChaCha8([32]byte{3})))
	answer := ok[[]byte](s)(s.tsa.Respond(ok[[]byte](s)(r.Marshal())))
	return ok[[]byte](s)(timestamp.ParseResponse(answer))
}

func (s *station) unstamped() []Unstamped {
	s.Helper()
	return ok[[]Unstamped](s)(s.node.Unstamped(s.ctx, 0))
}

func (s *station) waiting(want int) {
	s.Helper()
	got, _, err := s.node.Waiting(s.ctx)
	if err != nil || got != want || len(s.unstamped()) != want {
		s.Fatalf("%d wait, %d listed, want %d (%v)", got, len(s.unstamped()), want, err)
	}
}

// report exports the evidence of a document and verifies it as an auditor.
func (s *station) report(document string) (*evidence.File, *evidence.Report) {
	s.Helper()
	var b bytes.Buffer
	if err := s.node.Evidence(s.ctx, s.jia, document, &b); err != nil {
		s.Fatal(err)
	}
	f := ok[*evidence.File](s)(evidence.Parse(b.Bytes()))
	r := ok[*evidence.Report](s)(evidence.Verify(b.Bytes(), s.node.Directory().Authority(), nil))
	if !r.OK() || !r.LedgerVerified {
		s.Fatalf("%v", r.Problems)
	}
	return f, r
}

func TestStampsAreTakenOldestFirst(t *testing.T) {
	s := newStation(t)
	if s.mark() {
		t.Error("an empty ledger was marked")
	}
	first := s.send()
	if !s.mark() || s.mark() {
		t.Error("a checkpoint is marked once for each size")
	}
	if _, r := s.report(first); r.Timestamp != "" || !r.TimePending {
		t.Errorf("stamped %q, pending %v before there is a token", r.Timestamp, r.TimePending)
	}
	s.at = s.at.Add(10 * time.Minute)
	second := s.send()
	s.mark()
	s.waiting(2)

	// Traffic went on; an hour later the authority answers.
	s.at = s.at.Add(time.Hour)
	third := s.send()
	list := s.unstamped()
	if list[0].Size >= list[1].Size || !list[0].At.Before(list[1].At) {
		t.Errorf("not the oldest first: %+v", list)
	}
	for i, u := range list {
		s.at = s.at.Add(time.Minute)
		if err := s.node.Stamped(s.ctx, u.Size, s.token(u)); err != nil {
			t.Fatal(err)
		}
		if err := s.node.Stamped(s.ctx, u.Size, s.token(u)); err != nil {
			t.Errorf("a second token for one checkpoint: %v", err)
		}
		s.waiting(1 - i)
	}

	f, r := s.report(first)
	if r.Timestamp != "2026-11-23T09:11:00.000Z" || r.TimePending || !bytes.Equal(f.Checkpoint, list[0].Checkpoint) {
		t.Errorf("%q, pending %v: not the oldest that covers the receipts", r.Timestamp, r.TimePending)
	}
	if f, r := s.report(second); r.Timestamp != "2026-11-23T09:12:00.000Z" || !bytes.Equal(f.Checkpoint, list[1].Checkpoint) {
		t.Errorf("%q", r.Timestamp)
	}
	if _, r := s.report(third); r.Timestamp != "" || !r.TimePending {
		t.Errorf("%q for what no stamped checkpoint covers", r.Timestamp)
	}
}

// A token that does not verify, or contradicts the clocks, is refused and the
// checkpoint goes on waiting.
func TestAFalseStampIsRefused(t *testing.T) {
	s := newStation(t)
	s.send()
	s.mark()
	u := s.unstamped()[0]
	for _, fault := range []tsatest.Fault{tsatest.OtherImprint, tsatest.OtherKey, tsatest.FarOff} {
		s.tsa.Fail(fault)
		if err := s.node.Stamped(s.ctx, u.Size, s.token(u)); exchange.CodeOf(err) != exchange.CodeSignatureInvalid {
			t.Errorf("%s: %v", fault, err)
		}
	}
	s.tsa.Fail(tsatest.None)
	for name, move := range map[string]time.Duration{"before the checkpoint": -time.Hour, "in the future": time.Hour} {
		s.at = s.at.Add(move)
		token := s.token(u)
		s.at = s.at.Add(-move)
		if err := s.node.Stamped(s.ctx, u.Size, token); exchange.CodeOf(err) != exchange.CodeSignatureInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.node.Stamped(s.ctx, u.Size, []byte("<html>")); !errors.Is(err, timestamp.ErrMalformed) {
		t.Errorf("garbage: %v", err)
	}
	if err := s.node.Stamped(s.ctx, u.Size+7, s.token(u)); err != nil {
		t.Errorf("a size that does not wait: %v", err)
	}
	s.waiting(1)
	if err := s.node.Stamped(s.ctx, u.Size, s.token(u)); err != nil {
		t.Error(err)
	}
	s.waiting(0)
}

// An authority that stays away costs a bounded number of rows, and the ends
// of what waits are kept.
func TestWhatWaitsIsBounded(t *testing.T) {
	s := newStation(t)
	const total, batch = MaxUnstamped + MaxUnstamped/2, 64
	most := 0
	for next := uint64(1); next <= total; next += batch {
		err := s.node.update(s.ctx, func(tx queue.Tx) error {
			for size := next; size < next+batch; size++ {
				if _, err := s.node.mark(tx, size, []byte("a signed checkpoint")); err != nil {
					return err
				}
				book, err := records.StampBook.Lock(tx, s.node.ledgerID)
				if err != nil {
					return err
				}
				most = max(most, book.Waiting)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	list := s.unstamped()
	if most != MaxUnstamped || len(list) < MaxUnstamped/2 {
		t.Errorf("%d at most, %d now", most, len(list))
	}
	if list[0].Size != 1 || list[len(list)-1].Size != total {
		t.Errorf("from %d to %d, want 1 to %d", list[0].Size, list[len(list)-1].Size, total)
	}
	s.waiting(len(list))
}

// A stamp whose authority the directory does not accept any more is not
// exported: it would spoil the file.
func TestAStampThatNoLongerCountsIsNotExported(t *testing.T) {
	s := newStation(t)
	document := s.send()
	s.mark()
	u := s.unstamped()[0]
	err := s.node.update(s.ctx, func(tx queue.Tx) error {
		return records.Stamps.Insert(tx, &records.Stamp{Size: u.Size, CMS: u.Checkpoint, Token: []byte("of another time")}, s.node.ledgerID, u.Size)
	})
	if err != nil {
		t.Fatal(err)
	}
	if f, r := s.report(document); len(f.Timestamp) > 0 || !r.TimePending {
		t.Errorf("exported with %d bytes of token", len(f.Timestamp))
	}
}

// When an authority's key is stolen, evidence goes over to the oldest token of
// another one that covers the document, and never shows the thief's.
func TestAnotherTokenTakesThePlaceOfOneThatNoLongerCounts(t *testing.T) {
	s := newStation(t)
	var documents []string
	stamp := func(times int) {
		for range times {
			s.at = s.at.Add(10 * time.Minute)
			documents = append(documents, s.send())
			s.mark()
			u := s.unstamped()[0]
			if err := s.node.Stamped(s.ctx, u.Size, s.token(u)); err != nil {
				t.Fatal(err)
			}
		}
	}
	stamp(5)
	first := s.tsa
	s.tsa = ok[*tsatest.TSA](t)(tsatest.New(rand.NewChaCha8([32]byte{4}), s.now))
	if err := s.authority.AddTSA(s.tsa.Certificate(), ""); err != nil {
		t.Fatal(err)
	}
	if err := s.authority.Revoke(first.Certificate(), s.at, certs.ReasonKeyCompromise); err != nil {
		t.Fatal(err)
	}
	file := ok[[]byte](t)(s.authority.Publish(s.at))
	d := ok[*certs.Directory](t)(certs.LoadDirectory(file, s.authority.Certificate(), 0, s.at))
	s.node.c.Directory = func() *certs.Directory { return d }
	if _, r := s.report(documents[0]); r.Timestamp != "" || !r.TimePending {
		t.Errorf("stamped %q by a stolen key", r.Timestamp)
	}
	stamp(3)
	for i, want := range []string{"09:00", "09:00", "09:00", "09:00", "09:00", "09:00", "09:10", "09:20"} {
		if _, r := s.report(documents[i]); r.Timestamp != "2026-11-23T"+want+":00.000Z" {
			t.Errorf("document %d: %q, want %s", i, r.Timestamp, want)
		}
	}
}
