package link

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/exchange"
)

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

// TestWhatNeverComesIsShown: whichever commit a process ends at that hears of it, what
// the other side does not keep any more is shown.
func TestWhatNeverComesIsShown(t *testing.T) {
	w, jia, yi := oneWayWorld(t)
	w.submit(jia.host, "yi", 3000)
	jia.export()
	w.carryAll(jia, yi)
	before := yi.store.clone()
	w.submit(jia.host, "yi", 3000)
	jia.export()
	w.carryAll(jia, yi)
	if _, _, err := jia.confirm(yi.code().Code); err != nil {
		t.Fatal(err)
	}
	jia.exportAnyhow(true)
	note := jia.out[0]
	broken := errors.New("the process ends")
	for commits := 0; ; commits++ {
		yi.store = before.clone()
		yi.board()
		left := commits
		yi.store.fail = func() error {
			if left--; left < 0 {
				return broken
			}
			return nil
		}
		_, err := yi.ferry.Import(w.ctx, bytes.NewReader(note), int64(len(note)))
		yi.store.fail = nil
		yi.board()
		yi.load(note)
		if q := yi.quarantined(); !slices.ContainsFunc(q, func(s string) bool { return strings.Contains(s, "bundles 2 to 2 never came") }) {
			t.Fatalf("after %d commits shown: %v", commits, q)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, broken) || commits > 20 {
			t.Fatal(err)
		}
	}
}
