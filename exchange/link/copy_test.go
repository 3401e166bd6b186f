package link

import (
	"strings"
	"testing"
)

// TestACopyIsNoticed: two processes over copies of one directory have one
// identity. The neighbour believes the one that began later, and says so to the
// other; a process that begins again is believed again.
func TestACopyIsNoticed(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	first := w.submit(jia, "yi", 100)
	w.exchange(jia, yi)
	twin := w.host("jia", "jia-yi", jia.store.clone(), jia.blobs)
	_, poll := twin.next(Poll)
	yi.receive(poll)
	for range stragglers { // what was on its way
		_, poll = jia.next(Poll)
		yi.receive(poll)
	}
	second := w.submit(jia, "yi", 100)
	_, push := jia.next(Push)
	yi.refused(push, "epoch_ended")
	_, poll = jia.next(Poll)
	yi.refused(poll, "epoch_ended")
	_, poll = twin.next(Poll)
	yi.receive(poll)
	if got := yi.quarantined(); len(got) != 2 || !strings.Contains(got[0], "epoch_ended") {
		t.Errorf("the operator is shown %v", got)
	}
	jia.restart() // once the copy is gone
	w.exchange(jia, yi)
	yi.delivered(first, second)
}

// TestAClockThatWasPutBack ends nothing: a process that begins again with an
// earlier time is heard, and an old bundle does not end the newest run.
func TestAClockThatWasPutBack(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	w.clock = w.clock.AddDate(0, 0, -1)
	old := w.host("jia", "jia-yi", jia.store.clone(), jia.blobs)
	_, stale := old.next(Poll)
	w.clock = start
	_, poll := jia.next(Poll)
	yi.receive(poll)
	yi.receive(stale)
	_, poll = jia.next(Poll)
	yi.receive(poll)
}
