package sim

import (
	"context"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// TestGivingUpSurvivesEveryCrash: a dead letter to 1,500 recipients is given up
// with the power cut before and after every single commit; each recipient has
// one FAILED, those over the other link none.
func TestGivingUpSurvivesEveryCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: admits 3,000 agencies; scripts/test runs it")
	}
	if raced {
		t.Skip("-race: one goroutine, ten times slower; scripts/test runs it in its step of 2,000 seeds")
	}
	sender, _, agency, recipients := fanMachines(t)
	doc := exchange.Document{Label: exchange.Internal, Kind: exchange.Official, Urgency: exchange.Normal, Title: "关于全省各单位的通知"}
	for _, r := range recipients {
		doc.To = append(doc.To, exchange.Addressee{Agency: r})
	}
	ctx := context.Background()
	got, err := sender.node.Submit(ctx, node.Submission{Agency: agency, Document: doc, Files: oneFile([]byte("正文"))})
	if err != nil {
		t.Fatal(err)
	}
	work := func() {
		for more := true; more; {
			if more, err = sender.node.Work(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	work()
	sender.now = sender.now.Add(node.DefaultDeadLetterAfter + time.Minute)
	work()
	sender.boots, sender.store.cut = 0, everyCommit()
	sender.survive(func() error {
		err := sender.node.GiveUp(ctx, node.Pick{Link: "n0-n1", No: 1}, operator)
		if exchange.CodeOf(err) == exchange.CodeNotFound {
			return nil // the last commit stood before the power went
		}
		return err
	})
	sender.store.cut = nil
	if steps := fanAgencies / 100; sender.boots < 2*steps {
		t.Errorf("only %d power cuts in %d steps: the test does not bite", sender.boots, steps)
	}
	trace, err := sender.node.Trace(ctx, agency, got.ID)
	if err != nil {
		t.Fatal(err)
	}
	failed := map[string]int{}
	for _, ev := range trace.Events {
		for _, r := range ev.Recipients {
			if ev.Stage == exchange.StageFailed {
				failed[r]++
			}
		}
	}
	for i, r := range recipients {
		if want := 1 - i/fanAgencies; failed[r] != want {
			t.Fatalf("recipient %d has %d FAILED receipts, want %d", i, failed[r], want)
		}
	}
	if !trace.ReceiptsVerified || !trace.LedgerVerified {
		t.Error("not verified")
	}
}
