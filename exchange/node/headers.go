package node

import (
	"context"
	"fmt"
	"sync"

	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// A header is read several times within moments: when it comes, with its
// consignment, when it is distributed, and with each receipt. It never changes
// and is named by its hash, so the ones parsed last are kept; nobody may change
// what loadHeader gives.
const (
	headersBytes = 16 << 20 // of what is kept
	headerGrowth = 4        // a parsed header holds about so many times its bytes
)

// headerCache keeps the newest parsed headers.
type headerCache struct {
	mu     sync.Mutex
	byHash map[sm.Digest]*envelope.Envelope
	order  []kept // oldest first
	bytes  int64
}

type kept struct {
	hash  sm.Digest
	bytes int64
}

func (c *headerCache) get(hh sm.Digest) *envelope.Envelope {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byHash[hh]
}

func (c *headerCache) put(e *envelope.Envelope, size int64) {
	size *= headerGrowth
	if size > headersBytes/8 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byHash == nil {
		c.byHash = map[sm.Digest]*envelope.Envelope{}
	}
	if c.byHash[e.Hash] != nil {
		return
	}
	c.byHash[e.Hash] = e
	c.order = append(c.order, kept{e.Hash, size})
	for c.bytes += size; c.bytes > headersBytes; {
		delete(c.byHash, c.order[0].hash)
		c.bytes -= c.order[0].bytes
		c.order = c.order[1:]
	}
}

// loadHeader gives the parsed header of an envelope that is here.
func (n *Node) loadHeader(ctx context.Context, hh sm.Digest, env *records.Envelope) (*envelope.Envelope, error) {
	if e := n.headers.get(hh); e != nil {
		return e, nil
	}
	b, err := n.headerBytes(ctx, hh, env)
	if err != nil {
		return nil, err
	}
	e, err := envelope.ParseHeader(b)
	if err != nil {
		return nil, fmt.Errorf("%w: the header of %s: %w", records.ErrUnreadable, hh, err)
	}
	if e.Hash != hh {
		return nil, fmt.Errorf("%w: the header of %s is another one", records.ErrUnreadable, hh)
	}
	n.headers.put(e, env.Header.Size)
	return e, nil
}

// headerBytes gives the signed header of an envelope that is here.
func (n *Node) headerBytes(ctx context.Context, hh sm.Digest, env *records.Envelope) (b []byte, err error) {
	if !headerInRow(env) {
		return env.Header.Load(ctx, n.c.Blobs)
	}
	err = n.view(ctx, func(tx queue.Tx) error {
		b, err = records.Headers.Get(tx, hh)
		return err
	})
	if err == nil && b == nil {
		err = fmt.Errorf("%w: the header of %s is missing", records.ErrUnreadable, hh)
	}
	return b, err
}

// headerInRow says whether a header lies in a row of its own.
func headerInRow(env *records.Envelope) bool {
	return env.Header.Ref == "" && len(env.Header.Inline) == 0
}
