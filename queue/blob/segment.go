package blob

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"sync"

	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/queue"
)

const (
	segmentsDir = "segments"
	small       = 1 << 20 // what is shorter goes into a segment
	// SegmentSize is the usual size of a segment.
	SegmentSize = 64 << 20
	// buffers bounds the memory of blobs on their way into a segment.
	buffers = 64
)

var recordPool = sync.Pool{New: func() any { b := make([]byte, headerSize+small+align); return &b }}

// segments is the part of a store that appends small blobs to shared files.
type segments struct {
	size int64
	slot chan struct{}

	queueing sync.Mutex
	queue    []*pending
	leading  bool

	// Of the leader only.
	file durable.File
	seg  uint32
	used int64

	table sync.Mutex // guards live and the flags on disk
	live  map[uint32]*liveness
}

// liveness counts the bytes of a running generation's segment that are not
// deleted.
type liveness struct {
	bytes int64
	full  bool
}

type pending struct {
	record []byte // header room, data, padding
	size   uint32
	at     where
	err    error
	wake   chan bool // true: lead now; false: done
}

// append stores a record with all that wait at the same time under one sync.
// It has no goroutine: whoever comes first writes for all that are queued
// behind it, then hands the lead to the next.
func (s *Store) append(p *pending) (queue.Ref, error) {
	g := s.segments
	p.wake = make(chan bool, 1)
	g.queueing.Lock()
	g.queue = append(g.queue, p)
	lead := !g.leading
	g.leading = true
	g.queueing.Unlock()
	if lead || <-p.wake {
		s.lead(p)
	}
	return p.at.ref(), p.err
}

func (s *Store) lead(self *pending) {
	g := s.segments
	g.queueing.Lock()
	batch := g.queue
	g.queue = nil
	g.queueing.Unlock()
	s.writeBatch(batch)
	for _, p := range batch {
		if p != self {
			p.wake <- false
		}
	}
	g.queueing.Lock()
	defer g.queueing.Unlock()
	if g.leading = len(g.queue) > 0; g.leading {
		g.queue[0].wake <- true
	}
}

func (s *Store) writeBatch(batch []*pending) {
	g := s.segments
	for len(batch) > 0 {
		err := s.room(padded(int(batch[0].size)))
		n := 0
		off := g.used
		for ; err == nil && n < len(batch) && off+padded(int(batch[n].size)) <= g.size; n++ {
			p := batch[n]
			p.at = where{s.gen, g.seg, uint32(off), p.size}
			fillHeader(p.record, p.at)
			_, err = g.file.WriteAt(p.record, off)
			off += int64(len(p.record))
		}
		if err == nil {
			err = g.file.Datasync()
		}
		if err != nil {
			s.failed(batch, err)
			return
		}
		g.table.Lock()
		g.live[g.seg].bytes += off - g.used
		g.table.Unlock()
		g.used = off
		batch = batch[n:]
	}
}

// failed gives the batch its error. What the disk has of it is unknown, so
// nothing is ever appended to that segment again.
func (s *Store) failed(batch []*pending, err error) {
	for _, p := range batch {
		p.err = fmt.Errorf("blob: %w", err)
	}
	if rolled := s.retire(); rolled != nil {
		batch[0].err = errors.Join(batch[0].err, rolled)
	}
}

// room makes sure that n bytes fit into the current segment.
func (s *Store) room(n int64) error {
	g := s.segments
	if g.file != nil && g.used+n <= g.size {
		return nil
	}
	if err := s.retire(); err != nil {
		return err
	}
	g.seg++
	name := s.segmentFile(s.gen, g.seg)
	f, err := s.fs.Create(name)
	if err != nil {
		return err
	}
	err = f.Allocate(g.size)
	if err == nil {
		err = s.fs.SyncDir(filepath.Dir(name))
	}
	if err != nil {
		return errors.Join(err, f.Close(), s.remove(name))
	}
	g.table.Lock()
	g.live[g.seg] = &liveness{}
	g.table.Unlock()
	g.file, g.used = f, 0
	return nil
}

// retire ends appending to the current segment and gives back its unused tail.
func (s *Store) retire() error {
	g := s.segments
	if g.file == nil {
		return nil
	}
	f := g.file
	g.file = nil
	err := errors.Join(f.Truncate(g.used), f.Close())
	g.table.Lock()
	defer g.table.Unlock()
	g.live[g.seg].full = true
	return errors.Join(err, s.dropEmpty(g.seg))
}

// dropEmpty unlinks a full segment without live bytes; the table is locked.
func (s *Store) dropEmpty(seg uint32) error {
	l := s.segments.live[seg]
	if l == nil || !l.full || l.bytes > 0 {
		return nil
	}
	delete(s.segments.live, seg)
	return s.remove(s.segmentFile(s.gen, seg))
}

func (s *Store) openRecord(w where) (io.ReaderAt, io.Closer, error) {
	f, err := s.fs.Open(s.segmentFile(w.gen, w.seg))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%w: %s", queue.ErrNoBlob, w.ref())
	}
	if err != nil {
		return nil, nil, fmt.Errorf("blob: %w", err)
	}
	if err := check(f, w); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, f, nil
}

// deleteRecord flags a record. The flag is not synced: a blob that comes back
// after a crash is one that nothing refers to.
func (s *Store) deleteRecord(w where) error {
	g := s.segments
	g.table.Lock()
	defer g.table.Unlock()
	f, err := s.fs.OpenForWrite(s.segmentFile(w.gen, w.seg))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	size, _, gone, ok, err := readHeader(f, w)
	if err == nil && ok && !gone && size == w.size {
		_, err = f.WriteAt([]byte{deleted}, int64(w.off)+flagAt)
		if l := g.live[w.seg]; err == nil && w.gen == s.gen && l != nil {
			l.bytes -= padded(int(size))
			err = s.dropEmpty(w.seg)
		}
	}
	return errors.Join(err, f.Close())
}
