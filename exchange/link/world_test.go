package link

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/guard"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/internal/durable/crashfs"
	"github.com/yizhan-gateway/yizhan/queue/blob"
)

// The tests of this package run real nodes over a store in memory, with real
// keys; only the wire is in the test's hands.

var start = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

// cast is a domain with three nodes, one agency each: jia dials yi, yi and
// bing are neighbours as well.
type cast struct {
	dir       string
	random    *rand.ChaCha8
	authority *certs.Authority
	directory *certs.Directory
	keys      map[string]*keystore.Store
	agencies  map[string]string
}

var castOnce sync.Once
var castMade *cast
var castFailed error

// theCast makes the domain once for all tests: its keys are what takes time.
func theCast(t testing.TB) *cast {
	castOnce.Do(func() { castMade, castFailed = newCast(t.TempDir()) })
	if castFailed != nil {
		t.Fatal(castFailed)
	}
	return castMade
}

func newCast(dir string) (*cast, error) {
	return newCastOver(dir, certs.Link{ID: "jia-yi", A: "jia", B: "yi", Dialer: "jia", Kind: "https", Ceiling: "work_secret"})
}

// newCastOver is newCast with its own links between jia and yi.
func newCastOver(dir string, links ...certs.Link) (*cast, error) {
	links = append(links, certs.Link{ID: "yi-bing", A: "yi", B: "bing", Dialer: "yi", Kind: "https", Ceiling: "work_secret"})
	return castOf(dir, []string{"jia", "yi", "bing"}, nil, links, nil)
}

// stores are keystores that all casts of this process share, each with keys of its own
// in them: to make one takes a second, ten with the race detector.
var stores keystores

type keystores struct {
	mu  sync.Mutex
	dir string
	all map[string]*keystore.Store
}

func (k *keystores) of(id string, pass []byte, random io.Reader) (s *keystore.Store, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.all == nil {
		if k.dir, err = os.MkdirTemp("", "yizhan-link-"); err != nil {
			return nil, err
		}
		k.all = map[string]*keystore.Store{}
	}
	if k.all[id] == nil {
		if k.all[id], err = keystore.Create(filepath.Join(k.dir, id), pass, random); err != nil {
			return nil, err
		}
	}
	return k.all[id], nil
}

func TestMain(m *testing.M) {
	code := m.Run()
	_ = os.RemoveAll(stores.dir)
	os.Exit(code)
}

// castOf is a domain of nodes with one agency each, but for relays, with the links
// and routes (from, to, next) that are given.
func castOf(dir string, serving, relays []string, links []certs.Link, routes [][3]string) (*cast, error) {
	random := rand.NewChaCha8(sha256.Sum256([]byte("link tests")))
	c := &cast{dir: dir, random: random, keys: map[string]*keystore.Store{}, agencies: map[string]string{}}
	pass, begin := []byte("link tests"), start.AddDate(0, -1, 0)
	keysOf := func(id string) (*keystore.Store, error) { return stores.of(id, pass, random) }
	authority, err := certs.InitAuthorityWith(filepath.Join(dir, "ca"), "test", func(string) (*keystore.Store, error) { return keysOf("ca") }, random, begin)
	if err != nil {
		return nil, err
	}
	c.authority = authority
	for i, id := range slices.Concat(serving, relays) {
		if c.keys[id], err = keysOf(id); err != nil {
			return nil, err
		}
		code, err := certs.MakeAgencyCode(fmt.Sprintf("11520000000000%02dX", i))
		if err != nil {
			return nil, err
		}
		var agencies []certs.AgencySpec
		if i < len(serving) {
			c.agencies[id] = string(code)
			agencies = []certs.AgencySpec{{Code: code, Name: "示范单位" + id}}
		}
		spec := certs.NodeSpec{ID: id, Zone: "政务外网", URL: "https://127.0.0.1:1"}
		request, err := certs.NewRequest(c.keys[id], "test", spec, agencies, begin)
		if err != nil {
			return nil, err
		}
		parsed, err := certs.ParseRequest(request)
		if err == nil {
			err = authority.Admit(parsed, begin)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, l := range links {
		if err := authority.AddLink(l); err != nil {
			return nil, err
		}
	}
	for _, r := range routes {
		if err := authority.AddRoute(r[0], r[1], r[2]); err != nil {
			return nil, err
		}
	}
	if len(links) > 0 && links[0].OneWay != "" { // then CONFIRMED needs somebody to sign it
		if c.keys["zhang-san"], err = keysOf("zhang-san"); err != nil {
			return nil, err
		}
		if err := authority.AddAdministrator("zhang-san", "张三", c.keys["zhang-san"], begin); err != nil {
			return nil, err
		}
	}
	file, err := authority.Publish(begin)
	if err != nil {
		return nil, err
	}
	c.directory, err = certs.LoadDirectory(file, authority.Certificate(), 0, start)
	return c, err
}

// world is one test's nodes, clock and randomness.
type world struct {
	t     testing.TB
	ctx   context.Context
	cast  *cast
	rand  *lockedRand
	clock time.Time
	files map[string][][]byte                     // by document id
	watch func(h *host, keys node.Keys) node.Keys // nil: the keys as they are

	together  func(n int, do func(int)) // of the hosts' nodes; nil: in order
	inspector node.Inspector            // of all nodes
}

type lockedRand struct {
	mu sync.Mutex
	r  *rand.ChaCha8
}

func (l *lockedRand) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Read(p)
}

func newWorld(t testing.TB) *world {
	return &world{
		t: t, ctx: context.Background(), cast: theCast(t), clock: start, files: map[string][][]byte{},
		rand: &lockedRand{r: rand.NewChaCha8(sha256.Sum256([]byte(t.Name())))},
	}
}

// host is a node with its disk and its end of a link.
type host struct {
	w     *world
	id    string
	link  string
	store *memory
	blobs *blob.Store
	node  *node.Node
	shelf *shelf
	full  bool // its disk has no room for new work
	guard *guard.Policies
	*Session
}

// host starts a node over a store; nil is an empty one.
func (w *world) host(id, link string, store *memory, blobs *blob.Store) *host {
	w.t.Helper()
	h := &host{w: w, id: id, link: link, store: store, blobs: blobs, shelf: &shelf{cast: w.cast, inForce: w.cast.directory}}
	if store == nil {
		h.store = newMemory()
	}
	if blobs == nil {
		var err error
		h.blobs, err = blob.OpenSized(crashfs.New(rand.New(rand.NewPCG(1, 2))), "blobs", 64<<10)
		w.must(err)
	}
	h.restart()
	return h
}

// restart is a new process over the same disk.
func (h *host) restart() {
	h.w.t.Helper()
	var err error
	keys := node.Keys(h.w.cast.keys[h.id].WithRandom(h.w.rand))
	if h.w.watch != nil {
		keys = h.w.watch(h, keys)
	}
	h.node, err = node.New(h.w.ctx, node.Config{
		ID: h.id, Store: h.store, Blobs: h.blobs, Keys: keys,
		Directory: func() *certs.Directory { return h.shelf.inForce }, Directories: h.shelf,
		Now: func() time.Time { return h.w.clock }, Rand: h.w.rand, Clock: "test", Together: h.w.together, Room: h.room, Inspector: h.w.inspector, Guard: h.guard,
	})
	h.w.must(err)
	h.Session, err = NewSession(h.node, h.link)
	h.w.must(err)
}

func (h *host) room() error {
	if h.full {
		return exchange.Fail(exchange.CodeNoSpace, "")
	}
	return nil
}

func (w *world) pair() (jia, yi *host) {
	return w.host("jia", "jia-yi", nil, nil), w.host("yi", "jia-yi", nil, nil)
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// submit hands in a document of one file from a node's agency to another's, and
// distributes it.
func (w *world) submit(from *host, to string, size int) string {
	w.t.Helper()
	id := w.accept(from, to, size)
	from.work()
	return id
}

func (w *world) accept(from *host, to string, size int) string {
	w.t.Helper()
	body := make([]byte, size)
	_, err := w.rand.Read(body)
	w.must(err)
	got, err := from.node.Submit(w.ctx, w.submission(from, to, "", body))
	w.must(err)
	w.files[got.ID] = [][]byte{body}
	return got.ID
}

// submission is a document of one file.
func (w *world) submission(from *host, to, key string, body []byte) node.Submission {
	return node.Submission{
		Agency: w.cast.agencies[from.id], IdempotencyKey: key,
		Document: exchange.Document{
			Label: exchange.Internal, Kind: exchange.Official, Urgency: exchange.Normal, Title: "关于测试的通知",
			To: []exchange.Addressee{{Agency: w.cast.agencies[to]}},
		},
		Files: func(yield func(envelope.File, error) bool) {
			yield(envelope.File{Role: envelope.RoleBody, Name: "正文.ofd", Type: "application/ofd", Content: bytes.NewReader(body)}, nil)
		},
	}
}

func (h *host) work() {
	h.w.t.Helper()
	for {
		did, err := h.node.Work(h.w.ctx)
		h.w.must(err)
		if !did {
			return
		}
	}
}

// next makes a bundle and its bytes; nil when nothing is to be said.
func (h *host) next(kind Kind) (*Outgoing, []byte) {
	h.w.t.Helper()
	o, err := h.Next(h.w.ctx, kind)
	h.w.must(err)
	if o == nil {
		return nil, nil
	}
	return o, h.written(o)
}

func (h *host) written(o *Outgoing) []byte {
	h.w.t.Helper()
	var b bytes.Buffer
	n, err := o.WriteTo(&b)
	h.w.must(err)
	if n != o.Size() || int64(b.Len()) != o.Size() {
		h.w.t.Fatalf("a bundle announced %d bytes, wrote %d and says %d", o.Size(), b.Len(), n)
	}
	return b.Bytes()
}

func (h *host) receive(b []byte) *Received {
	h.w.t.Helper()
	got, err := h.Receive(h.w.ctx, bytes.NewReader(b))
	h.w.must(err)
	return got
}

// refused expects a bundle that cannot be used as a whole, for a reason.
func (h *host) refused(b []byte, reason string) {
	h.w.t.Helper()
	before := h.store.facts()
	_, err := h.Receive(h.w.ctx, bytes.NewReader(b))
	if !errors.Is(err, ErrFault) || !strings.Contains(err.Error(), reason) {
		h.w.t.Fatalf("got %v, want a link fault saying %q", err, reason)
	}
	if !sameRows(before, h.store.facts()) {
		h.w.t.Fatal("a refused bundle left something behind")
	}
}

func sameRows(a, b map[string][]byte) bool { return maps.EqualFunc(a, b, bytes.Equal) }

// outcomes are those of the bundle received last.
func (h *host) outcomes() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.acks) == 0 {
		return nil
	}
	return statuses(h.acks[len(h.acks)-1])
}

func statuses(a Ack) []string {
	out := make([]string, len(a.Items))
	for i, item := range a.Items {
		out[i] = item.Status
	}
	return out
}

func (h *host) quarantined() []string {
	h.w.t.Helper()
	rows, err := h.node.Quarantined(h.w.ctx, 1000)
	h.w.must(err)
	var out []string
	for _, r := range rows {
		what, _, _ := strings.Cut(r.What, " ")
		out = append(out, what+": "+r.Reason)
	}
	return out
}

// exchange pushes and polls until neither side has anything more to give.
func (w *world) exchange(dialer, listener *host) {
	w.t.Helper()
	for range 50 {
		w.clock = w.clock.Add(10 * time.Second) // past the pause of what was damaged
		push, b := dialer.next(Push)
		if push != nil {
			listener.receive(b)
			_, reply := listener.next(Reply)
			dialer.receive(reply)
		}
		listener.work()
		_, b = dialer.next(Poll)
		listener.receive(b)
		answer, b := listener.next(Answer)
		if answer != nil {
			dialer.receive(b)
		}
		dialer.work()
		if push == nil && answer == nil {
			return
		}
	}
	w.t.Fatal("the exchange does not come to rest")
}

// delivered checks that exactly these documents are in the inbox of a node's
// agency, each once and with the files that were sent.
func (h *host) delivered(ids ...string) {
	h.w.t.Helper()
	agency := h.w.cast.agencies[h.id]
	items, err := h.node.Inbox(h.w.ctx, agency, 0, 1000)
	h.w.must(err)
	var got []string
	for _, item := range items {
		got = append(got, item.ID)
	}
	want := slices.Clone(ids)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		h.w.t.Fatalf("%s has the documents %v, want %v", h.id, got, want)
	}
	for _, id := range ids {
		opened, err := h.node.Collect(h.w.ctx, agency, id)
		h.w.must(err)
		for i, content := range h.w.files[id] {
			r, err := opened.File(h.w.ctx, i)
			h.w.must(err)
			b, err := io.ReadAll(r)
			h.w.must(err)
			if !bytes.Equal(b, content) {
				h.w.t.Fatalf("file %d of %s arrived with other bytes", i, id)
			}
		}
	}
}

// forge makes a bundle of one's own items, as a neighbour of another make or
// another mind would.
func (h *host) forge(change func(*Inner), items ...forged) []byte {
	h.w.t.Helper()
	o := &Outgoing{s: h.Session, kind: Push}
	for _, f := range items {
		out := node.Out{Item: f.Item, Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(f.bytes)), nil
		}}
		out.Size = int64(len(f.bytes))
		o.outs = append(o.outs, out)
	}
	in, small, err := h.inner(h.w.ctx, o)
	h.w.must(err)
	if change != nil {
		change(in)
	}
	section, err := joinSection(in, small)
	h.w.must(err)
	h.number(o)
	h.w.must(o.finish(section))
	h.remember(o)
	return h.written(o)
}

type forged struct {
	node.Item
	bytes []byte
}
