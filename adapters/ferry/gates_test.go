package ferry

import (
	"archive/zip"
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// gate moves files from one directory to another, in its own way. It is asked once a
// minute, and remembers what it likes.
type gate struct {
	*testing.T
	from, to string
	round    int
	took     map[string]bool
	pending  map[string][]byte
}

func (g *gate) read(name string) []byte {
	b, err := os.ReadFile(filepath.Join(g.from, name))
	check(g.T, err)
	return b
}

func (g *gate) write(name string, b []byte) {
	path := filepath.Join(g.to, name)
	check(g.T, os.MkdirAll(filepath.Dir(path), 0o700))
	check(g.T, os.WriteFile(path, b, 0o600))
}

func (g *gate) names() (list []string) {
	entries, err := os.ReadDir(g.from)
	check(g.T, err)
	for _, e := range entries {
		if !e.IsDir() {
			list = append(list, e.Name())
		}
	}
	return list
}

// each takes every file of the sender once, and lets it be or not.
func (g *gate) each(remove bool, do func(name string, b []byte)) {
	for _, name := range g.names() {
		if g.took[name] {
			continue
		}
		g.took[name] = true
		do(name, g.read(name))
		if remove {
			check(g.T, os.Remove(filepath.Join(g.from, name)))
		}
	}
}

func (g *gate) deliver(rename func(string) string) {
	g.each(true, func(name string, b []byte) { g.write(rename(name), b) })
}

func same(name string) string { return name }

// only lets pass what it takes for good.
func (g *gate) only(good func(name string, b []byte) error) {
	g.each(true, func(name string, b []byte) {
		if err := good(name, b); err != nil {
			g.Fatalf("the gate stops %s: %v", name, err)
		}
		g.write(name, b)
	})
}

// finishing writes files in steps, one a minute.
func (g *gate) finishing(steps func(b []byte) [][]byte) {
	for name, b := range g.pending {
		if have, err := os.ReadFile(filepath.Join(g.to, name)); err != nil {
			g.Fatalf("%s was taken while the gate wrote it, at %d bytes: %v", name, len(have), err)
		}
		g.write(name, b)
		delete(g.pending, name)
	}
	g.each(true, func(name string, b []byte) {
		all := steps(b)
		g.write(name, all[0])
		g.pending[name] = all[1]
	})
}

var gates = map[string]struct {
	config Config // of both sides
	minute func(g *gate)
	step   time.Duration // between two looks; 0 is a minute
	left   int           // files that may lie in out/ at the end, of each side
	halves bool          // it brings half files that nobody finishes
}{
	"moves": {minute: func(g *gate) { g.deliver(same) }},
	"renames": {minute: func(g *gate) {
		g.deliver(func(s string) string { return fmt.Sprintf("f%d-%d.dat", g.round, len(g.took)) })
	}},
	"writes in capitals":       {minute: func(g *gate) { g.deliver(strings.ToUpper) }},
	"appends a suffix":         {minute: func(g *gate) { g.deliver(func(s string) string { return s + ".20261127.ok" }) }},
	"cuts the extension":       {minute: func(g *gate) { g.deliver(func(s string) string { return strings.TrimSuffix(s, ".yzb") }) }},
	"flattens":                 {minute: func(g *gate) { g.deliver(func(s string) string { return "srv_gate_out_" + s }) }},
	"makes folders":            {minute: func(g *gate) { g.deliver(func(s string) string { return "2026/11/27/" + s }) }},
	"names what is whole .tmp": {minute: func(g *gate) { g.deliver(func(s string) string { return s + ".TMP" }) }, step: 6 * time.Minute},
	"hides what is whole":      {minute: func(g *gate) { g.deliver(func(s string) string { return "." + s }) }, step: 6 * time.Minute},
	"delivers twice": {minute: func(g *gate) {
		g.each(true, func(name string, b []byte) { g.write(name, b); g.write("again-"+name, b) })
	}},
	"leaves everything": {left: 1, minute: func(g *gate) { g.each(false, g.write) }},
	"leaves everything and brings it again": {left: 1, minute: func(g *gate) {
		for _, name := range g.names() {
			g.write(name, g.read(name))
		}
	}},
	"grabs .part": {halves: true, minute: func(g *gate) {
		g.each(true, func(name string, b []byte) { g.write(name+".part", b[:len(b)/2]); g.write(name, b) })
	}},
	"keeps the times": {minute: func(g *gate) {
		g.each(true, func(name string, b []byte) {
			g.write(name, b)
			old := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
			check(g.T, os.Chtimes(filepath.Join(g.to, name), old, old))
		})
	}},
	"grows slowly": {step: 20 * time.Second, minute: func(g *gate) {
		g.finishing(func(b []byte) [][]byte { return [][]byte{b[:len(b)/2], b} })
	}},
	"fills zeros from the front": {step: 20 * time.Second, minute: func(g *gate) {
		g.finishing(func(b []byte) [][]byte {
			half := slices.Clone(b)
			clear(half[len(b)/2:])
			return [][]byte{half, b}
		})
	}},
	"fills zeros from the back": {step: 20 * time.Second, minute: func(g *gate) {
		g.finishing(func(b []byte) [][]byte {
			half := slices.Clone(b)
			clear(half[:len(b)/2])
			return [][]byte{half, b}
		})
	}},
	"renames when it is whole": {step: 20 * time.Second, minute: func(g *gate) {
		for name := range g.pending {
			check(g.T, os.Rename(filepath.Join(g.to, name+".filepart"), filepath.Join(g.to, name)))
			delete(g.pending, name)
		}
		g.each(true, func(name string, b []byte) { g.write(name+".filepart", b); g.pending[name] = b })
	}},
	"keeps locks and folders of its own": {minute: func(g *gate) {
		g.write(".lock", nil)
		g.write(".nfs0001", []byte("something"))
		check(g.T, os.MkdirAll(filepath.Join(g.to, "archive"), 0o700))
		g.deliver(same)
	}},
	"takes archives alone": {config: Config{Wrap: WrapZip, Extension: "zip"}, minute: func(g *gate) {
		g.only(func(name string, b []byte) error {
			z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
			if err != nil || len(z.File) != 1 || !strings.HasSuffix(name, ".zip") {
				return fmt.Errorf("%w: %d entries", err, len(z.File))
			}
			r, err := z.File[0].Open()
			if err == nil {
				_, err = io.Copy(io.Discard, r) // checks the CRC
			}
			return err
		})
	}},
	"takes XML alone": {config: Config{Wrap: WrapXML, Extension: "xml"}, minute: func(g *gate) { g.only(wellFormed) }},
	"writes XML anew": {config: Config{Wrap: WrapXML, Extension: "xml"}, minute: func(g *gate) {
		g.each(true, func(name string, b []byte) {
			s := strings.Replace(string(b), `<?xml version="1.0" encoding="UTF-8"?>`, "\xef\xbb\xbf<?xml version='1.0'?><!-- checked -->", 1)
			g.write(name, []byte(strings.ReplaceAll(s, "<data>\n", "\n    <data>")))
		})
	}},
	"takes text alone": {config: Config{Wrap: WrapText, Extension: "txt"}, minute: func(g *gate) { g.only(plain) }},
	"changes line ends": {config: Config{Wrap: WrapText, Extension: "txt"}, minute: func(g *gate) {
		g.each(true, func(name string, b []byte) { g.write(name, bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))) })
	}},
	"lets .DAT pass": {config: Config{Extension: "DAT"}, minute: func(g *gate) {
		g.only(func(name string, b []byte) error {
			if !strings.HasSuffix(name, ".DAT") {
				return errors.New("its name")
			}
			return nil
		})
	}},
}

func wellFormed(name string, b []byte) error {
	d := xml.NewDecoder(bytes.NewReader(b))
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if text, is := t.(xml.CharData); is && len(text) > 10_000_000 {
			return errors.New("a text node that libxml2 refuses")
		}
	}
}

func plain(name string, b []byte) error {
	for _, line := range bytes.Split(b, []byte("\n")) {
		if len(line) > 76 || bytes.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) {
			return errors.New("no plain text")
		}
	}
	return nil
}

// TestGates: whatever a gate does to names, folders, times and the order of bytes,
// everything arrives once and is proven, nothing is left in the quarantine but halves
// that nobody finished, and both sides fall silent. Every second one has directories
// of its own in place of the spool's.
func TestGates(t *testing.T) {
	for i, name := range slices.Sorted(maps.Keys(gates)) {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && i%4 != 0 {
				t.Skip("-short: every fourth gate is tried; scripts/test, and go test without -short, try them all")
			}
			t.Parallel() // they wait for the disk
			kind := gates[name]
			jia, yi := piers(t)
			ways := gateBetween(t, jia, yi, kind.config, i%2 == 0)
			var ids []string
			for i := range 2 {
				ids = append(ids, jia.send(yi))
				yi.send(jia)
				pass(t, kind.minute, kind.step, ways, jia, yi, 2+i)
			}
			pass(t, kind.minute, kind.step, ways, jia, yi, 10)
			arrivedOnce(t, jia, yi, ids)
			for _, p := range []*pier{jia, yi} {
				p.settled(kind.left)
				if names := p.list(quarantineFolder); len(names) > 0 && !kind.halves {
					t.Errorf("in the quarantine: %v", names)
				}
			}
		})
	}
}

// gateBetween opens both spools for a gate: with its own directories or in the spool.
func gateBetween(t *testing.T, jia, yi *pier, c Config, apart bool) (ways [2]*gate) {
	for i, p := range []*pier{jia, yi} {
		p.gate = c
		if apart {
			p.gate.Out, p.gate.In = t.TempDir(), t.TempDir()
			if i == 0 {
				p.gate.Partial = t.TempDir()
			}
		}
		p.open()
	}
	at := func(p *pier) (out, in string) {
		if apart {
			return p.gate.Out, p.gate.In
		}
		return filepath.Join(p.dir, outFolder), filepath.Join(p.dir, inFolder)
	}
	outJia, inJia := at(jia)
	outYi, inYi := at(yi)
	made := func(from, to string) *gate {
		return &gate{T: t, from: from, to: to, took: map[string]bool{}, pending: map[string][]byte{}}
	}
	ways[0], ways[1] = made(outJia, inYi), made(outYi, inJia)
	return ways
}

// pass lets time go on, with everybody doing what they do.
func pass(t *testing.T, minute func(*gate), step time.Duration, ways [2]*gate, jia, yi *pier, minutes int) {
	t.Helper()
	if step == 0 {
		step = time.Minute
	}
	for range minutes {
		for i, p := range []*pier{jia, yi} {
			*p.clock = p.clock.Add(step / 2)
			status, err := p.spool.Status(t.Context())
			check(t, err)
			_, err = p.spool.step(t.Context(), status.Outstanding > 0)
			check(t, err)
			for did := true; did; {
				did, err = p.node.Work(t.Context())
				check(t, err)
			}
			ways[i].round++
			minute(ways[i])
		}
	}
}

// settled says that nothing is outstanding, kept, refused or half written.
func (p *pier) settled(left int) {
	p.Helper()
	st, err := p.spool.Status(p.Context())
	check(p.T, err)
	if st.Outstanding != 0 || st.Kept != 0 || st.Lost != 0 {
		p.Errorf("%+v", st)
	}
	out, part := listed(p.T, p.spool.out.to), listed(p.T, p.spool.out.part)
	if half := slices.DeleteFunc(append(out, part...), func(s string) bool { return !strings.HasSuffix(s, partial) }); len(out) > left || len(half) > 0 {
		p.Errorf("out/ %v, half %v", out, half)
	}
}

// TestAPartThatIsWhole under a name that says it is not: it is taken when nobody writes
// it any more.
func TestAPartThatIsWhole(t *testing.T) {
	jia, yi := piers(t)
	jia.send(yi)
	name := jia.export()[0]
	whole, err := os.ReadFile(jia.at(outFolder, name))
	check(t, err)
	check(t, os.WriteFile(yi.at(inFolder, name+partial), whole, 0o600))
	for range 2 {
		if got := yi.take(); got.Waiting != 1 || got.Files != 0 {
			t.Fatalf("%+v", got)
		}
		*yi.clock = yi.clock.Add(longPatience - time.Minute)
	}
	if got := yi.take(); got.Files != 1 || yi.inbox() != 1 {
		t.Fatalf("%+v", got)
	}
}

// TestNothingGoesAgainBecauseOutIsEmpty: who takes a file may delete it.
func TestNothingGoesAgainBecauseOutIsEmpty(t *testing.T) {
	jia, yi := piers(t)
	jia.send(yi)
	check(t, os.Remove(jia.at(outFolder, jia.export()[0])))
	jia.open()
	if got, err := jia.spool.Export(t.Context(), true); err != nil || got.Bundles != 0 || got.Files != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestDirectoriesThatCannotServe are refused with what is wrong with them.
func TestDirectoriesThatCannotServe(t *testing.T) {
	jia, _ := piers(t)
	one := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	check(t, os.Symlink(one, link))
	for name, c := range map[string]struct {
		gate Config
		want string
	}{
		"absent":             {Config{Out: filepath.Join(one, "absent")}, "is it mounted"},
		"one for both":       {Config{Out: one, In: one}, "one directory"},
		"acks in out":        {Config{Out: one, Ack: one}, "one directory"},
		"one behind a link":  {Config{Out: one, In: link}, "one directory"},
		"the spool's":        {Config{Out: filepath.Join(jia.dir, inFolder)}, "one directory"},
		"another wrapping":   {Config{Wrap: "rar"}, "none, zip, xml, text"},
		"a path":             {Config{Extension: "../x"}, "letters and digits"},
		"partial without it": {Config{Partial: one}, "belongs to"},
	} {
		t.Run(name, func(t *testing.T) {
			c.gate.Ferry, c.gate.Dir, c.gate.Work, c.gate.Lists = jia.spool.f, jia.dir, jia.work, t.TempDir()
			c.gate.Logger, c.gate.Now = jia.spool.log, jia.spool.now
			if _, err := Open(c.gate); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestNobodyLeadsARenameElsewhere: who may write in the gate's directory, or in the
// spool, makes a folder a link while a file is moved.
func TestNobodyLeadsARenameElsewhere(t *testing.T) {
	_, yi := piers(t)
	yi.gate.In = t.TempDir()
	yi.open()
	secret := t.TempDir()
	check(t, os.WriteFile(filepath.Join(secret, "key"), []byte("secret"), 0o600))
	check(t, os.Symlink(secret, filepath.Join(yi.gate.In, "sub")))
	if err := move(yi.spool.in[0].folder, "sub/key", yi.spool.done, "key"); err == nil {
		t.Error("a file from elsewhere was moved")
	}
	check(t, os.WriteFile(filepath.Join(yi.gate.In, "new"), []byte("new"), 0o600))
	check(t, os.Remove(filepath.Join(yi.dir, doneFolder)))
	check(t, os.Symlink(secret, filepath.Join(yi.dir, doneFolder)))
	if err := move(yi.spool.in[0].folder, "new", yi.spool.done, "key"); err == nil {
		t.Error("a file was moved elsewhere")
	}
	if b, err := os.ReadFile(filepath.Join(secret, "key")); err != nil || string(b) != "secret" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestAnotherFileSystem: a directory for partial files from which nothing can be
// renamed is refused at the start, before anything is written there.
func TestAnotherFileSystem(t *testing.T) {
	other := "/dev/shm"
	if !apartFrom(t, other, t.TempDir()) {
		other = "/tmp"
	}
	dir, err := os.MkdirTemp(other, "yizhan-test-")
	if err != nil || !apartFrom(t, dir, t.TempDir()) {
		t.Skipf("/dev/shm, /tmp and the directory for temporary files are one file system here; where /dev/shm is a tmpfs, as on Linux by default and in CI, this test runs (%v)", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	jia, yi := piers(t)
	c := jia.spool.c
	c.Out, c.Partial = t.TempDir(), dir
	if _, err := Open(c); err == nil || !strings.Contains(err.Error(), "another file system") || !strings.Contains(err.Error(), dir) {
		t.Errorf("%v", err)
	}
	// What comes in from elsewhere is copied to done/, and is gone afterwards.
	yi.gate.In = dir
	yi.open()
	jia.send(yi)
	name := jia.export()[0]
	whole, err := os.ReadFile(jia.at(outFolder, name))
	check(t, err)
	check(t, os.WriteFile(filepath.Join(dir, name), whole, 0o600))
	check(t, os.Symlink("/etc/passwd", filepath.Join(dir, "link.yzb")))
	long := strings.Repeat("l", 255)
	check(t, os.WriteFile(filepath.Join(dir, long), whole, 0o600))
	got := yi.take()
	done, err := os.ReadFile(yi.at(doneFolder, name))
	left, _ := os.ReadDir(dir)
	if got.Files != 2 || got.Quarantined != 1 || err != nil || !bytes.Equal(done, whole) || len(left) != 0 {
		t.Errorf("%+v, %v, %v", got, err, left)
	}
}

func apartFrom(t *testing.T, dir, from string) bool {
	t.Helper()
	name := filepath.Join(dir, "yizhan-rename-test")
	if os.WriteFile(name, nil, 0o600) != nil {
		return false
	}
	err := os.Rename(name, filepath.Join(from, "x"))
	_ = os.Remove(name)
	return err != nil && !errors.Is(err, fs.ErrNotExist)
}

// TestFileNamesOfEveryExtension keep their pattern, which the sheet for the gate names.
func TestFileNamesOfEveryExtension(t *testing.T) {
	jia, yi := piers(t)
	jia.gate = Config{Extension: "xml"}
	jia.open()
	jia.send(yi)
	if names := jia.export(); len(names) != 1 || !regexp.MustCompile(`^yz[0-9a-f]{6}-[0-9]{6}-[0-9]{2}\.xml$`).MatchString(names[0]) {
		t.Errorf("%v", names)
	}
}
