// Package ferry carries the bundles of a link in files: over a gate that moves
// files between two networks, or on media that a person carries.
//
// A spool is a directory with six others:
//
//	out/         files for the other side; whoever takes one may delete it
//	in/          files from the other side
//	done/        those that were taken, the newest of them
//	quarantine/  those that could not be used, each with a .reason.txt
//	ack/         kept for gates that bring answers over a way of their own: read as in/
//	part/        files for out/ until they are whole
//
// A file appears in out/ under its name when it is whole and durable; until then it
// lies in part/. A gate that has directories of its own for the two ways gets them
// with [Config].Out and In. A file that came is looked at when it ends like a bundle,
// or has not grown for a while; it is copied before it is read, and leaves in/ when
// all that it says is durable here. Names say nothing, and wrappings are told by
// their bytes. What is lost on the way is noticed by the notes in the files
// ([link.Passage]) and goes again.
//
// [Spool.Export] and [Spool.Import] do one step; [Spool.Watch] does them again and
// again. Bytes of bundles that are under way are kept in the node's data directory.
package ferry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/link"
)

// The folders of a spool.
const (
	outFolder        = "out"
	inFolder         = "in"
	ackFolder        = "ack"
	doneFolder       = "done"
	quarantineFolder = "quarantine"
	partFolder       = "part"
)

// The bounds.
const (
	MaxFile      = 4 << 30          // bytes of a file that is looked at
	patience     = 30 * time.Second // how long a file that does not end like a bundle may stand still
	longPatience = 10 * time.Minute // how long one may whose name says that it is not whole
	maxName      = 180              // bytes of a name in done/ and in quarantine/, to which more may be added
	keptDone     = 256              // files in done/ and in quarantine/
	keptLists    = 1000             // rounds of which the list of files is kept
	maxNames     = 10_000           // entries of a folder that one step looks at
	maxSeen      = 100_000          // files of a folder that are remembered
	maxDepth     = 3                // folders below in/ that are looked into
)

// Spool is one link's.
type Spool struct {
	f      *link.Ferry
	c      Config
	root   *os.Root
	closes []io.Closer
	log    *slog.Logger
	now    func() time.Time

	out              berth
	most             int // entries of one look at a folder of files that come
	in               []*inbound
	done, quarantine folder

	mu sync.Mutex // of in
}

// Config of a spool. Work and Lists are directories of the node's own.
type Config struct {
	Ferry     *link.Ferry
	Dir       string
	Own       bool   // the directory is the node's own, and made if it is missing
	Out, In   string // directories of a gate, in place of the spool's out and in
	Ack       string // one more for files that come, in place of the spool's ack
	Partial   string // where files are written that go to Out; empty: in Out, under hidden names
	Extension string // of files that leave; empty: yzb
	Wrap      string // one of [Wrappings]; empty: none
	Work      string
	Lists     string
	From, To  string // the nodes, for the lists
	Limits    link.Limits
	Logger    *slog.Logger
	Now       func() time.Time
}

// Open makes what is missing of a spool. What an export left half written is
// removed.
func Open(c Config) (*Spool, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	s := &Spool{f: c.Ferry, c: c, log: c.Logger, now: c.Now, most: maxNames}
	if err := s.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("ferry: link %s: %w", c.Ferry.Link(), err), s.Close())
	}
	return s, nil
}

func (c *Config) check() error {
	switch {
	case !known(c.Wrap):
		return fmt.Errorf("ferry: link %s: no wrapping is called %q; there are %s", c.Ferry.Link(), c.Wrap, strings.Join(Wrappings(), ", "))
	case !extension.MatchString(c.Extension):
		return fmt.Errorf("ferry: link %s: the extension %q; it has at most 16 letters and digits", c.Ferry.Link(), c.Extension)
	case c.Partial != "" && c.Out == "":
		return fmt.Errorf("ferry: link %s: partial belongs to a directory out; a spool has part/", c.Ferry.Link())
	}
	if c.Extension == "" {
		c.Extension = ownExtension
	}
	return nil
}

var extension = regexp.MustCompile(`^[A-Za-z0-9]{0,16}$`)

const ownExtension = "yzb"

func (s *Spool) open() (err error) {
	for _, dir := range []string{s.c.Work, s.c.Lists} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if s.c.Own {
		if err := os.MkdirAll(s.c.Dir, 0o700); err != nil {
			return err
		}
	}
	if s.root, err = s.openRoot(s.c.Dir); err != nil {
		return err
	}
	for _, name := range []string{outFolder, inFolder, ackFolder, doneFolder, quarantineFolder, partFolder} {
		if err := s.root.Mkdir(name, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	s.done, s.quarantine = s.below(doneFolder), s.below(quarantineFolder)
	if err := s.openIn(); err != nil {
		return err
	}
	if err := s.openOut(); err != nil {
		return err
	}
	return errors.Join(s.sweep(), syncDir(s.root, "."))
}

func (s *Spool) below(name string) folder { return folder{s.root, s.c.Dir, name} }

func (s *Spool) openRoot(dir string) (*os.Root, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("its directory is not there (is it mounted?): %w", err)
	}
	s.closes = append(s.closes, root)
	return root, nil
}

func (s *Spool) openIn() error {
	s.in = []*inbound{newInbound(s.below(inFolder)), newInbound(s.below(ackFolder))}
	for i, dir := range []string{s.c.In, s.c.Ack} {
		if dir == "" {
			continue
		}
		root, err := s.openRoot(dir)
		if err != nil {
			return err
		}
		s.in[i] = newInbound(folder{root, dir, "."})
	}
	return nil
}

// openOut chooses where files are written until they are whole: beside out/, where no
// gate looks, if they can be renamed from there.
func (s *Spool) openOut() error {
	out := s.below(outFolder)
	s.out = berth{out, s.below(partFolder), suffixed}
	if s.c.Out == "" {
		err := s.out.try()
		if errors.Is(err, syscall.EXDEV) {
			s.log.Warn("files are written in out/ under hidden names until they are whole", "link", s.f.Link(), "reason", err)
			s.out, err = berth{out, out, hidden}, nil
		}
		return err
	}
	root, err := s.openRoot(s.c.Out)
	if err != nil {
		return err
	}
	out = folder{root, s.c.Out, "."}
	s.out = berth{out, out, hidden}
	if err := s.apart(root); err != nil {
		return err
	}
	if s.c.Partial == "" {
		return s.out.try()
	}
	part, err := s.openRoot(s.c.Partial)
	if err != nil {
		return err
	}
	s.out = berth{out, folder{part, s.c.Partial, "."}, suffixed}
	if err := s.out.try(); err != nil {
		return fmt.Errorf("%w; name a directory for partial on the file system of out, or none: then files have hidden names until they are whole", err)
	}
	return nil
}

// apart refuses one directory for both ways: what this side wrote would be taken for
// what came.
func (s *Spool) apart(out *os.Root) error {
	there, err := out.Stat(".")
	if err != nil {
		return err
	}
	for _, in := range s.in {
		here, err := in.root.Stat(in.name)
		if err != nil {
			return err
		}
		if os.SameFile(there, here) {
			return errors.New("out and in are one directory; give each way its own")
		}
	}
	return nil
}

// Close lets the spool go.
func (s *Spool) Close() (err error) {
	for _, c := range s.closes {
		err = errors.Join(err, c.Close())
	}
	return err
}

const partial = ".part"

// sweep removes the files that an export did not finish. Others of the gate's stay.
func (s *Spool) sweep() error {
	for _, f := range []folder{s.out.part, s.out.to} {
		names, err := f.which(maxNames, func(name string) bool {
			return strings.HasPrefix(strings.TrimPrefix(name, "."), "yz") && strings.HasSuffix(name, partial)
		})
		for _, name := range names {
			err = errors.Join(err, removeQuietly(f.root, f.at(name)))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Status says how the link stands.
func (s *Spool) Status(ctx context.Context) (link.FerryStatus, error) { return s.f.Status(ctx) }

// fileName gives a file the extension that the gate lets pass.
func (s *Spool) fileName(name string) string {
	return strings.TrimSuffix(name, ownExtension) + s.c.Extension
}

// limits leave room for what the wrapping adds.
func (s *Spool) limits() link.Limits {
	return link.Limits{FileBytes: max(1, wrapRoom(s.c.Wrap, s.c.Limits.FileBytes)), Files: s.c.Limits.Files}
}

// Export writes what there is to say into out/; anyhow also when there is nothing.
func (s *Spool) Export(ctx context.Context, anyhow bool) (link.Exported, error) {
	got, _, err := s.export(ctx, anyhow, s.out)
	return got, err
}

// ExportTo writes onto a medium, with a list of what is on it.
func (s *Spool) ExportTo(ctx context.Context, dir string) (link.Exported, *Manifest, error) {
	return s.onto(dir, func(place placing) (link.Exported, error) { return s.f.Export(ctx, s.limits(), true, place) })
}

func (s *Spool) onto(dir string, export func(placing) (link.Exported, error)) (link.Exported, *Manifest, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return link.Exported{}, nil, fmt.Errorf("ferry: the medium: %w", err)
	}
	defer root.Close()
	at := folder{root, dir, "."}
	b := berth{at, at, suffixed}
	got, m, err := s.exported(b, export)
	if m != nil { // also of what there was room for
		err = errors.Join(err, m.writeOn(b))
	}
	return got, m, err
}

// export writes files and the list of them. The list is only a help: a crash before
// it leaves the files as they are.
func (s *Spool) export(ctx context.Context, anyhow bool, to berth) (link.Exported, *Manifest, error) {
	return s.exported(to, func(place placing) (link.Exported, error) { return s.f.Export(ctx, s.limits(), anyhow, place) })
}

// placing makes a file true under its name.
type placing func(name string, write func(io.Writer) error) error

func (s *Spool) exported(to berth, export func(placing) (link.Exported, error)) (link.Exported, *Manifest, error) {
	m := s.newManifest()
	got, err := export(func(name string, write func(io.Writer) error) error {
		inner := name
		name = s.fileName(name)
		sum := newSums()
		err := to.place(name, func(w io.Writer) error {
			sum.reset()
			return wrapped(s.c.Wrap, inner, write)(summing{w, sum})
		})
		if err != nil {
			return noRoom(err, to.to.full(""))
		}
		m.Files = append(m.Files, sum.entry(name))
		return nil
	})
	if len(m.Files) == 0 {
		return got, nil, err
	}
	m.fill(&got)
	if got.Bundles > 0 { // of notes there are many, and nobody looks for them
		err = errors.Join(err, s.keepList(m))
	}
	return got, m, err
}

// noRoom says whose disk is full. What did not fit is packed, and leaves with the next
// export.
func noRoom(err error, dir string) error {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	return &exchange.Error{Code: exchange.CodeMediumFull, Temporary: true, Detail: dir, Err: err}
}
