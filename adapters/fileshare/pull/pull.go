// Package pull fetches the files of a share that is reached over a network into a local
// folder, where an import takes them in. A file is fetched when it stands still, lands
// under a hidden name, and gets its own when it is whole and durable; only then the
// ledger says so, and only then it may be removed at its source. A crash anywhere
// fetches it once more, which doubles nothing: the import knows documents by their
// contents.
//
// Names are bytes on both sides. A sentinel at the source tells an empty folder from one
// that is not there.
package pull

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/queue"
)

// Source is a share somewhere else. Paths have slashes and begin at its folder; List
// does not follow links.
type Source interface {
	List(dir string) ([]fs.FileInfo, error)
	Stat(at string) (fs.FileInfo, error)
	Fetch(at string, into io.Writer) error
	Remove(at string) error
}

// Config of a Puller.
type Config struct {
	From     Source
	Into     string // the local folder
	Sentinel string // a file of the source
	Depth    int
	Skip     func(name string) bool // files and folders that are left where they are
	Quiet    time.Duration          // how long a file stands still until it is whole
	Remove   bool                   // at the source, once it is here
	MaxFile  int64                  // bytes
	Ledger   queue.Store
	Now      func() time.Time
}

// Report says what a pull did.
type Report struct {
	Fetched int `json:"fetched"`
	Waiting int `json:"waiting"` // that do not stand still yet
	Refused int `json:"refused"` // too large, or of a name that cannot be
}

// ErrGone: the source is not there, or its sentinel is not.
var ErrGone = errors.New("pull: the source is not there")

const (
	maxFiles = 1_000_000
	partName = ".yizhan-pull.part"
)

// Puller remembers how files stood. It is for one caller at a time.
type Puller struct {
	c      Config
	sights map[string]sight
}

// sight is a file as it was seen, and since when by our clock.
type sight struct {
	Size  int64 `json:"size"`
	Mod   int64 `json:"mod"` // seconds, as sources tell
	since time.Time
}

// New makes a Puller.
//
// A source that is reached over a new connection is given with Over.
func New(c Config) *Puller { return &Puller{c: c, sights: map[string]sight{}} }

// Over has the source over another connection from now on.
func (p *Puller) Over(from Source) { p.c.From = from }

// Look notes how the files of the source stand, and what is gone.
func (p *Puller) Look(ctx context.Context) error {
	if err := p.there(); err != nil {
		return err
	}
	next, now := map[string]sight{}, p.c.Now()
	err := p.walk(ctx, ".", 0, func(at string, info fs.FileInfo) error {
		s := sight{info.Size(), info.ModTime().Unix(), now}
		if was, known := p.sights[at]; known && was.Size == s.Size && was.Mod == s.Mod {
			s.since = was.since
		}
		if len(next) == maxFiles {
			return fmt.Errorf("pull: more than %d files", maxFiles)
		}
		next[at] = s
		return nil
	})
	if err != nil {
		return errors.Join(err, p.there())
	}
	p.sights = next
	return nil
}

func (p *Puller) there() error {
	info, err := p.c.From.Stat(p.c.Sentinel)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no file")
	}
	if err != nil {
		return fmt.Errorf("%w: its sentinel %q: %w", ErrGone, p.c.Sentinel, err)
	}
	return nil
}

func (p *Puller) walk(ctx context.Context, dir string, depth int, each func(string, fs.FileInfo) error) error {
	list, err := p.c.From.List(dir)
	if err != nil {
		return err
	}
	for _, info := range list {
		at := path.Join(dir, info.Name())
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case at == p.c.Sentinel || !proper(info.Name()) || p.c.Skip(info.Name()):
		case info.Mode().IsRegular():
			err = each(at, info)
		case info.IsDir() && depth < p.c.Depth:
			err = p.walk(ctx, at, depth+1, each)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// proper refuses what a source may call a file to lead elsewhere.
func proper(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00") && len(name) < 256
}

// Pull fetches what has stood still since an earlier look.
func (p *Puller) Pull(ctx context.Context) (r Report, err error) {
	root, err := os.OpenRoot(p.c.Into)
	if err != nil {
		return r, err
	}
	defer root.Close()
	for at, s := range p.sights {
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		known, err := p.fetched(ctx, at, s)
		switch {
		case err != nil:
			return r, err
		case known:
			err = p.remove(at)
		case s.Size > p.c.MaxFile:
			r.Refused++
		case p.c.Now().Sub(s.since) < p.c.Quiet:
			r.Waiting++
		default:
			err = p.one(ctx, root, at, s, &r)
		}
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

// one fetches a file. Whether it stood still meanwhile is asked before and after.
func (p *Puller) one(ctx context.Context, root *os.Root, at string, s sight, r *Report) error {
	if !p.stands(at, s) {
		r.Waiting++
		return p.there()
	}
	if err := p.fetch(root, at, s); err != nil {
		return errors.Join(err, p.there())
	}
	if !p.stands(at, s) {
		r.Waiting++
		return p.there()
	}
	if err := land(root, at); err != nil {
		return err
	}
	// A crash before this fetches it again; after it, it is only removed.
	if err := p.note(ctx, at, s); err != nil {
		return err
	}
	r.Fetched++
	return p.remove(at)
}

// stands asks again. A source that lists no times is believed by sizes.
func (p *Puller) stands(at string, s sight) bool {
	info, err := p.c.From.Stat(at)
	timeless := s.Mod == time.Time{}.Unix()
	return err == nil && info.Size() == s.Size && (timeless || info.ModTime().Unix() == s.Mod)
}

func (p *Puller) remove(at string) error {
	if !p.c.Remove {
		return nil
	}
	if err := p.c.From.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

var errSize = errors.New("pull: another size than the source told")

// fetch writes a file under a hidden name, durably.
func (p *Puller) fetch(root *os.Root, at string, s sight) error {
	if err := root.Remove(partName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(partName, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	w := &limited{w: f, left: s.Size}
	err = p.c.From.Fetch(at, w)
	if err == nil && w.left != 0 {
		err = errSize
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// limited takes no more than was told.
type limited struct {
	w    io.Writer
	left int64
}

func (l *limited) Write(b []byte) (int, error) {
	if int64(len(b)) > l.left {
		return 0, errSize
	}
	n, err := l.w.Write(b)
	l.left -= int64(n)
	return n, err
}

// land gives a file its name.
func land(root *os.Root, at string) error {
	if dir := path.Dir(at); dir != "." {
		if err := root.MkdirAll(dir, 0o750); err != nil {
			return err
		}
	}
	if err := root.Rename(partName, at); err != nil {
		return err
	}
	d, err := root.Open(path.Dir(at))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func rowKey(at string) []byte {
	d := sm.Sum([]byte(at))
	return append([]byte("g"), d[:]...)
}

// fetched says whether a file is here as it is at its source.
func (p *Puller) fetched(ctx context.Context, at string, s sight) (known bool, err error) {
	err = p.c.Ledger.View(ctx, func(tx queue.Tx) error {
		b, err := tx.Get(rowKey(at))
		if b == nil || err != nil {
			return err
		}
		var was sight
		if err := json.Unmarshal(b, &was); err != nil {
			return fmt.Errorf("pull: the ledger is damaged: %w", err)
		}
		known = was.Size == s.Size && was.Mod == s.Mod
		return nil
	})
	return known, err
}

func (p *Puller) note(ctx context.Context, at string, s sight) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return p.c.Ledger.Update(ctx, func(tx queue.Tx) error { return tx.Put(rowKey(at), b) })
}
