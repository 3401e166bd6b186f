package exchange

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// aReceipt is a receipt with every member filled in.
func aReceipt(stage Stage) *Receipt {
	r := &Receipt{
		Domain: "test", Stage: stage, Envelope: "01K0000000000000000000000A", Header: sm.Sum([]byte("header")),
		Recipients: []string{"11520000000000002X"}, Node: "yi", Actor: &Actor{Role: "机要员", Name: "王伟"},
		Time: 1, Clock: "system", Directory: 7, Reason: "label_ceiling", Form: FormOpened,
		Detail: sm.Sum([]byte("detail")).String(), After: []sm.Digest{sm.Sum([]byte("earlier"))},
	}
	if stage.ByAgency() {
		r.Agency = r.Recipients[0]
	}
	return r
}

func marshalled(t testing.TB, r *Receipt) []byte {
	t.Helper()
	b, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEveryStageHasOneEncoding(t *testing.T) {
	for stage := range stages {
		b := marshalled(t, aReceipt(stage))
		back, err := ParseReceipt(b)
		if err != nil {
			t.Errorf("%s: %v", stage, err)
			continue
		}
		if again := marshalled(t, back); !bytes.Equal(again, b) {
			t.Errorf("%s: parse then marshal differs", stage)
		}
		if stage.Chinese() == "" || stage.English() == "" {
			t.Errorf("%s has no words for a person", stage)
		}
	}
}

func TestParseReceiptRefusesWhatIsNoReceipt(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(r *Receipt, b string) string
		code   string
	}{
		{"another type", func(_ *Receipt, b string) string { return strings.Replace(b, ReceiptType, DocumentType, 1) }, CodeBadRequest},
		{"another version", func(_ *Receipt, b string) string { return strings.Replace(b, `"v":1`, `"v":2`, 1) }, CodeBadRequest},
		{"unknown stage", func(_ *Receipt, b string) string { return strings.Replace(b, "SIGNED_FOR", "SIGNED", 1) }, CodeBadRequest},
		{"the stage of no receipt", func(_ *Receipt, b string) string {
			return strings.Replace(b, "SIGNED_FOR", string(StagePending), 1)
		}, CodeBadRequest},
		{"agency stage without agency", func(r *Receipt, _ string) string { r.Agency = ""; return "" }, CodeBadRequest},
		{"node stage with agency", func(r *Receipt, _ string) string { r.Stage = StageDelivered; return "" }, CodeBadRequest},
		{"no node", func(r *Receipt, _ string) string { r.Node = ""; return "" }, CodeBadRequest},
		{"too many recipients", func(r *Receipt, _ string) string {
			r.Recipients = make([]string, MaxReceiptRecipients+1)
			return ""
		}, CodeTooLarge},
		{"too long", func(r *Receipt, _ string) string { r.Reason = strings.Repeat("x", MaxReceipt); return "" }, CodeTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := aReceipt(StageSignedFor)
			b := c.change(r, string(marshalled(t, r)))
			if b == "" {
				b = string(marshalled(t, r))
			}
			_, err := ParseReceipt([]byte(b))
			if CodeOf(err) != c.code {
				t.Fatalf("got %v, want %s", err, c.code)
			}
		})
	}
}

func TestReceiptRefusesOtherEncodingsOfTheSame(t *testing.T) {
	b := string(marshalled(t, aReceipt(StageSignedFor)))
	for name, other := range map[string]string{
		"white space":      strings.Replace(b, `"v":1`, `"v": 1`, 1),
		"trailing newline": b + "\n",
		"escaped letter":   strings.Replace(b, "SIGNED_FOR", `\u0053IGNED_FOR`, 1),
		"another order":    strings.Replace(b, `"type":"yizhan-receipt","v":1`, `"v":1,"type":"yizhan-receipt"`, 1),
		"member twice":     strings.Replace(b, `"v":1`, `"v":1,"v":1`, 1),
		"other case":       strings.Replace(b, `"node"`, `"Node"`, 1),
		"number as text":   strings.Replace(b, `"directory":7`, `"directory":"7"`, 1),
		"a fraction":       strings.Replace(b, `"directory":7`, `"directory":7.0`, 1),
		"an empty option":  strings.Replace(b, `"reason":"label_ceiling"`, `"reason":""`, 1),
		"a null":           strings.Replace(b, `"reason":"label_ceiling"`, `"reason":null`, 1),
	} {
		if other == b {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := ParseReceipt([]byte(other)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	unknown := strings.Replace(b, `"v":1`, `"v":1,"crit":["future"]`, 1)
	if _, err := ParseReceipt([]byte(unknown)); !errors.Is(err, strictjson.ErrCritical) {
		t.Errorf("a critical member that is not known: %v", err)
	}
}

func FuzzParseReceipt(f *testing.F) {
	for stage := range stages {
		f.Add(marshalled(f, aReceipt(stage)))
	}
	f.Add([]byte(strings.TrimSuffix(string(marshalled(f, aReceipt(StageAccepted))), "}") + `,"zz":{"a":[1,true]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseReceipt(b)
		if err != nil {
			wantClass(t, err)
			return
		}
		if again := marshalled(t, r); !bytes.Equal(again, b) {
			t.Fatalf("parse then marshal gives %q", again)
		}
		if !r.Stage.Known() || r.Node == "" || r.Stage.ByAgency() != (r.Agency != "") {
			t.Fatalf("accepted %+v", r)
		}
		if len(r.Recipients) > 0 && !r.Concerns(r.Recipients[0]) {
			t.Fatal("does not concern whom it names")
		}
	})
}

// wantClass fails when an error does not tell a program what kind it is.
func wantClass(t *testing.T, err error) {
	t.Helper()
	var known *Error
	if !errors.As(err, &known) && !errors.Is(err, strictjson.ErrEncoding) && !errors.Is(err, strictjson.ErrCritical) {
		t.Fatalf("an error without a class: %v", err)
	}
}
