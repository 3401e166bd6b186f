// Package carrier is a bad gate for the demo and for tests: it moves the files of a
// ferry from one side to the other, and loses, doubles and cuts some on the way.
package carrier

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Losses counts what became of the files.
type Losses struct {
	Files     int `json:"files"` // that were to be carried
	Lost      int `json:"lost"`
	Doubled   int `json:"doubled"`
	Truncated int `json:"truncated"`
}

// fate is what becomes of one file.
type fate int

const (
	whole fate = iota
	lost
	doubled
	cut
)

// Of each Deck files in a row 20 % are lost, 10 % doubled and 5 % cut: dealt like
// cards, so that a short run meets all of them, too.
const Deck = 20

var deckOf = map[fate]int{lost: 4, doubled: 2, cut: 1}

// Carrier moves files. It may be used by several at a time.
type Carrier struct {
	mu     sync.Mutex
	rng    *rand.Rand
	deck   []fate
	losses Losses
}

// New gives a carrier whose luck depends on the seed alone.
func New(seed uint64) *Carrier { return &Carrier{rng: rand.New(rand.NewPCG(seed, seed))} }

// Losses says what happened so far.
func (c *Carrier) Losses() Losses {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.losses
}

// Run carries between the directories of each way, again and again, until ctx ends.
func (c *Carrier) Run(ctx context.Context, every time.Duration, ways ...[2]string) error {
	for ctx.Err() == nil {
		for _, w := range ways {
			if err := c.Carry(w[0], w[1]); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(every):
		}
	}
	return nil
}

// Carry moves what lies in one directory now, in any order.
func (c *Carrier) Carry(from, to string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	entries, err := os.ReadDir(from)
	if errors.Is(err, fs.ErrNotExist) { // its node has not started yet
		return nil
	}
	if err != nil {
		return err
	}
	c.rng.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
	for _, e := range entries {
		if e.Type().IsRegular() && !strings.HasSuffix(e.Name(), ".part") {
			err = errors.Join(err, c.carryOne(from, to, e.Name()))
		}
	}
	return err
}

func (c *Carrier) carryOne(from, to, name string) error {
	b, err := os.ReadFile(filepath.Join(from, name))
	if err != nil {
		return err
	}
	c.losses.Files++
	switch c.deal() {
	case lost:
		c.losses.Lost++
	case doubled:
		c.losses.Doubled++
		err = errors.Join(c.write(to, name, b), c.write(to, "2-"+name, b))
	case cut:
		c.losses.Truncated++
		err = c.write(to, name, b[:c.rng.IntN(len(b)+1)])
	default:
		err = c.write(to, name, b)
	}
	if err != nil {
		return err
	}
	return os.Remove(filepath.Join(from, name))
}

func (c *Carrier) deal() (f fate) {
	if len(c.deck) == 0 {
		c.deck = make([]fate, Deck)
		at := 0
		for f, n := range deckOf {
			for range n {
				c.deck[at] = f
				at++
			}
		}
		c.rng.Shuffle(Deck, func(i, j int) { c.deck[i], c.deck[j] = c.deck[j], c.deck[i] })
	}
	f, c.deck = c.deck[0], c.deck[1:]
	return f
}

// write makes half of the files appear under their names at once, and the others grow
// there.
func (c *Carrier) write(to, name string, b []byte) error {
	path := filepath.Join(to, name)
	if c.rng.IntN(2) == 0 {
		if err := os.WriteFile(path+".tmp", b, 0o600); err != nil {
			return err
		}
		return os.Rename(path+".tmp", path)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	for rest := b; len(rest) > 0 && err == nil; {
		n := min(len(rest), len(b)/3+1)
		_, err = f.Write(rest[:n])
		rest = rest[n:]
		time.Sleep(time.Millisecond)
	}
	return errors.Join(err, f.Close())
}
