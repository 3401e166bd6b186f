package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"

	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/queue"
)

// Generation is the number of this start. References made by it carry it.
func (s *Store) Generation() uint32 { return s.gen }

// OpenAbove opens an empty directory for blobs of another one, whose generation
// was given by Generation: what is put here later carries a higher one, so that
// no reference ever means two blobs.
func OpenAbove(fsys durable.FS, dir string, generation uint32) (*Store, error) {
	if err := fsys.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	if err := durable.WriteFile(fsys, filepath.Join(dir, "generation"), []byte(strconv.FormatUint(uint64(generation), 10)+"\n")); err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	return Open(fsys, dir)
}

// Adopt puts a blob of another store under the reference that it had there, in
// a file of its own in the first root, durable on return. One that is here already is replaced: a
// crash may have cut it short.
func (s *Store) Adopt(ctx context.Context, ref queue.Ref, r io.Reader) error {
	return (*s.roots.Load())[0].adopt(ctx, ref, r)
}

func (s *root) adopt(ctx context.Context, ref queue.Ref, r io.Reader) error {
	gen, dir, file, err := s.adoptedPlace(ref)
	if err != nil {
		return err
	}
	if gen >= s.gen {
		return fmt.Errorf("blob: %s is of generation %d and this store of %d: open it with OpenAbove", ref, gen, s.gen)
	}
	temp := file + ".tmp"
	if err := s.remove(temp); err != nil {
		return err
	}
	if err := s.write(ctx, temp, r, MaxBlob); err != nil {
		return errors.Join(err, s.remove(temp))
	}
	if err := s.fs.Rename(temp, file); err != nil {
		return errors.Join(fmt.Errorf("blob: %w", err), s.remove(temp))
	}
	if err := s.fs.SyncDir(dir); err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	return nil
}

func (s *root) adoptedPlace(ref queue.Ref) (gen uint32, dir, file string, err error) {
	if w, ok := parseRef(ref); ok {
		dir, file = s.movedPlace(w)
		return w.gen, dir, file, nil
	}
	if dir, file, err = s.place(ref); err != nil {
		return 0, "", "", err
	}
	n, err := strconv.ParseUint(string(ref[1:9]), 16, 32)
	return uint32(n), dir, file, err
}
