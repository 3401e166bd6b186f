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

// loopWorld has jia – dong – xi – he – dong, and before yi a node men that dong, xi and
// he know. The three versions of the directory lead documents for yi from dong over
// xi; from xi over he; from he over dong.
func loopWorld(t *testing.T) (w *world, versions []*certs.Directory) {
	t.Helper()
	w = relayWorld(t, []string{"dong", "xi", "he", "men"},
		[]certs.Link{hop("jia", "dong"), hop("dong", "xi"), hop("xi", "he"), hop("he", "dong"), hop("dong", "men"), hop("xi", "men"), hop("he", "men"), hop("men", "yi"), hop("jia", "bing")},
		[][3]string{
			{"jia", "yi", "dong"}, {"dong", "yi", "xi"}, {"xi", "yi", "men"}, {"he", "yi", "men"},
			{"yi", "jia", "men"}, {"men", "jia", "dong"}, {"xi", "jia", "dong"}, {"he", "jia", "dong"},
		})
	versions = append(versions, w.cast.directory)
	for _, changed := range [][][3]string{{{"xi", "yi", "he"}}, {{"dong", "yi", "men"}, {"he", "yi", "dong"}}} {
		for _, r := range changed {
			w.must(w.cast.authority.AddRoute(r[0], r[1], r[2]))
		}
		versions = append(versions, w.publish())
	}
	return w, versions
}

// TestADocumentThatComesBack: a node that passed a document on, and to which it comes
// back over another link, answers for it once more. It is lost nowhere, and delivered
// once when the nodes have the same directory.
func TestADocumentThatComesBack(t *testing.T) {
	w, versions := loopWorld(t)
	hosts := map[string]*host{}
	for id, link := range map[string]string{"jia": "jia-dong", "dong": "jia-dong", "xi": "dong-xi", "he": "xi-he", "men": "dong-men", "yi": "men-yi"} {
		hosts[id] = w.host(id, link, nil, nil)
		hosts[id].shelf.inForce = versions[0]
	}
	id := w.submit(hosts["jia"], "yi", 100)
	w.exchange(hosts["jia"], hosts["dong"])
	hosts["xi"].shelf.inForce = versions[1]
	w.exchange(hosts["dong"].over("dong-xi"), hosts["xi"])
	hosts["he"].shelf.inForce = versions[2]
	hosts["dong"].shelf.inForce = versions[0]
	w.exchange(hosts["xi"].over("xi-he"), hosts["he"])
	w.exchange(hosts["he"].over("he-dong"), hosts["dong"].over("he-dong"))
	if n := w.waitsAt(hosts["dong"]); n != 1 {
		t.Fatalf("%d documents wait at dong, to which it came back", n)
	}
	for range 3 { // by now all hear of the newest directory
		for _, l := range [][2]string{{"dong", "xi"}, {"xi", "he"}, {"he", "dong"}, {"dong", "men"}, {"he", "men"}, {"xi", "men"}, {"men", "yi"}, {"jia", "dong"}} {
			w.exchange(hosts[l[0]].over(l[0]+"-"+l[1]), hosts[l[1]].over(l[0]+"-"+l[1]))
		}
	}
	hosts["yi"].delivered(id)
	if got := w.stageOf(hosts["jia"], id); got != exchange.StageDelivered {
		t.Errorf("the sender sees it at %s", got)
	}
}

// TestADocumentThatComesBackTooSoon: before the next node has said that it has the
// document, nobody knows who answers for it. The neighbour that brings it back keeps it
// until that is known; then it is taken once more.
func TestADocumentThatComesBackTooSoon(t *testing.T) {
	w, versions := loopWorld(t)
	hosts := map[string]*host{}
	for id, link := range map[string]string{"jia": "jia-dong", "dong": "jia-dong", "xi": "dong-xi", "he": "xi-he", "men": "dong-men", "yi": "men-yi"} {
		hosts[id] = w.host(id, link, nil, nil)
		hosts[id].shelf.inForce = versions[0]
	}
	id := w.submit(hosts["jia"], "yi", 100)
	w.exchange(hosts["jia"], hosts["dong"])
	onward := hosts["dong"].over("dong-xi")
	_, lost := onward.next(Push)
	hosts["xi"].shelf.inForce = versions[1]
	hosts["xi"].receive(lost) // the answer does not arrive
	hosts["xi"].work()
	hosts["he"].shelf.inForce = versions[2]
	w.exchange(hosts["xi"].over("xi-he"), hosts["he"])
	back, at := hosts["he"].over("he-dong"), hosts["dong"].over("he-dong")
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
	if n := w.waitsAt(hosts["he"]); n != 1 {
		t.Fatalf("he keeps %d documents", n)
	}
	for range 3 {
		w.clock = w.clock.Add(5 * time.Minute)
		for _, l := range [][2]string{{"dong", "xi"}, {"xi", "he"}, {"he", "dong"}, {"dong", "men"}, {"he", "men"}, {"xi", "men"}, {"men", "yi"}, {"jia", "dong"}} {
			w.exchange(hosts[l[0]].over(l[0]+"-"+l[1]), hosts[l[1]].over(l[0]+"-"+l[1]))
		}
	}
	hosts["yi"].delivered(id)
	if got := w.stageOf(hosts["jia"], id); got != exchange.StageDelivered {
		t.Errorf("the sender sees it at %s", got)
	}
}

// TestACircleEnds: where the directories never agree, a document goes around a few
// times and then lies among the dead letters of the node that has it, refused by the
// next: neither lost nor carried for ever.
func TestACircleEnds(t *testing.T) {
	w, versions := loopWorld(t)
	hosts := map[string]*host{}
	old := func() {
		for id, v := range map[string]int{"jia": 0, "dong": 0, "xi": 1, "he": 2} {
			hosts[id].shelf.inForce = versions[v]
		}
	}
	for id, link := range map[string]string{"jia": "jia-dong", "dong": "jia-dong", "xi": "dong-xi", "he": "xi-he"} {
		hosts[id] = w.host(id, link, nil, nil)
		hosts[id].shelf.inForce = versions[0]
	}
	w.submit(hosts["jia"], "yi", 100)
	w.step(hosts["jia"], hosts["dong"], "jia-dong", old)
	for range 4 * 8 {
		for _, l := range [][2]string{{"dong", "xi"}, {"xi", "he"}, {"he", "dong"}} {
			w.step(hosts[l[0]], hosts[l[1]], l[0]+"-"+l[1], old)
		}
	}
	waiting, parked := 0, 0
	for _, h := range hosts {
		waiting += w.waitsAt(h)
		q, err := h.node.Queues(w.ctx, "")
		w.must(err)
		for _, l := range q.Links {
			parked += int(l.Parked)
		}
	}
	if waiting != 0 || parked != 1 {
		t.Errorf("%d wait and %d are parked", waiting, parked)
	}
}

// step carries one bundle there and its answer back, under the directories that old
// puts in force.
func (w *world) step(from, to *host, link string, old func()) {
	w.t.Helper()
	w.clock = w.clock.Add(2 * time.Minute)
	old()
	a, b := from.over(link), to.over(link)
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
