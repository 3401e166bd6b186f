package export

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// give writes one received document and gives it out:
//
//	part/ID written and synced      a crash: cleaned at the next start
//	renamed to ready/ID             a crash: written anew, as no line names it
//	line in the journal             a crash: finish gives it out
//	line in the list, renamed out   done
func (f *Folder) give(ctx context.Context, d *Document, s *Summary) error {
	if !validID(d.ID) {
		return exchange.Fail(exchange.CodeInternal, "the node names a document in no way that is known")
	}
	if f.state.has(d.ID) {
		return nil
	}
	if err := f.build(ctx, d); err != nil {
		return fmt.Errorf("document %s: %w", d.ID, err)
	}
	if err := f.move(path.Join(partDir, d.ID), path.Join(readyDir, d.ID)); err != nil {
		return err
	}
	if err := f.step("journal", func() error { return f.state.add(d.Seq, d.ID) }); err != nil {
		return err
	}
	return f.out(d.ID, s)
}

// finish gives out what an earlier process had whole and in its journal. What is
// in ready and in no line comes again from the node.
func (f *Folder) finish(s *Summary) error {
	names, err := f.names(readyDir)
	if err != nil {
		return err
	}
	for _, id := range names {
		if !f.state.has(id) {
			err = f.root.RemoveAll(path.Join(readyDir, id))
		} else {
			err = f.out(id, s)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// out enters a whole document into the month's list and renames it into the
// folder. The list comes first, and once: a crash between the two finds its line.
func (f *Folder) out(id string, s *Summary) error {
	d, err := f.read(path.Join(readyDir, id, documentFile))
	if err != nil {
		return fmt.Errorf("document %s: %w", id, err)
	}
	if err := f.step("list", func() error { return f.list(d) }); err != nil {
		return err
	}
	switch err := f.move(path.Join(readyDir, id), id); {
	case errors.Is(err, fs.ErrExist), errors.Is(err, syscall.ENOTEMPTY), errors.Is(err, syscall.ENOTDIR):
		f.c.Logger.Warn("a document waits: its place in the folder is taken", "document", id)
		s.Waiting++
	case err != nil:
		return err
	default:
		s.Received++
	}
	return nil
}

// build writes a document's files below part, each compared with what the sender
// signed for.
func (f *Folder) build(ctx context.Context, d *Document) error {
	dir := path.Join(partDir, d.ID)
	if err := f.root.RemoveAll(dir); err != nil {
		return err
	}
	if err := f.root.Mkdir(dir, 0o700); err != nil {
		return err
	}
	taken := map[string]bool{documentFile: true, manifestFile: true, evidenceFile: true}
	for i := range d.Files {
		file := &d.Files[i]
		file.Saved = savedName(file.Name, taken)
		if err := f.content(ctx, d.ID, path.Join(dir, file.Saved), file); err != nil {
			return err
		}
	}
	if err := f.evidence(ctx, d.ID, path.Join(dir, evidenceFile)); err != nil {
		return err
	}
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	if err := f.write(path.Join(dir, documentFile), bytes.NewReader(b)); err != nil {
		return err
	}
	if err := f.write(path.Join(dir, manifestFile), bytes.NewReader(manifest(d))); err != nil {
		return err
	}
	return f.sync(dir)
}

func (f *Folder) content(ctx context.Context, document, name string, file *File) error {
	in, err := f.c.Node.Content(ctx, document, file.Index)
	if err != nil {
		return err
	}
	defer in.Close()
	hash := sm.New()
	if err := f.write(name, io.TeeReader(io.LimitReader(in, file.Size+1), hash)); err != nil {
		return err
	}
	info, err := f.root.Stat(name)
	if err != nil {
		return err
	}
	if info.Size() != file.Size || hex.EncodeToString(hash.Sum(nil)) != file.SM3 {
		return exchange.Fail(exchange.CodeTemporary, "file %d did not come as it was signed for", file.Index)
	}
	return nil
}

func (f *Folder) evidence(ctx context.Context, document, name string) error {
	in, err := f.c.Node.Evidence(ctx, document)
	if err != nil {
		return err
	}
	defer in.Close()
	return f.write(name, in)
}

// write makes a new file durable; its directory is synced when it is whole.
func (f *Folder) write(name string, content io.Reader) error {
	return f.step("write", func() error {
		out, err := f.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, content)
		if err == nil {
			err = out.Sync()
		}
		return errors.Join(err, out.Close())
	})
}

func (f *Folder) move(from, to string) error {
	return f.step("move", func() error {
		if err := f.root.Rename(from, to); err != nil {
			return err
		}
		return errors.Join(f.sync(path.Dir(from)), f.sync(path.Dir(to)))
	})
}

func (f *Folder) sync(dir string) error {
	d, err := f.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (f *Folder) step(name string, do func() error) error {
	if err := f.c.Step(name); err != nil {
		return err
	}
	return do()
}

func (f *Folder) names(dir string) ([]string, error) {
	d, err := f.root.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	return names, errors.Join(err, d.Close())
}

func (f *Folder) clean(dir string) error {
	names, err := f.names(dir)
	for _, name := range names {
		err = errors.Join(err, f.root.RemoveAll(path.Join(dir, name)))
	}
	return err
}

// maxDocument bounds document.json: 1,000 files with names of 255 bytes.
const maxDocument = 4 << 20

func (f *Folder) read(name string) (*Document, error) {
	in, err := f.root.Open(name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(in, maxDocument))
	if err = errors.Join(err, in.Close()); err != nil {
		return nil, err
	}
	var d Document
	return &d, json.Unmarshal(b, &d)
}

// validID is what may become the name of a folder.
func validID(id string) bool {
	return len(id) == 26 && strings.IndexFunc(id, func(c rune) bool { return (c < '0' || c > '9') && (c < 'A' || c > 'Z') }) < 0
}
