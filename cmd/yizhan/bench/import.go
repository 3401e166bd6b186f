package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
)

// Imported is what a run of an import over a share took.
type Imported struct {
	Submitted int
	Seconds   float64 // from the start of its process to its end
	Peak      int64   // bytes that the process held of its own at most
}

// Sentinel is that of shares that are imported.
const Sentinel = ".sentinel"

// importMemory is what a run may hold, MiB: the tables of its ledger above all.
const importMemory = 256

// smallShare is the part of the files with which the memory of a run over all of them
// is compared.
const smallShare = 10

// imports: a share of small files with a list, submitted by a process of its own. The
// bound is what the same node accepts of the same documents from clients that have them
// in memory, before it and after it.
func (e *engine) imports(ctx context.Context) error {
	from, form, err := e.sender(ctx)
	if err != nil {
		return err
	}
	n := e.sizes.files
	few, err := e.importShare(ctx, from.Node, "few", n/smallShare)
	if err != nil {
		return err
	}
	before, err := from.submitMany(ctx, form, n/4)
	if err != nil {
		return err
	}
	all, err := e.importShare(ctx, from.Node, "all", n)
	if err != nil {
		return err
	}
	after, err := from.submitMany(ctx, form, n/4)
	if err != nil {
		return err
	}
	again, err := e.site.ImportShare(ctx, filepath.Join(e.dir, "all"))
	if err != nil {
		return err
	}
	if again.Submitted != 0 {
		return fmt.Errorf("a second run over the same share submitted %d", again.Submitted)
	}
	rate, accept := float64(n)/all.Seconds, (before.perSecond+after.perSecond)/2
	e.add(Result{"import", rate, "documents/s", accept, fmt.Sprintf("accepted of the same documents from 256 clients, before and after; %d files of 10 KB with a list, from the start of the process to its end", n), rate / accept})
	peak := float64(all.Peak) / (1 << 20)
	e.add(Result{"import_memory", peak, "MiB", importMemory, fmt.Sprintf("that a run may hold, whatever the number of files; %d files needed %d MiB", n/smallShare, few.Peak>>20), importMemory / max(peak, 1)})
	e.add(Result{"import_again", again.Seconds, "s", all.Seconds, "the first run; the second reads all files again and submits 0", all.Seconds / again.Seconds})
	return nil
}

// importShare makes a share and imports it once.
func (e *engine) importShare(ctx context.Context, n *Node, name string, files int) (Imported, error) {
	dir := filepath.Join(e.dir, name)
	if err := makeShare(dir, name, n.Neighbour, files); err != nil {
		return Imported{}, err
	}
	got, err := e.site.ImportShare(ctx, dir)
	if err == nil && got.Submitted != files {
		err = fmt.Errorf("%d of %d files were submitted", got.Submitted, files)
	}
	return got, err
}

// makeShare writes files that are all different, a thousand in a folder, and one list.
func makeShare(dir, name, to string, files int) error {
	content := make([]byte, smallDocument)
	if _, err := rand.Read(content); err != nil {
		return err
	}
	var list bytes.Buffer
	list.WriteString("标题,主送,密级,正文\n")
	for i := range files {
		folder := fmt.Sprintf("%03d", i/1000)
		if i%1000 == 0 {
			if err := os.MkdirAll(filepath.Join(dir, folder), 0o700); err != nil {
				return err
			}
		}
		file := fmt.Sprintf("%s/公文%06d.ofd", folder, i)
		copy(content, file)
		if err := os.WriteFile(filepath.Join(dir, file), content, 0o600); err != nil {
			return err
		}
		fmt.Fprintf(&list, "测试%s%d,%s,内部,%s\n", name, i, to, file)
	}
	if err := os.WriteFile(filepath.Join(dir, Sentinel), nil, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "清单.csv"), list.Bytes(), 0o600)
}
