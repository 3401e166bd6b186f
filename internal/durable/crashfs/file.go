package crashfs

import (
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
)

// sector is what a disk writes as a whole.
const sector = 512

// inode is a file's content. Of what is not synced only the sectors that
// changed are remembered, so that neither a sync nor a crash copies the file.
type inode struct {
	data   []byte
	synced int64            // length as the disk surely has it
	before map[int64][]byte // sector → its durable content; nil: zeros
}

// touch remembers the durable content of the sectors from from up to to.
func (n *inode) touch(from, to int64) {
	if n.before == nil {
		n.before = map[int64][]byte{}
	}
	for i := from / sector; i*sector < to; i++ {
		if _, known := n.before[i]; known {
			continue
		}
		var was []byte
		if start, end := i*sector, min((i+1)*sector, n.synced, int64(len(n.data))); start < end {
			was = slices.Clone(n.data[start:end])
		}
		n.before[i] = was
	}
}

func (n *inode) resize(size int64) {
	old := int64(len(n.data))
	if size < old {
		n.touch(size, old)
		clear(n.data[size:])
		n.data = n.data[:size]
		return
	}
	if size <= int64(cap(n.data)) {
		n.data = n.data[:size]
		clear(n.data[old:])
		return
	}
	n.data = append(n.data, make([]byte, size-old)...)
}

func (n *inode) writeAt(p []byte, off int64) {
	end := off + int64(len(p))
	n.touch(off, end)
	if end > int64(len(n.data)) {
		n.resize(end)
	}
	copy(n.data[off:], p)
}

func (n *inode) sync() {
	n.synced = int64(len(n.data))
	n.before = nil
}

// forget leaves of unsynced content what a disk may leave: any subset of the
// sectors that changed, and any length between the durable one and the newest.
func (n *inode) forget(rng *rand.Rand) {
	if len(n.before) == 0 && n.synced == int64(len(n.data)) {
		return
	}
	short, long := min(n.synced, int64(len(n.data))), max(n.synced, int64(len(n.data)))
	size := [...]int64{n.synced, int64(len(n.data)), short + rng.Int64N(long-short+1)}[rng.IntN(3)]
	now := int64(len(n.data))
	mode := rng.IntN(4)
	for _, i := range slices.Sorted(maps.Keys(n.before)) {
		cut := (i+1)*sector > now && now < n.synced // a truncation taken back brings the old bytes
		if mode == 0 || cut || mode > 1 && rng.IntN(2) == 0 {
			n.revert(i)
		}
	}
	n.resize(size)
	n.sync()
}

func (n *inode) revert(i int64) {
	start, end := i*sector, (i+1)*sector
	was := n.before[i]
	if need := start + int64(len(was)); need > int64(len(n.data)) {
		n.data = append(n.data, make([]byte, need-int64(len(n.data)))...)
	}
	if start < int64(len(n.data)) {
		clear(n.data[start+int64(copy(n.data[start:], was)) : min(end, int64(len(n.data)))])
	}
}

type file struct {
	fs   *FS
	name string
	node *inode
	off  int64
}

func (f *file) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.off)
	f.off += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("crashfs: a negative offset")
	}
	if off >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.node.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) Write(p []byte) (int, error) {
	n, err := f.WriteAt(p, f.off)
	f.off += int64(n)
	return n, err
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	err := f.fs.do("write", f.name, func() error { f.node.writeAt(p, off); return nil })
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *file) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += f.off
	case io.SeekEnd:
		off += int64(len(f.node.data))
	}
	if off < 0 {
		return 0, errors.New("crashfs: a negative offset")
	}
	f.off = off
	return off, nil
}

func (f *file) Sync() error {
	return f.fs.do("sync", f.name, func() error { f.node.sync(); return nil })
}

func (f *file) Datasync() error { return f.Sync() }

func (f *file) Allocate(size int64) error {
	return f.fs.do("allocate", f.name, func() error { f.node.resize(max(size, int64(len(f.node.data)))); return nil })
}

func (f *file) Truncate(size int64) error {
	return f.fs.do("truncate", f.name, func() error { f.node.resize(size); return nil })
}

func (f *file) Close() error { return nil }

func (f *file) Size() (int64, error) { return int64(len(f.node.data)), nil }
