package exchange

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// full is a document with every member filled in.
func full(t testing.TB) *Document {
	d := valid(t)
	d.Cc = []Addressee{{Agency: code(t, "11520000000000003"), Name: "抄送单位", CopyFrom: 1, CopyTo: 3, Print: 3}}
	d.Number = &Number{Prefix: "遵府办发", Year: 2026, Serial: 12, Display: "遵府办发〔2026〕12号"}
	d.LabelTerm, d.DocType, d.IssuerMark, d.Signatory = "1年", "通知", "示范市人民政府文件", "王伟"
	d.SignedBy, d.WrittenOn, d.PrintedOn = []string{"王伟", "李娜"}, "2026-11-22", "2026-11-23"
	d.AttachmentNote, d.Remark, d.PrintedBy = "1. 名单\n2. 安排", "此件公开发布", "示范市人民政府办公室"
	d.ReleaseScope, d.Sealed, d.Contact, d.DueAt = "全市", true, "010-12345678", "2026-11-30T17:00:00+08:00"
	return d
}

func FuzzParseDocument(f *testing.F) {
	for _, d := range []*Document{valid(f), full(f)} {
		raw, err := d.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(raw))
		f.Add([]byte(strings.Replace(string(raw), `"internal"`, `"top_secret"`, 1)))
		f.Add([]byte(strings.TrimSuffix(string(raw), "}") + `,"zz":{"a":[1,true,"x"]}}`))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ParseDocument(b)
		if err != nil {
			wantClass(t, err)
			return
		}
		again, err := d.Marshal()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("parse then marshal gives %q, %v", again, err)
		}
		if d.Label.StateSecret() || len(d.Recipients()) == 0 || strings.TrimSpace(d.Title) == "" {
			t.Fatalf("accepted %+v", d)
		}
	})
}

func FuzzParseRouting(f *testing.F) {
	raw, err := strictjson.Marshal(&Routing{Label: Internal, Urgency: Urgent, Kind: Notice, Created: 1, Expires: 2, RelatesTo: "a", Trace: "b"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(raw))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRouting(b)
		if err != nil {
			wantClass(t, err)
			return
		}
		again, err := strictjson.Marshal(r)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("parse then marshal gives %q, %v", again, err)
		}
	})
}

func TestParseDocumentRefusesOtherEncodingsOfTheSame(t *testing.T) {
	raw, err := full(t).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	b := string(raw)
	if back, err := ParseDocument(raw); err != nil || back.Title != full(t).Title {
		t.Fatalf("the full document: %v", err)
	}
	for name, other := range map[string]string{
		"white space":       strings.Replace(b, `"v":1`, `"v": 1`, 1),
		"trailing bytes":    b + "{}",
		"escaped character": strings.Replace(b, "通知", `\u901a知`, 1),
		"another order":     strings.Replace(b, `"type":"yizhan-document","v":1`, `"v":1,"type":"yizhan-document"`, 1),
		"member twice":      strings.Replace(b, `"v":1`, `"v":1,"v":1`, 1),
		"false written out": strings.Replace(b, `"sealed":true`, `"sealed":false`, 1),
		"another type":      strings.Replace(b, DocumentType, ReceiptType, 1),
		"another version":   strings.Replace(b, `"v":1`, `"v":2`, 1),
		"too deep":          strings.TrimSuffix(b, "}") + `,"zz":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + "}",
		"unknown not last":  strings.Replace(b, `"v":1`, `"v":1,"aa":1`, 1),
	} {
		if other == b {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := ParseDocument([]byte(other)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	critical := strings.Replace(b, `"v":1`, `"v":1,"crit":["future"]`, 1)
	if _, err := ParseDocument([]byte(critical)); !errors.Is(err, strictjson.ErrCritical) {
		t.Errorf("a critical member that is not known: %v", err)
	}
}
