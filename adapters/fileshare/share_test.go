package fileshare

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// TestTheSameAgain: contents, recipients and number make a document; it is sent once,
// from wherever it comes, and the others are told of it.
func TestTheSameAgain(t *testing.T) {
	o := newOffice(t)
	o.c.ReadOnly, o.c.Parallel = true, 8
	o.write("甲/清单.csv", "标题,文号,主送,正文,附件\n一,1号,示范单位乙；示范单位丙,a.ofd,x.xls；y.xls\n")
	o.write("乙/清单.csv", "标题,文号,主送,正文,附件\n一（副本）,1号,丙单位、"+codeYi+",另存.ofd,y2.xls；x2.xls\n")
	o.write("丙/清单.csv", "标题,文号,主送,正文,附件\n另一文号,2号,示范单位乙；示范单位丙,a.ofd,x.xls；y.xls\n")
	o.write("丁/清单.csv", "标题,文号,主送,正文,附件\n另一单位,1号,示范单位乙,a.ofd,x.xls；y.xls\n")
	o.write("戊/清单.csv", "标题,文号,主送,抄送,正文,附件\n抄送,1号,示范单位乙,示范单位丙,a.ofd,x.xls；y.xls\n")
	for _, dir := range []string{"甲", "丙", "丁", "戊"} {
		for name, content := range map[string]string{"a.ofd": "正文", "x.xls": "一", "y.xls": "二"} {
			o.write(dir+"/"+name, content)
		}
	}
	for name, content := range map[string]string{"另存.ofd": "正文", "x2.xls": "一", "y2.xls": "二"} {
		o.write("乙/"+name, content)
	}
	if s := o.run(); s.Submitted != 4 || s.Duplicates != 1 {
		t.Fatalf("%+v", s)
	}
	twin := o.entry(Duplicate)
	if twin.Document == "" || twin.Cause == "" {
		t.Errorf("%+v", twin)
	}
	for n := range 3 {
		if n == 2 {
			o.open() // as another process
		}
		if s := o.run(); s.Submitted != 0 || s.Done+s.Duplicates != 5 || o.desk.calls != 4 {
			t.Errorf("run %d: %+v, %d calls", n, s, o.desk.calls)
		}
	}
	// A row that was corrected is another document when recipients or number differ.
	o.write("丁/清单.csv", "标题,文号,主送,正文,附件\n另一单位,1号,示范单位丁,a.ofd,x.xls；y.xls\n")
	if s := o.run(); s.Submitted != 1 || s.Done+s.Duplicates != 4 {
		t.Errorf("%+v", s)
	}
}

// TestAShareThatIsNotWritten stays as it is, whatever is in it.
func TestAShareThatIsNotWritten(t *testing.T) {
	o := oldShare(t)
	o.c.ReadOnly = true
	before := o.tree()
	for range 2 {
		o.run()
	}
	if after := o.tree(); !slices.Equal(before, after) {
		t.Errorf("%q\n%q", before, after)
	}
	notices, err := os.ReadDir(filepath.Join(o.state, "quarantine"))
	if err != nil || len(notices) != 6 {
		t.Errorf("%v %v", notices, err)
	}
	if _, err := Open(Config{Share: o.dir, Sentinel: sentinel, ReadOnly: true}, o.store, o.desk); exchange.CodeOf(err) != exchange.CodeBadRequest {
		t.Errorf("without a directory for notices: %v", err)
	}
}

// TestWhenAFileIsWhole: by our clock, whatever the share's says; by size alone; by a
// marker; by its being there.
func TestWhenAFileIsWhole(t *testing.T) {
	list := "标题,主送,正文\n一,示范单位乙,a.ofd\n"
	begin := func(stable Stability, mark string) *office {
		o := newOffice(t)
		o.c.Stable, o.c.Mark = stable, mark
		o.write("清单.csv", list)
		o.write("a.ofd", "x")
		o.open()
		return o
	}
	touch := func(o *office, at time.Time) { o.must(os.Chtimes(filepath.Join(o.dir, "a.ofd"), at, at)) }
	pass := func(o *office) Summary {
		o.must(o.imp.Look(t.Context()))
		s, err := o.imp.Pass(t.Context())
		o.must(err)
		return s
	}
	o := begin(Quiet, "")
	touch(o, time.Now().Add(-1000*time.Hour)) // an old time proves nothing
	if s := pass(o); s.Submitted != 0 || s.Waiting != 1 {
		t.Errorf("at once: %+v", s)
	}
	o.later(o.imp.c.Quiet)
	touch(o, time.Now().Add(1000*time.Hour)) // nor does one to come
	if s := pass(o); s.Submitted != 0 || s.Waiting != 1 {
		t.Errorf("it was touched: %+v", s)
	}
	o.later(o.imp.c.Quiet)
	if s := pass(o); s.Submitted != 1 {
		t.Errorf("standing still: %+v", s)
	}

	o = begin(Size, "")
	pass(o)
	o.later(o.imp.c.Quiet)
	touch(o, time.Now())
	if s := pass(o); s.Submitted != 1 {
		t.Errorf("by size: %+v", s)
	}

	o = begin(Marker, "*.ok")
	if s := o.run(); s.Submitted != 0 || s.Waiting != 1 {
		t.Errorf("without its marker: %+v", s)
	}
	o.write("清单.csv.ok", "")
	if s := o.run(); s.Submitted != 1 || s.Unmatched != 0 {
		t.Errorf("with its marker: %+v", s)
	}
	if left := o.tree(); !slices.Equal(left, []string{".yizhan/archive/2026-11-27/a.ofd", ".yizhan/archive/2026-11-27/清单.csv", ".yizhan/archive/2026-11-27/清单.csv.ok", sentinel}) {
		t.Errorf("%q", left)
	}

	o = begin(Marker, "完成")
	if s := o.run(); s.Submitted != 0 {
		t.Errorf("without the folder's marker: %+v", s)
	}
	o.write("完成", "")
	if s := o.run(); s.Submitted != 1 || s.Unmatched != 0 {
		t.Errorf("with the folder's marker: %+v", s)
	}

	if s := pass(begin(Rename, "")); s.Submitted != 1 {
		t.Errorf("renamed in: %+v", s)
	}
}

// TestAsAWhole: one mistake stops its list, or all of a run, and nothing moves.
func TestAsAWhole(t *testing.T) {
	for _, one := range []struct {
		atomic    Atomicity
		submitted int
		held      int
	}{{ByRow, 3, 0}, {ByFile, 2, 1}, {ByBatch, 0, 3}} {
		o := newOffice(t)
		o.c.Atomic = one.atomic
		o.write("甲/清单.csv", "标题,主送,正文\n一,示范单位乙,a.ofd\n二,示范单位戊,b.ofd\n")
		o.write("甲/a.ofd", "1")
		o.write("甲/b.ofd", "2")
		o.write("乙/清单.csv", "标题,主送,正文\n三,示范单位乙,c.ofd\n四,示范单位乙,d.ofd\n")
		o.write("乙/c.ofd", "3")
		o.write("乙/d.ofd", "4")
		s := o.run()
		if s.Submitted != one.submitted || s.Held != one.held || s.Quarantined != 1 {
			t.Fatalf("%s: %+v", one.atomic, s)
		}
		if one.held > 0 && !strings.Contains(fmt.Sprint(o.entries), "甲/清单.csv 第 3 行") {
			t.Errorf("%s: what is wrong is not named", one.atomic)
		}
		if _, err := os.Stat(filepath.Join(o.dir, "甲/b.ofd")); (err == nil) != (one.atomic != ByRow) {
			t.Errorf("%s: %v", one.atomic, err)
		}
		o.must(os.RemoveAll(filepath.Join(o.dir, ".yizhan/quarantine")))
		o.write("甲/b.ofd", "2")
		o.write("甲/清单.csv", "标题,主送,正文\n一,示范单位乙,a.ofd\n二,示范单位丁,b.ofd\n")
		o.run()
		if got := o.desk.titles(); len(got) != 4 || len(o.desk.order) != 4 {
			t.Errorf("%s: %q", one.atomic, got)
		}
		if st, err := o.imp.Status(t.Context(), func(Entry, Summary) {}); err != nil || st.Quarantined != 0 {
			t.Errorf("%s: what was mended is still shown: %+v %v", one.atomic, st, err)
		}
	}
}

// TestRules make documents of names: bodies with their attachments, recipients of
// folders, and what a pattern says.
func TestRules(t *testing.T) {
	o := newOffice(t)
	o.c.Rules, o.c.Defaults.To = Rules{On: true, Folder: true}, []string{codeDing}
	for _, name := range []string{
		"示范单位乙/遵府发〔2026〕12号 关于防汛的通知.ofd", "示范单位乙/遵府发〔2026〕12号 关于防汛的通知-附件1.xls", "示范单位乙/遵府发〔2026〕12号 关于防汛的通知（附件2）.doc",
		"示范单位乙/关于放假的通知.doc", "示范单位乙/附件1：名单.xls",
		"示范单位丙/一/请示.doc", "示范单位丙/一/附件一 预算.xls", "示范单位丙/一/附件.pdf",
		"公告.pdf", "没有这个单位/函.doc",
	} {
		o.write(gbk(t, name), name)
	}
	s := o.run()
	if s.Submitted != 4 || s.Quarantined != 1 || s.Unmatched != 1 {
		t.Fatalf("%+v %+v", s, o.entries)
	}
	var got []string
	for _, a := range o.desk.accepted {
		got = append(got, fmt.Sprint(a.number, "|", a.title, "|", strings.Join(a.to, ","), "|", strings.Join(a.names, ",")))
	}
	slices.Sort(got)
	want := []string{
		"|公告|" + codeDing + "|body 公告.pdf",
		"|关于放假的通知|" + codeYi + "|body 关于放假的通知.doc",
		"|请示|" + codeBing + "|body 请示.doc,attachment 附件.pdf,attachment 附件一 预算.xls",
		"遵府发〔2026〕12号|关于防汛的通知|" + codeYi + "|body 遵府发〔2026〕12号 关于防汛的通知.ofd,attachment 遵府发〔2026〕12号 关于防汛的通知-附件1.xls,attachment 遵府发〔2026〕12号 关于防汛的通知（附件2）.doc",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if e := o.entry(Unmatched); e.Files[0] != "示范单位乙/附件1：名单.xls" || e.Remedy == "" {
		t.Errorf("%+v", e)
	}

	o = newOffice(t)
	o.c.Rules = Rules{On: true, Pattern: `^(?P<to>[^_]+)_(?P<urgency>加急|特急)_(?P<title>.+)$`}
	o.write("示范单位乙、示范单位丙_特急_关于抢险的通知.ofd", "x")
	if s := o.run(); s.Submitted != 1 {
		t.Fatalf("%+v %+v", s, o.entries)
	}
	for _, a := range o.desk.accepted {
		if a.title != "关于抢险的通知" || len(a.to) != 2 {
			t.Errorf("%+v", a)
		}
	}
	o.c.Rules.Pattern = "("
	if _, err := Open(o.c, o.store, o.desk); exchange.CodeOf(err) != exchange.CodeBadRequest {
		t.Error(err)
	}
}

// TestSeveralLists of a folder: no file is in two of them, and what is attached is no
// list.
func TestSeveralLists(t *testing.T) {
	o := newOffice(t)
	o.write("公文清单.csv", "标题,主送,正文,附件\n一,示范单位乙,a.ofd,附件1：人员公文清单.csv\n二,示范单位乙,b.ofd,\n")
	o.write("发文清单.csv", "标题,主送,正文\n二又,示范单位丙,b.ofd\n三,示范单位丙,c.ofd\n")
	for _, name := range []string{"a.ofd", "b.ofd", "c.ofd", "附件1：人员公文清单.csv"} {
		o.write(name, name)
	}
	if s := o.run(); s.Submitted != 2 || s.Quarantined != 2 || s.Unmatched != 0 {
		t.Fatalf("%+v %+v", s, o.entries)
	}
	for _, e := range o.entries {
		if e.Outcome == Quarantined && e.Code != CodeTwice {
			t.Errorf("%+v", e)
		}
	}
}

// TestListsOfAnyName are found by their headings, if that is wished for.
func TestListsOfAnyName(t *testing.T) {
	o := newOffice(t)
	o.c.Detect, o.c.Rules, o.c.Defaults.To = true, Rules{On: true}, []string{codeYi}
	o.write("甲/list.csv", "标题,正文\n一,a.csv\n")
	o.write("甲/a.csv", "姓名,电话\n")
	o.write("乙/关于名单的通知.csv", "姓名,电话\n")
	o.write("乙/关于名单的通知-附件1.csv", "标题,正文\n二,b.ofd\n")
	if s := o.run(); s.Submitted != 2 || s.Quarantined+s.Unmatched != 0 || !slices.Equal(o.desk.titles(), []string{"一", "关于名单的通知"}) {
		t.Errorf("%+v %q", s, o.desk.titles())
	}
}

// TestAttachmentNames tells attachments from bodies.
func TestAttachmentNames(t *testing.T) {
	for stem, want := range map[string]string{
		"附件1": "", "附件 2 名单": "", "附件一：表": "", "附件": "", "（附件3）表": "",
		"通知-附件1": "通知", "通知（附件2）": "通知", "通知_附件 3 表": "通知", "关于2026年的通知 附件": "关于2026年的通知",
	} {
		if of, is := attachmentOf(stem); !is || of != want {
			t.Errorf("%s: %q, %t", stem, of, is)
		}
	}
	for _, stem := range []string{"通知", "关于报送附件材料的通知", "附件材料报送办法", "通知2"} {
		if of, is := attachmentOf(stem); is {
			t.Errorf("%s is taken for an attachment of %q", stem, of)
		}
	}
}

// TestWhatIsLeftOut: what systems leave on shares, what the profile says, and what lies
// deeper than it may.
func TestWhatIsLeftOut(t *testing.T) {
	o := newOffice(t)
	o.c.Rules, o.c.Defaults.To, o.c.Depth = Rules{On: true}, []string{codeYi}, 1
	o.c.Include, o.c.Exclude = []string{"*.OFD", "*.doc"}, []string{"草稿*"}
	for _, name := range []string{"Thumbs.db", "~$好.doc", ".DS_Store", "好.doc.tmp", "好.part", "desktop.ini", "草稿.doc", "看.pdf", "$RECYCLE.BIN/x.doc", "草稿夹/x.doc", "夹/深/深.doc"} {
		o.write(name, name)
	}
	o.write("好.ofd", "1")
	o.write("夹/好.DOC", "2")
	if s := o.run(); s.Submitted != 2 || s.Documents != 2 || s.Unmatched != 0 {
		t.Errorf("%+v %+v", s, o.entries)
	}
}

// TestAScan says what a run would do, and leaves share and ledger as they are.
func TestAScan(t *testing.T) {
	o := oldShare(t)
	o.desk.before = nil
	o.open()
	before := o.tree()
	s, err := o.imp.Scan(t.Context())
	o.must(err)
	if s.Ready != 5 || s.Quarantined != 2 || s.Unmatched != 1 || o.desk.calls != 0 || !slices.Equal(o.tree(), before) {
		t.Fatalf("%+v", s)
	}
	if st, err := o.imp.Status(t.Context(), func(Entry, Summary) {}); err != nil || st.Documents != 0 {
		t.Errorf("%+v %v", st, err)
	}
}

// TestTheReport is read by spreadsheet programs, and nothing in it is a formula.
func TestTheReport(t *testing.T) {
	o := newOffice(t)
	o.c.Rules, o.c.Defaults.To = Rules{On: true}, []string{codeYi}
	o.write("=HYPERLINK(1).ofd", "x")
	o.write("好,\"一\".ofd", "y")
	o.write("+空.ofd", "")
	o.run()
	var b bytes.Buffer
	o.must(o.imp.ReportCSV(t.Context(), &b))
	text, marked := strings.CutPrefix(b.String(), "\ufeff")
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if !marked || err != nil || len(rows) != 4 {
		t.Fatalf("%q %v", rows, err)
	}
	for _, r := range rows[1:] {
		for _, c := range r {
			if c != "" && strings.ContainsAny(c[:1], "=+-@") {
				t.Errorf("%q", c)
			}
		}
	}
	b.Reset()
	if o.must(o.imp.ReportJSON(t.Context(), &b)); strings.Count(b.String(), `"outcome"`) != 3 || strings.Contains(b.String(), "title") {
		t.Errorf("%s", b.String())
	}
}

// TestLongAgo: what was tried and never answered is not sent again by itself once the
// node may have forgotten its key.
func TestLongAgo(t *testing.T) {
	o := newOffice(t)
	o.write("清单.csv", "标题,主送,正文\n一,示范单位乙,a.ofd\n")
	o.write("a.ofd", "x")
	o.desk.after = func() error { return errCrash }
	if _, err := o.open().Run(t.Context()); err == nil {
		t.Fatal("the answer came")
	}
	o.desk.after = nil
	o.later(keyLife + time.Hour)
	o.open()
	for range 2 {
		if s := o.run(); s.Submitted != 0 || s.Undecided != 1 || o.desk.calls != 1 || o.entry(Undecided).Remedy == "" {
			t.Fatalf("%+v", s)
		}
	}
	if n, err := o.imp.Retry(t.Context(), nil); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if s := o.run(); s.Submitted != 1 || len(o.desk.order) != 1 {
		t.Errorf("%+v", s)
	}
}

// TestAListIsMended where it is: what was done stays done, and what was put aside comes
// back.
func TestAListIsMended(t *testing.T) {
	o := newOffice(t)
	o.write(gbk(t, "清单.csv"), "标题,主送,正文,附件\n一,示范单位乙,a.ofd,\n二,示范单位戊,b.ofd,c.xls\n")
	o.write("a.ofd", "1")
	o.write("b.ofd", "2")
	o.write("c.xls", "3")
	if s := o.run(); s.Submitted != 1 || s.Quarantined != 1 {
		t.Fatalf("%+v", s)
	}
	if s := o.run(); s.Done != 1 || s.Quarantined != 1 || s.Documents != 2 {
		t.Fatalf("%+v", s)
	}
	if n, err := o.imp.Retry(t.Context(), []string{"清单.csv"}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	o.write(gbk(t, "清单.csv"), gbk(t, "标题,主送,正文,附件\n一,示范单位乙,a.ofd,\n二,示范单位丁,b.ofd,c.xls\n"))
	if s := o.run(); s.Submitted != 1 || s.Done != 1 {
		t.Fatalf("%+v", s)
	}
	left := o.tree()
	if len(left) != 5 || strings.Contains(strings.Join(left, " "), "quarantine") {
		t.Errorf("%q", left)
	}
}
