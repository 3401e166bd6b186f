package fileshare

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/adapters/fileshare/manifest"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// refused runs an import of one list and gives the code for each row that was put
// aside.
func (o *office) refused() map[int]string {
	o.Helper()
	o.run()
	out := map[int]string{}
	for _, e := range o.entries {
		if e.Outcome == Quarantined {
			out[e.Row] = e.Code
		}
	}
	return out
}

// TestRowsThatAreWrong are put aside one by one, with row, column, cause and remedy;
// the others go.
func TestRowsThatAreWrong(t *testing.T) {
	o := newOffice(t)
	outside := filepath.Join(t.TempDir(), "外.ofd")
	o.must(os.WriteFile(outside, []byte("x"), 0o600))
	rows := []struct{ row, code string }{
		{"好,,示范单位乙,内部,好.ofd,,", ""},
		{"缺,,示范单位乙,内部,缺.ofd,,", CodeMissing},
		{"缺附件,,示范单位乙,内部,二.ofd,没有.xls,", CodeMissing},
		{"同一文件,,示范单位乙,内部,同.ofd,,", CodeTwice},
		{"同一文件又,,示范单位丁,内部,三.ofd,同.ofd,", CodeTwice},
		{"自己作附件,,示范单位乙,内部,四.ofd,四.ofd,", CodeTwice},
		{"链接,,示范单位乙,内部,链接.ofd,,", CodeIrregular},
		{"链接文件夹,,示范单位乙,内部,外链/外.ofd,,", CodeIrregular},
		{"文件夹,,示范单位乙,内部,夹,,", CodeIrregular},
		{"管道,,示范单位乙,内部,管道.ofd,,", CodeIrregular},
		{"上级,,示范单位乙,内部,../外.ofd,,", CodePath},
		{"上级二,,示范单位乙,内部,夹/../../外.ofd,,", CodePath},
		{"绝对,,示范单位乙,内部,/etc/passwd,,", CodePath},
		{"盘符,,示范单位乙,内部,C:\\外.ofd,,", CodePath},
		{"两种编码,,示范单位乙,内部,双.ofd,,", CodePath},
		{"标志,,示范单位乙,内部,共享标志.txt,,", CodePath},
		{"归档,,示范单位乙,内部,.yizhan/archive/旧.ofd,,", CodePath},
		{"空,,示范单位乙,内部,空.ofd,,", CodeEmpty},
		{"没有正文,,示范单位乙,内部,,,", CodeNoBody},
		{"密,,示范单位乙,秘密,五.ofd,,", exchange.CodeStateSecret},
		{"密级带星,,示范单位乙,机密★10年,七.ofd,,", exchange.CodeStateSecret},
		{"同一正文,,示范单位乙,内部,十三.ofd,,", CodeTwice},
		{"同一正文又,,示范单位丁,内部,十三.ofd,,", CodeTwice},
		{"密级错,,示范单位乙,内部资料,六.ofd,,", CodeField},
		{"日期错,,示范单位乙,内部,十四.ofd,,十一月", CodeField},
		{"没有单位,,示范单位戊,内部,八.ofd,,", CodeRecipient},
		{"重名,,教育局,内部,九.ofd,,", CodeAmbiguous},
		{"同一单位,,示范单位乙；乙单位,内部,十.ofd,,", exchange.CodeInvalidDocument},
		{"没有主送,,,内部,十一.ofd,,", exchange.CodeInvalidDocument},
		{strings.Repeat("长", 501) + ",,示范单位乙,内部,十二.ofd,,", exchange.CodeInvalidDocument},
		{"多一格,,示范单位乙,内部,十五.ofd,,,多", manifest.CodeCell},
	}
	list := "标题,文号,主送,密级,正文,附件,成文日期\n"
	for _, r := range rows {
		list += r.row + "\n"
	}
	o.write("清单.csv", list)
	for _, name := range []string{"好", "二", "同", "三", "四", "双", "五", "六", "七", "八", "九", "十", "十一", "十二", "十三", "十四", "十五"} {
		o.write(name+".ofd", name)
	}
	o.write(gbk(t, "双.ofd"), "双")
	o.write("空.ofd", "")
	o.write(".yizhan/archive/旧.ofd", "x")
	o.must(os.Mkdir(filepath.Join(o.dir, "夹"), 0o700))
	o.must(os.Symlink(outside, filepath.Join(o.dir, "链接.ofd")))
	o.must(os.Symlink(filepath.Dir(outside), filepath.Join(o.dir, "外链")))
	o.must(syscall.Mkfifo(filepath.Join(o.dir, "管道.ofd"), 0o600))
	got := o.refused()
	for n, r := range rows {
		if got[n+2] != r.code {
			t.Errorf("%.30s: %q, want %q", r.row, got[n+2], r.code)
		}
	}
	if titles := o.desk.titles(); !slices.Equal(titles, []string{"好"}) {
		t.Errorf("%q", titles)
	}
	for _, e := range o.entries {
		if e.Code == CodeAmbiguous && (e.Column != "主送" || !strings.Contains(e.Detail, codeYi) || !strings.Contains(e.Detail, codeBing)) {
			t.Errorf("%+v", e)
		}
		if e.Outcome == Quarantined && (e.Cause == "" || e.Remedy == "" || e.CauseEN == "" || e.RemedyEN == "") {
			t.Errorf("%s has no words", e.Code)
		}
	}
	for _, stays := range []string{outside, filepath.Join(o.dir, "夹"), filepath.Join(o.dir, "链接.ofd")} {
		if _, err := os.Lstat(stays); err != nil {
			t.Error(err)
		}
	}
}

// TestANotice has what a clerk needs, beside the file.
func TestANotice(t *testing.T) {
	o := newOffice(t)
	o.write(gbk(t, "清单.csv"), gbk(t, "标题,主送,密级,正文\n密,示范单位乙,机密,密.ofd\n"))
	o.write(gbk(t, "密.ofd"), "x")
	o.run()
	at := filepath.Join(o.dir, ".yizhan/quarantine", gbk(t, "密.ofd"))
	text, err := os.ReadFile(at + noticeText)
	o.must(err)
	for _, want := range []string{"\ufeff", "第 2 行", "密级", "清单.csv", "密.ofd", "国家秘密", "处理"} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	b, err := os.ReadFile(at + noticeJSON)
	o.must(err)
	var e Entry
	if o.must(json.Unmarshal(b, &e)); e.Code != exchange.CodeStateSecret || e.Row != 2 || e.Column != "密级" || e.Remedy == "" {
		t.Errorf("%+v", e)
	}
	if _, err := os.Stat(at); err != nil {
		t.Error(err)
	}
}

// TestListsThatAreWrong stop their folder, and nothing else; without its list its files
// are not taken for documents.
func TestListsThatAreWrong(t *testing.T) {
	o := newOffice(t)
	o.c.Rules, o.c.Defaults.To = Rules{On: true}, []string{codeYi}
	o.write("甲/清单.csv", "标题,正文\n\"a,b\n")
	o.write("甲/附表.ofd", "x")
	o.write("乙/清单.xml", `<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a><b><正文>&x;</正文></b></a>`)
	o.write("乙/附表.ofd", "y")
	o.write("丙/清单.xlsx", "no zip")
	o.write("丁/关于好的通知.ofd", "z")
	o.write("戊/公文清单.XLS", "an old workbook")
	o.write("戊/附表.ofd", "v")
	s := o.run()
	if s.Quarantined != 4 || s.Submitted != 1 || !slices.Equal(o.desk.titles(), []string{"关于好的通知"}) {
		t.Fatalf("%+v %q", s, o.desk.titles())
	}
	o.write("甲/清单.csv", "标题,主送,正文\n甲,示范单位乙,附表.ofd\n")
	if s := o.run(); s.Submitted != 1 || s.Quarantined != 3 {
		t.Errorf("%+v", s)
	}
	o.write("甲/剩下的.ofd", "w") // after its list has gone
	if s := o.run(); s.Submitted != 0 || s.Unmatched != 1 {
		t.Errorf("%+v", s)
	}
	if st, err := o.imp.Status(t.Context(), func(Entry, Summary) {}); err != nil || st.Quarantined != 3 {
		t.Errorf("%+v %v", st, err)
	}
}

// TestNamesThatAreNoText are no documents, and nothing is done with what they may say.
func TestNamesThatAreNoText(t *testing.T) {
	o := newOffice(t)
	o.c.Rules, o.c.Defaults.To = Rules{On: true}, []string{codeYi}
	for _, name := range []string{"\xff\xfe.ofd", "a\nb.ofd", "\xb9\xab\xce\xff.ofd", "好\u202efdo.exe", "\ufffd.ofd", "好.ofd"} {
		o.write(name, name)
	}
	if s := o.run(); s.Quarantined != 5 || s.Submitted != 1 {
		t.Fatalf("%+v %+v", s, o.entries)
	}
	for _, e := range o.entries {
		if e.Outcome == Quarantined && (e.Code != CodeName || strings.ContainsAny(e.Files[0], "\n\u202e")) {
			t.Errorf("%+v", e)
		}
	}
}

// TestAFileThatGrows is waited for: while it grows, and when it changes between being
// hashed and being sent nothing of it counts.
func TestAFileThatGrows(t *testing.T) {
	o := newOffice(t)
	o.write("清单.csv", "标题,主送,正文\n大,示范单位乙,大.ofd\n小,示范单位乙,小.ofd\n")
	o.write("大.ofd", strings.Repeat("x", 2*smallItem))
	o.write("小.ofd", "y")
	grow := func() {
		f, err := os.OpenFile(filepath.Join(o.dir, "大.ofd"), os.O_APPEND|os.O_WRONLY, 0)
		o.must(err)
		_, err = f.WriteString("z")
		o.must(errors.Join(err, f.Close()))
	}
	pause := o.c.Sleep
	o.c.Sleep = func(ctx context.Context, d time.Duration) error { grow(); return pause(ctx, d) }
	if s := o.run(); s.Submitted != 1 || s.Waiting != 1 || o.entry(Waiting).Code != CodeUnstable {
		t.Fatalf("while it grows: %+v", s)
	}
	o.c.Sleep = pause
	o.open().crash = func(step string) error {
		if step == "claimed" {
			grow()
		}
		return nil
	}
	if s := o.run(); s.Submitted != 0 || s.Waiting != 1 || o.entry(Waiting).Code != CodeChanged {
		t.Fatalf("before it is sent: %+v", s)
	}
	o.open().crash = func(step string) error { // as long as before, and something else
		if step == "claimed" {
			o.write("大.ofd", strings.Repeat("w", 2*smallItem+2))
		}
		return nil
	}
	if s := o.run(); s.Submitted != 0 || s.Waiting != 1 || o.entry(Waiting).Code != CodeChanged {
		t.Fatalf("another one of its length: %+v", s)
	}
	o.open()
	if s := o.run(); s.Submitted != 1 || s.Waiting != 0 || len(o.desk.accepted) != 2 {
		t.Fatalf("standing still: %+v", s)
	}
	for _, a := range o.desk.accepted {
		if n := len(a.contents[0]); a.title == "大" && n != 2*smallItem+2 {
			t.Errorf("%d bytes", n)
		}
	}
}

// TestAShareThatVanishes is an alarm: nothing is concluded from what is missing.
func TestAShareThatVanishes(t *testing.T) {
	o := newOffice(t)
	o.c.Parallel = 1
	list := "标题,主送,正文\n"
	for n := range 50 {
		list += fmt.Sprintf("第%d,示范单位乙,%d.ofd\n", n, n)
		o.write(fmt.Sprintf("%d.ofd", n), fmt.Sprint(n))
	}
	o.write("清单.csv", list)
	hidden := folder(t)
	carry := func(from, to string) {
		entries, err := os.ReadDir(from)
		o.must(err)
		for _, e := range entries {
			o.must(os.Rename(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())))
		}
	}
	n := 0
	o.desk.before = func(string, *exchange.Document) error {
		if n++; n == 10 { // the mount goes, and an empty folder is left
			carry(o.dir, hidden)
		}
		return nil
	}
	o.open()
	if s, err := o.imp.Run(t.Context()); !errors.Is(err, ErrShareGone) || s.Quarantined > 0 {
		t.Fatalf("%+v, %v", s, err)
	}
	for range 2 {
		if _, err := o.imp.Run(t.Context()); !errors.Is(err, ErrShareGone) {
			t.Fatalf("an empty folder in its place: %v", err)
		}
	}
	o.must(os.RemoveAll(o.dir))
	if _, err := o.imp.Run(t.Context()); !errors.Is(err, ErrShareGone) {
		t.Fatalf("nothing in its place: %v", err)
	}
	o.must(os.Mkdir(o.dir, 0o700))
	carry(hidden, o.dir)
	o.run()
	if s := o.run(); s.Documents != 0 || len(o.desk.accepted) != 50 {
		t.Errorf("%+v, %d", s, len(o.desk.accepted))
	}
	if _, err := Open(Config{Share: o.dir}, o.store, o.desk); exchange.CodeOf(err) != exchange.CodeBadRequest {
		t.Errorf("without a sentinel: %v", err)
	}
}

// TestANodeThatIsAway costs time and no document: it is asked again after the time it
// names, and a run gives up when that lasts.
func TestANodeThatIsAway(t *testing.T) {
	o := newOffice(t)
	o.c.Parallel = 4
	list := "标题,主送,正文\n"
	for n := range 20 {
		list += fmt.Sprintf("第%d,示范单位乙,%d.ofd\n", n, n)
		o.write(fmt.Sprintf("%d.ofd", n), fmt.Sprint(n))
	}
	o.write("清单.csv", list)
	away, refusals := 0, 0
	var busy error = &Busy{After: 90 * time.Second, Err: exchange.Fail(exchange.CodeNoSpace, "")}
	o.desk.before = func(string, *exchange.Document) error {
		if away > 0 {
			away--
			refusals++
			return busy
		}
		return nil
	}
	away = 3
	began := o.now()
	if s := o.run(); s.Submitted != 20 || refusals != 3 || o.now().Sub(began) < 90*time.Second {
		t.Fatalf("%+v after %s", s, o.now().Sub(began))
	}
	for n := range 20 {
		o.write(fmt.Sprintf("%d.ofd", n), fmt.Sprint("again", n))
	}
	o.write("清单.csv", list)
	away, refusals = 1<<30, 0
	s, err := o.imp.Run(t.Context())
	var is *Busy
	if !errors.As(err, &is) || s.Submitted != 0 || s.Quarantined != 0 || s.Waiting == 0 {
		t.Fatalf("%+v, %v", s, err)
	}
	if refusals > 40 {
		t.Errorf("it was asked %d times in %s", refusals, o.c.Patience)
	}
	away = 0
	if s := o.run(); s.Submitted != 20 || len(o.desk.accepted) != 40 {
		t.Errorf("%+v", s)
	}
}

// TestWhatANodeSays: a document that it refuses is put aside under its reason and not
// offered again as it is; a key that it refuses ends the run.
func TestWhatANodeSays(t *testing.T) {
	o := newOffice(t)
	o.c.ReadOnly = true
	o.write("清单.csv", "标题,主送,密级,正文\n大,示范单位乙,内部,大.ofd\n")
	o.write("大.ofd", "x")
	o.desk.before = func(string, *exchange.Document) error {
		return &Refused{exchange.CodeTooLarge, "at most 5 bytes are possible"}
	}
	for range 3 {
		if s := o.run(); s.Quarantined != 1 || o.entry(Quarantined).Code != exchange.CodeTooLarge || o.entry(Quarantined).Cause == "" {
			t.Fatalf("%+v", s)
		}
	}
	if o.desk.calls != 1 {
		t.Errorf("it was offered %d times", o.desk.calls)
	}
	if b, err := os.ReadFile(filepath.Join(o.state, "quarantine", "大.ofd"+noticeText)); err != nil || !bytes.Contains(b, []byte("5 bytes")) {
		t.Errorf("%s %v", b, err)
	}
	o.desk.before = nil
	if n, err := o.imp.Retry(t.Context(), []string{"大.ofd"}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if s := o.run(); s.Submitted != 1 || o.desk.calls != 2 {
		t.Errorf("%+v", s)
	}
	o.write("清单.csv", "标题,主送,正文\n二,示范单位乙,大.ofd\n")
	o.write("大.ofd", "z")
	o.desk.before = func(string, *exchange.Document) error { return exchange.Fail(exchange.CodeUnauthenticated, "") }
	if s, err := o.imp.Run(t.Context()); exchange.CodeOf(err) != exchange.CodeUnauthenticated || s.Quarantined != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}
