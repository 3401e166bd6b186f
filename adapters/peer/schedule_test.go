package peer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange/link"
	"github.com/yizhan-gateway/yizhan/queue"
)

// day is a schedule under a clock and a network in the test's hands.
type day struct {
	*testing.T
	*schedule
	now    time.Time
	ctx    context.Context
	alive  func(d *dialled) bool
	called func(d *dialled)
	pushes map[string]int
	polls  map[string]context.Context // open ones
}

func newDay(t *testing.T) *day {
	random := rand.New(rand.NewPCG(4, 2))
	return &day{
		T: t, ctx: t.Context(), now: time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC),
		schedule: newSchedule(func(below time.Duration) time.Duration { return time.Duration(random.Int64N(int64(below))) }),
		alive:    func(*dialled) bool { return true }, called: func(*dialled) {},
		pushes: map[string]int{}, polls: map[string]context.Context{},
	}
}

func (y *day) begin(n int) []*dialled {
	list := make([]*dialled, n)
	for i := range list {
		list[i] = &dialled{line: &line{link: fmt.Sprintf("link-%05d", i), session: new(link.Session)}, neighbour: "neighbour"}
	}
	y.add(y.ctx, list, y.now)
	return list
}

var errRefused = fmt.Errorf("%w: connection refused", errNoAnswer)

// run does everything that is due until a time, each thing in no time.
func (y *day) run(until time.Time) {
	for {
		for {
			j, due := y.take(y.now)
			if !due {
				break
			}
			y.do(j)
		}
		wait := y.next(y.now)
		if y.now.Add(wait).After(until) {
			y.now = until
			return
		}
		y.now = y.now.Add(max(wait, time.Nanosecond))
	}
}

func (y *day) do(j job) {
	d := j.d
	if j.what == push {
		y.pushes[d.link]++
		var err error
		if !y.alive(d) {
			err = errRefused
		}
		y.pushed(j, false, false, err, y.now)
		return
	}
	if y.called(d); !y.alive(d) {
		y.schedule.called(j, nil, errRefused, y.now)
		if j.ctx.Err() == nil {
			y.Fatal("the context of a call that ended lives on")
		}
		return
	}
	if y.schedule.called(j, nil, nil, y.now) {
		y.polls[d.link] = j.ctx
	}
}

// TestTenThousandLinks: 10,000 links of which 100 are dead, for an hour. A dead
// link costs one attempt per back-off and nothing else, and no link costs more
// than a kilobyte.
func TestTenThousandLinks(t *testing.T) {
	const links, dead = 10_000, 100
	y := newDay(t)
	before := heapInUse()
	list := y.begin(links)
	isDead := func(d *dialled) bool { return d.link < fmt.Sprintf("link-%05d", dead) }
	y.alive = func(d *dialled) bool { return !isDead(d) }
	attempts := map[string]int{}
	y.called = func(d *dialled) {
		attempts[d.link]++
		if at := d.retryAt(poll); y.now.Before(at) || isDead(d) && !at.IsZero() && y.now.Sub(at) > time.Millisecond {
			t.Fatalf("%s is tried %v after the end of its back-off", d.link, y.now.Sub(at))
		}
	}
	y.run(y.now.Add(time.Hour))
	for i := range 50 { // documents come for all of them
		for _, d := range list {
			y.grew(d.link, y.now)
		}
		y.run(y.now.Add(time.Duration(i) * time.Second))
	}
	each := float64(0)
	for _, d := range list {
		switch {
		case !isDead(d):
			if attempts[d.link] != 1 || y.polls[d.link] == nil || d.timers[poll].place != 0 {
				t.Fatalf("%s answers and was tried %d times", d.link, attempts[d.link])
			}
		case attempts[d.link] != d.calls[poll].failures || y.pushes[d.link] != 0:
			t.Fatalf("%s: %d attempts and %d pushes for %d back-offs", d.link, attempts[d.link], y.pushes[d.link], d.calls[poll].failures)
		default:
			each += float64(attempts[d.link]) / dead
		}
	}
	for _, d := range list { // open polls are counted apart
		d.end(poll)
	}
	y.polls, y.pushes, attempts = nil, nil, nil
	y.called = nil
	bytes := (heapInUse() - before) / links
	t.Logf("%d bytes a link, %.0f attempts for a dead link in an hour and a half, one per back-off", bytes, each)
	if bytes > 1<<10 {
		t.Errorf("%d bytes for each link, at most 1024 are allowed", bytes)
	}
	runtime.KeepAlive(list)
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestNoHerdAfterAnOutage: all neighbours vanish at one moment and are back at
// one moment; they are called one after the other, and each once.
func TestNoHerdAfterAnOutage(t *testing.T) {
	const links = 5_000
	y := newDay(t)
	list := y.begin(links)
	perSecond, most := map[int64]int{}, 0
	y.called = func(*dialled) {
		perSecond[y.now.Unix()]++
		most = max(most, perSecond[y.now.Unix()])
	}
	y.run(y.now.Add(time.Minute))
	if most > links/5 {
		t.Errorf("%d of %d are called in the first second", most, links)
	}
	up := false
	y.alive = func(*dialled) bool { return up }
	for _, d := range list {
		if !y.pollEnded(y.polls[d.link], d, errRefused, y.now) {
			t.Fatal("a poll was not open")
		}
	}
	y.run(y.now.Add(10 * time.Minute))
	up, most = true, 0
	clear(perSecond)
	clear(y.pushes)
	y.run(y.now.Add(maxPause))
	for _, d := range list {
		if d.silent || y.pushes[d.link] == 0 {
			t.Fatalf("%s is not back after the longest pause", d.link)
		}
	}
	sum := 0
	for _, n := range perSecond {
		sum += n
	}
	if most > links/25 || sum != links {
		t.Errorf("%d calls for %d links, %d of them in one second", sum, links, most)
	}
	t.Logf("%d links are back within %v, at most %d in a second", links, maxPause, most)
}

// TestSilence: whichever call meets silence ends the poll and stops the
// pushes, and one attempt per back-off is all that is left of the link.
func TestSilence(t *testing.T) {
	for _, w := range []what{push, poll} {
		t.Run(w.String(), func(t *testing.T) {
			y := newDay(t)
			d := y.begin(1)[0]
			y.run(y.now.Add(time.Second))
			if d.silent || y.pushes[d.link] != 1 {
				t.Fatalf("a neighbour that answers is looked for: %d pushes", y.pushes[d.link])
			}
			calls, open := 0, y.polls[d.link]
			y.alive, y.called = func(*dialled) bool { return false }, func(*dialled) { calls++ }
			if w == push {
				y.grew(d.link, y.now)
				y.run(y.now)
			} else {
				y.pollEnded(open, d, errRefused, y.now)
			}
			if !d.silent || open.Err() == nil {
				t.Fatal("the link goes on although nobody answers")
			}
			pushes := y.pushes[d.link]
			for range 1000 {
				y.grew(d.link, y.now)
				y.run(y.now.Add(time.Second))
			}
			if y.pushes[d.link] != pushes || calls == 0 || calls > 1000/6+10 {
				t.Fatalf("%d pushes and %d calls to a silent neighbour", y.pushes[d.link]-pushes, calls)
			}
			y.alive = func(*dialled) bool { return true }
			y.run(y.now.Add(maxPause))
			if got := y.pushes[d.link] - pushes; d.silent || got < 1 || got > 3 {
				t.Fatalf("%d pushes although the neighbour answers", got)
			}
		})
	}
}

// TestAnsweredFailures: a push that is always refused is tried less and less
// often, while polls go on.
func TestAnsweredFailures(t *testing.T) {
	y := newDay(t)
	d := y.begin(1)[0]
	refused, tries := errors.New("refused"), 0
	for end := y.now.Add(10 * time.Minute); y.now.Before(end); y.now = y.now.Add(10 * time.Millisecond) {
		y.grew(d.link, y.now)
		j, due := y.take(y.now)
		switch {
		case due && j.what == push:
			tries++
			y.pushed(j, true, false, refused, y.now)
		case due:
			y.do(j)
		}
	}
	if d.silent || y.polls[d.link].Err() != nil || tries < 10 || tries > 10*60/6+12 {
		t.Fatalf("%d pushes in ten minutes, silent %v", tries, d.silent)
	}
}

// TestWorkIsBounded: no more goes on at once than there is room for, and what
// had to wait has its turn.
func TestWorkIsBounded(t *testing.T) {
	y := newDay(t)
	y.begin(200)
	y.now = y.now.Add(time.Minute)
	var jobs []job
	for j, due := y.take(y.now); due; j, due = y.take(y.now) {
		jobs = append(jobs, j)
	}
	if len(jobs) != atOnce[poll] {
		t.Fatalf("%d calls at once", len(jobs))
	}
	for _, j := range jobs {
		y.do(j)
	}
	y.run(y.now.Add(time.Second))
	if len(y.polls) != 200 || len(y.pushes) != 200 {
		t.Fatalf("%d polls are open, %d links were looked at", len(y.polls), len(y.pushes))
	}
}

// TestRemovedLinksAreLeftAlone: what was under way on a link that the directory
// dropped ends and brings nothing back.
func TestRemovedLinksAreLeftAlone(t *testing.T) {
	y := newDay(t)
	y.begin(2)
	y.now = y.now.Add(time.Second)
	j, _ := y.take(y.now)
	y.remove(j.d)
	y.remove(j.d)
	if y.schedule.called(j, nil, nil, y.now) || j.ctx.Err() == nil {
		t.Fatal("a dropped link is polled")
	}
	y.grew(j.d.link, y.now)
	y.run(y.now.Add(time.Hour))
	if len(y.polls) != 1 || len(y.all()) != 1 || y.pushes[j.d.link] != 0 {
		t.Fatalf("%d polls, %d links", len(y.polls), len(y.all()))
	}
}

// looks counts what is read for links: lanes and the ledger, which a bundle of
// any kind shows.
type looks struct {
	queue.Store
	n atomic.Int32
}

func (l *looks) View(ctx context.Context, fn func(queue.Tx) error) error {
	return l.Store.View(ctx, func(tx queue.Tx) error { return fn(looksTx{tx, l}) })
}

type looksTx struct {
	queue.Tx
	l *looks
}

func (t looksTx) Get(k []byte) ([]byte, error) {
	for _, prefix := range [][]byte{queue.Key("ledger"), queue.Key("lane^", "out/jia-yi/0"), queue.Key("lane#", "out/jia-yi/0")} {
		if len(k) >= len(prefix) && string(k[:len(prefix)]) == string(prefix) {
			t.l.n.Add(1)
		}
	}
	return t.Tx.Get(k)
}

// TestASilentNeighbourCostsNoLook: while nobody answers, no lane is read and no
// bundle made, however much waits and however often it is tried.
func TestASilentNeighbourCostsNoLook(t *testing.T) {
	jia := open(t, "jia")
	for range 20 {
		jia.submit("yi", 100)
	}
	jia.eventually("all is distributed", func() bool {
		did, err := jia.node.Work(jia.ctx)
		jia.must(err)
		return !did
	})
	l, err := net.Listen("tcp", jia.cast.address)
	jia.must(err)
	defer l.Close()
	go func() {
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			conn.Close()
		}
	}()
	before := jia.looks.n.Load()
	jia.dial()
	jia.eventually("six failed calls", func() bool { return jia.status().Failures >= 6 })
	if n := jia.looks.n.Load() - before; n != 0 {
		t.Fatalf("%d looks into the store for a silent neighbour", n)
	}
	if err := jia.peer.newCaller(&line{link: "jia-yi"}, "yi").connect(jia.ctx); !errors.Is(err, errNoAnswer) {
		t.Fatalf("got %v", err)
	}
}

// TestAWaitingPollLooksOnlyForItsOwn: what is committed for others makes no
// poll that waits here look into its lanes.
func TestAWaitingPollLooksOnlyForItsOwn(t *testing.T) {
	jia, yi := open(t, "jia"), open(t, "yi")
	yi.serve()
	jia.dial()
	jia.eventually("connected", func() bool { return jia.status().Connected })
	id := yi.submit("jia", 100)
	jia.signFor(id)
	yi.signedFor(id)
	yi.eventually("nothing waits", func() bool { return !yi.node.Held("jia-yi") })
	time.Sleep(50 * time.Millisecond)
	before := yi.looks.n.Load()
	for range 40 {
		yi.submit("yi", 100) // ACCEPTED, work and DELIVERED, each a commit
	}
	time.Sleep(50 * time.Millisecond)
	if n := yi.looks.n.Load() - before; n > 15 {
		t.Fatalf("%d looks into the lanes of an idle link", n)
	}
	id = yi.submit("jia", 100)
	jia.signFor(id)
	yi.signedFor(id)
}

// TestStalledPushesHoldUpNobody: neighbours that stand still give their places to
// others after a while.
func TestStalledPushesHoldUpNobody(t *testing.T) {
	y := newDay(t)
	list := y.begin(100)
	for range list { // all answer
		j, due := y.take(y.now.Add(spreadMost))
		if !due || j.what != poll {
			t.Fatal("no call is due")
		}
		y.schedule.called(j, nil, nil, y.now)
	}
	var stalled []job
	later := y.now.Add(time.Minute)
	for {
		j, due := y.take(later)
		if !due {
			break
		}
		stalled = append(stalled, j)
	}
	if len(stalled) != atOnce[push] {
		t.Fatalf("%d pushes go on together", len(stalled))
	}
	for _, j := range stalled {
		y.yield(j.d)
		y.yield(j.d)
	}
	j, due := y.take(later)
	if !due || j.what != push {
		t.Fatal("nobody took the place of those that stand still")
	}
	y.pushed(j, true, false, nil, later)
	for _, j := range stalled {
		y.pushed(j, false, false, errRefused, later)
	}
	if y.running[push] != 0 || y.slow != 0 {
		t.Errorf("%d run and %d are slow in the end", y.running[push], y.slow)
	}
}
