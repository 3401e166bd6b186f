package link

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/evidence"
)

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

// refusedWith expects an error with a code and a word of its detail.
func (w *world) refusedWith(err error, code, word string) {
	w.t.Helper()
	if exchange.CodeOf(err) != code || !strings.Contains(err.Error(), word) {
		w.t.Fatalf("got %v, want %s saying %q", err, code, word)
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
