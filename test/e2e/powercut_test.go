package e2e

import (
	"context"
	"flag"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

var cuts = flag.Int("cuts", 3, "how often TestPowerCut ends the file system under the nodes")

// loopDisk is a file system in a file, which can be ended as a power cut does.
type loopDisk struct {
	t           *testing.T
	image, path string
	options     string
}

// newLoopDisk makes one; the test is skipped where that is not permitted.
func newLoopDisk(t *testing.T, kind string, options ...string) *loopDisk {
	t.Helper()
	mkfs, err := exec.LookPath("mkfs." + kind)
	if err != nil {
		t.Skipf("mkfs.%s is not installed", kind)
	}
	dir := t.TempDir()
	d := &loopDisk{t: t, image: filepath.Join(dir, "image"), path: filepath.Join(dir, "disk"), options: strings.Join(append(options, "loop"), ",")}
	if err := os.Mkdir(d.path, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(d.image)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(2 << 30); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if out, err := exec.Command(mkfs, "-q", d.image).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := d.mount(); err != nil {
		t.Skipf("mounting a file system needs root and a loop device: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", d.path).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	return d
}

func (d *loopDisk) mount() ([]byte, error) {
	return exec.Command("mount", "-o", d.options, d.image, d.path).CombinedOutput()
}

// cut ends the file system: from here on nothing reaches the disk, the journal's
// buffers included (FS_IOC_SHUTDOWN, FS_SHUTDOWN_FLAGS_NOLOGFLUSH).
func (d *loopDisk) cut() {
	d.t.Helper()
	const shutdown, noLogFlush = 0x8004587d, uint32(2)
	f, err := os.Open(d.path)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	flags := noLogFlush
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), shutdown, uintptr(unsafe.Pointer(&flags))); e != 0 {
		d.t.Fatalf("FS_IOC_SHUTDOWN: %v", e)
	}
}

// again mounts what a power cut left; nobody may have a file open any more.
func (d *loopDisk) again() {
	d.t.Helper()
	if out, err := exec.Command("umount", d.path).CombinedOutput(); err != nil {
		d.t.Fatalf("umount: %v: %s", err, out)
	}
	if out, err := d.mount(); err != nil {
		d.t.Fatalf("mount: %v: %s", err, out)
	}
}

// mend is again with the file system repaired before, as an operator does after
// the kernel has found an error in it.
func (d *loopDisk) mend() {
	d.t.Helper()
	if out, err := exec.Command("umount", d.path).CombinedOutput(); err != nil {
		d.t.Fatalf("umount: %v: %s", err, out)
	}
	cmd := exec.Command("e2fsck", "-fy", d.image)
	if out, err := cmd.CombinedOutput(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() > 1 { // 1: errors were corrected
		d.t.Fatalf("e2fsck: %v: %s", err, out)
	}
	if out, err := d.mount(); err != nil {
		d.t.Fatalf("mount: %v: %s", err, out)
	}
}

// TestPowerCut: the file system under both nodes ends at random moments, with all
// that was not synced, while clients submit and the agency signs. What was
// acknowledged is there, once (I1, I2), and what is stored fits together (I8).
func TestPowerCut(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: starts real nodes; scripts/test runs it")
	}
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) { powerCut(t, kind) })
	}
}

func powerCut(t *testing.T, kind string) {
	disk := newLoopDisk(t, kind)
	r := onLoopDisk(t, disk, *cuts, func(r *run) {
		disk.cut()
		for _, p := range r.nodes {
			p.kill()
		}
		disk.again()
	})
	r.tell("%d power cuts of %s", *cuts, kind)
}

// onLoopDisk sends documents between two nodes on a disk, to which something
// happens a few times; it ends both nodes and leaves a disk that works. What came
// is held against I1, I2, I3 and I8.
func onLoopDisk(t *testing.T, disk *loopDisk, times int, trouble func(*run)) *run {
	t.Helper()
	c := newCluster(t, "jia", "yi")
	for _, p := range c.nodes {
		p.moveTo(t, disk.path)
		if err := p.start(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { // before the disk is unmounted
		for _, p := range c.nodes {
			p.kill()
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience(times*20))
	defer cancel()
	r := newRun(t, ctx, c, times*20)
	signing, signed := context.WithCancel(ctx)
	defer signed()
	var others, clients sync.WaitGroup
	others.Go(func() { r.sign(signing) })
	work := make(chan *crossing)
	for range 4 {
		clients.Go(func() {
			for x := range work {
				r.submit(x)
			}
		})
	}
	go func() {
		defer close(work)
		for _, x := range r.all {
			work <- x
		}
	}()
	for range times {
		time.Sleep(time.Duration(100+mrand.IntN(400)) * time.Millisecond)
		// A power cut ends the node with the disk. Here it lives on for a moment, and
		// a sync that was under way when the journal was aborted may tell it of
		// success: what it says from here on, nobody would have heard.
		r.cuts.Add(1)
		trouble(r)
		for _, p := range c.nodes {
			if err := p.start(); err != nil {
				t.Fatal(err)
			}
		}
	}
	clients.Wait()
	for _, x := range r.all {
		r.awaitSigned(x)
	}
	signed()
	others.Wait()
	r.ctx = t.Context()
	r.checkOnce()
	r.checkEvidence()
	for _, p := range c.nodes {
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		if s, refused := c.fsck(p.data); !s.OK {
			t.Errorf("I8: %s: %+v %s", p.id, s.Problems, refused)
		}
	}
	return r
}

// moveTo puts the data of a node that does not run below another directory.
func (p *proc) moveTo(t *testing.T, dir string) {
	t.Helper()
	to := filepath.Join(dir, p.id)
	if out, err := exec.Command("cp", "-a", p.data, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command("sync", "-f", dir).CombinedOutput(); err != nil { // cp does not
		t.Fatalf("%v: %s", err, out)
	}
	p.data = to
}
