package link

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

// said is what the host's neighbour last said of itself; nil when nothing.
func (h *host) said() *node.NeighbourState {
	h.w.t.Helper()
	list, err := h.node.LinkStates(h.w.ctx, h.link)
	h.w.must(err)
	return list[0].Status
}

// carriesStatus says whether a bundle tells how its sender is.
func carriesStatus(o *Outgoing) bool { return o != nil && o.tells }

// TestStatusRidesAlong: neighbours learn how the other is from bundles that leave
// anyhow; none leaves for it, and it comes now and then.
func TestStatusRidesAlong(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	if jia.said() != nil {
		t.Fatal("a status of nowhere")
	}
	w.submit(yi, "jia", 100)
	w.submit(yi, "jia", 100)
	push, _ := jia.next(Push)
	poll, b := jia.next(Poll)
	if push != nil || !carriesStatus(poll) {
		t.Fatal("a push for nothing, or a poll that says nothing")
	}
	yi.receive(b)
	s := yi.said()
	if s == nil || fmt.Sprint(s.Warnings) != "[directory_stale]" || s.Disk != "ok" || s.Directory != w.cast.directory.Version() || s.Skew != 0 || s.Clock != "test" || s.Backlog.Waiting != 0 || !slices.Contains(s.Formats, "yizhan-bundle/1") {
		t.Fatalf("%+v", s)
	}
	answer, b := yi.next(Answer)
	jia.receive(b)
	if s := jia.said(); !carriesStatus(answer) || s == nil || s.Backlog.Waiting != 2 || s.Here.Waiting != 2 || s.Here.Oldest == 0 {
		t.Fatalf("%+v", s)
	}
	for range 3 { // nothing has changed
		w.clock = w.clock.Add(2 * time.Minute)
		if poll, _ = jia.next(Poll); carriesStatus(poll) {
			t.Fatal("it says the same again")
		}
	}
	w.exchange(jia, yi)
	if answer, _ := yi.next(Answer); answer != nil {
		t.Fatal("a status causes a bundle")
	}
	w.clock = w.clock.Add(15 * time.Minute)
	poll, _ = jia.next(Poll)
	if !carriesStatus(poll) {
		t.Fatal("the last one is old, and it says nothing")
	}
	jia.Lost(w.ctx, poll)
	if poll, b = jia.next(Poll); !carriesStatus(poll) {
		t.Fatal("the last one was lost, and it says nothing")
	}
	before := yi.said()
	yi.receive(b)
	yi.receive(b)
	if after := yi.said(); after.Time <= before.Time {
		t.Fatalf("%+v, and before %+v", after, before)
	}
	w.must(jia.node.HoldLink(w.ctx, "jia-yi", nightShift))
	w.clock = w.clock.Add(61 * time.Second)
	poll, b = jia.next(Poll)
	if !carriesStatus(poll) {
		t.Fatal("something is to be looked at, and it says nothing")
	}
	yi.receive(b)
	if s := yi.said(); s.Health != "warnings" || fmt.Sprint(s.Warnings) != "[directory_stale link_held]" {
		t.Fatalf("%+v", s)
	}
}

// TestStatusOverAFerry: every note has one, no bundle that may leave again when it
// is old, and no file is written for it.
func TestStatusOverAFerry(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.bank("jia"), w.bank("yi")
	w.submit(jia.host, "yi", 3000)
	good := &carrier{rng: rand.New(rand.NewPCG(1, 1))}
	jia.export()
	for name, kept := range jia.kept {
		b, err := yi.ferry.s.open(w.ctx, &untilBroken{r: &sliceOf{kept}})
		w.must(err)
		if b.inner.Status != nil {
			t.Fatalf("%s is kept with a status", name)
		}
	}
	good.carry(jia, yi)
	if s := yi.said(); s == nil || s.Backlog.Waiting != 1 {
		t.Fatalf("%+v", s)
	}
	first := yi.said().Time
	w.ferried(good, good, jia, yi, 5)
	for range 3 {
		w.clock = w.clock.Add(24 * time.Hour)
		jia.export()
		yi.export()
		good.carry(jia, yi)
		good.carry(yi, jia)
	}
	if n := jia.export().Files + yi.export().Files; n != 0 {
		t.Fatalf("%d files for a status", n)
	}
	if s := yi.said(); s.Time <= first || s.Backlog.Waiting != 0 || jia.said() == nil {
		t.Fatalf("%+v", s)
	}
}

type sliceOf struct{ b []byte }

func (s *sliceOf) Read(p []byte) (int, error) {
	n := copy(p, s.b)
	s.b = s.b[n:]
	if n == 0 {
		return 0, fmt.Errorf("no more")
	}
	return n, nil
}

// statusBy makes a status as a node would sign it, changed.
func (h *host) statusBy(signer *host, change func(*node.Status)) []byte {
	h.w.t.Helper()
	s := &node.Status{
		Type: "yizhan-status", V: 1, Domain: h.node.Directory().Domain(), Link: h.link, Node: h.id, Time: strictjson.TimeOf(h.w.clock),
		Formats: []string{}, Disk: "ok", Warnings: []string{}, Directory: 77,
	}
	change(s)
	b, err := strictjson.Marshal(s)
	h.w.must(err)
	key, err := signer.node.Signer()
	h.w.must(err)
	signed, err := cms.Sign(key, b, h.w.clock)
	h.w.must(err)
	return signed
}

// TestStatusesThatLie: one that is not the neighbour's own for this link is shown,
// and changes nothing; what came with it is taken. One of a later version is left
// alone.
func TestStatusesThatLie(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	for name, c := range map[string]struct {
		status func() []byte
		silent bool
	}{
		"signed by another":      {status: func() []byte { return jia.statusBy(yi, func(*node.Status) {}) }},
		"of another node":        {status: func() []byte { return jia.statusBy(jia, func(s *node.Status) { s.Node = "yi" }) }},
		"for another link":       {status: func() []byte { return jia.statusBy(jia, func(s *node.Status) { s.Link = "jia-bing" }) }},
		"of another domain":      {status: func() []byte { return jia.statusBy(jia, func(s *node.Status) { s.Domain = "elsewhere" }) }},
		"words without end":      {status: func() []byte { return jia.statusBy(jia, func(s *node.Status) { s.Program = string(make([]byte, 65)) }) }},
		"too large":              {status: func() []byte { return make([]byte, node.MaxStatus+1) }},
		"no signed object":       {status: func() []byte { return []byte("status") }},
		"of a later version":     {silent: true, status: func() []byte { return jia.statusBy(jia, func(s *node.Status) { s.V = 2 }) }},
		"with something crucial": {silent: true, status: func() []byte { return jia.statusBy(jia, func(s *node.Status) { s.Crit = []string{"moon"} }) }},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(yi.quarantined())
			status := c.status()
			got := yi.receive(jia.forge(func(in *Inner) { in.Status = status }))
			if got.Truncated {
				t.Error("the bundle was not taken")
			}
			if s := yi.said(); s != nil && s.Directory == 77 {
				t.Errorf("it is believed: %+v", s)
			}
			if shown := len(yi.quarantined()) > before; shown == c.silent {
				t.Errorf("shown: %t", shown)
			}
		})
	}
	yi.receive(jia.forge(func(in *Inner) { in.Status = jia.statusBy(jia, func(*node.Status) {}) }))
	if s := yi.said(); s == nil || s.Directory != 77 {
		t.Errorf("a good one: %+v", s)
	}
}

// TestStatusOfAClock: a clock that is ahead is shown, and what its node says after
// it was set right is heard; an older status never takes the place of a newer one.
func TestStatusOfAClock(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	at := func(ahead time.Duration, mark uint64) []byte {
		return jia.forge(func(in *Inner) {
			in.Status = jia.statusBy(jia, func(s *node.Status) {
				s.Time, s.Directory = strictjson.TimeOf(w.clock.Add(ahead)), mark
			})
		})
	}
	expect := func(mark uint64, skew time.Duration) {
		t.Helper()
		if s := yi.said(); s.Directory != mark || s.Skew != int64(skew/time.Second) {
			t.Fatalf("%d, %d s ahead; want %d, %s", s.Directory, s.Skew, mark, skew)
		}
	}
	yi.receive(at(48*time.Hour, 1))
	expect(1, 48*time.Hour)
	old := at(0, 2)
	w.clock = w.clock.Add(11 * time.Minute)
	yi.receive(at(-90*time.Second, 3))
	expect(1, 48*time.Hour) // its clock is believed for ten minutes
	w.clock = w.clock.Add(11 * time.Minute)
	yi.receive(at(-90*time.Second, 4))
	expect(4, -90*time.Second)
	yi.receive(old)
	expect(4, -90*time.Second)
}

// TestAStatusOfADamagedStore: what cannot be counted is said, and stops no link.
func TestAStatusOfADamagedStore(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 100)
	jia.store.rows[string(queue.Key("lane#", "out/elsewhere/0"))] = []byte{1}
	w.exchange(jia, yi)
	yi.delivered(id)
	if s := yi.said(); s == nil || !slices.Contains(s.Warnings, "store_unreadable") || s.Here.Waiting != 1 {
		t.Fatalf("%+v", s)
	}
}

// TestAStatusAskedForInVain: that whoever asked went away says nothing of the store, to
// nobody.
func TestAStatusAskedForInVain(t *testing.T) {
	w := newWorld(t)
	jia, _ := w.pair()
	gone, cancel := context.WithCancel(w.ctx)
	cancel()
	if _, err := jia.node.StatusFor(gone, "jia-yi", true); err == nil {
		t.Error("somebody who went away is answered")
	}
	signed, err := jia.node.StatusFor(w.ctx, "jia-yi", true)
	w.must(err)
	o, err := cms.Parse(signed, node.MaxStatus)
	w.must(err)
	s, err := node.ParseStatus(o.Content)
	if err != nil || slices.Contains(s.Warnings, "store_unreadable") {
		t.Errorf("it warns of %v, %v", s.Warnings, err)
	}
}
