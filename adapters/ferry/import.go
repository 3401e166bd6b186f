package ferry

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/link"
)

// Report says what an import found.
type Report struct {
	Files       int           `json:"files"` // that were taken
	Waiting     int           `json:"waiting"`
	Quarantined int           `json:"quarantined"`
	Bundles     link.Imported `json:"bundles"`
	Lists       *Compared     `json:"manifest,omitempty"` // of a medium
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
	for _, in := range s.in {
		if err := s.importIn(ctx, in, &got); err != nil {
			return got, err
		}
	}
	return got, errors.Join(prune(s.done, keptDone), prune(s.quarantine, keptDone))
}

// importIn takes files of one folder. After an error the next step begins where this
// one did, and knows what this one saw.
func (s *Spool) importIn(ctx context.Context, in *inbound, got *Report) error {
	files, next, err := in.files(in.next, s.most)
	if err != nil {
		return err
	}
	for _, file := range files {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a := &arrival{s: s, in: in, found: file, got: got}
		a.look()
		err := a.handle(ctx)
		if errors.Is(err, errDenied) { // it stops no other
			a.denied(err)
			err = nil
		}
		if a.gone {
			in.forget(file)
		} else {
			in.remember(file, a.sight)
		}
		if err != nil {
			return err
		}
	}
	in.went(next)
	return nil
}

// wholeName says whether a name leaves open that a file is whole. The case of letters is
// the gate's.
func wholeName(name string) bool {
	name = strings.ToLower(name)
	for _, end := range []string{partial, ".tmp", ".filepart"} {
		if strings.HasSuffix(name, end) {
			return false
		}
	}
	return !strings.HasPrefix(name, ".")
}

// arrival is one file that came.
type arrival struct {
	s  *Spool
	in *inbound
	found
	sight  sight
	stands bool // it has not changed for a while
	gone   bool // it is out of the folder
	got    *Report
}

func (a *arrival) look() {
	now, wait := a.s.now(), patience
	if !wholeName(filepath.Base(a.path)) {
		wait = longPatience
	}
	a.sight = a.in.look(a.found, now)
	a.stands = now.Sub(a.sight.since) >= wait
}

// handle does what there is to do with a file now. What cannot be used goes to the
// quarantine only when it stands still: a gate may fill files in any order.
func (a *arrival) handle(ctx context.Context) error {
	named := wholeName(filepath.Base(a.path))
	switch {
	case a.sight.taken, a.sight.foreign:
		return nil
	case !a.info.Mode().IsRegular() && !named:
		return nil // the gate's own
	case !a.info.Mode().IsRegular():
		return a.refuse("不是普通文件（链接、目录或设备） · not a regular file (a link, a folder or a device)")
	case a.info.Size() > MaxFile:
		return a.refuse(fmt.Sprintf("文件过大：%d 字节，上限 %d · %d bytes, at most %d are taken", a.info.Size(), int64(MaxFile), a.info.Size(), int64(MaxFile)))
	case !a.stands && (!named || a.sight.tried):
		a.got.Waiting++
		return nil
	}
	if !named { // perhaps a lock, or whatever else the gate has there
		if ours, err := beginsLikeOurs(a.in.root, a.found); !ours || err != nil {
			a.sight.foreign = err == nil
			return err
		}
	}
	c, err := a.s.copy(a.in.root, a.path, a.info.Size(), a.stands)
	if err != nil || c == nil {
		return err
	}
	defer c.discard()
	if !a.stands && !c.whole {
		a.got.Waiting++
		return nil
	}
	return a.take(ctx, c)
}

// copied is what is in a file, out of its wrapping.
type copied struct {
	*os.File
	size   int64
	whole  bool   // it ends as it should
	cut    bool   // a wrapping that is damaged
	reason string // why its wrapping is none of ours
}

func (c *copied) discard() {
	_ = c.Close() // read or abandoned
	_ = os.Remove(c.Name())
}

// openFile waits for nobody: a file may have become a pipe since it was listed.
func openFile(root *os.Root, path string) (*os.File, error) {
	f, err := root.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w: %w", errDenied, err)
	}
	return f, err
}

// errDenied: a file that came is not for us to read. That is no trouble of our own.
var errDenied = errors.New("ferry: not to be read")

// copy reads a file once: what is verified is what is taken, whatever becomes of
// the file meanwhile. Of one that does not end as it should it is made only anyhow.
func (s *Spool) copy(root *os.Root, path string, size int64, anyhow bool) (*copied, error) {
	in, err := openFile(root, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer in.Close()
	if now, err := in.Stat(); err != nil || !now.Mode().IsRegular() { // it was changed for something else
		return nil, err
	}
	u, bad := parseWrapping(in, size)
	if bad != nil && !errors.Is(bad, ErrWrapping) {
		return nil, bad
	}
	out, err := os.CreateTemp(s.c.Work, "incoming-")
	if err != nil {
		return nil, err
	}
	c := &copied{File: out}
	switch {
	case bad != nil:
		c.reason = bad.Error()
	case anyhow || u.endsWell(in, size):
		err = c.fill(in, size, u)
	}
	if err != nil {
		c.discard()
		return nil, err
	}
	return c, nil
}

func (s *Spool) cutReason() string {
	if s.f.OneWay() {
		return "部分损坏或不完整；其余已接收，缺失部分须请对方补发（yizhan ferry code 列出编号） · damaged or cut in part; the rest was taken; ask the other side to let the bundles leave again that yizhan ferry code names"
	}
	return "部分损坏或不完整；其余已接收，缺失部分将自动重传 · damaged or cut in part; the rest was taken, and what is missing comes again by itself"
}

func (c *copied) fill(in *os.File, size int64, u *unwrapper) (err error) {
	from := u.inside
	if from == nil {
		from = io.NewSectionReader(in, 0, size)
	}
	if c.size, err = io.Copy(c, io.LimitReader(from, MaxFile)); err != nil && !badText(err) {
		return err
	}
	c.cut = err != nil || u.inside != nil && !u.ended()
	c.whole = !c.cut && link.EndsLikeABundle(c, c.size)
	return nil
}

// badText tells what is wrong with base64 from trouble of our own.
func badText(err error) bool {
	var bad base64.CorruptInputError
	return errors.As(err, &bad) || errors.Is(err, io.ErrUnexpectedEOF)
}

func (a *arrival) take(ctx context.Context, c *copied) error {
	found, err := a.s.f.Import(ctx, c, c.size)
	if errors.Is(err, link.ErrNewer) { // its signer is in a directory that is still to come
		a.got.add(found)
		a.got.Waiting++
		return nil
	}
	if err != nil {
		a.got.add(found)
		return err
	}
	some, all := found.Bundles+found.Notes > 0, found.Faults == 0 && !found.Truncated && !c.cut
	if !a.stands && (!some || !all || a.changed()) {
		a.sight.tried = true
		a.got.Waiting++
		return nil
	}
	a.got.add(found)
	switch {
	case c.reason != "":
		return a.refuse("外壳格式不符 · " + c.reason)
	case !some:
		return a.refuse("其中没有可用的驿包（不是本链路的文件，或已损坏） · no bundle in it can be used (not of this link, or damaged)")
	case !all:
		a.got.Files++
		return a.refuse(a.s.cutReason())
	}
	a.got.Files++
	return a.away(a.s.done, shortened(filepath.Base(a.path)))
}

// denied shows once a file that is not for us to read. It is tried again each time:
// somebody may mend that.
func (a *arrival) denied(err error) {
	a.got.Waiting++
	if !a.sight.denied {
		a.sight.denied = true
		a.s.log.Warn("a file that came may not be read; let the node's user read it", "link", a.s.f.Link(), "error", err)
	}
}

// changed says that the gate went on writing meanwhile.
func (a *arrival) changed() bool {
	now, err := a.in.root.Lstat(a.path)
	return err == nil && (now.Size() != a.info.Size() || !now.ModTime().Equal(a.info.ModTime()))
}

// away takes a file out of the way of the next import. It comes after all that the
// file says is durable; a crash before it imports the file once more. One that the
// gate keeps us from removing is left, and not looked at again by this process.
func (a *arrival) away(to folder, name string) error {
	err := move(a.in.folder, a.path, to, name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !readOnly(err) { // a folder cannot replace a file, for one
		err = move(a.in.folder, a.path, to, fmt.Sprintf("%s.%d", name, a.s.now().UnixNano()))
	}
	a.gone = err == nil || errors.Is(err, fs.ErrNotExist)
	switch {
	case errors.Is(err, fs.ErrNotExist): // the gate took it back
		return nil
	case readOnly(err):
		a.sight.taken = true
		a.s.log.Warn("a file that was taken cannot be removed; it is left where it is", "link", a.s.f.Link(), "reason", err)
		return nil
	}
	return err
}

func readOnly(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)
}

// refuse moves a file to the quarantine, with the reason beside it.
func (a *arrival) refuse(reason string) error {
	a.got.Quarantined++
	s := a.s
	s.log.Warn("a ferry file was quarantined", "link", s.f.Link(), "reason", reason)
	name := shortened(filepath.Base(a.path))
	if _, err := s.quarantine.root.Lstat(s.quarantine.at(name)); err == nil { // another one's evidence stays
		name = fmt.Sprintf("%s.%d", name, s.now().UnixNano())
	}
	if err := a.away(s.quarantine, name); err != nil {
		return err
	}
	return place(s.quarantine.root, s.quarantine.at(name+".reason.txt"), func(w io.Writer) error {
		_, err := io.WriteString(w, reason+"\n")
		return err
	})
}

// shortened leaves room behind a name for what is added to it here. Names that were
// different stay so.
func shortened(name string) string {
	if len(name) <= maxName {
		return name
	}
	digest := sm.Sum([]byte(name))
	cut := maxName - 17
	for back := 1; back < utf8.UTFMax; back++ { // not within a character
		if utf8.RuneStart(name[cut]) {
			break
		}
		cut--
	}
	return fmt.Sprintf("%s-%x", name[:cut], digest[:8])
}

// prune keeps the files of a folder that were put there last.
func prune(f folder, keep int) error {
	names, err := f.which(maxSeen, func(string) bool { return true })
	if err != nil || len(names) <= keep {
		return err
	}
	type aged struct {
		name string
		at   syscall.Timespec
	}
	var all []aged
	for _, name := range names {
		if info, err := f.root.Lstat(f.at(name)); err == nil {
			all = append(all, aged{name, placed(info)})
		}
	}
	slices.SortStableFunc(all, func(a, b aged) int {
		return cmp.Or(cmp.Compare(a.at.Sec, b.at.Sec), cmp.Compare(a.at.Nsec, b.at.Nsec))
	})
	for _, a := range all[:max(0, len(all)-keep)] {
		if err := f.root.RemoveAll(f.at(a.name)); err != nil {
			return err
		}
	}
	return nil
}

// placed is when a file was last moved or written, by the kernel's clock. Its time of
// modification is whatever the gate said.
func placed(info fs.FileInfo) (at syscall.Timespec) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		at = st.Ctim
	}
	return at
}

// pruneOut removes from out/ what nobody waits for, for gates that leave everything.
func (s *Spool) pruneOut(ctx context.Context) error {
	names, err := s.out.to.which(maxNames, func(name string) bool { _, own := s.f.FileRound(name); return own })
	if err != nil || len(names) < 2 {
		return err
	}
	spent, err := s.f.Spent(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if round, _ := s.f.FileRound(name); spent(round) {
			if err := removeQuietly(s.out.to.root, s.out.to.at(name)); err != nil {
				return err
			}
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
	at := folder{root, dir, "."}
	if got.Lists, err = s.compare(at); err != nil {
		return got, err
	}
	for next, more := "", true; more; more = next != "" {
		var files []found
		if files, next, err = at.files(next, s.most); err != nil {
			return got, err
		}
		for _, f := range files {
			if !wholeName(filepath.Base(f.path)) || !f.info.Mode().IsRegular() || f.info.Size() > MaxFile {
				continue
			}
			err := s.importFrom(ctx, root, f, &got)
			if errors.Is(err, errDenied) { // it stops no other
				got.Waiting++
				s.log.Warn("a file of a medium may not be read; let the node's user read it, and import again", "link", s.f.Link(), "error", err)
				err = nil
			}
			if err != nil {
				return got, err
			}
		}
	}
	return got, nil
}

// importFrom reads bundles where they lie: each is verified while it is read. What is
// wrapped is taken out first.
func (s *Spool) importFrom(ctx context.Context, root *os.Root, f found, got *Report) error {
	if ours, err := beginsLikeOurs(root, f); !ours || err != nil {
		return err
	}
	in, err := openFile(root, f.path)
	if err != nil {
		return err
	}
	defer in.Close()
	from, size := io.ReaderAt(in), f.info.Size()
	if !link.BeginsLikeABundle(in) {
		c, err := s.copy(root, f.path, size, true)
		if err != nil || c == nil {
			return err
		}
		defer c.discard()
		from, size = c, c.size
	}
	found, err := s.f.Import(ctx, from, size)
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

// beginsLikeOurs tells bundles, wrapped or not, from what else lies on a medium.
func beginsLikeOurs(root *os.Root, f found) (bool, error) {
	in, err := openFile(root, f.path)
	if err != nil {
		return false, err
	}
	defer in.Close()
	u, err := parseWrapping(in, f.info.Size())
	if errors.Is(err, ErrWrapping) {
		return false, nil
	}
	if err != nil || u.inside == nil {
		return link.BeginsLikeABundle(in), err
	}
	var head [16]byte
	n, _ := io.ReadFull(u.inside, head[:])
	return link.BeginsLikeABundle(bytes.NewReader(head[:n])), nil
}
