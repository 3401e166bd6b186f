package rest

import (
	"context"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// Uploads hold memory while they are under way: a pipeline of buffers for one
// that is long, its own bytes for one that is short. Their sum is bounded, and
// long ones leave a quarter of it to the others. One agency has half of it for long
// ones and an eighth for the others. One that finds no room waits a moment, then its
// caller is told to come again; one that goes silent, or trickles, is given up: what it
// holds is others' as well.
const (
	budgetBytes   = 160 << 20
	uploadMost    = 4 << 20
	uploadLeast   = 128 << 10
	budgetWait    = 5 * time.Second
	uploadSilence = 30 * time.Second // without a byte, until an upload is given up
	uploadSlowest = 4 << 10          // bytes a second, less than a modem brings
	uploadGrace   = time.Minute      // of waiting for bytes that an upload may be behind that
)

// budget is the memory that uploads, or downloads, may hold.
type budget struct {
	what  string // they are
	mu    sync.Mutex
	room  int64
	long  int64 // from this weight on one is long
	keep  int64 // of it, for those that are not long
	held  map[share]int64
	freed chan struct{} // closed when room was given back
}

func newBudget(what string, bytes, long int64) *budget {
	return &budget{what: what, room: bytes, long: long, keep: bytes / 4, held: map[share]int64{}, freed: make(chan struct{})}
}

// share is what one agency holds for long ones, or for the others.
type share struct {
	agency string
	long   bool
}

// weight is what an upload of so many bytes may hold; negative is an unknown
// length.
func weight(length int64) int64 {
	if length < 0 || length > uploadMost {
		return uploadMost
	}
	return max(length, 0) + uploadLeast
}

// take waits for room and gives the way to give it back.
func (b *budget) take(ctx context.Context, agency string, bytes int64, wait time.Duration) (release func(), err error) {
	late := time.NewTimer(wait)
	defer late.Stop()
	for {
		freed, ok := b.try(agency, bytes)
		if ok {
			return sync.OnceFunc(func() { b.give(agency, bytes) }), nil
		}
		select {
		case <-freed:
		case <-late.C:
			return nil, exchange.Fail(exchange.CodeTemporary, "too many %s are under way", b.what)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (b *budget) try(agency string, bytes int64) (freed <-chan struct{}, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, keep, each := share{agency, bytes >= b.long}, int64(0), b.keep/2
	if s.long {
		keep, each = b.keep, 2*b.keep
	}
	if held := b.held[s]; b.room-keep < bytes || held > 0 && held+bytes > each {
		return b.freed, false
	}
	b.room -= bytes
	b.held[s] += bytes
	return nil, true
}

func (b *budget) give(agency string, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.room += bytes
	s := share{agency, bytes >= b.long}
	if b.held[s] -= bytes; b.held[s] == 0 {
		delete(b.held, s)
	}
	close(b.freed)
	b.freed = make(chan struct{})
}
