package ferry

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/link"
)

// TestAManifest lies beside the files of a medium in two forms, names documents by
// their ids alone, and is kept with the node; what is missing or changed is named on
// the other side, and what is good is taken.
func TestAManifest(t *testing.T) {
	jia, yi := piers(t)
	jia.spool.c.Limits = link.Limits{FileBytes: 1, Files: 10}
	medium := t.TempDir()
	var ids []string
	for range 3 {
		ids = append(ids, jia.send(yi))
		_, m, err := jia.spool.ExportTo(t.Context(), medium)
		check(t, err)
		if len(m.Files) != 1 || m.From != "jia" || m.To != "yi" || len(m.Files[0].Bundles) != 1 || m.Files[0].Bundles[0].Documents[0] != ids[len(ids)-1] {
			t.Fatalf("%+v", m)
		}
	}
	lists, err := filepath.Glob(filepath.Join(medium, "manifest-yz*-00000[123].*"))
	check(t, err)
	if len(lists) != 6 {
		t.Fatalf("%v", lists)
	}
	for _, list := range lists {
		b, err := os.ReadFile(list)
		check(t, err)
		if strings.Contains(string(b), "摆渡的通知") || strings.Contains(string(b), "正文.ofd") {
			t.Errorf("%s says what is in a document", list)
		}
	}
	kept, err := ReadManifest(jia.spool.c.Lists, 2)
	check(t, err)
	if kept.Round != 2 || !strings.Contains(kept.Text(), ids[1]) || !strings.Contains(kept.Text(), "接收人") {
		t.Errorf("%s", kept.Text())
	}
	if last, err := ReadManifest(jia.spool.c.Lists, 0); err != nil || last.Round != 3 {
		t.Errorf("%+v, %v", last, err)
	}
	if _, err := ReadManifest(jia.spool.c.Lists, 9); exchange.CodeOf(err) != exchange.CodeNotFound {
		t.Errorf("%v", err)
	}

	if got, m, err := jia.spool.ExportTo(t.Context(), t.TempDir()); err != nil || got.Bundles != 0 || m == nil {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := ReadManifest(jia.spool.c.Lists, 4); exchange.CodeOf(err) != exchange.CodeNotFound {
		t.Errorf("a note by itself is kept: %v", err)
	}

	second := kept
	first, err := ReadManifest(jia.spool.c.Lists, 1)
	check(t, err)
	check(t, os.Remove(filepath.Join(medium, first.Files[0].File)))
	path := filepath.Join(medium, second.Files[0].File)
	b, err := os.ReadFile(path)
	check(t, err)
	b[len(b)-100] ^= 1
	check(t, os.WriteFile(path, b, 0o600))
	got, err := yi.spool.ImportFrom(t.Context(), medium)
	check(t, err)
	if got.Lists.Lists != 3 || fmt.Sprint(got.Lists.Missing) != fmt.Sprint([]string{first.Files[0].File}) ||
		fmt.Sprint(got.Lists.Changed) != fmt.Sprint([]string{second.Files[0].File}) || got.Bundles.Bundles != 1 {
		t.Errorf("%+v, %+v", got.Lists, got)
	}
}

// TestManifestsThatLie change nothing: files are taken for what they are.
func TestManifestsThatLie(t *testing.T) {
	jia, yi := piers(t)
	jia.send(yi)
	medium := t.TempDir()
	_, m, err := jia.spool.ExportTo(t.Context(), medium)
	check(t, err)
	lie := func(name string, change func(*Manifest)) {
		other := *m
		other.Files = append([]ManifestFile{}, m.Files...)
		change(&other)
		b, err := json.Marshal(other)
		check(t, err)
		check(t, os.WriteFile(filepath.Join(medium, name), b, 0o600))
	}
	lie("manifest-a-000001.json", func(m *Manifest) { m.Files[0].File = "../../../etc/passwd" })
	lie("manifest-b-000001.json", func(m *Manifest) { m.Version = 2 })
	lie("manifest-c-000001.json", func(m *Manifest) { m.Link = "another" })
	lie("manifest-d-000001.json", func(m *Manifest) { m.Files = make([]ManifestFile, maxListed+1) })
	check(t, os.WriteFile(filepath.Join(medium, "manifest-e-000001.json"), []byte("{"), 0o600))
	check(t, os.Symlink("/etc/passwd", filepath.Join(medium, "manifest-f-000001.json")))
	huge, err := os.Create(filepath.Join(medium, "manifest-g-000001.json"))
	check(t, err)
	check(t, huge.Truncate(1<<40))
	check(t, huge.Close())
	lie("manifest-zz-000001.json", func(m *Manifest) { m.Files[0].SHA256 = strings.Repeat("0", 64) })
	got, err := yi.spool.ImportFrom(t.Context(), medium)
	check(t, err)
	if got.Lists.Lists != 2 || got.Lists.Unreadable != 6 || len(got.Lists.Changed) != 1 || len(got.Lists.Missing) != 0 || got.Files != 1 {
		t.Errorf("%+v, %+v", got.Lists, got)
	}
}

// TestSums are the same however the bytes come, and take none for written that were not.
func TestSums(t *testing.T) {
	b := bytes.Repeat([]byte("驿站"), 100_000)
	sha, sm3 := sha256.Sum256(b), sm.Sum(b)
	for _, piece := range []int{1000, besidePiece, len(b)} {
		sum, out := newSums(), new(bytes.Buffer)
		for p := range slices.Chunk(b, piece) {
			_, err := summing{out, sum}.Write(p)
			check(t, err)
		}
		got := sum.entry("x")
		if got.SHA256 != hex.EncodeToString(sha[:]) || got.SM3 != hex.EncodeToString(sm3[:]) || got.Bytes != int64(len(b)) || !bytes.Equal(out.Bytes(), b) {
			t.Errorf("in pieces of %d: %+v", piece, got)
		}
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	check(t, err)
	defer full.Close()
	if n, err := (summing{full, newSums()}).Write(b); n != 0 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%d, %v", n, err)
	}
}

// TestNoRoom: the error says where there is none, what to do, and that nothing is lost.
func TestNoRoom(t *testing.T) {
	full := noRoom(&os.PathError{Op: "write", Err: syscall.ENOSPC}, "/media/disk")
	known := exchange.Known(full)
	if known == nil || known.Code != exchange.CodeMediumFull || !known.Temporary || !strings.Contains(known.Detail, "/media/disk") || !errors.Is(full, syscall.ENOSPC) {
		t.Errorf("%v", full)
	}
	if text := exchange.Explain(known.Code, "zh"); !strings.Contains(text.Fix, "重新导出") {
		t.Errorf("%+v", text)
	}
	if other := errors.New("something else"); noRoom(other, "x") != other { //nolint:errorlint // the same, not wrapped
		t.Error("another error is changed")
	}
}

// TestADiskThatFills during an export, for real where file systems can be mounted.
func TestADiskThatFills(t *testing.T) {
	medium := t.TempDir()
	if err := syscall.Mount("tmpfs", medium, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("a tmpfs cannot be mounted, which needs root (CAP_SYS_ADMIN); scripts/test runs this where it is root, as in CI: %v", err)
	}
	t.Cleanup(func() { check(t, syscall.Unmount(medium, 0)) })
	jia, yi := piers(t)
	var ids []string
	for range 40 {
		ids = append(ids, jia.send(yi))
	}
	_, _, err := jia.spool.ExportTo(t.Context(), medium)
	if exchange.CodeOf(err) != exchange.CodeMediumFull {
		t.Fatalf("%v", err)
	}
	if entries, err := os.ReadDir(medium); err != nil || len(entries) != 0 {
		t.Errorf("half of something is left: %v, %v", entries, err)
	}
	jia.export()
	carry(jia, yi)
	yi.take()
	if yi.inbox() != len(ids) {
		t.Errorf("%d of %d came", yi.inbox(), len(ids))
	}
}

// TestADirectoryThatKeepsItsFiles: what was taken from it is not taken again and again,
// and what comes behind is taken as well.
func TestADirectoryThatKeepsItsFiles(t *testing.T) {
	in := t.TempDir()
	if err := syscall.Mount("tmpfs", in, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("a tmpfs cannot be mounted, which needs root (CAP_SYS_ADMIN); scripts/test runs this where it is root, as in CI: %v", err)
	}
	t.Cleanup(func() { check(t, syscall.Unmount(in, syscall.MNT_DETACH)) })
	jia, yi := piers(t)
	yi.gate.In = in
	yi.open()
	for round := range 2 {
		jia.send(yi)
		for _, name := range jia.export() {
			b, err := os.ReadFile(jia.at(outFolder, name))
			check(t, err)
			check(t, os.WriteFile(filepath.Join(in, name), b, 0o600))
			check(t, os.Remove(jia.at(outFolder, name)))
		}
		check(t, syscall.Mount("", in, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
		for again := range 3 {
			if got := yi.take(); got.Files != map[bool]int{true: 1}[again == 0] || yi.inbox() != round+1 {
				t.Errorf("round %d, look %d: %+v, %d in the inbox", round, again, got, yi.inbox())
			}
		}
		check(t, syscall.Mount("", in, "", syscall.MS_REMOUNT, ""))
	}
}

// TestKeptFiles: what is half written is removed when the directory is opened.
func TestKeptFiles(t *testing.T) {
	dir := t.TempDir()
	k, err := OpenKept(dir)
	check(t, err)
	check(t, k.Put("a", func(w io.Writer) error { _, err := w.Write([]byte("12345")); return err }))
	check(t, os.WriteFile(filepath.Join(dir, "b"+partial), []byte("half"), 0o600))
	check(t, k.Close())
	k, err = OpenKept(dir)
	check(t, err)
	defer k.Close()
	n, size := 0, int64(0)
	check(t, k.Each(func(_ string, s int64) error { n, size = n+1, size+s; return nil }))
	if n != 1 || size != 5 {
		t.Errorf("%d files of %d bytes", n, size)
	}
	full := k.Put("c", func(io.Writer) error { return syscall.ENOSPC })
	if known := exchange.Known(full); known == nil || known.Code != exchange.CodeNoSpace || !strings.Contains(known.Detail, dir) {
		t.Errorf("%v", full)
	}
}

// TestAnArchiveWithPaths: the names in an archive lead nowhere, and what is in it is
// taken.
func TestAnArchiveWithPaths(t *testing.T) {
	jia, yi := piers(t)
	jia.gate = Config{Wrap: WrapZip, Extension: "zip"}
	jia.open()
	jia.send(yi)
	name := jia.export()[0]
	b, err := os.ReadFile(jia.at(outFolder, name))
	check(t, err)
	inner := []byte(strings.TrimSuffix(name, "zip") + "yzb")
	evil := append([]byte("../../../../"), bytes.Repeat([]byte("e"), len(inner)-12)...)
	if bytes.Count(b, inner) != 2 {
		t.Fatalf("the entry is called %q %d times", inner, bytes.Count(b, inner))
	}
	check(t, os.WriteFile(yi.at(inFolder, name), bytes.ReplaceAll(b, inner, evil), 0o600))
	check(t, os.WriteFile(yi.at(inFolder, "bomb.zip"), bomb(t), 0o600))
	if got := yi.take(); got.Files != 1 || yi.inbox() != 1 {
		t.Errorf("%+v", got)
	}
	*yi.clock = yi.clock.Add(patience)
	if got := yi.take(); got.Quarantined != 1 {
		t.Errorf("%+v", got)
	}
	reason, err := os.ReadFile(yi.at(quarantineFolder, "bomb.zip.reason.txt"))
	if err != nil || !bytes.Contains(reason, []byte("compressed")) || !bytes.Contains(reason, []byte("外壳")) {
		t.Errorf("%q, %v", reason, err)
	}
}

// TestADamagedWrapping gives what is whole in it; the rest comes again, and the file is
// put away once it stands still.
func TestADamagedWrapping(t *testing.T) {
	for _, wrap := range []string{WrapZip, WrapXML, WrapText} {
		t.Run(wrap, func(t *testing.T) {
			jia, yi := piers(t)
			jia.gate = Config{Wrap: wrap}
			jia.open()
			first := jia.export()
			jia.send(yi)
			name := jia.export()[len(first)]
			b, err := os.ReadFile(jia.at(outFolder, name))
			check(t, err)
			check(t, os.WriteFile(yi.at(inFolder, name), b[:len(b)-len(b)/8], 0o600))
			for range 2 {
				yi.take()
				*yi.clock = yi.clock.Add(patience)
			}
			if names := yi.list(quarantineFolder); len(names) != 2 || len(yi.list(inFolder)) != 0 {
				t.Fatalf("%v", names)
			}
			for range 3 {
				yi.export()
				carry(yi, jia)
				jia.take()
				_, err := jia.spool.Export(t.Context(), true)
				check(t, err)
				carry(jia, yi)
				yi.take()
			}
			if yi.inbox() != 1 {
				t.Errorf("%d documents came", yi.inbox())
			}
		})
	}
}

// FuzzManifest: whatever a list says, its names are names in one directory.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"version":1,"link":"jia-yi","from":"jia","to":"yi","round":1,"at":"2026-11-27T10:00:00Z","files":[{"file":"yz012345-000001-00.yzb","bytes":1,"sha256":"` +
		strings.Repeat("0", 64) + `","sm3":"` + strings.Repeat("0", 64) + `","bundles":[{"seq":1,"bytes":1,"documents":["a/b"]}]}]}`))
	f.Add([]byte(`{"version":1,"files":[{"file":"../x"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseManifest(b)
		if err != nil {
			return
		}
		for _, file := range m.Files {
			if filepath.Base(file.File) != file.File || strings.HasPrefix(file.File, ".") || file.Bytes < 0 {
				t.Fatalf("%+v", file)
			}
		}
		m.fill(&link.Exported{})
		_ = m.Text()
	})
}
