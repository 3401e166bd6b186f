package backup

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/queue"
)

// reading is one pass over a snapshot. Where a func is nil, what it would get
// is only checked.
type reading struct {
	*Snapshot
	rows     func([]queue.KV) error
	blob     func(ref queue.Ref, r io.Reader) error
	file     func(path string, r io.Reader) error
	report   func(Progress)
	progress Progress
}

// Verify reads a whole snapshot and compares everything with its manifest.
func (s *Snapshot) Verify(ctx context.Context, report func(Progress)) error {
	r := &reading{Snapshot: s, report: report}
	return r.all(ctx)
}

func (r *reading) all(ctx context.Context) error {
	r.progress.OfBlobs = r.Manifest.Blobs.Count
	if err := r.readFiles(); err != nil {
		return err
	}
	if err := r.readRows(ctx); err != nil {
		return err
	}
	err := r.readBlobs(ctx)
	r.report(r.progress)
	return err
}

// checked opens a file of the snapshot; what is read from it must have this size
// and sum, as end says.
type checked struct {
	f    *os.File
	r    io.Reader
	hash io.Writer
	sum  func() sm.Digest
	name string
	want Part
	size int64
}

func openChecked(path, name string, want Part) (*checked, error) {
	f, err := durable.OpenRegular(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, name, err)
	}
	h := sm.New()
	c := &checked{f: f, hash: h, sum: func() sm.Digest { return sm.Digest(h.Sum(nil)) }, name: name, want: want}
	c.r = io.LimitReader(f, want.Size+1)
	return c, nil
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	_, _ = c.hash.Write(p[:n])
	c.size += int64(n)
	return n, err
}

func (c *checked) end(err error) error {
	if err == nil {
		_, err = io.Copy(io.Discard, c)
	}
	if err == nil && (c.size != c.want.Size || c.sum() != c.want.SM3) {
		err = fmt.Errorf("%w: %s is not what was copied", ErrDamaged, c.name)
	}
	return errors.Join(err, c.f.Close())
}

func (r *reading) readFiles() error {
	for _, f := range r.Manifest.Files {
		c, err := openChecked(filepath.Join(r.Files(), f.Path), f.Path, Part{Size: f.Size, SM3: f.SM3})
		if err != nil {
			return err
		}
		if r.file != nil {
			err = r.file(f.Path, c)
		}
		if err := c.end(err); err != nil {
			return err
		}
		r.progress.FilesDone++
	}
	return nil
}

// batchRows and batchBytes bound what is written in one transaction.
const (
	batchRows  = queue.MaxOps / 2
	batchBytes = queue.MaxTx / 2
)

func (r *reading) readRows(ctx context.Context) error {
	c, err := openChecked(r.path(rowsFile), rowsFile, r.Manifest.Rows)
	if err != nil {
		return err
	}
	err = r.eachBatch(ctx, bufio.NewReaderSize(c, 1<<20))
	if err := c.end(err); err != nil {
		return err
	}
	if r.progress.Rows != r.Manifest.Rows.Count {
		return fmt.Errorf("%w: %d rows of %d", ErrDamaged, r.progress.Rows, r.Manifest.Rows.Count)
	}
	return nil
}

func (r *reading) eachBatch(ctx context.Context, in *bufio.Reader) error {
	magic := make([]byte, len(rowsMagic))
	if _, err := io.ReadFull(in, magic); err != nil || string(magic) != rowsMagic {
		return fmt.Errorf("%w: %s does not begin like one", ErrDamaged, rowsFile)
	}
	var batch []queue.KV
	size := 0
	flush := func() error {
		if err := ctx.Err(); err != nil || len(batch) == 0 {
			return err
		}
		if r.rows != nil {
			if err := r.rows(batch); err != nil {
				return err
			}
		}
		batch, size = batch[:0], 0
		r.report(r.progress)
		return nil
	}
	for {
		kv, err := readRow(in)
		if err != nil {
			return err
		}
		if kv.Key == nil {
			return flush()
		}
		batch = append(batch, kv)
		r.progress.Rows++
		if size += len(kv.Key) + len(kv.Value); len(batch) == batchRows || size > batchBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
}

// readRow reads one row; one without a key is the end.
func readRow(in io.Reader) (kv queue.KV, err error) {
	var head [8]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return kv, fmt.Errorf("%w: %s ends early", ErrDamaged, rowsFile)
	}
	k, v := binary.BigEndian.Uint32(head[:4]), binary.BigEndian.Uint32(head[4:])
	if k == 0 && v == 0 {
		return kv, nil
	}
	if k == 0 || k > queue.MaxKey || v > queue.MaxValue {
		return kv, fmt.Errorf("%w: a row of %d and %d bytes", ErrDamaged, k, v)
	}
	b := make([]byte, k+v)
	if _, err := io.ReadFull(in, b); err != nil {
		return kv, fmt.Errorf("%w: %s ends early", ErrDamaged, rowsFile)
	}
	return queue.KV{Key: b[:k:k], Value: b[k:]}, nil
}

func (r *reading) readBlobs(ctx context.Context) error {
	c, err := openChecked(r.path(blobList), blobList, r.Manifest.Blobs)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(c)
	for lines.Scan() && err == nil {
		if err = ctx.Err(); err == nil {
			err = r.readBlob(lines.Text())
		}
		if r.progress.Blobs++; r.progress.Blobs%200 == 0 {
			r.report(r.progress)
		}
	}
	if err == nil && lines.Err() != nil {
		err = fmt.Errorf("%w: %s: %w", ErrDamaged, blobList, lines.Err())
	}
	if err == nil && r.progress.Blobs != r.Manifest.Blobs.Count {
		err = fmt.Errorf("%w: %d blobs of %d", ErrDamaged, r.progress.Blobs, r.Manifest.Blobs.Count)
	}
	return c.end(err)
}

func (r *reading) readBlob(line string) error {
	ref, want, err := parseBlobLine(line)
	if err != nil {
		return err
	}
	name, err := blobFile(r.repo, ref)
	if err != nil {
		return err
	}
	c, err := openChecked(name, string(ref), want)
	if err != nil {
		return err
	}
	if r.blob != nil {
		err = r.blob(ref, c)
	}
	r.progress.Bytes += want.Size
	return c.end(err)
}

// parseBlobLine reads "REF SIZE SM3".
func parseBlobLine(line string) (ref queue.Ref, want Part, err error) {
	f := strings.Fields(line)
	if len(f) != 3 || !refForm.MatchString(f[0]) {
		return "", want, fmt.Errorf("%w: a line of %s", ErrDamaged, blobList)
	}
	if want.Size, err = strconv.ParseInt(f[1], 10, 64); err == nil {
		want.SM3, err = sm.ParseDigest(f[2])
	}
	if err != nil || want.Size < 0 {
		return "", want, fmt.Errorf("%w: a line of %s", ErrDamaged, blobList)
	}
	return queue.Ref(f[0]), want, nil
}

// Target is where a snapshot is restored: an empty store and empty blobs, and
// the folder for the files.
type Target struct {
	Store queue.Store
	Blobs interface {
		Adopt(ctx context.Context, ref queue.Ref, r io.Reader) error
	}
	Data string
}

// RestoreFiles writes the files of a snapshot into a folder, so that settings
// can be read before there is a store.
func (s *Snapshot) RestoreFiles(data string) error {
	r := &reading{Snapshot: s, report: func(Progress) {}}
	r.file = func(path string, in io.Reader) error {
		b, err := io.ReadAll(in)
		if err != nil {
			return err
		}
		name := filepath.Join(data, path)
		if err := durable.OS.MkdirAll(filepath.Dir(name)); err != nil {
			return err
		}
		return durable.WriteFile(durable.OS, name, b)
	}
	return r.readFiles()
}

// Restore writes rows and blobs. Everything is compared with the manifest on
// the way; after an error, or a crash, the target is to be thrown away.
func (s *Snapshot) Restore(ctx context.Context, to Target, report func(Progress)) error {
	r := &reading{Snapshot: s, report: report}
	r.progress.OfBlobs = s.Manifest.Blobs.Count
	r.rows = func(batch []queue.KV) error {
		return to.Store.Update(ctx, func(tx queue.Tx) error {
			for _, kv := range batch {
				if err := tx.Insert(kv.Key, kv.Value); err != nil {
					return fmt.Errorf("backup: the target is not empty, or a row is there twice: %w", err)
				}
			}
			return nil
		})
	}
	// A blob is at most 8 MiB: it is checked before it is put anywhere.
	r.blob = func(ref queue.Ref, in io.Reader) error {
		b, err := io.ReadAll(in)
		if err != nil {
			return err
		}
		return to.Blobs.Adopt(ctx, ref, bytes.NewReader(b))
	}
	if err := r.readRows(ctx); err != nil {
		return err
	}
	err := r.readBlobs(ctx)
	report(r.progress)
	return err
}
