package ferry

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/link"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/queue"
	"github.com/yizhan-gateway/yizhan/queue/badgerstore"
	"github.com/yizhan-gateway/yizhan/queue/blob"
)

// pier is a real node with a spool on a real disk.
type pier struct {
	*testing.T
	id     string
	agency string
	node   *node.Node
	dir    string
	work   string
	spool  *Spool
	clock  *time.Time
	gate   Config // what belongs to a gate of it
}

// cast is who takes part: made once, since deriving keys from passphrases takes long.
type cast struct {
	keys      map[string]*keystore.Store
	codes     map[string]string
	directory *certs.Directory
	operator  *keystore.Store
}

var casts sync.Map // by who alone sends

// everybody is the cast of a link, over which only one may send.
func everybody(sends string) (*cast, error) {
	made, _ := casts.LoadOrStore(sends, sync.OnceValues(func() (*cast, error) { return newCast(sends) }))
	return made.(func() (*cast, error))()
}

func newCast(sends string) (*cast, error) {
	dir, err := os.MkdirTemp("", "yizhan-ferry-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) // keys are in memory
	clock := time.Now().Truncate(time.Second)
	begin := clock.Add(-time.Hour)
	pass := []byte("ferry tests")
	authority, err := certs.InitAuthority(filepath.Join(dir, "ca"), "test", pass, rand.Reader, begin)
	if err != nil {
		return nil, err
	}
	c := &cast{keys: map[string]*keystore.Store{}, codes: map[string]string{}}
	for i, id := range []string{"jia", "yi"} {
		if err := c.admit(authority, dir, pass, i, id, begin); err != nil {
			return nil, err
		}
	}
	if err := authority.AddLink(certs.Link{ID: "jia-yi", A: "jia", B: "yi", Dialer: "jia", Kind: "ferry", Ceiling: "work_secret", OneWay: sends}); err != nil {
		return nil, err
	}
	if sends != "" {
		if c.operator, err = keystore.Create(filepath.Join(dir, "zhang-san"), pass, rand.Reader); err != nil {
			return nil, err
		}
		if err := authority.AddAdministrator("zhang-san", "张三", c.operator, begin); err != nil {
			return nil, err
		}
	}
	file, err := authority.Publish(begin)
	if err != nil {
		return nil, err
	}
	c.directory, err = certs.LoadDirectory(file, authority.Certificate(), 0, clock)
	return c, err
}

func (c *cast) admit(authority *certs.Authority, dir string, pass []byte, i int, id string, begin time.Time) (err error) {
	if c.keys[id], err = keystore.Create(filepath.Join(dir, id), pass, rand.Reader); err != nil {
		return err
	}
	code, err := certs.MakeAgencyCode(fmt.Sprintf("11520000000000%02dX", i))
	if err != nil {
		return err
	}
	c.codes[id] = string(code)
	request, err := certs.NewRequest(c.keys[id], "test", certs.NodeSpec{ID: id, Zone: "z"}, []certs.AgencySpec{{Code: code, Name: "示范单位" + id}}, begin)
	if err != nil {
		return err
	}
	parsed, err := certs.ParseRequest(request)
	if err != nil {
		return err
	}
	return authority.Admit(parsed, begin)
}

// piers are two nodes with a ferry between them.
func piers(t *testing.T) (jia, yi *pier) {
	t.Helper()
	jia, yi, _ = piersOver(t, "")
	return jia, yi
}

// piersOver are piers with a link over which only one of them sends, if one is named;
// zhang-san may confirm then.
func piersOver(t *testing.T, sends string) (jia, yi *pier, operator *keystore.Store) {
	t.Helper()
	all, err := everybody(sends)
	check(t, err)
	keys, codes, d, clock := all.keys, all.codes, all.directory, time.Now().Truncate(time.Second)
	made := func(id string) *pier {
		p := &pier{T: t, id: id, agency: codes[id], dir: t.TempDir(), work: t.TempDir(), clock: &clock}
		data := t.TempDir()
		store, err := badgerstore.Open(filepath.Join(data, "store"), badgerstore.Options{Logger: slog.New(slog.DiscardHandler)})
		check(t, err)
		t.Cleanup(func() { store.Close() })
		blobs, err := blob.Open(durable.OS, filepath.Join(data, "blobs"))
		check(t, err)
		p.node, err = node.New(t.Context(), node.Config{
			ID: id, Store: queue.Checked(store), Blobs: blobs, Keys: keys[id], Directory: func() *certs.Directory { return d },
			Now: func() time.Time { return *p.clock }, Rand: rand.Reader, Clock: "test", Together: sideBySide,
		})
		check(t, err)
		p.open()
		return p
	}
	return made("jia"), made("yi"), all.operator
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (p *pier) open() {
	p.Helper()
	kept, err := OpenKept(filepath.Join(p.work, "kept"))
	check(p.T, err)
	p.Cleanup(func() { kept.Close() })
	f, err := link.NewFerry(p.Context(), p.node, "jia-yi", kept)
	check(p.T, err)
	p.spool, err = Open(Config{
		Ferry: f, Dir: p.dir, Work: filepath.Join(p.work, "work"), Lists: filepath.Join(p.work, "lists"), Limits: link.Limits{FileBytes: 1 << 20, Files: 10},
		From: p.id, To: map[string]string{"jia": "yi", "yi": "jia"}[p.id],
		Out: p.gate.Out, In: p.gate.In, Ack: p.gate.Ack, Partial: p.gate.Partial, Extension: p.gate.Extension, Wrap: p.gate.Wrap,
		Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return *p.clock },
	})
	check(p.T, err)
	p.Cleanup(func() { p.spool.Close() })
}

func (p *pier) send(to *pier) string {
	p.Helper()
	got, err := p.node.Submit(p.Context(), node.Submission{
		Agency: p.agency,
		Document: exchange.Document{
			Label: exchange.Internal, Kind: exchange.Official, Urgency: exchange.Normal, Title: "关于摆渡的通知",
			To: []exchange.Addressee{{Agency: to.agency}},
		},
		Files: func(yield func(envelope.File, error) bool) {
			yield(envelope.File{Role: envelope.RoleBody, Name: "正文.ofd", Type: "application/ofd", Content: strings.NewReader("正文")}, nil)
		},
	})
	check(p.T, err)
	return got.ID
}

func (p *pier) export() []string {
	p.Helper()
	_, err := p.spool.Export(p.Context(), false)
	check(p.T, err)
	return p.list(outFolder)
}

func (p *pier) take() Report {
	p.Helper()
	got, err := p.spool.Import(p.Context())
	check(p.T, err)
	for {
		did, err := p.node.Work(context.Background())
		check(p.T, err)
		if !did {
			return got
		}
	}
}

func (p *pier) list(folder string) []string {
	p.Helper()
	return listed(p.T, p.spool.below(folder))
}

func listed(t *testing.T, f folder) []string {
	t.Helper()
	names, err := f.which(maxSeen, func(string) bool { return true })
	check(t, err)
	return names
}

func (p *pier) at(folder, name string) string { return filepath.Join(p.dir, folder, name) }

func (p *pier) inbox() int {
	p.Helper()
	items, err := p.node.Inbox(p.Context(), p.agency, 0, 100)
	check(p.T, err)
	return len(items)
}

// carry moves all files of one side to the other, as a gate does.
func carry(from, to *pier) {
	from.Helper()
	for _, name := range from.list(outFolder) {
		check(from.T, os.Rename(from.at(outFolder, name), to.at(inFolder, name)))
	}
}

// TestThereAndBack: a document crosses in a file, and its receipt comes back in one;
// then nothing is on its way and nothing more is written.
func TestThereAndBack(t *testing.T) {
	jia, yi := piers(t)
	id := jia.send(yi)
	if names := jia.export(); len(names) != 1 || names[0] != strings.ToLower(names[0]) || len(names[0]) > 32 {
		t.Fatalf("the files are %v", names)
	}
	carry(jia, yi)
	if got := yi.take(); got.Files != 1 || got.Bundles.Items != 3 {
		t.Fatalf("%+v", got)
	}
	if yi.inbox() != 1 || len(yi.list(inFolder)) != 0 || len(yi.list(doneFolder)) != 1 {
		t.Fatalf("%d in the inbox, in/ %v, done/ %v", yi.inbox(), yi.list(inFolder), yi.list(doneFolder))
	}
	yi.export()
	carry(yi, jia)
	jia.take()
	tr, err := jia.node.Trace(t.Context(), jia.agency, id)
	check(t, err)
	if !tr.ReceiptsVerified || len(tr.Recipients) != 1 || tr.Recipients[0].Stage != exchange.StageDelivered {
		t.Fatalf("%+v", tr.Recipients)
	}
	st, err := jia.spool.Status(t.Context())
	check(t, err)
	if st.Outstanding != 0 {
		t.Errorf("%+v", st)
	}
	jia.export()
	carry(jia, yi)
	yi.take()
	yi.export()
	carry(yi, jia)
	jia.take()
	for range 3 {
		if names := append(jia.export(), yi.export()...); len(names) > 0 {
			t.Errorf("nothing is new, and %v are written", names)
		}
		carry(jia, yi)
		carry(yi, jia)
		jia.take()
		yi.take()
	}
}

// TestWhatIsNotWholeWaits: names that say so, files that end in the middle and grow;
// one that stands still is taken as far as it goes.
func TestWhatIsNotWholeWaits(t *testing.T) {
	jia, yi := piers(t)
	jia.send(yi)
	name := jia.export()[0]
	whole, err := os.ReadFile(jia.at(outFolder, name))
	check(t, err)
	for _, other := range []string{name + ".part", ".hidden", "x.tmp"} {
		check(t, os.WriteFile(yi.at(inFolder, other), whole, 0o600))
	}
	check(t, os.WriteFile(yi.at(inFolder, name), whole[:len(whole)/2], 0o600))
	if got := yi.take(); got.Waiting != 4 || got.Files != 0 {
		t.Fatalf("%+v", got)
	}
	*yi.clock = yi.clock.Add(patience)
	check(t, os.WriteFile(yi.at(inFolder, name), whole[:len(whole)-1], 0o600)) // it has grown
	if got := yi.take(); got.Waiting != 4 || got.Files != 0 {
		t.Fatalf("%+v", got)
	}
	check(t, os.WriteFile(yi.at(inFolder, name), whole, 0o600))
	if got := yi.take(); got.Waiting != 3 || got.Files != 1 || yi.inbox() != 1 {
		t.Fatalf("%+v, %d in the inbox", got, yi.inbox())
	}
	check(t, os.WriteFile(yi.at(inFolder, "cut.yzb"), whole[:len(whole)-1], 0o600))
	yi.take()
	*yi.clock = yi.clock.Add(patience)
	if got := yi.take(); got.Quarantined != 1 || len(yi.list(quarantineFolder)) != 2 {
		t.Fatalf("a file that stands still: %+v, %v", got, yi.list(quarantineFolder))
	}
}

// TestWhatIsNoFileIsRefused: links and pipes go to the quarantine as what they are, and
// nothing behind them is read; an empty folder is the gate's.
func TestWhatIsNoFileIsRefused(t *testing.T) {
	jia, yi := piers(t)
	jia.send(yi)
	name := jia.export()[0]
	check(t, os.Symlink(jia.at(outFolder, name), yi.at(inFolder, "link.yzb")))
	check(t, os.Symlink("/etc/passwd", yi.at(inFolder, "secret.yzb")))
	check(t, os.Mkdir(yi.at(inFolder, "folder.yzb"), 0o700))
	check(t, syscall.Mkfifo(yi.at(inFolder, "pipe.yzb"), 0o600))
	check(t, os.WriteFile(yi.at(inFolder, "foreign.yzb"), []byte("YZB1 not a bundle YZBE12345678"), 0o600))
	huge, err := os.Create(yi.at(inFolder, "huge.yzb"))
	check(t, err)
	check(t, huge.Truncate(MaxFile+1))
	check(t, huge.Close())
	got := yi.take()
	*yi.clock = yi.clock.Add(patience)
	more := yi.take()
	if got.Quarantined+more.Quarantined != 5 || yi.inbox() != 0 || len(yi.list(inFolder)) != 1 {
		t.Fatalf("%+v, %+v, in/ %v", got, more, yi.list(inFolder))
	}
	if target, err := os.Readlink(yi.at(quarantineFolder, "secret.yzb")); err != nil || target != "/etc/passwd" {
		t.Errorf("the link was followed: %q, %v", target, err)
	}
	reason, err := os.ReadFile(yi.at(quarantineFolder, "pipe.yzb.reason.txt"))
	if err != nil || !bytes.Contains(reason, []byte("普通文件")) || !bytes.Contains(reason, []byte("regular file")) {
		t.Errorf("the reason is %q, %v", reason, err)
	}
}

// TestAFileThatComesAgain under its name replaces nothing in the way, and changes
// nothing; what a gate takes back is no error.
func TestAFileThatComesAgain(t *testing.T) {
	jia, yi := piers(t)
	jia.send(yi)
	name := jia.export()[0]
	whole, err := os.ReadFile(jia.at(outFolder, name))
	check(t, err)
	yi.gate.Ack = t.TempDir()
	yi.open()
	for range 3 {
		check(t, os.WriteFile(yi.at(inFolder, name), whole, 0o600))
		check(t, os.WriteFile(filepath.Join(yi.gate.Ack, "x"+name), whole, 0o600))
		yi.take()
	}
	if yi.inbox() != 1 || len(yi.list(doneFolder)) != 2 {
		t.Errorf("%d in the inbox, done/ %v", yi.inbox(), yi.list(doneFolder))
	}
}

// TestAProcessThatEnds between writing a file and what follows writes it again; half
// a file of it is swept.
func TestAProcessThatEnds(t *testing.T) {
	jia, yi := piers(t)
	jia.send(yi)
	name := jia.export()[0]
	check(t, os.WriteFile(jia.at(outFolder, "yzhalf"+partial), []byte("x"), 0o600))
	jia.open()
	if names := jia.list(outFolder); len(names) != 1 || names[0] != name {
		t.Fatalf("out/ %v", names)
	}
	jia.send(yi)
	if names := jia.export(); len(names) != 2 {
		t.Fatalf("out/ %v", names)
	}
	carry(jia, yi)
	yi.take()
	if yi.inbox() != 2 {
		t.Errorf("%d in the inbox", yi.inbox())
	}
}

// TestOldFilesAreLetGo: done/ and quarantine/ do not grow without end. What came last
// stays, whatever a gate says of the times of its files.
func TestOldFilesAreLetGo(t *testing.T) {
	_, yi := piers(t)
	for i := range keptDone + 20 { // the kernel may give the same time to some in a row; then names decide
		name := yi.at(doneFolder, fmt.Sprintf("old-%03d", i))
		check(t, os.WriteFile(name, nil, 0o600))
		at := time.Now().Add(time.Duration(500-i) * time.Minute)
		check(t, os.Chtimes(name, at, at))
	}
	yi.take()
	names := yi.list(doneFolder)
	if len(names) != keptDone || names[0] != "old-020" {
		t.Fatalf("%d are kept, the oldest is %s", len(names), names[0])
	}
}

// TestAMedium is written and read with what else lies on it, and left as it was.
func TestAMedium(t *testing.T) {
	jia, yi := piers(t)
	jia.send(yi)
	medium := t.TempDir()
	check(t, os.WriteFile(filepath.Join(medium, "notes.txt"), []byte("notes"), 0o600))
	check(t, os.Symlink("/etc/passwd", filepath.Join(medium, "link")))
	_, list, err := jia.spool.ExportTo(t.Context(), medium)
	check(t, err)
	if len(list.Files) != 1 || len(list.Files[0].SHA256) != 64 {
		t.Fatalf("%+v", list)
	}
	for range 2 {
		got, err := yi.spool.ImportFrom(t.Context(), medium)
		check(t, err)
		if got.Files != 1 || got.Quarantined != 0 {
			t.Fatalf("%+v", got)
		}
	}
	if entries, err := os.ReadDir(medium); err != nil || len(entries) != 5 {
		t.Errorf("%v, %v", entries, err)
	}
	if _, _, err := jia.spool.ExportTo(t.Context(), filepath.Join(medium, "absent")); err == nil {
		t.Error("a medium that is not there")
	}
	if _, err := yi.spool.ImportFrom(t.Context(), filepath.Join(medium, "absent")); err == nil {
		t.Error("a medium that is not there")
	}
}

// TestWhatIsWrittenIsNotSeen: until a file is whole it lies beside out/, or under a
// hidden name in a directory of the gate's.
func TestWhatIsWrittenIsNotSeen(t *testing.T) {
	for _, apart := range []bool{false, true} {
		jia, _ := piers(t)
		if apart {
			jia.gate.Out = t.TempDir()
			jia.open()
		}
		err := jia.spool.out.place("x.yzb", func(io.Writer) error {
			names := listed(t, jia.spool.out.to)
			if len(names) > 0 && (!apart || names[0] != ".x.yzb.part") {
				t.Errorf("%v is in sight", names)
			}
			return nil
		})
		if names := listed(t, jia.spool.out.to); err != nil || len(names) != 1 || names[0] != "x.yzb" {
			t.Errorf("%v, %v", names, err)
		}
	}
}

// TestAMediumThatIsWrapped is read as well, and what else is in an archive is not.
func TestAMediumThatIsWrapped(t *testing.T) {
	jia, yi := piers(t)
	medium := t.TempDir()
	for i, wrap := range Wrappings() {
		jia.gate = Config{Wrap: wrap}
		jia.open()
		jia.send(yi)
		_, _, err := jia.spool.ExportTo(t.Context(), medium)
		check(t, err)
		check(t, os.WriteFile(filepath.Join(medium, wrap+".zip"), wrappedBytes(t, WrapZip, []byte("something else")), 0o600))
		if got, err := yi.spool.ImportFrom(t.Context(), medium); err != nil || got.Files != i+1 {
			t.Errorf("%s: %+v, %v", wrap, got, err)
		}
	}
	yi.take()
	if yi.inbox() != len(Wrappings()) {
		t.Errorf("%d came", yi.inbox())
	}
}

// TestAWriteThatFails leaves no half file, and what could not be written leaves later.
func TestAWriteThatFails(t *testing.T) {
	jia, _ := piers(t)
	broken := errors.New("the disk is full")
	err := jia.spool.out.place("x.yzb", func(w io.Writer) error {
		_, _ = io.WriteString(w, "half")
		return broken
	})
	if !errors.Is(err, broken) || len(jia.list(outFolder))+len(jia.list(partFolder)) != 0 {
		t.Errorf("%v, out/ %v, part/ %v", err, jia.list(outFolder), jia.list(partFolder))
	}
}

// TestWatching carries documents through by itself.
func TestWatching(t *testing.T) {
	jia, yi := piers(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, p := range []*pier{jia, yi} {
		go p.spool.Watch(ctx, 10*time.Millisecond)
	}
	jia.send(yi)
	for end := time.Now().Add(20 * time.Second); yi.inbox() == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing came")
		}
		for _, way := range [][2]*pier{{jia, yi}, {yi, jia}} {
			for _, name := range way[0].list(outFolder) {
				if !strings.HasSuffix(name, partial) {
					check(t, os.Rename(way[0].at(outFolder, name), way[1].at(inFolder, name)))
				}
			}
		}
	}
}

// TestWhatMayNotBeRead stops nothing else: a file of another user, a folder like
// lost+found, a lock of the gate's. A file that becomes a pipe hangs nobody.
func TestWhatMayNotBeRead(t *testing.T) {
	jia, yi := piers(t)
	jia.send(yi)
	name := jia.export()[0]
	whole, err := os.ReadFile(jia.at(outFolder, name))
	check(t, err)
	for _, folder := range []string{".", inFolder, doneFolder, quarantineFolder, ackFolder, outFolder, partFolder} {
		check(t, os.Chmod(filepath.Join(yi.dir, folder), 0o777))
	}
	check(t, os.Mkdir(yi.at(inFolder, "lost+found"), 0o700))
	check(t, os.WriteFile(yi.at(inFolder, ".gate.lock"), whole, 0))
	check(t, os.WriteFile(yi.at(inFolder, "aaa.yzb"), whole, 0))
	*yi.clock = yi.clock.Add(2 * longPatience)
	asNobody(t, func() {
		got, err := yi.spool.Import(t.Context())
		check(t, err)
		if got.Files != 0 || got.Waiting != 2 {
			t.Errorf("%+v", got)
		}
		*yi.clock = yi.clock.Add(2 * longPatience) // then a hidden one is looked into
		got, err = yi.spool.Import(t.Context())
		check(t, err)
		if got.Files != 0 || got.Waiting != 2 {
			t.Errorf("%+v", got)
		}
	})
	check(t, os.Chmod(yi.at(inFolder, "aaa.yzb"), 0o644)) // somebody mended it
	yi.take()
	if yi.inbox() != 1 {
		t.Errorf("%d in the inbox", yi.inbox())
	}
	pipe := filepath.Join(yi.dir, inFolder, "pipe")
	check(t, syscall.Mkfifo(pipe, 0o600))
	f, err := openFile(yi.spool.in[0].root, yi.spool.in[0].at("pipe"))
	check(t, err)
	check(t, f.Close())
}

// asNobody does something with the rights of a user who owns nothing, as far as files
// are concerned and this goroutine opens them.
func asNobody(t *testing.T, do func()) {
	t.Helper()
	if os.Getuid() != 0 { // then files of mode 0 are not for us anyway
		do()
		return
	}
	const nobody = 65534
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	check(t, syscall.Setfsuid(nobody))
	defer func() { check(t, syscall.Setfsuid(0)) }()
	do()
}
