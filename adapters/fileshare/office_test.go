package fileshare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/text/encoding/simplifiedchinese"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/queue"
	"github.com/yizhan-gateway/yizhan/queue/badgerstore"
)

// The agencies of the directory that tests ask.
var codeYi, codeBing, codeDing = code(2), code(3), code(4)

func code(n int) string {
	c, err := certs.MakeAgencyCode(fmt.Sprintf("11520000000000%02dX", n))
	if err != nil {
		panic(err)
	}
	return string(c)
}

// desk is a node that keeps what it accepted under each key, like a real one.
type desk struct {
	mu       sync.Mutex
	accepted map[string]accepted // by key
	order    []string
	calls    int
	before   func(key string, d *exchange.Document) error // what it says first
	after    func() error                                 // an answer that is lost
	agencies []Agency
}

type accepted struct {
	id, title, number, label string
	to                       []string
	names, contents          []string
}

func newDesk() *desk {
	return &desk{accepted: map[string]accepted{}, agencies: []Agency{
		{codeYi, "示范单位乙", []string{"乙单位", "教育局"}}, {codeBing, "示范单位丙", []string{"丙单位", "教育局"}}, {codeDing, "示范单位丁", nil},
	}}
}

func (d *desk) Find(_ context.Context, text string) (out []Agency, err error) {
	for _, a := range d.agencies {
		if strings.Contains(a.Code+a.Name+strings.Join(a.Aliases, " "), text) {
			out = append(out, a)
		}
	}
	return out, nil
}

func (d *desk) Submit(_ context.Context, key string, doc *exchange.Document, files []File) (string, error) {
	a := accepted{title: doc.Title, label: string(doc.Label), to: doc.Recipients()}
	if doc.Number != nil {
		a.number = doc.Number.Display
	}
	for _, f := range files {
		r, err := f.Open()
		if err != nil {
			return "", err
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return "", err
		}
		if int64(len(b)) != f.Size {
			return "", fmt.Errorf("%d bytes of %d", len(b), f.Size)
		}
		a.names, a.contents = append(a.names, f.Role+" "+f.Name), append(a.contents, string(b))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls++
	if d.before != nil {
		if err := d.before(key, doc); err != nil {
			return "", err
		}
	}
	if was, known := d.accepted[key]; known {
		a.id = was.id
		if fmt.Sprint(a) != fmt.Sprint(was) {
			return "", &Refused{exchange.CodeIdempotencyMismatch, ""}
		}
		return was.id, nil
	}
	a.id = fmt.Sprintf("D%d", len(d.order)+1)
	d.accepted[key] = a
	d.order = append(d.order, key)
	if d.after != nil {
		if err := d.after(); err != nil {
			return "", err
		}
	}
	return a.id, nil
}

// titles are those of what was accepted, sorted.
func (d *desk) titles() (out []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range d.accepted {
		out = append(out, a.title)
	}
	slices.Sort(out)
	return out
}

// office is a share with an import of it.
type office struct {
	*testing.T
	dir, state string
	c          Config
	desk       *desk
	store      queue.Store
	imp        *Import
	entries    []Entry

	mu    sync.Mutex
	clock time.Time
}

const sentinel = "共享标志.txt"

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{T: t, dir: folder(t), state: folder(t), desk: newDesk(), clock: time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)}
	o.c = Config{
		Share: o.dir, Sentinel: sentinel, State: o.state, Depth: 3,
		Defaults: Defaults{Label: "内部"}, Logger: slog.New(slog.DiscardHandler),
		Now:   o.now,
		Sleep: func(_ context.Context, d time.Duration) error { o.later(d); return nil },
		Progress: func(e Entry, _ Summary) {
			o.entries = append(o.entries, e)
		},
	}
	o.write(sentinel, "x")
	store, err := badgerstore.Open(filepath.Join(folder(t), "ledger"), badgerstore.Options{Logger: o.c.Logger})
	o.must(err)
	t.Cleanup(func() { store.Close() })
	o.store = queue.Checked(store)
	return o
}

// folder is in memory where the system has such a place: what is tried here are steps,
// not disks.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "yizhan-import-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (o *office) now() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.clock
}

func (o *office) later(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.clock = o.clock.Add(d)
}

func (o *office) must(err error) {
	o.Helper()
	if err != nil {
		o.Fatal(err)
	}
}

// write puts a file on the share, under the bytes of its name.
func (o *office) write(name, content string) {
	o.Helper()
	o.must(os.MkdirAll(filepath.Dir(filepath.Join(o.dir, name)), 0o700))
	o.must(os.WriteFile(filepath.Join(o.dir, name), []byte(content), 0o600))
}

// open begins anew over the same ledger, as a new process would.
func (o *office) open() *Import {
	o.Helper()
	imp, err := Open(o.c, o.store, o.desk)
	o.must(err)
	o.imp = imp
	return imp
}

func (o *office) run() Summary {
	o.Helper()
	o.entries = nil
	if o.imp == nil {
		o.open()
	}
	s, err := o.imp.Run(o.Context())
	o.must(err)
	return s
}

// entry finds the one entry with an outcome.
func (o *office) entry(want Outcome) Entry {
	o.Helper()
	var found []Entry
	for _, e := range o.entries {
		if e.Outcome == want {
			found = append(found, e)
		}
	}
	if len(found) != 1 {
		o.Fatalf("%d entries are %s: %+v", len(found), want, o.entries)
	}
	return found[0]
}

// tree lists the files of the share, hidden folders of the import included.
func (o *office) tree() (out []string) {
	o.Helper()
	o.must(filepath.WalkDir(o.dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(o.dir, p)
			text, _ := shown(rel)
			out = append(out, text)
		}
		return err
	}))
	slices.Sort(out)
	return out
}

func gbk(t testing.TB, s string) string {
	t.Helper()
	out, err := simplifiedchinese.GB18030.NewEncoder().String(s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func lines(rows ...string) string { return strings.Join(rows, "\r\n") + "\r\n" }

var errCrash = errors.New("the process ends here")

// TestAShareOfAnOldSystem: names and list in GBK, several recipients, an attachment in
// a folder; all is sent once, put away, and a second run finds nothing.
func TestAShareOfAnOldSystem(t *testing.T) {
	o := newOffice(t)
	o.write(gbk(t, "公文清单.csv"), gbk(t, lines(
		"序号,标题,文号,主送,抄送,密级,紧急程度,正文,附件,成文日期,签收时限",
		"1,关于开展检查的通知,示范办发〔2026〕1号,示范单位乙、丙单位,示范单位丁,内部,加急,通知.ofd,附件\\名单、汇总.xlsx；附件/说明.pdf,2026年11月2日,2026-12-01 17:00",
		"2,关于报送材料的函,示范办函〔2026〕2号,"+codeDing+",,公开,,函.ofd,,,",
	)))
	o.write(gbk(t, "通知.ofd"), "正文一")
	o.write(gbk(t, "附件/名单、汇总.xlsx"), "附件一")
	o.write(gbk(t, "附件")+"/说明.pdf", "附件二") // one name of another system
	o.write("函.ofd", "正文二")
	o.write("Thumbs.db", "x")
	o.write("~$通知.docx", "x")
	if s := o.run(); s.Submitted != 2 || s.Documents != 2 || s.Unmatched != 0 {
		t.Fatalf("%+v %+v", s, o.entries)
	}
	if got := o.desk.titles(); !slices.Equal(got, []string{"关于开展检查的通知", "关于报送材料的函"}) {
		t.Fatalf("%v", got)
	}
	for _, a := range o.desk.accepted {
		if a.title == "关于报送材料的函" {
			continue
		}
		if fmt.Sprint(a.to) != fmt.Sprint([]string{codeYi, codeBing, codeDing}) || a.label != "internal" ||
			fmt.Sprint(a.names) != "[body 通知.ofd attachment 名单、汇总.xlsx attachment 说明.pdf]" {
			t.Errorf("%+v", a)
		}
	}
	day := ".yizhan/archive/2026-11-27/"
	want := []string{day + "公文清单.csv", day + "函.ofd", day + "通知.ofd", day + "附件/名单、汇总.xlsx", day + "附件/说明.pdf", "Thumbs.db", sentinel, "~$通知.docx"}
	slices.Sort(want)
	if got := o.tree(); !slices.Equal(got, want) {
		t.Errorf("%q\n%q", got, want)
	}
	if s := o.run(); s.Documents != 0 || o.desk.calls != 2 {
		t.Errorf("%+v", s)
	}
}
