package export

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// inbox is a node of one agency, in memory.
type inbox struct {
	received []Document
	content  map[string][]byte // by document and index
	sent     []string          // oldest first
	status   map[string]*Status
	asked    int // for a status
}

const day = 24 * time.Hour

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.Local)

func id(n int) string { return fmt.Sprintf("01M0000000000000000000%04d", n) }

func filled(documents int) *inbox {
	in := &inbox{content: map[string][]byte{}, status: map[string]*Status{}}
	for n := range documents {
		d := Document{
			Seq: uint64(10 + 3*n), ID: id(n), Sender: "91350100M000100Y43", SenderName: "示范单位甲", Title: "关于第" + count(n) + "项工作的通知",
			Label: "内部", Urgency: "平件", Kind: "公文", Received: noon,
		}
		for i, name := range []string{"正文.ofd", "附件1：表.xlsx"} {
			in.put(&d, i, name, []byte(fmt.Sprintf("content %d of %d", i, n)))
		}
		in.received = append(in.received, d)
	}
	return in
}

func (in *inbox) put(d *Document, i int, name string, b []byte) {
	sum := sm.Sum(b)
	role := "attachment"
	if i == 0 {
		role = "body"
	}
	d.Files = append(d.Files, File{Index: i, Role: role, Name: name, Type: "application/ofd", Size: int64(len(b)), SM3: hex.EncodeToString(sum[:])})
	in.content[d.ID+count(i)] = b
}

func (in *inbox) Received(_ context.Context, after uint64) ([]Document, error) {
	var out []Document
	for _, d := range in.received {
		if d.Seq > after && len(out) < 2 {
			d.Files = slices.Clone(d.Files)
			out = append(out, d)
		}
	}
	return out, nil
}

func (in *inbox) Content(_ context.Context, document string, file int) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(in.content[document+count(file)])), nil
}

func (in *inbox) Evidence(_ context.Context, document string) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("proof of " + document)), nil
}

func (in *inbox) Sent(_ context.Context, behind string) ([]string, error) {
	var out []string
	for _, id := range slices.Backward(in.sent) {
		if (behind == "" || id < behind) && len(out) < 2 {
			out = append(out, id)
		}
	}
	return out, nil
}

func (in *inbox) Status(_ context.Context, document string) (*Status, error) {
	in.asked++
	return in.status[document], nil
}

func ulidAt(at time.Time, n int) string {
	return ulid.MustNew(ulid.Timestamp(at), bytes.NewReader(bytes.Repeat([]byte{byte(n)}, 16))).String()
}

func open(t *testing.T, dir string, node Node, step func(string) error) *Folder {
	t.Helper()
	f, err := Open(Config{Dir: dir, Node: node, Step: step, Now: func() time.Time { return noon }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func run(t *testing.T, f *Folder) Summary {
	t.Helper()
	s, err := f.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// take is a reader of the folder: it checks each document that is there and takes
// it away.
func take(t *testing.T, dir string, in *inbox, times map[string]int) {
	t.Helper()
	for _, d := range in.received {
		b, err := os.ReadFile(filepath.Join(dir, d.ID, documentFile))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		var got Document
		if err = errors.Join(err, json.Unmarshal(b, &got)); err != nil {
			t.Fatal(err)
		}
		for i, f := range got.Files {
			b, err := os.ReadFile(filepath.Join(dir, d.ID, f.Saved))
			if err != nil || !bytes.Equal(b, in.content[d.ID+count(i)]) {
				t.Fatalf("file %d of %s: %v", i, d.ID, err)
			}
		}
		for _, name := range []string{manifestFile, evidenceFile} {
			if info, err := os.Stat(filepath.Join(dir, d.ID, name)); err != nil || info.Size() == 0 {
				t.Fatalf("%s of %s: %v", name, d.ID, err)
			}
		}
		if err := os.RemoveAll(filepath.Join(dir, d.ID)); err != nil {
			t.Fatal(err)
		}
		times[d.ID]++
	}
}

// A process that ends before any of its durable steps gives out each document once
// to a reader that takes them away, and names it once in the list.
func TestEachDocumentIsGivenOutOnceWhateverEnds(t *testing.T) {
	end := errors.New("the process ends here")
	steps := 0
	for at := 0; ; at++ {
		in, dir, times := filled(3), t.TempDir(), map[string]int{}
		in.sent, in.status[id(7)] = []string{id(7)}, signedFor()
		n := 0
		f := open(t, dir, in, func(string) error {
			n++
			if n == at+1 {
				return end
			}
			return nil
		})
		_, err := f.Run(t.Context())
		if err == nil {
			steps = at
			break
		}
		if !errors.Is(err, end) {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		take(t, dir, in, times)
		run(t, open(t, dir, in, nil))
		take(t, dir, in, times)
		run(t, open(t, dir, in, nil))
		take(t, dir, in, times)
		for _, d := range in.received {
			if times[d.ID] != 1 {
				t.Errorf("end before step %d: %s was given out %d times", at, d.ID, times[d.ID])
			}
		}
		list, err := os.ReadFile(filepath.Join(dir, "received-2026-11.csv"))
		if err != nil || bytes.Count(list, []byte("\n")) != 1+len(in.received) {
			t.Errorf("end before step %d: the list has\n%s%v", at, list, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "sent", id(7), "evidence-5.json")); err != nil {
			t.Errorf("end before step %d: %v", at, err)
		}
	}
	if steps < 20 {
		t.Fatalf("only %d steps were tried", steps)
	}
}

func signedFor() *Status {
	return &Status{Title: "标题", State: "全部签收", Receipts: 5, Ended: true, Recipients: []Recipient{{Agency: "91350100M000100Y43", Name: "示范单位甲", Stage: "签收", At: noon}}}
}

// What is outstanding is asked for again, what has ended never.
func TestASentDocumentIsFollowedUntilItEnds(t *testing.T) {
	in, dir := filled(0), t.TempDir()
	for n := range 5 {
		in.sent = append(in.sent, id(n))
		in.status[id(n)] = signedFor()
	}
	in.status[id(1)] = &Status{State: "分送中", Receipts: 2, Recipients: []Recipient{{Stage: "到达"}}}
	if s := run(t, open(t, dir, in, nil)); s.Sent != 5 || s.Open != 1 {
		t.Fatalf("%+v", s)
	}
	in.asked = 0
	if s := run(t, open(t, dir, in, nil)); s.Sent != 0 || s.Open != 1 || in.asked != 1 {
		t.Fatalf("%+v, asked %d times", s, in.asked)
	}
	in.status[id(1)] = signedFor()
	if s := run(t, open(t, dir, in, nil)); s.Sent != 1 || s.Open != 0 {
		t.Fatalf("%+v", s)
	}
	names, err := os.ReadDir(filepath.Join(dir, "sent", id(1)))
	if err != nil || len(names) != 2 || names[0].Name() != "evidence-5.json" {
		t.Fatalf("%v %v", names, err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "sent", id(1), "status.csv"))
	if err != nil || !bytes.HasPrefix(b, []byte(byteOrderMark)) || !bytes.Contains(b, []byte("签收")) {
		t.Fatalf("%s %v", b, err)
	}
}

// A document whose upload took long appears behind newer ones that are known.
func TestALateDocumentIsFound(t *testing.T) {
	in, dir := filled(0), t.TempDir()
	made := func(age time.Duration, n int) string { return ulidAt(noon.Add(-age), n) }
	for n := range 6 {
		in.sent = append(in.sent, made(6*day-time.Duration(n)*time.Hour, n))
	}
	late := in.sent[1]
	in.sent = slices.Delete(in.sent, 1, 2)
	for _, id := range append(slices.Clone(in.sent), late) {
		in.status[id] = signedFor()
	}
	run(t, open(t, dir, in, nil))
	in.sent = slices.Insert(in.sent, 1, late)
	if s := run(t, open(t, dir, in, nil)); s.Sent != 1 {
		t.Fatalf("%+v", s)
	}
}

func TestAnotherAgencysInboxIsRefused(t *testing.T) {
	dir := t.TempDir()
	run(t, open(t, dir, filled(2), nil))
	other := filled(0)
	d := Document{Seq: 1, ID: id(99), Received: noon}
	other.put(&d, 0, "正文.ofd", []byte("x"))
	other.received = []Document{d}
	_, err := open(t, dir, other, nil).Run(t.Context())
	if !errors.Is(err, ErrForeign) || exchange.CodeOf(err) != exchange.CodeSetupConflict {
		t.Fatalf("%v", err)
	}
}

// A node restored from a copy numbers its inbox anew: nothing is left out or given
// out again.
func TestAnInboxThatCountsAnew(t *testing.T) {
	in, dir := filled(4), t.TempDir()
	late := in.received[3]
	in.received = in.received[:3]
	run(t, open(t, dir, in, nil))
	for i := range in.received {
		in.received[i].Seq = uint64(40 - i)
	}
	late.Seq = 2
	in.received = append([]Document{late}, in.received[2], in.received[1], in.received[0])
	if s := run(t, open(t, dir, in, nil)); s.Received != 1 {
		t.Fatalf("%+v", s)
	}
}

func TestAFileThatIsNotAsSigned(t *testing.T) {
	for name, change := range map[string]func([]byte) []byte{
		"shorter": func(b []byte) []byte { return b[:3] },
		"longer":  func(b []byte) []byte { return append(b, 'x') },
		"changed": func(b []byte) []byte { return append(slices.Clone(b[:len(b)-1]), '!') },
	} {
		t.Run(name, func(t *testing.T) {
			in, dir := filled(2), t.TempDir()
			whole := in.content[id(0)+"1"]
			in.content[id(0)+"1"] = change(whole)
			if _, err := open(t, dir, in, nil).Run(t.Context()); exchange.CodeOf(err) != exchange.CodeTemporary {
				t.Fatalf("%v", err)
			}
			if _, err := os.Stat(filepath.Join(dir, id(0))); !errors.Is(err, os.ErrNotExist) {
				t.Fatal("it was given out")
			}
			in.content[id(0)+"1"] = whole
			if s := run(t, open(t, dir, in, nil)); s.Received != 2 {
				t.Fatalf("%+v", s)
			}
		})
	}
}

func TestAPlaceThatIsTakenWaits(t *testing.T) {
	in, dir := filled(2), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, id(0)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s := run(t, open(t, dir, in, nil)); s.Received != 1 || s.Waiting != 1 {
		t.Fatalf("%+v", s)
	}
	if err := os.Remove(filepath.Join(dir, id(0))); err != nil {
		t.Fatal(err)
	}
	if s := run(t, open(t, dir, in, nil)); s.Received != 1 || s.Waiting != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestSavedNames(t *testing.T) {
	long := strings.Repeat("长", 84) + "a.pdf" // 257 bytes
	taken := map[string]bool{manifestFile: true}
	for _, one := range []struct{ name, want string }{
		{"正文.ofd", "正文.ofd"},
		{"正文.OFD", "正文 (2).OFD"},
		{"a:b*c?.pdf", "a_b_c_.pdf"},
		{"con.txt", "_con.txt"},
		{"Com1", "_Com1"},
		{"common.txt", "common.txt"},
		{"manifest.CSV", "manifest (2).CSV"},
		{".hidden", "_.hidden"},
		{"end. ", "end"},
		{"...", "_"},
		{long, strings.Repeat("长", 78) + ".pdf"},
		{strings.Repeat("x", 255), strings.Repeat("x", maxName)},
	} {
		if got := savedName(one.name, taken); got != one.want {
			t.Errorf("%q became %q, want %q", one.name, got, one.want)
		}
	}
}

func TestNoCellIsComputed(t *testing.T) {
	b := sheet(false, []string{"=1+1", "@a", "-", "+2", "文"})
	if string(b) != "'=1+1,'@a,'-,'+2,文\r\n" {
		t.Fatalf("%q", b)
	}
}

func TestATornJournalLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	if err := os.WriteFile(path, []byte("1 A\n22 B\n3"), 0o600); err != nil {
		t.Fatal(err)
	}
	j, err := openJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.add(4, "C"), j.Close()); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); string(b) != "1 A\n22 B\n4 C\n" {
		t.Fatalf("%q", b)
	}
	if err := os.WriteFile(path, []byte("1 A\nx B\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openJournal(path); err == nil {
		t.Fatal("a damaged line was read over")
	}
}

// A crash may leave half of a line in the month's list.
func TestATornLineOfTheList(t *testing.T) {
	in, dir := filled(2), t.TempDir()
	half := byteOrderMark + "公文标识\r\n" + id(0) + ",2026"
	if err := os.WriteFile(filepath.Join(dir, "received-2026-11.csv"), []byte(half), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, open(t, dir, in, nil))
	b, err := os.ReadFile(filepath.Join(dir, "received-2026-11.csv"))
	if err != nil || bytes.Count(b, []byte("\n")) != 3 || bytes.Count(b, []byte(id(0))) != 1 {
		t.Fatalf("%s %v", b, err)
	}
}
