package backup

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
	"github.com/yizhan-gateway/yizhan/queue/blob"
)

// Blobs are a node's blobs, which a copy keeps from deletion while it runs.
type Blobs interface {
	Open(ctx context.Context, ref queue.Ref, off int64) (io.ReadCloser, error)
	Keep() (release func() error)
	Generation() uint32
}

// Source is a node that is copied, running or not. Data is its data directory;
// Skip names what in it is no file to copy. Sign signs the manifest as the node.
type Source struct {
	Domain, Node, Ledger string
	Store                queue.Store
	Blobs                Blobs
	Data                 string
	Skip                 []string
	Sign                 func(content []byte) ([]byte, error)
	Now                  func() time.Time
}

const rowsMagic = "YZROWS1\n"

// maker is one copy being made.
type maker struct {
	Source
	repo, dir string
	m         Manifest
	report    func(Progress)
	progress  Progress
}

// Create copies a node into a repository, which it makes if needed, and gives
// the snapshot. The node goes on meanwhile. A crash, or an error, leaves a
// snapshot without a manifest, which counts for nothing and can be removed, and
// blobs that the next one need not copy.
func Create(ctx context.Context, s Source, repo string, report func(Progress)) (*Snapshot, error) {
	c := &maker{Source: s, repo: filepath.Clean(repo), report: report}
	c.m = Manifest{Type: manifestType, V: 1, Domain: s.Domain, Node: s.Node, Ledger: s.Ledger, Generation: s.Blobs.Generation(), Files: []FilePart{}}
	if err := c.apart(); err != nil {
		return nil, err
	}
	release := s.Blobs.Keep()
	err := c.make(ctx)
	if err = errors.Join(err, release()); err != nil {
		return nil, err
	}
	return open(c.repo, filepath.Base(c.dir))
}

// apart refuses a repository inside the data directory: it would be lost with it.
func (c *maker) apart() error {
	data, err := filepath.Abs(c.Data)
	if err != nil {
		return err
	}
	repo, err := filepath.Abs(c.repo)
	if err != nil {
		return err
	}
	if rel, err := filepath.Rel(data, repo); err == nil && filepath.IsLocal(rel) {
		return fmt.Errorf("backup: %s lies in the data directory and would be lost with it: choose another disk", repo)
	}
	if err := durable.OS.MkdirAll(repo); err != nil {
		return err
	}
	list, err := Snapshots(repo)
	for _, s := range list {
		if s.Manifest.Node != c.Node || s.Manifest.Domain != c.Domain {
			return fmt.Errorf("backup: %s holds copies of node %s (domain %s): each node has a repository of its own", repo, s.Manifest.Node, s.Manifest.Domain)
		}
	}
	return err
}

func (c *maker) make(ctx context.Context) error {
	if err := c.copyRows(ctx); err != nil {
		return err
	}
	if err := c.copyBlobs(ctx); err != nil {
		return err
	}
	if err := c.copyFiles(ctx); err != nil {
		return err
	}
	content, err := strictjson.Marshal(&c.m)
	if err != nil {
		return err
	}
	signed, err := c.Sign(content)
	if err != nil {
		return fmt.Errorf("backup: signing the manifest: %w", err)
	}
	if len(signed) > MaxManifest {
		return fmt.Errorf("backup: a manifest of %d bytes, at most %d are possible", len(signed), MaxManifest)
	}
	return durable.WriteFile(durable.OS, filepath.Join(c.dir, manifestFile), signed)
}

// sink is a file that is being written, with its length and SM3.
type sink struct {
	f    *os.File
	w    *bufio.Writer
	hash hash.Hash
	size int64
}

func newSink(name string) (*sink, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	return &sink{f: f, w: bufio.NewWriterSize(f, 1<<20), hash: sm.New()}, nil
}

func (s *sink) Write(p []byte) (int, error) {
	s.hash.Write(p)
	s.size += int64(len(p))
	return s.w.Write(p)
}

// end makes the file durable, or removes what an error left.
func (s *sink) end(err error) error {
	if err == nil {
		err = s.w.Flush()
	}
	if err == nil {
		err = s.f.Sync()
	}
	if err = errors.Join(err, s.f.Close()); err != nil {
		return errors.Join(err, os.Remove(s.f.Name()))
	}
	return nil
}

func (s *sink) sum() sm.Digest { return sm.Digest(s.hash.Sum(nil)) }

// refsFile lists the references between the pass over the rows and that over
// the blobs; it is no part of the snapshot.
const refsFile = "references.tmp"

// copyRows writes all rows of one moment, and the references in them.
func (c *maker) copyRows(ctx context.Context) (err error) {
	var out, refs *sink
	err = c.Store.View(ctx, func(tx queue.Tx) error {
		ledger := queue.Ledger{Name: "main"}
		if c.m.Size, err = ledger.Size(tx); err != nil {
			return err
		}
		if c.m.Root, err = ledger.Root(tx, c.m.Size); err != nil {
			return err
		}
		c.m.At = strictjson.TimeOf(c.Now())
		c.dir = filepath.Join(c.repo, fmt.Sprintf("%s-%d", c.Now().UTC().Format("20060102T150405Z"), c.m.Size))
		if err := os.Mkdir(c.dir, 0o700); err != nil {
			return fmt.Errorf("backup: %w", err)
		}
		if out, err = newSink(filepath.Join(c.dir, rowsFile)); err != nil {
			return err
		}
		if refs, err = newSink(filepath.Join(c.dir, refsFile)); err != nil {
			return err
		}
		return c.writeRows(ctx, tx, out, refs)
	})
	for _, s := range []*sink{out, refs} {
		if s != nil {
			err = s.end(err)
		}
	}
	if err != nil {
		return fmt.Errorf("backup: rows: %w", err)
	}
	c.m.Rows = Part{Count: c.progress.Rows, Size: out.size, SM3: out.sum()}
	return durable.OS.SyncDir(c.repo)
}

func (c *maker) writeRows(ctx context.Context, tx queue.Tx, out, refs io.Writer) error {
	if _, err := io.WriteString(out, rowsMagic); err != nil {
		return err
	}
	owned := string(records.BlobOwners.Key())
	for kv, err := range tx.Scan(nil, nil, 0) {
		if err != nil {
			return err
		}
		head := binary.BigEndian.AppendUint32(nil, uint32(len(kv.Key)))
		head = binary.BigEndian.AppendUint32(head, uint32(len(kv.Value)))
		for _, b := range [][]byte{head, kv.Key, kv.Value} {
			if _, err := out.Write(b); err != nil {
				return err
			}
		}
		if strings.HasPrefix(string(kv.Key), owned) {
			c.progress.OfBlobs++
			if _, err := fmt.Fprintln(refs, records.BlobOwners.Name(kv.Key)); err != nil {
				return err
			}
		}
		if c.progress.Rows++; c.progress.Rows%10_000 == 0 {
			c.report(c.progress)
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
	_, err := out.Write(make([]byte, 8))
	return err
}

// copyBlobs copies what the repository does not have, and lists all. One that cannot
// be read is missing from then on: it is no reason to have no copy of the others.
func (c *maker) copyBlobs(ctx context.Context) error {
	refs, err := os.Open(filepath.Join(c.dir, refsFile))
	if err != nil {
		return err
	}
	defer refs.Close()
	list, err := newSink(filepath.Join(c.dir, blobList))
	if err != nil {
		return err
	}
	dirs := map[string]bool{}
	for lines := bufio.NewScanner(refs); lines.Scan(); {
		ref := queue.Ref(lines.Text())
		size, sum, err := c.copyBlob(ctx, ref, dirs)
		if lost := (unreadable{}); errors.As(err, &lost) && ctx.Err() == nil {
			if err = c.misses(ref); err == nil {
				continue
			}
		} else if err == nil {
			_, err = fmt.Fprintf(list, "%s %d %s\n", ref, size, sum)
		}
		if err != nil {
			return list.end(fmt.Errorf("backup: blob %s: %w", ref, err))
		}
		c.progress.Bytes += size
		if err := ctx.Err(); err != nil {
			return list.end(err)
		}
		if c.progress.Blobs++; c.progress.Blobs%200 == 0 {
			c.report(c.progress)
		}
	}
	if err := list.end(nil); err != nil {
		return fmt.Errorf("backup: list of blobs: %w", err)
	}
	if all := c.progress.Blobs + c.progress.Missing; all != c.progress.OfBlobs {
		return fmt.Errorf("backup: %d references of %d were read back", all, c.progress.OfBlobs)
	}
	if err := os.Remove(refs.Name()); err != nil {
		return err
	}
	for dir := range dirs {
		if err := durable.OS.SyncDir(dir); err != nil {
			return err
		}
	}
	c.m.Blobs, c.m.BlobBytes = Part{Count: c.progress.Blobs, Size: list.size, SM3: list.sum()}, c.progress.Bytes
	c.report(c.progress)
	return nil
}

// unreadable is trouble with one blob of the node, not with its disks or the
// repository: those end the copy.
type unreadable struct{ error }

func (u unreadable) Unwrap() error { return u.error }

// source marks what goes wrong with a blob of the node. A directory of blobs that is
// away is none of that: to mount it costs less than a copy without what is in it.
func source(err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, blob.ErrNoRoot) {
		return err
	}
	return unreadable{err}
}

type sourceReader struct{ io.Reader }

func (s sourceReader) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	return n, source(err)
}

// misses names a blob that cannot be read.
func (c *maker) misses(ref queue.Ref) error {
	if len(c.m.Missing) == MaxMissing {
		return fmt.Errorf("more than %d cannot be read: look at the disk, and run yizhan fsck --read-data", MaxMissing)
	}
	c.m.Missing = append(c.m.Missing, string(ref))
	c.progress.Missing++
	return nil
}

// copyBlob copies one blob under a temporary name first, so that a name is never
// half a blob. One that is there already is compared: a reference is one blob's in
// the life of a node, and not of two. What cannot be read here any more and was
// copied when it could is taken from there.
func (c *maker) copyBlob(ctx context.Context, ref queue.Ref, dirs map[string]bool) (size int64, sum sm.Digest, err error) {
	name, err := blobFile(c.repo, ref)
	if err != nil {
		return 0, sum, err
	}
	if there, err := os.Open(name); err == nil {
		defer there.Close()
		return c.compare(ctx, ref, there)
	}
	from, err := c.Blobs.Open(ctx, ref, 0)
	if err != nil {
		return 0, sum, source(err)
	}
	defer from.Close()
	dir := filepath.Dir(name)
	if !dirs[dir] {
		if err := durable.OS.MkdirAll(dir); err != nil {
			return 0, sum, err
		}
		dirs[dir] = true
	}
	if err := os.Remove(name + ".tmp"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, sum, err
	}
	out, err := newSink(name + ".tmp")
	if err != nil {
		return 0, sum, err
	}
	_, err = io.Copy(out, sourceReader{from})
	if err := out.end(err); err != nil {
		return 0, sum, err
	}
	c.progress.NewBlobs++
	c.progress.NewBytes += out.size
	return out.size, out.sum(), os.Rename(name+".tmp", name)
}

// ErrOtherBytes: the repository is another node's, or has copies of a life of this
// one that a restore has ended.
var ErrOtherBytes = errors.New("backup: the repository holds other bytes under this name; its copies are of another life of the node: use a new repository")

// compare gives the sum of a blob that the repository has.
func (c *maker) compare(ctx context.Context, ref queue.Ref, there io.Reader) (size int64, sum sm.Digest, err error) {
	if size, sum, err = readThrough(there); err != nil {
		return 0, sum, err
	}
	from, err := c.Blobs.Open(ctx, ref, 0)
	if err != nil {
		return size, sum, nil // it was copied when it could be read
	}
	defer from.Close()
	ours, oursum, err := readThrough(from)
	if err == nil && (ours != size || oursum != sum) {
		return 0, sum, ErrOtherBytes
	}
	return size, sum, nil
}

func readThrough(r io.Reader) (size int64, sum sm.Digest, err error) {
	h := sm.New()
	size, err = io.Copy(h, r)
	return size, sm.Digest(h.Sum(nil)), err
}

// copyFiles copies the files of the data directory that are neither rows nor
// blobs, nor in Skip. What is no file, like the socket, is left out.
func (c *maker) copyFiles(ctx context.Context) error {
	root, err := os.OpenRoot(c.Data)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case slices.Contains(c.Skip, path) && d.IsDir():
			return fs.SkipDir
		case d.IsDir():
			return durable.OS.MkdirAll(filepath.Join(c.dir, filesDir, path))
		case slices.Contains(c.Skip, path) || !d.Type().IsRegular() || strings.HasSuffix(path, ".tmp"):
			return nil
		case len(c.m.Files) == MaxFiles:
			return fmt.Errorf("backup: more than %d files in %s", MaxFiles, c.Data)
		}
		c.progress.FilesDone++
		return c.copyFile(root, path)
	})
}

func (c *maker) copyFile(root *os.Root, path string) error {
	from, err := root.Open(path)
	if errors.Is(err, fs.ErrNotExist) { // gone since
		return nil
	}
	if err != nil {
		return err
	}
	defer from.Close()
	out, err := newSink(filepath.Join(c.dir, filesDir, path))
	if err != nil {
		return err
	}
	n, err := io.Copy(out, io.LimitReader(from, MaxFile+1))
	if err == nil && n > MaxFile {
		err = fmt.Errorf("backup: %s has more than %d bytes", path, MaxFile)
	}
	if err := out.end(err); err != nil {
		return err
	}
	c.m.Files = append(c.m.Files, FilePart{Path: path, Size: out.size, SM3: out.sum()})
	return durable.OS.SyncDir(filepath.Dir(filepath.Join(c.dir, filesDir, path)))
}
