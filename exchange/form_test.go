package exchange

import (
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
)

var formTime = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

// county is a directory: agencies by the name that the tests use for them.
type county struct {
	*certs.Directory
	code map[string]string
}

var (
	countyOnce sync.Once
	theCounty  *county
)

// newCounty gives the one county: making keys takes its time.
func newCounty(t *testing.T) *county {
	t.Helper()
	countyOnce.Do(func() { theCounty = foundCounty(t) })
	if theCounty == nil {
		t.Fatal("there is no county")
	}
	return theCounty
}

func foundCounty(t *testing.T) *county {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir, pass := t.TempDir(), []byte("test")
	issued := formTime.AddDate(0, 0, -1)
	authority, err := certs.InitAuthority(filepath.Join(dir, "ca"), "test", pass, rand.Reader, issued)
	must(err)
	keys, err := keystore.Create(filepath.Join(dir, "keys"), pass, rand.Reader)
	must(err)
	c := &county{code: map[string]string{}}
	var specs []certs.AgencySpec
	for i, name := range []string{"示范市人民政府", "甲县人民政府", "乙县人民政府", "丙县人民政府", "示范市财政局", "示范市金融办", "示范市发展和改革委员会"} {
		code := certs.AgencyCode(code(t, fmt.Sprintf("115203000000000%02d", i+1)))
		c.code[name] = string(code)
		specs = append(specs, certs.AgencySpec{Code: code, Name: name})
	}
	request, err := certs.NewRequest(keys, "test", certs.NodeSpec{ID: "n1", Zone: "政务外网"}, specs, issued)
	must(err)
	parsed, err := certs.ParseRequest(request)
	must(err)
	must(authority.Admit(parsed, issued))
	list := func(s ...string) *[]string { return &s }
	ended, successor := formTime.AddDate(0, 0, -7), c.code["示范市财政局"]
	for name, change := range map[string]certs.AgencyChange{
		"示范市人民政府": {Groups: list("各级政府")},
		"甲县人民政府":  {Groups: list("各县区政府", "各级政府"), Aliases: list("甲县政府", "县政府")},
		"乙县人民政府":  {Groups: list("各县区政府", "各级政府"), Aliases: list("县政府")},
		"丙县人民政府":  {Groups: list("各县区政府"), Aliases: list("县政府"), Until: &ended},
		"示范市财政局":  {Aliases: list("市财政局", "市金融办")},
		"示范市金融办":  {Aliases: list("市金融办"), Until: &ended, Successor: &successor},
	} {
		must(authority.ChangeAgency(c.code[name], change))
	}
	file, err := authority.Publish(issued)
	must(err)
	c.Directory, err = certs.LoadDirectory(file, authority.Certificate(), 0, issued)
	must(err)
	return c
}

// TestFormResolves: recipients as people name them.
func TestFormResolves(t *testing.T) {
	c := newCounty(t)
	for _, tt := range []struct {
		name     string
		to, cc   []Named
		want     string // names and how they were found, main ones first
		refused  string // field, code and a word of both details
		warnings string
	}{
		{"code", []Named{{Text: c.code["甲县人民政府"]}}, nil, "甲县人民政府 code;", "", ""},
		{"code in lower case", []Named{{Text: " " + strings.ToLower(c.code["甲县人民政府"])}}, nil, "甲县人民政府 code;", "", ""},
		{"name and alias", []Named{{Text: "甲县人民政府"}, {Text: "市财政局"}}, nil, "甲县人民政府 name;示范市财政局 alias;", "", ""},
		{"an alias of one that ended, too", []Named{{Text: "市金融办"}}, nil, "示范市财政局 alias;", "", ""},
		{"group, without who has ended", []Named{{Text: "各县区政府"}}, nil, "甲县人民政府 group 各县区政府;乙县人民政府 group 各县区政府;", "", "to[0] agency_not_active 丙县人民政府"},
		{"group, without the sender", []Named{{Text: "各级政府"}}, nil, "甲县人民政府 group 各级政府;乙县人民政府 group 各级政府;", "", ""},
		{"two groups", []Named{{Text: "各级政府"}}, []Named{{Text: "各县区政府"}, {Text: "市财政局"}}, "甲县人民政府 group 各级政府;乙县人民政府 group 各级政府;|示范市财政局 alias;", "", "cc[0] agency_not_active 丙县人民政府"},
		{"named by itself it has its own place", []Named{{Text: "各级政府"}}, []Named{{Text: "甲县政府"}}, "乙县人民政府 group 各级政府;|甲县人民政府 alias;", "", ""},
		{"ambiguous", []Named{{Text: "县政府"}}, nil, "", "to[0] ambiguous_recipient " + c.code["乙县人民政府"], ""},
		{"unknown, with what could be meant", []Named{{Text: "示范市财证局"}}, nil, "", "to[0] unknown_recipient 示范市财政局 (" + c.code["示范市财政局"] + ")", ""},
		{"unknown", []Named{{Text: "外星人事务所"}}, nil, "", "to[0] unknown_recipient ", ""},
		{"part of a name is not the name", []Named{{Text: "发展和改革"}}, nil, "", "to[0] unknown_recipient 示范市发展和改革委员会", ""},
		{"ended", []Named{{Text: "示范市金融办"}}, nil, "", "to[0] agency_not_active " + c.code["示范市财政局"], ""},
		{"check digit", []Named{{Text: c.code["甲县人民政府"][:17] + "0"}}, nil, "", "to[0] agency_code " + c.code["甲县人民政府"][17:], ""},
		{"short code", []Named{{Text: "123"}}, nil, "", "to[0] agency_code 18", ""},
		{"code of nobody", []Named{{Text: code(t, "11520300000000099")}}, nil, "", "to[0] unknown_recipient " + code(t, "11520300000000099"), ""},
		{"twice, by two names", []Named{{Text: "甲县政府"}}, []Named{{Text: c.code["甲县人民政府"]}}, "", "cc[0] invalid_document " + c.code["甲县人民政府"], ""},
		{"blank", []Named{{Text: "　"}}, nil, "", "to[0] unknown_recipient ", ""},
		{"endless", []Named{{Text: strings.Repeat("长", 501)}}, nil, "", "to[0] unknown_recipient 500", ""},
		{"nobody", nil, []Named{{Text: "甲县政府"}}, "", "to invalid_document ", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &Form{Title: "标题", Label: "内部", To: tt.to, Cc: tt.cc}
			r, err := f.Resolve(c.Directory, c.code["示范市人民政府"], formTime)
			if tt.refused != "" {
				wantFault(t, err, tt.refused)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for i, to := range r.Recipients {
				a, _ := c.Agency(to.Agency)
				if i == len(r.Document.To) {
					got += "|"
				}
				got += strings.TrimSpace(a.Name+" "+to.By+" "+to.Group) + ";"
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if fmt.Sprint(r.Document.Recipients()) != fmt.Sprint(codesOf(r.Recipients)) {
				t.Error("the document has other recipients")
			}
			if tt.warnings == "" && len(r.Warnings) > 0 || tt.warnings != "" && !hasFault(r.Warnings, tt.warnings) {
				t.Errorf("warnings %+v, want %q", r.Warnings, tt.warnings)
			}
		})
	}
}

func codesOf(list []Reached) (codes []string) {
	for _, r := range list {
		codes = append(codes, r.Agency)
	}
	return codes
}

// hasFault says whether there is a fault "field code word", with the word in both
// languages.
func hasFault(all Faults, want string) bool {
	part := strings.SplitN(want, " ", 3)
	for _, one := range all {
		if one.Field == part[0] && one.Code == part[1] && strings.Contains(one.Detail, part[2]) && strings.Contains(one.DetailZH, part[2]) &&
			one.Detail != "" && one.DetailZH != "" && !strings.Contains(one.Detail+one.DetailZH, "%!") {
			return true
		}
	}
	return false
}

func wantFault(t *testing.T, err error, want string) {
	t.Helper()
	var all Faults
	if !errors.As(err, &all) || !hasFault(all, want) {
		t.Fatalf("got %v %+v, want %q", err, all, want)
	}
}

// TestFormNamesWhatIsWrong: each member's faults, in its own field.
func TestFormNamesWhatIsWrong(t *testing.T) {
	c := newCounty(t)
	for _, tt := range []struct {
		name   string
		change func(f *Form)
		want   string // "" when it is accepted
	}{
		{"nothing", func(*Form) {}, ""},
		{"label", func(f *Form) { f.Label = "geheim" }, "label invalid_document 工作秘密"},
		{"no label", func(f *Form) { f.Label = "" }, "label invalid_document 工作秘密"},
		{"state secret", func(f *Form) { f.Label = "机密★10年" }, "label state_secret 机密"},
		{"a state secret's term", func(f *Form) { f.LabelTerm = "绝密★长期" }, "label_term state_secret 绝密"},
		{"kind", func(f *Form) { f.Kind = "memo" }, "kind invalid_document 政务信息"},
		{"urgency", func(f *Form) { f.Urgency = "soon" }, "urgency invalid_document 特提"},
		{"unknown type", func(f *Form) { f.DocType = "备忘录" }, "doc_type invalid_document 纪要"},
		{"any type of a material", func(f *Form) { f.DocType, f.Kind = "备忘录", "资料" }, ""},
		{"type with ASCII brackets", func(f *Form) { f.DocType = "命令(令)" }, ""},
		{"type of former rules", func(f *Form) { f.DocType = "会议纪要" }, ""},
		{"no title", func(f *Form) { f.Title = " " }, "title invalid_document "},
		{"long title", func(f *Form) { f.Title = strings.Repeat("长", 501) }, "title invalid_document 500"},
		{"number that is none", func(f *Form) { f.Number = "情况通报第12期" }, ""},
		{"numbers of all issuers", func(f *Form) { f.Number = "甲〔2026〕1号\n乙〔2026〕2号" }, "number invalid_document "},
		{"date", func(f *Form) { f.WrittenOn = "23.11.2026" }, "written_on invalid_document 2026-11-23"},
		{"printed before it was written", func(f *Form) { f.WrittenOn, f.PrintedOn = "2026-11-23", "2026年11月22日" }, "printed_on invalid_document "},
		{"due", func(f *Form) { f.DueAt = "tomorrow" }, "due_at invalid_document 2026-11-23"},
		{"copies in reverse", func(f *Form) { f.To[0].CopyFrom, f.To[0].CopyTo = 5, 4 }, "to[0].copies invalid_document 999999"},
		{"copies from nothing", func(f *Form) { f.To[0].CopyTo = 4 }, "to[0].copies invalid_document 999999"},
		{"endless copies", func(f *Form) { f.To[0].CopyFrom, f.To[0].CopyTo = 1, 1_000_000 }, "to[0].copies invalid_document 999999"},
		{"copies given twice", func(f *Form) {
			f.To[0].CopyFrom, f.To[0].CopyTo = 1, 10
			f.Cc = []Named{{Text: "甲县政府", CopyFrom: 20, CopyTo: 30}, {Text: "乙县人民政府", CopyFrom: 10, CopyTo: 12}}
		}, "cc[1].copies invalid_document to[0].copies"},
		{"copies inside others", func(f *Form) {
			f.To[0].CopyFrom, f.To[0].CopyTo = 1, 100
			f.Cc = []Named{{Text: "甲县政府", CopyFrom: 2, CopyTo: 3}, {Text: "乙县人民政府", CopyFrom: 50, CopyTo: 60}}
		}, "cc[1].copies invalid_document to[0].copies"},
		{"copies side by side", func(f *Form) {
			f.To[0].CopyFrom, f.To[0].CopyTo = 4, 4
			f.Cc = []Named{{Text: "甲县政府", CopyFrom: 1, CopyTo: 3}}
		}, ""},
		{"copies of a group", func(f *Form) { f.Cc = []Named{{Text: "各县区政府", CopyFrom: 1, CopyTo: 9}} }, "cc[0].copies invalid_document "},
		{"quota of a group", func(f *Form) { f.Cc = []Named{{Text: "各县区政府", Print: 3}} }, ""},
		{"quota below nothing", func(f *Form) { f.To[0].Print = -1 }, "to[0].print_quota invalid_document 9999"},
		{"endless quota", func(f *Form) { f.To[0].Print = 10_000 }, "to[0].print_quota invalid_document 9999"},
		{"joint issue", func(f *Form) { f.SignedBy = []string{"示范市人民政府", "甲县人民政府"} }, ""},
		{"an issuer twice", func(f *Form) { f.SignedBy = []string{"示范市人民政府", "甲", "示范市 人民政府"} }, "signed_by[2] invalid_document "},
		{"an issuer without a name", func(f *Form) { f.SignedBy = []string{"甲", ""} }, "signed_by[1] invalid_document "},
		{"too many issuers", func(f *Form) { f.SignedBy = make([]string, 51) }, "signed_by invalid_document 50"},
		{"control character", func(f *Form) { f.Remark = "a\x00" }, "remark invalid_document "},
		{"broken decoding", func(f *Form) { f.Contact = "王\uFFFD" }, "contact invalid_document UTF-8"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &Form{Title: "关于开展试点的通知", Label: "内部", To: []Named{{Text: "市财政局"}}}
			tt.change(f)
			_, err := f.Resolve(c.Directory, c.code["示范市人民政府"], formTime)
			if tt.want == "" && err != nil {
				t.Fatal(err)
			}
			if tt.want != "" {
				wantFault(t, err, tt.want)
			}
			if err != nil && strings.Contains(fmt.Sprintf("%v %+v", err, Known(err).Err), "试点") {
				t.Error("the error shows the title")
			}
		})
	}
}

// TestFormCollects: all faults at once, but of a state secret nothing else.
func TestFormCollects(t *testing.T) {
	c := newCounty(t)
	f := &Form{
		Label: "geheim", Urgency: "soon", Title: "", Number: "第12期", DocType: "备忘录", DueAt: "2026-11-01",
		To: []Named{{Text: "甲县政府"}, {Text: "谁"}, {Text: "县政府"}}, WrittenOn: "x",
	}
	_, err := f.Resolve(c.Directory, c.code["示范市人民政府"], formTime)
	var all Faults
	if !errors.As(err, &all) {
		t.Fatal(err)
	}
	var fields []string
	for _, one := range all {
		fields = append(fields, one.Field)
	}
	if got := strings.Join(fields, " "); got != "label urgency to[1] to[2] doc_type written_on title" {
		t.Errorf("fields %s", got)
	}
	if e := Known(err); e.Code != CodeInvalidDocument || !strings.HasPrefix(e.Detail, "label: ") || !strings.Contains(e.Detail, "and 2 more") {
		t.Errorf("the error is %v", e)
	}
	f.Label = "绝密"
	if _, err = f.Resolve(c.Directory, c.code["示范市人民政府"], formTime); CodeOf(err) != CodeStateSecret || !errors.As(err, &all) || len(all) != 1 {
		t.Errorf("a state secret gives %v, %+v", err, all)
	}
}

// TestFormUnderstands: words become what the wire has, and what is strange is said.
func TestFormUnderstands(t *testing.T) {
	c := newCounty(t)
	f := &Form{
		Title: "标题", Label: "（内部）", LabelTerm: "1年", Kind: "公文", Urgency: "特提", DocType: "会议纪要", Number: "遵府办发[2026]第012号",
		WrittenOn: "2026年11月2日", PrintedOn: "2026/11/3", DueAt: "2026-11-22", Sealed: true, PrintedBy: "办公室",
		To: []Named{{Text: "市财政局", CopyFrom: 1, CopyTo: 3, Print: 5}}, SignedBy: []string{"示范市人民政府", "甲县人民政府"},
	}
	sender := c.code["示范市人民政府"]
	r, err := f.Resolve(c.Directory, sender, formTime)
	if err != nil {
		t.Fatal(err)
	}
	d := r.Document
	if d.Label != Internal || d.Kind != Official || d.Urgency != VeryUrgent || d.UrgencyMark != "特提" || d.DocType != "会议纪要" ||
		d.Number.Prefix != "遵府办发" || d.Number.Display != "遵府办发〔2026〕12号" || d.WrittenOn != "2026-11-02" || d.PrintedOn != "2026-11-03" ||
		!d.Sealed || d.PrintedBy != "办公室" || d.Sender != sender || d.LabelTerm != "1年" {
		t.Errorf("understood %+v", d)
	}
	if to := d.To[0]; to.CopyFrom != 1 || to.CopyTo != 3 || to.Print != 5 || *to.Span() != (Span{1, 3}) {
		t.Errorf("recipient %+v", to)
	}
	for _, want := range []string{"doc_type invalid_document 2012", "due_at invalid_document "} {
		if !hasFault(r.Warnings, want) {
			t.Errorf("warnings %+v, want %q", r.Warnings, want)
		}
	}
	raw, err := d.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if back, err := ParseDocument(raw); err != nil || back.UrgencyMark != "特提" {
		t.Errorf("it is read back as %+v, %v", back, err)
	}
	// A repeat is told by what was written, whatever it means by then.
	one, err := f.Asked(sender)
	if err != nil {
		t.Fatal(err)
	}
	f.To[0].Text = "示范市财政局"
	if other, err := f.Asked(sender); err != nil || string(other) == string(one) {
		t.Errorf("two ways to write it: %v", err)
	}
}

// TestAskedIsTheDocument: what is written in codes and words of the wire is asked for
// in the encoding of the document that it makes.
func TestAskedIsTheDocument(t *testing.T) {
	c := newCounty(t)
	sender := c.code["示范市人民政府"]
	f := &Form{
		Title: "标题", Label: "internal", Urgency: "urgent", Number: "遵府办发〔2026〕12号", WrittenOn: "2026-11-22", SignedBy: []string{"甲"},
		To: []Named{{Text: c.code["甲县人民政府"], Print: 3}}, Cc: []Named{{Text: c.code["示范市财政局"]}},
	}
	r, err := f.Resolve(c.Directory, sender, formTime)
	if err != nil {
		t.Fatal(err)
	}
	r.Document.Number = &Number{Display: r.Document.Number.Display}
	want, err := r.Document.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.Asked(sender); err != nil || string(got) != string(want) {
		t.Errorf("asked for %s, %v, the document is %s", got, err, want)
	}
}
