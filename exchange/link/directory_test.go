package link

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/evidence"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/queue"
)

// shelf is a node's directory; a delta in these tests is the whole file.
type shelf struct {
	cast    *cast
	inForce *certs.Directory
	lost    bool // no delta can be given
	refuse  bool // none is approved
	waits   bool // for keys, before it brings one into force
	taken   int
	asked   int
}

func (s *shelf) Delta(from uint64) ([]byte, error) {
	s.asked++
	if s.lost || from >= s.inForce.Version() {
		return nil, nil
	}
	return s.inForce.Raw(), nil
}

func (s *shelf) Take(delta []byte) error {
	if s.refuse {
		return certs.ErrApproval
	}
	if s.waits {
		return nil
	}
	d, err := certs.LoadDirectory(delta, s.cast.authority.Certificate(), s.inForce.Version()+1, start)
	if err == nil {
		s.inForce = d
		s.taken++
	}
	return err
}

// ownWorld has a domain of its own, whose keys may be renewed.
func ownWorld(t *testing.T) *world {
	w := newWorld(t)
	var err error
	w.cast, err = newCast(t.TempDir())
	w.must(err)
	return w
}

// renew makes new keys for a node and its agency and publishes; the new
// directory is in force where the test puts it.
func (w *world) renew(id string) *certs.Directory {
	w.t.Helper()
	a, ok := w.cast.directory.Agency(w.cast.agencies[id])
	if !ok {
		w.t.Fatal("no agency")
	}
	request, err := certs.ChangeRequest(w.cast.keys[id], w.cast.directory, id, certs.Change{RenewNode: true, Renew: []string{a.Code}}, w.clock)
	w.must(err)
	parsed, err := certs.ParseRequest(request)
	w.must(err)
	admission, err := w.cast.authority.Admission(w.clock)
	w.must(err)
	admission.Replace = true // its keys may be revoked
	w.must(admission.Add(parsed))
	w.must(admission.Commit())
	return w.publish()
}

func (w *world) publish() *certs.Directory {
	w.t.Helper()
	file, err := w.cast.authority.Publish(w.clock)
	w.must(err)
	w.cast.directory, err = certs.LoadDirectory(file, w.cast.authority.Certificate(), 0, w.clock)
	w.must(err)
	return w.cast.directory
}

func (h *host) version(want uint64) {
	h.w.t.Helper()
	if got := h.node.Directory().Version(); got != want {
		h.w.t.Fatalf("%s has directory %d in force, want %d", h.id, got, want)
	}
}

// events are those of a node's ledger, in order.
func (h *host) events() (out []string) {
	h.w.t.Helper()
	ledger := queue.Ledger{Name: "main"}
	h.w.must(h.store.View(h.w.ctx, func(tx queue.Tx) error {
		size, err := ledger.Size(tx)
		for i := uint64(0); i < size && err == nil; i++ {
			var b []byte
			if b, err = ledger.Leaf(tx, i); err == nil {
				var l *merkle.Leaf
				l, err = merkle.ParseLeaf(b)
				out = append(out, l.Event)
			}
		}
		return err
	}))
	return out
}

// stage is where the sender sees its document, and why.
func (h *host) stage(id string) string {
	h.w.t.Helper()
	tr, err := h.node.Trace(h.w.ctx, h.w.cast.agencies[h.id], id)
	h.w.must(err)
	if !tr.ReceiptsVerified || !tr.LedgerVerified {
		h.w.t.Fatalf("receipts verified %v, ledger %v", tr.ReceiptsVerified, tr.LedgerVerified)
	}
	return strings.TrimSpace(string(tr.Recipients[0].Stage) + " " + tr.Recipients[0].Reason)
}

func (w *world) wantStage(h *host, id, want string) {
	w.t.Helper()
	if got := h.stage(id); got != want {
		w.t.Fatalf("the document stands at %s, want %s", got, want)
	}
}

func (w *world) signFor(h *host, id string) {
	w.t.Helper()
	_, err := h.node.Act(w.ctx, w.cast.agencies[h.id], id, node.Action{Stage: exchange.StageSignedFor, Actor: exchange.Actor{Name: "值班员"}})
	w.must(err)
}

// TestDirectorySpreads: a node with a newer directory gives it to its
// neighbour although nothing else waits, in either direction, once.
func TestDirectorySpreads(t *testing.T) {
	for _, first := range []string{"jia", "yi"} {
		t.Run(first, func(t *testing.T) {
			w := ownWorld(t)
			jia, yi := w.pair()
			w.exchange(jia, yi)
			d := w.publish()
			ahead, behind := jia, yi
			if first == "yi" {
				ahead, behind = yi, jia
			}
			ahead.shelf.inForce = d
			w.exchange(jia, yi)
			behind.version(d.Version())
			w.exchange(jia, yi)
			if behind.shelf.taken != 1 {
				t.Fatalf("taken %d times", behind.shelf.taken)
			}
			for _, h := range []*host{ahead, behind} {
				if got := h.events(); !slices.Equal(got, []string{"directory", "directory"}) {
					t.Fatalf("%s has in its ledger %v", h.id, got)
				}
			}
			behind.restart()
			w.exchange(jia, yi)
			if got := behind.events(); len(got) != 2 || behind.shelf.taken != 1 {
				t.Fatalf("after a restart: %v", got)
			}
			if q := append(jia.quarantined(), yi.quarantined()...); len(q) > 0 {
				t.Fatal(q)
			}
		})
	}
}

// TestDirectoryGoesFirst: what follows the directory in one bundle is judged
// by it, so that nothing is deferred.
func TestDirectoryGoesFirst(t *testing.T) {
	w := ownWorld(t)
	jia, yi := w.pair()
	w.submit(jia, "yi", 1)
	w.exchange(jia, yi)
	jia.shelf.inForce = w.renew("jia")
	id := w.submit(jia, "yi", 1000)
	_, b := jia.next(Push)
	yi.receive(b)
	w.want(yi.outcomes(), node.Duplicate, node.Taken, node.Taken, node.Taken) // it came in as its bundle was opened
	yi.work()
	if items, err := yi.node.Inbox(w.ctx, w.cast.agencies["yi"], 0, 10); err != nil || len(items) != 2 || items[1].ID != id {
		t.Fatalf("%d documents, %v", len(items), err)
	}
}

// TestRenewedKeysLockNobodyOut: the renewed node talks first, or its neighbour
// does; with what each knows of the other, or nothing; and everything that
// was under way arrives.
func TestRenewedKeysLockNobodyOut(t *testing.T) {
	for _, renewed := range []string{"jia", "yi"} {
		for _, met := range []bool{true, false} {
			t.Run(fmt.Sprint(renewed, " met ", met), func(t *testing.T) {
				w := ownWorld(t)
				jia, yi := w.pair()
				if met {
					w.exchange(jia, yi)
				}
				before := []string{w.submit(jia, "yi", 2000), w.submit(yi, "jia", 2000)}
				d := w.renew(renewed)
				h := map[string]*host{"jia": jia, "yi": yi}[renewed]
				h.shelf.inForce = d
				after := []string{w.submit(jia, "yi", 2000), w.submit(yi, "jia", 2000)}
				w.tolerant(jia, yi)
				jia.version(d.Version())
				yi.version(d.Version())
				yi.delivered(before[0], after[0])
				jia.delivered(before[1], after[1])
				for _, id := range []string{before[0], after[0]} {
					w.signFor(yi, id)
				}
				w.tolerant(jia, yi)
				for _, id := range []string{before[0], after[0]} {
					w.wantStage(jia, id, "SIGNED_FOR")
				}
				if q := append(jia.quarantined(), yi.quarantined()...); len(q) > 0 {
					t.Fatal(q)
				}
			})
		}
	}
}

// tolerant exchanges as the peer adapter does when a bundle cannot be read
// yet: a request is answered with a notice, a reply counts as lost.
func (w *world) tolerant(dialer, listener *host) {
	w.t.Helper()
	call := func(from, to *host, o *Outgoing, b []byte, answer Kind) {
		kind := answer
		if _, err := to.Receive(w.ctx, bytes.NewReader(b)); errors.Is(err, ErrNewer) {
			kind = Notice
		} else {
			w.must(err)
		}
		to.work()
		back, reply := to.next(kind)
		if back == nil {
			return
		}
		got, err := from.Receive(w.ctx, bytes.NewReader(reply))
		if !errors.Is(err, ErrNewer) {
			w.must(err)
		}
		if err != nil || o.HasItems() && got.Acks == 0 {
			from.Lost(w.ctx, o)
		}
		from.work()
	}
	for range 12 {
		w.clock = w.clock.Add(10 * time.Second)
		if push, b := dialer.next(Push); push != nil {
			call(dialer, listener, push, b, Reply)
		}
		poll, b := dialer.next(Poll)
		call(dialer, listener, poll, b, Answer)
	}
	for _, h := range []*host{dialer, listener} {
		if outs, err := h.node.Outgoing(w.ctx, h.link, FillBytes, FillItems); err != nil || len(outs) > 0 {
			w.t.Fatalf("%s still holds %d items, %v", h.id, len(outs), err)
		}
	}
}

// TestStrangersBundle: of a bundle whose signer only a newer directory knows
// nothing counts but the directory, and without one nothing at all.
func TestStrangersBundle(t *testing.T) {
	w := ownWorld(t)
	jia, yi := w.pair()
	met := w.submit(jia, "yi", 1)
	w.exchange(jia, yi)
	id := w.submit(jia, "yi", 1000)
	old := w.cast.directory
	jia.shelf.inForce = w.renew("jia")
	jia.shelf.lost = true
	o, b := jia.next(Push)
	before := yi.store.facts()
	if _, err := yi.Receive(w.ctx, bytes.NewReader(b)); !errors.Is(err, ErrNewer) {
		t.Fatalf("a stranger's bundle: %v", err)
	}
	if !sameRows(before, yi.store.facts()) || len(yi.quarantined()) > 0 || len(yi.outcomes()) > 0 {
		t.Fatal("a stranger's bundle left something behind")
	}
	if q := jia.quarantined(); len(q) != 1 || !strings.Contains(q[0], "install version 2 there") {
		t.Fatalf("the missing step is shown as %v", q)
	}
	jia.Lost(w.ctx, o)

	// A right directory does not help somebody whom it does not name: it is
	// taken, and nothing else of what he sends.
	thief, listener := w.pair()
	thief.shelf.inForce, listener.shelf.inForce = old, old
	taken := w.submit(thief, "yi", 1)
	w.exchange(thief, listener)
	thief.shelf.inForce = jia.shelf.inForce
	w.submit(thief, "yi", 1000)
	agency, _ := thief.node.Directory().Agency(w.cast.agencies["jia"])
	cert, err := agency.Current(certs.UseSign, w.clock)
	w.must(err)
	o, b = thief.next(Push)
	if _, err := listener.Receive(w.ctx, bytes.NewReader(w.resigned(b, certs.Signer(w.cast.keys["jia"], cert)))); !errors.Is(err, ErrFault) {
		t.Fatalf("an agency in the place of its node: %v", err)
	}
	listener.version(2)
	listener.delivered(taken)
	if len(listener.outcomes()) > 0 || slices.Contains(listener.events()[4:], "taken") {
		t.Fatalf("it was taken: %v, %v", listener.outcomes(), listener.events())
	}
	thief.Lost(w.ctx, o)

	// Nor does a directory that is none.
	d := jia.shelf.inForce
	forged := jia.forge(nil, forged{node.Item{Kind: node.KindDirectory, ID: "2", Digest: digestOf(w.cast.directory.Raw()[:100])}, w.cast.directory.Raw()[:100]})
	if _, err := yi.Receive(w.ctx, bytes.NewReader(forged)); !errors.Is(err, ErrFault) || errors.Is(err, ErrNewer) {
		t.Fatalf("half a directory: %v", err)
	}
	yi.version(1)

	jia.shelf.lost = false
	w.clock = w.clock.Add(time.Hour) // it is not looked for with every bundle
	w.tolerant(jia, yi)
	yi.version(d.Version())
	yi.delivered(met, id)
}

// resigned is a bundle with another signer's name to it.
func (w *world) resigned(b []byte, signer cms.Signer) []byte {
	w.t.Helper()
	frame, err := readFrame(bytes.NewReader(b))
	w.must(err)
	signed, err := cms.Parse(frame, MaxClearHeader)
	w.must(err)
	again, err := cms.Sign(signer, signed.Content, w.clock)
	w.must(err)
	return append(appendFrame(again), b[8+len(frame):]...)
}

// TestDirectoryIsRefused: versions that are not newer, and deltas that do not
// verify, change nothing, whoever brings them.
func TestDirectoryIsRefused(t *testing.T) {
	w := ownWorld(t)
	jia, yi := w.pair()
	old := w.cast.directory.Raw()
	yi.shelf.inForce, jia.shelf.inForce = w.publish(), w.cast.directory
	newer := w.publish().Raw()
	bad := bytes.Replace(newer, []byte("https://127.0.0.1:1"), []byte("https://127.0.0.1:2"), 1)
	for _, c := range []struct {
		name, id string
		delta    []byte
		want     string
	}{
		{"the one in force", "2", yi.shelf.inForce.Raw(), node.Duplicate},
		{"an old one", "1", old, node.Duplicate},
		{"an old one under a new number", "3", old, node.Duplicate},
		{"one with another entry", "3", bad, node.Refused},
		{"the same again", "3", bad, node.Refused},
		{"no version", "x", newer, node.Damaged},
		{"a version in another form", "03", newer, node.Damaged},
		{"too large", "3", make([]byte, node.MaxDelta+1), node.Refused},
		{"the next", "3", newer, node.Taken},
	} {
		item := node.Item{Kind: node.KindDirectory, ID: c.id, Size: int64(len(c.delta)), Digest: digestOf(c.delta)}
		out, err := yi.node.Intake(w.ctx, "jia-yi", item, bytes.NewReader(c.delta))
		if err != nil || out.Status != c.want {
			t.Fatalf("%s: %+v, %v; want %s", c.name, out, err, c.want)
		}
	}
	yi.version(3)
	if q := yi.quarantined(); len(q) != 3 {
		t.Fatalf("of the two without a version and the two of one kind the operator is shown %v", q)
	}
}

// TestRefusedDirectoryIsLeftAlone: a directory that a neighbour refuses is not
// sent with every bundle, and neither is one that cannot be brought looked for
// with every bundle; when the neighbour has another version, it is tried again.
func TestRefusedDirectoryIsLeftAlone(t *testing.T) {
	w := ownWorld(t)
	jia, yi := w.pair()
	w.exchange(jia, yi)
	jia.shelf.inForce = w.publish()
	yi.shelf.refuse = true
	offered := func() (n int) {
		before := jia.shelf.asked
		for range 20 {
			w.clock = w.clock.Add(time.Second)
			if push, b := jia.next(Push); push != nil {
				yi.receive(b)
				_, reply := yi.next(Reply)
				jia.receive(reply)
			}
			_, b := jia.next(Poll)
			yi.receive(b)
			if answer, b := yi.next(Answer); answer != nil {
				jia.receive(b)
			}
		}
		return jia.shelf.asked - before
	}
	if got := offered(); got != 1 {
		t.Fatalf("asked for %d deltas in 20 s", got)
	}
	for _, h := range []*host{jia, yi} {
		if q := h.quarantined(); len(q) != 1 || !strings.Contains(q[0], "directory_approval") {
			t.Fatalf("%s shows %v", h.id, q)
		}
	}
	w.clock = w.clock.Add(2 * time.Hour)
	if got := offered(); got != 1 {
		t.Fatalf("two hours later asked for %d deltas in 20 s", got)
	}
	if q := append(jia.quarantined(), yi.quarantined()...); len(q) != 2 {
		t.Fatalf("it is shown again: %v", q)
	}
	yi.shelf.refuse = false
	w.clock = w.clock.Add(2 * time.Hour)
	offered()
	yi.version(2)
	jia.shelf.inForce, yi.shelf.waits = w.publish(), true
	if got := offered(); got != 1 {
		t.Fatalf("while it waits for keys, asked for %d deltas in 20 s", got)
	}
	yi.shelf.waits = false
	w.clock = w.clock.Add(time.Minute)
	offered()
	yi.version(3)

	jia.shelf.inForce, jia.shelf.lost = w.publish(), true
	if got := offered(); got != 2 { // the step, and then the whole
		t.Fatalf("asked for %d deltas that are not kept", got)
	}
	third := w.cast.directory
	jia.shelf.inForce, jia.shelf.lost = w.publish(), false
	yi.shelf.inForce = third // a person installs it
	offered()
	yi.version(5)
}

// TestSignatureThatMayNotBeReliedOn: a header signed in time that comes too
// late ends in a signed REJECTED; a receipt likewise is refused and shown on
// both sides; neither is asked for again.
func TestSignatureThatMayNotBeReliedOn(t *testing.T) {
	w := ownWorld(t)
	jia, yi := w.pair()
	d := w.cast.directory
	w.exchange(jia, yi)
	ontime := w.submit(jia, "yi", 1000)
	w.exchange(jia, yi)
	late := w.submit(jia, "yi", 1000)
	w.signFor(yi, ontime)
	w.clock = d.Agencies()[0].Certificates[0].NotAfter.Add(time.Hour)
	w.renew("jia")
	yi.shelf.inForce, jia.shelf.inForce = w.renew("yi"), w.cast.directory
	w.exchange(jia, yi)
	w.wantStage(jia, late, "REJECTED certificate_expired")
	w.wantStage(jia, ontime, "DELIVERED")
	for _, h := range []*host{jia, yi} {
		if q := h.quarantined(); !slices.ContainsFunc(q, func(s string) bool {
			return strings.HasPrefix(s, "receipt") && strings.HasSuffix(s, "certificate_expired")
		}) {
			t.Fatalf("%s shows %v", h.id, q)
		}
	}
	books, err := yi.node.LinkBooks(w.ctx, "jia-yi")
	w.must(err)
	if books.Refused != 1 { // what follows a refused header came before what it needs
		t.Fatalf("the books say %+v", books)
	}
	w.exchange(jia, yi)
	if again, err := yi.node.LinkBooks(w.ctx, "jia-yi"); err != nil || again != books {
		t.Fatalf("it came again: %+v, %v", again, err)
	}
}

// TestStoredReceiptStands: a receipt that came in time and comes again after
// its certificate ended is a duplicate and goes on verifying.
func TestStoredReceiptStands(t *testing.T) {
	w := ownWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 1000)
	w.exchange(jia, yi)
	w.signFor(yi, id)
	_, b := jia.next(Poll)
	yi.receive(b)
	answer, b := yi.next(Answer)
	jia.receive(b)
	yi.Lost(w.ctx, answer) // the ack never comes: yi will send it again
	w.clock = w.cast.directory.Agencies()[0].Certificates[0].NotAfter.Add(time.Hour)
	w.renew("jia")
	yi.shelf.inForce, jia.shelf.inForce = w.renew("yi"), w.cast.directory
	jia.restart()
	yi.restart()
	_, b = jia.next(Poll)
	yi.receive(b)
	_, b = yi.next(Answer)
	jia.receive(b)
	w.want(jia.outcomes(), node.Duplicate)
	w.wantStage(jia, id, "SIGNED_FOR")
}

// TestJudgedAsOfFirstReceipt: a header and a receipt that waited for a newer
// directory until their certificates had ended are judged as of the time at
// which they came, also in the evidence.
func TestJudgedAsOfFirstReceipt(t *testing.T) {
	w := ownWorld(t)
	jia, yi := w.pair()
	w.exchange(jia, yi)
	inTime := w.submit(jia, "yi", 1000)
	w.exchange(jia, yi)
	// yi hears of the next directory first, and no directory travels.
	yi.shelf.inForce, yi.shelf.lost = w.publish(), true
	w.signFor(yi, inTime)
	w.exchange(jia, yi)
	w.wantStage(jia, inTime, "DELIVERED")
	came := w.clock

	w.clock = w.cast.directory.Agencies()[0].Certificates[0].NotAfter.Add(time.Hour)
	w.renew("yi")
	jia.shelf.inForce = w.renew("jia")
	jia.work()
	w.wantStage(jia, inTime, "SIGNED_FOR")
	if got := jia.events(); !slices.Contains(got, "deferred") {
		t.Fatalf("the ledger says %v", got)
	}
	var b bytes.Buffer
	w.must(jia.node.Evidence(w.ctx, w.cast.agencies["jia"], inTime, &b))
	f, err := evidence.Parse(b.Bytes())
	w.must(err)
	if last := f.Receipts[len(f.Receipts)-1]; last.Seen.Time().After(came) || !bytes.Contains(last.Leaf, []byte("deferred")) {
		t.Fatalf("seen %v under %s", last.Seen.Time(), last.Leaf)
	}
	report, err := evidence.Verify(b.Bytes(), w.cast.authority.Certificate(), nil)
	if err != nil || !report.OK() {
		t.Fatalf("%+v, %v", report, err)
	}
}

// TestTenYears: keys are renewed every year; a document of the first year
// opens in the last, its receipts and evidence verify, and traffic goes on.
func TestTenYears(t *testing.T) {
	w := ownWorld(t)
	jia, yi := w.pair()
	first := w.submit(jia, "yi", 3000)
	w.exchange(jia, yi)
	w.signFor(yi, first)
	w.exchange(jia, yi)
	years := 10
	if raced {
		years = 3
	}
	for year := range years {
		w.clock = w.clock.AddDate(1, 0, 0)
		ahead := []*host{jia, yi}[year%2]
		ahead.shelf.inForce = w.renew("jia")
		w.tolerant(jia, yi)
		ahead.shelf.inForce = w.renew("yi")
		jia.restart()
		yi.restart()
		id := w.submit(jia, "yi", 500)
		w.tolerant(jia, yi)
		w.signFor(yi, id)
		w.tolerant(jia, yi)
		w.wantStage(jia, id, "SIGNED_FOR")
	}
	w.wantStage(jia, first, "SIGNED_FOR")
	items, err := yi.node.Inbox(w.ctx, w.cast.agencies["yi"], 0, 100)
	w.must(err)
	var ids []string
	for _, item := range items {
		ids = append(ids, item.ID)
	}
	yi.delivered(ids...) // opens all of them
	for _, id := range ids {
		var b bytes.Buffer
		w.must(jia.node.Evidence(w.ctx, w.cast.agencies["jia"], id, &b))
		report, err := evidence.Verify(b.Bytes(), w.cast.authority.Certificate(), nil)
		if err != nil || !report.OK() {
			t.Fatalf("%s: %+v, %v", id, report, err)
		}
	}
	if q := append(jia.quarantined(), yi.quarantined()...); len(q) > 0 {
		t.Fatal(q)
	}
}

func digestOf(b []byte) sm.Digest { return sm.Sum(b) }
