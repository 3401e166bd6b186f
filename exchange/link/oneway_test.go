package link

import (
	"bytes"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/evidence"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

var oneWayLink = certs.Link{ID: "jia-yi", A: "jia", B: "yi", Dialer: "jia", Kind: "ferry", Ceiling: "work_secret", OneWay: "jia"}

var (
	oneWayOnce   sync.Once
	oneWayCast   *cast
	oneWayFailed error
)

// oneWayWorld is a domain in which only jia sends to yi; zhang-san may confirm.
func oneWayWorld(t testing.TB) (w *world, jia, yi *bank) {
	t.Helper()
	w = newWorld(t)
	dir := filepath.Dir(w.cast.dir)
	oneWayOnce.Do(func() { oneWayCast, oneWayFailed = newCastOver(filepath.Join(dir, "one-way"), oneWayLink) })
	w.must(oneWayFailed)
	w.cast = oneWayCast
	return w, w.bank("jia"), w.bank("yi")
}

// carryAll takes what one side wrote to the other.
func (w *world) carryAll(from, to *bank) {
	for _, file := range from.out {
		to.load(file)
	}
	from.out = nil
}

func (b *bank) code() *CodeReport {
	b.w.t.Helper()
	r, err := b.ferry.Code(b.w.ctx)
	b.w.must(err)
	return r
}

// sign is what the operator's program does with a statement.
func (w *world) sign(who string, content []byte) []byte {
	w.t.Helper()
	for _, a := range w.cast.directory.Administrators() {
		if a.ID == who {
			signed, err := cms.Sign(certs.Signer(w.cast.keys[who].WithRandom(w.rand), &a.Certificates[0]), content, w.clock)
			w.must(err)
			return signed
		}
	}
	w.t.Fatalf("no administrator %s", who)
	return nil
}

// confirm enters a code and signs whatever is asked for.
func (b *bank) confirm(code string) (bundles, receipts int, err error) {
	b.w.t.Helper()
	var signed [][]byte
	for {
		got, err := b.ferry.Confirm(b.w.ctx, code, "zhang-san", signed)
		if err != nil {
			return bundles, receipts, err
		}
		bundles, receipts, signed = bundles+got.Bundles, receipts+got.Receipts, nil
		if len(got.Statements) == 0 {
			return bundles, receipts, nil
		}
		for _, content := range got.Statements {
			signed = append(signed, b.w.sign("zhang-san", content))
		}
	}
}

func (b *bank) oneWay() *OneWayStatus {
	b.w.t.Helper()
	st, err := b.ferry.Status(b.w.ctx)
	b.w.must(err)
	return st.OneWay
}

// balanced: exported = confirmed + outstanding + ended, and bytes are kept of what is
// outstanding alone.
func (b *bank) balanced() {
	b.w.t.Helper()
	if left := b.booked(); len(b.kept) != left {
		b.w.t.Fatalf("%d are outstanding, and %d are kept", left, len(b.kept))
	}
}

// booked is the first half of it: a crash may leave bytes that nothing refers to.
func (b *bank) booked() (left int) {
	b.w.t.Helper()
	st := b.oneWay()
	if left = b.outstanding(); st.Exported != st.Confirmed+st.Ended+uint64(left) {
		b.w.t.Fatalf("%+v with %d outstanding", st, left)
	}
	return left
}

// refusedWith expects an error with a code and a word of its detail.
func (w *world) refusedWith(err error, code, word string) {
	w.t.Helper()
	if exchange.CodeOf(err) != code || !strings.Contains(err.Error(), word) {
		w.t.Fatalf("got %v, want %s saying %q", err, code, word)
	}
}

// TestNoWayBack: documents arrive, the sender's trace says FERRIED and never more; a
// code brings CONFIRMED, which verifies offline under the operator's certificate.
func TestNoWayBack(t *testing.T) {
	w, jia, yi := oneWayWorld(t)
	small, large := w.submit(jia.host, "yi", 3000), w.submit(jia.host, "yi", 17<<20)
	if got := jia.stage(small); got != "ACCEPTED" {
		t.Fatal(got)
	}
	got := jia.export()
	if got.Bundles < 3 {
		t.Fatalf("%+v", got)
	}
	for _, id := range []string{small, large} {
		w.wantStage(jia.host, id, "FERRIED "+exchange.ReasonNoWayBack)
	}
	trace, err := jia.node.Trace(w.ctx, w.cast.agencies["jia"], small)
	w.must(err)
	if last := trace.Events[len(trace.Events)-1]; last.Chinese != "已摆渡（无回执通道）" || last.Node != "jia" {
		t.Errorf("the trace says %s by %s", last.Chinese, last.Node)
	}
	jia.balanced()
	w.carryAll(jia, yi)
	yi.delivered(small, large)
	if again := jia.export(); again.Files != 0 {
		t.Errorf("without anything new %+v", again)
	}

	// Nothing goes back, and nothing piles up.
	if _, err := yi.ferry.Export(w.ctx, yi.limit, true, nil); exchange.CodeOf(err) != exchange.CodeOneWay {
		t.Errorf("the receiving side exports: %v", err)
	}
	if q := yi.backlog(); q.Waiting != 0 {
		t.Errorf("%d items wait for a way back", q.Waiting)
	}
	if kept := yi.oneWay().Kept; kept != 4 { // DELIVERED and COLLECTED of both
		t.Errorf("%d receipts are kept", kept)
	}
	w.wantStage(yi.host, small, "COLLECTED")

	if q := yi.quarantined(); len(q) > 0 {
		t.Errorf("shown: %v", q)
	}
	code := yi.code()
	if code.UpTo != uint64(got.Bundles) || len(code.Missing)+len(code.Refused) > 0 {
		t.Fatalf("%+v", code)
	}
	bundles, receipts, err := jia.confirm(code.Code)
	if err != nil || bundles != got.Bundles || receipts != 2 {
		t.Fatalf("%d bundles, %d receipts, %v", bundles, receipts, err)
	}
	jia.balanced()
	if len(jia.kept) != 0 || jia.backlogOf() != 0 {
		t.Errorf("%d bundles are kept, %d items wait", len(jia.kept), jia.backlogOf())
	}
	w.wantStage(jia.host, large, "CONFIRMED "+exchange.ReasonNoWayBack)
	for range 2 { // an older code, and the same once more
		if bundles, receipts, err := jia.confirm(code.Code); err != nil || bundles+receipts != 0 {
			t.Errorf("again: %d, %d, %v", bundles, receipts, err)
		}
	}

	var proof bytes.Buffer
	w.must(jia.node.Evidence(w.ctx, w.cast.agencies["jia"], small, &proof))
	report, err := evidence.Verify(proof.Bytes(), w.cast.authority.Certificate(), nil)
	if err != nil || !report.OK() || !report.ReceiptsVerified || !report.LedgerVerified || report.Recipients[0].Stage != exchange.StageConfirmed {
		t.Errorf("%+v, %v", report, err)
	}
	if *update { // for cmd/yzverify, which has no node to make one
		to := filepath.Join("..", "..", "cmd", "yzverify", "testdata")
		w.must(os.WriteFile(filepath.Join(to, "confirmed.json"), proof.Bytes(), 0o644))
		certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.cast.authority.Certificate()})
		w.must(os.WriteFile(filepath.Join(to, "confirmed-authority.crt"), certificate, 0o644))
	}
	if ids := jia.receipts(small, exchange.StageDelivered); len(ids) > 0 {
		t.Error("the sender has a DELIVERED")
	}
}

// TestOnlyAnOperatorConfirms: a node may not, nor one administrator in the name of
// another, nor over words that were not asked for.
func TestOnlyAnOperatorConfirms(t *testing.T) {
	w, jia, yi := oneWayWorld(t)
	id := w.submit(jia.host, "yi", 3000)
	jia.export()
	w.carryAll(jia, yi)
	code := yi.code().Code
	_, err := jia.ferry.Confirm(w.ctx, code, "li-si", nil)
	w.refusedWith(err, exchange.CodeFerryOperator, "li-si")
	got, err := jia.ferry.Confirm(w.ctx, code, "zhang-san", nil)
	w.must(err)
	self, _ := w.cast.directory.Node("jia")
	byNode, err := cms.Sign(certs.Signer(w.cast.keys["jia"].WithRandom(w.rand), &self.Certificates[0]), got.Statements[0], w.clock)
	w.must(err)
	if self.Certificates[0].Use != certs.UseSign {
		t.Fatal("the first certificate of a node is for signing")
	}
	_, err = jia.ferry.Confirm(w.ctx, code, "zhang-san", [][]byte{byNode})
	w.refusedWith(err, exchange.CodeSignatureInvalid, "certificate")
	changed := bytes.Replace(got.Statements[0], []byte("CONFIRMED"), []byte("DELIVERED"), 1)
	if again, err := jia.ferry.Confirm(w.ctx, code, "zhang-san", [][]byte{w.sign("zhang-san", changed)}); err != nil || again.Receipts != 0 {
		t.Fatalf("%+v, %v", again, err)
	}
	w.wantStage(jia.host, id, "FERRIED "+exchange.ReasonNoWayBack)

	// The same rule judges what comes from elsewhere.
	var proof bytes.Buffer
	w.must(jia.node.Evidence(w.ctx, w.cast.agencies["jia"], id, &proof))
	file, err := evidence.Parse(proof.Bytes())
	w.must(err)
	header, err := envelope.ParseHeader(file.Header)
	w.must(err)
	body, err := exchange.ParseReceipt(got.Statements[0])
	w.must(err)
	for _, change := range []func(*exchange.Receipt){
		func(r *exchange.Receipt) { r.Actor = nil },
		func(r *exchange.Receipt) { r.Actor = &exchange.Actor{Name: "li-si"} },
		func(r *exchange.Receipt) { r.Recipients = nil },
	} {
		r := *body
		change(&r)
		content, err := r.Marshal()
		w.must(err)
		signed, err := cms.Parse(w.sign("zhang-san", content), exchange.MaxReceiptCMS)
		w.must(err)
		if err := exchange.Judge(w.cast.directory, header, &r, signed, w.clock); exchange.CodeOf(err) != exchange.CodeSignatureInvalid {
			t.Errorf("judged %v", err)
		}
	}
}

// TestAGapOnTheWay: the code covers what came without a gap, and says which bundles
// the other side is to let leave again; they do, byte for byte.
func TestAGapOnTheWay(t *testing.T) {
	w, jia, yi := oneWayWorld(t)
	jia.limit.FileBytes = 1 // a bundle a file
	var ids []string
	var files [][]byte
	for range 5 {
		ids = append(ids, w.submit(jia.host, "yi", 3000))
		jia.export()
	}
	files, jia.out = jia.out, nil
	for _, i := range []int{3, 0} { // out of order; 2, 3 and 5 are lost
		yi.load(files[i])
	}
	report := yi.code()
	if report.UpTo != 1 || !slices.EqualFunc(report.Missing, []Range{{From: 2, To: 3}}, sameRange) {
		t.Fatalf("%+v", report)
	}
	if bundles, receipts, err := jia.confirm(report.Code); err != nil || bundles != 1 || receipts != 1 {
		t.Fatalf("%d bundles, %d receipts, %v", bundles, receipts, err)
	}
	jia.balanced()
	w.wantStage(jia.host, ids[0], "CONFIRMED "+exchange.ReasonNoWayBack)
	w.wantStage(jia.host, ids[3], "FERRIED "+exchange.ReasonNoWayBack) // it is there, and nobody can say so yet

	ferried := len(jia.receipts(ids[1], exchange.StageFerried))
	again := func(from, to uint64) (Exported, error) {
		return jia.ferry.ExportAgain(w.ctx, jia.limit, from, to, func(_ string, write func(io.Writer) error) error {
			var file bytes.Buffer
			err := write(&file)
			jia.out = append(jia.out, file.Bytes())
			return err
		})
	}
	for _, r := range [][2]uint64{{1, 2}, {4, 9}, {3, 2}, {6, 6}} {
		_, err := again(r[0], r[1])
		w.refusedWith(err, exchange.CodeOneWay, "not all of them")
	}
	got, err := again(2, 3)
	if err != nil || got.Bundles != 2 || got.Again != 2 || got.Rest != 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	for i, file := range jia.out {
		if old := files[1+i]; !bytes.HasSuffix(file, old[bytes.LastIndex(old, []byte(magic)):]) {
			t.Errorf("bundle %d left again with other bytes", 2+i)
		}
	}
	w.carryAll(jia, yi) // its notes say that there is a fifth
	if report = yi.code(); report.UpTo != 4 || report.Last != 5 || !slices.EqualFunc(report.Missing, []Range{{From: 5, To: 5}}, sameRange) {
		t.Fatalf("%+v", report)
	}
	if got, err = again(0, 0); err != nil || got.Bundles != 4 {
		t.Fatalf("%+v, %v", got, err)
	}
	w.carryAll(jia, yi)
	if _, _, err = jia.confirm(yi.code().Code); err != nil {
		t.Fatal(err)
	}
	jia.balanced()
	yi.delivered(ids...)
	if n := len(jia.receipts(ids[1], exchange.StageFerried)); n != 1 || ferried != 1 {
		t.Errorf("%d FERRIED, then %d", ferried, n)
	}
}

func sameRange(a, b Range) bool { return a.From == b.From && a.To == b.To }

// TestWrongCodes are counted, durably; from the sixth on nobody looks at the next one
// for a while, and then a right one passes.
func TestWrongCodes(t *testing.T) {
	w, jia, yi := oneWayWorld(t)
	w.submit(jia.host, "yi", 3000)
	jia.export()
	w.carryAll(jia, yi)
	good := yi.code().Code
	c, err := ParseCode(good)
	w.must(err)
	wrong := c
	wrong.secret = "000000000000"
	for i := range 5 {
		_, _, err := jia.confirm(wrong.String())
		w.refusedWith(err, exchange.CodeFerryCode, "counted")
		if i == 2 {
			jia.board() // the process ends
		}
	}
	_, _, err = jia.confirm(good)
	w.refusedWith(err, exchange.CodeFerryCodePause, "5 wrong codes")
	if !exchange.IsTemporary(err) {
		t.Error("a pause is temporary")
	}
	w.clock = w.clock.Add(59 * time.Second)
	jia.board()
	_, _, err = jia.confirm(good)
	w.refusedWith(err, exchange.CodeFerryCodePause, "")
	w.clock = w.clock.Add(2 * time.Second)
	_, _, err = jia.confirm(wrong.String())
	w.refusedWith(err, exchange.CodeFerryCode, "(6 in a row)")
	w.clock = w.clock.Add(61 * time.Second) // the pause has doubled
	_, _, err = jia.confirm(good)
	w.refusedWith(err, exchange.CodeFerryCodePause, "")
	w.clock = w.clock.Add(time.Minute)

	beyond := c
	beyond.N = 2
	_, _, err = jia.confirm(beyond.String())
	w.refusedWith(err, exchange.CodeFerryCode, "the last that left is 1")
	elsewhere := c
	if elsewhere.mark = "00"; c.mark == "00" {
		elsewhere.mark = "01"
	}
	_, _, err = jia.confirm(elsewhere.String())
	w.refusedWith(err, exchange.CodeFerryCode, "another link")
	if st := jia.oneWay(); st.Wrong != 6 {
		t.Errorf("what is no guess was counted: %+v", st)
	}
	if _, _, err = jia.confirm(good); err != nil {
		t.Fatal(err)
	}
	if st := jia.oneWay(); st.Wrong != 0 || st.Confirmed != 1 {
		t.Errorf("%+v", st)
	}
	_, err = jia.ferry.Code(w.ctx)
	w.refusedWith(err, exchange.CodeOneWay, "only receives")
	_, err = yi.ferry.Confirm(w.ctx, good, "zhang-san", nil)
	w.refusedWith(err, exchange.CodeOneWay, "not the one that sends")
}

// TestACrashBeforeFerried: whatever commit fails, FERRIED is said once after the next
// start, and nothing leaves a second time that is known to have left.
func TestACrashBeforeFerried(t *testing.T) {
	w, jia, yi := oneWayWorld(t)
	ids := []string{w.submit(jia.host, "yi", 3000), w.submit(jia.host, "yi", 4000)}
	broken := errors.New("the process ends")
	for commits := 0; ; commits++ {
		left := commits
		jia.store.fail = func() error {
			if left--; left < 0 {
				return broken
			}
			return nil
		}
		_, err := jia.ferry.Export(w.ctx, jia.limit, false, func(_ string, write func(io.Writer) error) error {
			var file bytes.Buffer
			err := write(&file)
			jia.out = append(jia.out, file.Bytes())
			return err
		})
		jia.store.fail = nil
		for _, id := range ids {
			if got := jia.stage(id); got != "ACCEPTED" && got != "FERRIED "+exchange.ReasonNoWayBack || err == nil && got == "ACCEPTED" {
				t.Fatalf("after %d commits it stands at %s (%v)", commits, got, err)
			}
		}
		jia.board()
		if err == nil {
			break
		}
		if commits > 20 {
			t.Fatal(err)
		}
	}
	for _, id := range ids {
		if n := len(jia.receipts(id, exchange.StageFerried)); n != 1 {
			t.Errorf("%d FERRIED", n)
		}
	}
	jia.booked()
	w.carryAll(jia, yi)
	yi.delivered(ids...)
	if bundles, receipts, err := jia.confirm(yi.code().Code); err != nil || bundles != 1 || receipts != 2 {
		t.Errorf("%d, %d, %v", bundles, receipts, err)
	}
}

// TestACrashWhileConfirming: the same code goes on where it stopped, and nothing is
// confirmed twice.
func TestACrashWhileConfirming(t *testing.T) {
	w, jia, yi := oneWayWorld(t)
	jia.limit.FileBytes = 1
	ids := []string{w.submit(jia.host, "yi", 3_900_000), w.submit(jia.host, "yi", 3_900_000)}
	for jia.export().Bundles > 0 {
	}
	w.carryAll(jia, yi)
	code := yi.code().Code
	broken := errors.New("the process ends")
	for commits := 0; ; commits++ {
		left := commits
		jia.store.fail = func() error {
			if left--; left < 0 {
				return broken
			}
			return nil
		}
		_, _, err := jia.confirm(code)
		jia.store.fail = nil
		jia.board()
		if err == nil {
			break
		}
		if !errors.Is(err, broken) || commits > 30 {
			t.Fatal(err)
		}
	}
	for _, id := range ids {
		w.wantStage(jia.host, id, "CONFIRMED "+exchange.ReasonNoWayBack)
		if n := len(jia.receipts(id, exchange.StageConfirmed)); n != 1 {
			t.Errorf("%d CONFIRMED", n)
		}
	}
	jia.balanced()
}

// TestASenderThatWasRestored begins a new epoch: an old code is refused, what was not
// confirmed leaves anew, and arrives once.
func TestASenderThatWasRestored(t *testing.T) {
	w, jia, yi := oneWayWorld(t)
	first := w.submit(jia.host, "yi", 3000)
	jia.export()
	backup := jia.store.clone()
	second := w.submit(jia.host, "yi", 3000)
	jia.export()
	w.carryAll(jia, yi)
	old := yi.code().Code
	jia.host = w.afterDiskLoss(jia.host, backup)
	jia.kept = shed{}
	jia.board()
	jia.export()
	jia.balanced()
	_, _, err := jia.confirm(old)
	w.refusedWith(err, exchange.CodeFerryCode, "")
	w.carryAll(jia, yi)
	yi.delivered(first, second)
	report := yi.code()
	if report.UpTo != 1 || report.Code == old {
		t.Fatalf("%+v", report)
	}
	if _, _, err = jia.confirm(report.Code); err != nil {
		t.Fatal(err)
	}
	w.wantStage(jia.host, first, "CONFIRMED "+exchange.ReasonNoWayBack)
	if n := len(jia.receipts(first, exchange.StageFerried)); n != 1 {
		t.Errorf("%d FERRIED", n)
	}
	jia.balanced()
}

// TestAReceiverThatWasRestored lacks bundles that nobody keeps any more: that is
// shown, and the codes go on.
func TestAReceiverThatWasRestored(t *testing.T) {
	w, jia, yi := oneWayWorld(t)
	w.submit(jia.host, "yi", 3000)
	jia.export()
	w.carryAll(jia, yi)
	backup := yi.store.clone()
	w.submit(jia.host, "yi", 3000)
	jia.export()
	w.carryAll(jia, yi)
	if _, _, err := jia.confirm(yi.code().Code); err != nil {
		t.Fatal(err)
	}
	yi.host = w.afterDiskLoss(yi.host, backup)
	yi.board()
	third := w.submit(jia.host, "yi", 3000)
	jia.export()
	w.carryAll(jia, yi)
	if q := yi.quarantined(); !slices.ContainsFunc(q, func(s string) bool { return strings.Contains(s, "bundles 2 to 2 never came") }) {
		t.Errorf("shown: %v", q)
	}
	report := yi.code()
	if report.UpTo != 3 || len(report.Missing) > 0 {
		t.Fatalf("%+v", report)
	}
	if bundles, _, err := jia.confirm(report.Code); err != nil || bundles != 1 {
		t.Fatal(bundles, err)
	}
	w.wantStage(jia.host, third, "CONFIRMED "+exchange.ReasonNoWayBack)
}

// TestNobodyConfirms: what may have left neither expires nor becomes a dead letter at
// the sender; after a month its bytes go, and it stands at FERRIED. What never left
// expires.
func TestNobodyConfirms(t *testing.T) {
	w, jia, yi := oneWayWorld(t)
	id := w.submit(jia.host, "yi", 3000)
	jia.export()
	lost := jia.out
	jia.out = nil
	code := ""
	for days := range 95 {
		w.clock = w.clock.AddDate(0, 0, 1)
		jia.work()
		if days == 28 {
			jia.export()
			if len(jia.kept) != 1 {
				t.Fatal("its bytes went before their time")
			}
		}
	}
	jia.export()
	jia.balanced()
	if st := jia.oneWay(); st.Ended != 1 || jia.backlogOf() != 0 || len(jia.kept) != 0 {
		t.Errorf("%+v, %d wait", st, jia.backlogOf())
	}
	w.wantStage(jia.host, id, "FERRIED "+exchange.ReasonNoWayBack)
	yi.load(lost[0]) // too late for the document, and for the code
	code = yi.code().Code
	if bundles, receipts, err := jia.confirm(code); err != nil || bundles+receipts != 0 {
		t.Errorf("%d, %d, %v", bundles, receipts, err)
	}

	waiting := w.submit(jia.host, "yi", 3000) // and the medium never comes
	for range 95 {
		w.clock = w.clock.AddDate(0, 0, 1)
		jia.work()
	}
	w.wantStage(jia.host, waiting, "EXPIRED")
}

// TestARecallFollowsOneWay: it leaves behind its document, and the answer stays where
// it is.
func TestARecallFollowsOneWay(t *testing.T) {
	w, jia, yi := oneWayWorld(t)
	id := w.submit(jia.host, "yi", 3000)
	jia.export()
	_, err := jia.node.Ask(w.ctx, w.cast.agencies["jia"], id, node.Asking{Wish: exchange.WishRecall, Actor: exchange.Actor{Name: "王某"}})
	w.must(err)
	jia.work()
	w.wantStage(jia.host, id, "FERRIED "+exchange.ReasonNoWayBack)
	jia.export()
	w.carryAll(jia, yi)
	w.wantStage(yi.host, id, "RECALLED")
	if bundles, _, err := jia.confirm(yi.code().Code); err != nil || bundles != 2 {
		t.Fatal(bundles, err)
	}
}

// TestTheDirectoryFollowsOneWay: unasked, once a version.
func TestTheDirectoryFollowsOneWay(t *testing.T) {
	w := newWorld(t)
	var err error
	w.cast, err = newCastOver(t.TempDir(), oneWayLink)
	w.must(err)
	jia, yi := w.bank("jia"), w.bank("yi")
	jia.export()
	w.carryAll(jia, yi)
	jia.shelf.inForce = w.publish()
	if got := jia.export(); got.Bundles != 1 {
		t.Fatalf("%+v", got)
	}
	if got := jia.export(); got.Bundles != 0 {
		t.Fatalf("the same version again: %+v", got)
	}
	w.carryAll(jia, yi)
	if yi.shelf.inForce.Version() != jia.shelf.inForce.Version() {
		t.Errorf("version %d is in force, want %d", yi.shelf.inForce.Version(), jia.shelf.inForce.Version())
	}
	if bundles, _, err := jia.confirm(yi.code().Code); err != nil || bundles != 2 {
		t.Fatal(bundles, err)
	}
}

// TestTwoLinksOfOneWay: receipts go home over the other one, and say DELIVERED.
func TestTwoLinksOfOneWay(t *testing.T) {
	w := newWorld(t)
	var err error
	back := certs.Link{ID: "yi-jia", A: "yi", B: "jia", Dialer: "yi", Kind: "ferry", Ceiling: "work_secret", OneWay: "yi"}
	w.cast, err = newCastOver(t.TempDir(), oneWayLink, back)
	w.must(err)
	jia, yi := w.bank("jia"), w.bank("yi")
	id := w.submit(jia.host, "yi", 3000)
	jia.export()
	w.carryAll(jia, yi)
	yi.delivered(id)
	home, arriving := shed{}, shed{}
	out, err := NewFerry(w.ctx, yi.node, "yi-jia", home)
	w.must(err)
	in, err := NewFerry(w.ctx, jia.node, "yi-jia", arriving)
	w.must(err)
	var file bytes.Buffer
	_, err = out.Export(w.ctx, yi.limit, false, func(_ string, write func(io.Writer) error) error { return write(&file) })
	w.must(err)
	_, err = in.Import(w.ctx, bytes.NewReader(file.Bytes()), int64(file.Len()))
	w.must(err)
	w.wantStage(jia.host, id, "COLLECTED")
	if kept := yi.oneWay().Kept; kept != 0 {
		t.Errorf("%d receipts are kept, though there is a way", kept)
	}
}

// TestAgainstTheDirection: what comes to the side that sends is nothing, and a bundle
// without a secret is a fault.
func TestAgainstTheDirection(t *testing.T) {
	w, jia, yi := oneWayWorld(t)
	w.submit(jia.host, "yi", 3000)
	jia.export()
	file := jia.out[0]
	if got := jia.load(file); got.Faults != 1 || got.Bundles+got.Notes != 0 {
		t.Errorf("%+v", got)
	}
	o := &Outgoing{s: jia.ferry.s, kind: Push, inside: true}
	in, items, err := jia.ferry.s.inner(w.ctx, o)
	w.must(err)
	in.Secret = make([]byte, 16)
	section, err := joinSection(in, items)
	w.must(err)
	o.seq = 1
	w.must(o.finish(section))
	if got := yi.load(jia.written(o)); got.Faults != 1 || got.Bundles != 0 {
		t.Errorf("%+v", got)
	}
	if code := yi.code(); code.Code != "" || code.UpTo != 0 {
		t.Errorf("%+v", code)
	}
}

// TestARefusedItemIsShownWithTheCode and something that is damaged keeps its bundle out
// of the prefix.
func TestWhatIsNotHere(t *testing.T) {
	w, jia, yi := oneWayWorld(t)
	jia.export() // the directory
	w.carryAll(jia, yi)
	id := w.submit(jia.host, "yi", 3000)
	jia.export()
	file := jia.out[0]
	yi.full = true
	yi.load(file)
	report := yi.code()
	if report.UpTo != 1 || !slices.EqualFunc(report.Missing, []Range{{From: 2, To: 2}}, sameRange) {
		t.Fatalf("%+v", report)
	}
	yi.full = false
	yi.load(file)
	if report = yi.code(); report.UpTo != 2 {
		t.Fatalf("%+v", report)
	}
	yi.delivered(id)
	w.must(yi.node.FerryOpened(w.ctx, "jia-yi", jia.ferry.s.epoch, 3, []node.Outcome{{Status: node.Refused, Reason: "label_ceiling"}}, make([]byte, 32)))
	if report = yi.code(); report.UpTo != 3 || !slices.Equal(report.Refused, []uint64{3}) {
		t.Fatalf("%+v", report)
	}
}

// TestALongGap: a thousand bundles wait behind it.
func TestALongGap(t *testing.T) {
	w, _, yi := oneWayWorld(t)
	own := yi.ferry.inward("e")
	var want []byte
	var secrets [][]byte
	for i := range 1000 {
		secret := make([]byte, secretSize)
		secret[0], secret[1] = byte(i), byte(i>>8)
		secrets = append(secrets, secret)
		want = own.next(want, uint64(i+1), secret)
	}
	for i := len(secrets) - 1; i > 0; i-- {
		w.must(yi.node.FerryOpened(w.ctx, "jia-yi", "e", uint64(i+1), nil, secrets[i]))
	}
	if r := yi.code(); r.Code != "" || len(r.Missing) != 1 {
		t.Fatalf("%+v", r)
	}
	w.must(yi.node.FerryOpened(w.ctx, "jia-yi", "e", 1, nil, secrets[0]))
	if r := yi.code(); r.UpTo != 1000 || r.Code != own.code(want, 1000).String() {
		t.Fatalf("%+v", r)
	}
	left := 0
	for k := range yi.store.facts() {
		if strings.HasPrefix(k, "frs") {
			left++
		}
	}
	if left > 0 {
		t.Errorf("%d secrets are left", left)
	}
}

// TestALinkThatLosesItsWayBack begins anew: what was on its way leaves once more, with
// secrets, and waits for a code.
func TestALinkThatLosesItsWayBack(t *testing.T) {
	for name, byHand := range map[string]bool{"heard of before": true, "heard of over the link itself": false} {
		t.Run(name, func(t *testing.T) { losesItsWayBack(t, byHand) })
	}
}

func losesItsWayBack(t *testing.T, byHand bool) {
	w := newWorld(t)
	var err error
	other := certs.Link{ID: "yi-jia", A: "yi", B: "jia", Dialer: "yi", Kind: "ferry", Ceiling: "work_secret", OneWay: "yi"}
	both := oneWayLink
	both.OneWay = ""
	w.cast, err = newCastOver(t.TempDir(), other, both) // the first one brings an administrator
	w.must(err)
	jia, yi := w.bank("jia"), w.bank("yi")
	first := w.submit(jia.host, "yi", 3000)
	jia.export()
	if got := jia.stage(first); got != "ACCEPTED" {
		t.Fatalf("over a ferry with a way back it is %s", got)
	}
	w.carryAll(jia, yi)
	w.clock = w.clock.Add(time.Second)
	w.must(w.cast.authority.AddLink(oneWayLink))
	jia.shelf.inForce = w.publish()
	if w.cast.directory = jia.shelf.inForce; byHand {
		yi.shelf.inForce = jia.shelf.inForce
	}
	second := w.submit(jia.host, "yi", 3000)
	jia.export()
	for _, id := range []string{first, second} {
		w.wantStage(jia.host, id, "FERRIED "+exchange.ReasonNoWayBack)
	}
	jia.booked()
	w.carryAll(jia, yi)
	yi.delivered(first, second)
	if _, receipts, err := jia.confirm(yi.code().Code); err != nil || receipts != 2 {
		t.Fatal(receipts, err)
	}
}

// TestARelayBeforeOneWay: FERRIED and CONFIRMED are said by the relay and its operator,
// and are judged where the document came from.
func TestARelayBeforeOneWay(t *testing.T) {
	w := newWorld(t)
	var err error
	last := oneWayLink
	last.OneWay = "yi"
	w.cast, err = newCastOver(t.TempDir(), last)
	w.must(err)
	w.must(w.cast.authority.AddRoute("bing", "jia", "yi"))
	w.cast.directory = w.publish()
	bing, relay, jia := w.host("bing", "yi-bing", nil, nil), w.host("yi", "yi-bing", nil, nil), w.bank("jia")
	yi := &bank{host: relay, kept: shed{}, limit: jia.limit}
	yi.ferry, err = NewFerry(w.ctx, relay.node, "jia-yi", yi.kept)
	w.must(err)
	id := w.submit(bing, "jia", 3000)
	w.exchange(relay, bing)
	yi.export()
	w.exchange(relay, bing)
	w.wantStage(bing, id, "FERRIED "+exchange.ReasonNoWayBack)
	w.carryAll(yi, jia)
	jia.delivered(id)
	if _, receipts, err := yi.confirm(jia.code().Code); err != nil || receipts != 1 {
		t.Fatal(receipts, err)
	}
	w.exchange(relay, bing)
	w.wantStage(bing, id, "CONFIRMED "+exchange.ReasonNoWayBack)
	trace, err := bing.node.Trace(w.ctx, w.cast.agencies["bing"], id)
	w.must(err)
	if said := trace.Events[len(trace.Events)-1]; said.Node != "yi" || said.Actor == nil || said.Actor.Name != "zhang-san" {
		t.Errorf("said by %+v", said)
	}
	for _, h := range []*host{bing, relay, jia.host} {
		if q := h.quarantined(); len(q) > 0 {
			t.Errorf("%s shows %v", h.id, q)
		}
	}
}
