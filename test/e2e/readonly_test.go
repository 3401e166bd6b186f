package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// turnReadOnly lets the kernel find an error in the file system: with
// errors=remount-ro it takes nothing from then on, as with a disk that fails. The
// test is skipped where that is not permitted.
func (d *loopDisk) turnReadOnly() {
	d.t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		d.t.Fatal(err)
	}
	device := ""
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); fields[1] == d.path {
			device = filepath.Base(fields[0])
		}
	}
	trigger := filepath.Join("/sys/fs/ext4", device, "trigger_fs_error")
	if err := os.WriteFile(trigger, []byte("1"), 0); err != nil {
		d.t.Skipf("no file system can be turned read-only here under a process that writes: %v", err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if f, err := os.CreateTemp(d.path, "probe"); err != nil {
			return
		} else if f.Close(); time.Now().After(end) {
			d.t.Fatal("the file system still takes files")
		}
	}
}

// TestReadOnlyDisk: the file system under both nodes turns read-only in the middle
// of traffic. From then on no node acknowledges anything or starts; it says why
// instead of falling over. When the disk is mended, what was acknowledged is there,
// once (I1, I2), and what is stored fits together (I8).
func TestReadOnlyDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: starts real nodes; scripts/test runs it")
	}
	disk := newLoopDisk(t, "ext4", "errors=remount-ro")
	r := onLoopDisk(t, disk, 2, func(r *run) {
		disk.turnReadOnly()
		if _, err := r.jia.submit(t.Context(), "read-only", r.yi.agency, "只读", []byte("正文")); err == nil {
			t.Error("a node accepts a document on a disk that takes nothing")
		}
		for _, p := range r.nodes {
			p.kill()
			if err := p.start(); err == nil {
				t.Errorf("%s starts on a disk that takes nothing", p.id)
			}
			p.kill()
			p.saysReadOnly()
		}
		disk.mend()
	})
	r.tell("%d times read-only", 2)
}

// saysReadOnly looks for the reason at the end of the node's log.
func (p *proc) saysReadOnly() {
	p.c.t.Helper()
	log, err := os.ReadFile(p.logPath)
	if err != nil {
		p.c.t.Fatal(err)
	}
	if end := string(tail(log, 2000)); !strings.Contains(end, "read-only file system") || strings.Contains(end, "goroutine ") {
		p.c.t.Errorf("%s on a read-only disk says\n%s", p.id, end)
	}
}
