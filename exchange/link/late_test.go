package link

import (
	"bytes"
	"context"
	"testing"

	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// TestACommitThatIsStillRunning: whoever stopped waiting for a commit answers nothing, and
// reads nothing of what the commit still writes (the race detector looks); nothing that it
// refers to goes, and the consignment is a duplicate when it comes again.
func TestACommitThatIsStillRunning(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	id := w.submit(jia, "yi", 3000)
	whole := w.wholeOf(jia)
	w.hand(yi, "jia-yi", node.KindHeader, whole.Header.ID, whole.HeaderBytes)
	done := make(chan error, 1)
	yi.store.late = func(commit func() error) error {
		go func() { done <- commit() }()
		return context.DeadlineExceeded
	}
	out, err := yi.node.Intake(w.ctx, "jia-yi", whole.Consignment, bytes.NewReader(whole.ConsignmentBytes))
	if err == nil || out != (node.Outcome{}) {
		t.Errorf("it answers %+v, %v", out, err)
	}
	w.must(<-done)
	if got := w.handOneByOne(yi, whole); got[0] != node.Duplicate || got[1] != node.Duplicate || got[2] != node.Taken {
		t.Errorf("the second time %v", got)
	}
	yi.work()
	yi.delivered(id)
}
