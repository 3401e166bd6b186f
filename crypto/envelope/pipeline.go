package envelope

import (
	"io"
	"runtime"
	"slices"
	"sync"

	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// A block is what one worker is given at a time: sixteen chunks, which are one
// leaf of the payload tree, so that a leaf is hashed by whoever sealed it,
// while it is in the processor's cache.
const (
	blockChunks = merkle.LeafSize / sm.ChunkSealed
	blockPlain  = blockChunks * sm.ChunkPlain
	blockSealed = merkle.LeafSize
)

// maxBlocks bounds what is under way at once, and with it memory: a block
// holds at most 2 MiB.
const maxBlocks = 12

type block struct {
	index   int64
	in, out []byte
	leaf    sm.Digest
	last    bool
	err     error // of fill or work; a block whose fill failed is the last
	done    chan struct{}
}

// idle keeps blocks for the next document: a fresh one is mostly zeros that
// nobody reads.
var idle = sync.Pool{New: func() any { return &block{done: make(chan struct{}, 1)} }}

func newBlock(i int64) *block {
	b := idle.Get().(*block)
	b.reset(i)
	return b
}

func (b *block) reset(i int64) {
	b.index, b.in, b.out, b.last, b.err = i, b.in[:0], b.out[:0], false, nil
}

// pipeline reads blocks ahead, works on them in parallel and yields them in
// the order of their source. What is yielded depends on the source alone, so a
// simulation replays; a source of one block is worked on without any
// goroutine, because most documents are small.
type pipeline struct {
	fill func(*block) // reads in, sets last or err
	work func(*block) // makes out, leaf or err of in

	only  *block // of a source of one block
	held  *block // what the consumer has
	free  chan *block
	order chan *block
	jobs  chan *block
	quit  chan struct{}
	ended sync.Once
	wait  sync.WaitGroup
}

// newPipeline reads the first block. stop must be called.
func newPipeline(fill, work func(*block)) *pipeline {
	p := &pipeline{fill: fill, work: work, quit: make(chan struct{})}
	first := newBlock(0)
	fill(first)
	if first.last || first.err != nil {
		if first.err == nil {
			work(first)
		}
		first.last = true
		p.only = first
		return p
	}
	p.start(first)
	return p
}

func (p *pipeline) start(first *block) {
	workers := runtime.GOMAXPROCS(0)
	n := min(2*workers+2, maxBlocks)
	p.free, p.order, p.jobs = make(chan *block, n), make(chan *block, n), make(chan *block, n)
	for range n - 1 {
		p.free <- newBlock(0)
	}
	p.order <- first
	p.jobs <- first
	p.wait.Go(p.read)
	for range workers {
		p.wait.Go(func() {
			for b := range p.jobs {
				p.work(b)
				b.done <- struct{}{}
			}
		})
	}
}

func (p *pipeline) read() {
	defer close(p.jobs)
	for i := int64(1); ; i++ {
		var b *block
		select {
		case b = <-p.free:
		case <-p.quit:
			return
		}
		b.reset(i)
		p.fill(b)
		p.order <- b
		if b.err != nil {
			b.last = true
			b.done <- struct{}{}
			return
		}
		p.jobs <- b
		if b.last {
			return
		}
	}
}

// next gives the next block and takes back the one before. It must not be
// called after the last one.
func (p *pipeline) next() *block {
	if p.only != nil {
		return p.only
	}
	if p.held != nil {
		p.free <- p.held
	}
	p.held = <-p.order
	<-p.held.done
	return p.held
}

// stop ends the goroutines, whether or not everything was read. What next gave
// is no longer the caller's.
func (p *pipeline) stop() {
	p.ended.Do(func() {
		close(p.quit)
		p.wait.Wait()
		if p.only != nil {
			idle.Put(p.only)
		}
		if p.held != nil {
			idle.Put(p.held)
		}
		p.recycle()
	})
}

// recycle empties the channels. A block still in order was worked on or will
// never be: either way nobody else holds it. Its done is drained first.
func (p *pipeline) recycle() {
	for {
		select {
		case b := <-p.free:
			idle.Put(b)
		case b := <-p.order:
			select {
			case <-b.done:
			default:
			}
			idle.Put(b)
		default:
			return
		}
	}
}

// readUpTo appends up to n bytes to buf and says whether r has ended. Only
// io.EOF is an end: io.ReadFull would take a source's own
// io.ErrUnexpectedEOF, a broken upload, for one.
func readUpTo(r io.Reader, buf []byte, n int) (_ []byte, ended bool, err error) {
	for want := len(buf) + n; len(buf) < want; {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, min(want-len(buf), max(sm.ChunkSealed, 3*len(buf))))
		}
		got, err := r.Read(buf[len(buf):min(cap(buf), want)])
		buf = buf[:len(buf)+got]
		if err == io.EOF {
			return buf, true, nil
		}
		if err != nil {
			return buf, false, err
		}
	}
	return buf, false, nil
}
