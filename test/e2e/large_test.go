package e2e

import (
	"bytes"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
	"github.com/yizhan-gateway/yizhan/queue/badgerstore"
)

const (
	largeBody = 40 << 20
	// inThird is what has passed of a transfer when its third part is half
	// there: two parts are acknowledged, since a bundle has one part and leaves
	// when the one before is answered.
	inThird = 5 * envelope.PartSize / 2
	// beside is more than everything that is no part: headers, acks, polls, TLS.
	beside = 1 << 20
)

func largeContent(seed byte) []byte {
	b := make([]byte, largeBody)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // it never fails
	return b
}

// raiseUploads lets a node that does not run take large documents in one
// request.
func (p *proc) raiseUploads(t *testing.T) {
	t.Helper()
	config := filepath.Join(p.data, "config.toml")
	b, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	raised := regexp.MustCompile(`(?m)^max_upload = .*`).ReplaceAll(b, fmt.Appendf(nil, "max_upload = %d", 2*largeBody))
	if bytes.Equal(raised, b) {
		t.Fatal("config.toml has no max_upload")
	}
	if err := os.WriteFile(config, raised, 0o600); err != nil {
		t.Fatal(err)
	}
}

// look reads the store of a node that does not run.
func (p *proc) look(t *testing.T, fn func(queue.Tx) error) {
	t.Helper()
	store, err := badgerstore.Open(filepath.Join(p.data, "store"), badgerstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.View(t.Context(), fn); err != nil {
		t.Error(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

// stored tells of a document how many bytes its payload has, how many parts of
// it a node has, and how many its neighbour has acknowledged.
func (p *proc) stored(t *testing.T, id string) (size int64, have, acknowledged int) {
	t.Helper()
	set := func(b []byte) (n int) {
		for _, one := range b {
			n += bits.OnesCount8(one)
		}
		return n
	}
	p.look(t, func(tx queue.Tx) error {
		var hh []byte
		err := records.Envelopes.Each(tx, 0, func(key []byte, e *records.Envelope) bool {
			if e.ID == id {
				size, have, hh = e.Size, set(e.Have), key[len(records.Envelopes.Key()):]
			}
			return true
		})
		if err != nil {
			return err
		}
		return records.Outgoing.Each(tx, 0, func(key []byte, out *records.Outbound) bool {
			if bytes.HasPrefix(key[len(records.Outgoing.Key()):], hh) {
				acknowledged = set(out.Parts)
			}
			return true
		})
	})
	return size, have, acknowledged
}

// TestCutTransferResumes: a transfer that was cut resumes at the last
// acknowledged part. The receiver, then the sender, is killed in the middle of
// the third part; what its store says was acknowledged is not carried again, and
// the document arrives as it was sent.
func TestCutTransferResumes(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: carries large documents between real nodes; scripts/test runs it")
	}
	c, line := gated(t, 0)
	jia, yi := c.nodes[0], c.nodes[1]
	for i, killed := range c.nodes {
		content := largeContent(byte(i))
		line.upTo(inThird)
		id, err := jia.submit(t.Context(), killed.id, yi.agency, "关于档案移交的通知", content)
		if err != nil {
			t.Fatal(err)
		}
		line.awaitHeld()
		killed.kill()
		line.cut()
		size, have, done := killed.stored(t, id)
		if killed == yi {
			done = have // what it has and has acknowledged is the same between two bundles
		}
		if size < largeBody || done != 2 {
			t.Fatalf("%s had %d parts of %d bytes acknowledged when the third was on its way", killed.id, done, size)
		}
		line.upTo(unlimited)
		if err := killed.start(); err != nil {
			t.Fatal(err)
		}
		left := size - int64(done)*envelope.PartSize
		for end := time.Now().Add(2 * time.Minute); yi.stageOf(t, id) != string(exchange.StageDelivered); time.Sleep(20 * time.Millisecond) {
			if line.count() > left+beside || time.Now().After(end) {
				t.Fatalf("%s was killed with %d of %d bytes to come; %d were carried since, and it has not arrived", killed.id, left, size, line.count())
			}
		}
		if carried := line.count(); carried < left || carried > left+beside {
			t.Errorf("%s was killed with %d of %d bytes to come; %d were carried since", killed.id, left, size, carried)
		}
		got, err := yi.call(t.Context(), http.MethodGet, "/v1/inbox/"+id+"/files/0", nil, nil)
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("it arrived with other bytes: %d of %d, %v", len(got), len(content), err)
		}
		t.Logf("%s killed after %d parts: %d bytes of %d were left, %d carried", killed.id, done, left, size, line.count())
	}
	for _, p := range c.nodes {
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
	}
	yi.look(t, func(tx queue.Tx) error {
		books, err := records.BookRows.Get(tx, "jia-yi")
		if err == nil && (books == nil || books.Duplicate > 0 || books.Accepted == 0) {
			t.Errorf("what came to the receiver: %+v; nothing was to come twice", books)
		}
		return err
	})
}

// TestUrgentOvertakesLarge: an urgent small document overtakes large ones on
// the same link, however slow that is: it waits for the part under way and for
// no other. There are two of them, since the next bundle has what the one under way
// has not.
func TestUrgentOvertakesLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: carries a large document between real nodes; scripts/test runs it")
	}
	c, line := gated(t, 16<<20)
	jia, yi := c.nodes[0], c.nodes[1]
	content := largeContent(7)
	line.upTo(envelope.PartSize / 2)
	large, err := jia.submit(t.Context(), "large", yi.agency, "关于档案移交的通知", content)
	if err != nil {
		t.Fatal(err)
	}
	line.awaitHeld() // the first part is half there
	second, err := jia.submit(t.Context(), "second", yi.agency, "关于档案移交的第二号通知", largeContent(8))
	if err != nil {
		t.Fatal(err)
	}
	urgent, err := jia.submitWith(t.Context(), "urgent", map[string]any{"title": "关于防汛的紧急通知", "to": []string{yi.agency}, "label": "内部", "urgency": "特急"}, []byte("正文"))
	if err != nil {
		t.Fatal(err)
	}
	line.letGo()
	yi.waitForStage(t, urgent, string(exchange.StageDelivered))
	before := line.count()
	yi.waitForStage(t, large, string(exchange.StageDelivered))
	yi.waitForStage(t, second, string(exchange.StageDelivered))
	var inbox struct{ Items []inboxItem }
	if err := yi.getJSON(t.Context(), "/v1/inbox", &inbox); err != nil {
		t.Fatal(err)
	}
	if len(inbox.Items) != 3 || inbox.Items[0].Document != urgent {
		t.Errorf("they came as %+v; first was to come %s, then %s and %s", inbox.Items, urgent, large, second)
	}
	if before > largeBody {
		t.Errorf("%d bytes had passed when the urgent one was there, which is all of the large one", before)
	}
	got, err := yi.call(t.Context(), http.MethodGet, "/v1/inbox/"+large+"/files/0", nil, nil)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("the large one arrived with other bytes: %d of %d, %v", len(got), len(content), err)
	}
	t.Logf("the urgent one was there after %d MiB of %d", before>>20, line.count()>>20)
}
