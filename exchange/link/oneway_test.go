package link

import (
	"bytes"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/yizhan-gateway/yizhan/certs"
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
	for _, r := range [][2]uint64{{1, 2}, {4, 9}, {3, 2}, {6, 6}} {
		_, err := jia.again(r[0], r[1])
		w.refusedWith(err, exchange.CodeOneWay, "not all of them")
	}
	got, err := jia.again(2, 3)
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
	if st, err := yi.ferry.Status(w.ctx); err != nil || !slices.EqualFunc(st.Gaps, report.Missing, sameRange) {
		t.Errorf("gaps %+v, %v", st.Gaps, err)
	}
	if s := yi.books(); !slices.Equal(s.Gaps, []node.Gap{{From: 5, To: 5}}) {
		t.Errorf("the link's gaps are %+v", s.Gaps)
	}
	if got, err = jia.again(0, 0); err != nil || got.Bundles != 4 {
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
		_, err := jia.ferry.Export(w.ctx, jia.limit, false, jia.place)
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
