package link

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/guard"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// boundary is three nodes in a row: jia sends, yi is the node at the boundary, bing
// receives. over is yi's end of the link to bing.
type boundary struct {
	*world
	jia, yi, over, bing *host
	admins              map[string]*keystore.Store
}

// theBoundary is the domain of the tests that leave the directory as it is.
var theBoundary struct {
	sync.Mutex
	cast   *cast
	admins map[string]*keystore.Store
}

func newBoundary(t *testing.T) *boundary {
	theBoundary.Lock()
	defer theBoundary.Unlock()
	w := newWorld(t)
	if theBoundary.cast == nil {
		b := ownBoundary(t)
		theBoundary.cast, theBoundary.admins = b.cast, b.admins
	}
	w.cast = theBoundary.cast
	b := &boundary{world: w, admins: theBoundary.admins}
	b.hosts()
	return b
}

// ownBoundary has a domain of its own, with administrators zhang and li.
func ownBoundary(t *testing.T) *boundary {
	w := ownWorld(t)
	b := &boundary{world: w, admins: map[string]*keystore.Store{}}
	w.must(w.cast.authority.AddRoute("jia", "bing", "yi"))
	w.must(w.cast.authority.AddRoute("bing", "jia", "yi"))
	for _, id := range []string{"zhang", "li"} {
		keys, err := stores.of(id, []byte("link tests"), w.rand)
		w.must(err)
		w.must(w.cast.authority.AddAdministrator(id, "管理员"+id, keys, start.AddDate(0, -1, 0)))
		b.admins[id] = keys
	}
	w.publish()
	b.hosts()
	return b
}

func (b *boundary) hosts() {
	b.jia, b.yi, b.bing = b.host("jia", "jia-yi", nil, nil), b.host("yi", "jia-yi", nil, nil), b.host("bing", "yi-bing", nil, nil)
	b.restart()
}

// policy gives a node a policy, and starts it anew.
func (b *boundary) policy(h *host, toml string) {
	b.t.Helper()
	var err error
	h.guard, err = guard.Parse("guard.toml", []byte(toml))
	b.must(err)
	h.restart()
	b.restart()
}

// restart makes yi's end of the other link over what is yi now.
func (b *boundary) restart() {
	b.t.Helper()
	s, err := NewSession(b.yi.node, "yi-bing")
	b.must(err)
	over := *b.yi
	over.link, over.Session = "yi-bing", s
	b.over = &over
}

// flow exchanges over both links until nothing moves.
func (b *boundary) flow() {
	b.t.Helper()
	b.exchange(b.jia, b.yi)
	b.exchange(b.over, b.bing)
	b.exchange(b.jia, b.yi)
}

// send submits a document of a size to several.
func (b *boundary) send(change func(*node.Submission), size int, to ...string) string {
	b.t.Helper()
	got, err := b.trySend(change, size, to...)
	b.must(err)
	b.jia.work()
	return got.ID
}

func (b *boundary) trySend(change func(*node.Submission), size int, to ...string) (*node.Accepted, error) {
	body := bytes.Repeat([]byte("公文"), size/6+1)[:size]
	s := b.submission(b.jia, to[0], "", body)
	for _, id := range to[1:] {
		s.Document.To = append(s.Document.To, exchange.Addressee{Agency: b.cast.agencies[id]})
	}
	if change != nil {
		change(&s)
	}
	got, err := b.jia.node.Submit(b.ctx, s)
	if err == nil {
		b.files[got.ID] = [][]byte{body}
	}
	return got, err
}

// stages are how the sender sees each recipient, by name.
func (b *boundary) stages(id string) (out []string) {
	b.t.Helper()
	tr, err := b.jia.node.Trace(b.ctx, b.cast.agencies["jia"], id)
	b.must(err)
	if !tr.ReceiptsVerified || !tr.LedgerVerified {
		b.t.Fatalf("receipts verified %v, ledger %v", tr.ReceiptsVerified, tr.LedgerVerified)
	}
	for _, r := range tr.Recipients {
		for name, code := range b.cast.agencies {
			if code == r.Agency {
				out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s", name, r.Stage, r.Reason)))
			}
		}
	}
	slices.Sort(out)
	return out
}

func (b *boundary) sound() {
	b.t.Helper()
	for _, h := range []*host{b.jia, b.yi, b.bing} {
		if r := h.check(); !r.OK {
			b.t.Fatalf("%s: %+v", h.id, r.Problems)
		}
	}
}

// only gives the one event of a stage.
func (h *host) only(id string, stage exchange.Stage) node.Event {
	h.w.t.Helper()
	tr, err := h.node.Trace(h.w.ctx, h.w.cast.agencies[h.id], id)
	h.w.must(err)
	list := slices.DeleteFunc(tr.Events, func(e node.Event) bool { return e.Stage != stage })
	if len(list) != 1 {
		h.w.t.Fatalf("%d receipts say %s", len(list), stage)
	}
	return list[0]
}

const between = "[[link]]\nlink = \"%s\"\ndirection = \"%s\"\n%s\n"
