package blob

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/queue"
)

// A record is a header, the data, and zeros up to the next multiple of align:
//
//	magic 4 | length 4 | CRC-32C of the data 4 | CRC-32C of the header 4 | flag 1 | zeros 15
//
// The header's checksum also covers where the record belongs (generation,
// segment, offset), so that a record in a wrong place is none. The flag is
// outside of it: deletion changes that byte alone.
const (
	headerSize = 32
	flagAt     = 16
	deleted    = 0xff
	magic      = 0x315a5959 // "YYZ1"

	// align is a disk's sector: a write torn by a power cut touches no sector
	// of a record acknowledged before it.
	align = 512
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrDamaged is returned for a blob whose bytes are not those that were stored.
var ErrDamaged = errors.New("stored bytes are damaged")

// where is a blob's place in a segment, and its length.
type where struct{ gen, seg, off, size uint32 }

const segmentForm = "s%08x-%08x-%08x-%08x"

func (w where) ref() queue.Ref {
	return queue.Ref(fmt.Sprintf(segmentForm, w.gen, w.seg, w.off, w.size))
}

func padded(size int) int64 { return (int64(size) + headerSize + align - 1) / align * align }

// parseRef reads a reference into a segment.
func parseRef(ref queue.Ref) (w where, ok bool) {
	if len(ref) != 36 || ref[0] != 's' {
		return w, false
	}
	for i, field := range []*uint32{&w.gen, &w.seg, &w.off, &w.size} {
		n, err := strconv.ParseUint(string(ref[1+9*i:9+9*i]), 16, 32)
		if err != nil {
			return w, false
		}
		*field = uint32(n)
	}
	return w, w.ref() == ref && w.off%align == 0 && w.size < small
}

// fillHeader completes a record whose data lies behind room for the header.
func fillHeader(record []byte, w where) {
	clear(record[:headerSize])
	binary.LittleEndian.PutUint32(record[0:], magic)
	binary.LittleEndian.PutUint32(record[4:], w.size)
	binary.LittleEndian.PutUint32(record[8:], crc32.Checksum(record[headerSize:headerSize+w.size], castagnoli))
	binary.LittleEndian.PutUint32(record[12:], headerSum(record, w))
}

func headerSum(header []byte, w where) uint32 {
	var place [12]byte
	binary.LittleEndian.PutUint32(place[0:], w.gen)
	binary.LittleEndian.PutUint32(place[4:], w.seg)
	binary.LittleEndian.PutUint32(place[8:], w.off)
	return crc32.Update(crc32.Checksum(place[:], castagnoli), castagnoli, header[:12])
}

// readHeader tells the record at w's place; ok is false where none is.
func readHeader(f io.ReaderAt, w where) (size, sum uint32, gone, ok bool, err error) {
	var h [headerSize]byte
	if _, err := f.ReadAt(h[:], int64(w.off)); errors.Is(err, io.EOF) {
		return 0, 0, false, false, nil
	} else if err != nil {
		return 0, 0, false, false, err
	}
	size = binary.LittleEndian.Uint32(h[4:])
	ok = binary.LittleEndian.Uint32(h[0:]) == magic && size < small && binary.LittleEndian.Uint32(h[12:]) == headerSum(h[:], w)
	return size, binary.LittleEndian.Uint32(h[8:]), h[flagAt] != 0, ok, nil
}

// checking has buffers for records that are checked: most are smaller than a new one.
var checking = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// check compares a record with its reference and its checksum before a byte
// of it is delivered.
func check(f io.ReaderAt, w where) error {
	size, sum, gone, ok, err := readHeader(f, w)
	switch {
	case err != nil:
		return fmt.Errorf("blob: %w", err)
	case !ok:
		return absent(f, w)
	case size != w.size || gone:
		return fmt.Errorf("%w: %s", queue.ErrNoBlob, w.ref())
	}
	crc := crc32.New(castagnoli)
	buf := checking.Get().(*[32 << 10]byte)
	defer checking.Put(buf)
	n, err := io.CopyBuffer(crc, io.NewSectionReader(f, int64(w.off)+headerSize, int64(size)), buf[:])
	if err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	if n != int64(size) || crc.Sum32() != sum {
		return fmt.Errorf("blob: %w: %s; run yizhan fsck", ErrDamaged, w.ref())
	}
	return nil
}

// absent tells a place where nothing was ever written from a header that has
// rotted.
func absent(f io.ReaderAt, w where) error {
	empty, err := zeros(f, int64(w.off), headerSize)
	switch {
	case err != nil:
		return fmt.Errorf("blob: %w", err)
	case empty:
		return fmt.Errorf("%w: %s", queue.ErrNoBlob, w.ref())
	}
	return fmt.Errorf("blob: %w: the header of %s; run yizhan fsck", ErrDamaged, w.ref())
}

// zeros says whether n bytes, or as many as there are, are all zero.
func zeros(f io.ReaderAt, off, n int64) (bool, error) {
	b := make([]byte, min(n, 64<<10))
	for r := io.NewSectionReader(f, off, n); ; {
		m, err := r.Read(b)
		for _, c := range b[:m] {
			if c != 0 {
				return false, nil
			}
		}
		if err == io.EOF {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
}

func (s *root) segmentFile(gen, seg uint32) string {
	return filepath.Join(s.dir, segmentsDir, fmt.Sprintf("%08x-%08x.seg", gen, seg))
}

// walk visits the records of a segment in order and tells where they end. A
// damaged header is stepped over sector by sector; holes says that there is
// something where no record is, so that some of the segment's blobs may not be
// told: such a segment is neither cut nor unlinked.
func walk(f durable.File, gen, seg uint32, visit func(w where, gone bool) error) (end int64, holes bool, err error) {
	size, err := f.Size()
	if err != nil {
		return 0, false, err
	}
	for off := int64(0); off+headerSize <= size && off < 1<<32; {
		w := where{gen: gen, seg: seg, off: uint32(off)}
		n, _, gone, ok, err := readHeader(f, w)
		if err != nil {
			return 0, false, err
		}
		if !ok {
			off += align
			continue
		}
		if !holes && end < off {
			empty, err := zeros(f, end, off-end)
			if err != nil {
				return 0, false, err
			}
			holes = !empty
		}
		w.size = n
		if err := visit(w, gone); err != nil {
			return 0, false, err
		}
		off += padded(int(n))
		end = off
	}
	if holes || end >= size {
		return end, holes, nil
	}
	unused, err := zeros(f, end, size-end)
	return end, !unused, err
}
