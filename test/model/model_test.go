package model

import (
	"errors"
	"flag"
	"os"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// TestEngine: whatever is done to a node, and whenever it loses its power, it does
// what the model says. A failing sequence is made as short as can be and named with
// its seed: -rapid.seed replays it, -rapid.checks and -rapid.steps say how many and
// how long.
func TestEngine(t *testing.T) {
	documents, sequences, receipts := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		e := newEngine(t)
		defer func() {
			if err := errors.Join(e.store.Close(), os.RemoveAll(e.dir)); err != nil {
				t.Error(err)
			}
		}()
		t.Repeat(map[string]func(*rapid.T){
			"":        e.compare,
			"submit":  e.submit,
			"submit2": e.submit,
			"again":   e.again,
			"fill":    e.fill,
			"fill2":   e.fill,
			"arrive":  e.arrive,
			"arrive2": e.arrive,
			"wait":    e.wait,
			"work":    func(*rapid.T) { e.work() },
			"hold":    e.hold,
			"requeue": e.requeue,
			"giveUp":  e.giveUp,
			"recall":  e.recall,
			"act":     e.act,
			"crash":   func(*rapid.T) { e.restart(false) },
		})
		receipts += e.finish()
		documents, sequences = documents+len(e.m.Documents), sequences+1
	})
	t.Logf("%d documents, %d sequences of commands; 0 lost, 0 duplicated, %d receipts verified", documents, sequences, receipts)
}

// TestMain gives rapid's flags defaults of our own: a share for every run.
func TestMain(m *testing.M) {
	flag.Parse()
	ours := map[string]int{"rapid.checks": usually, "rapid.steps": 60}
	flag.Visit(func(f *flag.Flag) { delete(ours, f.Name) })
	for name, n := range ours {
		if err := flag.Set(name, strconv.Itoa(n)); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
