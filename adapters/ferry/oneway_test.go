package ferry

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// confirmed enters a code and signs what is asked for.
func (p *pier) confirmed(code string, operator *keystore.Store) (receipts int) {
	p.Helper()
	by := &p.node.Directory().Administrators()[0].Certificates[0]
	for signed := [][]byte(nil); ; {
		got, err := p.spool.Confirm(p.Context(), code, "zhang-san", signed)
		check(p.T, err)
		receipts, signed = receipts+got.Receipts, nil
		if len(got.Statements) == 0 {
			return receipts
		}
		for _, content := range got.Statements {
			one, err := cms.Sign(certs.Signer(operator, by), content, *p.clock)
			check(p.T, err)
			signed = append(signed, one)
		}
	}
}

func (p *pier) stage(id string) exchange.Stage {
	p.Helper()
	trace, err := p.node.Trace(p.Context(), p.agency, id)
	check(p.T, err)
	if !trace.ReceiptsVerified || !trace.LedgerVerified {
		p.Error("the trace does not verify")
	}
	return trace.Recipients[0].Stage
}

// TestOneWayOnDisk: over real stores and folders, with a watcher that finds nothing to
// say, a file that was cut, and a check of all rows at the end.
func TestOneWayOnDisk(t *testing.T) {
	jia, yi, operator := piersOver(t, "jia")
	first := jia.send(yi)
	jia.take()
	if files := jia.export(); len(files) != 1 || jia.stage(first) != exchange.StageFerried {
		t.Fatalf("%v, %s", files, jia.stage(first))
	}
	for range 3 { // hours of a watcher
		*jia.clock = jia.clock.Add(2 * time.Hour)
		if _, err := jia.spool.step(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if _, err := yi.spool.step(t.Context(), true); err != nil {
			t.Fatal(err)
		}
	}
	if files := jia.list(outFolder); len(files) != 1 || len(yi.list(outFolder)) != 0 {
		t.Fatalf("with nothing new: %v, %v", files, yi.list(outFolder))
	}

	name := jia.list(outFolder)[0]
	whole, err := os.ReadFile(filepath.Join(jia.dir, outFolder, name))
	check(t, err)
	check(t, os.WriteFile(filepath.Join(yi.dir, inFolder, name), whole[:len(whole)-5], 0o600))
	yi.take()
	*yi.clock = yi.clock.Add(time.Minute)
	if got := yi.take(); got.Quarantined != 1 {
		t.Errorf("%+v", got)
	}
	reason, err := os.ReadFile(filepath.Join(yi.dir, quarantineFolder, name+".reason.txt"))
	check(t, err)
	if !strings.Contains(string(reason), "yizhan ferry code") {
		t.Errorf("the reason is %s", reason)
	}
	report, err := yi.spool.Code(t.Context())
	check(t, err)
	if report.Code != "" || len(report.Missing) != 1 {
		t.Errorf("%+v", report)
	}

	medium := t.TempDir()
	got, list, err := jia.spool.ExportAgain(t.Context(), medium, 1, 1)
	check(t, err)
	if got.Bundles != 1 || len(list.Files) != 1 {
		t.Fatalf("%+v, %+v", got, list)
	}
	again, err := os.ReadFile(filepath.Join(medium, list.Files[0].File))
	check(t, err)
	if !bytes.HasSuffix(again, whole[len(whole)-2000:]) {
		t.Error("it left again with other bytes")
	}
	_, err = yi.spool.ImportFrom(t.Context(), medium)
	check(t, err)
	if _, err := jia.spool.ImportFrom(t.Context(), medium); exchange.CodeOf(err) != exchange.CodeOneWay {
		t.Errorf("the sending side imports: %v", err)
	}
	yi.take()
	if report, err = yi.spool.Code(t.Context()); err != nil || report.UpTo != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
	if receipts := jia.confirmed(report.Code, operator); receipts != 1 || jia.stage(first) != exchange.StageConfirmed {
		t.Errorf("%d receipts, %s", receipts, jia.stage(first))
	}
	if _, err := jia.spool.Confirm(t.Context(), strings.Replace(report.Code, "1-", "2-", 1), "zhang-san", nil); exchange.CodeOf(err) != exchange.CodeFerryCode {
		t.Errorf("another code: %v", err)
	}

	second := jia.send(yi)
	jia.take()
	jia.export()
	*jia.clock = jia.clock.Add(node.Unconfirmed + time.Hour)
	jia.export()
	if kept, err := os.ReadDir(filepath.Join(jia.work, "kept")); err != nil || len(kept) != 0 || jia.stage(second) != exchange.StageFerried {
		t.Errorf("%v, %v, %s", kept, err, jia.stage(second))
	}
	for _, p := range []*pier{jia, yi} {
		checked, err := p.node.Check(t.Context(), node.CheckOptions{ReadData: true, Still: true})
		check(t, err)
		if len(checked.Problems) > 0 {
			t.Errorf("%s: %+v", p.id, checked.Problems)
		}
	}
}
