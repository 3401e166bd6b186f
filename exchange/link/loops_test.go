package link

import (
	"slices"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// The routes of one directory lead in no circle; those of three, at nodes that have
// not heard of each other's, may.

// loop has jia – dong – xi – he – dong, and before yi and bing a node men that dong, xi
// and he know. The three versions of the directory lead documents for yi from dong over
// xi; from xi over he; from he over dong.
type loop struct {
	*world
	versions []*certs.Directory
	hosts    map[string]*host
}

// Routes of one version, from, to, next.
type routes = [][3]string

// newLoop has bing behind some node, with routes for it in each version.
func newLoop(t *testing.T, bingAt string, forBing [3]routes) *loop {
	t.Helper()
	l := &loop{hosts: map[string]*host{}}
	l.world = relayWorld(t, []string{"dong", "xi", "he", "men"},
		[]certs.Link{hop("jia", "dong"), hop("dong", "xi"), hop("xi", "he"), hop("he", "dong"), hop("dong", "men"), hop("xi", "men"), hop("he", "men"), hop("men", "yi"), hop(bingAt, "bing")},
		append(routes{
			{"jia", "yi", "dong"}, {"dong", "yi", "xi"}, {"xi", "yi", "men"}, {"he", "yi", "men"},
			{"yi", "jia", "men"}, {"men", "jia", "dong"}, {"xi", "jia", "dong"}, {"he", "jia", "dong"},
		}, forBing[0]...))
	l.versions = append(l.versions, l.cast.directory)
	for i, changed := range []routes{{{"xi", "yi", "he"}}, {{"dong", "yi", "men"}, {"he", "yi", "dong"}}} {
		for _, r := range append(changed, forBing[i+1]...) {
			l.must(l.cast.authority.AddRoute(r[0], r[1], r[2]))
		}
		l.versions = append(l.versions, l.publish())
	}
	for id, link := range map[string]string{"jia": "jia-dong", "dong": "jia-dong", "xi": "dong-xi", "he": "xi-he", "men": "dong-men", "yi": "men-yi", "bing": bingAt + "-bing"} {
		l.hosts[id] = l.host(id, link, nil, nil)
		l.hosts[id].shelf.inForce = l.versions[0]
	}
	return l
}

// over exchanges between two nodes.
func (l *loop) over(a, b string) {
	l.t.Helper()
	l.exchange(l.hosts[a].over(a+"-"+b), l.hosts[b].over(a+"-"+b))
}

// around carries what jia has to dong, to xi, and on to he, whose directory leads it
// back to dong. There dong's is the first still.
func (l *loop) around() {
	l.t.Helper()
	l.over("jia", "dong")
	l.hosts["xi"].shelf.inForce = l.versions[1]
	l.over("dong", "xi")
	l.hosts["he"].shelf.inForce = l.versions[2]
	l.hosts["dong"].shelf.inForce = l.versions[0]
	l.over("xi", "he")
}

// settle lets all hear of the newest directory, and everything come to rest.
func (l *loop) settle() {
	l.t.Helper()
	for range 3 {
		l.clock = l.clock.Add(5 * time.Minute)
		for _, way := range [][2]string{{"dong", "xi"}, {"xi", "he"}, {"he", "dong"}, {"dong", "men"}, {"he", "men"}, {"xi", "men"}, {"men", "yi"}, {"jia", "dong"}} {
			l.over(way[0], way[1])
		}
	}
}

// TestADocumentThatComesBack: a node that passed a document on, and to which it comes
// back over another link, answers for it once more. It is lost nowhere, and delivered
// once when the nodes have the same directory.
func TestADocumentThatComesBack(t *testing.T) {
	l := newLoop(t, "jia", [3]routes{})
	id := l.submit(l.hosts["jia"], "yi", 100)
	l.around()
	l.over("he", "dong")
	if n := l.waitsAt(l.hosts["dong"]); n != 1 {
		t.Fatalf("%d documents wait at dong, to which it came back", n)
	}
	l.settle()
	l.hosts["yi"].delivered(id)
	if got := l.stageOf(l.hosts["jia"], id); got != exchange.StageDelivered {
		t.Errorf("the sender sees it at %s", got)
	}
}

// TestHalfOfADocumentComesBack: of two recipients one was served meanwhile, and what
// comes back is for the other alone; or both come back, and then their ways part. Each
// gets it once.
func TestHalfOfADocumentComesBack(t *testing.T) {
	for name, c := range map[string]struct {
		bingAt  string
		forBing [3]routes
		comes   int // at dong, after a time around
	}{
		"one was served": {"xi", [3]routes{{{"jia", "bing", "dong"}, {"dong", "bing", "xi"}, {"bing", "jia", "xi"}}}, 1},
		"the ways part behind it": {"men", [3]routes{
			{{"jia", "bing", "dong"}, {"dong", "bing", "xi"}, {"xi", "bing", "men"}, {"he", "bing", "men"}, {"bing", "jia", "men"}},
			{{"xi", "bing", "he"}},
			{{"xi", "bing", "men"}, {"he", "bing", "dong"}},
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t, c.bingAt, c.forBing)
			id := l.submitToBoth(l.hosts["jia"])
			l.around()
			if c.comes == 1 {
				l.over("xi", "bing")
				l.hosts["bing"].delivered(id)
			}
			l.over("he", "dong")
			if n := l.waitsAt(l.hosts["dong"]); n != 1 {
				t.Fatalf("%d documents wait at dong", n)
			}
			for range 2 {
				l.settle()
				l.over(c.bingAt, "bing")
			}
			l.settle()
			l.hosts["yi"].delivered(id)
			l.hosts["bing"].delivered(id)
			tr, err := l.hosts["jia"].node.Trace(l.ctx, l.cast.agencies["jia"], id)
			l.must(err)
			delivered := 0
			for _, e := range tr.Events {
				if e.Stage == exchange.StageDelivered {
					delivered++
				}
			}
			if delivered != 2 || !tr.ReceiptsVerified {
				t.Errorf("%d receipts say DELIVERED", delivered)
			}
			for id, h := range l.hosts {
				if n := l.waitsAt(h); n != 0 {
					t.Errorf("%d documents wait at %s", n, id)
				}
			}
		})
	}
}

// TestARecallOfWhatComesBack ends it where it is, once, whether the wish is there before
// the document comes back or after.
func TestARecallOfWhatComesBack(t *testing.T) {
	for name, before := range map[string]bool{"asked before": true, "asked after": false} {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t, "jia", [3]routes{})
			jia := l.hosts["jia"]
			id := l.submit(jia, "yi", 100)
			l.around()
			ask := func() {
				jia.ask(exchange.WishRecall, id)
				jia.work()
				l.over("jia", "dong") // which has passed the document on, or has it again
			}
			if before {
				ask()
			}
			l.over("he", "dong")
			if !before {
				ask()
			}
			l.settle()
			l.hosts["yi"].delivered()
			if e := jia.only(id, exchange.StageRecalled); e.Node != "dong" {
				t.Errorf("recalled by %s", e.Node)
			}
			l.wantStage(jia, id, "RECALLED")
			for id, h := range l.hosts {
				if n := l.waitsAt(h); n != 0 {
					t.Errorf("%d documents wait at %s", n, id)
				}
			}
		})
	}
}

// TestADocumentThatComesBackTooSoon: before the next node has said that it has the
// document, nobody knows who answers for it. The neighbour that brings it back keeps it
// until that is known; then it is taken once more.
func TestADocumentThatComesBackTooSoon(t *testing.T) {
	l := newLoop(t, "jia", [3]routes{})
	id := l.submit(l.hosts["jia"], "yi", 100)
	l.over("jia", "dong")
	onward := l.hosts["dong"].over("dong-xi")
	_, lost := onward.next(Push)
	xi, he := l.hosts["xi"], l.hosts["he"]
	xi.shelf.inForce = l.versions[1]
	xi.receive(lost) // the answer does not arrive
	xi.work()
	he.shelf.inForce = l.versions[2]
	l.over("xi", "he")
	back, at := he.over("he-dong"), l.hosts["dong"].over("he-dong")
	for range 2 { // the first may bring directories alone
		if push, b := back.next(Push); push != nil {
			at.receive(b)
			if got := at.outcomes(); slices.Contains(got, node.Taken) && len(got) > 1 {
				t.Fatalf("dong answers %v", got)
			}
			_, reply := at.next(Reply)
			back.receive(reply)
		}
	}
	if n := l.waitsAt(he); n != 1 {
		t.Fatalf("he keeps %d documents", n)
	}
	l.settle()
	l.hosts["yi"].delivered(id)
	if got := l.stageOf(l.hosts["jia"], id); got != exchange.StageDelivered {
		t.Errorf("the sender sees it at %s", got)
	}
}

// TestACircleEnds: where the directories never agree, a document goes around a few
// times and then lies among the dead letters of the node that has it, refused by the
// next: neither lost nor carried for ever.
func TestACircleEnds(t *testing.T) {
	l := newLoop(t, "jia", [3]routes{})
	old := func() {
		for id, v := range map[string]int{"jia": 0, "dong": 0, "xi": 1, "he": 2} {
			l.hosts[id].shelf.inForce = l.versions[v]
		}
	}
	l.submit(l.hosts["jia"], "yi", 100)
	l.step("jia", "dong", old)
	for range 4 * 8 {
		for _, way := range [][2]string{{"dong", "xi"}, {"xi", "he"}, {"he", "dong"}} {
			l.step(way[0], way[1], old)
		}
	}
	waiting, parked := 0, 0
	for _, h := range l.hosts {
		waiting += l.waitsAt(h)
		q, err := h.node.Queues(l.ctx, "")
		l.must(err)
		for _, one := range q.Links {
			parked += int(one.Parked)
		}
	}
	if waiting != 0 || parked != 1 {
		t.Errorf("%d wait and %d are parked", waiting, parked)
	}
}

// step carries one bundle there and its answer back, under the directories that old
// puts in force.
func (l *loop) step(from, to string, old func()) {
	l.t.Helper()
	l.clock = l.clock.Add(2 * time.Minute)
	old()
	a, b := l.hosts[from].over(from+"-"+to), l.hosts[to].over(from+"-"+to)
	for range 2 {
		if push, bytes := a.next(Push); push != nil {
			old()
			b.receive(bytes)
			old()
			b.work()
			_, reply := b.next(Reply)
			a.receive(reply)
			old()
		}
	}
	b.work()
}

// waitsAt counts the documents that wait in a node's lanes.
func (w *world) waitsAt(h *host) (n int) {
	w.t.Helper()
	q, err := h.node.Queues(w.ctx, "")
	w.must(err)
	for _, l := range q.Links {
		for _, one := range l.Queues {
			if slices.Contains([]string{"normal", "urgent", "very_urgent"}, one.Rank) {
				n += int(one.Waiting)
			}
		}
	}
	return n
}
