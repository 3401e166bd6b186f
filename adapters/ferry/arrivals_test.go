package ferry

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// TestLooksReachEverything: look after look, each file of a tree is met once, in
// order, whatever a look is allowed.
func TestLooksReachEverything(t *testing.T) {
	dir := t.TempDir()
	var want []string
	add := func(seen bool, path string) {
		check(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o700))
		check(t, os.WriteFile(filepath.Join(dir, path), nil, 0o600))
		if seen {
			want = append(want, path)
		}
	}
	for i := range 40 {
		add(true, fmt.Sprintf("f%02d", i))
		add(true, fmt.Sprintf("d%d/f%02d", i%3, i))
		add(true, fmt.Sprintf("d%d/e/g/f%02d", i%2, i))
		add(false, fmt.Sprintf("d0/e/g/h/f%02d", i)) // too deep
	}
	add(true, "d-1")    // sorts before d0/
	add(true, "d0.yzb") // and behind it
	add(true, ".hidden")
	add(false, ".git/config")
	check(t, os.MkdirAll(filepath.Join(dir, "empty/empty"), 0o700))
	root, err := os.OpenRoot(dir)
	check(t, err)
	defer root.Close()
	slices.Sort(want)
	for _, most := range []int{1, 2, 3, 7, 50, 1000} {
		var got []string
		next, more := "", true
		for looks := 0; more; looks++ {
			list, after, err := folder{root, dir, "."}.files(next, most)
			check(t, err)
			if len(list) > most || looks > 400 {
				t.Fatalf("look %d of %d entries gave %d", looks, most, len(list))
			}
			for _, f := range list {
				got = append(got, f.path)
			}
			next, more = after, after != ""
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("with %d a look: %v", most, got)
		}
	}
	names, err := namesFrom(root, ".", "f10", 5)
	check(t, err)
	if !slices.Equal(names, []string{"f10", "f11", "f12", "f13", "f14"}) {
		t.Errorf("%v", names)
	}
}

// TestManyStrangersHideNothing: so many files of the gate's own that one look does not
// reach the end.
func TestManyStrangersHideNothing(t *testing.T) {
	jia, yi := piers(t)
	const most, strangers = 100, 150
	yi.spool.most = most
	for i := range strangers {
		check(t, os.WriteFile(yi.at(inFolder, fmt.Sprintf(".nfs%05d", i)), nil, 0o600))
	}
	jia.send(yi)
	carry(jia, yi)
	jia.export()
	carry(jia, yi)
	first, second := yi.take(), yi.take()
	if first.Files != 0 || first.Waiting != most || second.Files != 1 || yi.inbox() != 1 {
		t.Fatalf("%+v, %+v", first, second)
	}
	*yi.clock = yi.clock.Add(longPatience)
	for range 2 { // each is looked into once
		yi.take()
	}
	if got := yi.take(); got.Waiting != 0 || len(yi.spool.in[0].seen) != strangers {
		t.Errorf("%+v, %d are remembered", got, len(yi.spool.in[0].seen))
	}
	for i := range strangers {
		check(t, os.Remove(yi.at(inFolder, fmt.Sprintf(".nfs%05d", i))))
	}
	for range 3 {
		yi.take()
	}
	if n := len(yi.spool.in[0].seen); n != 0 {
		t.Errorf("%d are remembered that are gone", n)
	}
}

// TestWhatNobodyMayDelete is taken once, is in nobody's way, and takes a bounded place
// in memory.
func TestWhatNobodyMayDelete(t *testing.T) {
	jia, yi := piers(t)
	whole := func() []byte {
		jia.send(yi)
		name := jia.export()[0]
		b, err := os.ReadFile(jia.at(outFolder, name))
		check(t, err)
		check(t, os.Remove(jia.at(outFolder, name)))
		return b
	}
	yi.warm(jia)
	in := yi.spool.in[0]
	yi.spool.most, in.room = 5, 15
	first := whole()
	for i := range 12 {
		check(t, os.WriteFile(yi.at(inFolder, fmt.Sprintf("a%02d.yzb", i)), first, 0o644))
	}
	reachable(t, yi.dir)
	reachable(t, yi.work)
	check(t, os.Chmod(filepath.Join(yi.work, "work"), 0o777))
	check(t, os.Chmod(filepath.Join(yi.dir, inFolder), 0o555))
	looks := func(n int) (files int) {
		asNobody(t, func() {
			for range n {
				got, err := yi.spool.Import(t.Context())
				check(t, err)
				files += got.Files
			}
		})
		return files
	}
	if n := looks(3); n != 12 {
		t.Errorf("%d were taken in three looks", n)
	}
	if n := looks(6); n != 0 {
		t.Errorf("%d were taken again", n)
	}
	check(t, os.Chmod(filepath.Join(yi.dir, inFolder), 0o755))
	check(t, os.WriteFile(yi.at(inFolder, "zz.yzb"), whole(), 0o644))
	for i := range 12 {
		check(t, os.WriteFile(yi.at(inFolder, fmt.Sprintf(".b%02d", i)), nil, 0o644))
	}
	check(t, os.Chmod(filepath.Join(yi.dir, inFolder), 0o555))
	if n := looks(5); n != 1 || yi.inbox() != 3 {
		t.Errorf("%d were taken, %d in the inbox", n, yi.inbox())
	}
	if len(in.seen) > in.room {
		t.Errorf("%d are remembered", len(in.seen))
	}
	check(t, os.Chmod(filepath.Join(yi.dir, inFolder), 0o755))
}

// warm lets one document cross, so that the files a node writes to are open.
func (p *pier) warm(from *pier) {
	p.Helper()
	from.send(p)
	from.export()
	carry(from, p)
	p.take()
}

// reachable lets everybody into a test's directory.
func reachable(t *testing.T, dir string) {
	t.Helper()
	check(t, os.Chmod(filepath.Dir(dir), 0o755)) //nolint:gosec // nothing is in it
	check(t, os.Chmod(dir, 0o777))               //nolint:gosec // the same
}

// TestAnErrorForgetsNothing: what was seen before trouble of our own stands still as
// long afterwards.
func TestAnErrorForgetsNothing(t *testing.T) {
	jia, yi := piers(t)
	jia.send(yi)
	name := jia.export()[0]
	whole, err := os.ReadFile(jia.at(outFolder, name))
	check(t, err)
	check(t, os.WriteFile(yi.at(inFolder, "cut.yzb"), whole[:len(whole)-1], 0o600))
	yi.take()
	*yi.clock = yi.clock.Add(patience / 2)
	work := yi.spool.c.Work
	yi.spool.c.Work = filepath.Join(work, "absent") // nothing can be copied
	check(t, os.WriteFile(yi.at(inFolder, "b.yzb"), whole, 0o600))
	if _, err := yi.spool.Import(t.Context()); err == nil {
		t.Fatal("nothing was wrong")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := yi.spool.Import(ended); err == nil {
		t.Fatal("it did not end")
	}
	yi.spool.c.Work = work
	*yi.clock = yi.clock.Add(patience / 2)
	// The one that is cut brings its note, and b.yzb all.
	if got := yi.take(); got.Files != 2 || got.Quarantined != 1 {
		t.Errorf("%+v", got)
	}
}

// TestLongNames as long as a file system lets them be stop nothing, are told apart, and
// may come again.
func TestLongNames(t *testing.T) {
	jia, yi := piers(t)
	jia.send(yi)
	name := jia.export()[0]
	whole, err := os.ReadFile(jia.at(outFolder, name))
	check(t, err)
	good, other := strings.Repeat("n", 255), strings.Repeat("n", 254)+"m"
	bad, chinese := "a"+strings.Repeat("b", 254), strings.Repeat("文", 85)
	for round := range 3 {
		*yi.clock = yi.clock.Add(time.Second)
		for _, name := range []string{good, other} {
			check(t, os.WriteFile(yi.at(inFolder, name), whole, 0o600))
		}
		for _, name := range []string{bad, chinese} {
			check(t, os.Symlink("/etc/passwd", yi.at(inFolder, name)))
		}
		if got := yi.take(); got.Files != 2 || got.Quarantined != 2 || len(yi.list(inFolder)) != 0 {
			t.Fatalf("round %d: %+v, in/ %v", round, got, yi.list(inFolder))
		}
	}
	if names := yi.list(doneFolder); len(names) != 2 {
		t.Errorf("done/ %v", names)
	}
	names := yi.list(quarantineFolder)
	for _, name := range names {
		if !utf8.ValidString(name) || !slices.Contains(names, strings.TrimSuffix(name, ".reason.txt")) {
			t.Errorf("%q", name)
		}
	}
	if len(names) != 12 {
		t.Errorf("quarantine/ %v", names)
	}
	if short := strings.Repeat("s", maxName); shortened(short) != short || len(shortened(short+"s")) > maxName {
		t.Errorf("%q, %q", shortened(short), shortened(short+"s"))
	}
}

// TestAMediumWithWhatMayNotBeRead: it waits and is told of, and the rest is taken.
func TestAMediumWithWhatMayNotBeRead(t *testing.T) {
	jia, yi := piers(t)
	yi.warm(jia)
	medium := t.TempDir()
	var files []string
	for range 3 {
		jia.send(yi)
		_, list, err := jia.spool.ExportTo(t.Context(), medium)
		check(t, err)
		files = append(files, list.Files[0].File)
	}
	entries, err := os.ReadDir(medium)
	check(t, err)
	for _, e := range entries {
		check(t, os.Chmod(filepath.Join(medium, e.Name()), 0o644))
	}
	check(t, os.Chmod(filepath.Join(medium, files[0]), 0))
	check(t, os.Mkdir(filepath.Join(medium, "lost+found"), 0o700))
	reachable(t, medium)
	asNobody(t, func() {
		got, err := yi.spool.ImportFrom(t.Context(), medium)
		if err != nil || got.Files != 2 || got.Waiting != 1 || len(got.Lists.Changed)+len(got.Lists.Missing) != 0 {
			t.Errorf("%+v, %+v, %v", got, got.Lists, err)
		}
	})
	check(t, os.Chmod(filepath.Join(medium, files[0]), 0o644))
	if got, err := yi.spool.ImportFrom(t.Context(), medium); err != nil || got.Files != 3 || got.Waiting != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	yi.take()
	if yi.inbox() != 4 {
		t.Errorf("%d in the inbox", yi.inbox())
	}
}

// TestAMediumWithMuchElse on it is read to its end.
func TestAMediumWithMuchElse(t *testing.T) {
	jia, yi := piers(t)
	medium := t.TempDir()
	yi.spool.most = 50
	for i := range yi.spool.most {
		check(t, os.WriteFile(filepath.Join(medium, fmt.Sprintf(".a%05d", i)), nil, 0o600))
	}
	jia.send(yi)
	_, _, err := jia.spool.ExportTo(t.Context(), medium)
	check(t, err)
	if got, err := yi.spool.ImportFrom(t.Context(), medium); err != nil || got.Files != 1 || got.Lists.Lists != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}
