package link

import (
	"bytes"
	"runtime"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// The epoch's secret is wrapped once; every bundle has a salt, and so a key
// and nonce, of its own.
func TestSectionsShareNoKey(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	w.submit(jia, "yi", 10)
	var clears []*Clear
	for range 4 {
		o, b := jia.next(Push)
		jia.Lost(w.ctx, o)
		opened, err := yi.open(w.ctx, bytes.NewReader(b))
		w.must(err)
		clears = append(clears, opened.clear)
	}
	keys := map[string]bool{}
	for _, c := range clears {
		if !bytes.Equal(c.Key, clears[0].Key) {
			t.Fatal("the secret was wrapped again within an epoch")
		}
		secret, err := yi.secretOf(c)
		w.must(err)
		key, nonce, _ := sectionKey(secret, c)
		keys[string(key)+string(nonce)] = true
	}
	if len(keys) != len(clears) {
		t.Fatalf("%d keys for %d bundles", len(keys), len(clears))
	}
}

// Nothing of a document can be read on the wire but sizes.
func TestMetadataIsSealed(t *testing.T) {
	w := newWorld(t)
	jia, _ := w.pair()
	id := w.submit(jia, "yi", 5000)
	_, b := jia.next(Push)
	for what, text := range map[string]string{
		"the document id": id, "the sender": w.cast.agencies["jia"], "the recipient": w.cast.agencies["yi"],
		"an item kind": node.KindConsignment, "the label": "internal", "the title": "关于测试的通知",
	} {
		if bytes.Contains(b, []byte(text)) {
			t.Errorf("%s is in clear", what)
		}
	}
}

// TestSentBundlesAreNotKept: of what left over a link no bytes stay behind,
// whether or not it is ever acked (I9).
func TestSentBundlesAreNotKept(t *testing.T) {
	w := newWorld(t)
	jia, _ := w.pair()
	defer runtime.KeepAlive(jia)
	gone := make(chan bool, 1)
	func() {
		w.submit(jia, "yi", 1000)
		o, _ := jia.next(Push)
		if len(o.sealed) == 0 {
			t.Fatal("nothing is sealed")
		}
		runtime.AddCleanup(o, func(c chan bool) { c <- true }, gone)
	}()
	for range 10 {
		runtime.GC()
		select {
		case <-gone:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatal("the session keeps a bundle that has left")
}
