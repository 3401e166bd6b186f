package e2e

import (
	"context"
	"encoding/json"
	"flag"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

var clocked = flag.Int("clocks", 0, "how many documents TestClocksOfProcesses sends; 0 skips it")

// A process has no clock of its own: Linux gives it none, and what is laid under a
// program to pretend one does not reach a Go program. So the clock is in the program:
// these nodes are built over a standard library in which the wall clock of time.Now is
// off by what a file says, and the monotonic clock is not, as it is when somebody sets
// the date. It is an overlay of the build; the sources of the program know nothing of it.
const (
	readsClock = "	sec, nsec, mono := runtimeNow()\n	if mono == 0 {"
	offClock   = "	sec, nsec, mono := runtimeNow()\n	sec += Shift.Load()\n	if mono == 0 {"
	shift      = "package time\n\nimport \"sync/atomic\"\n\n// Shift is how far the wall clock is off, seconds.\nvar Shift atomic.Int64\n"
)

// clockedBinary builds it. Nearly every package is compiled anew.
func clockedBinary(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	root, err := exec.Command("go", "list", "-f", "{{.Dir}}", "time", "github.com/yizhan-gateway/yizhan/cmd/yizhan").Output()
	if err != nil {
		t.Fatal(err)
	}
	dirs := strings.Fields(string(root))
	lib, err := os.ReadFile(filepath.Join(dirs[0], "time.go"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(lib), readsClock) != 1 {
		t.Fatal("this Go reads its clock in another way; mend readsClock")
	}
	over := map[string]string{}
	lay := func(path, text string) {
		name := filepath.Join(dir, strconv.Itoa(len(over))+".go")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		over[path] = name
	}
	main, err := os.ReadFile("testdata/clock.go.txt")
	if err != nil {
		t.Fatal(err)
	}
	lay(filepath.Join(dirs[0], "time.go"), strings.Replace(string(lib), readsClock, offClock, 1))
	lay(filepath.Join(dirs[0], "shift.go"), shift)
	lay(filepath.Join(dirs[1], "clock.go"), string(main))
	b, err := json.Marshal(map[string]any{"Replace": over})
	if err != nil {
		t.Fatal(err)
	}
	list, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "yizhan")
	if err := os.WriteFile(list, b, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-overlay", list, "-o", binary, "./cmd/yizhan")
	cmd.Dir = filepath.Join(dirs[1], "..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return binary
}

// clocks are the files that say how far each process is off.
type clocks struct {
	t   *testing.T
	dir string
}

func (c clocks) set(name string, off time.Duration) {
	file := filepath.Join(c.dir, name)
	err := os.WriteFile(file+".new", []byte(strconv.FormatInt(int64(off/time.Second), 10)), 0o600)
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		c.t.Error(err)
	}
}

// A clock goes off by that many seconds, minutes, hours or days; keys and directory were
// made longBefore, since nobody has them before they were.
const (
	strides    = 10
	longBefore = -20 * 24 * time.Hour
)

// TestClocksOfProcesses: the clock of each of two nodes jumps by seconds, minutes, hours
// and days, ahead and back, while documents pass, and is right in the end.
func TestClocksOfProcesses(t *testing.T) {
	if *clocked == 0 {
		t.Skip("compiles the standard library and all else anew, which takes minutes; scripts/campaign clock-process runs it")
	}
	c := clocks{t, t.TempDir()}
	t.Setenv("YIZHAN_TEST_CLOCKS", c.dir)
	names := []string{"jia", "yi"}
	for _, name := range append(names, "all") {
		c.set(name, longBefore)
	}
	nodes := rowOf(t, clockedBinary(t), nil, nil, names...)
	for _, name := range append(names, "all") {
		c.set(name, 0)
	}
	for _, p := range nodes.nodes {
		if err := p.start(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience(*clocked))
	defer cancel()
	r := newRun(t, ctx, nodes, *clocked)
	r.pace = 3
	r.trouble = func(ctx context.Context) {
		for ctx.Err() == nil {
			unit := []time.Duration{0, time.Second, time.Minute, time.Hour, 24 * time.Hour}[mrand.IntN(5)]
			c.set(names[mrand.IntN(2)], time.Duration(mrand.IntN(2*strides+1)-strides)*unit)
			r.kills.Add(1)
			time.Sleep(time.Duration(20+mrand.IntN(300)) * time.Millisecond)
		}
		for _, name := range names {
			c.set(name, 0)
		}
	}
	r.storm()
	r.checkOnce()
	r.checkEvidence()
	r.checkLedgers()
	r.tell("%d jumps of clocks", r.kills.Load())
}
