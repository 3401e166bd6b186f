package blob

import (
	"errors"
	"fmt"
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
)

// segments is the part of a store that appends small blobs to shared files.
type segments struct {
	size    int64
	buffers [2]buffers

	queueing sync.Mutex
	queue    []*pending
	leading  bool

	// Of the leader only.
	file  durable.File
	seg   uint32
	used  int64
	limit int64 // the file's size

	flagging sync.Mutex // one deletion at a time
	table    sync.Mutex // guards live; never held over I/O
	live     map[segmentID]*liveness
}

func newSegments(size int64) *segments {
	most := min(small, size-headerSize+1) // one more than fits
	return &segments{
		size: size, live: map[segmentID]*liveness{},
		buffers: [2]buffers{newBuffers(min(shortBlob, most), shortBuffers), newBuffers(most, longBuffers)},
	}
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
func (s *root) append(p *pending) (queue.Ref, error) {
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

func (s *root) lead(self *pending) {
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

func (s *root) writeBatch(batch []*pending) {
	g := s.segments
	for len(batch) > 0 {
		err := s.room(padded(int(batch[0].size)))
		n := 0
		off := g.used
		for ; err == nil && n < len(batch) && off+padded(int(batch[n].size)) <= g.limit; n++ {
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
		g.count(segmentID{s.gen, g.seg}, off-g.used, off-g.used)
		g.used = off
		batch = batch[n:]
	}
}

// failed gives the batch its error. What the disk has of it is unknown, so
// nothing is ever appended to that segment again.
func (s *root) failed(batch []*pending, err error) {
	for _, p := range batch {
		p.err = fmt.Errorf("blob: %w", err)
	}
	if rolled := s.retire(); rolled != nil {
		batch[0].err = errors.Join(batch[0].err, rolled)
	}
}

// room makes sure that n bytes fit into the current segment.
func (s *root) room(n int64) error {
	g := s.segments
	if g.file != nil && g.used+n <= g.limit {
		return nil
	}
	if err := s.retire(); err != nil {
		return err
	}
	err := s.begin(g.size)
	if err != nil && n <= g.size/16 { // a disk that is almost full still takes what is due
		err = s.begin(g.size / 16 / align * align)
	}
	return err
}

// begin starts a segment. Its name is durable before anything in it can be
// acknowledged; a crash before that leaves a file without records, which the
// sweep removes.
func (s *root) begin(size int64) error {
	g := s.segments
	g.seg = s.seg.Add(1)
	name := s.segmentFile(s.gen, g.seg)
	f, err := s.fs.Create(name)
	if err != nil {
		return err
	}
	err = f.Allocate(size)
	if err == nil {
		err = s.fs.SyncDir(filepath.Dir(name))
	}
	if err != nil {
		return errors.Join(err, f.Close(), s.remove(name))
	}
	g.table.Lock()
	g.live[segmentID{s.gen, g.seg}] = &liveness{}
	g.table.Unlock()
	g.file, g.used, g.limit = f, 0, size
	return nil
}

// retire ends appending to the current segment and gives back its unused tail.
func (s *root) retire() error {
	g := s.segments
	if g.file == nil {
		return nil
	}
	f := g.file
	g.file = nil
	err := errors.Join(f.Truncate(g.used), f.Close())
	id := segmentID{s.gen, g.seg}
	g.table.Lock()
	g.live[id].full = true
	empty := g.takeEmpty(id)
	g.table.Unlock()
	if empty {
		err = errors.Join(err, s.remove(s.segmentFile(id.gen, id.seg)))
	}
	return err
}
