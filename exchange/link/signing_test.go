package link

import (
	"io"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// watchedKeys fail the test when a private key is used while the store is in a
// transaction: an HSM may take its time, and every other writer would wait.
type watchedKeys struct {
	node.Keys
	h    *host
	used *int
}

func (k watchedKeys) check(what string) {
	*k.used++
	if !k.h.store.mu.TryLock() {
		k.h.w.t.Errorf("%s %s inside a transaction of the store", k.h.id, what)
		return
	}
	k.h.store.mu.Unlock()
}

func (k watchedKeys) Sign(id sm.Digest, msg []byte) ([]byte, error) {
	k.check("signs")
	return k.Keys.Sign(id, msg)
}

func (k watchedKeys) Unwrap(id sm.Digest, sealed []byte) ([]byte, error) {
	k.check("unwraps")
	return k.Keys.Unwrap(id, sealed)
}

// TestNoKeyIsUsedInsideATransaction follows documents from submission to the
// last receipt, signed for and returned, traced and proven.
func TestNoKeyIsUsedInsideATransaction(t *testing.T) {
	w := newWorld(t)
	used := 0
	w.watch = func(h *host, keys node.Keys) node.Keys { return watchedKeys{keys, h, &used} }
	jia, yi := w.pair()
	signed, returned := w.submit(jia, "yi", 100), w.submit(jia, "yi", 3000)
	w.exchange(jia, yi)
	yi.delivered(signed, returned)
	for document, stage := range map[string]exchange.Stage{signed: exchange.StageSignedFor, returned: exchange.StageReturned} {
		action := node.Action{Stage: stage, Actor: exchange.Actor{Name: "值班员"}, Opinion: "已阅", Reason: "misdirected"}
		_, err := yi.node.Act(w.ctx, w.cast.agencies["yi"], document, action)
		w.must(err)
	}
	yi.work()
	w.exchange(jia, yi)
	for _, document := range []string{signed, returned} {
		trace, err := jia.node.Trace(w.ctx, w.cast.agencies["jia"], document)
		w.must(err)
		if !trace.ReceiptsVerified {
			t.Errorf("%s: %+v", document, trace)
		}
		err = jia.node.Evidence(w.ctx, w.cast.agencies["jia"], document, io.Discard)
		w.must(err)
	}
	if used < 20 {
		t.Errorf("keys were used %d times only", used)
	}
	t.Logf("keys were used %d times, never inside a transaction", used)
}
