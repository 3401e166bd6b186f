package e2e

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSupervisedProcess: a real process tells a real socket that it is ready,
// that it lives, and that it stops; stopped as a whole, it says nothing.
func TestSupervisedProcess(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: starts a process")
	}
	c := newCluster(t, "jia")
	path := filepath.Join(c.dir, "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	hear := func(within time.Duration) string {
		b := make([]byte, 200)
		_ = l.SetReadDeadline(time.Now().Add(within))
		n, _ := l.Read(b)
		return string(b[:n])
	}
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "600000")
	p := c.nodes[0]
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	if got := hear(10 * time.Second); got != "READY=1" {
		t.Fatalf("heard %q first", got)
	}
	for range 3 {
		if got := hear(2 * time.Second); got != "WATCHDOG=1" {
			t.Fatalf("heard %q of a node that lives", got)
		}
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	for got := hear(time.Second); got != "STOPPING=1"; got = hear(time.Second) {
		if got != "WATCHDOG=1" {
			t.Fatalf("heard %q instead of the end", got)
		}
	}
	if got := hear(500 * time.Millisecond); got != "" {
		t.Errorf("heard %q after the end", got)
	}
}

// TestWhatTheWatchdogEndsIsStartedAgain: a process that systemd ends with SIGABRT,
// and one that panics, exit with a code that the unit starts again after.
func TestWhatTheWatchdogEndsIsStartedAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: starts a process")
	}
	b, err := os.ReadFile(filepath.Join("..", "..", "packaging", "systemd", "yizhan.service"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^RestartPreventExitStatus=(.*)$`).FindSubmatch(b)
	if m == nil {
		t.Fatal("the unit says nothing of what is not started again")
	}
	p := newCluster(t, "jia").nodes[0]
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGABRT)
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.cmd.Wait() // its code is what is looked at
	code := p.cmd.ProcessState.ExitCode()
	p.cmd = nil
	if slices.Contains(strings.Fields(string(m[1])), strconv.Itoa(code)) {
		t.Errorf("it ends with %d, and the unit does not start it again after %s", code, m[1])
	}
}

// TestUnit: systemd understands the unit, and finds little that it could do.
func TestUnit(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not installed: the unit is not checked here")
	}
	b, err := os.ReadFile(filepath.Join("..", "..", "packaging", "systemd", "yizhan.service"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Type=notify", "WatchdogSec=", "Restart=on-failure", "RestartPreventExitStatus=5\n"} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("the unit does not say %s", want)
		}
	}
	exe, err := os.Executable() // verify looks whether the program is there
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "yizhan.service")
	text := strings.Replace(string(b), "/usr/bin/yizhan", exe, 1)
	if err := os.WriteFile(unit, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-analyze", "verify", "--man=no", unit).CombinedOutput(); err != nil || bytes.Contains(out, []byte("yizhan.service:")) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=15", unit).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
	if m := regexp.MustCompile(`exposure level for \S+: ([0-9.]+)`).FindSubmatch(out); m != nil {
		t.Logf("exposure %s of 10", m[1])
	}
}
