// Package badgate is a gate as bad as they get, for the demo and for tests: it moves the
// files of a ferry from one side to the other, in any order, and loses, doubles and cuts
// some on the way.
package badgate

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

// Deck is how many files in a row meet all that may happen, dealt like cards: a short
// run meets it, too.
const Deck = 20

// Luck is how many of a Deck are lost, doubled and cut, and in how many of Deck looks
// a file is left lying for later.
type Luck struct{ Lost, Doubled, Truncated, Late int }

// Usual is 20 % lost, 10 % doubled and 5 % cut.
var Usual = Luck{Lost: 4, Doubled: 2, Truncated: 1}

// Gate moves files. It may be used by several at a time.
type Gate struct {
	luck   Luck
	mu     sync.Mutex
	rng    *rand.Rand
	deck   []fate
	losses Losses
}

// New gives a gate whose luck depends on the seed alone.
func New(seed uint64, luck Luck) *Gate {
	return &Gate{luck: luck, rng: rand.New(rand.NewPCG(seed, seed))}
}

// Losses says what happened so far.
func (g *Gate) Losses() Losses {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.losses
}

// Run carries between the directories of each way, again and again, until ctx ends.
func (g *Gate) Run(ctx context.Context, every time.Duration, ways ...[2]string) error {
	for ctx.Err() == nil {
		for _, w := range ways {
			if err := g.Carry(w[0], w[1]); err != nil {
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
func (g *Gate) Carry(from, to string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	entries, err := os.ReadDir(from)
	if errors.Is(err, fs.ErrNotExist) { // its node has not started yet
		return nil
	}
	if err != nil {
		return err
	}
	g.rng.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
	for _, e := range entries {
		if e.Type().IsRegular() && !strings.HasSuffix(e.Name(), ".part") {
			err = errors.Join(err, g.carryOne(from, to, e.Name()))
		}
	}
	return err
}

func (g *Gate) carryOne(from, to, name string) error {
	if g.rng.IntN(Deck) < g.luck.Late {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(from, name))
	if err != nil {
		return err
	}
	g.losses.Files++
	switch g.deal() {
	case lost:
		g.losses.Lost++
	case doubled:
		g.losses.Doubled++
		err = errors.Join(g.write(to, name, b), g.write(to, "2-"+name, b))
	case cut:
		g.losses.Truncated++
		err = g.write(to, name, b[:g.rng.IntN(len(b)+1)])
	default:
		err = g.write(to, name, b)
	}
	if err != nil {
		return err
	}
	return os.Remove(filepath.Join(from, name))
}

func (g *Gate) deal() (f fate) {
	if len(g.deck) == 0 {
		g.deck = make([]fate, Deck)
		at := 0
		for f, n := range []int{lost: g.luck.Lost, doubled: g.luck.Doubled, cut: g.luck.Truncated} {
			for range n {
				g.deck[at] = fate(f)
				at++
			}
		}
		g.rng.Shuffle(Deck, func(i, j int) { g.deck[i], g.deck[j] = g.deck[j], g.deck[i] })
	}
	f, g.deck = g.deck[0], g.deck[1:]
	return f
}

// write makes half of the files appear under their names at once, and the others grow
// there.
func (g *Gate) write(to, name string, b []byte) error {
	path := filepath.Join(to, name)
	if g.rng.IntN(2) == 0 {
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
