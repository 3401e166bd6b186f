package link

import (
	"bytes"
	"io"
	"slices"
	"testing"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// hop is a link whose first node dials.
func hop(a, b string) certs.Link {
	return certs.Link{ID: a + "-" + b, A: a, B: b, Dialer: a, Kind: "https", Ceiling: "work_secret"}
}

// relayWorld has jia, yi and bing with an agency each, and relays without any key of
// an agency.
func relayWorld(t *testing.T, relays []string, links []certs.Link, routes [][3]string) *world {
	t.Helper()
	c, err := castOf(t.TempDir(), []string{"jia", "yi", "bing"}, relays, links, routes)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w.cast = c
	return w
}

// over is the same node at another of its links.
func (h *host) over(link string) *host {
	h.w.t.Helper()
	other := *h
	s, err := NewSession(h.node, link)
	h.w.must(err)
	other.link, other.Session = link, s
	return &other
}

// countedKeys count what a node does with its private keys.
type countedKeys struct {
	node.Keys
	signed, opened *int
}

func (k countedKeys) Sign(id sm.Digest, msg []byte) ([]byte, error) {
	*k.signed++
	return k.Keys.Sign(id, msg)
}

func (k countedKeys) Unwrap(id sm.Digest, sealed []byte) ([]byte, error) {
	*k.opened++
	return k.Keys.Unwrap(id, sealed)
}

// rowOfRelays: jia – dong – xi – yi.
func rowOfRelays(t *testing.T) *world {
	return relayWorld(t, []string{"dong", "xi"},
		[]certs.Link{hop("jia", "dong"), hop("dong", "xi"), hop("xi", "yi"), hop("jia", "bing")},
		[][3]string{{"jia", "yi", "dong"}, {"dong", "yi", "xi"}, {"yi", "jia", "xi"}, {"xi", "jia", "dong"}})
}

func (w *world) stageOf(from *host, id string) exchange.Stage {
	w.t.Helper()
	tr, err := from.node.Trace(w.ctx, w.cast.agencies[from.id], id)
	w.must(err)
	if !tr.ReceiptsVerified {
		w.t.Fatalf("receipts of %s do not verify: %+v", id, tr)
	}
	return tr.Recipients[0].Stage
}

// TestEveryRelaySaysRelayed: each node in between says that it answers for the
// document; one that keeps it shows as having it, and never as having delivered it.
func TestEveryRelaySaysRelayed(t *testing.T) {
	w := rowOfRelays(t)
	jia, dong, xi, yi := w.host("jia", "jia-dong", nil, nil), w.host("dong", "jia-dong", nil, nil), w.host("xi", "dong-xi", nil, nil), w.host("yi", "xi-yi", nil, nil)
	const documents = 5
	var ids []string
	for range documents {
		ids = append(ids, w.submit(jia, "yi", 100))
	}
	w.exchange(jia, dong)
	if got := w.stageOf(jia, ids[0]); got != exchange.StageRelayed {
		t.Fatalf("dong keeps it, and it shows as %s", got)
	}
	onward := dong.over("dong-xi")
	w.exchange(onward, xi)
	w.exchange(xi.over("xi-yi"), yi)
	yi.delivered(ids...)
	w.exchange(onward, xi)
	w.exchange(jia, dong)
	if got := w.stageOf(jia, ids[0]); got != exchange.StageDelivered {
		t.Fatalf("it shows as %s", got)
	}
	said := map[string]int{}
	tr, err := jia.node.Trace(w.ctx, w.cast.agencies["jia"], ids[3])
	w.must(err)
	for _, e := range tr.Events {
		if e.Stage == exchange.StageRelayed {
			said[e.Node]++
		}
	}
	if len(said) != 2 || said["dong"] != 1 || said["xi"] != 1 {
		t.Errorf("RELAYED was said by %v", said)
	}
}

// TestARelaySignsOncePerDocument: with many in one bundle, one signature for each and
// a few for bundles; nothing is unwrapped but bundles.
func TestARelaySignsOncePerDocument(t *testing.T) {
	w := rowOfRelays(t)
	signed, opened := map[string]*int{}, map[string]*int{}
	w.watch = func(h *host, keys node.Keys) node.Keys {
		signed[h.id], opened[h.id] = new(int), new(int)
		return countedKeys{keys, signed[h.id], opened[h.id]}
	}
	jia, dong := w.host("jia", "jia-dong", nil, nil), w.host("dong", "jia-dong", nil, nil)
	const documents = 40
	for range documents {
		w.submit(jia, "yi", 100)
	}
	_, push := jia.next(Push)
	*signed["dong"], *opened["dong"] = 0, 0
	dong.receive(push)
	dong.work()
	if *signed["dong"] != documents || *opened["dong"] > 1 {
		t.Errorf("for %d documents in one bundle dong signed %d times and unwrapped %d", documents, *signed["dong"], *opened["dong"])
	}
}

// TestARelayHoldsNoPlaintext: neither its rows nor its files have a word of a title or
// a byte of a file, and none of its keys opens a slot.
func TestARelayHoldsNoPlaintext(t *testing.T) {
	w := rowOfRelays(t)
	jia, dong := w.host("jia", "jia-dong", nil, nil), w.host("dong", "jia-dong", nil, nil)
	id := w.submit(jia, "yi", 5000)
	w.exchange(jia, dong)
	secrets := [][]byte{[]byte("关于测试的通知"), []byte("正文.ofd"), w.files[id][0][:64]}
	var refs []queue.Ref
	w.must(dong.store.View(w.ctx, func(tx queue.Tx) error {
		for kv, err := range tx.Scan(nil, nil, 0) {
			w.must(err)
			for _, s := range secrets {
				if bytes.Contains(kv.Value, s) || bytes.Contains(kv.Key, s) {
					t.Errorf("row %q holds plaintext", kv.Key)
				}
			}
		}
		return records.Parts.Each(tx, 0, func(_ []byte, p *records.Part) bool {
			refs = append(refs, p.Ref)
			return true
		})
	}))
	if len(refs) == 0 {
		t.Fatal("dong has no part")
	}
	for _, ref := range refs {
		r, err := dong.blobs.Open(w.ctx, ref, 0)
		w.must(err)
		b, err := io.ReadAll(r)
		w.must(err)
		w.must(r.Close())
		if slices.ContainsFunc(secrets, func(s []byte) bool { return bytes.Contains(b, s) }) {
			t.Errorf("%s holds plaintext", ref)
		}
	}
	w.noSlotOpens(dong)
}

// noSlotOpens tries every key of a node at every slot that it has.
func (w *world) noSlotOpens(h *host) {
	w.t.Helper()
	tried, keys := 0, w.cast.keys[h.id]
	w.must(h.store.View(w.ctx, func(tx queue.Tx) error {
		return records.Incoming.Each(tx, 0, func(_ []byte, c *records.Consignment) bool {
			b, err := c.Body.Load(w.ctx, h.blobs)
			w.must(err)
			item, err := node.ParseConsignment(b)
			w.must(err)
			for _, slot := range item.Slots {
				for _, id := range keys.IDs() {
					tried++
					if _, err := keys.Unwrap(id, slot.Slot); err == nil {
						w.t.Errorf("a key of %s opens a slot", h.id)
					}
				}
			}
			return true
		})
	}))
	if tried == 0 {
		w.t.Fatal("no slot was tried")
	}
}

// rejoining leads jia's documents for yi over dong and those for bing over xi, to he,
// behind which both are.
func rejoining(t *testing.T) *world {
	return relayWorld(t, []string{"dong", "xi", "he"},
		[]certs.Link{hop("jia", "dong"), hop("jia", "xi"), hop("dong", "he"), hop("xi", "he"), hop("he", "yi"), hop("he", "bing")},
		[][3]string{
			{"jia", "yi", "dong"}, {"jia", "bing", "xi"}, {"dong", "yi", "he"}, {"xi", "bing", "he"},
			{"yi", "jia", "he"}, {"bing", "jia", "he"}, {"he", "jia", "dong"},
		})
}

// submitToBoth submits a document of jia's to the agencies of yi and bing.
func (w *world) submitToBoth(jia *host) string {
	w.t.Helper()
	body := []byte("两地同发")
	q := w.submission(jia, "yi", "", body)
	q.Document.To = append(q.Document.To, exchange.Addressee{Agency: w.cast.agencies["bing"]})
	got, err := jia.node.Submit(w.ctx, q)
	w.must(err)
	w.files[got.ID] = [][]byte{body}
	jia.work()
	return got.ID
}

// TestRoutesThatSplitAndRejoin deliver once to each recipient: an envelope to two
// leaves over two relays, which meet at a third. It is carried once to each next hop,
// with the slots that are needed behind it.
func TestRoutesThatSplitAndRejoin(t *testing.T) {
	w := rejoining(t)
	jia, dong, xi := w.host("jia", "jia-dong", nil, nil), w.host("dong", "jia-dong", nil, nil), w.host("xi", "jia-xi", nil, nil)
	he, yi, bing := w.host("he", "dong-he", nil, nil), w.host("yi", "he-yi", nil, nil), w.host("bing", "he-bing", nil, nil)
	id := w.submitToBoth(jia)
	for range 2 { // the second round brings the receipts home
		w.exchange(jia, dong)
		w.exchange(jia.over("jia-xi"), xi)
		w.exchange(dong.over("dong-he"), he)
		w.exchange(xi.over("xi-he"), he.over("xi-he"))
		w.exchange(he.over("he-yi"), yi)
		w.exchange(he.over("he-bing"), bing)
		w.exchange(dong.over("dong-he"), he)
	}
	w.exchange(jia, dong)
	yi.delivered(id)
	bing.delivered(id)
	for _, h := range []*host{dong, xi} {
		if n := w.slotsAt(h); n != 1 {
			t.Errorf("%s has the slots of %d recipients, one is behind it", h.id, n)
		}
	}
	tr, err := jia.node.Trace(w.ctx, w.cast.agencies["jia"], id)
	w.must(err)
	for _, r := range tr.Recipients {
		if r.Stage != exchange.StageDelivered {
			t.Errorf("%s is at %s", r.Agency, r.Stage)
		}
	}
	delivered := 0
	for _, e := range tr.Events {
		if e.Stage == exchange.StageDelivered {
			delivered++
		}
	}
	if delivered != 2 || !tr.ReceiptsVerified {
		t.Errorf("%d receipts say DELIVERED", delivered)
	}
}

// slotsAt counts the recipients' slots that came to a node.
func (w *world) slotsAt(h *host) (n int) {
	w.t.Helper()
	w.must(h.store.View(w.ctx, func(tx queue.Tx) error {
		return records.Incoming.Each(tx, 0, func(_ []byte, c *records.Consignment) bool {
			b, err := c.Body.Load(w.ctx, h.blobs)
			w.must(err)
			item, err := node.ParseConsignment(b)
			w.must(err)
			n += len(item.Slots)
			return true
		})
	}))
	return n
}
