package ferry

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func probed(t *testing.T) (p *Probe, from, to string, files []ProbeFile) {
	t.Helper()
	p = &Probe{Run: "0123abcd", Sizes: []int64{1024, 100_000, 3 << 20}, Made: time.Now().UTC().Truncate(time.Millisecond)}
	from, to = t.TempDir(), t.TempDir()
	files, err := p.Send(t.Context(), from)
	check(t, err)
	return p, from, to, files
}

func look(t *testing.T, dir string) *ProbeReport {
	t.Helper()
	r, err := new(ProbeWatch).Look(dir, time.Now())
	check(t, err)
	return r
}

// through carries the files of a probe as a gate does; nil stops one.
func through(t *testing.T, from, to string, files []ProbeFile, change func(f ProbeFile, b []byte) (name string, out []byte)) *ProbeReport {
	t.Helper()
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(from, f.File))
		check(t, err)
		if name, out := change(f, b); out != nil {
			check(t, os.WriteFile(filepath.Join(to, name), out, 0o600))
		}
	}
	return look(t, to)
}

// TestProbes: for each kind of gate, what is found out about it, and what is recommended.
func TestProbes(t *testing.T) {
	for name, g := range map[string]struct {
		gate func(f ProbeFile, b []byte) (string, []byte)
		fate string
		few  int // files that share it, at least
		toml string
	}{
		"an open gate": {func(f ProbeFile, b []byte) (string, []byte) { return f.File, b }, ProbeIdentical, 20, `extension = "yzb"
wrap = "none"
file_mib = 3
`},
		"names in capitals": {func(f ProbeFile, b []byte) (string, []byte) { return strings.ToUpper(f.File), b }, ProbeRenamed, 20, `wrap = "none"`},
		"a whitelist of names": {func(f ProbeFile, b []byte) (string, []byte) {
			if f.Extension != "dat" {
				return "", nil
			}
			return f.File, b
		}, ProbeMissing, 10, `extension = "dat"`},
		"XML alone": {func(f ProbeFile, b []byte) (string, []byte) {
			if !bytes.HasPrefix(b, []byte("<?xml")) {
				return "", nil
			}
			return f.File, b
		}, ProbeMissing, 10, `extension = "xml"
wrap = "xml"
file_mib = 3
`},
		"no file above 1 MiB": {func(f ProbeFile, b []byte) (string, []byte) { return f.File, b[:min(len(b), 1<<20)] }, ProbeTruncated, 5, "file_mib = 1\n"},
		"line ends": {func(f ProbeFile, b []byte) (string, []byte) {
			return f.File, bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
		}, ProbeChanged, 15, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, from, to, files := probed(t)
			r := through(t, from, to, files, g.gate)
			if r.Fates[g.fate] < g.few || !strings.Contains(r.TOML, g.toml) || g.toml == "" && (r.TOML != "" || len(r.Advice) != 1) {
				t.Errorf("%v\n%s\n%v", r.Fates, r.TOML, r.Advice)
			}
			total := 0
			for _, n := range r.Fates {
				total += n
			}
			if total != len(files) || total != len(r.Files) {
				t.Errorf("%d fates of %d files", total, len(files))
			}
		})
	}
}

// TestAProbeOfSomethingElse: what lies beside, an older run, one file twice.
func TestAProbeOfSomethingElse(t *testing.T) {
	p, from, to, files := probed(t)
	if _, err := new(ProbeWatch).Look(to, time.Now()); err == nil {
		t.Error("an empty directory says something")
	}
	older := *p
	older.Run, older.Made, older.Sizes = "ffffffff", p.Made.Add(-time.Hour), []int64{1024}
	_, err := older.Send(t.Context(), to)
	check(t, err)
	check(t, os.WriteFile(filepath.Join(to, "readme.txt"), []byte("readme"), 0o600))
	check(t, os.Symlink("/etc/passwd", filepath.Join(to, "link")))
	r := through(t, from, to, files, func(f ProbeFile, b []byte) (string, []byte) {
		check(t, os.WriteFile(filepath.Join(to, "copy-"+f.File), b, 0o600))
		return f.File, b
	})
	if r.Run != p.Run || r.Foreign != len(older.Files())+1 || r.Fates[ProbeIdentical] != len(files) || r.Files[0].Copies != 2 {
		t.Errorf("%s, %d foreign, %v, %d copies", r.Run, r.Foreign, r.Fates, r.Files[0].Copies)
	}
}

// TestProbeWatching: a file that grows is judged again, and when it came is noted.
func TestProbeWatching(t *testing.T) {
	p, from, to, files := probed(t)
	var w ProbeWatch
	put := func(f ProbeFile, part int) {
		b, err := os.ReadFile(filepath.Join(from, f.File))
		check(t, err)
		check(t, os.WriteFile(filepath.Join(to, f.File), b[:len(b)/part], 0o600))
	}
	put(files[0], 1)
	_, err := w.Look(to, p.Made.Add(time.Second))
	check(t, err)
	put(files[1], 2)
	r, err := w.Look(to, p.Made.Add(10*time.Second))
	check(t, err)
	if r.Files[1].Fate != ProbeTruncated {
		t.Errorf("%+v", r.Files[1])
	}
	put(files[1], 1)
	r, err = w.Look(to, p.Made.Add(20*time.Second))
	check(t, err)
	if one := r.Files[1]; one.Fate != ProbeIdentical || one.Seconds != 10 || r.Rate == 0 {
		t.Errorf("%+v, %v bytes/s", one, r.Rate)
	}
}

// TestProbeSizes are bounded before anything is written.
func TestProbeSizes(t *testing.T) {
	for _, sizes := range [][]int64{nil, {1023}, {MaxProbe + 1}, make([]int64, 17)} {
		p := &Probe{Run: "0123abcd", Sizes: sizes}
		if _, err := p.Send(t.Context(), t.TempDir()); err == nil {
			t.Errorf("%v", sizes)
		}
	}
	if _, err := (&Probe{Run: "../../..", Sizes: []int64{1024}}).Send(t.Context(), t.TempDir()); err == nil {
		t.Error("a run that is a path")
	}
}

// FuzzProbe: what a file says of itself is bounded, and leads to no other file.
func FuzzProbe(f *testing.F) {
	p := &Probe{Run: "0123abcd", Sizes: []int64{1024, 2048}, Made: time.Unix(1_700_000_000, 0).UTC()}
	var b bytes.Buffer
	check(f, p.content(3, &p.Files()[3], &b))
	f.Add(b.Bytes()[:probeHead])
	name := regexp.MustCompile(`^[0-9A-Za-z.-]{1,255}$`)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, n, err := ParseProbe(b)
		if err != nil {
			return
		}
		files := p.Files()
		if n >= len(files) || len(files) > 200 || !name.MatchString(files[n].File) || files[n].Size > MaxProbe {
			t.Fatalf("%d of %+v", n, files)
		}
	})
}
