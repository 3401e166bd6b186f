package badgerstore

import (
	"sync"
	"sync/atomic"
)

// commits counts the commits of a store. What one wrote may be seen in Badger
// from before its sync, and for good when the sync failed; between begin and
// succeed nobody knows.
type commits struct {
	begun, succeeded atomic.Uint64

	mu     sync.Mutex
	change sync.Cond // of succeeded or failed; made with mu at the first use
	failed error
}

func (c *commits) begin() { c.begun.Add(1) }

func (c *commits) succeed() {
	c.succeeded.Add(1)
	c.tell(nil)
}

// fail ends all waiting, also that to come.
func (c *commits) fail(err error) { c.tell(err) }

func (c *commits) tell(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.failed = err
	}
	if c.change.L != nil {
		c.change.Broadcast()
	}
}

// settle waits until all commits that have begun are known to have succeeded.
// Call it with a Badger transaction in hand: that sees no later ones.
func (c *commits) settle() error {
	n := c.begun.Load()
	if c.succeeded.Load() >= n {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.change.L == nil {
		c.change.L = &c.mu
	}
	for c.succeeded.Load() < n && c.failed == nil {
		c.change.Wait()
	}
	return c.failed
}
