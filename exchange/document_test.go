package exchange

import (
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/certs"
)

func code(t testing.TB, first17 string) string {
	t.Helper()
	c, err := certs.MakeAgencyCode(first17)
	if err != nil {
		t.Fatal(err)
	}
	return string(c)
}

func valid(t testing.TB) *Document {
	return &Document{
		Type: DocumentType, V: 1, Sender: code(t, "11520000000000001"),
		To:    []Addressee{{Agency: code(t, "11520000000000002")}},
		Label: Internal, Kind: Official, Urgency: Normal, Title: "关于开展公文交换试点的通知",
	}
}

func TestDocumentValidateNamesWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(d *Document)
		code   string
		detail string
	}{
		{"valid", func(*Document) {}, "", ""},
		{"秘密 is refused", func(d *Document) { d.Label = Secret }, CodeStateSecret, "label"},
		{"机密 is refused", func(d *Document) { d.Label = Confidential }, CodeStateSecret, "label"},
		{"绝密 is refused", func(d *Document) { d.Label = TopSecret }, CodeStateSecret, "label"},
		{"state secret before anything else", func(d *Document) { d.Label, d.Title, d.To = Secret, "", nil }, CodeStateSecret, "label"},
		{"unknown label", func(d *Document) { d.Label = "restricted" }, CodeInvalidDocument, "label"},
		{"Chinese label is not the wire form", func(d *Document) { d.Label = "内部" }, CodeInvalidDocument, "label"},
		{"unknown urgency", func(d *Document) { d.Urgency = "soon" }, CodeInvalidDocument, "urgency"},
		{"unknown kind", func(d *Document) { d.Kind = "memo" }, CodeInvalidDocument, "kind"},
		{"no recipient", func(d *Document) { d.To = nil }, CodeInvalidDocument, "to"},
		{"wrong check digit", func(d *Document) { d.To[0].Agency = "91350100M000100Y40"[:17] + "9" }, CodeAgencyCode, "to"},
		{"recipient twice", func(d *Document) { d.Cc = d.To }, CodeInvalidDocument, "twice"},
		{"no title", func(d *Document) { d.Title = "  " }, CodeInvalidDocument, "title"},
		{"long title", func(d *Document) { d.Title = strings.Repeat("长", MaxTitle+1) }, CodeInvalidDocument, "title"},
		{"longest title", func(d *Document) { d.Title = strings.Repeat("长", MaxTitle) }, "", ""},
		{"broken decoding", func(d *Document) { d.Title = "通\uFFFD知" }, CodeInvalidDocument, "title"},
		{"control character", func(d *Document) { d.Remark = "a\x00b" }, CodeInvalidDocument, "remark"},
		{"date", func(d *Document) { d.WrittenOn = "2026-11-23" }, "", ""},
		{"no date", func(d *Document) { d.WrittenOn = "23.11.2026" }, CodeInvalidDocument, "written_on"},
		{"due with time", func(d *Document) { d.DueAt = "2026-11-23T17:00:00+08:00" }, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := valid(t)
			c.change(d)
			err := d.Validate()
			if c.code == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || CodeOf(err) != c.code || !strings.Contains(err.Error(), c.detail) {
				t.Fatalf("got %v, want %s naming %q", err, c.code, c.detail)
			}
			if strings.Contains(err.Error(), "试点") {
				t.Error("the error shows the title")
			}
		})
	}
}

func TestDocumentRoundTrip(t *testing.T) {
	d := valid(t)
	d.Number = &Number{Prefix: "遵府办发", Year: 2026, Serial: 12, Display: "遵府办发〔2026〕12号"}
	d.Cc = []Addressee{{Agency: code(t, "11520000000000003"), CopyFrom: 1, CopyTo: 3, Print: 3}}
	raw, err := d.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseDocument(raw)
	if err != nil {
		t.Fatal(err)
	}
	again, err := back.Marshal()
	if err != nil || string(again) != string(raw) {
		t.Fatalf("parse then marshal differs: %v", err)
	}
	if got := back.Recipients(); len(got) != 2 || got[0] != d.To[0].Agency || got[1] != d.Cc[0].Agency {
		t.Errorf("recipients %v", got)
	}
}

func TestContradictionFindsWhatHeaderAndManifestDisagreeOn(t *testing.T) {
	for _, c := range []struct {
		want   string
		change func(sender *string, list *[]string, r *Routing)
	}{
		{"", func(*string, *[]string, *Routing) {}},
		{"sender", func(s *string, _ *[]string, _ *Routing) { *s = "x" }},
		{"label", func(_ *string, _ *[]string, r *Routing) { r.Label = Public }},
		{"kind", func(_ *string, _ *[]string, r *Routing) { r.Kind = Notice }},
		{"urgency", func(_ *string, _ *[]string, r *Routing) { r.Urgency = Urgent }},
		{"recipients", func(_ *string, l *[]string, _ *Routing) { *l = append(*l, "x") }},
		{"recipients", func(_ *string, l *[]string, _ *Routing) { *l = []string{"x"} }},
	} {
		d := valid(t)
		sender, list := d.Sender, d.Recipients()
		r := &Routing{Label: d.Label, Kind: d.Kind, Urgency: d.Urgency}
		c.change(&sender, &list, r)
		if got := d.Contradiction(sender, list, r); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestLabelsAreOrdered(t *testing.T) {
	last := -1
	for _, word := range []string{"公开", "内部", "工作秘密", "秘密", "机密", "绝密"} {
		l, err := ParseLabel(word)
		if err != nil {
			t.Fatal(err)
		}
		if l.Rank() <= last || l.Chinese() != word {
			t.Errorf("%s: rank %d after %d, chinese %s", l, l.Rank(), last, l.Chinese())
		}
		if l.StateSecret() != (l.Rank() >= 3) {
			t.Errorf("%s: state secret %v", l, l.StateSecret())
		}
		last = l.Rank()
	}
	if !Label("?").StateSecret() {
		t.Error("an unknown label must be refused like a state secret")
	}
}

func TestEveryCodeIsExplainedInBothLanguages(t *testing.T) {
	for c, pair := range texts {
		for lang, text := range map[string]Text{"en": pair.en, "zh": pair.zh} {
			if text.Title == "" || text.Fix == "" {
				t.Errorf("%s has no %s text", c, lang)
			}
		}
	}
	if Explain("no such code", "zh") != texts[CodeInternal].zh {
		t.Error("an unknown code must be explained as internal")
	}
}
