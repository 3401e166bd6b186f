// Package ferry carries the bundles of a link in files: over a gate that moves
// files between two networks, or on media that a person carries.
//
// A spool is a directory with five others:
//
//	out/         files for the other side; whoever takes one may delete it
//	in/          files from the other side
//	done/        those that were taken, the newest of them
//	quarantine/  those that could not be used, each with a .reason.txt
//	ack/         kept for gates that bring answers over a way of their own: read as in/
//
// A file appears in out/ under its name when it is whole and durable. One in in/ is
// looked at when it ends like a bundle, or has not grown for a while; it is copied
// before it is read, and leaves in/ when all that it says is durable here. Names say
// nothing. What is lost on the way is noticed by the notes in the files
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
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange/link"
)

// The folders of a spool.
const (
	outFolder        = "out"
	inFolder         = "in"
	ackFolder        = "ack"
	doneFolder       = "done"
	quarantineFolder = "quarantine"
)

// The bounds.
const (
	MaxFile  = 4 << 30          // bytes of a file that is looked at
	patience = 30 * time.Second // how long a file that does not end like a bundle may stand still
	keptDone = 256              // files in done/ and in quarantine/
	maxNames = 10_000           // files looked at in one step
)

// Spool is one link's.
type Spool struct {
	f      *link.Ferry
	root   *os.Root
	work   string // a directory of our own
	limits link.Limits
	log    *slog.Logger
	now    func() time.Time

	mu   sync.Mutex
	seen map[string]sight
}

// sight is a file as it was seen, and since when it stands still.
type sight struct {
	size  int64
	mod   time.Time
	since time.Time
}

// Config of a spool. Work is a directory of the node's own.
type Config struct {
	Ferry  *link.Ferry
	Dir    string
	Own    bool // the directory is the node's own, and made if it is missing
	Work   string
	Limits link.Limits
	Logger *slog.Logger
	Now    func() time.Time
}

// Open makes what is missing of a spool. What an export left half written is
// removed.
func Open(c Config) (*Spool, error) {
	if err := os.MkdirAll(c.Work, 0o700); err != nil {
		return nil, err
	}
	if c.Own {
		if err := os.MkdirAll(c.Dir, 0o700); err != nil {
			return nil, err
		}
	}
	root, err := os.OpenRoot(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("ferry: the spool of link %s: %w", c.Ferry.Link(), err)
	}
	s := &Spool{f: c.Ferry, root: root, work: c.Work, limits: c.Limits, log: c.Logger, now: c.Now, seen: map[string]sight{}}
	for _, folder := range []string{outFolder, inFolder, ackFolder, doneFolder, quarantineFolder} {
		if err := root.Mkdir(folder, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, errors.Join(err, root.Close())
		}
	}
	return s, errors.Join(s.sweep(), syncDir(root, "."))
}

// Close lets the spool go.
func (s *Spool) Close() error { return s.root.Close() }

const partial = ".part"

// sweep removes the files that an export did not finish.
func (s *Spool) sweep() error {
	names, err := s.names(outFolder)
	for _, name := range names {
		if strings.HasSuffix(name, partial) {
			err = errors.Join(err, s.root.Remove(filepath.Join(outFolder, name)))
		}
	}
	return err
}

// Status says how the link stands.
func (s *Spool) Status(ctx context.Context) (link.FerryStatus, error) { return s.f.Status(ctx) }

// Export writes what there is to say into out/; anyhow also when there is nothing.
func (s *Spool) Export(ctx context.Context, anyhow bool) (link.Exported, error) {
	return s.f.Export(ctx, s.limits, anyhow, func(name string, write func(io.Writer) error) error {
		return place(s.root, filepath.Join(outFolder, name), write)
	})
}

// Sheet is one file on a medium.
type Sheet struct {
	File   string `json:"file"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// ExportTo writes onto a medium, and says which files.
func (s *Spool) ExportTo(ctx context.Context, dir string) (got link.Exported, sheets []Sheet, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return got, nil, fmt.Errorf("ferry: the medium: %w", err)
	}
	defer root.Close()
	got, err = s.f.Export(ctx, s.limits, true, onto(root, &sheets))
	return got, sheets, err
}

type counter struct{ n *int64 }

func (c counter) Write(p []byte) (int, error) {
	*c.n += int64(len(p))
	return len(p), nil
}

// place makes a file true under its name.
func place(root *os.Root, name string, write func(io.Writer) error) error {
	part := name + partial
	if err := root.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = root.Rename(part, name)
	}
	if err != nil {
		return errors.Join(err, removeQuietly(root, part))
	}
	return syncDir(root, filepath.Dir(name))
}

func removeQuietly(root *os.Root, name string) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func syncDir(root *os.Root, name string) error {
	d, err := root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// names lists a folder, sorted.
func (s *Spool) names(folder string) ([]string, error) { return namesIn(s.root, folder) }

func namesIn(root *os.Root, folder string) ([]string, error) {
	d, err := root.Open(folder)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(maxNames)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	slices.Sort(names)
	return names, errors.Join(err, d.Close())
}
