package badgerstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
)

// ErrDamaged marks a directory that holds a database which cannot be opened
// without losing what is in it.
var ErrDamaged = errors.New("badgerstore: the store is damaged")

// sound refuses what Badger would not: tables without the file that lists them,
// which it would take for an empty database and remove, and tables whose ends do
// not name their parts, over which it panics where nobody can catch it.
func sound(dir string) error {
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil {
		return err
	}
	if err := manifestThere(dir, tables); err != nil {
		return err
	}
	for _, name := range tables {
		if err := tableEnds(name); err != nil {
			return err
		}
	}
	return nil
}

func manifestThere(dir string, tables []string) error {
	_, err := os.Stat(filepath.Join(dir, badger.ManifestFilename))
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, kind := range []string{"*.mem", "*.vlog"} {
		more, err := filepath.Glob(filepath.Join(dir, kind))
		if err != nil {
			return err
		}
		tables = append(tables, more...)
	}
	if len(tables) > 0 {
		return fmt.Errorf("%w: %s has tables and no %s", ErrDamaged, dir, badger.ManifestFilename)
	}
	return nil
}

// tableEnds looks at the end of a table: an index, its length, a checksum, its
// length, the lengths big-endian.
func tableEnds(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	left := info.Size()
	for _, part := range []string{"checksum", "index"} {
		var b [4]byte
		if left -= int64(len(b)); left < 0 {
			return fmt.Errorf("%w: %s ends early", ErrDamaged, name)
		}
		if _, err := f.ReadAt(b[:], left); err != nil {
			return err
		}
		if left -= int64(binary.BigEndian.Uint32(b[:])); left < 0 {
			return fmt.Errorf("%w: the %s of %s has an impossible length", ErrDamaged, part, name)
		}
	}
	return nil
}
