package blob

import "sync"

// Blobs on their way into a segment lie in buffers of two classes, so that
// many short ones take little memory. The classes together hold at most
// 48 MiB; who finds none free writes an own file, since a slow source must not
// keep others waiting.
const (
	shortBlob    = 32 << 10
	shortBuffers = 1024
	longBuffers  = 16
)

// buffers is one class: room for a record whose data is shorter than most.
type buffers struct {
	most int64
	slot chan struct{}
	pool *sync.Pool
}

func newBuffers(most int64, count int) buffers {
	return buffers{most, make(chan struct{}, count), &sync.Pool{New: func() any {
		b := make([]byte, padded(int(most)))
		return &b
	}}}
}

// take gives a buffer, or nil when all are in use.
func (b *buffers) take() *[]byte {
	select {
	case b.slot <- struct{}{}:
		return b.pool.Get().(*[]byte)
	default:
		return nil
	}
}

func (b *buffers) give(buffer *[]byte) {
	b.pool.Put(buffer)
	<-b.slot
}
