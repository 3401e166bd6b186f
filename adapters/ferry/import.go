package ferry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/yizhan-gateway/yizhan/exchange/link"
)

// Report says what an import found.
type Report struct {
	Files       int           `json:"files"` // that were taken
	Waiting     int           `json:"waiting"`
	Quarantined int           `json:"quarantined"`
	Bundles     link.Imported `json:"bundles"`
}

func (r *Report) add(i link.Imported) {
	b := &r.Bundles
	b.Bundles, b.Items, b.Notes, b.Settled, b.Faults = b.Bundles+i.Bundles, b.Items+i.Items, b.Notes+i.Notes, b.Settled+i.Settled, b.Faults+i.Faults
	b.Truncated = b.Truncated || i.Truncated
}

// Import takes the files in in/ and ack/ that are whole. Trouble of our own ends
// it and leaves the rest where it is.
func (s *Spool) Import(ctx context.Context) (got Report, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[string]sight{}
	for _, folder := range []string{inFolder, ackFolder} {
		names, err := s.names(folder)
		if err != nil {
			return got, err
		}
		for _, name := range names {
			if ctx.Err() != nil {
				return got, ctx.Err()
			}
			if err := s.importOne(ctx, folder, name, seen, &got); err != nil {
				return got, err
			}
		}
	}
	s.seen = seen
	return got, errors.Join(s.prune(doneFolder), s.prune(quarantineFolder))
}

func ours(name string) bool {
	return !strings.HasPrefix(name, ".") && !strings.HasSuffix(name, partial) && !strings.HasSuffix(name, ".tmp")
}

func (s *Spool) importOne(ctx context.Context, folder, name string, seen map[string]sight, got *Report) error {
	if !ours(name) {
		got.Waiting++
		return nil
	}
	path := filepath.Join(folder, name)
	info, err := s.root.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) { // the gate took it back
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case !info.Mode().IsRegular():
		return s.quarantine(path, "不是普通文件（链接、目录或设备） · not a regular file (a link, a folder or a device)", got)
	case info.Size() > MaxFile:
		return s.quarantine(path, fmt.Sprintf("文件过大：%d 字节，上限 %d · %d bytes, at most %d are taken", info.Size(), int64(MaxFile), info.Size(), int64(MaxFile)), got)
	}
	copied, whole, err := s.copy(path, info.Size())
	if err != nil {
		return err
	}
	if copied == nil {
		return nil
	}
	defer discard(copied)
	if !whole && !s.stands(path, info, seen) {
		got.Waiting++
		return nil
	}
	return s.take(ctx, path, copied, got)
}

// stands says whether a file has not grown for a while.
func (s *Spool) stands(path string, info fs.FileInfo, seen map[string]sight) bool {
	now := s.now()
	last, known := s.seen[path]
	if !known || last.size != info.Size() || !last.mod.Equal(info.ModTime()) {
		last = sight{info.Size(), info.ModTime(), now}
	}
	seen[path] = last
	return now.Sub(last.since) >= patience
}

// copy reads a file once: what is verified is what is taken, whatever becomes of
// the file meanwhile. whole says that it ends like a bundle.
func (s *Spool) copy(path string, size int64) (copied *os.File, whole bool, err error) {
	in, err := s.root.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer in.Close()
	if now, err := in.Stat(); err != nil || !now.Mode().IsRegular() { // it was changed for something else
		return nil, false, err
	}
	out, err := os.CreateTemp(s.work, "incoming-")
	if err != nil {
		return nil, false, err
	}
	n, err := io.Copy(out, io.LimitReader(in, size))
	if err != nil {
		discard(out)
		return nil, false, err
	}
	return out, link.EndsLikeABundle(out, n), nil
}

func discard(f *os.File) {
	_ = f.Close() // read or abandoned
	_ = os.Remove(f.Name())
}

func (s *Spool) take(ctx context.Context, path string, copied *os.File, got *Report) error {
	size, err := copied.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	found, err := s.f.Import(ctx, copied, size)
	got.add(found)
	switch {
	case errors.Is(err, link.ErrNewer):
		got.Waiting++ // its signer is in a directory that is still to come
		return nil
	case err != nil:
		return err
	case found.Bundles+found.Notes == 0:
		return s.quarantine(path, "其中没有可用的驿包（不是本链路的文件，或已损坏） · no bundle in it can be used (not of this link, or damaged)", got)
	case found.Faults > 0 || found.Truncated:
		got.Files++
		return s.quarantine(path, s.cutReason(), got)
	}
	got.Files++
	return s.move(path, doneFolder)
}

func (s *Spool) cutReason() string {
	if s.f.OneWay() {
		return "部分损坏或不完整；其余已接收，缺失部分须请对方补发（yizhan ferry code 列出编号） · damaged or cut in part; the rest was taken; ask the other side to let the bundles leave again that yizhan ferry code names"
	}
	return "部分损坏或不完整；其余已接收，缺失部分将自动重传 · damaged or cut in part; the rest was taken, and what is missing comes again by itself"
}

// quarantine moves a file away, with the reason beside it.
func (s *Spool) quarantine(path, reason string, got *Report) error {
	got.Quarantined++
	s.log.Warn("a ferry file was quarantined", "link", s.f.Link(), "reason", reason)
	if err := s.move(path, quarantineFolder); err != nil {
		return err
	}
	note := filepath.Join(quarantineFolder, filepath.Base(path)+".reason.txt")
	return place(s.root, note, func(w io.Writer) error {
		_, err := io.WriteString(w, reason+"\n")
		return err
	})
}

// move takes a file out of the way of the next import. It comes after all that the
// file says is durable; a crash before it imports the file once more.
func (s *Spool) move(path, folder string) error {
	err := s.root.Rename(path, filepath.Join(folder, filepath.Base(path)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil { // a folder cannot replace a file, for one
		err = s.root.Rename(path, filepath.Join(folder, fmt.Sprintf("%s.%d", filepath.Base(path), s.now().UnixNano())))
	}
	return errors.Join(err, syncDir(s.root, folder), syncDir(s.root, filepath.Dir(path)))
}

// prune keeps the newest files of a folder.
func (s *Spool) prune(folder string) error {
	names, err := s.names(folder)
	if err != nil || len(names) <= keptDone {
		return err
	}
	type aged struct {
		name string
		at   int64
	}
	var all []aged
	for _, name := range names {
		if info, err := s.root.Lstat(filepath.Join(folder, name)); err == nil {
			all = append(all, aged{name, info.ModTime().UnixNano()})
		}
	}
	slices.SortFunc(all, func(a, b aged) int { return cmp.Compare(a.at, b.at) })
	for _, a := range all[:max(0, len(all)-keptDone)] {
		if err := s.root.RemoveAll(filepath.Join(folder, a.name)); err != nil {
			return err
		}
	}
	return nil
}

// ImportFrom reads a medium, and leaves its files where they are.
func (s *Spool) ImportFrom(ctx context.Context, dir string) (got Report, err error) {
	if err := s.f.Receives(); err != nil {
		return got, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return got, fmt.Errorf("ferry: the medium: %w", err)
	}
	defer root.Close()
	names, err := namesIn(root, ".")
	if err != nil {
		return got, err
	}
	for _, name := range names {
		info, err := root.Lstat(name)
		if err != nil || !ours(name) || !info.Mode().IsRegular() || info.Size() > MaxFile {
			continue
		}
		if err := s.importFrom(ctx, root, name, info.Size(), &got); err != nil {
			return got, err
		}
	}
	return got, nil
}

func (s *Spool) importFrom(ctx context.Context, root *os.Root, name string, size int64, got *Report) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if !link.BeginsLikeABundle(f) { // something else on the medium
		return nil
	}
	found, err := s.f.Import(ctx, f, size)
	got.add(found)
	if errors.Is(err, link.ErrNewer) { // its signer is in a directory that is still to come
		got.Waiting++
		return nil
	}
	if err == nil && found.Bundles+found.Notes > 0 {
		got.Files++
	}
	return err
}
