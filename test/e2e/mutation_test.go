package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	mutations    = flag.Int("mutations", 12, "how many files TestMutatedFiles damages, each in a copy of its own")
	mutationSeed = flag.Uint64("mutation-seed", 0, "the seed of TestMutatedFiles; 0 is one of its own")
)

// stored is what fsck says of a data directory.
type stored struct {
	OK       bool             `json:"ok"`
	Checked  map[string]int64 `json:"checked"`
	Problems []struct{ What string }
}

// fsck compares what is stored; refused says that the store could not even be
// opened, and why.
func (c *cluster) fsck(data string) (s stored, refused string) {
	c.t.Helper()
	cmd := exec.Command(c.binary, "fsck", "--data", data, "--read-data", "--json")
	var out, trouble strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &trouble
	err := cmd.Run()
	if strings.Contains(trouble.String(), "panic:") || strings.Contains(trouble.String(), "goroutine ") {
		c.t.Errorf("fsck fell over:\n%s", trouble.String())
	}
	if json.Unmarshal([]byte(out.String()), &s) != nil {
		return s, fmt.Sprint(err, ": ", tail([]byte(trouble.String()), 300))
	}
	return s, ""
}

// TestMutatedFiles: one stored file of a node that was killed is cut, changed, zeroed or
// taken away. Either fsck names it or the store does not open; or nothing is
// missing; or the store is at an earlier state, which a neighbour's memory shows
// (I4, I8). It is never taken for whole while something is lost.
func TestMutatedFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: starts real nodes; scripts/test runs it")
	}
	c := newCluster(t, "jia", "yi")
	jia, yi := c.nodes[0], c.nodes[1]
	for _, p := range c.nodes {
		if err := p.start(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience(*mutations))
	defer cancel()
	r := newRun(t, ctx, c, 12)
	for i, x := range r.all {
		x.body = slices.Repeat(x.body[:32], 4+i*i*1000)
		r.submit(x)
	}
	signing, signed := context.WithCancel(ctx)
	go r.sign(signing)
	for _, x := range r.all {
		r.awaitSigned(x)
	}
	signed()
	r.checkOnce()
	r.checkEvidence()
	jia.kill()
	yi.kill() // what was committed last is in the log of the store alone
	whole, refused := c.fsck(yi.data)
	if !whole.OK || refused != "" {
		t.Fatalf("before anything was damaged: %+v %s", whole, refused)
	}
	seed := *mutationSeed
	if seed == 0 {
		seed = mrand.Uint64()
	}
	rng := mrand.New(mrand.NewPCG(seed, 1))
	count := map[string]int{}
	for i := range *mutations {
		what, outcome := r.mutate(rng, whole)
		count[outcome]++
		if outcome == "lost" {
			r.lost[what] = true
		}
		if outcome == "doubled" {
			r.duplicated++
		}
		if outcome == "lost" || outcome == "doubled" {
			t.Errorf("mutation %d (%s): %s, and it is not noticed; -mutation-seed %d", i, what, outcome, seed)
		}
	}
	r.tell("%d mutations of stored files: %d detected, %d rolled back and learnt, %d without effect", *mutations,
		count["detected"], count["rolled back"], count["harmless"])
	if *mutations >= 12 && count["detected"] == 0 {
		t.Errorf("no damage was detected: %v (-mutation-seed %d)", count, seed)
	}
}

// mutate damages one file in a copy of the receiver's data, and says what became
// of it.
func (r *run) mutate(rng *mrand.Rand, whole stored) (what, outcome string) {
	r.t.Helper()
	dir := r.t.TempDir()
	data := filepath.Join(dir, "yi")
	if out, err := exec.Command("cp", "-a", "--sparse=always", r.yi.data, data).CombinedOutput(); err != nil {
		r.t.Fatalf("%v: %s", err, out)
	}
	defer os.RemoveAll(dir)
	what = damageOne(r.t, rng, data)
	got, refused := r.jia.c.fsck(data)
	switch {
	case refused != "" || !got.OK:
		return what, "detected"
	case maps.Equal(got.Checked, whole.Checked):
		r.receipts += int(got.Checked["rcp"]) // each with its signature and its leaf
		return what, "harmless"
	case got.Checked["box"] > whole.Checked["box"]:
		return what, "doubled"
	case got.Checked["leaf"] < whole.Checked["leaf"] && r.learnt(data):
		return what, "rolled back"
	}
	return fmt.Sprintf("%s: %v of %v", what, got.Checked, whole.Checked), "lost"
}

// damageOne changes one file of the store or of the blobs.
func damageOne(t *testing.T, rng *mrand.Rand, data string) string {
	t.Helper()
	var files []string
	for _, part := range []string{"store", "blobs"} {
		err := filepath.WalkDir(filepath.Join(data, part), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			if info, err := d.Info(); err != nil || info.Size() == 0 || d.Name() == "LOCK" {
				return err
			}
			files = append(files, path)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	path := files[rng.IntN(len(files))]
	name, _ := filepath.Rel(data, path) // a path below it
	how := []string{"truncate", "flip", "zero", "delete"}[rng.IntN(4)]
	if how == "delete" {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		return name + " deleted"
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	at := somewhere(t, rng, f)
	switch how {
	case "truncate":
		err = f.Truncate(at)
	case "zero":
		_, err = f.WriteAt(make([]byte, 64), at)
	case "flip":
		var b [1]byte
		if _, err = f.ReadAt(b[:], at); err == nil {
			b[0] ^= 1 << rng.IntN(8)
			_, err = f.WriteAt(b[:], at)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s: %s at %d", name, how, at)
}

// somewhere is an offset at which the file has content: much of what is
// preallocated has none.
func somewhere(t *testing.T, rng *mrand.Rand, f *os.File) int64 {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	size := min(info.Size(), 4<<20)
	content := make([]byte, size)
	if _, err := f.ReadAt(content, 0); err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		if at := rng.Int64N(size); content[at] != 0 {
			return at
		}
	}
	return 0
}

// learnt says whether a store at an earlier state is found out when the node
// meets its neighbour, or lacks nothing that the neighbour counts on.
func (r *run) learnt(data string) bool {
	r.t.Helper()
	whole := r.yi.data
	r.yi.data = data
	defer func() { r.yi.data = whole }()
	for _, p := range []*proc{r.jia, r.yi} {
		if p.start() != nil { // refusing is noticing
			r.jia.kill()
			r.yi.kill()
			return true
		}
		defer p.kill()
	}
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if _, err := r.yi.submit(r.ctx, fmt.Sprint(end.UnixNano()), r.yi.agency, "试", []byte("x")); err != nil && strings.Contains(err.Error(), "ledger_rolled_back") {
			return true
		}
	}
	in := map[string]string{}
	for _, item := range r.inbox() {
		in[item.Document] = item.Stage
	}
	return !slices.ContainsFunc(r.all, func(x *crossing) bool { return in[x.id] != "SIGNED_FOR" })
}
